"""Scores -> metrics: one figure with its interval for each metric of each variant, slices beside them.

Reads the rows of a run from the journal, one variant at a time. Repeats are collapsed to case means first, and
absent scores are left out and counted, never taken for 0.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from llmops.evaluators.bound import NOT_YET, BoundEvaluator
from llmops.records import EvaluatorVersion, Figure, Interval, Output, Row, Run, Score, Status

LEVEL = 0.90
"""Coverage of every interval: 1 - 2 alpha at alpha 0.05, so that intervals and verdicts agree."""

_OPEN_MEASURES = ("latency_s", "ttft_s", "input_tokens", "output_tokens")
_FAILED = NOT_YET | {Status.CRASHED}

Figures = dict[str, Figure]


class Rows(Protocol):
    """Where the rows of a run are read from: the journal."""

    def rows(self, run_id: str, *, variant: str | None = None, with_spans: bool = True) -> Iterable[Row]:
        """Yield the rows of a run, or of one of its variants."""


@dataclass
class CaseTotals:
    """What one case gave over its repeats."""

    slice: str | None
    cluster: str
    n_rows: int = 0
    n_outputs: int = 0
    sums: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, name: str, value: float | None) -> None:
        """Take in one value; an absent one counts nowhere."""
        if value is not None:
            self.sums[name] += value
            self.counts[name] += 1

    def mean(self, name: str) -> float | None:
        """Return the mean over the repeats that have a value, or None."""
        return self.sums[name] / self.counts[name] if self.counts.get(name) else None


@dataclass
class Sheet:
    """The rows of one variant, by case."""

    cases: dict[str, CaseTotals] = field(default_factory=dict)
    labelled: dict[str, list[tuple[Score, str]]] = field(default_factory=lambda: defaultdict(list))
    parts: set[str] = field(default_factory=set)
    n_rows: int = 0
    n_errors: int = 0
    cost_usd: float | None = 0.0

    def add(self, row: Row) -> None:
        """Take in one row."""
        case = self.cases.setdefault(row.case.id, CaseTotals(row.case.slice, _cluster(row)))
        case.n_rows += 1
        if row.output is None:
            return
        self.n_rows += 1
        self._add_output(case, row.output)
        for score in row.scores:
            case.add(score.evaluator, score.value)
            for part, value in score.parts.items():
                case.add(f"{score.evaluator}.{part}", value)
                self.parts.add(f"{score.evaluator}.{part}")
            if score.label is not None or score.truth is not None:
                self.labelled[score.evaluator].append((score, case.cluster))

    def _add_output(self, case: CaseTotals, output: Output) -> None:
        failed = output.status in _FAILED
        self.n_errors += failed
        case.n_outputs += not failed
        if output.valid is not None:
            case.add("invalid_rate", float(not output.valid))
        if not failed:
            for name in _OPEN_MEASURES:
                case.add(name, getattr(output, name))
        if output.cost_usd is None or self.cost_usd is None:
            self.cost_usd = None
        else:
            self.cost_usd += output.cost_usd


def _cluster(row: Row) -> str:
    return f"cluster:{row.case.cluster}" if row.case.cluster is not None else f"case:{row.case.id}"


def summarise_variant(
    rows: Iterable[Row], evaluators: Sequence[BoundEvaluator], *, seed: int
) -> tuple[Figures, dict[str, Figures]]:
    """Return the figures of one variant by metric name, and those of its evaluators by slice.

    rows: all of the variant's rows. seed: of the resampling behind figures that are no means.
    """
    sheet = Sheet()
    for row in rows:
        sheet.add(row)
    cases = list(sheet.cases.values())
    figures = _scored(cases, [evaluator.version() for evaluator in evaluators])
    figures |= {name: _open_mean(cases, name) for name in sorted(sheet.parts)}
    for evaluator in evaluators:
        figures |= _summed_up(evaluator, sheet.labelled.get(evaluator.name, []), seed)
    figures |= _measured(cases, sheet)
    slices: dict[str, Figures] = {}
    for name in sorted({case.slice for case in cases if case.slice is not None}):
        inside = [case for case in cases if case.slice == name]
        slices[name] = _scored(inside, [evaluator.version() for evaluator in evaluators])
    return figures, slices


def summarise_run(source: Rows, run: Run, evaluators: Sequence[BoundEvaluator]) -> Run:
    """Return the run with the summary of each of its variants."""
    summary: dict[str, Mapping[str, Figure]] = {}
    slices: dict[str, Mapping[str, Mapping[str, Figure]]] = {}
    for variant in run.variants:
        rows = source.rows(run.id, variant=variant.name, with_spans=False)
        summary[variant.name], slices[variant.name] = summarise_variant(rows, evaluators, seed=run.seed)
    return run.model_copy(update={"summary": summary, "slices": slices})


def _scored(cases: Sequence[CaseTotals], evaluators: Sequence[EvaluatorVersion]) -> Figures:
    figures = {}
    for evaluator in evaluators:
        if evaluator.low is None or evaluator.high is None:
            figures[evaluator.name] = _open_mean(cases, evaluator.name)
        else:
            figures[evaluator.name] = _bounded_mean(cases, evaluator.name, evaluator.low, evaluator.high)
    return figures


def _values(cases: Sequence[CaseTotals], name: str) -> tuple[list[float], list[str], int]:
    """Return the case means that exist, the cluster of each, and how many cases have none."""
    found = [(value, case.cluster) for case in cases if (value := case.mean(name)) is not None]
    asked = sum(1 for case in cases if case.n_outputs or name in case.counts)
    return (
        [value for value, _ in found],
        [cluster for _, cluster in found],
        max(asked, len(found)) - len(found),
    )


def _bounded_mean(
    cases: Sequence[CaseTotals], name: str, low: float, high: float, kind: Literal["mean", "share"] = "mean"
) -> Figure:
    from llmops.stats.intervals import mean_interval

    values, clusters, n_missing = _values(cases, name)
    if not values:
        return Figure(value=None, kind=kind, n=0, n_missing=n_missing)
    ends = mean_interval(values, low=low, high=high, level=LEVEL, clusters=clusters)
    return Figure(
        value=sum(values) / len(values),
        kind=kind,
        n=len(values),
        n_missing=n_missing,
        interval=Interval(low=ends[0], high=ends[1], level=LEVEL),
    )


def _open_mean(cases: Sequence[CaseTotals], name: str) -> Figure:
    from llmops.stats.intervals import mean_interval_unbounded

    values, clusters, n_missing = _values(cases, name)
    if not values:
        return Figure(value=None, kind="mean", n=0, n_missing=n_missing)
    ends = mean_interval_unbounded(values, level=LEVEL, clusters=clusters)
    return Figure(
        value=sum(values) / len(values),
        kind="mean",
        n=len(values),
        n_missing=n_missing,
        interval=None if ends is None else Interval(low=ends[0], high=ends[1], level=LEVEL),
    )


def _summed_up(evaluator: BoundEvaluator, labelled: Sequence[tuple[Score, str]], seed: int) -> Figures:
    """Figures over all cases together, which only some evaluators have."""
    summarise = getattr(evaluator.evaluator, "summarise", None)
    if summarise is None or not labelled:
        return {}
    scores = [score for score, _ in labelled]
    clusters = [cluster for _, cluster in labelled]
    found = summarise(scores, clusters, level=LEVEL, seed=seed)
    return {f"{evaluator.name}.{part}": figure for part, figure in found.items()}


def _measured(cases: Sequence[CaseTotals], sheet: Sheet) -> Figures:
    """What is measured unasked."""
    figures: Figures = {
        "error_rate": Figure(
            value=sheet.n_errors / sheet.n_rows if sheet.n_rows else None, kind="share", n=sheet.n_rows
        ),
        "cost_usd": Figure(
            value=sheet.cost_usd,
            kind="sum",
            n=sheet.n_rows,
            note="the price or the tokens of some calls are unknown" if sheet.cost_usd is None else None,
        ),
    }
    if any("invalid_rate" in case.counts for case in cases):
        figures["invalid_rate"] = _bounded_mean(cases, "invalid_rate", 0.0, 1.0, "share")
    for name in _OPEN_MEASURES:
        values, _, n_missing = _values(cases, name)
        if values:
            figures[name] = _open_mean(cases, name)
            figures |= _spread(name, cases, values, n_missing)
    return figures


def _spread(name: str, cases: Sequence[CaseTotals], values: Sequence[float], n_missing: int) -> Figures:
    from llmops.stats.intervals import quantile

    n = len(values)
    figures = {
        f"{name}.p{q}": Figure(value=quantile(values, q / 100), kind="quantile", n=n, n_missing=n_missing)
        for q in (50, 95)
    }
    total = sum(case.sums[name] for case in cases)
    figures[f"{name}.sum"] = Figure(value=total, kind="sum", n=n, n_missing=n_missing)
    return figures
