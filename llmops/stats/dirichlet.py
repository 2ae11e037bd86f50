"""The bound of a bounded mean that guards against what was not seen: one worst-case unit joins the data.

Weights (W_1..W_n, W_0) are flat Dirichlet and W_0 carries the worst value there could be, so data without
variance still leave room for a failure. For 0/1 values the bound is Clopper and Pearson's, for paired ones
at a threshold of 0 it is exact McNemar. Ranges, pairing and clusters are left to `intervals` and `paired`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy import special

from llmops.stats.arrays import Floats, finite_vector, legendre

if TYPE_CHECKING:
    from collections.abc import Callable

# 64 Legendre nodes over a window of 17 standard deviations agree with 1,500 to 1e-13 up to n = 10,000.
_N_NODES = 64
# Probability left outside that window on each side.
_NEGLIGIBLE = 1e-17
# |log| of the strongest tilt: beyond it the smallest tilted weight drowns in rounding, and p is 0 or 1.
_STRONGEST_TILT = 34.0
# 68 / 2**46 is a resolution of 1e-12.
_HALVINGS = 46


def probability_at_most(values: npt.ArrayLike, worst: float, threshold: float) -> float:
    """Return P(sum W_i x_i + W_0 worst <= threshold) under flat Dirichlet weights, between 0 and 1.

    values: the x_i, shape (n,), n >= 1, none below `worst`; their order does not matter.
    worst, threshold: in the units of the values.

    Small means: data this good would be rare if the mean were at the threshold.

    Raises ValueError when a number is not finite or a value lies below `worst`.

    Gaffke (2005); Learned-Miller and Thomas (2019). Two distinct values: incomplete beta. Three: quadrature.
    More: saddlepoint of Lugannani and Rice (1980), relative error within some 6 %. That the bound holds for
    every bounded law is Gaffke's conjecture; binary and paired binary laws were enumerated.
    """
    points, counts, reach = _grouped(values, worst)
    if not math.isfinite(threshold):
        raise ValueError(f"threshold must be finite, not {threshold}")
    if threshold - worst >= reach:
        return 1.0
    if threshold <= worst:
        return 0.0
    share = (threshold - worst) / reach
    if points.size <= 3:
        return _exact_probability(points, counts, share)
    tilt = _falling_root(lambda tilt: _tilted_mean(points, counts, tilt) - share)
    return _saddlepoint_probability(points, counts, tilt)


def paired_binary_probability(losses: int, gains: int, n: int, margin: float) -> float:
    """Return `probability_at_most` of n differences of 0/1 scores at a threshold of -margin, from counts alone.

    losses, gains: differences of -1 and of 1; the others are 0. margin: strictly between -1 and 1.

    Raises ValueError when the counts do not fit into n >= 1 or the margin is out of range.
    """
    if min(losses, gains) < 0 or losses + gains > n or n < 1:
        raise ValueError(f"{losses} losses and {gains} gains do not fit into {n} cases")
    if not -1 < margin < 1:
        raise ValueError(f"margin must lie strictly between -1 and 1, not {margin}")
    counts = np.array([losses + 1.0, n - losses - gains, gains])
    best = 1.0 if gains else 0.5 if n > losses else 0.0
    share = (1 - margin) / 2
    if share >= best:
        return 1.0
    is_there = counts > 0
    return _exact_probability(np.array([0.0, 0.5, 1.0])[is_there] / best, counts[is_there], share / best)


def lower_bound(values: npt.ArrayLike, worst: float, alpha: float) -> float:
    """Return the largest threshold with `probability_at_most` <= alpha: a one-sided bound of the mean.

    values, worst: as for `probability_at_most`. The upper bound is the mirror image:
    -lower_bound(-values, -best, alpha).
    alpha: the share of samples in which the bound may lie above the mean, strictly between 0 and 1.

    Raises ValueError as `probability_at_most` does, and for an alpha out of range.
    """
    points, counts, reach = _grouped(values, worst)
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie strictly between 0 and 1, not {alpha}")
    if points.size == 1:
        return float(worst)
    if points.size == 2:
        share = float(special.betaincinv(counts[1], counts[0], alpha))
    elif points.size == 3:
        share = -_falling_root(lambda share: _exact_probability(points, counts, -share) - alpha, -1.0, 0.0)
    else:
        tilt = _falling_root(lambda tilt: _saddlepoint_probability(points, counts, tilt) - alpha)
        share = _tilted_mean(points, counts, tilt)
    return float(worst + share * reach)


def _grouped(values: npt.ArrayLike, worst: float) -> tuple[Floats, Floats, float]:
    """Return the distinct values, how often each occurs, and the distance from worst to best.

    The values come as shares of that distance, rising from 0 (the extra unit, counted) to 1.
    """
    vector = finite_vector(values)
    if not math.isfinite(worst) or vector.min() < worst:
        raise ValueError(f"worst must be finite and at most every value, not {worst} for {vector.min()}")
    reach = float(vector.max() - worst)
    # One array for all that follows: a hundred thousand values are a megabyte.
    shares = np.zeros(vector.size + 1)
    np.subtract(vector, worst, out=shares[:-1])
    shares /= reach or 1.0
    # 0.3 and 0.1 + 0.2 are one value: left apart, dust would decide which method answers.
    np.round(shares, 12, out=shares)
    shares.sort()
    first = np.flatnonzero(np.append(True, shares[1:] != shares[:-1]))
    return shares[first], np.diff(first, append=shares.size).astype(np.float64), reach


def _exact_probability(points: Floats, counts: Floats, share: float) -> float:
    """Return P(sum W x <= share) for two or three points from 0 to 1, 0 < share < 1."""
    if points.size == 2:
        return float(special.betainc(counts[1], counts[0], share))
    # Given the weight w at 0, the share of the rest that lies at 1 is Beta; the sum stays below `share` while
    # the mean y of the rest is at most share / (1 - w), that is while w >= 1 - share / y. Only where both
    # betas have mass is there anything to integrate; above that window the condition holds for certain.
    middle, at_zero, at_middle, at_one = points[1], *counts
    edges = (
        special.betaincinv(at_one, at_middle, _NEGLIGIBLE),
        special.betainccinv(at_one, at_middle, _NEGLIGIBLE),
    )
    step_low, step_high = (max(0.0, 1 - share / (middle + edge * (1 - middle))) for edge in edges)
    rest = at_middle + at_one
    low = max(step_low, special.betaincinv(at_zero, rest, _NEGLIGIBLE))
    high = min(step_high, special.betainccinv(at_zero, rest, _NEGLIGIBLE))
    certain = float(special.betaincc(at_zero, rest, step_high))
    if low >= high:
        return certain
    nodes, node_weights = legendre(_N_NODES)
    weight = low + (high - low) * (nodes + 1) / 2
    log_density = (
        (at_zero - 1) * np.log(weight) + (rest - 1) * np.log1p(-weight) - special.betaln(at_zero, rest)
    )
    upper_share = np.clip((share / (1 - weight) - middle) / (1 - middle), 0, 1)
    inner = np.exp(log_density) * special.betainc(at_one, at_middle, upper_share)
    return float(min(1.0, certain + inner @ node_weights * (high - low) / 2))


def _tilted_weights(points: Floats, counts: Floats, tilt: float) -> Floats:
    """Return the weight, mean 1 over all units, that a tilt (on a log scale, 0 for none) leaves each with."""
    weights = 1 / ((1 - points) + points * math.exp(tilt))
    return np.asarray(weights * (counts.sum() / (counts @ weights)))


def _tilted_mean(points: Floats, counts: Floats, tilt: float) -> float:
    return float((counts * points) @ _tilted_weights(points, counts, tilt) / counts.sum())


def _saddlepoint_probability(points: Floats, counts: Floats, tilt: float) -> float:
    """Return P(sum W x <= the tilted mean), points from 0 to 1; it falls as the tilt rises.

    Unit-rate gamma variables weighted by x_j - threshold have their saddlepoint t where the mean of
    1 / (1 - t (x_j - threshold)) over the units is 1. Naming that ratio r_j and tilting by the worst unit's
    ratio to the best one's gives t, the threshold and all derivatives without solving anything.
    """
    weights = _tilted_weights(points, counts, tilt)
    excess = weights - 1
    # sum(counts * excess) is 0; leaving it in the sum keeps w exact where it nears 0.
    half_square = max(0.0, float(counts @ (excess - np.log1p(excess))))
    w = -math.copysign(math.sqrt(2 * half_square), tilt)
    if abs(w) < 1e-4:  # both fractions grow without end and their difference nears this limit
        pull = weights * (points - (counts * points) @ weights / counts.sum())
        correction = (counts @ pull**3) / (3 * math.pow(counts @ pull**2, 1.5))
    else:
        u = -math.copysign(math.sqrt(counts @ excess**2), tilt)
        correction = 1 / w - 1 / u
    density = math.exp(-w * w / 2) / math.sqrt(2 * math.pi)
    return float(min(1.0, max(0.0, special.ndtr(w) + density * correction)))


def _falling_root(
    function: Callable[[float], float], low: float = -_STRONGEST_TILT, high: float = _STRONGEST_TILT
) -> float:
    """Return where a falling function crosses 0, from the side where it is at most 0."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if function(middle) > 0:
            low = middle
        else:
            high = middle
    return high
