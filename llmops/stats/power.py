"""What n cases can show, before they are paid for: the margin that can be proved, the regression that would be seen.

Noise is the variance of a case's difference as a share of the squared range; for 0/1 scores with one run a side, the
share of cases that flip between two equal variants. Graded scores are treated as if their noise came as whole flips.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import special

from llmops.stats.arrays import Codes, Floats
from llmops.stats.dirichlet import paired_binary_probability

TYPICAL_NOISE = 0.10
"""Where no history tells."""
POWER = 0.80
ALPHA = 0.05
_EXACT_UP_TO = 2000
"""Beyond, the normal formula agrees with enumeration to a tenth of a point."""
_NEGLIGIBLE = 1e-9


@dataclass(frozen=True, slots=True)
class PowerReport:
    """What a gate can see, as shares of the range. Figures at `power` under noise as expected.

    n_effective: cases that clusters leave. smallest_margin: that an unchanged candidate can pass.
    smallest_regression: that would be proved. n_needed: effective cases for `margin`; n_unchanged: cases from which
    on it can be passed at all, without a single change.
    """

    n: int
    n_effective: float
    margin: float
    noise: float
    alpha: float
    power: float
    smallest_margin: float
    smallest_regression: float
    n_needed: int
    n_unchanged: int


def power_report(
    n: int,
    margin: float,
    *,
    noise: float = TYPICAL_NOISE,
    design_effect: float = 1.0,
    alpha: float = ALPHA,
    power: float = POWER,
) -> PowerReport:
    """Return what a gate of n cases with this margin can see.

    margin, noise: as shares of the range; noise from history (`repeats.expected_noise`).
    design_effect: by how much clusters inflate the variance, at least 1.

    Raises ValueError when n or margin is out of range.
    """
    if n < 1 or not 0 < margin < 1:
        raise ValueError(f"a gate needs a case and a margin between 0 and 1, not {n} and {margin}")
    n_effective = n / design_effect
    n_whole = max(1, math.floor(n_effective))
    return PowerReport(
        n=n,
        n_effective=n_effective,
        margin=margin,
        noise=noise,
        alpha=alpha,
        power=power,
        smallest_margin=smallest_margin(n_whole, noise, alpha=alpha, power=power),
        smallest_regression=smallest_regression(n_whole, noise, alpha=alpha, power=power),
        n_needed=n_needed(margin, noise, alpha=alpha, power=power),
        n_unchanged=n_unchanged(margin, alpha=alpha),
    )


def n_unchanged(margin: float, *, alpha: float = ALPHA) -> int:
    """Return the fewest cases at which zero changes exclude a margin: no test can pass before."""
    return math.ceil(math.log(alpha) / math.log1p(-margin) - 1e-9)


def normal_effect(variance: float, n: float, *, alpha: float = ALPHA, power: float = POWER) -> float:
    """Return the effect seen with this power by a test of a mean, variance of one value; too optimistic below 200."""
    return float(-special.ndtri(alpha) + special.ndtri(power)) * math.sqrt(variance / n)


def normal_n(variance: float, effect: float, *, alpha: float = ALPHA, power: float = POWER) -> int:
    """Return how many values show this effect with this power."""
    return max(1, math.ceil(variance * (normal_effect(1.0, 1.0, alpha=alpha, power=power) / effect) ** 2))


@lru_cache(maxsize=512)
def smallest_margin(n: int, noise: float, *, alpha: float = ALPHA, power: float = POWER) -> float:
    """Return the smallest margin that an unchanged candidate passes with this power, 1 where there is none below."""
    if n > _EXACT_UP_TO:
        return max(normal_effect(noise, n, alpha=alpha, power=power), -math.expm1(math.log(alpha) / n))
    return _least(lambda margin: pass_probability(n, noise / 2, noise / 2, margin, alpha=alpha) >= power, n)


@lru_cache(maxsize=512)
def smallest_regression(n: int, noise: float, *, alpha: float = ALPHA, power: float = POWER) -> float:
    """Return the smallest regression that is proved with this power, 1 where there is none below.

    The cases that got worse come on top of the noise.
    """
    return _least(lambda loss: fail_probability(n, noise / 2 + loss, noise / 2, alpha=alpha) >= power, n)


@lru_cache(maxsize=512)
def n_needed(margin: float, noise: float, *, alpha: float = ALPHA, power: float = POWER) -> int:
    """Return the fewest cases at which an unchanged candidate passes this margin with this power."""
    low, high = n_unchanged(margin, alpha=alpha) - 1, normal_n(noise, margin, alpha=alpha, power=power)
    if high > _EXACT_UP_TO:
        return high
    high = max(high, low + 1)
    while pass_probability(high, noise / 2, noise / 2, margin, alpha=alpha) < power:
        low, high = high, math.ceil(high * 1.25) + 1
    while high - low > max(1, high // 200):
        middle = (low + high) // 2
        if pass_probability(middle, noise / 2, noise / 2, margin, alpha=alpha) >= power:
            high = middle
        else:
            low = middle
    return high


def fail_probability(n: int, loss: float, gain: float, *, alpha: float = ALPHA) -> float:
    """Return how often n cases prove a regression, at these shares of cases lost and gained.

    Exact: exact McNemar summed over the number of cases that change.
    """
    changing = min(1.0, loss + gain)
    if changing <= 0:
        return 0.0
    counts = _likely(n, changing)
    fewest = _fewest_losses(counts, alpha)
    seen = np.where(fewest <= counts, _tail(np.minimum(fewest, counts), counts, 1 - gain / changing), 0.0)
    return float(_masses(counts, n, changing) @ seen)


def pass_probability(n: int, loss: float, gain: float, margin: float, *, alpha: float = ALPHA) -> float:
    """Return how often n cases exclude a margin, at these shares of cases lost and gained.

    Exact: for each number of losses, the fewest gains that exclude it.
    """
    losses = _likely(n, loss)
    fewest = _fewest_gains(losses, n, margin, alpha)
    losses = losses[: fewest.size]
    enough = _tail(fewest, n - losses, min(1.0, gain / (1 - loss)))
    return float(_masses(losses, n, loss) @ enough)


def _fewest_losses(changed: Codes, alpha: float) -> Codes:
    """Return the fewest losses among so many changed cases that prove a regression; changed + 1 where none do."""
    middle = changed / 2 - special.ndtri(alpha) * np.sqrt(changed) / 2
    fewest: Codes = np.clip(middle.astype(np.intp), 0, changed + 1)
    while (is_few := (fewest <= changed) & (_tail(np.minimum(fewest, changed), changed) > alpha)).any():
        fewest += is_few
    while (is_many := (fewest > 0) & (_tail(np.maximum(fewest - 1, 0), changed) <= alpha)).any():
        fewest -= is_many
    return fewest


def _fewest_gains(losses: Codes, n: int, margin: float, alpha: float) -> Codes:
    """Return the fewest gains that exclude a margin, for each number of losses as long as there are any."""
    found: list[int] = []
    gains = 0
    for lost in losses.tolist():
        while lost + gains <= n and paired_binary_probability(lost, gains, n, margin) > alpha:
            gains += 1
        if lost + gains > n:
            break
        found.append(gains)
    return np.array(found, dtype=np.intp)


def _likely(n: int, share: float) -> Codes:
    """Return the counts that a binomial takes, all but a negligible rest."""
    if share <= 0:
        return np.zeros(1, dtype=np.intp)
    counts = np.arange(n + 1)
    below, beyond = special.bdtr(counts, n, min(share, 1.0)), special.bdtrc(counts, n, min(share, 1.0))
    likely: Codes = counts[(below >= _NEGLIGIBLE) & (np.append(1.0, beyond[:-1]) >= _NEGLIGIBLE)]
    return likely


def _masses(counts: Codes, n: int, share: float) -> Floats:
    log_choices = special.gammaln(n + 1) - special.gammaln(counts + 1) - special.gammaln(n - counts + 1)
    return np.asarray(
        np.exp(log_choices + special.xlogy(counts, share) + special.xlog1py(n - counts, -min(share, 1.0)))
    )


def _tail(at_least: Codes, n: Codes, share: float = 0.5) -> Floats:
    """Return P(Bin(n, share) >= at_least), elementwise."""
    return np.asarray(np.where(at_least <= 0, 1.0, special.bdtrc(np.maximum(at_least, 1) - 1, n, share)))


def _least(is_enough: Callable[[float], bool], n: int) -> float:
    """Return where a claim starts to hold that holds at all larger values, 1 where it never does below 1."""
    low, high = 0.0, min(0.999, 8 / math.sqrt(n))
    while not is_enough(high):
        if high >= 0.999:
            return 1.0
        low, high = high, min(0.999, 2 * high)
    while high - low > 1e-4 * min(1.0, 20 * high):
        middle = (low + high) / 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high
