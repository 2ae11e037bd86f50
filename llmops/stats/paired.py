"""The interval of a paired difference of bounded scores: what a gate compares with its margin.

The same cases stand on both sides, so what is hard about a case cancels. Pairing by id, repeats and missing
scores are left to `compare`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from llmops.stats.arrays import Clusters, paired_vectors
from llmops.stats.intervals import DUST, in_range, mean_interval


def paired_interval(
    baseline: npt.ArrayLike,
    candidate: npt.ArrayLike,
    *,
    low: float,
    high: float,
    level: float,
    clusters: Clusters | None = None,
) -> tuple[float, float]:
    """Return the interval of the mean difference, candidate less baseline, of scores in [low, high].

    baseline, candidate: one score a case, shape (n,), same cases in the same order, n >= 1, repeats averaged.
    low, high: what a score may be; a difference may then be anything from low - high to high - low.
    level: coverage as a share; 0.90 leaves 5 in 100 on each side, so that its low end clears -margin exactly
    when a regression beyond the margin is excluded at 5 in 100.
    clusters: one label a case; see `mean_interval`.

    Raises ValueError when the shapes differ or a score is not finite or out of range: drop unscored cases
    first, and report how many.

    Gaffke's (2005) bound from both sides; for 0/1 scores its ends clear 0 when McNemar's exact test does.
    """
    before, after = paired_vectors(baseline, candidate)
    reach = high - low
    difference = in_range(after, low, high, "candidate") - in_range(before, low, high, "baseline")
    # Dust would look like a change, and like one that all cases agree on.
    difference[np.abs(difference) <= DUST * reach] = 0.0
    return mean_interval(difference, low=-reach, high=reach, level=level, clusters=clusters)
