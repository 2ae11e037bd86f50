"""What is wrong with a chain: references, functions, overrides, and inputs that do not fit between steps."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

from llmops.check.agents import agent_findings, tool_findings
from llmops.check.guards import guard_findings
from llmops.check.indexes import retrieve_findings
from llmops.check.models import program_findings
from llmops.definitions.chain import Branch, Chain, Tool, Use
from llmops.definitions.documents import Document, Location
from llmops.definitions.expressions import chain_findings
from llmops.definitions.reference import Kind
from llmops.definitions.schemas import InputTypes
from llmops.definitions.templates import TemplateError, parse_template
from llmops.definitions.workspace import Resolved, Workspace
from llmops.errors import DefinitionError, Finding, LlmopsError, nearest
from llmops.steps import open_program
from llmops.steps.overrides import Overrides


def check_chain(workspace: Workspace, name: str) -> list[Finding]:
    """Return what is wrong with a chain."""
    chain = workspace.unchecked(Chain, "chain", name)
    document = workspace.document("chain", name)
    found = chain_findings(chain, document)
    is_wired = not found
    for index, step in enumerate(chain.steps):
        found += _caught_findings(workspace, document, ("steps", index), step, chain)
    if is_wired:
        try:
            workspace.identity("chain", name)  # refuses chains that use one another in a circle
        except DefinitionError:
            pass  # the step that uses what is broken has told so
        except LlmopsError as error:
            if not found:
                found.append(document.finding(("steps",), str(error)))
    return found


def _caught_findings(
    workspace: Workspace, document: Document, place: Location, use: Use, chain: Chain
) -> list[Finding]:
    """Return the same as `_use_findings`, what it raises as a finding at the verb."""
    try:
        return _use_findings(workspace, document, place, use, chain)
    except DefinitionError as error:
        return list(error.findings)
    except LlmopsError as error:
        return [document.finding((*place, use.verb), str(error))]


def _use_findings(
    workspace: Workspace, document: Document, place: Location, use: Use, chain: Chain
) -> list[Finding]:
    """Return what is wrong with what a step uses, the verbs inside it included. place: where the use stands."""
    found = tool_findings(workspace, document, place, use) if isinstance(use, Tool) else []
    if use.retrieve is not None:
        return found + retrieve_findings(workspace, document, place, use.retrieve)
    if use.body is not None:
        if use.guard is not None:
            found += guard_findings(workspace, document, (*place, "guard"), use.guard)
        if use.branch is not None:
            found += _condition_findings(document, (*place, "branch"), use.branch)
        for inner in use.body.uses():
            at = (*place, use.verb, *inner.place)
            found += _caught_findings(workspace, document, at, inner.use, chain)
        return found + (agent_findings(workspace, document, place, use) if use.agent and not found else [])
    if isinstance(use, Tool) and use.python is not None:
        return found  # what it takes is in its description
    if use.python is not None:
        node = workspace.code.function_node(use.python)
        return [] if node.decorator_list else list(_function_findings(document, place, use, node.args))
    kind: Kind = "prompt" if use.prompt is not None else "chain"
    resolved = workspace.resolve(kind, use.target)
    used: InputTypes = getattr(resolved.workspace, kind)(resolved.name).inputs
    if not isinstance(use, Tool):
        found += _given_findings(document, place, use, used, chain)
    return found + _override_findings(workspace, document, place, use, resolved)


def _condition_findings(document: Document, place: Location, branch: Branch) -> Iterator[Finding]:
    for index, arm in enumerate(branch.when):
        at = (*place, "when", index, "if")
        try:
            template = parse_template(arm.condition)
        except TemplateError:
            continue  # told where the template is read
        if not template.is_expression:
            yield document.finding(at, "a condition is one expression, as in {{ score.output > 3 }}")
        elif not template.variables:
            yield document.finding(at, "this condition looks at nothing of the case, and is always the same")


def _override_findings(
    workspace: Workspace, document: Document, place: Location, step: Use, resolved: Resolved
) -> list[Finding]:
    overrides = Overrides(step.model, step.parameters.given(), step.set)
    try:
        program = open_program(resolved, overrides, seed=0)
    except DefinitionError:
        raise
    except LlmopsError as error:
        return [document.finding((*place, "set" if step.set else step.verb), str(error))]
    return program_findings(workspace, document, place, program)


def _given_findings(
    document: Document, place: Location, step: Use, inputs: InputTypes, chain: Chain
) -> Iterator[Finding]:
    for name in inputs:
        if name not in step.arguments:
            hint = f'write {name} under `with:`, as in {name}: "{{{{ ... }}}}"'
            message = f"{step.target} is given no {name!r}"
            yield document.finding((*place, "with"), message, hint)
    for name, value in step.arguments.items():
        at = (*place, "with", name)
        if name not in inputs:
            hint = nearest(name, inputs) or f"its inputs: {', '.join(inputs) or 'none'}"
            yield document.finding(at, f"{step.target} takes no {name!r}", hint)
        elif misfit := _type_misfit(value, inputs[name], chain):
            yield document.finding(at, f"{step.target} takes {name} as {misfit}")


def _type_misfit(value: object, wanted: str | Mapping[str, object], chain: Chain) -> str | None:
    """Say how a chain's input passed on as it is does not fit; what a step gives is known only when it ran."""
    if not isinstance(value, str) or not isinstance(wanted, str):
        return None
    try:
        template = parse_template(value)
    except TemplateError:
        return None  # told where the template is read
    given = chain.inputs.get(value.strip().strip("{}").strip()) if template.is_expression else "string"
    if not isinstance(given, str) or "any" in {given, wanted} or given == wanted:
        return None
    return None if (given, wanted) == ("integer", "number") else f"{wanted}, and this is {given}"


def _function_findings(
    document: Document, place: Location, step: Use, arguments: ast.arguments
) -> Iterator[Finding]:
    given = (*place, "with")
    for argument in arguments.posonlyargs:
        message = f"{step.python} takes {argument.arg!r} by position only; inputs are given by name"
        yield document.finding((*place, "python"), message)
    names = [argument.arg for argument in (*arguments.args, *arguments.kwonlyargs)]
    for name in required_names(arguments):
        if name in names and name not in step.arguments:
            yield document.finding(given, f"{step.python} needs {name!r}, and `with` does not give it")
    for name in step.arguments if arguments.kwarg is None else ():
        if name not in names:
            hint = nearest(name, names) or f"it takes: {', '.join(names) or 'nothing'}"
            yield document.finding((*given, name), f"{step.python} takes no {name!r}", hint)


def required_names(arguments: ast.arguments) -> list[str]:
    """Return the names of a function's parameters that have no default."""
    positional = [*arguments.posonlyargs, *arguments.args]
    required = positional[: len(positional) - len(arguments.defaults)]
    keyword = [
        argument
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        if default is None
    ]
    return [argument.arg for argument in (*required, *keyword)]
