"""The door of `stats`: what comes in is a finite vector, or labels that cut one into clusters, or is refused.

What the numbers mean, and which of them may be absent, is settled by those who call.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.intp]
Clusters = Sequence[Hashable] | npt.NDArray[np.generic]


def finite_vector(values: npt.ArrayLike, name: str = "values") -> Floats:
    """Return the values as floats, shape (n,), n >= 1.

    Raises ValueError when there are none, when they are not one-dimensional, or when one is not finite.
    """
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1 or vector.size == 0:
        raise ValueError(f"{name} must be one-dimensional and not empty, not of shape {vector.shape}")
    if not np.isfinite(vector).all():
        place = int(np.flatnonzero(~np.isfinite(vector))[0])
        raise ValueError(
            f"{name}[{place}] is {vector[place]}: drop unscored cases first, and report how many"
        )
    return vector


def paired_vectors(baseline: npt.ArrayLike, candidate: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Return both as finite vectors of one shape (n,).

    Raises ValueError as `finite_vector` does, and when the shapes differ.
    """
    first, second = finite_vector(baseline, "baseline"), finite_vector(candidate, "candidate")
    if first.shape != second.shape:
        raise ValueError(f"baseline has {first.size} cases and candidate {second.size}: pair them first")
    return first, second


def cluster_codes(clusters: Clusters | None, n: int) -> Codes:
    """Return the cluster of each of n cases as a code 0..G-1, shape (n,); each its own without labels.

    Raises ValueError when there is not exactly one label a case.
    """
    if clusters is None:
        return np.arange(n)
    labels = np.asarray(clusters)
    if labels.shape != (n,):
        raise ValueError(f"clusters must hold one label for each of {n} cases, not shape {labels.shape}")
    return np.unique(labels, return_inverse=True)[1]


def case_means(places: npt.NDArray[np.integer], values: Floats, n: int) -> Floats:
    """Return the mean of the values at each of n places, NaN where there is none, shape (n,).

    places: that of each value, 0..n-1, shape (k,). Sums are taken in the order of the values, so that the order in
    which they came shows nowhere.
    """
    order = np.lexsort((values, places))
    sums = np.bincount(places[order], weights=values[order], minlength=n)
    counts = np.bincount(places, minlength=n)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


@cache
def legendre(n: int) -> tuple[Floats, Floats]:
    """Return the n nodes and weights of Gauss-Legendre quadrature over [-1, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return nodes, weights


def tail_of(level: float) -> float:
    """Return the one-sided error alpha of a two-sided level: 0.05 for 0.90.

    Raises ValueError when the level is not strictly between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie strictly between 0 and 1, not {level}")
    return (1 - level) / 2
