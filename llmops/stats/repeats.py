"""Repeated runs of one case: what they teach about noise, and where more of them are worth their price.

Most of the noise between two equal variants is generation noise. The baseline's half goes away by comparing with the
mean of its stored runs, the candidate's shrinks fastest by repeating only the cases known to be flaky.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from llmops.stats.arrays import Clusters, Codes, Floats, cluster_codes, finite_vector
from llmops.stats.runs import Runs, relabelling_p
from llmops.stats.sign_flips import sign_flip_p

HISTORY = 8
"""Baseline runs a history should hold."""
MIN_HISTORY = 3
"""Fewer are no history."""
FLAKY_REPEATS = 4
"""Candidate runs of a flaky case, on average."""


@dataclass(frozen=True, slots=True)
class VarianceParts:
    """Variance between groups (cases, documents) and within one, both at least 0."""

    between: float
    within: float

    def of_mean(self, n: int, repeats: float = 1.0) -> float:
        """Return the variance of a mean over n cases with so many runs each."""
        return (self.between + self.within / repeats) / n

    @property
    def correlation(self) -> float:
        """The intraclass correlation, 0 to 1; 0 where nothing varies."""
        total = self.between + self.within
        return self.between / total if total > 0 else 0.0


def variance_parts(
    values: npt.ArrayLike, groups: Sequence[Hashable] | npt.NDArray[np.generic]
) -> VarianceParts | None:
    """Return the parts of the variance by one-way ANOVA, None unless some group has two values and there are two.

    values: one a run, shape (k,). groups: the case, or the cluster, each belongs to; sizes may differ.

    Raises ValueError when a value is not finite or there is not one label a value.

    Searle, Casella, McCulloch (1992), section 3.6; an estimate below 0 is 0.
    """
    vector = finite_vector(values)
    codes = cluster_codes(groups, vector.size)
    sizes = np.bincount(codes).astype(np.float64)
    if sizes.size < 2 or sizes.size == vector.size:
        return None
    means = np.bincount(codes, weights=vector) / sizes
    within = float(((vector - means[codes]) ** 2).sum()) / (vector.size - sizes.size)
    around = float(sizes @ (means - vector.mean()) ** 2) / (sizes.size - 1)
    typical_size = (vector.size - float(sizes @ sizes) / vector.size) / (sizes.size - 1)
    return VarianceParts(max(0.0, (around - within) / typical_size), within)


def design_effect(mean_cluster_size: float, correlation: float) -> float:
    """Return by how much clusters of this size inflate the variance of a mean: 1 + (size - 1) x correlation.

    Kish (1965).
    """
    return 1 + (mean_cluster_size - 1) * correlation


def flaky_repeats(shares: npt.ArrayLike, *, mean_repeats: int = FLAKY_REPEATS) -> Codes:
    """Return how often the candidate should run each case, shape (n,): 1 where history was always the same.

    shares: of the baseline's stored runs of each case that passed (or their mean score), 0 to 1. It is all that the
    allocation may depend on: repeating what the candidate's first run suggests would be peeking.
    mean_repeats: runs that flaky cases get on average, more where history is nearer to one half, never below 2.

    Raises ValueError when a share is not within 0 and 1.

    Neyman (1934): in proportion to sqrt(p (1 - p)).
    """
    spread = np.sqrt(_spread(shares))
    repeats = np.ones(spread.size, dtype=np.intp)
    is_flaky = spread > 0
    if is_flaky.any():
        wanted = mean_repeats * spread[is_flaky] / spread[is_flaky].mean()
        repeats[is_flaky] = np.maximum(2, np.rint(wanted)).astype(np.intp)
    return repeats


def expected_noise(shares: npt.ArrayLike, *, n_history: int, repeats: npt.ArrayLike) -> float:
    """Return the variance of a difference that an unchanged candidate would show, mean over cases.

    shares: of the stored runs of each case that passed. n_history: baseline runs a case, 1 without a history.
    repeats: candidate runs of each case, shape (n,).

    Raises ValueError when a share is not within 0 and 1.
    """
    counts = np.asarray(repeats, dtype=np.float64)
    return float((_spread(shares) * (1 / counts + 1 / n_history)).mean())


def is_history_stale(
    history: Runs,
    fresh: Runs,
    n: int,
    *,
    alpha: float,
    clusters: Clusters | None = None,
    seed: int | Sequence[int],
) -> bool:
    """Return whether a fresh run of the baseline differs from its own history: the provider changed something.

    history, fresh: the stored runs, and those of now, of the same n cases; cases without both count nothing.
    alpha: error of both directions together; a model that got better makes old runs as useless as one that got worse.

    Raises ValueError when no case has both.
    """
    change = fresh.means(n) - history.means(n)
    kept = ~np.isnan(change)
    labels = None if clusters is None else cluster_codes(clusters, n)[kept]
    return any(
        max(
            sign_flip_p(way * change[kept], clusters=labels, seed=seed),
            relabelling_p(history, fresh, n, partial(_gain, way), seed=seed),
        )
        <= alpha / 2
        for way in (1.0, -1.0)
    )


def _gain(way: float, before: Floats, after: Floats) -> Floats:
    return way * (after - before)


def _spread(shares: npt.ArrayLike) -> Floats:
    vector = finite_vector(shares, "shares")
    if vector.min() < 0 or vector.max() > 1:
        raise ValueError(f"shares lie between 0 and 1, these run from {vector.min()} to {vector.max()}")
    return np.asarray(vector * (1 - vector))
