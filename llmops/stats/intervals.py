"""Two-sided intervals of one mean, of a ratio, and plain quantiles.

Bounded scores get a bound that survives data without variance; unbounded ones get what a t interval can give.
Which values are missing, and what a margin makes of an interval, is left to `compare` and `gate`.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import special

from llmops.stats.arrays import Clusters, Floats, cluster_codes, finite_vector, paired_vectors, tail_of
from llmops.stats.clusters import clustered_mean
from llmops.stats.dirichlet import lower_bound

# As a share of the range: what adding and averaging leaves behind in the last digits.
DUST = 1e-9


def mean_interval(
    values: npt.ArrayLike, *, low: float, high: float, level: float, clusters: Clusters | None = None
) -> tuple[float, float]:
    """Return the interval of the mean of scores that lie in [low, high].

    values: one score a case, shape (n,), n >= 1; their order does not matter.
    low, high: what a score may be, not what was seen; the ends never leave them.
    level: coverage as a share; 0.90 leaves 5 in 100 on each side.
    clusters: one label a case. Where some hold several cases, the interval is the union with the
    cluster-robust t interval, and all of [low, high] when there is only one cluster.

    Raises ValueError for a score that is not finite or out of range, a label too many or too few, or a level
    outside (0, 1).

    Scores at the ends of the range only: Clopper and Pearson (1934). Others: see `dirichlet`.
    """
    alpha = tail_of(level)
    vector = in_range(values, low, high)
    bounds = lower_bound(vector, low, alpha), -lower_bound(-vector, -high, alpha)
    if not _is_clustered(clusters, vector.size):
        return bounds
    robust = mean_interval_unbounded(vector, level=level, clusters=clusters)
    if robust is None:
        return float(low), float(high)
    return max(float(low), min(bounds[0], robust[0])), min(float(high), max(bounds[1], robust[1]))


def mean_interval_unbounded(
    values: npt.ArrayLike, *, level: float, clusters: Clusters | None = None
) -> tuple[float, float] | None:
    """Return the cluster-robust t interval of a mean, None with fewer than two cases or clusters.

    values: one number a case, shape (n,). It takes the spread that was seen for the spread there is: without
    a bound nothing guards against extremes that were not.

    Raises ValueError when a value is not finite, labels are not one a case, or the level is outside (0, 1).

    CR2 variance with Bell and McCaffrey's (2002) degrees of freedom.
    """
    alpha = tail_of(level)
    estimate = clustered_mean(values, clusters)
    if estimate is None:
        return None
    reach = -float(special.stdtrit(estimate.df, alpha)) * math.sqrt(estimate.variance)
    return estimate.mean - reach, estimate.mean + reach


def geometric_ratio_interval(
    baseline: npt.ArrayLike, candidate: npt.ArrayLike, *, level: float, clusters: Clusters | None = None
) -> tuple[float, float, float] | None:
    """Return the ratio of geometric means, candidate over baseline, and the low and high end around it.

    baseline, candidate: one number a case (seconds, tokens), shape (n,), same cases in the same order.
    None when it cannot be worked out: a number is not above 0, or fewer than two cases or clusters.

    Raises ValueError when the shapes differ or a number is not finite.

    t interval of the mean of ln(candidate / baseline), as `mean_interval_unbounded`.
    """
    before, after = paired_vectors(baseline, candidate)
    if min(before.min(), after.min()) <= 0:
        return None
    logs = np.log(after) - np.log(before)
    ends = mean_interval_unbounded(logs, level=level, clusters=clusters)
    if ends is None:
        return None
    return math.exp(logs.mean()), math.exp(ends[0]), math.exp(ends[1])


def quantile(values: npt.ArrayLike, q: float) -> float:
    """Return the q-quantile, 0 <= q <= 1, linear between neighbours.

    Raises ValueError when a value is not finite, there are none, or q is out of range.
    """
    return float(np.quantile(finite_vector(values), q))


def in_range(values: npt.ArrayLike, low: float, high: float, name: str = "values") -> Floats:
    """Return the scores, shape (n,), dust beyond the ends of [low, high] taken off.

    Raises ValueError when the range is empty, or a score is not finite or further out than dust.
    """
    if not 0 < high - low < math.inf:
        raise ValueError(f"a range needs finite ends with low < high, not [{low}, {high}]")
    vector = finite_vector(values, name)
    dust = DUST * (high - low)
    least, most = vector.min(), vector.max()
    if least < low - dust or most > high + dust:
        raise ValueError(f"{name} run from {least} to {most}, outside [{low}, {high}]")
    return vector if low <= least and most <= high else np.clip(vector, low, high)


def _is_clustered(clusters: Clusters | None, n: int) -> bool:
    return clusters is not None and int(cluster_codes(clusters, n).max()) + 1 < n
