"""What is wrong with the templates of one definition: they do not parse, or name what is not there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from types import MappingProxyType

from llmops.definitions.chain import (
    STEP_PARTS,
    Chain,
    Step,
    dependencies,
    find_cycle,
    templates_in,
    templates_of,
)
from llmops.definitions.documents import Document, Location
from llmops.definitions.experiment import Experiment
from llmops.definitions.prompt import ConversationBlock, ExamplesBlock, ImageTemplate, Prompt, TextMessage
from llmops.definitions.templates import Template, TemplateError, parse_template
from llmops.errors import Finding, nearest

JUDGED = frozenset({"output", "expected", "inputs", "metadata", "steps"})
"""What the expressions of an evaluator see."""


def prompt_findings(prompt: Prompt, document: Document) -> list[Finding]:
    """Return what is wrong with a prompt's templates, with the line of the file."""
    found: list[Finding] = []
    for index, message in enumerate(prompt.messages):
        place = ("messages", index)
        if isinstance(message, ExamplesBlock):
            # An example's own inputs belong to the dataset it comes from: `check` holds them against that.
            found += template_findings(document, (*place, "user"), message.user, None)
            found += template_findings(document, (*place, "assistant"), message.assistant, None)
        elif isinstance(message, ConversationBlock):
            found += _conversation_findings(prompt, document, (*place, "conversation"), message)
        else:
            found += _message_findings(prompt, document, (*place, "content"), message)
    return found


def _conversation_findings(
    prompt: Prompt, document: Document, place: Location, block: ConversationBlock
) -> list[Finding]:
    found = template_findings(document, place, block.conversation, prompt.inputs.keys())
    template = _parsed(block.conversation)
    if not found and template is not None and not template.is_expression:
        hint = "write one expression, as in {{ history }}, whose value is a list of {role, content}"
        found.append(document.finding(place, "a conversation comes from an input of type messages", hint))
    return found


def _message_findings(
    prompt: Prompt, document: Document, place: Location, message: TextMessage
) -> Iterator[Finding]:
    for index, part in enumerate(message.parts):
        at = place if isinstance(message.content, str) else (*place, index)
        if isinstance(part, ImageTemplate):
            yield from _image_findings(prompt, document, (*at, "image"), part)
            continue
        at = at if isinstance(message.content, str) else (*at, "text")
        yield from template_findings(document, at, part.text, prompt.inputs.keys())
        template = _parsed(part.text)
        for name in sorted(template.variables if template is not None else ()):
            if prompt.inputs.get(name) == "image":
                hint = f'give it a part of its own: - image: "{{{{ {name} }}}}"'
                yield document.finding(at, f"{name!r} is an image, and stands in text", hint)


def _image_findings(
    prompt: Prompt, document: Document, place: Location, part: ImageTemplate
) -> Iterator[Finding]:
    """Yield why a part shows no image: a case may choose the image, and never what is taken for one."""
    if part.constant is not None:
        return
    found = template_findings(document, place, part.image, prompt.inputs.keys())
    yield from found
    name = part.image.strip().removeprefix("{{").removesuffix("}}").strip()
    if not found and prompt.inputs.get(name) != "image":
        hint = 'write "{{ NAME }}", with `NAME: image` among the inputs; or a file of the project'
        yield document.finding(place, "an image comes from an input of type image", hint)


def chain_findings(chain: Chain, document: Document) -> list[Finding]:
    """Return what is wrong with a chain's names, templates and graph, with the line of the file."""
    found = list(_same_names(chain, document))
    gives = {step.id: ("output", *STEP_PARTS.get(step.verb, ())) for step in chain.steps}
    for index, step in enumerate(chain.steps):
        found += _step_findings(chain, index, step, gives, document)
    for location, source in templates_in(chain.outputs):
        place = ("outputs", *location)
        found += template_findings(document, place, source, {*chain.inputs, *gives}, steps=gives)
    if not found and (cycle := find_cycle(dependencies(chain))):
        at = next(index for index, step in enumerate(chain.steps) if step.id == cycle[0])
        found.append(document.finding(("steps", at), f"steps wait for one another: {' -> '.join(cycle)}"))
    return found


def _same_names(chain: Chain, document: Document) -> Iterator[Finding]:
    seen = dict.fromkeys(chain.inputs, "an input")
    for index, step in enumerate(chain.steps):
        if step.id in seen:
            message = f"{seen[step.id]} is called {step.id!r} already"
            yield document.finding(
                ("steps", index, "id"), message, "inputs and steps all have different names"
            )
        seen[step.id] = "a step"


def _step_findings(
    chain: Chain, index: int, step: Step, gives: Mapping[str, Sequence[str]], document: Document
) -> Iterator[Finding]:
    others = {name: parts for name, parts in gives.items() if name != step.id}
    for location, source, names in templates_of(step):
        place = ("steps", index, *location)
        template = _parsed(source)
        allowed = {*chain.inputs, *others, *names}
        if template is not None and step.id in template.variables - allowed:
            yield document.finding(place, f"step {step.id!r} refers to itself")
        else:
            yield from template_findings(document, place, source, allowed, steps=others)


def experiment_findings(experiment: Experiment, document: Document) -> list[Finding]:
    """Return what is wrong with an experiment's own expressions."""
    found: list[Finding] = []
    for index, use in enumerate(experiment.evaluators):
        for key in ("output", "expected"):
            source = getattr(use, key)
            if source is not None:
                place = ("evaluators", index, use.kind, key)
                found += template_findings(document, place, source, JUDGED)
    return found


def template_findings(
    document: Document,
    location: Location,
    source: str,
    allowed: Set[str] | None,
    *,
    steps: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> list[Finding]:
    """Return the finding of a template that does not parse, or one for each name it uses that is not there.

    allowed: the names there are; None for any. steps: those of them that are steps, with what each gives.
    """
    try:
        template = parse_template(source)
    except TemplateError as error:
        return [_in_template(document, location, source, error)]
    unknown = template.variables - allowed if allowed is not None else frozenset()
    known = f"names here: {', '.join(sorted(allowed or ())) or 'none'}"
    found = [
        document.finding(location, f"{name!r} is not defined here", nearest(name, allowed or ()) or known)
        for name in sorted(unknown)
    ]
    for name, *keys in sorted(template.paths):
        if name in steps and keys and keys[0] not in steps[name]:
            hint = nearest(keys[0], steps[name]) or f"write {name}.output"
            found.append(document.finding(location, f"step {name!r} gives no {keys[0]!r}", hint))
    return found


def _in_template(document: Document, location: Location, source: str, error: TemplateError) -> Finding:
    finding = document.finding(location, str(error))
    is_block = "\n" in source.rstrip("\n")
    if finding.line is None or error.line is None or not is_block:
        return finding
    return Finding(finding.path, finding.line + error.line, None, finding.message, finding.hint)


def _parsed(source: str) -> Template | None:
    try:
        return parse_template(source)
    except TemplateError:
        return None
