"""Resampling weights, percentile intervals and macro F1, against scikit-learn and scipy.stats."""

from __future__ import annotations

import math
import tracemalloc
from functools import partial

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import f1_score

from llmops.stats.bootstrap import macro_f1, percentile_interval, weights

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.intp]
LAW = settings(deadline=None, max_examples=60)


def labelled(n: int, n_classes: int, seed: int) -> tuple[Codes, Codes]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, n_classes, n)
    return truth, np.where(rng.random(n) < 0.7, truth, rng.integers(0, n_classes, n))


@LAW
@given(st.integers(1, 30), st.integers(1, 6), st.integers(0, 2**32))
def test_macro_f1_is_scikit_learns_under_any_weights(n: int, n_classes: int, seed: int) -> None:
    truth, predicted = labelled(n, n_classes, seed)
    drawn = weights(n, resamples=3, seed=seed)
    expected = [
        f1_score(
            truth, predicted, labels=range(n_classes), average="macro", zero_division=0, sample_weight=row
        )
        for row in drawn
    ]
    assert macro_f1(truth, predicted, n_classes, drawn) == pytest.approx(expected)


def test_macro_f1_is_zero_when_nothing_is_right() -> None:
    assert macro_f1(np.array([0, 0]), np.array([1, 1]), 2, np.ones((1, 2), dtype=np.intp)) == [0]


def test_macro_f1_refuses_codes_and_shapes_that_do_not_fit() -> None:
    codes, ones = np.array([0, 1]), np.ones((1, 2), dtype=np.intp)
    with pytest.raises(ValueError, match="0 to 0"):
        macro_f1(codes, codes, 1, ones)
    with pytest.raises(ValueError, match="0 to 1"):
        macro_f1(codes - 1, codes, 2, ones)
    with pytest.raises(ValueError, match="weights"):
        macro_f1(codes, codes, 2, np.ones((1, 3), dtype=np.intp))


def test_each_resample_draws_as_many_cases_as_there_are() -> None:
    drawn = weights(50, resamples=4_000, seed=1)
    assert drawn.shape == (4_000, 50)
    assert (drawn.sum(axis=1) == 50).all()
    # One case is drawn Binomial(50, 1/50) times.
    assert drawn.mean(axis=0) == pytest.approx(np.ones(50), abs=5 * math.sqrt(0.98 / 4_000))
    assert drawn.var() == pytest.approx(0.98, rel=0.03)


def test_clusters_are_drawn_whole_and_as_many_as_there_are() -> None:
    clusters = ["a"] * 5 + ["b"] * 2 + ["c"]
    drawn = weights(8, resamples=200, seed=1, clusters=clusters)
    for start, stop in ((0, 5), (5, 7)):
        assert (drawn[:, start:stop] == drawn[:, [start]]).all()
    assert (drawn[:, [0, 5, 7]].sum(axis=1) == 3).all()


def test_same_seed_same_interval_and_another_seed_another() -> None:
    values = np.random.default_rng(0).random(40)

    def interval(seed: int) -> tuple[float, float]:
        return percentile_interval(lambda rows: rows @ values / 40, 40, level=0.9, resamples=300, seed=seed)

    assert interval(1) == interval(1)
    assert interval(1) != interval(2)


def test_percentile_interval_of_a_mean_is_scipys() -> None:
    values = np.random.default_rng(2).lognormal(size=80)
    found = percentile_interval(lambda rows: rows @ values / 80, 80, level=0.9, resamples=20_000, seed=3)
    expected = stats.bootstrap(
        (values,), np.mean, confidence_level=0.9, n_resamples=20_000, method="percentile", rng=4
    ).confidence_interval
    assert found == pytest.approx((expected.low, expected.high), rel=0.02)


def test_whole_clusters_widen_the_interval_of_what_they_share() -> None:
    values = np.repeat(np.random.default_rng(5).random(20), 10)
    clusters = np.repeat(np.arange(20), 10)

    def width(labels: Codes | None) -> float:
        low, high = percentile_interval(
            lambda rows: rows @ values / rows.sum(axis=1),
            200,
            level=0.9,
            resamples=2_000,
            seed=6,
            clusters=labels,
        )
        return high - low

    assert width(clusters) == pytest.approx(math.sqrt(10) * width(None), rel=0.15)


def test_interval_of_macro_f1_covers_about_as_often_as_it_says() -> None:
    # Three classes, each right with 0.7 and else one of the others evenly: macro F1 is 0.7 in the long run.
    rng = np.random.default_rng(8)
    covered = 0
    for seed in range(200):
        truth = rng.integers(0, 3, 150)
        predicted = (truth + rng.choice(3, 150, p=[0.7, 0.15, 0.15])) % 3
        low, high = percentile_interval(
            partial(macro_f1, truth, predicted, 3),
            150,
            level=0.9,
            resamples=400,
            seed=seed,
        )
        covered += low <= 0.7 <= high
    assert abs(covered / 200 - 0.9) <= 0.02 + 3 * math.sqrt(0.9 * 0.1 / 200)


def test_memory_stays_flat_over_thousands_of_resamples() -> None:
    truth, predicted = labelled(10_000, 5, 9)
    tracemalloc.start()
    percentile_interval(partial(macro_f1, truth, predicted, 5), 10_000, level=0.9, resamples=1_000, seed=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # All weights at once would be 80 MB, and as much again while they are drawn.
    assert peak < 40e6


def test_refuses_empty_draws_and_figures_that_are_not_finite() -> None:
    for n, resamples in ((0, 10), (10, 0)):
        with pytest.raises(ValueError, match="positive"):
            percentile_interval(lambda rows: rows.mean(axis=1), n, level=0.9, resamples=resamples, seed=1)
    with pytest.raises(ValueError, match="not finite"):
        percentile_interval(lambda rows: np.full(len(rows), np.nan), 5, level=0.9, resamples=10, seed=1)
    with pytest.raises(ValueError, match="level"):
        percentile_interval(lambda rows: rows.mean(axis=1), 5, level=90, resamples=10, seed=1)


def test_a_cluster_for_each_case_is_no_cluster() -> None:
    random = np.random.default_rng(4)
    truth, predicted = random.integers(0, 3, 30), random.integers(0, 3, 30)

    def statistic(drawn: Codes) -> Floats:
        return macro_f1(truth, predicted, 3, drawn)

    names = [f"case:{place:02}" for place in range(30)]
    alone = percentile_interval(statistic, 30, level=0.9, resamples=200, seed=1)
    assert percentile_interval(statistic, 30, level=0.9, resamples=200, seed=1, clusters=names) == alone
    turned = percentile_interval(statistic, 30, level=0.9, resamples=200, seed=1, clusters=names[::-1])
    assert turned == pytest.approx(alone, abs=0.1)
    assert turned != alone
