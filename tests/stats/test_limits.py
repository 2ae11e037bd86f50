"""One side alone against a limit: Clopper and Pearson, clusters, missing scores, quantiles."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from llmops.stats.limits import Limit, judge_limit, judge_quantile_limit, quantile_interval
from llmops.stats.outcome import Reason

LAW = settings(deadline=None, max_examples=50)
SCORES = st.lists(st.floats(0, 1) | st.sampled_from([0.0, 0.5, 1.0]), min_size=2, max_size=40)
FLOOR = Limit(0.95, "at_least", 0.0, 1.0)


def passed(n_passed: int, n: int) -> list[float]:
    return [1.0] * n_passed + [0.0] * (n - n_passed)


@pytest.mark.parametrize(
    ("n_passed", "n", "verdict"),
    [
        (200, 200, "pass"),
        (195, 200, "inconclusive"),
        (170, 200, "fail"),
        (58, 58, "inconclusive"),
        (59, 59, "pass"),
    ],
)
def test_a_floor_is_judged_as_clopper_and_pearson_do(n_passed: int, n: int, verdict: str) -> None:
    outcome = judge_limit(passed(n_passed, n), FLOOR)
    ends = stats.binomtest(n_passed, n).proportion_ci(confidence_level=0.9, method="exact")
    assert outcome.interval == pytest.approx((ends.low, ends.high))
    assert outcome.verdict == verdict
    assert (outcome.p_pass <= 0.05) == (ends.low >= 0.95)
    assert (outcome.p_worse <= 0.05) == (ends.high <= 0.95)


@LAW
@given(SCORES, st.floats(0.05, 0.95))
def test_a_ceiling_is_a_floor_seen_from_above(scores: list[float], at: float) -> None:
    floor = judge_limit(scores, Limit(at, "at_least", 0.0, 1.0))
    ceiling = judge_limit([1 - score for score in scores], Limit(1 - at, "at_most", 0.0, 1.0))
    assert ceiling.verdict == floor.verdict
    assert (ceiling.p_pass, ceiling.p_worse) == pytest.approx((floor.p_pass, floor.p_worse), abs=1e-6)
    assert floor.interval is not None
    assert ceiling.interval == pytest.approx((1 - floor.interval[1], 1 - floor.interval[0]), abs=1e-9)


@LAW
@given(SCORES)
def test_a_lower_floor_never_turns_a_pass_into_a_fail(scores: list[float]) -> None:
    order = ["pass", "inconclusive", "fail"]
    found = [judge_limit(scores, Limit(at, "at_least", 0.0, 1.0)).verdict for at in (0.1, 0.3, 0.6, 0.9)]
    assert [order.index(verdict) for verdict in found] == sorted(order.index(verdict) for verdict in found)


def test_missing_scores_may_leave_open_what_the_others_decide() -> None:
    sure = judge_limit([*passed(300, 300), math.nan], FLOOR)
    assert (sure.verdict, sure.n, sure.n_missing) == ("pass", 300, 1)
    shaken = judge_limit([*passed(59, 59), math.nan], FLOOR)
    assert (shaken.verdict, shaken.reason) == ("inconclusive", Reason.OVERTURNED)
    assert shaken.p_pass <= 0.05 < shaken.guarded_pass
    many = judge_limit([*passed(300, 300), *[math.nan] * 20], FLOOR)
    assert (many.verdict, many.reason) == ("inconclusive", Reason.TOO_MANY_MISSING)


def test_a_broken_floor_survives_the_best_of_the_missing() -> None:
    assert judge_limit([*passed(170, 199), math.nan], FLOOR).verdict == "fail"


def test_clusters_need_to_be_enough_of_them() -> None:
    scores = passed(400, 400)
    assert judge_limit(scores, FLOOR, clusters=np.arange(400) // 10).verdict == "pass"
    few = judge_limit(scores, FLOOR, clusters=np.arange(400) // 80)
    assert (few.verdict, few.reason, few.n_clusters) == ("inconclusive", Reason.FEW_CLUSTERS, 5)


def test_cases_that_fail_together_prove_less() -> None:
    scores = passed(380, 400)
    limit = Limit(0.92, "at_least", 0.0, 1.0)
    alone, together = (judge_limit(scores, limit, clusters=c) for c in (None, np.arange(400) // 20))
    assert alone.verdict == "pass"
    assert together.verdict == "inconclusive"
    assert together.method == "exact + cluster-robust t"


def test_an_open_metric_is_judged_by_student() -> None:
    seconds = np.random.default_rng(1).exponential(1.0, 200)
    expected = stats.ttest_1samp(seconds, 1.3, alternative="less").pvalue
    outcome = judge_limit(seconds, Limit(1.3, "at_most"))
    assert outcome.p_pass == pytest.approx(expected)
    assert outcome.verdict == "pass"
    assert judge_limit(seconds[:19], Limit(9.0, "at_most")).reason == Reason.FEW_CASES


def test_a_quantile_is_kept_when_few_enough_lie_beyond() -> None:
    seconds = np.random.default_rng(2).exponential(1.0, 400)
    limit = -math.log(0.05)
    assert judge_quantile_limit(seconds, 0.95, Limit(1.5 * limit, "at_most")).verdict == "pass"
    near = float(np.quantile(seconds, 0.95))
    assert judge_quantile_limit(seconds, 0.95, Limit(near, "at_most")).verdict == "inconclusive"
    broken = judge_quantile_limit(seconds, 0.95, Limit(0.5 * limit, "at_most"))
    assert broken.verdict == "fail"
    beyond = int((seconds > 0.5 * limit).sum())
    assert broken.p_worse == pytest.approx(stats.binomtest(beyond, 400, 0.05, alternative="greater").pvalue)


def test_the_interval_of_a_quantile_covers_it() -> None:
    rng = np.random.default_rng(3)
    truth, reps = -math.log(0.05), 400
    found = [quantile_interval(rng.exponential(1.0, 250), 0.95, level=0.9) for _ in range(reps)]
    covered = np.mean([low <= truth <= high for low, high in filter(None, found)])
    assert covered >= 0.9 - 3 * math.sqrt(0.09 / reps)
    assert quantile_interval(rng.random(199), 0.95, level=0.9) is None


@pytest.mark.parametrize(
    ("scores", "reason"), [([], Reason.NO_CASES), ([1.0], Reason.ONE_CASE), ([math.nan], Reason.NO_CASES)]
)
def test_too_little_says_nothing(scores: list[float], reason: Reason) -> None:
    outcome = judge_limit(scores, Limit(0.01, "at_least", 0.0, 1.0, max_missing=1.0))
    assert (outcome.verdict, outcome.reason) == ("inconclusive", reason)


def test_refuses_what_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="outside"):
        judge_limit([0.5, 1.5], FLOOR)
    with pytest.raises(ValueError, match="infinite"):
        judge_limit([0.5, math.inf], FLOOR)
    with pytest.raises(ValueError, match="at_least"):
        judge_quantile_limit([1.0, 2.0], 0.95, FLOOR)
    with pytest.raises(ValueError, match="finite"):
        Limit(math.nan, "at_least")
    with pytest.raises(ValueError, match="q and level"):
        quantile_interval([1.0], 1.5, level=0.9)
