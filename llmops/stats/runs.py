"""Several runs of one case: their means, and the test that survives when the two sides have unequally many of them.

A mean over a history is no equal of a single run, so flipping signs is then exact no more: with eight runs a side and
one on the other, hard cases alone would block every third unchanged candidate of 50. Any of a case's runs could have
been the candidate's, and that is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
import numpy.typing as npt

from llmops.stats.arrays import Codes, Floats
from llmops.stats.sign_flips import RESAMPLES

# Beyond so many ways to choose the candidate's runs of a case, they are drawn afresh for each resample.
_LISTED = 4096
_ROUNDING = 1e-12
# As a share of the largest variance of a case: below, a case would decide alone by hardly differing.
_LEAST_SPREAD = 0.1


@dataclass(frozen=True)
class Runs:
    """The scores of one side, one a run, shape (k,): places says which case each belongs to, from 0."""

    places: Codes
    values: Floats

    def __post_init__(self) -> None:
        if self.places.shape != self.values.shape or self.values.ndim != 1:
            raise ValueError(f"{self.values.shape} scores of runs for {self.places.shape} cases")

    @classmethod
    def of(cls, scores: Sequence[npt.ArrayLike]) -> Runs:
        """Return the runs of cases that come one after another, each with its scores, none where it has no run."""
        cases = [np.atleast_1d(np.asarray(case, dtype=np.float64)) for case in scores]
        places = np.repeat(np.arange(len(cases)), [case.size for case in cases])
        return cls(places, np.concatenate(cases) if cases else np.zeros(0))

    def of_cases(self, places: Codes) -> Runs:
        """Return the runs of these cases only, which are then 0, 1, ... in this order."""
        rank = np.full(max(int(self.places.max(initial=-1)), int(places.max(initial=-1))) + 1, -1)
        rank[places] = np.arange(places.size)
        kept = rank[self.places]
        return Runs(kept[kept >= 0], self.values[kept >= 0])

    def first(self, k: int) -> Runs:
        """Return the first k runs of each case, in the order in which they stand here."""
        order = np.argsort(self.places, kind="stable")
        starts = np.searchsorted(self.places[order], self.places[order])
        kept = np.sort(order[np.arange(order.size) - starts < k])
        return Runs(self.places[kept], self.values[kept])

    def counts(self, n: int) -> Codes:
        """Return how many runs each of n cases has."""
        return np.bincount(self.places, minlength=n)

    def means(self, n: int) -> Floats:
        """Return the mean of each of n cases, NaN where a case has no run; the order of the runs shows nowhere."""
        order = np.lexsort((self.values, self.places))
        sums = np.bincount(self.places[order], weights=self.values[order], minlength=n)
        counts = self.counts(n)
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)

    def by_case(self, n: int) -> list[Floats]:
        """Return the scores of each of n cases, sorted."""
        order = np.lexsort((self.values, self.places))
        return np.split(self.values[order], np.cumsum(self.counts(n))[:-1])


def are_balanced(before: Runs, after: Runs, n: int) -> bool:
    """Return whether each case has as many runs on both sides: then flipping signs is exact."""
    return np.array_equal(before.counts(n), after.counts(n))


def relabelling_p(
    before: Runs,
    after: Runs,
    n: int,
    gain: Callable[[Floats, Floats], Floats],
    *,
    resamples: int = RESAMPLES,
    seed: int | Sequence[int],
) -> float:
    """Return the one-sided p-value that the gains of n cases, each over its variance, fall below 0 by no accident.

    gain: from case means of baseline and candidate, shape (k,) each, to how much better the candidate is.

    Each case's runs are dealt anew to both sides, as many to each as it has; cases without runs on both count nothing.
    Only as many of the candidate's first runs take part as every case has: how often a case was run beyond that may
    have followed from the baseline's runs, which could then not be dealt any more. Exact when the candidate is the
    baseline, whatever the scores. It takes the noise within a case for all there is, so a neutral change of single
    cases looks like more than it is: use it beside the flipping of signs.

    Fisher (1935); Phipson and Smyth (2010).
    """
    rng = np.random.default_rng(seed)
    sides = zip(before.by_case(n), after.first(_common(before, after, n)).by_case(n), strict=True)
    cases = [case for case in sides if case[0].size and case[1].size]
    spreads = [float(np.concatenate(case).var()) for case in cases]
    floor = _LEAST_SPREAD * max(spreads, default=0.0)
    observed = size = 0.0
    sums = np.zeros(resamples)
    for (one, other), spread in zip(cases, spreads, strict=True):
        if spread <= 0:
            continue
        # The same however runs are dealt: a fall of a case that never fell before says more than one of a flaky case.
        weight = 1 / max(spread, floor)
        here = weight * float(gain(one.mean(keepdims=True), other.mean(keepdims=True))[0])
        observed += here
        size += abs(here)
        sums += weight * _dealt(np.concatenate([one, other]), other.size, gain, resamples, rng)
    at_most = int((sums <= observed + _ROUNDING * max(1.0, size)).sum())
    return (1 + at_most) / (1 + resamples)


def _common(before: Runs, after: Runs, n: int) -> int:
    """Return how many runs the candidate has of every case that has runs on both sides."""
    counts = after.counts(n)[(before.counts(n) > 0) & (after.counts(n) > 0)]
    return int(counts.min()) if counts.size else 1


def _dealt(
    pooled: Floats,
    n_after: int,
    gain: Callable[[Floats, Floats], Floats],
    resamples: int,
    rng: np.random.Generator,
) -> Floats:
    """Return the gain of one case in each resample, its runs dealt at random, shape (resamples,)."""
    if math.comb(pooled.size, n_after) <= _LISTED:
        after = pooled[_choices(pooled.size, n_after)].sum(axis=1)
        possible = gain((pooled.sum() - after) / (pooled.size - n_after), after / n_after)
        return possible[rng.integers(0, possible.size, resamples)]
    drawn = rng.permuted(np.tile(pooled, (resamples, 1)), axis=1)
    return gain(drawn[:, n_after:].mean(axis=1), drawn[:, :n_after].mean(axis=1))


@lru_cache(maxsize=64)
def _choices(n: int, k: int) -> Codes:
    """Return all ways to choose k of n, shape (ways, k)."""
    return np.array(list(combinations(range(n), k)), dtype=np.intp)
