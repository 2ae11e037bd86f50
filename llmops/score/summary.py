"""Scores -> metrics: one figure with its interval for each metric of each variant, slices beside them.

Reads the rows of a run from the journal, one variant at a time. Repeats are collapsed to case means first, and
absent scores are left out and counted, never taken for 0.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from llmops.evaluators.base import Summary, Summed
from llmops.evaluators.bound import BoundEvaluator
from llmops.records import FAILED, EvaluatorVersion, Figure, Interval, Output, Row, Run

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

LEVEL = 0.90
"""Coverage of every interval: 1 - 2 alpha at alpha 0.05, so that intervals and verdicts agree."""

OPEN_MEASURES = ("latency_s", "ttft_s", "input_tokens", "output_tokens")
"""What is measured of every output without an upper end."""

Figures = dict[str, Figure]


class Rows(Protocol):
    """Where the rows of a run are read from: the journal."""

    def rows(self, run_id: str, *, variant: str | None = None, with_spans: bool = True) -> Iterable[Row]:
        """Yield the rows of a run, or of one of its variants."""


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
        """Return the mean of each of n cases, NaN where a case has no value.

        Sums are taken in the order of the values, so that the order of the rows shows nowhere.
        """
        import numpy as np

        places, values = np.array(self.places, dtype=np.int64), np.array(self.values, dtype=np.float64)
        order = np.lexsort((values, places))
        sums = np.bincount(places[order], weights=values[order], minlength=n)
        counts = np.bincount(places, minlength=n)
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


class Sums(NamedTuple):
    """What figures over all cases need of a score, without its reasons and its texts."""

    value: float | None
    label: str | None
    truth: str | None
    sums: tuple[float, ...]


@dataclass
class Ledger:
    """The scores of one evaluator that sum up over all cases, with the place of the case each belongs to."""

    places: array[int] = field(default_factory=lambda: array("q"))
    scores: list[Sums] = field(default_factory=list)
    _values: dict[Any, Any] = field(default_factory=dict)
    """Each label and each number once: counts are small and labels few."""

    def add(self, place: int, score: Summed) -> None:
        """Take in the score of one repeat."""
        self.places.append(place)
        once = self._values.setdefault
        label, truth = once(score.label, score.label), once(score.truth, score.truth)
        self.scores.append(
            Sums(score.value, label, truth, tuple(once(number, number) for number in score.sums))
        )


def measured(output: Output) -> Iterator[tuple[str, float | None]]:
    """Yield what is measured of an output unasked, by metric; seconds and tokens only where it is one."""
    yield "invalid_rate", None if output.valid is None else float(not output.valid)
    if output.status not in FAILED:
        yield from ((name, getattr(output, name)) for name in OPEN_MEASURES)


@dataclass
class Sheet:
    """The numbers in the rows of one variant, by metric and case, however long the texts were.

    tried: for each case, whether it has an output at all; only then can something of it be missing.
    ledgers: what evaluators that sum up over all cases said.
    """

    summing: frozenset[str] = frozenset()
    cases: dict[str, int] = field(default_factory=dict)
    slices: list[str | None] = field(default_factory=list)
    clusters: list[str | None] = field(default_factory=list)
    tried: bytearray = field(default_factory=bytearray)
    columns: dict[str, Column] = field(default_factory=dict)
    parts: set[str] = field(default_factory=set)
    ledgers: dict[str, Ledger] = field(default_factory=dict)
    n_rows: int = 0
    n_errors: int = 0
    cost_usd: array[float] | None = field(default_factory=lambda: array("d"))

    def add(self, row: Row) -> None:
        """Take in one row; what is absent counts nowhere."""
        place = self._place(row)
        if row.output is None:
            return
        self.n_rows += 1
        self.tried[place] = True
        self._add_output(place, row.output)
        for score in row.scores:
            self._add(score.evaluator, place, score.value)
            for part, value in score.parts.items():
                self.parts.add(f"{score.evaluator}.{part}")
                self._add(f"{score.evaluator}.{part}", place, value)
            if score.evaluator in self.summing:
                self.ledgers.setdefault(score.evaluator, Ledger()).add(place, score)

    def _place(self, row: Row) -> int:
        case = row.case
        place = self.cases.setdefault(case.id, len(self.cases))
        if place == len(self.slices):
            self.slices.append(case.slice)
            self.clusters.append(case.cluster)
            self.tried.append(False)
        return place

    def _add(self, name: str, place: int, value: float | None) -> None:
        if value is not None:
            self.columns.setdefault(name, Column()).add(place, value)

    def _add_output(self, place: int, output: Output) -> None:
        self.n_errors += output.status in FAILED
        for name, value in measured(output):
            self._add(name, place, value)
        if output.cost_usd is None or self.cost_usd is None:
            self.cost_usd = None
        else:
            self.cost_usd.append(output.cost_usd)

    def values(self, name: str, slice_name: str | None = None) -> Values:
        """Return the case means of a metric, over all cases or those of one slice, in the order of case ids."""
        import numpy as np

        means = self.columns.get(name, Column()).means(len(self.cases))
        order, codes = self._places
        chosen = order if slice_name is None else order[[self.slices[place] == slice_name for place in order]]
        known = chosen[~np.isnan(means[chosen])]
        return Values(means[known], codes[known], len(chosen) - len(known))

    @cached_property
    def _places(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The places of the cases with an output in the order of their ids, and the cluster of every place.

        Clusters are numbers in the order of their labels: those of one case first, by its id, then the named ones.
        """
        import numpy as np

        ids = list(self.cases)
        order = sorted(range(len(ids)), key=ids.__getitem__)
        names = sorted({name for name in self.clusters if name is not None})
        alone = (place for place in order if self.clusters[place] is None)
        codes = np.zeros(len(ids), dtype=np.int64)
        n_alone = 0
        for n_alone, place in enumerate(alone, 1):
            codes[place] = n_alone - 1
        ranks = {name: rank for rank, name in enumerate(names, n_alone)}
        for place, name in enumerate(self.clusters):
            if name is not None:
                codes[place] = ranks[name]
        return np.array([place for place in order if self.tried[place]], dtype=np.int64), codes

    def labels(self) -> list[str]:
        """Return the cluster of each place in words; a case without one is its own."""
        pairs = zip(self.cases, self.clusters, strict=True)
        return [f"case:{case_id}" if name is None else f"cluster:{name}" for case_id, name in pairs]


@dataclass(frozen=True, slots=True)
class Values:
    """The case means there are, the number of the cluster of each, and how many cases have none."""

    numbers: npt.NDArray[np.float64]
    clusters: npt.NDArray[np.int64]
    n_missing: int

    @property
    def mean(self) -> float:
        """The mean over the cases; there must be one."""
        return math.fsum(self.numbers) / len(self.numbers)


def summarise_variant(
    rows: Iterable[Row], evaluators: Sequence[BoundEvaluator], *, seed: int
) -> tuple[Figures, dict[str, Figures]]:
    """Return the figures of one variant by metric name, and those of its evaluators by slice.

    rows: all of the variant's rows. seed: of the resampling behind figures that are no means.
    """
    summing = {bound.name: bound.evaluator for bound in evaluators if isinstance(bound.evaluator, Summary)}
    sheet = Sheet(frozenset(summing))
    for row in rows:
        sheet.add(row)
    versions = [evaluator.version() for evaluator in evaluators]
    figures = _scored(sheet, versions)
    figures |= {name: _open_mean(sheet.values(name)) for name in sorted(sheet.parts)}
    for name, evaluator in summing.items():
        figures |= _summed_up(name, evaluator, sheet, seed)
    figures |= _measured(sheet)
    names = sorted({name for name in sheet.slices if name is not None})
    return figures, {name: _scored(sheet, versions, name) for name in names}


def summarise_run(source: Rows, run: Run, evaluators: Sequence[BoundEvaluator]) -> Run:
    """Return the run with the summary of each of its variants, and how many of its outputs are errors."""
    summary: dict[str, Mapping[str, Figure]] = {}
    slices: dict[str, Mapping[str, Mapping[str, Figure]]] = {}
    n_errors = 0
    for variant in run.variants:
        rows = source.rows(run.id, variant=variant.name, with_spans=False)
        figures, slices[variant.name] = summarise_variant(rows, evaluators, seed=run.seed)
        summary[variant.name] = figures
        n_errors += round((figures["error_rate"].value or 0.0) * figures["error_rate"].n)
    return run.model_copy(update={"summary": summary, "slices": slices, "n_errors": n_errors})


def _scored(sheet: Sheet, evaluators: Sequence[EvaluatorVersion], slice_name: str | None = None) -> Figures:
    figures = {}
    for evaluator in evaluators:
        values = sheet.values(evaluator.name, slice_name)
        if evaluator.low is None or evaluator.high is None:
            figures[evaluator.name] = _open_mean(values)
        else:
            figures[evaluator.name] = _bounded_mean(values, evaluator.low, evaluator.high)
    return figures


def _bounded_mean(values: Values, low: float, high: float, kind: Literal["mean", "share"] = "mean") -> Figure:
    from llmops.stats.intervals import mean_interval

    if not values.numbers.size:
        return _figure(values, kind, None)
    ends = mean_interval(values.numbers, low=low, high=high, level=LEVEL, clusters=values.clusters)
    return _figure(values, kind, ends)


def _open_mean(values: Values) -> Figure:
    from llmops.stats.intervals import mean_interval_unbounded

    if not values.numbers.size:
        return _figure(values, "mean", None)
    return _figure(
        values, "mean", mean_interval_unbounded(values.numbers, level=LEVEL, clusters=values.clusters)
    )


def _figure(values: Values, kind: Literal["mean", "share"], ends: tuple[float, float] | None) -> Figure:
    return Figure(
        value=values.mean if values.numbers.size else None,
        kind=kind,
        n=len(values.numbers),
        n_missing=values.n_missing,
        interval=None if ends is None else Interval(low=ends[0], high=ends[1], level=LEVEL),
    )


def _summed_up(name: str, evaluator: Summary, sheet: Sheet, seed: int) -> Figures:
    """Figures over all cases together, which only some evaluators have."""
    ledger = sheet.ledgers.get(name)
    if ledger is None:
        return {}
    labels = sheet.labels()
    clusters = [labels[place] for place in ledger.places]
    found = evaluator.summarise(ledger.scores, clusters, level=LEVEL, seed=seed)
    n_without = sheet.n_rows - len(ledger.scores)
    repeated = sheet.n_rows > sum(sheet.tried)
    return {
        f"{name}.{part}": figure.model_copy(
            update={
                "n_missing": figure.n_missing + n_without,
                "note": "; ".join(filter(None, (figure.note, "n counts repeats" if repeated else None)))
                or None,
            }
        )
        for part, figure in found.items()
    }


def _measured(sheet: Sheet) -> Figures:
    """What is measured unasked."""
    cost = None if sheet.cost_usd is None else math.fsum(sheet.cost_usd)
    rate = sheet.n_errors / sheet.n_rows if sheet.n_rows else None
    figures: Figures = {
        "error_rate": Figure(value=rate, kind="share", n=sheet.n_rows),
        "cost_usd": Figure(
            value=cost,
            kind="sum",
            n=sheet.n_rows,
            note="the price or the tokens of some calls are unknown" if cost is None else None,
        ),
    }
    if "invalid_rate" in sheet.columns:
        figures["invalid_rate"] = _bounded_mean(sheet.values("invalid_rate"), 0.0, 1.0, "share")
    for name in OPEN_MEASURES:
        if name in sheet.columns:
            figures |= _spread(name, sheet)
    return figures


def _spread(name: str, sheet: Sheet) -> Figures:
    from llmops.stats.intervals import quantile

    values = sheet.values(name)
    n, n_missing = len(values.numbers), values.n_missing
    total = math.fsum(sheet.columns[name].values)
    quantiles = {q: quantile(values.numbers, q / 100) for q in (50, 95)}
    return {
        name: _open_mean(values),
        **{
            f"{name}.p{q}": Figure(value=value, kind="quantile", n=n, n_missing=n_missing)
            for q, value in quantiles.items()
        },
        f"{name}.sum": Figure(value=total, kind="sum", n=n, n_missing=n_missing),
    }
