"""Figures of all cases together, that are no mean over cases: the plain one, and its interval by resampling cases.

What a figure is, each evaluator says as a function of weights; drawing them is left to `stats.bootstrap`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmops.records import Figure, Interval

if TYPE_CHECKING:
    from llmops.stats.bootstrap import Statistic

RESAMPLES = 1000
TRUSTED_FROM = 50
"""Cases from which on a bootstrap interval is more than rough."""


def plain_value(statistic: Statistic, n: int) -> float:
    """Return the figure of n cases as they are."""
    import numpy as np

    return float(statistic(np.ones((1, n), dtype=np.intp))[0])


def resampled(
    statistic: Statistic, n: int, *, clusters: Sequence[str] | None, level: float, seed: int
) -> Interval:
    """Return the bootstrap interval of a figure of n cases, whole clusters drawn where there are some."""
    from llmops.stats.bootstrap import percentile_interval

    low, high = percentile_interval(
        statistic, n, level=level, resamples=RESAMPLES, seed=seed, clusters=clusters
    )
    return Interval(low=low, high=high, level=level)


def rough_note(n: int) -> str | None:
    """Return what to say of the interval of a figure of n cases."""
    return None if n >= TRUSTED_FROM else f"a rough interval: fewer than {TRUSTED_FROM} cases"


def unknown_statistic(n_missing: int) -> Figure:
    """Return the figure of nothing."""
    return Figure(value=None, kind="statistic", n=0, n_missing=n_missing)
