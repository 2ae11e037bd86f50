"""Figures of all cases together under a gate: macro F1 of two classifiers, from 50 cases on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from llmops.stats.bootstrap import Statistic, macro_f1
from llmops.stats.figures import FigureRule, judge_figure
from llmops.stats.outcome import Reason

Codes = npt.NDArray[np.intp]
MARGIN = FigureRule(above=-0.05, worse=0.0, seed=1)


def f1_change(n: int, *, before: float, after: float, seed: int = 1) -> Statistic:
    """Macro F1, candidate less baseline, of two classifiers of these accuracies."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, n)
    guessed = [np.where(rng.random(n) < share, truth, (truth + 1) % 3) for share in (before, after)]

    def statistic(weights: Codes) -> npt.NDArray[np.float64]:
        return macro_f1(truth, guessed[1], 3, weights) - macro_f1(truth, guessed[0], 3, weights)

    return statistic


@pytest.mark.parametrize(
    ("before", "after", "verdict", "reason"),
    [
        (0.97, 0.98, "pass", Reason.EXCLUDED),
        (0.95, 0.70, "fail", Reason.PROVED),
        (0.80, 0.80, "inconclusive", Reason.NEITHER),
    ],
)
def test_three_verdicts(before: float, after: float, verdict: str, reason: Reason) -> None:
    outcome = judge_figure(f1_change(300, before=before, after=after), 300, MARGIN)
    assert (outcome.verdict, outcome.reason, outcome.n) == (verdict, reason, 300)
    assert outcome.interval is not None
    assert (outcome.interval[0] >= -0.05) == (verdict == "pass")
    assert (outcome.interval[1] < 0) == (verdict == "fail")
    assert "approximate" in outcome.method


def test_a_limit_is_kept_or_broken() -> None:
    statistic = f1_change(300, before=0.95, after=0.70)
    for at, verdict, reason in ((-0.5, "pass", Reason.LIMIT_KEPT), (-0.05, "fail", Reason.LIMIT_BROKEN)):
        outcome = judge_figure(statistic, 300, FigureRule(at, at))
        assert (outcome.verdict, outcome.reason) == (verdict, reason)


def test_too_few_cases_or_clusters_or_any_gap_leave_it_open() -> None:
    statistic = f1_change(300, before=0.97, after=0.98)
    few = judge_figure(f1_change(49, before=0.9, after=0.99), 49, MARGIN)
    assert (few.verdict, few.reason) == ("inconclusive", Reason.FEW_CASES)
    clustered = judge_figure(statistic, 300, MARGIN, clusters=np.arange(300) // 60)
    assert (clustered.reason, clustered.n_clusters) == (Reason.FEW_CLUSTERS, 5)
    assert judge_figure(statistic, 300, MARGIN, clusters=np.arange(300) // 10).verdict == "pass"
    for n_missing, reason in ((1, Reason.OVERTURNED), (30, Reason.TOO_MANY_MISSING)):
        found = judge_figure(statistic, 300, MARGIN, n_missing=n_missing)
        assert (found.verdict, found.reason, found.n_missing) == ("inconclusive", reason, n_missing)
    assert judge_figure(statistic, 0, MARGIN).reason == Reason.NO_CASES
