"""How a planned number of looks shares one alpha: the nominal level of each look.

The largest n is known beforehand - it always is for a dataset - and so looking costs a few percent of power only. What
is tested at a look is left to `looks`.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy import special

from llmops.stats.arrays import Floats, legendre

GAMMA = -2.0
"""Spends 13 % of alpha on the first half of the cases, in the manner of O'Brien and Fleming."""
_N_NODES = 96
# In standard deviations: what lies further out weighs less than 1e-18.
_FAR = 9.0
_HALVINGS = 64
# As a share of all cases: the nodes would not tell looks nearer to each other apart.
_CLOSEST = 0.01


def spent(fraction: float, alpha: float) -> float:
    """Return how much of alpha may be spent once this fraction of all cases is done, 0 to alpha.

    Raises ValueError when the fraction is outside [0, 1] or alpha outside (0, 1).

    Hwang, Shih and DeCani (1990), gamma = -2.
    """
    if not (0 <= fraction <= 1 and 0 < alpha < 1):
        raise ValueError(f"a fraction is from 0 to 1 and alpha within, not {fraction} and {alpha}")
    return alpha * math.expm1(-GAMMA * fraction) / math.expm1(-GAMMA)


@lru_cache(maxsize=256)
def nominal_levels(fractions: tuple[float, ...], alpha: float, *, strict: bool = False) -> tuple[float, ...]:
    """Return the one-sided level of each look, so that over all looks together alpha is kept.

    fractions: of all cases, at each look, rising, the last at most 1. A look's level depends on the looks before
    it only, so uneven ones use the fractions they came to.
    strict: the plain increments of the spending, kept by the union bound without any normal approximation.

    Raises ValueError when the fractions do not rise within (0, 1].

    Lan and DeMets (1983); recursive integration: Armitage, McPherson, Rowe (1969), here by Gauss and Legendre.
    """
    if not fractions or np.diff([0.0, *fractions]).min() <= 0:
        raise ValueError(f"fractions of all cases must rise from above 0, not {fractions}")
    increments = np.diff([0.0, *(spent(fraction, alpha) for fraction in fractions)])
    if strict:
        return tuple(increments.tolist())
    levels = []
    before, points, masses = 0.0, np.zeros(1), np.ones(1)
    for fraction, increment in zip(fractions, increments, strict=True):
        if fraction - before < _CLOSEST:  # the union bound: what this look stops is not taken off later ones
            levels.append(float(increment))
            continue
        step = math.sqrt(fraction - before)
        bound = _crossing(points, masses, step, float(increment))
        levels.append(float(special.ndtr(-bound / math.sqrt(fraction))))
        points, masses = _below(bound, points, masses, step, -_FAR * math.sqrt(fraction))
        before = fraction
    return tuple(levels)


def _crossing(points: Floats, masses: Floats, step: float, increment: float) -> float:
    """Return the bound that a walk, now at the points, is beyond one step later with this probability."""
    low, high = points.min() - _FAR * step, points.max() + _FAR * step
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if masses @ special.ndtr((points - middle) / step) > increment:
            low = middle
        else:
            high = middle
    return float(high)


def _below(bound: float, points: Floats, masses: Floats, step: float, bottom: float) -> tuple[Floats, Floats]:
    """Return where a walk that did not cross the bound is one step later, as points and their masses."""
    half = (bound - bottom) / 2
    nodes, node_weights = legendre(_N_NODES)
    later = bottom + half * (nodes + 1)
    density = np.exp(-(((later[:, np.newaxis] - points) / step) ** 2) / 2) / (step * math.sqrt(2 * math.pi))
    return later, np.asarray((density @ masses) * node_weights * half)
