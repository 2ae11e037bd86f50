"""What is wrong with an experiment: variants, baseline, matrix, and cases that leak into prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from llmops.check.independence import undeclared_clusters
from llmops.check.judging import evaluator_findings, gate_findings
from llmops.check.models import program_findings, prompts_of
from llmops.definitions.dataset import Case, Dataset, leaks
from llmops.definitions.documents import Document, brief
from llmops.definitions.experiment import (
    BASELINE_PREFIXES,
    Experiment,
    Trial,
    VariantDefinition,
    expand,
    fixes,
)
from llmops.definitions.expressions import experiment_findings
from llmops.definitions.reference import parse_reference
from llmops.definitions.schemas import InputTypes, check_of
from llmops.definitions.workspace import Workspace
from llmops.errors import DefinitionError, Finding, LlmopsError, nearest
from llmops.steps import open_program
from llmops.steps.base import Program
from llmops.steps.overrides import Overrides
from llmops.steps.recorded import RecordedProgram, find_coverage, open_recorded, recorded_notes

MAX_LEAKS = 5


def check_experiment(workspace: Workspace, name: str) -> list[Finding]:
    """Return what is wrong with an experiment."""
    experiment = workspace.unchecked(Experiment, "experiment", name)
    document = workspace.document("experiment", name)
    found = experiment_findings(experiment, document)
    dataset, split = None, None
    try:
        dataset, split = workspace.cases(experiment.dataset)
    except DefinitionError as error:
        found += error.findings
    except LlmopsError as error:
        found.append(document.finding(("dataset",), str(error)))
    cases = None if dataset is None else dataset.of(split)
    found += evaluator_findings(workspace, document, experiment, cases)
    found += gate_findings(document, experiment, cases)
    found += _axis_findings(document, experiment)
    found += _baseline_findings(workspace, document, experiment)
    return found + _Variants(workspace, document, experiment, dataset, split).findings()


def find_notes(workspace: Workspace, name: str) -> list[str]:
    """Return what is no fault of an experiment and yet good to know: what recorded outputs fit, and what cases share.

    Raises LlmopsError for whatever is wrong with it.
    """
    experiment = workspace.experiment(name)
    files = {key: variant.recorded for key, variant in experiment.variants.items() if variant.recorded}
    dataset, split = workspace.cases(experiment.dataset)
    notes = undeclared_clusters(dataset, split)
    if files:
        programs = {key: open_recorded(workspace, file) for key, file in files.items()}
        notes += recorded_notes(programs, dataset, split, experiment.repeats)
    return notes


class _Variants:
    """Opens each variant as a run would, and holds it against the cases it will meet."""

    def __init__(
        self,
        workspace: Workspace,
        document: Document,
        experiment: Experiment,
        dataset: Dataset | None,
        split: str | None,
    ) -> None:
        self._workspace = workspace
        self._document = document
        self._experiment = experiment
        self._dataset = dataset
        self._split = split
        self._cases: Sequence[Case] = () if dataset is None else dataset.of(split)
        self._seen: set[object] = set()

    def findings(self) -> list[Finding]:
        """Return what is wrong with the variants, each told once however many cells the matrix has."""
        found: list[Finding] = []
        for trial in expand(self._experiment):
            try:
                program, inputs = self._open(trial)
            except DefinitionError as error:
                found += error.findings
                continue
            except LlmopsError as error:
                found.append(self._document.finding(self._place(trial), f"variant {trial.name}: {error}"))
                continue
            place = ("variants", _base(trial))
            found += program_findings(self._workspace, self._document, place, program)
            found += self._price_findings(program)
            if self._dataset is not None:
                found += self._coverage_findings(_base(trial), program, self._dataset)
                found += self._input_findings(_base(trial), inputs, self._dataset)
                found += self._leak_findings(_base(trial), program)
        return found

    def _open(self, trial: Trial) -> tuple[Program, InputTypes]:
        definition = trial.definition
        if definition.recorded is not None:
            return open_recorded(self._workspace, definition.recorded), {}
        overrides = Overrides(definition.model, definition.parameters.given(), definition.set)
        resolved = self._workspace.resolve(definition.kind, definition.target)
        program = open_program(resolved, overrides, seed=self._experiment.seed)
        return program, getattr(resolved.workspace, definition.kind)(resolved.name).inputs

    def _place(self, trial: Trial) -> tuple[str, ...]:
        """Return whose fault it is that a trial does not open: the variant's, or the matrix'."""
        base = _base(trial)
        if trial.definition != self._experiment.variants[base]:
            try:
                self._open(Trial(base, "", self._experiment.variants[base]))
            except LlmopsError:
                return "variants", base
            return ("matrix",)
        return "variants", base

    def _coverage_findings(self, variant: str, program: Program, dataset: Dataset) -> Iterator[Finding]:
        """Say of recorded outputs that none of them is for this dataset; fewer gaps are for `find_notes`."""
        if isinstance(program, RecordedProgram):
            fit = find_coverage(program.file, dataset, self._split, self._experiment.repeats)
            if fit.n_cells and fit.n_without == fit.n_cells:
                message = f"variant {variant}: {program.file.path} has no output for any case of"
                hint = f"its ids are like {brief(fit.unknown[0][0])}" if fit.unknown else None
                place = ("variants", variant, "recorded")
                yield self._document.finding(place, f"{message} {self._experiment.dataset}", hint)

    def _input_findings(self, variant: str, inputs: InputTypes, dataset: Dataset) -> Iterator[Finding]:
        """Yield what the cases do not give, or not as it is wanted."""
        place = ("variants", variant)
        for name, kind in inputs.items():
            if dataset.definition.inputs.get(name) == kind or not self._is_new(variant, name):
                continue
            lacking = next((case for case in self._cases if name not in case.inputs), None)
            if lacking is not None:
                given = set(dataset.definition.inputs) or set(lacking.inputs)
                hint = nearest(name, given) or f"it has: {', '.join(sorted(given)) or 'none'}"
                message = (
                    f"variant {variant} needs an input {name!r} that dataset {dataset.name} does not have"
                )
                yield self._document.finding(place, message, hint)
                continue
            problem_of = check_of(kind)
            misfit = next(((c, said) for c in self._cases if (said := problem_of(c.inputs[name]))), None)
            if misfit is not None:
                message = f"variant {variant}: input {name!r} of case {misfit[0].id!r}: {misfit[1]}"
                yield self._document.finding(place, message)

    def _leak_findings(self, variant: str, program: Program) -> Iterator[Finding]:
        place = ("variants", variant)
        for prompt in prompts_of(program):
            pool = prompt.renderer.pool
            if not pool or id(pool) in self._seen:  # a dataset gives the same pool each time
                continue
            self._seen.add(id(pool))
            leaked = leaks(pool, self._cases)
            for shown, evaluated, why in islice(leaked, MAX_LEAKS):
                message = f"variant {variant} may show case {shown!r}, evaluated as {evaluated!r}: {why}"
                yield self._document.finding(place, message, "keep few-shot and evaluated cases apart")
            if more := sum(1 for _ in leaked):
                yield self._document.finding(place, f"and {more} more cases leak like this")

    def _price_findings(self, program: Program) -> Iterator[Finding]:
        if self._experiment.budget.usd is None:
            return
        for name in program.models:
            if self._workspace.model(name).pricing() is None:
                hint = f"give {name} a price in llmops.yaml, or budget calls"
                message = f"the budget is in USD, and model {name} has no price"
                yield self._document.finding(("budget", "usd"), message, hint)

    def _is_new(self, *what: str) -> bool:
        before = len(self._seen)
        self._seen.add(what)
        return len(self._seen) > before


def _base(trial: Trial) -> str:
    """Return the variant that a trial is a cell of; its name holds no slash."""
    return trial.name.partition("/")[0]


def _axis_findings(document: Document, experiment: Experiment) -> Iterator[Finding]:
    for axis in experiment.matrix:
        if all(fixes(variant, axis) for variant in experiment.variants.values()):
            yield document.finding(
                ("matrix", axis), f"every variant fixes {axis} itself, so this says nothing"
            )


def _baseline_findings(workspace: Workspace, document: Document, experiment: Experiment) -> Iterator[Finding]:
    """Yield what keeps a baseline that stands elsewhere from being found, where the experiment insists on it."""
    baseline = experiment.baseline
    if (
        baseline is None
        or not baseline.startswith(BASELINE_PREFIXES)
        or experiment.missing_baseline != "fail"
    ):
        return
    where = baseline.removeprefix("alias:")
    for variant in experiment.variants.values():
        try:
            _find_baseline(workspace, variant, where)
        except LlmopsError as error:
            hint = "`missing_baseline: create` or `skip` goes on without"
            yield document.finding(("baseline",), f"{variant.target.partition('@')[0]}: {error}", hint)


def _find_baseline(workspace: Workspace, variant: VariantDefinition, where: str) -> None:
    """Raise what keeps a variant from being found elsewhere."""
    if variant.recorded is not None:
        open_recorded(workspace, variant.recorded, where)
        return
    found = workspace.resolve(variant.kind, f"{parse_reference(variant.target).name}@{where}")
    found.workspace.identity(found.kind, found.name)
