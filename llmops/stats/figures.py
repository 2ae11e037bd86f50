"""Figures of all cases together (macro F1, corpus BLEU) under a gate that asks for `method: bootstrap`.

Approximate, and said so: the bootstrap has no guard against failures unseen, so it decides from 50 cases on only.
"""

from __future__ import annotations

from dataclasses import dataclass

from llmops.stats.arrays import Clusters, cluster_codes
from llmops.stats.bca import Resampled, resampled
from llmops.stats.bootstrap import Statistic
from llmops.stats.clusters import effective_clusters
from llmops.stats.outcome import MAX_MISSING, MIN_CLUSTERS, Outcome, Reason, Verdict
from llmops.stats.power import ALPHA

MIN_BOOTSTRAP_CASES = 50


@dataclass(frozen=True, slots=True)
class FigureRule:
    """What a gate asks of a figure: that it lies above `above`; it is broken for certain below `worse`.

    For a margin the figure is candidate less baseline, higher is better: above -margin, worse below 0. For a limit
    both are the limit. A figure of which lower is better is turned by those who call.
    """

    above: float
    worse: float
    alpha: float = ALPHA
    max_missing: float = MAX_MISSING
    min_clusters: float = MIN_CLUSTERS
    seed: int = 0


def judge_figure(
    statistic: Statistic, n: int, rule: FigureRule, *, n_missing: int = 0, clusters: Clusters | None = None
) -> Outcome:
    """Return what a figure of n cases says under a rule.

    statistic: from weights, shape (rows, n), to one figure a row; see `bootstrap`. clusters: one label a case.
    n_missing: cases left out. Nobody can say what they would do to such a figure, so any of them leaves it open.

    Raises ValueError when a figure is not finite, or there is not one label a case.

    BCa: Efron (1987).
    """
    if n == 0:
        return _answer(rule, None, n_missing, Reason.NO_CASES)
    codes = cluster_codes(clusters, n)
    n_clusters = int(codes.max()) + 1
    worth = effective_clusters(codes) if n_clusters < n else None
    return _answer(
        rule,
        resampled(statistic, n, seed=rule.seed, clusters=clusters),
        n_missing,
        _obstacle(rule, n, n_missing, worth),
        n=n,
        n_clusters=n_clusters if n_clusters < n else None,
        effective_clusters=worth,
    )


def _obstacle(rule: FigureRule, n: int, n_missing: int, worth: float | None) -> Reason | None:
    if n_missing > rule.max_missing * (n + n_missing):
        return Reason.TOO_MANY_MISSING
    if n < MIN_BOOTSTRAP_CASES:
        return Reason.FEW_CASES
    if worth is not None and worth < rule.min_clusters - 1e-9:
        return Reason.FEW_CLUSTERS
    return Reason.OVERTURNED if n_missing else None


def _answer(
    rule: FigureRule,
    found: Resampled | None,
    n_missing: int,
    obstacle: Reason | None,
    *,
    n: int = 0,
    n_clusters: int | None = None,
    effective_clusters: float | None = None,
) -> Outcome:
    seen = (1.0, 1.0) if found is None else (found.p_above(rule.above), found.p_below(rule.worse))
    guarded = seen if obstacle is None else (1.0, 1.0)
    is_limit = rule.above == rule.worse
    verdict: Verdict = "inconclusive"
    reason = obstacle or (Reason.LIMIT_OPEN if is_limit else Reason.NEITHER)
    if guarded[0] <= rule.alpha:
        verdict, reason = "pass", Reason.LIMIT_KEPT if is_limit else Reason.EXCLUDED
    elif guarded[1] <= rule.alpha:
        verdict, reason = "fail", Reason.LIMIT_BROKEN if is_limit else Reason.PROVED
    return Outcome(
        verdict=verdict,
        reason=reason,
        n=n,
        n_missing=n_missing,
        n_clusters=n_clusters,
        effective_clusters=effective_clusters,
        estimate=None if found is None else found.estimate,
        interval=None if found is None else found.interval(1 - 2 * rule.alpha),
        p_pass=seen[0],
        p_worse=seen[1],
        guarded_pass=guarded[0],
        guarded_worse=guarded[1],
        alpha=rule.alpha,
        method="bootstrap (approximate)",
    )
