"""A gate that looks several times on the way to the whole dataset, and stops as soon as the answer is sure.

At each look the fixed-n tests are used at that look's share of alpha. A regression that is proved is remembered for
good, but stops the gate only when a later PASS is unlikely: stopping at the first proof would turn tolerable changes
into FAILs. Giving up early for lack of hope binds nobody, so the error rates do not depend on it.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import special

from llmops.stats.arrays import Clusters, Codes, cluster_codes
from llmops.stats.clusters import clustered_mean
from llmops.stats.contrast import Contrast, Pairs, contrast_of
from llmops.stats.decision import verdict_of
from llmops.stats.noninferiority import judge_pairs
from llmops.stats.outcome import Outcome, PairedOutcome, Reason, Rule, Verdict
from llmops.stats.runs import Runs
from llmops.stats.spending import nominal_levels

MANY_LOOKS, SOME_LOOKS = 10, 5
MANY_LOOKS_FROM, LOOKS_FROM = 500, 150
"""Cases from which on a sequential gate looks ten times, and at all more than once."""
PATIENCE = 0.10
"""A proved regression stops the gate when a later PASS is less probable than this."""
HOPELESS = 0.05
"""The gate gives up when a later PASS and a later FAIL are both less probable than this."""


@dataclass(frozen=True, slots=True)
class Look:
    """One look at one metric: its outcome at the level of this look, and what the looks to come may bring.

    alpha: of all looks together. fraction: of all cases, done so far; fractions: of this look and those before it.
    number: of planned looks, from 1.
    p_later_pass, p_later_fail: predictive probabilities that the last look passes, or proves a regression; 1 where
    nobody can tell, as of limits.
    """

    outcome: Outcome
    alpha: float
    number: int
    n_looks: int
    fractions: tuple[float, ...]
    is_last: bool
    strict: bool
    p_later_pass: float
    p_later_fail: float

    @property
    def fraction(self) -> float:
        """The share of all cases that is done."""
        return self.fractions[-1]

    @property
    def n_needed(self) -> int | None:
        """How many cases would let an unchanged candidate pass, four times in five, in one look at all of them."""
        if not isinstance(self.outcome, PairedOutcome):
            return None
        return replace(self.outcome, alpha=self.alpha).n_needed


@dataclass(frozen=True, slots=True)
class Stop:
    """What the looks so far add up to over all blocking metrics. verdict: None to go on.

    is_futile: given up early, because neither a PASS nor a FAIL was to be hoped for.
    """

    verdict: Verdict | None
    failed: tuple[str, ...] = ()
    unproved: tuple[str, ...] = ()
    is_futile: bool = False


def planned_looks(n: int) -> tuple[int, ...]:
    """Return after how many of n cases to look, rising to n: once below 150, 5 times below 500, else 10 times."""
    k = 1 if n < LOOKS_FROM else SOME_LOOKS if n < MANY_LOOKS_FROM else MANY_LOOKS
    return tuple(math.ceil(n * look / k) for look in range(1, k + 1))


def look_order(
    n: int,
    *,
    seed: int | Sequence[int],
    strata: Sequence[Hashable] | None = None,
    clusters: Clusters | None = None,
) -> Codes:
    """Return an order of n cases in which every look is a fair miniature of the whole, shape (n,).

    seed: of (dataset version, commit), so that nobody chooses which cases come first. strata: one tag a case, spread
    evenly; clusters: one label a case, they stay together (and count for the stratum of their first case).

    Raises ValueError when there is not one label a case.
    """
    codes = cluster_codes(clusters, n)
    tags = np.zeros(n, dtype=np.intp) if strata is None else cluster_codes(list(strata), n)
    first = np.unique(codes, return_index=True)[1]
    rng = np.random.default_rng(seed)
    places = np.empty(first.size)
    for tag in np.unique(tags[first]):
        own = np.flatnonzero(tags[first] == tag)
        # One unit in each of as many equal steps as there are units, at a random point of its step.
        places[own] = (rng.permutation(own.size) + rng.random(own.size)) / own.size
    return np.lexsort((np.arange(n), codes, places[codes]))


def judge_look(
    baseline: npt.ArrayLike,
    candidate: npt.ArrayLike,
    rule: Rule,
    *,
    n_total: int,
    previous: Sequence[Look] = (),
    clusters: Clusters | None = None,
    runs: tuple[Runs, Runs] | None = None,
    strict: bool = False,
) -> Look:
    """Return one look at the cases done so far.

    baseline, candidate, clusters, runs: of the first cases in `look_order`, those of earlier looks included, as for
    `judge_pairs`.
    n_total: cases of the whole dataset; it must not change between looks. previous: the looks before, in order.
    strict: plain increments of the spending, no normal approximation; some 10 points less power.

    The outcome's interval has the level of this look (a repeated confidence interval).

    Raises ValueError as `judge_pairs` does, when there are more cases than the whole or no more than before, or when
    `strict` changed.

    Jennison and Turnbull (2000), chapters 7 and 9; levels: Hwang, Shih, DeCani (1990), see `spending`.
    """
    if any(look.strict != strict for look in previous):
        raise ValueError("the looks before were not of this kind: `strict` holds for all of them")
    pairs = Pairs.of(baseline, candidate, clusters)
    n = pairs.before.size
    if not 0 < n <= n_total:
        raise ValueError(f"a look at {n} of {n_total} cases")
    fractions = (*(previous[-1].fractions if previous else ()), n / n_total)
    to_come = tuple(done / n_total for done in planned_looks(n_total) if done > n)
    levels = nominal_levels((*fractions, *to_come), rule.alpha, strict=strict)
    now = replace(rule, alpha=levels[len(fractions) - 1])
    outcome = judge_pairs(baseline, candidate, now, clusters=clusters, runs=runs)
    is_last = n == n_total
    chances = (0.0, 0.0) if is_last or outcome.reason is Reason.NOT_POSITIVE else (1.0, 1.0)
    if not is_last and outcome.estimate is not None:
        chances = _later(contrast_of(pairs.known, rule), n_total, levels[-1])
    counts = len(fractions), len(fractions) + len(to_come)
    return Look(outcome, rule.alpha, *counts, fractions, is_last, strict, *chances)


def decide_looks(looks: Mapping[str, Sequence[Look]], *, alpha: float) -> Stop:
    """Return whether to stop, from all looks so far at each blocking metric, by name.

    alpha: of each error over all metrics and looks together. A metric that passed at an earlier look has passed. Which
    regressions are proved is Holm's step-down with the spending of what is left of alpha to each.

    Raises ValueError when there is no metric, or one was not looked at.

    Maurer and Bretz (2013) on Holm over looks.
    """
    if not looks or not all(looks.values()):
        raise ValueError("there is no look to decide on")
    passed = {name for name, seen in looks.items() if any(look.outcome.verdict == "pass" for look in seen)}
    proved = _proved(looks, alpha) - passed
    last = {name: seen[-1] for name, seen in looks.items()}
    unproved = tuple(name for name in looks if name not in passed and name not in proved)
    failed = tuple(name for name in looks if name in proved)
    if not failed and not unproved:
        return Stop("pass")
    if any(look.is_last for look in last.values()):
        return Stop(verdict_of(failed, unproved, has_any=True), failed, unproved)
    if any(last[name].p_later_pass < PATIENCE for name in failed):
        return Stop("fail", failed, unproved)
    is_blocked = any(last[name].p_later_pass < HOPELESS for name in unproved)
    if not failed and is_blocked and all(last[name].p_later_fail < HOPELESS for name in unproved):
        return Stop("inconclusive", (), unproved, is_futile=True)
    return Stop(None, failed, unproved)


def _proved(looks: Mapping[str, Sequence[Look]], alpha: float) -> set[str]:
    """Return the metrics of which some look proves a regression, by Holm's step-down over all of them."""
    proved: set[str] = set()
    while True:
        share = alpha / max(1, len(looks) - len(proved))
        found = {name for name, seen in looks.items() if name not in proved and _crosses(seen, share)}
        if not found:
            return proved
        proved |= found


def _crosses(seen: Sequence[Look], alpha: float) -> bool:
    levels = nominal_levels(seen[-1].fractions, alpha, strict=seen[-1].strict)
    return any(look.outcome.guarded_worse <= level for look, level in zip(seen, levels, strict=True))


def _later(contrast: Contrast, n_total: int, last_level: float) -> tuple[float, float]:
    """Return the predictive probabilities that the last look passes, and that it proves a regression."""
    z = -float(special.ndtri(last_level))
    return (
        _predictive(contrast.tested, contrast.margin, contrast.codes, n_total, z),
        _predictive(-contrast.gain, 0.0, contrast.codes, n_total, z),
    )


def _predictive(
    values: npt.NDArray[np.float64], margin: float, codes: Codes | None, n_total: int, z: float
) -> float:
    """Return the probability that the mean of all cases plus a margin will clear 0, given the first n of them.

    With clusters, the spread is that of the clustered mean. Where nothing shows a spread, the sign decides; where
    none can be known, all is to be hoped for.
    """
    n = values.size
    found = clustered_mean(values, codes)
    if found is None:
        return 1.0
    above = found.mean + margin
    spread = math.sqrt(found.variance * n)
    rest = max(0, n_total - n)
    if spread <= 0 or rest == 0:
        return float(above > 0)
    needed = z * spread / math.sqrt(n_total)
    return float(special.ndtr((above - needed) / (spread * math.sqrt(rest / (n_total * n)))))
