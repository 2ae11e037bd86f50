"""What is wrong with a prompt: its templates, its model and parameters, and where its examples come from."""

from __future__ import annotations

from collections.abc import Iterator

from llmops.check.models import image_findings, model_findings
from llmops.definitions.dataset import Dataset
from llmops.definitions.documents import Document
from llmops.definitions.expressions import prompt_findings
from llmops.definitions.prompt import ExamplesBlock, ImageTemplate, Prompt, TextMessage
from llmops.definitions.templates import TemplateError, parse_template
from llmops.definitions.workspace import Workspace
from llmops.errors import DefinitionError, Finding, LlmopsError, nearest


def check_prompt(workspace: Workspace, name: str) -> list[Finding]:
    """Return what is wrong with a prompt."""
    prompt = workspace.unchecked(Prompt, "prompt", name)
    document = workspace.document("prompt", name)
    found = prompt_findings(prompt, document)
    found += model_findings(workspace, document, (), prompt.model, prompt.parameters.given())
    for index, message in enumerate(prompt.messages):
        if isinstance(message, ExamplesBlock):
            found += _examples_findings(workspace, document, index, message)
        elif isinstance(message, TextMessage):
            found += _named_image_findings(workspace, document, index, message)
    if prompt.shows_images:
        found += image_findings(workspace, document, (), prompt.model)
    return found


def _named_image_findings(
    workspace: Workspace, document: Document, index: int, message: TextMessage
) -> Iterator[Finding]:
    for number, part in enumerate(message.parts):
        if isinstance(part, ImageTemplate) and part.constant is not None:
            try:
                workspace.images.look_at(part.constant)
            except LlmopsError as error:
                place = ("messages", index, "content", number, "image")
                yield document.finding(place, str(error))


def _examples_findings(
    workspace: Workspace, document: Document, index: int, block: ExamplesBlock
) -> list[Finding]:
    try:
        dataset, split = workspace.cases(block.examples.source)
    except DefinitionError as error:
        return list(error.findings)
    except LlmopsError as error:
        return [document.finding(("messages", index, "examples", "from"), str(error))]
    return list(_turn_findings(document, index, block, dataset, split))


def _turn_findings(
    document: Document, index: int, block: ExamplesBlock, dataset: Dataset, split: str | None
) -> Iterator[Finding]:
    names = dataset.input_names(split)
    used = {key: _names_used(getattr(block, key)) for key in ("user", "assistant")}
    for key, looked_up in used.items():
        for name in sorted(looked_up - {"expected"} - names):
            hint = nearest(name, names) or f"they have: {', '.join(sorted(names))}"
            message = f"the examples of {block.examples.source} have no input {name!r}"
            yield document.finding(("messages", index, key), message, hint)
        for name in sorted(looked_up):
            if dataset.definition.inputs.get(name) == "image":
                hint = "examples show texts; leave it out, or show the image in a message"
                yield document.finding(
                    ("messages", index, key), f"{name!r} is an image, and stands in text", hint
                )
    if "expected" in used["user"] | used["assistant"]:
        empty = next((case.id for case in dataset.of(split) if case.expected is None), None)
        if empty is not None:
            place = ("messages", index, "examples", "from")
            yield document.finding(place, f"example {empty!r} has no expected answer to show")


def _names_used(source: str) -> frozenset[str]:
    try:
        return parse_template(source).variables
    except TemplateError:
        return frozenset()  # told where the template is read
