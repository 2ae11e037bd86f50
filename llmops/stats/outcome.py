"""What a gate asks of one metric, and what the numbers answer: pass, fail, or that they cannot say.

A gate writes its record from these and adds nothing of its own: names, texts and what the policy makes of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Literal

from llmops.stats import power
from llmops.stats.sign_flips import RESAMPLES

Verdict = Literal["pass", "fail", "inconclusive"]
Method = Literal["exact", "score", "betting"]

MIN_CLUSTERS = 8
"""Effective clusters below which the corrections themselves become unreliable."""
MAX_MISSING = 0.05
MIN_OPEN_CASES = 20
"""Cases below which no t test may pass an open metric."""
MIN_CASES = 2


class Reason(StrEnum):
    """Why an outcome is what it is, in words for a report."""

    EXCLUDED = "a regression beyond the margin is excluded"
    PROVED = "a regression is proved, and one beyond the margin is not excluded"
    NEITHER = "neither is a regression proved nor one beyond the margin excluded"
    LIMIT_KEPT = "the limit is kept"
    LIMIT_BROKEN = "the limit is broken"
    LIMIT_OPEN = "the interval holds the limit"
    NO_CASES = "no case has a score to judge"
    ONE_CASE = "one case proves nothing"
    TOO_MANY_MISSING = "too many scores are missing"
    OVERTURNED = "missing scores could overturn it"
    FEW_CLUSTERS = "too few effective clusters to pass"
    FEW_CASES = "too few cases for an approximate method"
    NOT_FOR_METHOD = "the score method needs 0/1 scores without clusters"
    NOT_POSITIVE = "a value is not above 0, so there is no ratio"


@dataclass(frozen=True, slots=True)
class Rule:
    """What a gate asks of a metric: a margin that the candidate may be worse than the baseline, at most.

    margin: above 0, in units of the score; with `relative`, or on the scale of ratios, a share of the baseline.
    low, high: what a score may be; None for a metric that is open (seconds, tokens).
    worst: how far a case can fall at most, where that is less than high - low and the owner says so.
    scale: `ratio` compares geometric means; its interval is that of candidate over baseline.
    alpha: one-sided, of each of the two errors.
    """

    margin: float
    low: float | None = None
    high: float | None = None
    worst: float | None = None
    lower_is_better: bool = False
    relative: bool = False
    scale: Literal["difference", "ratio"] = "difference"
    alpha: float = power.ALPHA
    method: Method = "exact"
    max_missing: float = MAX_MISSING
    min_clusters: float = MIN_CLUSTERS
    resamples: int = RESAMPLES
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 0.5:
            raise ValueError(f"alpha must lie strictly between 0 and 0.5, not {self.alpha}")
        is_share = self.relative or self.scale == "ratio"
        widest = 1.0 if is_share else self.reach
        if not self.margin > 0 or (widest is not None and self.margin >= widest):
            raise ValueError(f"a margin of {self.margin} allows nothing or everything")
        if self.relative and (self.low is None or self.low < 0 or self.high is None):
            raise ValueError("a relative margin needs scores with a range from 0 up, or the scale of ratios")
        if self.method != "exact" and (self.relative or self.scale == "ratio" or self.reach is None):
            raise ValueError(f"the method {self.method!r} needs a range and a margin in units of the score")
        if self.worst is not None and (self.relative or not self.margin < self.worst <= (self.reach or 0)):
            raise ValueError(f"a worst case of {self.worst} must lie beyond the margin and within the range")

    @property
    def reach(self) -> float | None:
        """How far a score can move, None for one that is open."""
        return None if self.low is None or self.high is None else self.high - self.low

    @property
    def log_margin(self) -> float:
        """The margin of a ratio on the scale of logs."""
        return math.log1p(self.margin) if self.lower_is_better else -math.log1p(-self.margin)

    @property
    def is_open(self) -> bool:
        """Whether nothing bounds what a case can lose."""
        return self.scale == "ratio" or self.reach is None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the numbers say about one metric.

    n: cases judged; n_missing: cases left out because a score is missing. n_clusters: None where each case is its own.
    estimate, interval: of what is judged, as it is (not turned so that higher is better); the interval has
    level 1 - 2 alpha and its ends agree with the verdict.
    p_pass, p_worse: that what is wished for, and what is feared, is no accident, from the cases judged.
    guarded_pass, guarded_worse: the same, the larger of them and of what missing scores could make of them, and 1
    where a rule forbids that verdict; these decide.
    """

    verdict: Verdict
    reason: Reason
    n: int
    n_missing: int
    n_clusters: int | None
    effective_clusters: float | None
    estimate: float | None
    interval: tuple[float, float] | None
    p_pass: float
    p_worse: float
    guarded_pass: float
    guarded_worse: float
    alpha: float
    method: str


@dataclass(frozen=True, kw_only=True)
class PairedOutcome(Outcome):
    """What the numbers say about candidate less baseline (or over it), and what they could have seen.

    baseline, candidate: means over the cases judged; geometric ones on the scale of ratios.
    margin: in units of the score, also where the rule has it relative; a share on the scale of ratios.
    improved, regressed: places in the arrays judged of the cases that changed, largest change first.
    noise: variance of a case's difference; n_effective: cases that clusters leave.
    """

    rule: Rule
    baseline: float | None
    candidate: float | None
    margin: float
    improved: tuple[int, ...]
    regressed: tuple[int, ...]
    noise: float
    n_effective: float

    @cached_property
    def smallest_margin(self) -> float | None:
        """The smallest margin that an unchanged candidate passes four times in five, cases and noise being these."""
        return self._planned(power.smallest_margin)

    @cached_property
    def smallest_regression(self) -> float | None:
        """The smallest regression that is proved four times in five, cases and noise being these."""
        return self._planned(power.smallest_regression)

    @cached_property
    def n_needed(self) -> int | None:
        """How many cases, of clusters like these, let an unchanged candidate pass the margin four times in five."""
        if self.n < MIN_CASES or self.margin <= 0:
            return None
        reach = self.rule.reach
        if self.rule.is_open or reach is None:
            effect = self.rule.log_margin if self.rule.scale == "ratio" else self.margin
            needed = max(MIN_OPEN_CASES, power.normal_n(self.noise, effect, alpha=self.alpha))
        else:
            needed = power.n_needed(self.margin / reach, self._noise(reach), alpha=self.alpha)
        return math.ceil(needed * self.n / self.n_effective)

    def _planned(self, exact: Callable[..., float]) -> float | None:
        reach = self.rule.reach
        if self.n < MIN_CASES:
            return None
        if not self.rule.is_open and reach is not None:
            n_whole = max(1, math.floor(self.n_effective + 1e-9))
            return reach * exact(n_whole, self._noise(reach), alpha=self.alpha)
        effect = power.normal_effect(self.noise, self.n_effective, alpha=self.alpha)
        if self.rule.scale == "difference":
            return effect
        return math.expm1(effect) if self.rule.lower_is_better else -math.expm1(-effect)

    def _noise(self, reach: float) -> float:
        return min(1.0, round(self.noise / reach**2, 6))
