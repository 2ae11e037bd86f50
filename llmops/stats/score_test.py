"""Tango's score test of a margin, for paired 0/1 scores without clusters: `method: score`, never the default.

The only serious rival of the bound in `dirichlet`: some 6 points more power at 200 cases, and 0.058 for 0.05 at
worst. Which data it may be used on is checked by those who call.
"""

from __future__ import annotations

import math

from scipy import special

# 2 / 2**50 is below the last digit that is shown.
_HALVINGS = 50


def score_p(losses: int, gains: int, n: int, margin: float) -> float:
    """Return the one-sided p-value that the difference of two paired shares is above -margin.

    losses, gains: cases of n that went from pass to fail, and from fail to pass. margin: between -1 and 1.

    Raises ValueError when the counts do not fit into n >= 1 or the margin is out of range.

    Tango (1998): the statistic with the variance at its restricted maximum likelihood estimate.
    """
    if min(losses, gains) < 0 or losses + gains > n or n < 1:
        raise ValueError(f"{losses} losses and {gains} gains do not fit into {n} cases")
    if not -1 < margin < 1:
        raise ValueError(f"margin must lie strictly between -1 and 1, not {margin}")
    excess = gains - losses + n * margin
    # The likelihood's quadratic for the share of losses when the difference is exactly -margin.
    b = -losses - gains - (2 * n - gains + losses) * margin
    c = losses * margin * (margin + 1)
    share = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)
    variance = n * (2 * share - margin * (margin + 1))
    if variance <= 0:
        return 0.5 if excess == 0 else float(excess < 0)
    return float(special.ndtr(-excess / math.sqrt(variance)))


def score_lower_bound(losses: int, gains: int, n: int, alpha: float) -> float:
    """Return the difference of shares below which `score_p` is at most alpha: a one-sided bound.

    Raises ValueError as `score_p` does, and for an alpha outside (0, 1).
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie strictly between 0 and 1, not {alpha}")
    low, high = -1.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if score_p(losses, gains, n, -middle) <= alpha:
            low = middle
        else:
            high = middle
    return low
