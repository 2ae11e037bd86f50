"""What is wrong with an experiment's evaluators and gates: options, expected answers, metrics and their scope."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from llmops.check.chains import required_names
from llmops.check.judges import asking_findings, open_asking
from llmops.definitions.build import build
from llmops.definitions.dataset import Case
from llmops.definitions.documents import Document
from llmops.definitions.experiment import MEASURED, EvaluatorUse, Experiment, Gate, expand
from llmops.definitions.workspace import Workspace
from llmops.errors import DefinitionError, Finding, LlmopsError, nearest
from llmops.evaluators import asks_models, evaluator_class

SPREAD = ("p50", "p95", "sum")
"""What is known of a measure beside its mean."""

_RATES = ("error_rate", "invalid_rate", "unfiltered_rate")
_WITHOUT_PARTS = (*_RATES, "cost_usd")


def evaluator_findings(
    workspace: Workspace, document: Document, experiment: Experiment, cases: Sequence[Case] | None
) -> list[Finding]:
    """Return what is wrong with the evaluators. cases: those they will judge, None where that is not known."""
    found: list[Finding] = []
    for index, use in enumerate(experiment.evaluators):
        try:
            found += _use_findings(workspace, document, experiment, index, cases)
        except DefinitionError as error:
            found += error.findings
        except (LlmopsError, ValueError) as error:
            found.append(document.finding(("evaluators", index, use.kind), f"{use.name}: {error}"))
    return found


def _use_findings(
    workspace: Workspace,
    document: Document,
    experiment: Experiment,
    index: int,
    cases: Sequence[Case] | None,
) -> Iterator[Finding]:
    use = experiment.evaluators[index]
    kind = evaluator_class(use.kind)
    place = ("evaluators", index, use.kind)
    options = build(kind.Options, document, place, use.options)
    yield from _step_findings(workspace, document, experiment, index)
    if use.kind == "python":
        node = workspace.code.function_node(options.function)
        if not node.decorator_list:
            yield from _judge_findings(document, place, options.function, node.args)
        return
    if asks_models(use.kind):
        evaluator = open_asking(workspace, document, place, use, options)
        yield from asking_findings(workspace, document, place, use, evaluator, experiment, cases)
    else:
        evaluator = kind(options)
    if getattr(evaluator, "needs_expected", False) and use.expected is None:
        lacking = (case.id for case in cases or () if case.expected is None)
        first = next(lacking, None)
        if first is not None:
            n_lacking = 1 + sum(1 for _ in lacking)
            message = f"{n_lacking} cases expect nothing, {first!r} the first, and {use.name} needs it"
            yield document.finding(place, message)


def _step_findings(
    workspace: Workspace, document: Document, experiment: Experiment, index: int
) -> Iterator[Finding]:
    """Yield the findings of a step that no variant has, and of a score that no output could have to pass."""
    use = experiment.evaluators[index]
    place = ("evaluators", index, use.kind)
    low, high = _range(use.name, {use.name: use})
    if use.pass_at is not None and low is not None and high is not None and not low <= use.pass_at <= high:
        message = f"{use.name} goes from {low:g} to {high:g}, so {use.pass_at:g} says nothing"
        yield document.finding((*place, "pass_at"), message)
    steps = _steps(workspace, experiment) if use.step is not None else None
    if steps is not None and use.step not in steps:
        hint = nearest(str(use.step), steps) or f"steps: {', '.join(sorted(steps)) or 'none'}"
        yield document.finding((*place, "step"), f"no variant has a step {use.step!r}", hint)


def _steps(workspace: Workspace, experiment: Experiment) -> set[str] | None:
    """Return the steps of all chains that are tried, None where one cannot be read: that is told of the variant."""
    chains = (variant.chain for variant in experiment.variants.values() if variant.chain is not None)
    try:
        found = [workspace.resolve("chain", chain) for chain in chains]
        return {step.id for each in found for step in each.workspace.chain(each.name).steps}
    except LlmopsError:
        return None


def _judge_findings(
    document: Document, place: tuple[str | int, ...], reference: str, arguments: ast.arguments
) -> Iterator[Finding]:
    """Yield what keeps a function from being called with what a score may see."""
    from llmops.evaluators.python import ARGUMENTS

    by_position = {argument.arg for argument in arguments.posonlyargs}
    for name in required_names(arguments):
        if name in by_position or name not in ARGUMENTS:
            hint = nearest(name, ARGUMENTS) or f"a score sees {', '.join(ARGUMENTS)}"
            yield document.finding(place, f"{reference} wants {name!r}, by position or unknown", hint)


def gate_findings(
    document: Document, experiment: Experiment, cases: Sequence[Case] | None
) -> Iterator[Finding]:
    """Yield what is wrong with the gates. cases: those that are judged, None where that is not known."""
    uses = {use.name: use for use in experiment.evaluators}
    slices = None if cases is None else {case.slice for case in cases if case.slice is not None}
    trials = list(expand(experiment))
    baseline = {trial.name for trial in trials if trial.is_baseline} | {experiment.baseline}
    candidates = ({trial.name for trial in trials} | set(experiment.variants)) - baseline
    for index, gate in enumerate(experiment.gates):
        place = ("gates", index)
        yield from _metric_findings(document, index, gate, uses)
        yield from _range_findings(document, index, gate, uses)
        if gate.not_worse_than and experiment.baseline is None:
            yield document.finding((*place, "not_worse_than"), "the experiment names no baseline")
        if gate.slice is not None and slices is not None and gate.slice not in slices:
            hint = nearest(gate.slice, slices) or f"slices: {', '.join(sorted(slices)) or 'none'}"
            yield document.finding((*place, "slice"), f"no case is in slice {gate.slice!r}", hint)
        if gate.variant is not None and gate.variant not in candidates:
            hint = nearest(gate.variant, candidates) or f"candidates: {', '.join(sorted(candidates))}"
            what = "the baseline" if gate.variant in baseline else "no variant"
            yield document.finding((*place, "variant"), f"{gate.variant!r} is {what}", hint)


def _metric_findings(
    document: Document, index: int, gate: Gate, uses: Mapping[str, EvaluatorUse]
) -> Iterator[Finding]:
    base, _, part = gate.metric.partition(".")
    names = [*uses, *MEASURED]
    if gate.metric in names:
        return
    place = ("gates", index, "metric")
    if base not in names:
        hint = nearest(gate.metric, names) or f"metrics: {', '.join(names)}"
        yield document.finding(place, f"no metric {gate.metric!r}", hint)
        return
    if base in _WITHOUT_PARTS:
        yield document.finding(place, f"{base} is one number, without a part {part!r}")
        return
    known = SPREAD if base in MEASURED else _parts(uses[base])
    if known is not None and part not in known:
        hint = nearest(part, known) or f"parts: {', '.join(known) or 'none'}"
        yield document.finding(place, f"{base} has no part {part!r}", hint)


def _parts(use: EvaluatorUse) -> Sequence[str] | None:
    """Return the parts of an evaluator whose options say which it has, None where only its scores tell."""
    try:
        kind = evaluator_class(use.kind)
        return tuple(kind.parts(kind.Options.model_validate(use.options))) if hasattr(kind, "parts") else None
    except (LlmopsError, ValidationError):
        return None  # told where the evaluator is checked


def _range_findings(
    document: Document, index: int, gate: Gate, uses: Mapping[str, EvaluatorUse]
) -> Iterator[Finding]:
    """Yield the finding of a limit outside the range of its metric, such as 80 for 0.80."""
    low, high = _range(gate.metric, uses)
    for key in ("at_least", "at_most"):
        limit = getattr(gate, key)
        if limit is not None and low is not None and high is not None and not low <= limit <= high:
            message = f"{gate.metric} goes from {low:g} to {high:g}, so {limit:g} says nothing"
            yield document.finding(("gates", index, key), message)


def _range(metric: str, uses: Mapping[str, EvaluatorUse]) -> tuple[Any, Any]:
    if metric in _RATES:
        return 0.0, 1.0
    base = metric if metric in uses else metric.partition(".")[0]
    if base not in uses or uses[base].kind == "python":
        return None, None
    try:
        kind = evaluator_class(uses[base].kind)
        options = kind.Options.model_validate(uses[base].options)
    except (LlmopsError, ValidationError):
        return None, None  # told where the evaluator is checked
    # A judge's range is that of its scale.
    low, high = (getattr(kind, end, getattr(options, end, None)) for end in ("low", "high"))
    return low, high
