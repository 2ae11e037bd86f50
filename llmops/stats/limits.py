"""One side alone against a limit, whatever the baseline did: floors, ceilings, and limits of a quantile.

Every limit infers: it is kept, or broken, when the interval lies on one side of it. Facts of a run, such as its cost,
are compared as they are and need nothing of this.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import special

from llmops.stats.arrays import Clusters, Codes, Floats, cluster_codes, finite_vector
from llmops.stats.clusters import clustered_mean, effective_clusters
from llmops.stats.dirichlet import probability_at_most
from llmops.stats.intervals import in_range, mean_interval, mean_interval_unbounded
from llmops.stats.outcome import (
    MAX_MISSING,
    MIN_CASES,
    MIN_CLUSTERS,
    MIN_OPEN_CASES,
    Outcome,
    Reason,
    Verdict,
)
from llmops.stats.power import ALPHA

MIN_QUANTILE_CASES = 200
"""Cases from which on a quantile has an interval worth showing."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What a gate asks of one variant: a mean at least, or at most, this. low, high: None where a metric is open."""

    at: float
    side: Literal["at_least", "at_most"]
    low: float | None = None
    high: float | None = None
    alpha: float = ALPHA
    max_missing: float = MAX_MISSING
    min_clusters: float = MIN_CLUSTERS

    def __post_init__(self) -> None:
        if not (math.isfinite(self.at) and 0 < self.alpha < 0.5):
            raise ValueError(f"a limit is finite and alpha between 0 and 0.5, not {self.at} and {self.alpha}")


@dataclass(frozen=True, slots=True)
class _Sample:
    """Values turned so that higher is better, with their limit and range; codes: None where each case is its own."""

    values: Floats
    codes: Codes | None
    at: float
    low: float | None
    high: float | None


def judge_limit(values: npt.ArrayLike, limit: Limit, *, clusters: Clusters | None = None) -> Outcome:
    """Return what n scores say about a limit of their mean.

    values: one score a case, repeats averaged, shape (n,); NaN where it is missing. clusters: one label a case.

    p_pass is small when the limit is kept for certain, p_worse when it is broken.

    Raises ValueError when a score is infinite or out of range, or there is not one label a case.

    0/1 scores: Clopper and Pearson (1934). Others: see `dirichlet`; open metrics: cluster-robust t.
    """
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1 or np.isinf(vector).any():
        raise ValueError("values must be one-dimensional and not infinite")
    is_known = ~np.isnan(vector)
    codes = cluster_codes(clusters, vector.size)
    n, n_missing = int(is_known.sum()), int((~is_known).sum())
    if n == 0:
        return _answer(limit, None, n_missing, None, (1.0, 1.0), (1.0, 1.0), Reason.NO_CASES)
    sample = _sample(vector[is_known], codes[is_known], limit)
    seen = _p_values(sample)
    worth = None if sample.codes is None else effective_clusters(sample.codes)
    obstacle = _obstacle(sample, n_missing, worth, limit)
    guarded = (1.0, 1.0) if obstacle else seen
    if obstacle is None and n_missing:
        p_values = (_p_values(_sample(filled, codes, limit)) for filled in _filled(vector, limit))
        guarded = max(seen[0], next(p_values)[0]), max(seen[1], next(p_values)[1])
    return _answer(limit, sample, n_missing, worth, seen, guarded, obstacle)


def judge_quantile_limit(
    values: npt.ArrayLike, q: float, limit: Limit, *, clusters: Clusters | None = None
) -> Outcome:
    """Return what n numbers say about a limit of their q-quantile, as the share of cases beyond it.

    values: seconds, tokens, shape (n,); NaN where one is missing. limit: `at_most`, in the units of the values.

    Raises ValueError for a limit that is no `at_most`, a q outside (0, 1), or an infinite value.
    """
    if limit.side != "at_most" or not 0 < q < 1:
        raise ValueError(f"a quantile within (0, 1) is kept at most at a limit, not {q} {limit.side}")
    vector = np.asarray(values, dtype=np.float64)
    if np.isinf(vector).any():
        raise ValueError("a value is infinite")
    beyond = np.where(np.isnan(vector), np.nan, vector > limit.at)
    share = Limit(1 - q, "at_most", 0.0, 1.0, limit.alpha, limit.max_missing, limit.min_clusters)
    return judge_limit(beyond, share, clusters=clusters)


def quantile_interval(values: npt.ArrayLike, q: float, *, level: float) -> tuple[float, float] | None:
    """Return the interval of a q-quantile between two of the values, None below 200 of them.

    Raises ValueError when a value is not finite, or q or level is outside (0, 1).

    Conover (1999), section 3.2: order statistics by the binomial, as scipy's `quantile_test` has it.
    """
    from scipy.stats import quantile_test

    vector = finite_vector(values)
    if not (0 < q < 1 and 0 < level < 1):
        raise ValueError(f"q and level must lie strictly between 0 and 1, not {q} and {level}")
    if vector.size < MIN_QUANTILE_CASES:
        return None
    ends = quantile_test(vector, p=q).confidence_interval(confidence_level=level)
    return float(ends.low), float(ends.high)


def _sample(values: Floats, codes: Codes, limit: Limit) -> _Sample:
    is_bounded = limit.low is not None and limit.high is not None
    checked = in_range(values, limit.low, limit.high) if is_bounded else values  # type: ignore[arg-type]
    kept = None if np.unique(codes).size == codes.size else codes
    if limit.side == "at_least":
        return _Sample(checked, kept, limit.at, limit.low, limit.high)
    low, high = (None if end is None else -end for end in (limit.high, limit.low))
    return _Sample(-checked, kept, -limit.at, low, high)


def _filled(vector: Floats, limit: Limit) -> tuple[Floats, Floats]:
    """Return the values with what is missing at its worst, and at its best; the furthest seen where there is no end."""
    low = np.nanmin(vector) if limit.low is None else limit.low
    high = np.nanmax(vector) if limit.high is None else limit.high
    worst, best = (low, high) if limit.side == "at_least" else (high, low)
    return np.where(np.isnan(vector), worst, vector), np.where(np.isnan(vector), best, vector)


def _p_values(sample: _Sample) -> tuple[float, float]:
    """Return the p-values that the mean is above the limit, and below it, by no accident."""
    robust = _robust_p_values(sample)
    if sample.low is None or sample.high is None:
        return robust
    bounded = (
        probability_at_most(sample.values, sample.low, sample.at),
        probability_at_most(-sample.values, -sample.high, -sample.at),
    )
    if sample.codes is None:
        return bounded
    return max(bounded[0], robust[0]), max(bounded[1], robust[1])


def _robust_p_values(sample: _Sample) -> tuple[float, float]:
    found = clustered_mean(sample.values, sample.codes)
    if found is None:
        return 1.0, 1.0
    above = found.mean - sample.at
    if found.variance <= 0:
        return float(above < 0), float(above >= 0)
    t = above / math.sqrt(found.variance)
    return float(special.stdtr(found.df, -t)), float(special.stdtr(found.df, t))


def _obstacle(sample: _Sample, n_missing: int, worth: float | None, limit: Limit) -> Reason | None:
    n = sample.values.size
    if n_missing > limit.max_missing * (n + n_missing):
        return Reason.TOO_MANY_MISSING
    if n < MIN_CASES:
        return Reason.ONE_CASE
    if worth is not None and worth < limit.min_clusters - 1e-9:
        return Reason.FEW_CLUSTERS
    is_few = (limit.low is None or limit.high is None) and n < MIN_OPEN_CASES
    return Reason.FEW_CASES if is_few else None


def _answer(
    limit: Limit,
    sample: _Sample | None,
    n_missing: int,
    worth: float | None,
    seen: tuple[float, float],
    guarded: tuple[float, float],
    obstacle: Reason | None,
) -> Outcome:
    verdict: Verdict = "inconclusive"
    reason = obstacle or Reason.LIMIT_OPEN
    if guarded[0] <= limit.alpha:
        verdict, reason = "pass", Reason.LIMIT_KEPT
    elif guarded[1] <= limit.alpha:
        verdict, reason = "fail", Reason.LIMIT_BROKEN
    elif obstacle is None and min(seen) <= limit.alpha:
        reason = Reason.OVERTURNED
    turned = 1.0 if limit.side == "at_least" else -1.0
    ends = None if sample is None else _ends(sample, 1 - 2 * limit.alpha)
    is_open = limit.low is None or limit.high is None
    return Outcome(
        verdict=verdict,
        reason=reason,
        n=0 if sample is None else sample.values.size,
        n_missing=n_missing,
        n_clusters=None if sample is None or sample.codes is None else int(np.unique(sample.codes).size),
        effective_clusters=worth,
        estimate=None if sample is None else turned * float(sample.values.mean()) + 0.0,
        interval=None if ends is None else _sorted(turned * ends[0] + 0.0, turned * ends[1] + 0.0),
        p_pass=seen[0],
        p_worse=seen[1],
        guarded_pass=guarded[0],
        guarded_worse=guarded[1],
        alpha=limit.alpha,
        method="cluster-robust t" if is_open else "exact" if worth is None else "exact + cluster-robust t",
    )


def _ends(sample: _Sample, level: float) -> tuple[float, float] | None:
    if sample.low is None or sample.high is None:
        return mean_interval_unbounded(sample.values, level=level, clusters=sample.codes)
    return mean_interval(sample.values, low=sample.low, high=sample.high, level=level, clusters=sample.codes)


def _sorted(one: float, other: float) -> tuple[float, float]:
    return min(one, other), max(one, other)
