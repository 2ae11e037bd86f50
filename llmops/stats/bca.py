"""The bias-corrected and accelerated bootstrap: for figures that are no mean over cases, and ratios of totals.

scipy's `bootstrap` gives the interval but no p-value, which Holm asks for, and knows no clusters; both follow from the
same draws. It has no guard against failures unseen: what may block on it is left to `figures`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from llmops.stats.arrays import Clusters, Floats, paired_vectors, tail_of
from llmops.stats.bootstrap import Statistic, draws, left_out, of_sums

RESAMPLES = 4999


@dataclass(frozen=True)
class Resampled:
    """A figure of n cases with its resamples, sorted; bias and acceleration as Efron defines them."""

    estimate: float
    figures: Floats
    bias: float
    acceleration: float

    def interval(self, level: float) -> tuple[float, float]:
        """Return the interval of this coverage.

        Raises ValueError when the level is outside (0, 1).
        """
        alpha = tail_of(level)
        low, high = np.quantile(self.figures, [self._share(alpha), self._share(1 - alpha)])
        return float(low), float(high)

    def p_above(self, threshold: float) -> float:
        """Return the one-sided p-value that the figure is above a threshold: where the interval's end meets it."""
        n = self.figures.size
        below = np.searchsorted(self.figures, threshold, "left") + np.searchsorted(
            self.figures, threshold, "right"
        )
        # At least one resample always counts (Phipson and Smyth 2010), so that no p-value is 0.
        share = (below / 2 + 0.5) / (n + 1)
        z = float(special.ndtri(share)) - self.bias
        return float(special.ndtr(z / (1 + self.acceleration * z) - self.bias))

    def p_below(self, threshold: float) -> float:
        """Return the one-sided p-value that the figure is below a threshold."""
        return Resampled(-self.estimate, -self.figures[::-1], -self.bias, -self.acceleration).p_above(
            -threshold
        )

    def _share(self, probability: float) -> float:
        z = self.bias + float(special.ndtri(probability))
        return float(special.ndtr(self.bias + z / (1 - self.acceleration * z)))


def resampled(
    statistic: Statistic,
    n: int,
    *,
    seed: int,
    clusters: Clusters | None = None,
    resamples: int = RESAMPLES,
) -> Resampled:
    """Return a figure of n cases with its bootstrap distribution.

    statistic: from weights, shape (rows, n), to one figure a row; see `bootstrap`. clusters: whole ones are drawn.

    Raises ValueError when a figure is not finite.

    Efron (1987); DiCiccio and Efron (1996), section 2.
    """
    estimate = float(statistic(np.ones((1, n), dtype=np.intp))[0])
    figures = np.sort(draws(statistic, n, resamples=resamples, seed=seed, clusters=clusters))
    below = (figures < estimate).sum() + (figures <= estimate).sum()
    bias = float(special.ndtri(np.clip(below / 2, 0.5, resamples - 0.5) / resamples))
    pull = left_out(statistic, n, clusters=clusters)
    pull = pull.mean() - pull
    spread = float(pull @ pull)
    acceleration = float((pull**3).sum()) / (6 * math.pow(spread, 1.5)) if spread > 0 else 0.0
    return Resampled(estimate, figures, bias, acceleration)


def total_ratio(
    baseline: npt.ArrayLike, candidate: npt.ArrayLike, *, seed: int, clusters: Clusters | None = None
) -> Resampled:
    """Return the ratio of totals, candidate over baseline, such as of cost: it informs, and blocks nothing.

    baseline, candidate: one number a case, at least 0, same cases in the same order, shape (n,).

    Raises ValueError when the shapes differ, a number is not finite or below 0, or a resample costs nothing.
    """
    before, after = paired_vectors(baseline, candidate)
    if min(before.min(), after.min()) < 0 or not before.any():
        raise ValueError("totals are of numbers from 0 up, and the baseline's is above 0")

    def ratio(totals: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(totals[:, 1] / totals[:, 0])

    statistic = of_sums(np.stack([before, after], axis=1), ratio)
    return resampled(statistic, before.size, seed=seed, clusters=clusters)
