"""Bets against a claim: evidence that may be looked at after every case, for streams that have no last one.

A bettor whose stakes depend on the past only cannot grow rich while the claim is true, so wealth of 1 / alpha refutes
it whenever that is seen. Also the theorem for those who want no conjecture at a fixed n, at some 1.5 times the width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from llmops.stats.arrays import Floats, finite_vector

# Never more than this share of what may be staked: no single case ruins a bettor.
_BOLDEST = 0.9
# The mean square before the first case, and as many cases it counts for.
_FIRST_SQUARE, _FIRST_WEIGHT = 0.25, 1
# 2 / 2**44 is a resolution of 1e-13.
_HALVINGS = 44


@dataclass(frozen=True, slots=True)
class Wealth:
    """What two bettors have after n cases, as logs: one bets on "no worse than the margin", one on "worse".

    margin: largest regression accepted, as a share of the range of a score, in (0, 1).
    effect: the regression worth catching, likewise. n, sum_of_squares: of the cases so far.
    """

    margin: float
    effect: float
    n: int = 0
    sum_of_squares: float = 0.0
    log_pass: float = 0.0
    log_fail: float = 0.0

    def __post_init__(self) -> None:
        if not (0 < self.margin < 1 and 0 < self.effect < 1):
            raise ValueError(
                f"margin and effect are shares of the range, not {self.margin} and {self.effect}"
            )

    def after(self, differences: npt.ArrayLike) -> Wealth:
        """Return the wealth after further cases, in the order in which they came.

        differences: candidate less baseline over the range of a score, -1 to 1, higher is better, shape (k,).

        Raises ValueError when a difference is not finite or out of range.
        """
        vector = _in_reach(differences)
        squares = _squares_before(vector, self.n, self.sum_of_squares)
        return replace(
            self,
            n=self.n + vector.size,
            sum_of_squares=self.sum_of_squares + float(vector @ vector),
            log_pass=self.log_pass
            + float(np.log1p(_stakes(squares, self.margin) * (vector + self.margin)).sum()),
            log_fail=self.log_fail
            + float(np.log1p(-np.minimum(_BOLDEST, _pull(squares, self.effect)) * vector).sum()),
        )

    def verdict(self, alpha: float) -> str:
        """Return `pass`, `fail`, or `open` while neither bettor has 1 / alpha; it may be asked at any time."""
        if self.log_pass >= -math.log(alpha):
            return "pass"
        return "fail" if self.log_fail >= -math.log(alpha) else "open"


def shards_e(e_values: Iterable[float]) -> float:
    """Return the e-value of independent shards of one stream together: their product."""
    return math.prod(e_values)


def metrics_e(e_values: Sequence[float]) -> float:
    """Return the e-value of several metrics of the same cases together: their mean, however they depend.

    Raises ValueError when there are none.
    """
    if not e_values:
        raise ValueError("there is no e-value to average")
    return math.fsum(e_values) / len(e_values)


def betting_p(differences: npt.ArrayLike, margin: float, *, seed: int | Sequence[int]) -> float:
    """Return the one-sided p-value that the mean difference is above -margin: 1 / the most the bettor ever had.

    differences, margin: as shares of the range of a score. seed: of the order in which the cases are bet on.

    Raises ValueError when a difference is not finite or out of range, or margin is not in (0, 1).

    Waudby-Smith and Ramdas (2024); the p-value by Ville's inequality.
    """
    return _least_p(_shuffled(differences, margin, seed), margin, margin)


def betting_lower_bound(
    differences: npt.ArrayLike, margin: float, alpha: float, *, seed: int | Sequence[int]
) -> float:
    """Return the one-sided lower bound of the mean difference that clears -margin when `betting_p` <= alpha.

    The stakes are those for `margin`, so the bound is sharpest there; it holds wherever it lies.

    Raises ValueError as `betting_p` does, and for an alpha outside (0, 1).
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie strictly between 0 and 1, not {alpha}")
    vector = _shuffled(differences, margin, seed)
    low, high = -1.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _least_p(vector, -middle, margin) <= alpha:
            low = middle
        else:
            high = middle
    return low


def _least_p(vector: Floats, margin: float, aim: float) -> float:
    """Return 1 / the highest wealth against a mean of at most -margin, with the stakes that suit `aim`."""
    stakes = np.minimum(_stakes(_squares_before(vector), aim), _BOLDEST / (1 - margin))
    return math.exp(min(0.0, -float(np.log1p(stakes * (vector + margin)).cumsum().max())))


def _stakes(squares: Floats, margin: float) -> Floats:
    return np.minimum(_BOLDEST / (1 - margin), _pull(squares, margin))


def _pull(squares: Floats, effect: float) -> Floats:
    """The stake that grows fastest, to second order, when the mean is off by `effect`."""
    return effect / (squares + effect**2)


def _squares_before(vector: Floats, n: int = 0, sum_of_squares: float = 0.0) -> Floats:
    """Return the mean square of all cases before each one, shape (k,): what a stake may know."""
    before = sum_of_squares + np.cumsum(vector**2) - vector**2
    return np.asarray((_FIRST_SQUARE + before) / (_FIRST_WEIGHT + n + np.arange(vector.size)))


def _shuffled(differences: npt.ArrayLike, margin: float, seed: int | Sequence[int]) -> Floats:
    if not 0 < margin < 1:
        raise ValueError(f"margin must be a share of the range in (0, 1), not {margin}")
    return np.asarray(np.random.default_rng(seed).permutation(_in_reach(differences)))


def _in_reach(differences: npt.ArrayLike) -> Floats:
    vector = finite_vector(differences, "differences")
    if np.abs(vector).max() > 1:
        raise ValueError("differences are shares of the range of a score, from -1 to 1")
    return vector
