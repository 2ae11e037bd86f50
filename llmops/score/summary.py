"""Scores -> metrics: one figure with its interval for each metric of each variant, slices beside them.

Reads the rows of a run from the journal, one variant at a time. Repeats are collapsed to case means first, and
absent scores are left out and counted, never taken for 0.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise, repeat
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from llmops.evaluators.base import Summary, Summed
from llmops.evaluators.bound import BoundEvaluator
from llmops.records import (
    FAILED,
    Blame,
    EvaluatorVersion,
    Figure,
    Interval,
    Output,
    OutputNumbers,
    Row,
    RowNumbers,
    Run,
)
from llmops.score.blame import find_blame

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

LEVEL = 0.90
"""Coverage of every interval: 1 - 2 alpha at alpha 0.05, so that intervals and verdicts agree."""

OPEN_MEASURES = ("latency_s", "ttft_s", "input_tokens", "output_tokens")
"""What is measured of every output without an upper end."""

MOST_MODELS = 20
"""Names of models that a variant's record holds: a service that makes up one for every reply fills no page."""

Figures = dict[str, Figure]

_NO_CODE = 255
_GAP = bytes([_NO_CODE])
_LONGEST_KEY = 64  # bytes of an id by which cases are put in order; half of it is a hash where there are more


class Numbers(Protocol):
    """Where the rows of a run are read from: the journal."""

    def numbers(self, run_id: str, *, variant: str) -> Iterable[RowNumbers | Row]:
        """Yield the rows of one variant of a run, their texts left out or not."""


class Sums(NamedTuple):
    """What figures over all cases need of a score, without its reasons and its texts."""

    value: float | None
    label: str | None
    truth: str | None
    sums: tuple[float, ...]


@dataclass
class Ledger:
    """The scores of one evaluator that sum up over all cases. places: of what each belongs to, a row or a case."""

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


def measured(output: OutputNumbers | Output) -> Iterator[tuple[str, float | None]]:
    """Yield what is measured of an output unasked, by metric; seconds and tokens only where it is one."""
    yield "invalid_rate", None if output.valid is None else float(not output.valid)
    if output.status not in FAILED:
        yield "unfiltered_rate", float(output.unfiltered)
        yield from ((name, getattr(output, name)) for name in OPEN_MEASURES)


class CaseIds:
    """The case of each row, by its id: packed, since a hundred thousand texts take more than all their figures."""

    def __init__(self) -> None:
        self._text = bytearray()
        self._ends = array("I", [0])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, row: int) -> str:
        return self._bytes(row).decode("utf-8", "surrogatepass")

    def append(self, case_id: str) -> None:
        """Take in the id of the next row."""
        self._text += case_id.encode("utf-8", "surrogatepass")
        self._ends.append(len(self._text))

    def _bytes(self, row: int) -> bytes:
        return bytes(self._text[self._ends[row] : self._ends[row + 1]])

    def grouped(self) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp] | None]:
        """Return for each case, in the order of the ids, its first row; and for each row the place of its case.

        Without places where each case has one row.
        """
        import numpy as np

        n = len(self)
        longest = max((end - start for start, end in pairwise(self._ends)), default=1)
        keys = np.fromiter(
            (_key(self._bytes(row)) for row in range(n)), f"S{min(longest, _LONGEST_KEY)}", count=n
        )
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        is_first = np.ones(n, dtype=np.bool_)
        is_first[1:] = keys[1:] != keys[:-1]
        if is_first.all():
            return order, None
        places = np.empty(n, dtype=np.intp)
        places[order] = np.cumsum(is_first) - 1
        return order[is_first], places


def _key(case_id: bytes) -> bytes:
    """Return what an id is told apart by: itself, but for the end of one that is very long."""
    if len(case_id) <= _LONGEST_KEY:
        return case_id
    digest = hashlib.blake2b(case_id, digest_size=_LONGEST_KEY // 4).hexdigest()
    return case_id[: _LONGEST_KEY // 2] + digest.encode()


@dataclass(frozen=True, slots=True)
class Grouped:
    """The rows of a sheet by case, cases in the order of their ids.

    places: of each row, that of its case; None where each case has one row. first: of each case, its first row.
    tried: whether it has an output at all; only then can something of it be missing. clusters: its cluster as a
    number, those of one case first, by its id, then the named ones; None where each case is its own.
    """

    first: npt.NDArray[np.intp]
    places: npt.NDArray[np.intp] | None
    tried: npt.NDArray[np.bool_]
    clusters: npt.NDArray[np.int64] | None

    def means(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the mean of each case over its rows, NaN where all of them are."""
        import numpy as np

        from llmops.stats.arrays import case_means

        if self.places is None:
            return values[self.first]
        known = ~np.isnan(values)
        return case_means(self.places[known], values[known], len(self.first))


class Column:
    """One number a row, or none. A few different ones take a byte each, as scores of 0 and 1 do, others eight."""

    def __init__(self) -> None:
        self._codes = bytearray()
        self._known: dict[float, int] = {}
        self._wide: array[float] | None = None

    def put(self, place: int, value: float) -> None:
        """Set the value of a row; rows come in order, and those left out have none."""
        if self._wide is None:
            code = self._known.setdefault(value, len(self._known))
            if code < _NO_CODE:
                self._codes += _GAP * (place - len(self._codes))
                self._codes.append(code)
                return
            self._wide = array("d", self.values(len(self._codes)).tobytes())
        self._wide.extend(repeat(math.nan, place - len(self._wide)))
        self._wide.append(value)

    def is_ever(self, value: float) -> bool:
        """Return whether some row has a value, of a column of few."""
        return value in self._known

    def values(self, n: int) -> npt.NDArray[np.float64]:
        """Return the values of the first n rows, NaN where there is none."""
        import numpy as np

        if self._wide is not None:
            found = np.full(n, np.nan)
            found[: len(self._wide)] = self._wide
            return found
        known = list(self._known)[:_NO_CODE]
        table = np.full(_NO_CODE + 1, np.nan)
        table[: len(known)] = known
        codes = np.full(n, _NO_CODE, dtype=np.uint8)
        codes[: len(self._codes)] = self._codes
        return table[codes]


class Labels:
    """A few names for many rows, as numbers; 0 is none, and where no row has one nothing is kept."""

    def __init__(self) -> None:
        self._numbers = array("I")
        self._known: dict[str, int] = {}

    def put(self, place: int, name: str | None) -> None:
        """Set the name of a row; rows come in order."""
        if name is not None:
            self._numbers.extend(repeat(0, place - len(self._numbers)))
            self._numbers.append(self._known.setdefault(name, len(self._known) + 1))

    def numbers(self, n: int) -> npt.NDArray[np.uint32]:
        """Return the number of the name of each of the first n rows."""
        import numpy as np

        found = np.zeros(n, dtype=np.uint32)
        found[: len(self._numbers)] = self._numbers
        return found

    def number(self, name: str) -> int:
        """Return the number of a name that some row has."""
        return self._known[name]

    @property
    def names(self) -> list[str]:
        """All names there are, sorted."""
        return sorted(self._known)


@dataclass
class Sheet:
    """The numbers in the rows of one variant, by metric and row, however long the texts were: one to eight bytes each.

    parts: of scores, by metric the evaluator that they are of. ledgers: what evaluators that sum up over all cases
    said. costs: of the outputs; None once one is unknown.
    """

    summing: frozenset[str] = frozenset()
    ids: CaseIds = field(default_factory=CaseIds)
    slices: Labels = field(default_factory=Labels)
    clusters: Labels = field(default_factory=Labels)
    tried: bytearray = field(default_factory=bytearray)
    columns: dict[str, Column] = field(default_factory=dict)
    parts: dict[str, str] = field(default_factory=dict)
    ledgers: dict[str, Ledger] = field(default_factory=dict)
    n_errors: int = 0
    costs: Column | None = field(default_factory=Column)

    def add(self, row: RowNumbers | Row) -> None:
        """Take in one row; what is absent counts nowhere."""
        place = len(self.ids)
        self.ids.append(row.case.id)
        self.slices.put(place, row.case.slice)
        self.clusters.put(place, row.case.cluster)
        self.tried.append(row.output is not None)
        if row.output is None:
            return
        self._add_output(place, row.output)
        for score in row.scores:
            self._add(score.evaluator, place, score.value)
            for part, value in score.parts.items():
                self.parts[f"{score.evaluator}.{part}"] = score.evaluator
                self._add(f"{score.evaluator}.{part}", place, value)
            if score.evaluator in self.summing:
                self.ledgers.setdefault(score.evaluator, Ledger()).add(place, score)

    def _add(self, name: str, place: int, value: float | None) -> None:
        if value is not None:
            self.columns.setdefault(name, Column()).put(place, value)

    def _add_output(self, place: int, output: OutputNumbers | Output) -> None:
        self.n_errors += output.status in FAILED
        for name, value in measured(output):
            self._add(name, place, value)
        if output.cost_usd is None:
            self.costs = None
        elif self.costs is not None:
            self.costs.put(place, output.cost_usd)

    @property
    def n_rows(self) -> int:
        """How many rows have an output."""
        return sum(self.tried)

    @property
    def is_repeated(self) -> bool:
        """Whether some case has more than one output."""
        return self.n_rows > int(self._grouped.tried.sum())

    def column(self, name: str) -> npt.NDArray[np.float64]:
        """Return the value of each row, NaN where there is none."""
        return self.columns.get(name, Column()).values(len(self.ids))

    def case_means(self, name: str) -> npt.NDArray[np.float64]:
        """Return the mean of each case over its rows, NaN where there is none, in the order of case ids."""
        return self._grouped.means(self.column(name))

    def case_ids(self, chosen: npt.NDArray[np.bool_]) -> tuple[str, ...]:
        """Return the ids of the cases chosen, one truth a case in the order of their ids."""
        return tuple(self.ids[row] for row in self._grouped.first[chosen])

    def values(self, name: str, slice_name: str | None = None) -> Values:
        """Return the case means of a metric, over all cases or those of one slice, in the order of case ids."""
        import numpy as np

        cases = self._grouped
        chosen = cases.tried
        if slice_name is not None:
            numbers = self.slices.numbers(len(self.ids))[cases.first]
            chosen = chosen & (numbers == self.slices.number(slice_name))
        means = cases.means(self.column(name))
        known = chosen & ~np.isnan(means)
        clusters = None if cases.clusters is None else cases.clusters[known]
        return Values(means[known], clusters, int(chosen.sum() - known.sum()))

    @cached_property
    def _grouped(self) -> Grouped:
        import numpy as np

        first, places = self.ids.grouped()
        is_tried = np.frombuffer(self.tried, dtype=np.bool_)
        tried = is_tried[first]
        if places is not None:
            tried[places[is_tried]] = True
        return Grouped(first, places, tried, self._cluster_numbers(first) if self.clusters.names else None)

    def _cluster_numbers(self, first: npt.NDArray[np.intp]) -> npt.NDArray[np.int64]:
        import numpy as np

        named = self.clusters.numbers(len(self.ids))[first]
        alone = named == 0
        ranks = np.zeros(len(self.clusters.names) + 1, dtype=np.int64)
        for rank, name in enumerate(self.clusters.names, int(alone.sum())):
            ranks[self.clusters.number(name)] = rank
        return np.where(alone, np.cumsum(alone) - 1, ranks[named])

    def labels(self, rows: Iterable[int]) -> list[str]:
        """Return the cluster of each of some rows in words; a case without one is its own."""
        names = {self.clusters.number(name): f"cluster:{name}" for name in self.clusters.names}
        numbers = self.clusters.numbers(len(self.ids))
        return [names.get(int(numbers[row])) or f"case:{self.ids[row]}" for row in rows]


@dataclass(frozen=True, slots=True)
class Values:
    """The case means there are, the number of the cluster of each, and how many cases have none.

    clusters: None where each case is its own.
    """

    numbers: npt.NDArray[np.float64]
    clusters: npt.NDArray[np.int64] | None
    n_missing: int

    @property
    def mean(self) -> float:
        """The mean over the cases; there must be one."""
        return math.fsum(self.numbers) / len(self.numbers)


class Summarised(NamedTuple):
    """The figures of one variant by metric name, those of its evaluators by slice, and which steps are to blame."""

    figures: Figures
    slices: dict[str, Figures]
    blame: Blame | None


def summarise_variant(
    rows: Iterable[RowNumbers | Row],
    evaluators: Sequence[BoundEvaluator],
    *,
    seed: int,
    steps: Sequence[str] = (),
) -> Summarised:
    """Return what all rows of one variant come to.

    seed: of the resampling behind figures that are no means. steps: of a chain, each after those it needs.
    """
    summing = {bound.name: bound.evaluator for bound in evaluators if isinstance(bound.evaluator, Summary)}
    sheet = Sheet(frozenset(summing))
    for row in rows:
        sheet.add(row)
    versions = [evaluator.version() for evaluator in evaluators]
    figures = _scored(sheet, versions)
    bounded = {each.name for each in evaluators if getattr(each.evaluator, "parts_share_range", False)}
    ranges = {each.name: (each.low, each.high) for each in versions if each.name in bounded}
    for name, owner in sorted(sheet.parts.items()):
        figures[name] = _mean(sheet.values(name), *ranges.get(owner, (None, None)))
    for name, evaluator in summing.items():
        figures |= _summed_up(name, evaluator, sheet, seed)
    figures |= _measured(sheet)
    slices = {name: _scored(sheet, versions, name) for name in sheet.slices.names}
    return Summarised(figures, slices, find_blame(sheet, evaluators, steps))


def summarise_run(source: Numbers, run: Run, evaluators: Sequence[BoundEvaluator]) -> Run:
    """Return the run with the summary of each of its variants, and how many of its outputs are errors."""
    summary: dict[str, Mapping[str, Figure]] = {}
    slices: dict[str, Mapping[str, Mapping[str, Figure]]] = {}
    answered_by: dict[str, tuple[str, ...]] = {}
    blame: dict[str, Blame] = {}
    n_errors = 0
    for variant in run.variants:
        names: set[str] = set()
        rows = _noting_models(source.numbers(run.id, variant=variant.name), names)
        found = summarise_variant(rows, evaluators, seed=run.seed, steps=[step.id for step in variant.steps])
        figures = summary[variant.name] = found.figures
        slices[variant.name] = found.slices
        if found.blame is not None:
            blame[variant.name] = found.blame
        n_errors += round((figures["error_rate"].value or 0.0) * figures["error_rate"].n)
        if names:
            answered_by[variant.name] = tuple(sorted(names))
    changes = {"summary": summary, "slices": slices, "answered_by": answered_by, "blame": blame}
    return run.model_copy(update={**changes, "n_errors": n_errors})


def _noting_models(rows: Iterable[RowNumbers | Row], names: set[str]) -> Iterator[RowNumbers | Row]:
    """Yield the rows, and take up the names that the services gave the models which answered."""
    for row in rows:
        name = row.output.returned_model if row.output is not None else None
        if name and len(names) < MOST_MODELS:
            names.add(name)
        yield row


def _scored(sheet: Sheet, evaluators: Sequence[EvaluatorVersion], slice_name: str | None = None) -> Figures:
    figures = {}
    for evaluator in evaluators:
        figures[evaluator.name] = _mean(
            sheet.values(evaluator.name, slice_name), evaluator.low, evaluator.high
        )
    return figures


def _mean(values: Values, low: float | None, high: float | None) -> Figure:
    return _open_mean(values) if low is None or high is None else _bounded_mean(values, low, high)


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
    found = evaluator.summarise(ledger.scores, sheet.labels(ledger.places), level=LEVEL, seed=seed)
    n_without = sheet.n_rows - len(ledger.scores)
    return {
        f"{name}.{part}": figure.model_copy(
            update={
                "n_missing": figure.n_missing + n_without,
                "note": "; ".join(
                    filter(None, (figure.note, "n counts repeats" if sheet.is_repeated else None))
                )
                or None,
            }
        )
        for part, figure in found.items()
    }


def _measured(sheet: Sheet) -> Figures:
    """What is measured unasked."""
    cost = None if sheet.costs is None else _total(sheet.costs.values(len(sheet.ids)))
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
    if sheet.columns.get("unfiltered_rate", Column()).is_ever(1.0):  # few services have filters that can fail
        figures["unfiltered_rate"] = _bounded_mean(sheet.values("unfiltered_rate"), 0.0, 1.0, "share")
    for name in OPEN_MEASURES:
        if name in sheet.columns:
            figures |= _spread(name, sheet)
    return figures


def _total(column: npt.NDArray[np.float64]) -> float:
    import numpy as np

    return math.fsum(column[~np.isnan(column)])


def _spread(name: str, sheet: Sheet) -> Figures:
    from llmops.stats.intervals import quantile

    values = sheet.values(name)
    n, n_missing = len(values.numbers), values.n_missing
    total = _total(sheet.column(name))
    quantiles = {q: quantile(values.numbers, q / 100) for q in (50, 95)}
    return {
        name: _open_mean(values),
        **{
            f"{name}.p{q}": Figure(value=value, kind="quantile", n=n, n_missing=n_missing)
            for q, value in quantiles.items()
        },
        f"{name}.sum": Figure(value=total, kind="sum", n=n, n_missing=n_missing),
    }
