"""Two variants -> comparison: effect, interval and flipped cases of every metric, paired by case.

Reads the rows of both sides from the journal and the facts summed up in their runs; writes nothing. What
margin an effect has to keep is left to `gate`, how it looks to `report`, which variants are meant to `sides`.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from llmops.definitions.base import identity_of, short
from llmops.definitions.experiment import BASELINE_PREFIXES, EvaluatorUse
from llmops.errors import UsageError, nearest
from llmops.evaluators import evaluator_class, open_evaluator
from llmops.evaluators.base import Summary
from llmops.evaluators.statistics import rough_note
from llmops.records import (
    Comparison,
    Effect,
    EvaluatorVersion,
    Flip,
    Interval,
    Row,
    RowNumbers,
    Run,
    Side,
    Variant,
)
from llmops.score.paired import PairedFigure, pair_sums
from llmops.score.summary import LEVEL, OPEN_MEASURES, Ledger, Numbers, measured
from llmops.stats.arrays import case_means
from llmops.stats.intervals import DUST, geometric_ratio_interval, mean_interval_unbounded
from llmops.stats.paired import paired_interval

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from llmops.stats.arrays import Floats

_FACTS = ("error_rate", "cost_usd")


def compare_variants(
    journal: Numbers,
    baseline: tuple[Run, str],
    candidate: tuple[Run, str],
    *,
    level: float = LEVEL,
    now: datetime,
) -> Comparison:
    """Return candidate less baseline, each a run and the name of a variant of it.

    level: coverage of the intervals; 0.90 leaves 5 in 100 on each side, as gates do.

    Raises UsageError when an evaluator, a declared output or the types of the dataset are not the same on both
    sides, a run has no such variant, or the two have no case in common.
    """
    run, other = baseline[0], candidate[0]
    for side in (baseline, candidate):
        variant_of(*side)
    _refuse_other_evaluators(run, other)
    refuse_other_schemas(baseline, candidate)
    # One version of a dataset is one content: then there is nothing to hash.
    with_keys = run.dataset.version != other.dataset.version
    summing = summing_evaluators(run, other)
    sides = [read_side(journal, *side, summing, with_keys=with_keys) for side in (baseline, candidate)]
    return _compare(baseline, candidate, *sides, level=level, now=now)


def compare_run(journal: Numbers, run: Run, *, now: datetime) -> list[Comparison]:
    """Return each candidate of a run compared with its baseline, in order; none without a baseline."""
    read: dict[str, SideValues] = {}
    summing = summing_evaluators(run)
    found = []
    for candidate in run.variants:
        baseline = None if candidate.is_baseline else baseline_of(run, candidate)
        if baseline is None:
            continue
        if baseline.name not in read:
            read[baseline.name] = read_side(journal, run, baseline.name, summing, with_keys=False)
        values = read_side(journal, run, candidate.name, summing, with_keys=False)
        names = (run, baseline.name), (run, candidate.name)
        found.append(_compare(*names, read[baseline.name], values, level=LEVEL, now=now))
    return found


def _compare(
    baseline: tuple[Run, str],
    candidate: tuple[Run, str],
    before: SideValues,
    after: SideValues,
    *,
    level: float,
    now: datetime,
) -> Comparison:
    pairs = pair_cases(before, after, level=level)
    run, other = baseline[0], candidate[0]
    if not pairs.ids:
        raise UsageError(_no_pairs(run, other, before, after))
    measures = list(_measures(_evaluators_of(run, other), before, after))
    effects: list[Effect] = []
    for measure in measures:
        effects.append(pairs.effect(measure))
        # Swapping the sides must not change what is drawn.
        effects += pairs.effects_together(measure, seed=min(run.seed, other.seed))
    scored = [measure for measure in measures if measure.kind == "score"]
    return Comparison(
        created_at=now,
        baseline=side_of(*baseline),
        candidate=side_of(*candidate),
        dataset="/".join(filter(None, (other.dataset.name, other.dataset.split))),
        n_cases=len(pairs.ids),
        n_unpaired=len(before.cases.keys() | after.cases.keys()) - len(pairs.ids),
        effects=(*effects, *(_fact(name, baseline, candidate) for name in _FACTS)),
        slices={
            name: tuple(_without_flips(pairs.effect(measure, name)) for measure in scored)
            for name in pairs.slice_names
        },
    )


def _without_flips(effect: Effect) -> Effect:
    """The cases that flipped stand with the whole: a second list of them by slice would double the record."""
    return effect.model_copy(update={"improved": (), "regressed": ()})


def baseline_of(run: Run, candidate: Variant) -> Variant | None:
    """Return the candidate as it stands elsewhere, or the baseline of its cell of the matrix."""
    baselines = [variant for variant in run.variants if variant.is_baseline]
    written = str(run.experiment_definition.get("baseline") or "")
    if written.startswith(BASELINE_PREFIXES):
        twin = f"{candidate.name}@{written.removeprefix('alias:')}"
        return next((variant for variant in baselines if variant.name == twin), None)
    if len(baselines) == 1:
        return baselines[0]
    return next((variant for variant in baselines if variant.group == candidate.group), None)


def variant_of(run: Run, name: str) -> Variant:
    """Return the variant of a name (UsageError with the nearest spelling when the run has none)."""
    names = [variant.name for variant in run.variants]
    if name not in names:
        hint = nearest(name, names) or f"there are: {', '.join(names)}"
        raise UsageError(f"run {run.id} has no variant {name!r}; {hint}")
    return run.variants[names.index(name)]


def side_of(run: Run, name: str) -> Side:
    variant = variant_of(run, name)
    return Side(run_id=run.id, variant=name, definition=variant.definition, identity=variant.identity)


def _refuse_other_evaluators(run: Run, other: Run) -> None:
    judged = {evaluator.name: evaluator.identity for evaluator in run.evaluators}
    for evaluator in other.evaluators:
        known = judged.get(evaluator.name, evaluator.identity)
        if known != evaluator.identity:
            raise UsageError(
                f"evaluator {evaluator.name} is not the same on both sides: {run.id} was judged by "
                f"{short(known)}, {other.id} by {short(evaluator.identity)}; "
                "`llmops score` the older run again, then compare"
            )


def refuse_other_schemas(baseline: tuple[Run, str], candidate: tuple[Run, str]) -> None:
    """Scores of outputs of another form, or against answers of another type, mean something else.

    What was not declared, or not noted at the time, differs from nothing.
    """
    run, other = baseline[0], candidate[0]
    before, after = run.dataset.schema_identity, other.dataset.schema_identity
    if before and after and before != after:
        raise UsageError(
            f"the types of dataset {other.dataset.name} are not the same on both sides: {run.id} was made with "
            f"{short(before)}, {other.id} with {short(after)}; `llmops run` the older experiment again, then compare"
        )
    formats = [variant_of(*side).response_format for side in (baseline, candidate)]
    if None not in formats and formats[0] != formats[1]:
        versions = [short(identity_of(found)) for found in formats]
        raise UsageError(
            f"response_format is not the same on both sides: {run.id}:{baseline[1]} asked for {versions[0]}, "
            f"{other.id}:{candidate[1]} for {versions[1]}; outputs of another form cannot be compared"
        )


def _evaluators_of(run: Run, other: Run) -> list[EvaluatorVersion]:
    """Return the evaluators of either side, each once."""
    return list({evaluator.name: evaluator for evaluator in (*run.evaluators, *other.evaluators)}.values())


def summing_evaluators(*runs: Run) -> dict[str, Summary]:
    """Return the evaluators of these runs that have figures over all cases, by name, as they were defined."""
    found: dict[str, Summary] = {}
    for run in runs:
        uses = map(EvaluatorUse.model_validate, run.experiment_definition.get("evaluators", ()))
        for use in uses:
            evaluator = None if use.name in found else _summary(use)
            if evaluator is not None:
                found[use.name] = evaluator
    return found


def _summary(use: EvaluatorUse) -> Summary | None:
    """Return an evaluator if it has figures over all cases; they only inform, so one that is gone costs no more."""
    try:
        if not hasattr(evaluator_class(use.kind), "statistics"):
            return None
        evaluator = open_evaluator(use.kind, use.options)
    except (UsageError, ValidationError):
        return None
    return evaluator if isinstance(evaluator, Summary) else None


def _no_pairs(run: Run, other: Run, baseline: SideValues, candidate: SideValues) -> str:
    n_common = len(baseline.cases.keys() & candidate.cases.keys())
    why = f"the {n_common} cases of one id differ in content" if n_common else "no case id is on both sides"
    return f"{run.id} ({run.dataset.name}) and {other.id} ({other.dataset.name}) share no case: {why}"


# --- the values of one side ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CaseFacts:
    """What pairing needs of a case. key: hash of its content, "" where both sides have one dataset."""

    place: int
    key: str
    slice: str | None
    cluster: str | None


@dataclass
class Column:
    """The values of one metric, one a repeat, with the place of the case each belongs to: 12 bytes each."""

    places: array[int] = field(default_factory=lambda: array("I"))
    values: array[float] = field(default_factory=lambda: array("d"))

    def add(self, place: int, value: float) -> None:
        """Take in the value of one repeat."""
        self.places.append(place)
        self.values.append(value)

    def means(self, n: int) -> npt.NDArray[np.float64]:
        """Return the mean of each of n cases, NaN where a case has no value."""
        places, values = np.array(self.places, dtype=np.intp), np.array(self.values, dtype=np.float64)
        return case_means(places, values, n)


@dataclass
class SideValues:
    """Every number in the rows of one variant, by metric: 16 bytes each, however long the texts were.

    summing: the evaluators with figures over all cases, by name, of whose scores a ledger is kept.
    """

    with_keys: bool
    summing: Mapping[str, Summary] = field(default_factory=dict)
    ledgers: dict[str, Ledger] = field(default_factory=dict)
    cases: dict[str, CaseFacts] = field(default_factory=dict)
    columns: dict[str, Column] = field(default_factory=dict)
    parts: dict[str, str] = field(default_factory=dict)
    """Evaluator of each part, by the name of the metric."""

    def add(self, row: RowNumbers | Row) -> None:
        """Take in one row; what is absent counts nowhere."""
        case = row.case
        if case.id not in self.cases:
            key = case.key() if self.with_keys else ""
            self.cases[case.id] = CaseFacts(len(self.cases), key, case.slice, case.cluster)
        for name, value in self._values(row):
            if value is not None:
                self.columns.setdefault(name, Column()).add(self.cases[case.id].place, value)
        for score in row.scores:
            if score.evaluator in self.summing:
                ledger = self.ledgers.setdefault(score.evaluator, Ledger())
                ledger.add(self.cases[case.id].place, score)

    def _values(self, row: RowNumbers | Row) -> Iterator[tuple[str, float | None]]:
        for score in row.scores:
            yield score.evaluator, score.value
            for part, value in score.parts.items():
                name = f"{score.evaluator}.{part}"
                self.parts[name] = score.evaluator
                yield name, value
        if row.output is not None:
            yield from measured(row.output)

    def means(self, name: str, ids: Sequence[str]) -> Floats:
        """Return the case means of a metric in the order of `ids`, NaN where a case has none."""
        means = self.columns.get(name, Column()).means(len(self.cases))
        return means[[self.cases[case_id].place for case_id in ids]]


def read_side(
    journal: Numbers, run: Run, variant: str, summing: Mapping[str, Summary], *, with_keys: bool
) -> SideValues:
    side = SideValues(with_keys, summing)
    for row in journal.numbers(run.id, variant=variant):
        side.add(row)
    return side


# --- the effects --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Measure:
    """A metric that has a value a case. low, high: its range, None where it is open.

    kind: the `score` of an evaluator or a `part` of it; a `rate` or a `size` (seconds, tokens).
    """

    name: str
    kind: Literal["score", "part", "rate", "size"]
    low: float | None = None
    high: float | None = None
    lower_is_better: bool = False

    def scale(self, before: Floats, after: Floats) -> Literal["difference", "ratio"]:
        """Return how to compare: scores without any range as ratios too, where all are above 0."""
        if self.low is not None or self.high is not None:
            return "difference"
        is_positive = before.size == 0 or min(before.min(), after.min()) > 0
        return "ratio" if self.kind == "size" or is_positive else "difference"


def _measures(evaluators: Sequence[EvaluatorVersion], *sides: SideValues) -> Iterator[Measure]:
    owners = {name: owner for side in sides for name, owner in side.parts.items()}
    for evaluator in evaluators:
        about = (evaluator.low, evaluator.high, evaluator.lower_is_better)
        yield Measure(evaluator.name, "score", *about)
        for name in sorted(name for name, owner in owners.items() if owner == evaluator.name):
            yield Measure(name, "part", *about)
    yield Measure("invalid_rate", "rate", 0.0, 1.0, lower_is_better=True)
    for name in OPEN_MEASURES:
        yield Measure(name, "size", lower_is_better=True)


@dataclass(frozen=True)
class Pairs:
    """The cases of both sides that are the same, sorted by id. clusters: None when no case has one."""

    baseline: SideValues
    candidate: SideValues
    ids: Sequence[str]
    slices: Sequence[str | None]
    clusters: npt.NDArray[np.str_] | None
    level: float

    @property
    def slice_names(self) -> list[str]:
        """The names of the slices, sorted."""
        return sorted({label for label in self.slices if label is not None})

    def effect(self, measure: Measure, slice_name: str | None = None) -> Effect:
        """Return the effect on one metric, over all pairs or those of one slice."""
        before = self.baseline.means(measure.name, self.ids)
        after = self.candidate.means(measure.name, self.ids)
        both = ~np.isnan(before) & ~np.isnan(after)
        # The scale is that of all pairs, so that a slice and the whole can be read side by side.
        scale = measure.scale(before[both], after[both])
        asked = np.array([slice_name in (None, label) for label in self.slices])
        n_missing = int((asked & (np.isnan(before) != np.isnan(after))).sum())
        kept = both & asked
        if not kept.any():
            return _unknown(measure, scale, n_missing)
        ids = [case_id for case_id, is_kept in zip(self.ids, kept, strict=True) if is_kept]
        clusters = None if self.clusters is None else self.clusters[kept]
        values = PairedValues(measure, ids, before[kept], after[kept], clusters, self.level)
        effect = values.ratio() if scale == "ratio" else values.difference()
        return effect.model_copy(update={"n_missing": n_missing})

    def effects_together(self, measure: Measure, *, seed: int) -> Iterator[Effect]:
        """Yield the effects on the figures of all cases together that the evaluator of this name has."""
        summing = self.candidate.summing.get(measure.name)
        ledgers = [side.ledgers.get(measure.name) for side in (self.baseline, self.candidate)]
        if measure.kind != "score" or summing is None or ledgers[0] is None or ledgers[1] is None:
            return
        places = [
            {side.cases[case_id].place: pair for pair, case_id in enumerate(self.ids)}
            for side in (self.baseline, self.candidate)
        ]
        sums = pair_sums(summing, (ledgers[0], ledgers[1]), (places[0], places[1]))
        if not sums.pairs:
            return
        clusters = None if self.clusters is None else self.clusters[sums.pairs].tolist()
        for found in sums.figures(clusters, level=self.level, seed=seed):
            yield _together(measure, found, len(sums.pairs), sums.n_missing, clusters)


def _together(
    measure: Measure, found: PairedFigure, n: int, n_missing: int, clusters: Sequence[str] | None
) -> Effect:
    return Effect(
        metric=f"{measure.name}.{found.part}",
        scale="difference",
        baseline=found.baseline,
        candidate=found.candidate,
        estimate=found.candidate - found.baseline,
        interval=found.interval,
        n=n,
        n_clusters=None if clusters is None else len(set(clusters)),
        n_missing=n_missing,
        lower_is_better=measure.lower_is_better,
        note="; ".join(filter(None, ("by resampling cases: it informs", rough_note(n)))),
    )


def _unknown(measure: Measure, scale: Literal["difference", "ratio"], n_missing: int) -> Effect:
    note = "no case has it on both sides" if n_missing else "not measured on either side"
    return Effect(
        metric=measure.name,
        scale=scale,
        baseline=None,
        candidate=None,
        estimate=None,
        n_missing=n_missing,
        lower_is_better=measure.lower_is_better,
        note=note,
    )


def pair_cases(baseline: SideValues, candidate: SideValues, *, level: float) -> Pairs:
    common = sorted(baseline.cases.keys() & candidate.cases.keys())
    ids = [case_id for case_id in common if baseline.cases[case_id].key == candidate.cases[case_id].key]
    facts = [candidate.cases[case_id] for case_id in ids]
    clusters = None
    if any(fact.cluster is not None for fact in facts):
        labels = (
            f"case:{case_id}" if fact.cluster is None else f"cluster:{fact.cluster}"
            for case_id, fact in zip(ids, facts, strict=True)
        )
        clusters = np.array(list(labels))
    return Pairs(baseline, candidate, ids, [fact.slice for fact in facts], clusters, level)


@dataclass(frozen=True, slots=True)
class PairedValues:
    """The values of one metric on the cases that have one on both sides, n >= 1."""

    measure: Measure
    ids: Sequence[str]
    before: Floats
    after: Floats
    clusters: npt.NDArray[np.str_] | None
    level: float

    def difference(self) -> Effect:
        """Return the mean difference."""
        low, high = self.measure.low, self.measure.high
        change = self._change()
        if low is None or high is None:
            found = mean_interval_unbounded(change, level=self.level, clusters=self.clusters)
            return self._effect("difference", _mean(change), found, note=None if found else _TOO_FEW)
        try:
            found = paired_interval(
                self.before, self.after, low=low, high=high, level=self.level, clusters=self.clusters
            )
        except ValueError as error:
            return self._effect("difference", None, None, note=f"a score outside its range: {error}")
        return self._effect("difference", _mean(change), found)

    def ratio(self) -> Effect:
        """Return the ratio of geometric means; without one where a value is not above 0."""
        n_zero = int(((self.before <= 0) | (self.after <= 0)).sum())
        if n_zero:
            return self._effect("ratio", None, None, note=f"{n_zero} cases have a 0: there is no ratio")
        logs = np.log(self.before), np.log(self.after)
        try:
            found = geometric_ratio_interval(
                self.before, self.after, level=self.level, clusters=self.clusters
            )
        except OverflowError:
            return self._effect("ratio", None, None, note="cases differ by too many orders of magnitude")
        estimate = math.exp(_mean(logs[1] - logs[0]))
        ends = None if found is None else found[1:]
        effect = self._effect("ratio", estimate, ends, note=None if found else _TOO_FEW)
        means = {"baseline": math.exp(_mean(logs[0])), "candidate": math.exp(_mean(logs[1]))}
        return effect.model_copy(update=means)

    def _effect(
        self,
        scale: Literal["difference", "ratio"],
        estimate: float | None,
        ends: tuple[float, float] | None,
        note: str | None = None,
    ) -> Effect:
        improved, regressed = self._flips()
        return Effect(
            metric=self.measure.name,
            scale=scale,
            baseline=_mean(self.before),
            candidate=_mean(self.after),
            estimate=estimate,
            interval=None if ends is None else Interval(low=ends[0], high=ends[1], level=self.level),
            n=len(self.ids),
            n_clusters=None if self.clusters is None else len(np.unique(self.clusters)),
            lower_is_better=self.measure.lower_is_better,
            improved=improved,
            regressed=regressed,
            note=note,
        )

    @property
    def _dust(self) -> float:
        """What adding and averaging may leave behind; more than that is a change."""
        low, high = self.measure.low, self.measure.high
        if low is None or high is None:
            return DUST * float(max(np.abs(self.before).max(), np.abs(self.after).max()))
        return DUST * (high - low)

    def _change(self) -> Floats:
        change = self.after - self.before
        change[np.abs(change) <= self._dust] = 0.0
        return change

    def _flips(self) -> tuple[tuple[Flip, ...], tuple[Flip, ...]]:
        """Return the cases that got better and those that got worse, largest change first, ties by id."""
        if self.measure.kind == "size":  # no two calls take the same time
            return (), ()
        change = self._change()
        places = [int(at) for at in np.flatnonzero(change)]
        places.sort(key=lambda at: -round(float(abs(change[at])) / self._dust))
        gain = -change if self.measure.lower_is_better else change
        better, worse = ([self._flip(at) for at in places if sign * gain[at] > 0] for sign in (1, -1))
        return tuple(better), tuple(worse)

    def _flip(self, at: int) -> Flip:
        return Flip(case_id=self.ids[at], baseline=self.before[at], candidate=self.after[at])


_TOO_FEW = "fewer than two cases or clusters: no interval"


def _mean(values: Floats) -> float:
    return float(values.mean()) + 0.0  # never -0.0


def _fact(name: str, baseline: tuple[Run, str], candidate: tuple[Run, str]) -> Effect:
    """Return a figure of both runs side by side, as it stands there: facts have no interval."""
    figures = [run.summary.get(variant, {}).get(name) for run, variant in (baseline, candidate)]
    values = [None if figure is None else figure.value for figure in figures]
    sizes = [0 if figure is None else figure.n for figure in figures]
    before, after = values
    notes = [figure.note for figure in figures if figure is not None and figure.note]
    if None in figures:
        notes.append("not summed up")
    if sizes[0] != sizes[1]:
        notes.append(f"over {sizes[0]} and {sizes[1]} cells")
    return Effect(
        metric=name,
        scale="difference",
        baseline=before,
        candidate=after,
        estimate=None if before is None or after is None else after - before,
        n=min(sizes),
        lower_is_better=True,
        note="; ".join(dict.fromkeys(notes)) or None,
    )
