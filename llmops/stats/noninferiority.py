"""Prepared pairs and a margin -> one outcome: worse by no more than the margin, worse for certain, or neither.

Two hypotheses, each with its own error: PASS excludes a regression beyond the margin, FAIL proves a regression that is
not excluded to be beyond it. A small n shows as inconclusive, never as a wrong verdict. Pairing by case and averaging
repeats is left to those who call; several metrics and several looks to `decision` and `looks`.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from llmops.stats.arrays import Clusters, Codes, Floats
from llmops.stats.clusters import effective_clusters
from llmops.stats.contrast import Contrast, Pairs, contrast_of, refuse_beyond_worst
from llmops.stats.evidence import (
    Ends,
    gain_interval,
    method_for,
    n_effective,
    p_pass,
    p_relabelled,
    p_worse,
)
from llmops.stats.outcome import MIN_CASES, MIN_OPEN_CASES, PairedOutcome, Reason, Rule, Verdict
from llmops.stats.runs import Runs


def judge_pairs(
    baseline: npt.ArrayLike,
    candidate: npt.ArrayLike,
    rule: Rule,
    *,
    clusters: Clusters | None = None,
    runs: tuple[Runs, Runs] | None = None,
) -> PairedOutcome:
    """Return what n pairs of scores say about the candidate under a rule.

    baseline, candidate: one score a case, repeats (and the runs of a history) averaged, shape (n,), same cases in
    the same order; NaN where it is missing. An output that crashed has a score, the worst one: it is not missing.
    clusters: one label a case. runs: of baseline and candidate, what the scores are means of; needed where the sides
    have not equally many of them, as with a history: without them a FAIL is only about right.

    Raises ValueError when the shapes differ, or a score is infinite, outside the rule's range, or fell further than
    the rule's worst case.

    Margins: Piaggio et al. (2012). The tests and their sources: `evidence`.
    """
    pairs = Pairs.of(baseline, candidate, clusters)
    known = pairs.known
    refuse_beyond_worst(known, rule)
    obstacle = _obstacle(pairs, known, rule)
    if known.before.size == 0 or obstacle is Reason.NOT_POSITIVE:
        return _outcome(pairs, rule, None, None, (1.0, 1.0), (1.0, 1.0), obstacle)
    contrast = contrast_of(known, rule)
    if method_for(contrast, rule) != rule.method:
        obstacle = obstacle or Reason.NOT_FOR_METHOD
    worth = None if contrast.codes is None else effective_clusters(contrast.codes)
    dealt = 0.0 if runs is None else p_relabelled(runs, pairs.before.size, rule)
    seen = p_pass(contrast, rule), max(dealt, p_worse(contrast, rule))
    guarded = seen if obstacle is None else (1.0, 1.0)
    caution = _caution(contrast, worth, rule)
    if obstacle is None and known.before.size < pairs.before.size:
        guarded = _survived(pairs, rule, seen)
    if caution is not None:
        guarded = 1.0, guarded[1]
    return _outcome(pairs, rule, contrast, worth, seen, guarded, obstacle or caution)


def _survived(pairs: Pairs, rule: Rule, seen: Ends) -> Ends:
    """Return both p-values after what is missing turned out as badly for each as it can."""
    worst, best = (contrast_of(pairs.filled(rule, worst=is_worst), rule) for is_worst in (True, False))
    at_worst = max(seen[0], p_pass(worst, rule))
    # A FAIL says too that the margin is not kept: where it might be, the missing scores could overturn it.
    could_pass = min(seen[0], p_pass(best, rule)) <= rule.alpha
    return at_worst, 1.0 if could_pass else max(seen[1], p_worse(best, rule))


def _obstacle(pairs: Pairs, known: Pairs, rule: Rule) -> Reason | None:
    """Return what forbids any verdict but inconclusive."""
    n, n_all = known.before.size, pairs.before.size
    if n == 0:
        return Reason.NO_CASES
    if rule.scale == "ratio" and min(known.before.min(), known.after.min()) <= 0:
        return Reason.NOT_POSITIVE
    if n_all - n > rule.max_missing * n_all:
        return Reason.TOO_MANY_MISSING
    return Reason.ONE_CASE if n < MIN_CASES else None


def _caution(contrast: Contrast, worth: float | None, rule: Rule) -> Reason | None:
    """Return what forbids a PASS."""
    if worth is not None and worth < rule.min_clusters - 1e-9:
        return Reason.FEW_CLUSTERS
    is_few = contrast.worst is None and contrast.tested.size < MIN_OPEN_CASES
    return Reason.FEW_CASES if is_few else None


def _outcome(
    pairs: Pairs,
    rule: Rule,
    contrast: Contrast | None,
    worth: float | None,
    seen: Ends,
    guarded: Ends,
    hindrance: Reason | None,
) -> PairedOutcome:
    known = pairs.known
    n = known.before.size
    verdict, reason = _verdict(seen, guarded, rule.alpha, hindrance)
    before, after = (_mean(side, rule) for side in (known.before, known.after))
    gain = np.zeros(0) if contrast is None else contrast.gain
    improved, regressed = _changed(gain, np.flatnonzero(pairs.is_known), rule)
    return PairedOutcome(
        verdict=verdict,
        reason=reason,
        n=n,
        n_missing=pairs.before.size - n,
        n_clusters=None if worth is None else int(np.unique(known.codes).size),
        effective_clusters=worth,
        estimate=None if contrast is None else _shown(float(gain.mean()), rule),
        interval=None if contrast is None else _interval(contrast, rule),
        p_pass=seen[0],
        p_worse=seen[1],
        guarded_pass=guarded[0],
        guarded_worse=guarded[1],
        alpha=rule.alpha,
        method=_method(contrast, rule),
        rule=rule,
        baseline=before,
        candidate=after,
        margin=rule.margin * before if rule.relative and before is not None else rule.margin,
        improved=improved,
        regressed=regressed,
        noise=float(gain.var(ddof=1)) if n >= MIN_CASES and contrast is not None else 0.0,
        n_effective=float(n) if contrast is None else n_effective(contrast),
    )


def _verdict(seen: Ends, guarded: Ends, alpha: float, hindrance: Reason | None) -> tuple[Verdict, Reason]:
    if guarded[0] <= alpha:
        return "pass", Reason.EXCLUDED
    if guarded[1] <= alpha:
        return "fail", Reason.PROVED
    if hindrance not in {None, Reason.FEW_CLUSTERS, Reason.FEW_CASES}:
        return "inconclusive", hindrance
    if seen[0] <= alpha:
        return "inconclusive", hindrance or Reason.OVERTURNED
    return "inconclusive", Reason.OVERTURNED if seen[1] <= alpha else Reason.NEITHER


def _interval(contrast: Contrast, rule: Rule) -> Ends | None:
    """Return the interval of the estimate, as it is shown."""
    ends = gain_interval(contrast, rule)
    if ends is None:
        return None
    low, high = sorted(_shown(end, rule) for end in ends)
    return low, high


def _changed(gain: Floats, places: Codes, rule: Rule) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the places of the cases that got better and worse; of an open metric all would have."""
    if rule.is_open:
        return (), ()
    order = np.argsort(-np.abs(gain), kind="stable")
    better, worse = (places[order[sign * gain[order] > 0]].tolist() for sign in (1, -1))
    return tuple(better), tuple(worse)


def _method(contrast: Contrast | None, rule: Rule) -> str:
    if rule.is_open:
        return "cluster-robust t"
    method = rule.method if contrast is None else method_for(contrast, rule)
    return method if contrast is None or contrast.codes is None else f"{method} + cluster-robust t"


def _mean(values: Floats, rule: Rule) -> float | None:
    if values.size == 0 or (rule.scale == "ratio" and values.min() <= 0):
        return None
    return float(np.exp(np.log(values).mean()) if rule.scale == "ratio" else values.mean())


def _shown(gain: float, rule: Rule) -> float:
    """Return a gain as a reader wants it: candidate less baseline, or over it, whichever of both is better."""
    raw = (-gain if rule.lower_is_better else gain) + 0.0
    return math.exp(raw) if rule.scale == "ratio" else raw
