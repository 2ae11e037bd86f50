"""Several tests at once: Holm for "any metric may block", a fixed sequence for ordered claims, BH for reports.

"All metrics must pass" needs none of them (Berger 1982). What a set of outcomes adds up to is left to `decision`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmops.stats.arrays import Floats, finite_vector


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return the adjusted p-values in the order given: at most alpha where Holm's procedure rejects.

    Raises ValueError when a p-value is not within 0 and 1.

    Holm (1979); with m tests, m - k + 1 times the k-th smallest, never falling.
    """
    vector = _p_values(p_values)
    order = np.argsort(vector, kind="stable")
    adjusted = np.empty(vector.size)
    adjusted[order] = np.maximum.accumulate(vector[order] * np.arange(vector.size, 0, -1))
    return tuple(np.minimum(1.0, adjusted).tolist())


def benjamini_hochberg(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return the q-values in the order given: for metrics that inform, never for ones that block.

    Raises ValueError when a p-value is not within 0 and 1.

    Benjamini and Hochberg (1995).
    """
    from scipy.stats import false_discovery_control

    vector = _p_values(p_values)
    return tuple(false_discovery_control(vector).tolist()) if vector.size else ()


def fixed_sequence(p_values: Sequence[float], alpha: float) -> int:
    """Return how many claims, in the order given, are proved: each at alpha, up to the first that is not.

    Raises ValueError when a p-value is not within 0 and 1.

    Maurer, Hothorn, Lehmacher (1995).
    """
    unproved = np.flatnonzero(_p_values(p_values) > alpha)
    return int(unproved[0]) if unproved.size else len(p_values)


def _p_values(p_values: Sequence[float]) -> Floats:
    if not p_values:
        return np.empty(0)
    vector = finite_vector(p_values, "p_values")
    if vector.min() < 0 or vector.max() > 1:
        raise ValueError(f"p-values lie between 0 and 1, these run from {vector.min()} to {vector.max()}")
    return vector
