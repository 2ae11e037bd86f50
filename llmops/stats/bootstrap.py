"""The bootstrap for figures that are no mean over cases, such as macro F1: it informs, it gates nothing.

A resample is a row of weights, how often each case was drawn; a figure is a function of such rows. Draws go
through in blocks, so that memory stays flat however many there are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from llmops.stats.arrays import Clusters, Codes, Floats, cluster_codes, tail_of

if TYPE_CHECKING:
    from collections.abc import Sequence

Statistic = Callable[[npt.NDArray[np.intp]], Floats]
"""A figure of n cases as a function of weights: from shape (rows, n) to shape (rows,)."""

# Weights held at once: a few blocks of this many eight-byte numbers stay under 50 MB.
_BLOCK = 2**20


def weights(
    n: int, *, resamples: int, seed: int | Sequence[int], clusters: Clusters | None = None
) -> npt.NDArray[np.intp]:
    """Return how often each of n cases is drawn in each resample, shape (resamples, n).

    clusters: one label a case; whole clusters are then drawn, as many as there are, and the weights of a
    row add up to n only on average.

    All rows are held at once; `percentile_interval` is the way to thousands of them.

    Raises ValueError when n or resamples is not positive, or there is not one label a case.
    """
    if n < 1 or resamples < 1:
        raise ValueError(f"n and resamples must be positive, not {n} and {resamples}")
    codes = cluster_codes(clusters, n)
    n_clusters = int(codes.max()) + 1
    draws = np.random.default_rng(seed).integers(0, n_clusters, (resamples, n_clusters))
    draws += n_clusters * np.arange(resamples)[:, np.newaxis]
    drawn = np.bincount(draws.ravel(), minlength=resamples * n_clusters).reshape(resamples, n_clusters)
    return drawn if clusters is None else drawn[:, codes]


def percentile_interval(
    statistic: Statistic,
    n: int,
    *,
    level: float,
    resamples: int,
    seed: int,
    clusters: Clusters | None = None,
) -> tuple[float, float]:
    """Return the percentile interval of a statistic of n cases.

    statistic: from weights, shape (rows, n), to one figure a row, shape (rows,); it is given some rows at a
    time. For a difference of two variants it takes one from the other under the same weights.
    level: coverage as a share. resamples: the ends settle as 1 / sqrt(resamples).
    clusters: one label a case; see `weights`.

    Raises ValueError as `weights` does, for a level outside (0, 1), or for a figure that is not finite.

    Efron and Tibshirani (1993), chapter 13; whole clusters: Davison and Hinkley (1997), section 3.8.
    """
    alpha = tail_of(level)
    figures = draws(statistic, n, resamples=resamples, seed=seed, clusters=clusters)
    low, high = np.quantile(figures, [alpha, 1 - alpha])
    return float(low), float(high)


def draws(
    statistic: Statistic, n: int, *, resamples: int, seed: int, clusters: Clusters | None = None
) -> Floats:
    """Return the statistic of each resample, shape (resamples,); parameters as for `percentile_interval`.

    Raises ValueError as `weights` does, or for a figure that is not finite.
    """
    rows = max(1, _BLOCK // max(1, n))
    codes = None if clusters is None else cluster_codes(clusters, n)
    if codes is not None and np.array_equal(codes, np.arange(n)):
        codes = None  # each case its own: the same draws, without spreading them
    figures = np.concatenate(
        [
            statistic(weights(n, resamples=min(rows, resamples - start), seed=(seed, start), clusters=codes))
            for start in range(0, max(1, resamples), rows)
        ]
    )
    if not np.isfinite(figures).all():
        raise ValueError("the statistic is not finite for some resample")
    return figures


def left_out(statistic: Statistic, n: int, *, clusters: Clusters | None = None) -> Floats:
    """Return the statistic without each case, or each cluster, in turn, shape (n,) or (G,): the jackknife."""
    codes = cluster_codes(clusters, n)
    rows = max(1, _BLOCK // max(1, n))
    units = np.arange(int(codes.max()) + 1)
    return np.concatenate(
        [
            statistic((codes != units[start : start + rows, np.newaxis]).astype(np.intp))
            for start in range(0, units.size, rows)
        ]
    )


def of_sums(sums: Floats, figure: Callable[[Floats], Floats]) -> Statistic:
    """Return a figure of what n cases add up to, as a function of weights.

    sums: of each case, shape (n, k). figure: from totals, shape (rows, k), to one figure a row, shape (rows,).
    """

    def statistic(drawn: npt.NDArray[np.intp]) -> Floats:
        return figure(drawn.astype(np.float64) @ sums)

    return statistic


def macro_f1(truth: Codes, predicted: Codes, n_classes: int, weights: npt.NDArray[np.intp]) -> Floats:
    """Return macro F1 under each row of weights, shape (rows,), between 0 and 1.

    truth, predicted: class codes 0..n_classes-1, shape (n,). weights: shape (rows, n); a row of ones gives
    the plain figure.

    Every one of the n_classes counts alike, and as 0 where no case has it in truth or prediction:
    scikit-learn's f1_score(labels=range(n_classes), average="macro", zero_division=0).

    Raises ValueError when shapes or codes do not fit.
    """
    if not truth.shape == predicted.shape == weights.shape[1:]:
        raise ValueError(f"{truth.shape} truths, {predicted.shape} predictions, weights {weights.shape}")
    codes = np.concatenate([truth, predicted])
    if codes.size == 0 or codes.min() < 0 or codes.max() >= n_classes:
        raise ValueError(f"class codes must be there and run from 0 to {n_classes - 1}")
    right = truth == predicted
    hits = _class_sums(weights[:, right], truth[right], n_classes)
    either = _class_sums(weights, truth, n_classes) + _class_sums(weights, predicted, n_classes)
    return np.asarray((2 * hits / np.maximum(either, 1)).mean(axis=1))


def _class_sums(weights: npt.NDArray[np.intp], codes: Codes, n_classes: int) -> npt.NDArray[np.intp]:
    """Return the weight of each class in each row, shape (rows, n_classes)."""
    sums = np.zeros((weights.shape[0], n_classes), dtype=weights.dtype)
    order = np.argsort(codes, kind="stable")
    present, starts = np.unique(codes[order], return_index=True)
    if present.size:
        sums[:, present] = np.add.reduceat(weights[:, order], starts, axis=1)
    return sums
