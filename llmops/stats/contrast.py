"""What a gate's tests look at: one number a pair, turned so that higher is better, and the worst it could be.

Scores keep their units; ratios become differences of logs. What is missing can be filled with what would be worst, or
best, for the candidate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llmops.stats.arrays import Clusters, Codes, Floats, cluster_codes
from llmops.stats.intervals import DUST, in_range
from llmops.stats.outcome import Rule


@dataclass(frozen=True, slots=True)
class Pairs:
    """The scores of both sides, one pair a case, shape (n,), NaN where one is missing; codes of their clusters."""

    before: Floats
    after: Floats
    codes: Codes

    @classmethod
    def of(cls, baseline: npt.ArrayLike, candidate: npt.ArrayLike, clusters: Clusters | None) -> Pairs:
        """Return the pairs.

        Raises ValueError when the shapes differ, a score is infinite, or there is not one label a case.
        """
        before, after = (np.asarray(side, dtype=np.float64) for side in (baseline, candidate))
        if before.shape != after.shape or before.ndim != 1:
            raise ValueError(f"baseline has shape {before.shape}, candidate {after.shape}: pair them first")
        if np.isinf(before).any() or np.isinf(after).any():
            raise ValueError("a score is infinite")
        return cls(before, after, cluster_codes(clusters, before.size))

    @property
    def is_known(self) -> npt.NDArray[np.bool_]:
        """Which pairs have both scores."""
        return ~(np.isnan(self.before) | np.isnan(self.after))

    @property
    def known(self) -> Pairs:
        """The pairs that have both."""
        kept = self.is_known
        return Pairs(self.before[kept], self.after[kept], self.codes[kept])

    def filled(self, rule: Rule, *, worst: bool) -> Pairs:
        """Return the pairs, each missing score at the end of its range that is worst, or best, for the candidate.

        Open metrics have no such end; the furthest value seen on either side stands in for it.
        """
        seen = np.concatenate([self.before, self.after])
        low = np.nanmin(seen) if rule.low is None else rule.low
        high = np.nanmax(seen) if rule.high is None else rule.high
        for_after, for_before = (low, high) if worst != rule.lower_is_better else (high, low)
        before = np.where(np.isnan(self.before), for_before, self.before)
        after = np.where(np.isnan(self.after), for_after, self.after)
        return Pairs(before, after, self.codes)


@dataclass(frozen=True, slots=True)
class Contrast:
    """What is tested of complete pairs, shape (n,), n >= 1.

    gain: candidate less baseline, higher is better; a regression is a mean below 0.
    tested: whose mean must be above -margin; the gain itself, unless the margin is relative.
    worst: the least that one of `tested` can be, None where nothing bounds it.
    codes: of the clusters, None where each case is its own.
    """

    gain: Floats
    tested: Floats
    margin: float
    worst: float | None
    codes: Codes | None


def contrast_of(pairs: Pairs, rule: Rule) -> Contrast:
    """Return what a rule tests of complete pairs, above 0 on the scale of ratios.

    Raises ValueError when a score is out of the rule's range.
    """
    codes = None if np.unique(pairs.codes).size == pairs.codes.size else pairs.codes
    if rule.is_open or rule.low is None or rule.high is None:
        gain = gain_of(pairs.before, pairs.after, rule)
        return Contrast(gain, gain, rule.log_margin if rule.scale == "ratio" else rule.margin, None, codes)
    before = in_range(pairs.before, rule.low, rule.high, "baseline")
    after = in_range(pairs.after, rule.low, rule.high, "candidate")
    reach = rule.high - rule.low
    gain = gain_of(before, after, rule)
    if not rule.relative:
        worst = -(reach if rule.worst is None else rule.worst)
        # What stands in for a missing score may lie beyond a declared worst case; what was seen may not.
        gain = np.maximum(gain, worst)
        return Contrast(gain, gain, rule.margin, worst, codes)
    # "No worse than a share of the baseline" is a statement about one number a pair, with its own worst case.
    turned = _turned(rule)
    allowed = turned * rule.margin * before
    best, least = (rule.low, rule.high) if rule.lower_is_better else (rule.high, rule.low)
    worst = turned * (least - (1 - turned * rule.margin) * best)
    return Contrast(gain, gain + turned * allowed, 0.0, worst, codes)


def refuse_beyond_worst(pairs: Pairs, rule: Rule) -> None:
    """Raise ValueError when a complete pair fell further than the worst case that was declared."""
    if rule.worst is None or pairs.before.size == 0:
        return
    fall = float((_turned(rule) * (pairs.before - pairs.after)).max())
    if fall > rule.worst * (1 + DUST):
        raise ValueError(f"a case fell by {fall:g}, further than the declared worst case of {rule.worst:g}")


def gain_of(before: Floats, after: Floats, rule: Rule) -> Floats:
    """Return how much better the candidate is, case by case, shape (n,); dust is no change.

    Dust would look like a change, and like one that all cases agree on.
    """
    if rule.scale == "ratio":
        change, size = np.log(after) - np.log(before), 1.0
    else:
        largest = float(max(np.abs(before).max(), np.abs(after).max()))
        change, size = after - before, largest if rule.reach is None else rule.reach
    return np.where(np.abs(change) <= DUST * size, 0.0, _turned(rule) * change)


def _turned(rule: Rule) -> float:
    return -1.0 if rule.lower_is_better else 1.0
