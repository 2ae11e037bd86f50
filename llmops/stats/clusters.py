"""The variance of a mean when cases come in clusters: several to a document, a conversation, a user.

A few large clusters are worth far fewer than their cases; how many comes out as degrees of freedom. Which
verdict too few of them allow is left to the gate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from llmops.stats.arrays import Clusters, Floats, cluster_codes, finite_vector


@dataclass(frozen=True)
class ClusteredMean:
    """A mean over n cases, the variance of that mean, and the degrees of freedom behind the variance."""

    mean: float
    variance: float
    df: float


def clustered_mean(values: npt.ArrayLike, clusters: Clusters | None = None) -> ClusteredMean | None:
    """Return the mean with its CR2 variance and Bell-McCaffrey degrees of freedom, None for a single cluster.

    values: shape (n,), n >= 1. clusters: one label a case; None makes each case its own cluster, and the
    result the textbook one: s^2 / n with n - 1 degrees of freedom.

    Raises ValueError when a value is not finite or there is not one label a case.

    Bell and McCaffrey (2002); for a mean both reduce to sums over clusters.
    """
    vector = finite_vector(values)
    mean = float(vector.mean())
    if clusters is None:
        n = vector.size
        return None if n < 2 else ClusteredMean(mean, float(vector.var(ddof=1)) / n, n - 1.0)
    codes = cluster_codes(clusters, vector.size)
    sizes = np.bincount(codes).astype(np.float64)
    if sizes.size < 2:
        return None
    residuals = np.bincount(codes, weights=vector - mean)
    variance = float((residuals**2 / (1 - sizes / vector.size)).sum()) / vector.size**2
    return ClusteredMean(mean, variance, _degrees_of_freedom(sizes))


def effective_clusters(clusters: Clusters) -> float:
    """Return how many equal clusters these are worth: degrees of freedom + 1, and 1 for a single cluster.

    Raises ValueError when there are no labels.
    """
    labels = np.asarray(clusters)
    if labels.size == 0:
        raise ValueError("clusters must hold at least one label")
    sizes = np.bincount(cluster_codes(clusters, labels.size)).astype(np.float64)
    return 1.0 if sizes.size < 2 else _degrees_of_freedom(sizes) + 1


def _degrees_of_freedom(sizes: Floats) -> float:
    """Return tr(M)^2 / tr(M^2) for cluster sizes, shape (G,), G >= 2.

    M_gh = (n_g [g = h] - n_g n_h / n) / sqrt((1 - n_g / n) (1 - n_h / n)) has n_g on its diagonal and
    q_g q_h / n^2 as squares off it, q_g = n_g^2 / (1 - n_g / n).
    """
    n = sizes.sum()
    # Rising order: products of pairs then add up without the cancellation of (sum q)^2 - sum q^2.
    q = np.sort(sizes**2 / (1 - sizes / n))
    off_diagonal = 2 * float(q[1:] @ np.cumsum(q)[:-1]) / n**2
    return float(n**2 / (sizes @ sizes + off_diagonal))
