"""What a page needs of all rows of a run, from one pass over them: how long, how dear, and which scored worst.

Keeps four numbers a row and the few worst scores, never the rows: a run may have a hundred thousand.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection
from dataclasses import dataclass, field

from llmops.records import Output, Row, Run
from llmops.report.cases import Source

MEASURES = ("latency_s", "cost_usd", "input_tokens", "output_tokens")


@dataclass(frozen=True, slots=True, order=True)
class Bad:
    """A bad score and where it is. rank: the lower, the worse; the value, or its negative where less is better."""

    rank: float
    case_id: str
    variant: str
    value: float


@dataclass(slots=True)
class Survey:
    """What was seen. values: by measure, then by variant. worst: one score for each case, the worst first."""

    values: dict[str, dict[str, array[float]]] = field(
        default_factory=lambda: {measure: {} for measure in MEASURES}
    )
    worst: list[Bad] = field(default_factory=list)


def survey_run(run: Run, source: Source, *, judged: Collection[str], n_worst: int) -> Survey:
    """Return the measures of all outputs, and the worst scores of the first evaluator.

    judged: the variants whose scores are looked at, first repeats only, none that has the best score.
    """
    survey = Survey()
    for row in source.rows(run.id, with_spans=False):
        if row.output is not None:
            _add_measures(survey, row.variant, row.output)
        bad = _bad(run, row) if row.variant in judged and row.repeat == 0 else None
        if bad is not None:
            survey.worst.append(bad)
            if len(survey.worst) > _ROOM * n_worst:
                survey.worst = _worst(survey.worst, n_worst)
    survey.worst = _worst(survey.worst, n_worst)
    return survey


_ROOM = 20
"""Bad scores are sorted once so many times those wanted have come together."""


def _add_measures(survey: Survey, variant: str, output: Output) -> None:
    for measure in MEASURES:
        value = getattr(output, measure)
        if value is not None:
            survey.values[measure].setdefault(variant, array("d")).append(value)


def _bad(run: Run, row: Row) -> Bad | None:
    if not run.evaluators:
        return None
    evaluator = run.evaluators[0]
    sign, best = (-1, evaluator.low) if evaluator.lower_is_better else (1, evaluator.high)
    for score in row.scores:
        if score.evaluator == evaluator.name and score.value is not None and score.value != best:
            return Bad(sign * score.value, row.case.id, row.variant, score.value)
    return None


def _worst(found: list[Bad], most: int) -> list[Bad]:
    """Return the worst score of each case, for the `most` cases that have the worst."""
    by_case: dict[str, Bad] = {}
    for bad in sorted(found):
        by_case.setdefault(bad.case_id, bad)
        if len(by_case) == most:
            break
    return list(by_case.values())
