"""The verdict on one metric: two hypotheses, clusters, missing scores, ratios; by law and by simulation."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from llmops.stats.noninferiority import judge_pairs
from llmops.stats.outcome import Method, Reason, Rule
from llmops.stats.paired import paired_interval
from llmops.stats.score_test import score_p
from llmops.stats.sign_flips import mcnemar_p

Floats = npt.NDArray[np.float64]
LAW = settings(deadline=None, max_examples=50)
RULE = Rule(0.05, 0.0, 1.0, resamples=999)
SCORE = st.floats(0, 1) | st.sampled_from([0.0, 0.5, 1.0])
PAIRS = st.lists(st.tuples(SCORE, SCORE), min_size=2, max_size=30)
ORDER = ("fail", "inconclusive", "pass")


def sides(pairs: list[tuple[float, float]]) -> tuple[Floats, Floats]:
    before, after = np.array(pairs).T
    return before, after


def binary(n: int, losses: int, gains: int) -> tuple[Floats, Floats]:
    before, after = np.ones(n), np.ones(n)
    after[:losses] = 0
    before[losses : losses + gains] = 0
    return before, after


@pytest.mark.parametrize(
    ("n", "losses", "gains", "verdict", "reason"),
    [
        (200, 4, 5, "pass", Reason.EXCLUDED),
        (200, 30, 5, "fail", Reason.PROVED),
        (200, 12, 8, "inconclusive", Reason.NEITHER),
        (58, 0, 0, "inconclusive", Reason.NEITHER),
        (59, 0, 0, "pass", Reason.EXCLUDED),
        # A regression is proved, and one beyond the margin excluded: tolerable, so it passes.
        (2000, 60, 30, "pass", Reason.EXCLUDED),
    ],
)
def test_three_verdicts(n: int, losses: int, gains: int, verdict: str, reason: Reason) -> None:
    outcome = judge_pairs(*binary(n, losses, gains), RULE)
    assert (outcome.verdict, outcome.reason) == (verdict, reason)
    assert outcome.p_worse == mcnemar_p(losses, gains)
    assert outcome.estimate == pytest.approx((gains - losses) / n)
    assert (len(outcome.regressed), len(outcome.improved)) == (losses, gains)


@LAW
@given(PAIRS)
def test_swapping_the_sides_flips_the_effect(pairs: list[tuple[float, float]]) -> None:
    before, after = sides(pairs)
    straight, swapped = judge_pairs(before, after, RULE), judge_pairs(after, before, RULE)
    assert straight.interval is not None
    assert swapped.interval == (-straight.interval[1] + 0.0, -straight.interval[0] + 0.0)
    assert swapped.estimate == -(straight.estimate or 0.0)
    assert swapped.improved == straight.regressed


@LAW
@given(PAIRS)
def test_lower_is_better_is_the_same_gate_upside_down(pairs: list[tuple[float, float]]) -> None:
    before, after = sides(pairs)
    straight = judge_pairs(before, after, RULE)
    turned = judge_pairs(1 - before, 1 - after, replace(RULE, lower_is_better=True))
    assert turned.verdict == straight.verdict
    assert turned.p_pass == pytest.approx(straight.p_pass, abs=1e-6)
    assert turned.estimate == pytest.approx(-(straight.estimate or 0.0), abs=1e-12)
    assert turned.regressed == straight.regressed


@LAW
@given(PAIRS, st.integers(1, 6))
def test_a_wider_margin_never_turns_a_pass_into_anything_else(
    pairs: list[tuple[float, float]], n_clusters: int
) -> None:
    before, after = (np.tile(side, 12) for side in sides(pairs))
    for clusters in (None, np.arange(before.size) // n_clusters):
        verdicts = [
            judge_pairs(before, after, replace(RULE, margin=margin), clusters=clusters).verdict
            for margin in (0.01, 0.05, 0.2, 0.6)
        ]
        ranks = [ORDER.index(verdict) for verdict in verdicts]
        assert ranks == sorted(ranks)


@LAW
@given(PAIRS, st.integers(0, 2**32))
def test_order_of_cases_changes_no_number(pairs: list[tuple[float, float]], seed: int) -> None:
    before, after = sides(pairs)
    order = np.random.default_rng(seed).permutation(before.size)
    straight, shuffled = judge_pairs(before, after, RULE), judge_pairs(before[order], after[order], RULE)
    assert shuffled.verdict == straight.verdict
    assert (shuffled.p_pass, shuffled.p_worse) == pytest.approx((straight.p_pass, straight.p_worse))


@LAW
@given(PAIRS, st.sampled_from([None, 2, 5]), st.sampled_from([0.02, 0.1]))
def test_interval_and_verdict_agree(
    pairs: list[tuple[float, float]], size: int | None, margin: float
) -> None:
    before, after = (np.tile(side, 5) for side in sides(pairs))
    clusters = None if size is None else np.arange(before.size) // size
    outcome = judge_pairs(before, after, replace(RULE, margin=margin), clusters=clusters)
    assert outcome.interval == paired_interval(before, after, low=0, high=1, level=0.9, clusters=clusters)
    if abs(outcome.p_pass - 0.05) > 1e-6:
        assert (outcome.p_pass <= 0.05) == (outcome.interval[0] >= -margin)


@pytest.mark.parametrize("method", ["exact", "score", "betting"])
@pytest.mark.parametrize(("losses", "gains"), [(0, 0), (3, 5), (10, 2)])
def test_each_method_has_an_interval_that_agrees(method: Method, losses: int, gains: int) -> None:
    outcome = judge_pairs(*binary(300, losses, gains), replace(RULE, method=method))
    assert outcome.interval is not None
    assert (outcome.p_pass <= 0.05) == (outcome.interval[0] >= -0.05)
    assert outcome.method == method


def test_score_method_is_for_plain_0_1_scores_only() -> None:
    rule = replace(RULE, method="score")
    before, after = binary(300, 3, 5)
    assert judge_pairs(before, after, rule).p_pass == score_p(3, 5, 300, 0.05)
    graded = after.copy()
    graded[0] = 0.5
    for found in (
        judge_pairs(before, graded, rule),
        judge_pairs(before, after, rule, clusters=np.arange(300) // 2),
    ):
        assert (found.verdict, found.reason) == ("inconclusive", Reason.NOT_FOR_METHOD)
        assert found.method.startswith("exact")


def test_betting_and_clusters_go_together() -> None:
    before, after = binary(600, 2, 3)
    rule = replace(RULE, method="betting")
    alone, together = (judge_pairs(before, after, rule, clusters=c) for c in (None, np.arange(600) // 3))
    assert together.p_pass >= alone.p_pass
    assert together.method == "betting + cluster-robust t"
    assert together.interval is not None
    assert (together.p_pass <= 0.05) == (together.interval[0] >= -0.05)


def test_units_of_the_score_are_those_of_the_margin() -> None:
    before, after = binary(200, 12, 3)
    shares = judge_pairs(before, after, RULE)
    stars = judge_pairs(1 + 4 * before, 1 + 4 * after, Rule(0.2, 1.0, 5.0))
    assert stars.p_pass == pytest.approx(shares.p_pass)
    assert stars.interval == pytest.approx([4 * end for end in shares.interval or ()])
    assert stars.smallest_margin == pytest.approx(4 * (shares.smallest_margin or 0))
    assert stars.n_needed == shares.n_needed


def test_clusters_need_both_keys() -> None:
    rng = np.random.default_rng(1)
    clusters = np.repeat(np.arange(20), 20)
    effects = np.repeat(rng.choice([-0.15, 0.15], 20), 20)
    before = np.full(400, 0.5)
    after = np.clip(before + effects, 0, 1)
    alone, together = judge_pairs(before, after, RULE), judge_pairs(before, after, RULE, clusters=clusters)
    assert together.p_pass > alone.p_pass
    assert together.n_clusters == 20
    assert together.effective_clusters == pytest.approx(20)
    assert together.n_effective < 25 < alone.n_effective


def test_few_effective_clusters_never_pass() -> None:
    before = np.ones(400)
    for sizes, verdict in (
        ((50,) * 8, "pass"),
        ((57,) * 7, "inconclusive"),
        ((200, *(10,) * 20), "inconclusive"),
    ):
        clusters = np.repeat(np.arange(len(sizes)), sizes)
        outcome = judge_pairs(before[: clusters.size], before[: clusters.size], RULE, clusters=clusters)
        assert outcome.verdict == verdict
        assert outcome.reason == (Reason.EXCLUDED if verdict == "pass" else Reason.FEW_CLUSTERS)


def test_few_clusters_may_still_fail() -> None:
    clusters = np.repeat(np.arange(6), 30)
    outcome = judge_pairs(np.ones(180), np.full(180, 0.5), RULE, clusters=clusters)
    assert outcome.verdict == "fail"
    assert outcome.p_worse == pytest.approx(1 / 64)


def test_missing_scores_may_overturn_either_verdict() -> None:
    before, after = binary(62, 0, 0)
    lost = after.copy()
    lost[0] = math.nan
    passing = judge_pairs(before, lost, RULE)
    assert (passing.verdict, passing.reason, passing.n, passing.n_missing) == (
        "inconclusive",
        Reason.OVERTURNED,
        61,
        1,
    )
    assert passing.p_pass <= 0.05 < passing.guarded_pass
    before, after = binary(200, 12, 3)
    assert judge_pairs(before, after, RULE).verdict == "fail"
    before[100:106] = math.nan  # a baseline that might have failed six times
    failing = judge_pairs(before, after, RULE)
    assert (failing.verdict, failing.reason) == ("inconclusive", Reason.OVERTURNED)


def test_missing_scores_overturn_nothing_that_is_clear() -> None:
    before, after = binary(400, 1, 2)
    after[50:53] = math.nan
    assert judge_pairs(before, after, RULE).verdict == "pass"
    before, after = binary(400, 100, 2)
    before[150:153] = math.nan
    assert judge_pairs(before, after, RULE).verdict == "fail"
    before[:21] = math.nan
    assert judge_pairs(before, after, RULE).reason == Reason.TOO_MANY_MISSING


@LAW
@given(PAIRS, st.lists(st.integers(0, 29), max_size=2), st.booleans())
def test_what_passes_with_gaps_passes_however_they_are_filled(
    pairs: list[tuple[float, float]], gaps: list[int], is_low: bool
) -> None:
    before, after = (np.tile(side, 4) for side in sides(pairs))
    full = after.copy()
    for gap in gaps:
        after[gap % after.size], full[gap % after.size] = math.nan, 0.0 if is_low else 1.0
    verdict = judge_pairs(before, after, replace(RULE, margin=0.3, max_missing=1.0)).verdict
    if verdict != "inconclusive":
        assert judge_pairs(before, full, replace(RULE, margin=0.3)).verdict == verdict


def test_ratio_of_latencies_is_a_test_of_logs() -> None:
    rng = np.random.default_rng(2)
    before = rng.lognormal(0, 0.5, 150)
    after = before * rng.lognormal(0.02, 0.2, 150)
    rule = Rule(0.10, scale="ratio", lower_is_better=True)
    outcome = judge_pairs(before, after, rule)
    logs = np.log(after / before)
    assert outcome.p_pass == pytest.approx(stats.ttest_1samp(logs, math.log(1.1), alternative="less").pvalue)
    assert outcome.estimate == pytest.approx(stats.gmean(after) / stats.gmean(before))
    assert outcome.baseline == pytest.approx(stats.gmean(before))
    ends = stats.ttest_1samp(logs, 0).confidence_interval(0.9)
    assert outcome.interval == pytest.approx((math.exp(ends.low), math.exp(ends.high)))
    assert (outcome.verdict, outcome.improved, outcome.method) == ("pass", (), "cluster-robust t")
    slower = judge_pairs(before, 1.5 * after, rule)
    assert (slower.verdict, slower.regressed) == ("fail", ())
    assert slower.n_needed is not None
    assert slower.n_needed >= 20


def test_ratio_needs_values_above_0_and_enough_of_them() -> None:
    rule = Rule(0.10, scale="ratio", lower_is_better=True)
    assert judge_pairs(np.ones(30), np.zeros(30), rule).reason == Reason.NOT_POSITIVE
    assert judge_pairs(np.ones(19), np.ones(19), rule).reason == Reason.FEW_CASES
    assert judge_pairs(np.ones(20), np.ones(20), rule).verdict == "pass"


def test_a_relative_margin_is_a_share_of_the_baseline() -> None:
    before, after = np.full(300, 0.5), np.full(300, 0.5)
    after[:10] = 0.0
    outcome = judge_pairs(before, after, Rule(0.10, 0.0, 1.0, relative=True))
    assert outcome.margin == pytest.approx(0.05)
    # One number a pair, 0.9 of the baseline taken off, against 0: nothing is estimated on the way.
    shifted = judge_pairs(np.zeros(300), after - 0.9 * before, Rule(1e-9, -0.9, 1.0))
    assert outcome.p_pass < 0.05
    assert shifted.estimate == pytest.approx((outcome.estimate or 0) + outcome.margin)
    cost = judge_pairs(1 - before, 1 - after, Rule(0.10, 0.0, 1.0, relative=True, lower_is_better=True))
    assert cost.margin == pytest.approx(0.05)
    assert cost.verdict == outcome.verdict == "pass"


@pytest.mark.parametrize("lower_is_better", [False, True])
def test_a_relative_margin_is_false_passed_no_more_often_than_said(lower_is_better: bool) -> None:
    rng = np.random.default_rng(3)
    rule = Rule(0.10, 0.0, 1.0, relative=True, lower_is_better=lower_is_better, resamples=99)
    reps, passed = 200, 0
    for _ in range(reps):
        before = (rng.random(150) < 0.5).astype(float)
        after = (rng.random(150) < (0.55 if lower_is_better else 0.45)).astype(float)
        passed += judge_pairs(before, after, rule).verdict == "pass"
    assert 0 < passed / reps <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / reps)


def test_a_declared_worst_case_needs_fewer_cases() -> None:
    before = np.full(30, 0.6)
    assert judge_pairs(before, before, RULE).verdict == "inconclusive"
    outcome = judge_pairs(before, before, replace(RULE, worst=0.25))
    assert outcome.verdict == "pass"
    assert outcome.interval is not None
    assert outcome.interval[0] > -0.05
    gap = before.copy()
    gap[0] = math.nan
    guarded = judge_pairs(before, gap, replace(RULE, worst=0.25))
    assert guarded.p_pass < guarded.guarded_pass < judge_pairs(before, gap, RULE).guarded_pass
    with pytest.raises(ValueError, match="declared worst case"):
        judge_pairs(before, before - 0.5, replace(RULE, worst=0.25))


def test_too_little_says_nothing() -> None:
    wide = Rule(0.96, 0.0, 1.0, max_missing=1.0)
    for scores, reason in (
        ([], Reason.NO_CASES),
        ([1.0], Reason.ONE_CASE),
        ([math.nan] * 3, Reason.NO_CASES),
    ):
        outcome = judge_pairs(scores, scores, wide)
        assert (outcome.verdict, outcome.reason) == ("inconclusive", reason)
        assert outcome.smallest_margin is outcome.smallest_regression is outcome.n_needed is None
    one = judge_pairs(np.ones(500), np.zeros(500), wide, clusters=["doc"] * 500)
    assert one.verdict == "inconclusive"


def test_what_could_be_seen_follows_from_the_noise_that_was() -> None:
    noisy, calm = judge_pairs(*binary(200, 12, 12), RULE), judge_pairs(*binary(200, 2, 2), RULE)
    assert (noisy.smallest_margin or 0) > (calm.smallest_margin or 0) > 0.0148
    assert (noisy.smallest_regression or 0) > (calm.smallest_regression or 0)
    assert (noisy.n_needed or 0) > 200 > (calm.n_needed or 0)


def test_equal_input_gives_equal_bytes() -> None:
    rng = np.random.default_rng(4)
    before, after = rng.random(300), rng.random(300)
    assert repr(judge_pairs(before, after, RULE)) == repr(judge_pairs(before.copy(), after.copy(), RULE))


@pytest.mark.parametrize("family", ["rare collapse", "five levels", "missing", "clustered"])
def test_false_pass_at_the_margin_stays_below_alpha(family: str) -> None:
    rng = np.random.default_rng(5)
    reps, passed, n = 200, 0, 160
    clusters = np.repeat(np.arange(16), 10) if family == "clustered" else None
    for _ in range(reps):
        before = np.ones(n)
        if family == "five levels":
            before = rng.choice([0.25, 0.5, 0.75], n)
            after = before + rng.choice([-0.25, 0.0, 0.25], n, p=[0.3, 0.6, 0.1])
        elif family == "clustered":
            before = np.full(n, 0.5)
            after = before - 0.05 + np.repeat(rng.choice([-0.2, 0.2], 16), 10)
        else:
            after = np.where(rng.random(n) < 0.05, 0.0, 1.0)
        if family == "missing":
            after[np.argsort(after, kind="stable")[:4]] = math.nan
        passed += judge_pairs(before, after, RULE, clusters=clusters).verdict == "pass"
    assert passed / reps <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / reps)


def test_refuses_what_does_not_pair_or_fit() -> None:
    with pytest.raises(ValueError, match="pair them first"):
        judge_pairs([0.1, 0.2], [0.1], RULE)
    with pytest.raises(ValueError, match="infinite"):
        judge_pairs([0.1, math.inf], [0.1, 0.2], RULE)
    with pytest.raises(ValueError, match="outside"):
        judge_pairs([0.1, 1.2], [0.1, 0.2], RULE)
    with pytest.raises(ValueError, match="one label"):
        judge_pairs([0.1, 0.2], [0.1, 0.2], RULE, clusters=["a"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"margin": 0.0}, "allows nothing"),
        ({"margin": 1.0, "low": 0.0, "high": 1.0}, "allows nothing"),
        ({"margin": 0.1, "alpha": 0.5}, "alpha"),
        ({"margin": 0.1, "relative": True}, "range from 0 up"),
        ({"margin": 0.1, "relative": True, "low": -1.0, "high": 1.0}, "range from 0 up"),
        ({"margin": 0.1, "relative": True, "low": 0.0, "high": 1.0, "method": "betting"}, "needs a range"),
        ({"margin": 0.1, "scale": "ratio", "method": "score"}, "needs a range"),
        ({"margin": 0.1, "low": 0.0, "high": 1.0, "worst": 0.1}, "worst case"),
        ({"margin": 0.1, "low": 0.0, "high": 1.0, "worst": 1.1}, "worst case"),
    ],
)
def test_refuses_a_rule_that_makes_no_sense(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Rule(**fields)  # type: ignore[arg-type]
