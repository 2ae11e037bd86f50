"""The tests behind one metric: p-values of both sides, and the interval whose ends agree with them.

Each takes what `contrast` made of the pairs; which of them may decide, and what missing scores do to them, is left to
`noninferiority`.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import special

from llmops.stats.arrays import Floats
from llmops.stats.betting import betting_lower_bound, betting_p
from llmops.stats.clusters import clustered_mean
from llmops.stats.contrast import Contrast, gain_of
from llmops.stats.dirichlet import probability_at_most
from llmops.stats.intervals import mean_interval, mean_interval_unbounded
from llmops.stats.outcome import Method, Rule
from llmops.stats.runs import Runs, are_balanced, relabelling_p
from llmops.stats.score_test import score_lower_bound, score_p
from llmops.stats.sign_flips import sign_flip_p

Ends = tuple[float, float]


def p_pass(contrast: Contrast, rule: Rule) -> float:
    """Return the one-sided p-value that a regression beyond the margin is excluded.

    With clusters two keys must turn: the first guards against failures unseen, the second against cases that fail
    together; it is the larger of both.
    """
    if contrast.worst is None:
        return _robust_key(contrast)
    first = _bounded_key(contrast, contrast.worst, rule)
    return first if contrast.codes is None else max(first, _robust_key(contrast))


def p_worse(contrast: Contrast, rule: Rule) -> float:
    """Return the one-sided p-value that the candidate is worse, exact when it is not, with equally many runs."""
    return sign_flip_p(contrast.gain, clusters=contrast.codes, resamples=rule.resamples, seed=rule.seed)


def p_relabelled(runs: tuple[Runs, Runs], n: int, rule: Rule) -> float:
    """The p-value that the candidate is worse when each case's runs could be anybody's, 0 where signs say it all."""
    if are_balanced(*runs, n):
        return 0.0

    def gain(before: Floats, after: Floats) -> Floats:
        return gain_of(before, after, rule)

    return relabelling_p(*runs, n, gain, resamples=rule.resamples, seed=rule.seed)


def _bounded_key(contrast: Contrast, worst: float, rule: Rule) -> float:
    method = method_for(contrast, rule)
    if method == "exact" or rule.reach is None:
        return probability_at_most(contrast.tested, worst, -contrast.margin)
    if method == "score":
        return score_p(*_flips(contrast.gain), contrast.gain.size, rule.margin / rule.reach)
    return betting_p(contrast.gain / rule.reach, rule.margin / rule.reach, seed=rule.seed)


def _robust_key(contrast: Contrast) -> float:
    """The cluster-robust t test of a mean above -margin, 1 without two clusters."""
    found = clustered_mean(contrast.tested, contrast.codes)
    if found is None:
        return 1.0
    above = found.mean + contrast.margin
    if found.variance <= 0:
        return float(above <= 0)
    return float(special.stdtr(found.df, -above / math.sqrt(found.variance)))


def gain_interval(contrast: Contrast, rule: Rule) -> Ends | None:
    """Return the interval of the mean gain, higher is better; None where there are too few cases or clusters.

    Its ends clear -margin and 0 when the tests do, a relative margin aside.
    """
    gain, level = contrast.gain, 1 - 2 * rule.alpha
    robust = None
    if contrast.codes is not None or rule.is_open:
        robust = mean_interval_unbounded(gain, level=level, clusters=contrast.codes)
    if rule.is_open or rule.reach is None:
        return robust
    if method_for(contrast, rule) == "exact":
        least = -rule.reach if rule.worst is None else -rule.worst
        return mean_interval(gain, low=least, high=rule.reach, level=level, clusters=contrast.codes)
    reach = rule.reach
    low, high = (
        reach * _lower_bound(gain / reach, contrast, rule),
        -reach * _lower_bound(-gain / reach, contrast, rule),
    )
    if contrast.codes is None:
        return low, high
    return (-reach, reach) if robust is None else (min(low, robust[0]), max(high, robust[1]))


def _lower_bound(gain: Floats, contrast: Contrast, rule: Rule) -> float:
    """Return the one-sided bound of a mean gain, a share of the range, by a method that is not the exact one."""
    if method_for(contrast, rule) == "score":
        return score_lower_bound(*_flips(gain), gain.size, rule.alpha)
    return betting_lower_bound(gain, rule.margin / (rule.reach or 1.0), rule.alpha, seed=rule.seed)


def n_effective(contrast: Contrast) -> float:
    """Return how many independent cases would leave the mean as uncertain as it is, n at most."""
    n = contrast.gain.size
    found = clustered_mean(contrast.gain, contrast.codes)
    if contrast.codes is None:
        return float(n)
    if found is None or found.variance <= 0:
        return float(np.unique(contrast.codes).size)
    return min(float(n), max(1.0, float(contrast.gain.var(ddof=1)) / found.variance))


def method_for(contrast: Contrast, rule: Rule) -> Method:
    """Return the method asked for, or the exact one where the score test asks for 0/1 scores, each case its own."""
    if rule.method != "score" or rule.reach is None:
        return rule.method
    is_binary = np.isin(np.abs(contrast.gain), (0.0, rule.reach)).all()
    return "score" if is_binary and contrast.codes is None else "exact"


def _flips(gain: Floats) -> tuple[int, int]:
    return int((gain < 0).sum()), int((gain > 0).sum())
