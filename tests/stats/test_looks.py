"""A gate that stops when the answer is sure: order, levels, patience, hopelessness, several metrics."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmops.stats.looks import Look, Stop, decide_looks, judge_look, look_order, planned_looks
from llmops.stats.noninferiority import judge_pairs
from llmops.stats.outcome import PairedOutcome, Rule
from llmops.stats.spending import nominal_levels

Floats = npt.NDArray[np.float64]
RULE = Rule(0.05, 0.0, 1.0, resamples=999)


def looked(differences: Floats, rule: Rule = RULE) -> tuple[Stop, list[Look]]:
    """Look as planned, until the gate stops."""
    n_total = differences.size
    before = np.where(differences < 0, 1.0, 0.0)
    looks: list[Look] = []
    for n in planned_looks(n_total):
        pair = before[:n], (before + differences)[:n]
        looks.append(judge_look(*pair, rule, n_total=n_total, previous=looks))
        stop = decide_looks({"a": looks}, alpha=rule.alpha)
        if stop.verdict is not None:
            break
    return stop, looks


def metric(differences: Floats, *, strict: bool = False) -> list[Look]:
    """Two looks at 200 cases: at 80, and at 120."""
    before = np.where(differences < 0, 1.0, 0.0)
    looks: list[Look] = []
    for n in (80, 120):
        pair = before[:n], (before + differences)[:n]
        looks.append(judge_look(*pair, RULE, n_total=200, previous=looks, strict=strict))
    return looks


def flips(rng: np.random.Generator, n: int, loss: float, gain: float) -> Floats:
    return rng.choice([-1.0, 0.0, 1.0], n, p=[loss, 1 - loss - gain, gain])


@pytest.mark.parametrize(
    ("n", "looks"),
    [(1, (1,)), (149, (149,)), (150, (30, 60, 90, 120, 150)), (499, (100, 200, 300, 400, 499))],
)
def test_small_datasets_are_looked_at_once(n: int, looks: tuple[int, ...]) -> None:
    assert planned_looks(n) == looks


def test_large_datasets_are_looked_at_ten_times() -> None:
    assert planned_looks(1000) == tuple(range(100, 1001, 100))


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 80), st.integers(1, 6), st.integers(1, 3), st.integers(0, 2**32))
def test_order_holds_each_case_once_and_clusters_together(n: int, size: int, tags: int, seed: int) -> None:
    clusters = np.arange(n) // size
    order = look_order(n, seed=seed, strata=[f"tag{c % tags}" for c in clusters], clusters=clusters)
    assert sorted(order.tolist()) == list(range(n))
    changes = (np.diff(clusters[order]) != 0).sum()
    assert changes == np.unique(clusters).size - 1


def test_every_look_is_a_fair_miniature() -> None:
    strata = np.repeat(["common", "rare"], [180, 20])
    order = look_order(200, seed=1, strata=strata.tolist())
    for n in planned_looks(200):
        assert (strata[order[:n]] == "rare").sum() == pytest.approx(n / 10, abs=1.01)
    assert order.tolist() == look_order(200, seed=1, strata=strata.tolist()).tolist()
    assert order.tolist() != look_order(200, seed=2, strata=strata.tolist()).tolist()


def test_one_look_at_everything_is_the_plain_gate() -> None:
    differences = flips(np.random.default_rng(1), 120, 0.06, 0.05)
    stop, looks = looked(differences)
    before = np.where(differences < 0, 1.0, 0.0)
    plain = judge_pairs(before, before + differences, RULE)
    assert stop.verdict == plain.verdict
    assert looks[0].outcome.interval == pytest.approx(plain.interval)
    assert (looks[0].is_last, looks[0].n_looks) == (True, 1)


def test_each_look_has_its_level_and_an_interval_of_that_level() -> None:
    differences = flips(np.random.default_rng(2), 200, 0.08, 0.06)
    _, looks = looked(differences)
    levels = nominal_levels(tuple(k / 5 for k in range(1, 6)), 0.05)
    assert len(looks) > 2
    assert [look.outcome.alpha for look in looks] == pytest.approx(levels[: len(looks)])
    before = np.where(differences < 0, 1.0, 0.0)
    second = judge_pairs(before[:80], (before + differences)[:80], replace(RULE, alpha=levels[1]))
    assert looks[1].outcome.interval == pytest.approx(second.interval)
    assert (looks[1].number, looks[1].fraction) == (2, 0.4)


def test_an_unchanged_candidate_stops_early_with_a_pass() -> None:
    stop, looks = looked(np.zeros(1000))
    assert stop.verdict == "pass"
    assert looks[-1].fraction <= 0.2


def test_a_proved_regression_waits_as_long_as_a_pass_is_likely() -> None:
    # 3 points worse on 5,000 cases with a margin of 5: proved soon, and to be passed in the end.
    n = 5000
    differences = np.zeros(n)
    differences[np.arange(n) % 100 < 3] = -1.0
    stop, looks = looked(differences)
    proofs = [look.outcome.guarded_worse <= look.outcome.alpha for look in looks]
    assert any(proofs[:-1])
    assert stop.verdict == "pass"


def test_a_clear_regression_stops_early_with_a_fail() -> None:
    stop, looks = looked(flips(np.random.default_rng(3), 1000, 0.20, 0.05))
    assert (stop.verdict, stop.failed) == ("fail", ("a",))
    assert looks[-1].fraction < 0.5
    assert looks[-1].p_later_pass < 0.10


def test_a_regression_once_proved_is_remembered_to_the_last_look() -> None:
    differences = np.zeros(200)
    differences[:22] = -1.0  # proved at the first look, by the last one the rest has diluted it to the margin
    differences[40:52] = 1.0
    _, looks = looked(differences)
    looks = list(looks)
    if not looks[-1].is_last:
        before = np.where(differences < 0, 1.0, 0.0)
        looks.append(judge_look(before, before + differences, RULE, n_total=200, previous=looks))
    assert looks[-1].outcome.guarded_worse > looks[-1].outcome.alpha
    assert decide_looks({"a": looks}, alpha=0.05).verdict == "fail"


def test_hopeless_looks_are_given_up() -> None:
    rule = replace(RULE, margin=0.01)
    stop, looks = looked(np.tile([-1.0, 1.0, 0.0, 0.0], 100), rule)
    assert (stop.verdict, stop.is_futile, stop.unproved) == ("inconclusive", True, ("a",))
    assert not looks[-1].is_last
    outcome = looks[-1].outcome
    assert isinstance(outcome, PairedOutcome)
    assert 400 < (looks[-1].n_needed or 0) < (outcome.n_needed or 0)


def test_a_look_that_knows_nothing_yet_is_not_hopeless() -> None:
    nothing = judge_look([math.nan] * 40, [1.0] * 40, RULE, n_total=200)
    one = judge_look(np.ones(40), np.zeros(40), RULE, n_total=200, clusters=["doc"] * 40)
    for look in (nothing, one):
        assert decide_looks({"a": [look]}, alpha=0.05).verdict is None
    no_ratio = judge_look(np.zeros(40), np.ones(40), Rule(0.1, scale="ratio"), n_total=200)
    assert decide_looks({"a": [no_ratio]}, alpha=0.05).is_futile


def test_strict_levels_spend_less_at_each_look() -> None:
    plain, strict = metric(np.zeros(200)), metric(np.zeros(200), strict=True)
    assert strict[0].outcome.alpha == pytest.approx(plain[0].outcome.alpha)
    assert strict[1].outcome.alpha < plain[1].outcome.alpha
    with pytest.raises(ValueError, match="strict"):
        judge_look(np.ones(120), np.ones(120), RULE, n_total=200, previous=strict[:1])


def test_uneven_looks_use_the_fraction_they_came_to() -> None:
    ones = np.ones(200)
    first = judge_look(ones[:37], ones[:37], RULE, n_total=200)
    second = judge_look(ones[:90], ones[:90], RULE, n_total=200, previous=[first])
    assert second.outcome.alpha == pytest.approx(nominal_levels((37 / 200, 0.45), 0.05)[1])
    with pytest.raises(ValueError, match="rise"):
        judge_look(ones[:90], ones[:90], RULE, n_total=200, previous=[first, second])
    with pytest.raises(ValueError, match="of 200 cases"):
        judge_look(np.ones(201), np.ones(201), RULE, n_total=200)


def test_all_metrics_pass_each_at_the_look_where_it_did() -> None:
    passed, undecided = metric(np.zeros(200)), metric(np.tile([-1.0, 1.0, *[0.0] * 18], 10))
    assert decide_looks({"a": passed}, alpha=0.05).verdict == "pass"
    both = decide_looks({"a": passed, "b": undecided}, alpha=0.05)
    assert (both.verdict, both.unproved) == (None, ("b",))


def test_many_metrics_share_alpha_over_all_looks() -> None:
    differences = np.zeros(200)
    differences[:16], differences[20:24] = -1.0, 1.0
    regressed = metric(differences)
    assert decide_looks({"a": regressed}, alpha=0.05).failed == ("a",)
    quiet = metric(np.tile([-1.0, 1.0, *[0.0] * 18], 10))
    among = {"a": regressed, **{f"m{k}": quiet for k in range(9)}}
    assert decide_looks(among, alpha=0.05).failed == ()
    assert decide_looks({f"m{k}": regressed for k in range(2)}, alpha=0.10).failed == ("m0", "m1")


def test_nothing_looked_at_decides_nothing() -> None:
    with pytest.raises(ValueError, match="no look"):
        decide_looks({}, alpha=0.05)
    with pytest.raises(ValueError, match="no look"):
        decide_looks({"a": []}, alpha=0.05)


@pytest.mark.parametrize(("regression", "error"), [(0.0, "fail"), (0.05, "pass")])
def test_looking_often_errs_no_more_often_than_said(regression: float, error: str) -> None:
    rng = np.random.default_rng(6)
    reps = 80
    erred = sum(looked(flips(rng, 300, 0.05 + regression, 0.05))[0].verdict == error for _ in range(reps))
    assert erred / reps <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / reps)


def test_clusters_are_looked_at_as_a_whole() -> None:
    rng = np.random.default_rng(7)
    clusters = np.repeat(np.arange(60), 5)
    differences = np.repeat(rng.choice([-0.3, 0.3], 60), 5)
    before = np.full(300, 0.5)
    alone = judge_look(before[:180], (before + differences)[:180], RULE, n_total=300)
    together = judge_look(
        before[:180], (before + differences)[:180], RULE, n_total=300, clusters=clusters[:180]
    )
    assert together.outcome.p_pass > alone.outcome.p_pass
    assert abs(together.p_later_pass - 0.5) < abs(alone.p_later_pass - 0.5)
