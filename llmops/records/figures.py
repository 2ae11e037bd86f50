"""What the scores of all cases add up to: figures with their intervals, and which step wrong cases come from."""

from __future__ import annotations

from typing import Literal

from llmops.records.base import Record


class Interval(Record):
    """A confidence interval; level is its coverage as a share. None marks an end that is not known."""

    low: float
    high: float
    level: float


class Figure(Record):
    """One metric of one variant.

    kind: `mean` over cases, `share` of cases, `sum`, `quantile`, or a `statistic` of all cases together.
    n: cases it stands on. n_missing: cases whose score is absent.
    value None means that nobody knows (an unknown cost, no scored case), never 0.
    """

    value: float | None
    kind: Literal["mean", "share", "sum", "quantile", "statistic"]
    n: int
    n_missing: int = 0
    interval: Interval | None = None
    note: str | None = None


class StepBlame(Record):
    """The wrong cases that come from one step.

    step: None where no step's own score failed. share: of all wrong cases.
    """

    step: str | None
    share: float
    case_ids: tuple[str, ...]


class Blame(Record):
    """Which steps of a chain its wrong cases come from: of each, the first step whose own score failed.

    metric: the final score, which fails below pass_at, or above it where lower is better. n: cases that have it.
    steps: in the order of the chain, those without a case too where they have a score of their own.
    """

    metric: str
    pass_at: float
    lower_is_better: bool = False
    n: int
    n_wrong: int
    steps: tuple[StepBlame, ...]

    def by_case(self) -> dict[str, str]:
        """Return the step that each wrong case comes from, by case id, where one explains it."""
        return {case_id: each.step for each in self.steps if each.step for case_id in each.case_ids}
