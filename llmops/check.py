"""Workspace -> findings: what is wrong with definitions, references, templates and data, before anything runs.

Reads files only. It needs no key, no model and no network, and it never executes the project's own Python.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from llmops.definitions.chain import Chain, Step
from llmops.definitions.dataset import Dataset, leaks
from llmops.definitions.experiment import MEASURED, EvaluatorUse, Experiment, Gate, expand
from llmops.definitions.prompt import ExamplesBlock, Prompt
from llmops.definitions.documents import Document
from llmops.definitions.reference import FOLDERS, Kind
from llmops.definitions.schemas import InputTypes
from llmops.definitions.templates import parse_template
from llmops.definitions.workspace import PROJECT_FILE, Workspace
from llmops.errors import DefinitionError, Finding, LlmopsError, nearest
from llmops.evaluators import evaluator_class
from llmops.models import model_class
from llmops.steps import Overrides, open_program, project_model
from llmops.steps.base import Program
from llmops.steps.chain import ChainProgram
from llmops.steps.prompt import PromptProgram

MAX_LEAKS = 5
ALLOWED_LOCATION = tuple[str | int, ...]


def check_workspace(workspace: Workspace, targets: Sequence[tuple[Kind, str]] | None = None) -> list[Finding]:
    """Return every finding in the given definitions, or in the whole project, in the order of path and line."""
    found: list[Finding] = []
    if targets is None:
        found += _caught(PROJECT_FILE, lambda: check_project(workspace))
        targets = [(kind, name) for kind in FOLDERS for name in workspace.names(kind)]
    if found:
        return _ordered(found)
    for kind, name in targets:
        path = workspace.path(kind, name)
        found += _caught(path, lambda kind=kind, name=name: _CHECKS[kind](workspace, name))  # type: ignore[misc]
    return _ordered(found)


def _ordered(found: Sequence[Finding]) -> list[Finding]:
    unique = dict.fromkeys(found)
    return sorted(unique, key=lambda finding: (finding.path, finding.line or 0, finding.column or 0))


def _caught(path: str, look: Callable[[], list[Finding]]) -> list[Finding]:
    """Turn what loading raises into findings, so that one broken file does not hide the others."""
    try:
        return look()
    except DefinitionError as error:
        return list(error.findings)
    except LlmopsError as error:
        return [Finding(path, None, None, str(error))]


def check_project(workspace: Workspace) -> list[Finding]:
    """Return what is wrong in llmops.yaml: providers that do not exist, models that lack what theirs needs."""
    found = []
    for name, definition in workspace.project.models.items():
        try:
            model_class(definition.provider)
        except LlmopsError as error:
            found.append(Finding(PROJECT_FILE, None, None, f"model {name}: {error}"))
    return found


def check_prompt(workspace: Workspace, name: str) -> list[Finding]:
    """Return what is wrong with a prompt: its model, its parameters, and where its examples come from."""
    prompt = workspace.prompt(name)
    document = workspace.document("prompt", name)
    found = _model_findings(workspace, document, ("model",), prompt.model, prompt.parameters.given())
    for index, message in enumerate(prompt.messages):
        if isinstance(message, ExamplesBlock):
            found += _examples_findings(workspace, document, index, prompt, message)
    return found


def _model_findings(
    workspace: Workspace, document: Document, place: ALLOWED_LOCATION, model: str, parameters: Mapping[str, Any]
) -> list[Finding]:
    try:
        definition = project_model(workspace, model)
        takes = model_class(definition.provider).parameters
    except LlmopsError as error:
        return [document.finding(place, str(error))]
    return [
        document.finding(
            (*place[:-1], "parameters", key),
            f"model {model} ({definition.provider}) takes no {key}",
            f"it takes: {', '.join(sorted(takes))}",
        )
        for key in parameters
        if key not in takes
    ]


def _examples_findings(
    workspace: Workspace, document: Document, index: int, prompt: Prompt, block: ExamplesBlock
) -> list[Finding]:
    place = ("messages", index, "examples")
    try:
        dataset, split = workspace.cases(block.examples.source)
    except DefinitionError:
        raise
    except LlmopsError as error:
        return [document.finding((*place, "from"), str(error))]
    found = []
    declared = set(dataset.definition.inputs) or set(dataset.cases[0].inputs)
    for key in ("user", "assistant"):
        for used in sorted(parse_template(getattr(block, key)).variables - {"expected"} - declared):
            found.append(
                document.finding(
                    ("messages", index, key),
                    f"the examples of {block.examples.source} have no input {used!r}",
                    nearest(used, declared) or f"they have: {', '.join(sorted(declared))}",
                )
            )
    if "expected" in parse_template(block.assistant).variables:
        empty = [case.id for case in dataset.of(split) if case.expected is None]
        if empty:
            found.append(
                document.finding((*place, "from"), f"example {empty[0]!r} has no expected answer to show")
            )
    return found


def check_chain(workspace: Workspace, name: str) -> list[Finding]:
    """Return what is wrong with a chain: references, functions, and inputs that do not fit between steps."""
    chain = workspace.chain(name)
    document = workspace.document("chain", name)
    found: list[Finding] = []
    for index, step in enumerate(chain.steps):
        place = ("steps", index, step.verb)
        try:
            found += _step_findings(workspace, document, index, step, chain)
        except DefinitionError as error:
            found += error.findings
        except LlmopsError as error:
            found.append(document.finding(place, str(error)))
    if not found:
        found += _caught(document.path, lambda: _opens(workspace, "chain", name))
    return found


def _opens(workspace: Workspace, kind: Kind, name: str) -> list[Finding]:
    open_program(workspace.resolve(kind, name), Overrides(), seed=0)
    return []


def _step_findings(
    workspace: Workspace, document: Document, index: int, step: Step, chain: Chain
) -> list[Finding]:
    if step.python is not None:
        return _function_findings(workspace, document, index, step)
    kind: Kind = "prompt" if step.prompt is not None else "chain"
    resolved = workspace.resolve(kind, step.target)
    used = getattr(resolved.workspace, kind)(resolved.name)
    found = [
        document.finding(("steps", index, "with"), f"step {step.id} gives {step.target} no {name!r}")
        for name in used.inputs
        if name not in step.arguments
    ]
    for name, value in step.arguments.items():
        place = ("steps", index, "with", name)
        if name not in used.inputs:
            known = f"its inputs: {', '.join(used.inputs) or 'none'}"
            found.append(
                document.finding(
                    place, f"{step.target} takes no {name!r}", nearest(name, used.inputs) or known
                )
            )
        elif misfit := _type_misfit(value, used.inputs[name], chain):
            found.append(document.finding(place, f"{step.target} takes {name} as {misfit}"))
    return found


def _type_misfit(value: object, wanted: str | Mapping[str, Any], chain: Chain) -> str | None:
    """Say how a chain's input passed on as it is does not fit; what a step gives is known only when it ran."""
    if not isinstance(value, str) or not isinstance(wanted, str):
        return None
    template = parse_template(value)
    given = chain.inputs.get(template.source.strip("{} \n")) if template.is_expression else "string"
    if not isinstance(given, str) or "any" in {given, wanted} or given == wanted:
        return None
    return None if (given, wanted) == ("integer", "number") else f"{wanted}, and this is {given}"


def _function_findings(
    workspace: Workspace, document: Document, index: int, step: Step
) -> list[Finding]:
    node = workspace.code.function_node(str(step.python))
    arguments = node.args
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    needed = _without_default(arguments)
    found = [
        document.finding(("steps", index, "with"), f"{step.python} needs {name!r}, and `with` does not give it")
        for name in needed
        if name not in step.arguments
    ]
    if arguments.kwarg is None:
        found += [
            document.finding(
                ("steps", index, "with", name),
                f"{step.python} takes no {name!r}",
                nearest(name, names) or f"it takes: {', '.join(names) or 'nothing'}",
            )
            for name in step.arguments
            if name not in names
        ]
    return found


def _without_default(arguments: ast.arguments) -> list[str]:
    positional = [*arguments.posonlyargs, *arguments.args]
    required = positional[: len(positional) - len(arguments.defaults)]
    keyword = [a for a, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if default is None]
    return [argument.arg for argument in (*required, *keyword)]


def check_dataset(workspace: Workspace, name: str) -> list[Finding]:
    """Return what is wrong with a dataset: its cases, and slices too thin in a split that is evaluated."""
    dataset = workspace.dataset(name)
    slices = dataset.definition.slices
    if slices is None:
        return []
    document = workspace.document("dataset", name)
    found = []
    for split in _evaluated_splits(workspace, name):
        if split is not None and split not in dataset.split_names:
            continue  # the experiment that asks for it says so
        for slice_name, least in slices.at_least.items():
            n = sum(1 for case in dataset.of(split) if case.slice == slice_name)
            if n < least:
                where = f"{name}/{split}" if split else name
                found.append(
                    document.finding(
                        ("slices", "at_least", slice_name),
                        f"slice {slice_name} of {where} has {n} cases, fewer than {least}",
                    )
                )
    return found


def _evaluated_splits(workspace: Workspace, name: str) -> list[str | None]:
    splits: dict[str | None, None] = {}
    for experiment in workspace.names("experiment"):
        try:
            reference = workspace.experiment(experiment).dataset
        except LlmopsError:
            continue  # reported where that experiment is checked
        head, _, split = reference.partition("@")[0].partition("/")
        if head == name:
            splits[split or None] = None
    return list(splits)


def check_experiment(workspace: Workspace, name: str) -> list[Finding]:
    """Return what is wrong with an experiment: variants, evaluators, gates, and cases that leak into prompts."""
    experiment = workspace.experiment(name)
    document = workspace.document("experiment", name)
    try:
        dataset, split = workspace.cases(experiment.dataset)
    except DefinitionError:
        raise
    except LlmopsError as error:
        return [document.finding(("dataset",), str(error))]
    found = _evaluators_findings(workspace, document, experiment)
    found += _gates_findings(document, experiment, dataset, split)
    for trial in expand(experiment):
        definition = trial.definition
        place = ("variants", trial.name.split("/")[0])
        overrides = Overrides(definition.model, definition.parameters.given(), definition.set)
        try:
            resolved = workspace.resolve(definition.kind, definition.target)
            program = open_program(resolved, overrides, seed=experiment.seed)
            inputs = getattr(resolved.workspace, definition.kind)(resolved.name).inputs
        except DefinitionError as error:
            found += error.findings
            continue
        except LlmopsError as error:
            found.append(document.finding(place, f"variant {trial.name}: {error}"))
            continue
        found += _inputs_findings(document, place, trial.name, inputs, dataset)
        found += _program_findings(workspace, document, place, program)
        found += _leak_findings(document, place, trial.name, program, dataset, split)
    return found


def _evaluators_findings(workspace: Workspace, document: Document, experiment: Experiment) -> list[Finding]:
    found = []
    for index, use in enumerate(experiment.evaluators):
        place = ("evaluators", index)
        try:
            found += _evaluator_findings(workspace, document, index, use)
        except LlmopsError as error:
            found.append(document.finding(place, str(error)))
    return found


def _evaluator_findings(
    workspace: Workspace, document: Document, index: int, use: EvaluatorUse
) -> list[Finding]:
    kind = evaluator_class(use.kind)
    try:
        options = kind.Options.model_validate(use.options)
        if use.kind == "python":
            workspace.code.function_node(str(use.options.get("function", "")))
        else:
            kind(options)
    except ValidationError as error:
        known = f"options of {use.kind}: {', '.join(kind.Options.model_fields) or 'none'}"
        return [
            document.finding(
                ("evaluators", index, use.kind, *problem["loc"]),
                f"{use.name}: {'.'.join(map(str, problem['loc'])) or use.kind}: {problem['msg']}",
                nearest(str(problem["loc"][-1]), kind.Options.model_fields) if problem["loc"] else known,
            )
            for problem in error.errors()
        ]
    except ValueError as error:
        return [document.finding(("evaluators", index, use.kind), f"{use.name}: {error}")]
    return []


def _gates_findings(
    document: Document, experiment: Experiment, dataset: Dataset, split: str | None
) -> list[Finding]:
    names = [*(use.name for use in experiment.evaluators), *MEASURED]
    slices = {case.slice for case in dataset.of(split) if case.slice is not None}
    found = []
    for index, gate in enumerate(experiment.gates):
        base = gate.metric.split(".")[0]
        if gate.metric not in names and base not in names:
            hint = nearest(gate.metric, names) or f"metrics: {', '.join(names)}"
            found.append(document.finding(("gates", index, "metric"), f"no metric {gate.metric!r}", hint))
        found += _gate_scope(document, index, gate, experiment, slices)
    return found


def _gate_scope(
    document: Document, index: int, gate: Gate, experiment: Experiment, slices: set[str]
) -> Iterator[Finding]:
    if gate.not_worse_than and experiment.baseline is None:
        yield document.finding(("gates", index, "not_worse_than"), "the experiment names no baseline")
    if gate.slice is not None and gate.slice not in slices:
        hint = nearest(gate.slice, slices) or f"slices: {', '.join(sorted(slices)) or 'none'}"
        yield document.finding(("gates", index, "slice"), f"no case is in slice {gate.slice!r}", hint)
    variants = {trial.name for trial in expand(experiment)} | set(experiment.variants)
    if gate.variant is not None and gate.variant not in variants:
        hint = nearest(gate.variant, variants) or f"variants: {', '.join(sorted(variants))}"
        yield document.finding(("gates", index, "variant"), f"no variant {gate.variant!r}", hint)


def _inputs_findings(
    document: Document, place: ALLOWED_LOCATION, variant: str, inputs: InputTypes, dataset: Dataset
) -> list[Finding]:
    given = set(dataset.definition.inputs) or set(dataset.cases[0].inputs)
    return [
        document.finding(
            place,
            f"variant {variant} needs an input {name!r} that dataset {dataset.name} does not have",
            nearest(name, given) or f"it has: {', '.join(sorted(given))}",
        )
        for name in inputs
        if name not in given
    ]


def prompts_of(program: Program) -> Iterator[PromptProgram]:
    """Yield every prompt a program asks, through all chains below it."""
    if isinstance(program, PromptProgram):
        yield program
    elif isinstance(program, ChainProgram):
        for part in program.programs.values():
            yield from prompts_of(part)


def _program_findings(
    workspace: Workspace, document: Document, place: ALLOWED_LOCATION, program: Program
) -> list[Finding]:
    return [
        finding
        for prompt in prompts_of(program)
        for finding in _model_findings(
            workspace, document, (*place, "model"), prompt.model.name, prompt.parameters
        )
    ]


def _leak_findings(
    document: Document,
    place: ALLOWED_LOCATION,
    variant: str,
    program: Program,
    dataset: Dataset,
    split: str | None,
) -> list[Finding]:
    found = []
    for prompt in prompts_of(program):
        leaked = leaks(prompt.renderer.pool, dataset.of(split))
        for shown, evaluated, why in leaked[:MAX_LEAKS]:
            message = f"variant {variant} may show case {shown!r}, evaluated as {evaluated!r}: {why}"
            found.append(document.finding(place, message, "keep few-shot and evaluated cases apart"))
        if len(leaked) > MAX_LEAKS:
            found.append(document.finding(place, f"and {len(leaked) - MAX_LEAKS} more cases leak like this"))
    return found


_CHECKS: Mapping[Kind, Callable[[Workspace, str], list[Finding]]] = {
    "prompt": check_prompt,
    "chain": check_chain,
    "dataset": check_dataset,
    "experiment": check_experiment,
}
