"""Intervals of one mean and of a ratio, against scipy.stats and by simulation."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from llmops.stats.intervals import (
    geometric_ratio_interval,
    mean_interval,
    mean_interval_unbounded,
    quantile,
)

Floats = npt.NDArray[np.float64]
LAW = settings(deadline=None, max_examples=50)
SCORES = st.lists(st.floats(0, 1) | st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=30)


def scores(seed: int, n: int) -> Floats:
    return np.random.default_rng(seed).beta(5, 2, n)


@pytest.mark.parametrize(("passed", "n"), [(0, 10), (10, 10), (3, 10), (57, 60), (4_321, 5_000)])
@pytest.mark.parametrize("level", [0.90, 0.95])
def test_binary_interval_is_clopper_pearson(passed: int, n: int, level: float) -> None:
    values = np.repeat([0.0, 1.0], [n - passed, passed])
    expected = stats.binomtest(passed, n).proportion_ci(level, method="exact")
    found = mean_interval(values, low=0, high=1, level=level)
    assert found == pytest.approx((expected.low, expected.high), abs=1e-9)


@LAW
@given(SCORES, st.floats(-0.5, 0))
def test_an_interval_leaves_the_values_as_they_were(values: list[float], low: float) -> None:
    given_ = np.array(values)
    mean_interval(given_, low=low, high=1, level=0.9)
    assert given_.tolist() == values


@LAW
@given(SCORES, st.sampled_from([0.5, 0.9, 0.99]))
def test_interval_holds_the_mean_and_stays_in_range(values: list[float], level: float) -> None:
    low, high = mean_interval(values, low=0, high=1, level=level)
    assert 0 <= low <= np.mean(values) + 1e-12
    assert np.mean(values) - 1e-12 <= high <= 1


@LAW
@given(SCORES)
def test_wider_level_contains_the_narrower(values: list[float]) -> None:
    clusters = [i // 3 for i in range(len(values))]
    for labels in (None, clusters):
        outer = mean_interval(values, low=0, high=1, level=0.95, clusters=labels)
        inner = mean_interval(values, low=0, high=1, level=0.80, clusters=labels)
        assert outer[0] <= inner[0] <= inner[1] <= outer[1]


@LAW
@given(SCORES)
def test_turning_the_scale_round_mirrors_the_interval(values: list[float]) -> None:
    low, high = mean_interval(values, low=0, high=1, level=0.9)
    turned = mean_interval([-value for value in values], low=-1, high=0, level=0.9)
    assert turned == (-high, -low)


@LAW
@given(SCORES)
def test_clusters_of_one_case_are_no_clusters(values: list[float]) -> None:
    names = [f"case-{i}" for i in range(len(values))]
    assert mean_interval(values, low=0, high=1, level=0.9, clusters=names) == mean_interval(
        values, low=0, high=1, level=0.9
    )


@LAW
@given(SCORES, st.integers(1, 6))
def test_clusters_never_narrow_the_interval(values: list[float], n_clusters: int) -> None:
    clusters = [i % n_clusters for i in range(len(values))]
    plain = mean_interval(values, low=0, high=1, level=0.9)
    clustered = mean_interval(values, low=0, high=1, level=0.9, clusters=clusters)
    assert clustered[0] <= plain[0] <= plain[1] <= clustered[1]


def test_one_cluster_says_nothing_about_the_mean() -> None:
    assert mean_interval(np.ones(500), low=0, high=1, level=0.9, clusters=["doc"] * 500) == (0, 1)


@pytest.mark.parametrize("rare", [False, True])
def test_graded_interval_errs_no_more_often_than_it_says(rare: bool) -> None:
    rng = np.random.default_rng(5)
    truth = 0.97 if rare else 5 / 7
    missed = np.zeros(2)
    for _ in range(600):
        values = 1.0 - (rng.random(40) < 0.03) if rare else rng.beta(5, 2, 40)
        values = values * (1 - 1e-6 * rng.random(40) * rare)  # graded, but collapsing now and then
        low, high = mean_interval(values, low=0, high=1, level=0.9)
        missed += (low > truth, high < truth - 1e-6)
    assert missed.max() / 600 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 600)


def test_clustered_interval_covers_where_the_plain_one_does_not() -> None:
    rng = np.random.default_rng(6)
    clusters = np.repeat(np.arange(20), 10)
    covered = np.zeros(2)
    for _ in range(500):
        rate = np.clip(0.6 + np.repeat(rng.choice([-0.3, 0.3], 20), 10), 0, 1)
        values = (rng.random(200) < rate).astype(float)
        for i, labels in enumerate((None, clusters)):
            low, high = mean_interval(values, low=0, high=1, level=0.9, clusters=labels)
            covered[i] += low <= 0.6 <= high
    plain, clustered = covered / 500
    assert plain < 0.75
    assert clustered >= 0.9 - 3 * math.sqrt(0.9 * 0.1 / 500)


def test_ten_thousand_graded_scores_come_close_to_the_t_interval() -> None:
    values = scores(8, 10_000)
    found = mean_interval(values, low=0, high=1, level=0.95)
    assert found == pytest.approx(mean_interval_unbounded(values, level=0.95), abs=2e-4)


def test_dust_beyond_the_range_is_forgiven_and_more_is_not() -> None:
    assert mean_interval([1 + 1e-12], low=0, high=1, level=0.9) == mean_interval(
        [1.0], low=0, high=1, level=0.9
    )
    with pytest.raises(ValueError, match="outside"):
        mean_interval([1.001], low=0, high=1, level=0.9)


@pytest.mark.parametrize("values", [[], [math.nan], [0.1, math.inf], [-0.1]])
def test_refuses_scores_that_are_absent_or_out_of_range(values: list[float]) -> None:
    with pytest.raises(ValueError, match="values"):
        mean_interval(values, low=0, high=1, level=0.9)


@pytest.mark.parametrize(("low", "high"), [(0, 0), (1, 0), (0, math.inf), (math.nan, 1)])
def test_refuses_a_range_that_is_none(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="range"):
        mean_interval([0.0], low=low, high=high, level=0.9)


@pytest.mark.parametrize("level", [0.0, 1.0, 90, math.nan])
def test_refuses_a_level_that_is_no_share(level: float) -> None:
    with pytest.raises(ValueError, match="level"):
        mean_interval([0.5, 0.6], low=0, high=1, level=level)
    with pytest.raises(ValueError, match="level"):
        mean_interval_unbounded([0.5, 0.6], level=level)


def test_unbounded_interval_is_the_t_interval_of_single_cases() -> None:
    values = np.random.default_rng(2).lognormal(size=25)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert mean_interval_unbounded(values, level=0.9) == pytest.approx((expected.low, expected.high))


def test_unbounded_interval_of_equal_clusters_is_the_t_interval_of_their_means() -> None:
    values = np.random.default_rng(3).normal(size=(12, 5))
    expected = stats.ttest_1samp(values.mean(axis=1), 0).confidence_interval(0.9)
    found = mean_interval_unbounded(values.ravel(), level=0.9, clusters=np.repeat(np.arange(12), 5))
    assert found == pytest.approx((expected.low, expected.high))


def test_unbounded_interval_is_absent_without_two_clusters() -> None:
    assert mean_interval_unbounded([3.0], level=0.9) is None
    assert mean_interval_unbounded([3.0, 4.0], level=0.9, clusters=["a", "a"]) is None


def test_ratio_is_worked_out_on_logarithms() -> None:
    rng = np.random.default_rng(4)
    before, after = rng.lognormal(0, 0.5, 30), rng.lognormal(0.1, 0.5, 30)
    found = geometric_ratio_interval(before, after, level=0.9)
    ends = stats.ttest_rel(np.log(after), np.log(before)).confidence_interval(0.9)
    expected = stats.gmean(after) / stats.gmean(before), math.exp(ends.low), math.exp(ends.high)
    assert found == pytest.approx(expected)


def test_swapping_the_sides_turns_the_ratio_over() -> None:
    before, after = scores(1, 20), scores(2, 20)
    forth = geometric_ratio_interval(before, after, level=0.9)
    back = geometric_ratio_interval(after, before, level=0.9)
    assert forth is not None
    assert back == pytest.approx((1 / forth[0], 1 / forth[2], 1 / forth[1]))


def test_ratio_is_absent_where_it_cannot_be_worked_out() -> None:
    assert geometric_ratio_interval([0.0, 1.0], [1.0, 1.0], level=0.9) is None
    assert geometric_ratio_interval([1.0, 1.0], [1.0, -2.0], level=0.9) is None
    assert geometric_ratio_interval([1.0], [2.0], level=0.9) is None
    with pytest.raises(ValueError, match="pair them first"):
        geometric_ratio_interval([1.0], [2.0, 3.0], level=0.9)


def test_quantile_is_linear_between_neighbours() -> None:
    assert quantile([4.0, 1.0, 2.0], 0.75) == 3.0
    with pytest.raises(ValueError, match="not empty"):
        quantile([], 0.5)


def test_no_interval_pays_for_the_slow_parts_of_scipy() -> None:
    modules = ", ".join(f"llmops.stats.{name}" for name in ("paired", "intervals", "bootstrap", "clusters"))
    slow = "[name for name in ('scipy.stats', 'scipy.optimize', 'pandas', 'sklearn') if name in sys.modules]"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, {modules}; print({slow})"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
