"""The interval a gate compares with its margin, against exact McNemar and by simulation."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from llmops.stats.dirichlet import probability_at_most
from llmops.stats.paired import paired_interval

Floats = npt.NDArray[np.float64]
LAW = settings(deadline=None, max_examples=50)
SCORE = st.floats(0, 1) | st.sampled_from([0.0, 0.5, 1.0])
PAIRS = st.lists(st.tuples(SCORE, SCORE), min_size=1, max_size=30)


def sides(pairs: list[tuple[float, float]]) -> tuple[Floats, Floats]:
    before, after = np.array(pairs).T
    return before, after


def binary(n: int, losses: int, gains: int) -> tuple[Floats, Floats]:
    before, after = np.zeros(n), np.zeros(n)
    before[:losses] = 1
    after[losses : losses + gains] = 1
    return before, after


@LAW
@given(PAIRS, st.integers(1, 5))
def test_swapping_the_sides_mirrors_the_interval(pairs: list[tuple[float, float]], n_clusters: int) -> None:
    before, after = sides(pairs)
    for clusters in (None, [i % n_clusters for i in range(len(pairs))]):
        low, high = paired_interval(before, after, low=0, high=1, level=0.9, clusters=clusters)
        swapped = paired_interval(after, before, low=0, high=1, level=0.9, clusters=clusters)
        assert swapped == (-high, -low)


@LAW
@given(PAIRS, st.integers(0, 2**32))
def test_order_of_cases_changes_nothing(pairs: list[tuple[float, float]], seed: int) -> None:
    before, after = sides(pairs)
    clusters = np.arange(len(pairs)) // 2
    order = np.random.default_rng(seed).permutation(len(pairs))
    straight = paired_interval(before, after, low=0, high=1, level=0.9, clusters=clusters)
    shuffled = paired_interval(
        before[order], after[order], low=0, high=1, level=0.9, clusters=clusters[order]
    )
    assert shuffled == pytest.approx(straight, abs=1e-12)


@LAW
@given(PAIRS)
def test_wider_level_contains_the_narrower(pairs: list[tuple[float, float]]) -> None:
    before, after = sides(pairs)
    outer = paired_interval(before, after, low=0, high=1, level=0.95)
    inner = paired_interval(before, after, low=0, high=1, level=0.80)
    assert outer[0] <= inner[0] <= inner[1] <= outer[1]


@pytest.mark.parametrize(
    ("n", "losses", "gains"), [(40, 2, 9), (40, 2, 10), (300, 12, 25), (300, 15, 25), (6, 0, 4)]
)
def test_low_end_clears_zero_exactly_when_mcnemar_does(n: int, losses: int, gains: int) -> None:
    before, after = binary(n, losses, gains)
    low, _ = paired_interval(before, after, low=0, high=1, level=0.9)
    proved = stats.binomtest(gains, losses + gains, 0.5, alternative="greater").pvalue <= 0.05
    assert (low >= 0) == proved


@pytest.mark.parametrize("margin", [0.02, 0.05, 0.1])
@pytest.mark.parametrize(("losses", "gains"), [(0, 0), (1, 4), (5, 5), (9, 3)])
def test_interval_and_probability_give_one_verdict(margin: float, losses: int, gains: int) -> None:
    before, after = binary(150, losses, gains)
    low, _ = paired_interval(before, after, low=0, high=1, level=0.9)
    assert (low >= -margin) == (probability_at_most(after - before, -1, -margin) <= 0.05)


def test_dust_is_no_change_that_all_cases_agree_on() -> None:
    before = np.full(40, 0.3)
    after = np.full(40, 0.1 + 0.2)
    assert (before != after).all()
    assert paired_interval(before, after, low=0, high=1, level=0.9) == paired_interval(
        before, before, low=0, high=1, level=0.9
    )


def test_unchanged_scores_leave_room_on_both_sides() -> None:
    before = np.ones(59)
    low, high = paired_interval(before, before, low=0, high=1, level=0.9)
    assert -0.05 < low < -0.049
    assert high == -low


def test_range_of_the_scores_sets_the_worst_case() -> None:
    before = np.full(30, 3.0)
    five_levels = paired_interval(before, before, low=1, high=5, level=0.9)
    shares = paired_interval((before - 1) / 4, (before - 1) / 4, low=0, high=1, level=0.9)
    assert five_levels == pytest.approx((4 * shares[0], 4 * shares[1]))


@pytest.mark.parametrize("family", ["binary", "five levels", "rare collapse"])
def test_paired_interval_errs_no_more_often_than_it_says(family: str) -> None:
    rng = np.random.default_rng(11)
    missed, reps, n = np.zeros(2), 400, 60
    for _ in range(reps):
        if family == "five levels":
            shared = rng.normal(size=n)
            before, after = (np.clip(np.round(shared + rng.normal(size=n)), -2, 2) / 4 + 0.5 for _ in "12")
            truth = 0.0
        elif family == "binary":
            before, after = (rng.random(n) < 0.8).astype(float), (rng.random(n) < 0.7).astype(float)
            truth = -0.1
        else:
            before = 0.9 + 0.1 * rng.random(n)
            after = before * (rng.random(n) >= 0.05)
            truth = -0.95 * 0.05
        low, high = paired_interval(before, after, low=0, high=1, level=0.9)
        missed += (low > truth, high < truth)
    assert missed.max() / reps <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / reps)


def test_clustered_changes_are_covered_where_cases_alone_are_not() -> None:
    rng = np.random.default_rng(12)
    clusters = np.repeat([f"document-{g}" for g in range(20)], 10)
    covered, reps = np.zeros(2), 300
    for _ in range(reps):
        better = np.repeat(rng.integers(0, 2, 20), 10).astype(float)
        before = (rng.random(200) < 0.5).astype(float)
        after = np.where(rng.random(200) < 0.4, better, before)
        for i, labels in enumerate((None, clusters)):
            low, high = paired_interval(before, after, low=0, high=1, level=0.9, clusters=labels)
            covered[i] += low <= 0 <= high
    plain, clustered = covered / reps
    assert plain < 0.85
    assert clustered >= 0.9 - 3 * math.sqrt(0.9 * 0.1 / reps)


def test_one_cluster_bounds_no_difference() -> None:
    before, after = binary(100, 0, 60)
    assert paired_interval(before, after, low=0, high=1, level=0.9, clusters=["doc"] * 100) == (-1, 1)


def test_refuses_sides_that_do_not_pair() -> None:
    with pytest.raises(ValueError, match="pair them first"):
        paired_interval([0.1, 0.2], [0.1], low=0, high=1, level=0.9)
    with pytest.raises(ValueError, match=r"candidate\[1\] is nan"):
        paired_interval([0.1, 0.2], [0.1, math.nan], low=0, high=1, level=0.9)
    with pytest.raises(ValueError, match="baseline run from"):
        paired_interval([0.1, 1.2], [0.1, 0.2], low=0, high=1, level=0.9)
    with pytest.raises(ValueError, match="one label"):
        paired_interval([0.1, 0.2], [0.1, 0.2], low=0, high=1, level=0.9, clusters=["a"])
