"""Experiment -> cells, what is missing, why, and what it will cost.

Reads a workspace and the journal; resolves every reference, alias and override; returns a plan that `run` carries
out. Calls no model and writes nothing.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypedDict

from llmops.definitions.base import identity_of, short
from llmops.definitions.dataset import Case, Dataset
from llmops.definitions.experiment import Experiment, Trial, expand
from llmops.definitions.reference import parse_reference
from llmops.definitions.trees import git
from llmops.definitions.workspace import Resolved, Workspace
from llmops.errors import DefinitionError, LlmopsError, StepError, UsageError, nearest
from llmops.evaluators.bound import BoundEvaluator, bind_evaluators
from llmops.models.http import HOST
from llmops.models.tokens import estimate_input_tokens
from llmops.records import REPLAYED, DatasetVersion, EvaluatorVersion, Run, RunStatus, Source, Variant
from llmops.steps import open_program
from llmops.steps.base import Program
from llmops.steps.chain import ChainProgram
from llmops.steps.overrides import Overrides
from llmops.steps.prompt import PromptProgram
from llmops.steps.recorded import RecordedProgram, open_recorded, recorded_notes
from llmops.steps.versions import step_changes, step_versions
from llmops.stores.journal import Cell, Journal

_ESTIMATE_CASES = 20


@dataclass(frozen=True)
class Plan:
    """A run before it is carried out, with everything resolved."""

    run: Run
    experiment: Experiment
    dataset: Dataset
    cases: Sequence[Case]
    programs: Mapping[str, Program]
    evaluators: tuple[BoundEvaluator, ...]
    notes: tuple[str, ...] = ()

    @property
    def evaluator_identities(self) -> list[str]:
        """The identities of the evaluators, in the order of the experiment."""
        return [evaluator.identity for evaluator in self.evaluators]

    @property
    def order(self) -> Sequence[int]:
        """Places of the cases in the seeded order in which they are carried out."""
        order = array("I", range(len(self.cases)))
        random.Random(self.run.seed).shuffle(order)  # noqa: S311 - a seeded order, not a secret
        return order

    def cells(self) -> Iterator[tuple[Cell, Case]]:
        """Yield every cell, interleaved case by case across variants, so that a drifting model hurts all alike."""
        position = 0
        answered_by = [] if self.run.replayed is None else [self.run.replayed]
        order = self.order
        for repeat in range(self.run.repeats):
            for place in order:
                case = self.cases[place]
                input_key, case_key = case.input_key(), case.key()
                for variant in self.run.variants:
                    cell_id = identity_of([variant.identity, input_key, repeat, self.run.fresh, *answered_by])
                    yield Cell(position, variant.name, repeat, case.id, case_key, cell_id), case
                    position += 1


@dataclass(frozen=True)
class Estimate:
    """What a plan's missing cells will take at least: one try a call, and no output tokens.

    None: nobody knows before it runs, because a price is unknown or a chain's later prompts depend on replies.
    n_judge_calls: of the calls, those of evaluators.
    """

    n_calls: int
    input_tokens: int | None
    input_usd: float | None
    n_judge_calls: int = 0


def plan_experiment(
    workspace: Workspace,
    name: str,
    journal: Journal | None,
    *,
    fresh: bool = False,
    replayed: str | None = None,
    now: datetime,
) -> Plan:
    """Return the plan of an experiment.

    fresh: pay again, as a new run of the same identity. replayed: identity of the recordings that answer in place
    of models; what comes of them stands apart from all that models answered.

    Raises DefinitionError or UsageError for whatever does not resolve.
    """
    experiment = workspace.experiment(name)
    dataset, split = _dataset_under_test(workspace, name, experiment)
    cases = dataset.of(split)
    trials, notes = _trials(workspace, name, experiment)
    programs = _open_programs(workspace, name, trials, experiment)
    notes += recorded_notes(programs, dataset, split, experiment.repeats)
    evaluators = bind_evaluators(workspace, name)
    variants = tuple(_variant(workspace, trial, programs[trial.name]) for trial in trials)
    version = dataset.version(split)
    judged_by = tuple(evaluator.version() for evaluator in evaluators)
    identity = run_identity(variants, version, judged_by, experiment.repeats, experiment.seed)
    number = 0 if replayed else _fresh_number(journal, name, fresh)
    run = Run(
        id=run_id(name, identity, number, replayed),
        experiment=name,
        identity=identity,
        fresh=number,
        replayed=replayed,
        status=RunStatus.RUNNING,
        created_at=now,
        dataset=DatasetVersion(
            name=dataset.name,
            split=split,
            version=version,
            schema_identity=dataset.schema_identity,
            n_cases=len(cases),
            n_skipped=dataset.n_skipped,
            path=dataset.path,
        ),
        variants=variants,
        evaluators=judged_by,
        repeats=experiment.repeats,
        seed=experiment.seed,
        source=find_source(workspace),
        experiment_definition=experiment.model_dump(mode="json", by_alias=True, exclude_none=True),
        n_cells=len(variants) * len(cases) * experiment.repeats,
    )
    return Plan(run, experiment, dataset, cases, programs, evaluators, tuple(notes))


def repeated(plan: Plan, repeats: int) -> Plan:
    """Return a plan with so many repeats; its cells are those of the plan itself, and more."""
    run = plan.run
    identity = run_identity(run.variants, run.dataset.version, run.evaluators, repeats, run.seed)
    again = run.model_copy(
        update={
            "id": run_id(run.experiment, identity, run.fresh, run.replayed),
            "identity": identity,
            "repeats": repeats,
            "experiment_definition": {**run.experiment_definition, "repeats": repeats},
            "n_cells": run.n_cells // run.repeats * repeats,
        }
    )
    return replace(plan, run=again)


def run_identity(
    variants: Sequence[Variant],
    dataset_version: str,
    evaluators: Sequence[EvaluatorVersion],
    repeats: int,
    seed: int,
) -> str:
    """Return the hash of all that determines a run's outputs and scores, and what is compared with what."""
    return identity_of(
        {
            "variants": {variant.name: variant.identity for variant in variants},
            "baseline": [variant.name for variant in variants if variant.is_baseline],
            "dataset": dataset_version,
            "evaluators": {evaluator.name: evaluator.identity for evaluator in evaluators},
            "repeats": repeats,
            "seed": seed,
        }
    )


def run_id(experiment: str, identity: str, fresh: int, replayed: str | None = None) -> str:
    """Return the id of a run: its experiment, eight digits of its identity, and its number when paid again.

    replayed: identity of its recordings; the id then says so.
    """
    number = f".{fresh}" if fresh else ""
    return f"{experiment}-{identity[:8]}{number}" + (f"{REPLAYED}{replayed[:8]}" if replayed else "")


def _fresh_number(journal: Journal | None, experiment: str, fresh: bool) -> int:
    """A plain run builds on the latest outputs of its experiment; a fresh one comes after them."""
    if journal is None:
        return 0
    latest = journal.latest_fresh(experiment)
    return latest + 1 if fresh and journal.latest_run(experiment) is not None else latest


def _dataset_under_test(
    workspace: Workspace, name: str, experiment: Experiment
) -> tuple[Dataset, str | None]:
    try:
        dataset, split = workspace.cases(experiment.dataset)
    except UsageError as error:
        raise _at(workspace, name, ("dataset",), error) from error
    if not dataset.of(split) and not workspace.today.allow_empty:
        raise _at(workspace, name, ("dataset",), UsageError(f"{experiment.dataset} has no cases"))
    return dataset, split


def _at(
    workspace: Workspace, name: str, location: tuple[str | int, ...], error: LlmopsError
) -> DefinitionError:
    """Say where in the experiment's file something does not resolve."""
    return DefinitionError(workspace.document("experiment", name).finding(location, str(error)))


# --- variants -----------------------------------------------------------------------------------------------


def _trials(workspace: Workspace, name: str, experiment: Experiment) -> tuple[list[Trial], list[str]]:
    trials = list(expand(experiment))
    baseline = experiment.baseline
    if baseline is None or baseline in experiment.variants:
        return trials, []
    twins, notes = [], []
    for trial in trials:
        twin = _twin(trial, baseline)
        try:
            _find(workspace, twin)
            twins.append(twin)
        except LlmopsError as error:
            if experiment.missing_baseline == "fail":
                raise _at(workspace, name, ("baseline",), UsageError(f"{trial.name}: {error}")) from error
            notes.append(f"{trial.name} has no baseline at {baseline}: {error}")
    return twins + trials, notes


def _twin(trial: Trial, baseline: str) -> Trial:
    where = baseline.removeprefix("alias:")
    return Trial(f"{trial.name}@{where}", trial.group, trial.definition, is_baseline=True, at=where)


def _find(workspace: Workspace, trial: Trial) -> None:
    """Raise what keeps a trial from being found."""
    if trial.definition.recorded is not None:
        open_recorded(workspace, trial.definition.recorded, trial.at)
    else:
        _resolve(workspace, trial)


def _resolve(workspace: Workspace, trial: Trial) -> Resolved:
    definition = trial.definition
    if trial.at is None:
        return workspace.resolve(definition.kind, definition.target)
    found = workspace.resolve(definition.kind, f"{parse_reference(definition.target).name}@{trial.at}")
    found.workspace.identity(found.kind, found.name)
    return found


def _open_programs(
    workspace: Workspace, name: str, trials: Sequence[Trial], experiment: Experiment
) -> dict[str, Program]:
    programs = {}
    findings = []
    document = workspace.document("experiment", name)
    for trial in trials:
        try:
            programs[trial.name] = _open(workspace, trial, experiment.seed)
        except UsageError as error:
            variant = max((key for key in experiment.variants if _is_of(trial.name, key)), key=len)
            findings.append(document.finding(("variants", variant), f"variant {trial.name}: {error}"))
    if findings:
        raise DefinitionError(findings)
    return programs


def _open(workspace: Workspace, trial: Trial, seed: int) -> Program:
    if trial.definition.recorded is not None:
        return open_recorded(workspace, trial.definition.recorded, trial.at)
    resolved = _resolve(workspace, trial)
    return open_program(resolved, _overrides(trial, resolved), seed=seed)


def _overrides(trial: Trial, resolved: Resolved) -> Overrides:
    """What a variant changes; a twin at an alias has the model and parameters of its release."""
    definition = trial.definition
    own = Overrides(definition.model, definition.parameters.given(), definition.set)
    if trial.at is None or resolved.release is None:
        return own
    return Overrides(resolved.release.model, resolved.release.parameters).over(own)


def _is_of(name: str, wanted: str) -> bool:
    """Say whether a variant is the wanted one, in some cell of the matrix, or its twin elsewhere."""
    return name == wanted or name.startswith((f"{wanted}/", f"{wanted}@"))


def _variant(workspace: Workspace, trial: Trial, program: Program) -> Variant:
    definition = trial.definition
    if isinstance(program, RecordedProgram):
        return _recorded_variant(trial, program)
    resolved = _resolve(workspace, trial)
    folder = "prompts" if definition.kind == "prompt" else "chains"
    reference = f"{resolved.name}@{trial.at}" if trial.at else definition.target
    parameters = program.parameters if isinstance(program, PromptProgram) else definition.parameters.given()
    return Variant(
        name=trial.name,
        definition=f"{folder}/{resolved.name}",
        reference=reference,
        definition_identity=resolved.workspace.identity(resolved.kind, resolved.name),
        identity=program.identity,
        models=tuple(program.models.values()),
        parameters=parameters,
        set=definition.set,
        group=trial.group,
        prompts=program.prompts,
        response_format=program.renderer.prompt.response_format
        if isinstance(program, PromptProgram)
        else None,
        is_baseline=trial.is_baseline,
        steps=step_versions(program) if isinstance(program, ChainProgram) else (),
    )


def _recorded_variant(trial: Trial, program: RecordedProgram) -> Variant:
    path = program.file.path
    return Variant(
        name=trial.name,
        definition=path,
        reference=f"{path}@{trial.at}" if trial.at else path,
        definition_identity=program.identity,
        identity=program.identity,
        models=(),
        group=trial.group,
        is_baseline=trial.is_baseline,
    )


def find_source(workspace: Workspace) -> Source:
    """Return where the work tree stands in git; nothing when there is no repository."""
    try:
        commit = git(workspace.root, "rev-parse", "HEAD").decode().strip()
        branch = git(workspace.root, "rev-parse", "--abbrev-ref", "HEAD").decode().strip()
        changed = git(workspace.root, "status", "--porcelain", "--", ".")
    except UsageError:
        return Source()
    return Source(commit=commit, branch=None if branch == "HEAD" else branch, dirty=bool(changed))


def find_status(journal: Journal, run: Run) -> RunStatus:
    """Return how far a run has come by what the journal has of it."""
    n_pending = journal.n_pending(run.id, [evaluator.identity for evaluator in run.evaluators])
    return RunStatus.PARTIAL if n_pending else RunStatus.COMPLETE


# --- what it takes ------------------------------------------------------------------------------------------


class Filters(TypedDict):
    """The part of a run that a question to the journal is about."""

    variants: frozenset[str] | None
    cases: frozenset[str] | None
    limit: int | None


@dataclass(frozen=True)
class Selection:
    """Which part of a run to carry out. None asks for all. limit counts cases in the run's order."""

    variants: frozenset[str] | None = None
    cases: frozenset[str] | None = None
    limit: int | None = None

    def filters(self) -> Filters:
        """Return the selection as the journal's questions take it."""
        return {"variants": self.variants, "cases": self.cases, "limit": self.limit}


def select(
    plan: Plan,
    *,
    variants: Sequence[str] = (),
    models: Sequence[str] = (),
    cases: Sequence[str] = (),
    limit: int | None = None,
) -> Selection:
    """Return the part of a plan that the command line asks for.

    variants: names, or the part before the matrix' `/`. models: names of llmops.yaml.

    Raises UsageError for a name the plan does not have, with those it has.
    """
    chosen: set[str] | None = None
    names = [variant.name for variant in plan.run.variants]
    if variants:
        chosen = set()
        for wanted in variants:
            hits = {name for name in names if _is_of(name, wanted)}
            if not hits:
                raise UsageError(f"no variant is called {wanted!r}; there are: {', '.join(names)}")
            chosen |= hits
    if models:
        known = {model.name for variant in plan.run.variants for model in variant.models}
        if unknown := set(models) - known:
            there = ", ".join(sorted(known)) or "none"
            raise UsageError(f"no variant asks model {min(unknown)!r}; there are: {there}")
        asking = {v.name for v in plan.run.variants if {m.name for m in v.models} & set(models)}
        if chosen is not None and not chosen & asking:
            raise UsageError(f"none of {', '.join(sorted(chosen))} asks {' or '.join(sorted(set(models)))}")
        chosen = asking if chosen is None else chosen & asking
    if cases:
        _check_ids(plan, set(cases))
    return Selection(
        frozenset(chosen) if chosen is not None else None, frozenset(cases) if cases else None, limit
    )


def _check_ids(plan: Plan, wanted: set[str]) -> None:
    unknown = wanted - {case.id for case in plan.cases if case.id in wanted}
    if unknown:
        ids = [case.id for case in plan.cases]
        known = f"it has {len(ids)}, from {ids[0]!r} to {ids[-1]!r}" if ids else "it has none"
        hint = nearest(min(unknown), ids) or known
        raise UsageError(f"{plan.dataset.name} has no case {min(unknown)!r} here; {hint}")


def estimate(
    workspace: Workspace, plan: Plan, missing: Mapping[str, int], unjudged: Mapping[str, int] | None = None
) -> Estimate:
    """Return what the missing cells will take at least. missing: by variant, how many have no output.

    unjudged: by evaluator, how many cells lack its score; only those that ask models count. Input tokens are the
    mean over a sample of rendered cases; of what a judge reads, the output is not counted.
    """
    sample = [plan.cases[place] for place in plan.order[:_ESTIMATE_CASES]]
    shares = [
        _share(n * program.least_calls, n, _mean_tokens(program, sample), _input_price(workspace, program))
        for name, n in missing.items()
        if n
        for program in [plan.programs[name]]
    ]
    judging = [
        _share(n, n, _mean_least(evaluator, sample), _input_price(workspace, evaluator))
        for evaluator in plan.evaluators
        if evaluator.models and (n := (unjudged or {}).get(evaluator.name, 0))
    ]
    everything = [*shares, *judging]
    tokens, usd = [each.input_tokens for each in everything], [each.input_usd for each in everything]
    return Estimate(
        n_calls=sum(each.n_calls for each in everything),
        input_tokens=None if None in tokens else sum(filter(None, tokens)),
        input_usd=None if None in usd else sum(filter(None, usd), 0.0),
        n_judge_calls=sum(each.n_calls for each in judging),
    )


def _share(n_calls: int, n_cells: int, tokens: float | None, price: float | None) -> Estimate:
    """What some cells take. tokens: of input for each. price: US dollars for a million of them."""
    usd = None if tokens is None or price is None else n_cells * tokens * price / 1e6
    return Estimate(n_calls, None if tokens is None else round(n_cells * tokens), usd)


def _mean_least(evaluator: BoundEvaluator, cases: Sequence[Case]) -> float | None:
    if evaluator.asking is None:
        return 0.0
    tokens = [evaluator.asking.least_tokens(case) for case in cases]
    known = [each for each in tokens if each is not None]
    return sum(known) / len(known) if len(known) == len(tokens) else None


def _input_price(workspace: Workspace, program: Program | BoundEvaluator) -> float | None:
    """US dollars for a million input tokens of all models asked; None when unknown or not the same for all."""
    asked = [name for name, version in program.models.items() if version.provider != HOST]
    prices = [workspace.model(name).pricing() for name in asked]
    known = {price.input_per_mtok for price in prices if price is not None}
    if len(known) > 1 or None in prices:
        return None
    return known.pop() if known else 0.0


def _mean_tokens(program: Program, cases: Sequence[Case]) -> float | None:
    if not isinstance(program, PromptProgram):
        return None if any(version.provider != HOST for version in program.models.values()) else 0.0
    try:
        prompts = [
            program.renderer.messages(case.inputs, case_id=case.id, cluster=case.cluster) for case in cases
        ]
    except StepError:
        return None
    return sum(map(estimate_input_tokens, prompts)) / len(prompts)


def reasons(run: Run, before: Run | None) -> list[str]:
    """Return why a run has work to do, against the experiment's run before it: one sentence a class of work."""
    if before is None:
        return [f"{run.experiment} has not run here before"]
    if before.replayed != run.replayed:
        return [
            f"{short(run.replayed)} recordings answer" if run.replayed else "until now recordings answered"
        ]
    if before.identity == run.identity:
        again = (
            f"paid for again as number {run.fresh}" if before.fresh != run.fresh else "begun and not finished"
        )
        return [f"the same experiment, {again}"]
    found = []
    if before.dataset.version != run.dataset.version:
        found.append(
            f"the dataset changed: {short(before.dataset.version)} -> {short(run.dataset.version)} "
            f"({before.dataset.n_cases} -> {run.dataset.n_cases} cases)"
        )
    then = {variant.name: variant for variant in before.variants}
    for variant in run.variants:
        found += _variant_reasons(variant, then.get(variant.name))
    found += _evaluator_reasons(run, before)
    found += [f"variant {name} is gone" for name in then if name not in {v.name for v in run.variants}]
    if before.repeats != run.repeats:
        found.append(f"repeats: {before.repeats} -> {run.repeats}")
    if before.seed != run.seed:
        found.append(f"the seed changed: {before.seed} -> {run.seed}")
    if (was := _baselines(before)) != (now := _baselines(run)):
        found.append(f"the baseline changed: {was} -> {now}")
    return found or ["something that decides no output changed: nothing is called again"]


def _evaluator_reasons(run: Run, before: Run) -> Iterator[str]:
    judged = {evaluator.name: evaluator.identity for evaluator in before.evaluators}
    for evaluator in run.evaluators:
        if judged.get(evaluator.name) != evaluator.identity:
            what = "changed" if evaluator.name in judged else "is new"
            yield f"evaluator {evaluator.name} {what}: outputs are kept, its scores are worked out"
    names = {evaluator.name for evaluator in run.evaluators}
    yield from (f"evaluator {name} is gone" for name in judged if name not in names)


def _baselines(run: Run) -> str:
    return ", ".join(variant.name for variant in run.variants if variant.is_baseline) or "none"


def _variant_reasons(variant: Variant, before: Variant | None) -> list[str]:
    if before is None:
        return [f"variant {variant.name} is new"]
    if before.identity == variant.identity:
        return []
    changed = []
    if before.definition_identity != variant.definition_identity:
        changed.append(
            f"{variant.definition} {short(before.definition_identity)} -> {short(variant.definition_identity)}"
        )
    if before.models != variant.models:
        changed.append(f"model {_models(before)} -> {_models(variant)}")
    if before.parameters != variant.parameters:
        changed.append("parameters")
    if before.set != variant.set:
        changed.append("set")
    told = [f"variant {variant.name} changed: {', '.join(changed) or 'what it uses'}"]
    if before.steps and variant.steps:
        told += [f"variant {variant.name}: {said}" for said in step_changes(before.steps, variant.steps)]
    return told


def _models(variant: Variant) -> str:
    return ", ".join(f"{model.name} ({model.model})" for model in variant.models) or "none"
