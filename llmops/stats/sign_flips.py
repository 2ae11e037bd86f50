"""The FAIL side of a gate: is a regression proved? Exact whenever the two labels could be swapped within a case.

That is all that "the candidate is the baseline" says, so any score, any n and any clustering will do. Whether a
regression is beyond the margin is left to the PASS side.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import special

from llmops.stats.arrays import Clusters, Floats, cluster_codes, finite_vector

RESAMPLES = 9999
# Signs drawn at once: a byte decides on eight units, and its 256 sums are looked up.
_SIGNS_A_BYTE = 8
# As a share of the sum of all sizes: what adding in another order leaves behind.
_ROUNDING = 1e-12


def mcnemar_p(losses: int, gains: int) -> float:
    """Return P(Bin(losses + gains, 1/2) >= losses): the one-sided p-value that the losses are no accident.

    losses, gains: cases that went from pass to fail, and from fail to pass.

    Raises ValueError for a count below 0.

    McNemar (1947), exact and conditional on the cases that changed.
    """
    if min(losses, gains) < 0:
        raise ValueError(f"losses and gains are counts, not {losses} and {gains}")
    return 1.0 if losses == 0 else float(special.bdtrc(losses - 1, losses + gains, 0.5))


def sign_flip_p(
    differences: npt.ArrayLike,
    *,
    clusters: Clusters | None = None,
    resamples: int = RESAMPLES,
    seed: int | Sequence[int],
) -> float:
    """Return the one-sided p-value that the sum of the differences is below 0 by no accident, above 0 to 1.

    differences: candidate less baseline, higher is better, shape (n,), n >= 1; repeats averaged, dust set to 0.
    clusters: one label a case; the signs of whole clusters are then flipped.
    resamples: 2^G <= resamples flips of G units that changed are enumerated, and units of one size need none;
    else so many are drawn, and p = (1 + count) / (1 + resamples).

    Raises ValueError when a difference is not finite or there is not one label a case.

    Fisher (1935); clusters: Canay, Romano, Shaikh (2017); counting the data among the draws: Phipson and Smyth
    (2010). Units of one size: exact McNemar.
    """
    vector = finite_vector(differences, "differences")
    codes = cluster_codes(clusters, vector.size)
    sums = np.bincount(codes, weights=vector)
    rounding = _ROUNDING * float(np.abs(vector).sum())
    units = sums[np.abs(sums) > rounding]
    if units.size == 0:
        return 1.0
    sizes = np.abs(units)
    if np.ptp(sizes) <= rounding:
        return mcnemar_p(int((units < 0).sum()), int((units > 0).sum()))
    most = float(units.sum()) + rounding
    if 2**units.size <= resamples:
        return float((_all_sums(sizes) <= most).mean())
    drawn = _drawn_sums(np.sort(sizes), resamples, seed)
    return (1 + int((drawn <= most).sum())) / (1 + resamples)


def _all_sums(sizes: Floats) -> Floats:
    """Return the sums of the sizes under each choice of signs, shape (2^G,)."""
    sums = np.zeros(1)
    for size in sizes:
        sums = np.concatenate([sums - size, sums + size])
    return sums


def _drawn_sums(sizes: Floats, resamples: int, seed: int | Sequence[int]) -> Floats:
    """Return the sums of the sizes under random signs, shape (resamples,)."""
    padded = np.append(sizes, np.zeros(-sizes.size % _SIGNS_A_BYTE)).reshape(-1, _SIGNS_A_BYTE)
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, np.newaxis], axis=1)
    tables = padded @ (2.0 * bits.T - 1)
    rng = np.random.default_rng(seed)
    sums = np.zeros(resamples)
    for table in tables:
        sums += table[rng.integers(0, 256, resamples, dtype=np.uint8)]
    return sums
