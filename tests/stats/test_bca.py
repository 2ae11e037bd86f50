"""BCa against scipy's, its p-values against its interval, and the ratio of totals."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from llmops.stats.bca import Resampled, resampled, total_ratio
from llmops.stats.bootstrap import of_sums

Floats = npt.NDArray[np.float64]


def mean_of(values: Floats, *, seed: int = 1, clusters: list[int] | None = None) -> Resampled:
    statistic = of_sums(
        np.stack([values, np.ones_like(values)], axis=1), lambda totals: totals[:, 0] / totals[:, 1]
    )
    return resampled(statistic, values.size, seed=seed, clusters=clusters)


@pytest.mark.parametrize("n", [30, 200])
def test_interval_is_that_of_scipy(n: int) -> None:
    values = np.random.default_rng(n).exponential(1.0, n)
    found = mean_of(values).interval(0.9)
    expected = stats.bootstrap(
        (values,), np.mean, confidence_level=0.9, n_resamples=9999, method="BCa", rng=2
    ).confidence_interval
    error = 4 * values.std() / math.sqrt(n) / math.sqrt(4999 * 0.05)
    assert found == pytest.approx((expected.low, expected.high), abs=error)


def test_ratio_of_totals_is_that_of_scipy() -> None:
    rng = np.random.default_rng(3)
    before = rng.lognormal(0, 0.6, 120)
    after = before * rng.lognormal(0.1, 0.3, 120)
    found = total_ratio(before, after, seed=1)
    expected = stats.bootstrap(
        (after, before),
        lambda a, b, axis: a.sum(axis=axis) / b.sum(axis=axis),
        paired=True,
        confidence_level=0.9,
        method="BCa",
        rng=2,
    ).confidence_interval
    assert found.estimate == pytest.approx(after.sum() / before.sum())
    assert found.interval(0.9) == pytest.approx((expected.low, expected.high), abs=0.008)


@pytest.mark.parametrize("level", [0.8, 0.9, 0.98])
def test_p_values_reach_alpha_where_the_interval_ends(level: float) -> None:
    found = mean_of(np.random.default_rng(4).exponential(1.0, 80))
    low, high = found.interval(level)
    alpha = (1 - level) / 2
    assert found.p_above(low) == pytest.approx(alpha, abs=0.002)
    assert found.p_below(high) == pytest.approx(alpha, abs=0.002)


def test_p_values_of_both_sides_add_up_and_are_never_0() -> None:
    found = mean_of(np.random.default_rng(5).normal(0, 1, 60))
    for threshold in (-0.2, 0.0, 0.1):
        assert found.p_above(threshold) + found.p_below(threshold) == pytest.approx(1, abs=0.01)
    assert 0 < found.p_above(-50.0) < 0.001
    assert 0.99 < found.p_above(50.0) < 1


def test_whole_clusters_are_drawn_and_left_out() -> None:
    values = np.repeat(np.random.default_rng(6).normal(size=20), 10)
    low, high = mean_of(values).interval(0.9)
    wide_low, wide_high = mean_of(values, clusters=[i // 10 for i in range(200)]).interval(0.9)
    assert (wide_high - wide_low) / (high - low) == pytest.approx(math.sqrt(10), rel=0.15)


def test_data_without_spread_have_a_point_for_an_interval() -> None:
    found = mean_of(np.ones(40))
    assert found.interval(0.9) == (1, 1)
    assert (found.bias, found.acceleration) == (0, 0)
    assert found.p_above(0.9) < 0.01
    assert found.p_above(1.1) > 0.99


def test_one_seed_gives_one_answer() -> None:
    values = np.random.default_rng(7).normal(size=50)
    assert mean_of(values, seed=1).interval(0.9) == mean_of(values, seed=1).interval(0.9)
    assert mean_of(values, seed=1).interval(0.9) != mean_of(values, seed=2).interval(0.9)


def test_refuses_totals_of_nothing() -> None:
    for before, after in (([0.0, 0.0], [1.0, 1.0]), ([1.0, -1.0], [1.0, 1.0])):
        with pytest.raises(ValueError, match="totals"):
            total_ratio(before, after, seed=0)
    with pytest.raises(ValueError, match="pair them first"):
        total_ratio([1.0], [1.0, 2.0], seed=0)
    with pytest.raises(ValueError, match="not finite"):
        total_ratio([1.0, 0.0, 0.0], [1.0, 1.0, 1.0], seed=0)
