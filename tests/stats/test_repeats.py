"""Repeats, history and what they are worth, against simulation and scipy."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from llmops.stats.repeats import (
    HISTORY,
    VarianceParts,
    design_effect,
    expected_noise,
    flaky_repeats,
    is_history_stale,
    variance_parts,
)
from llmops.stats.runs import Runs

Floats = npt.NDArray[np.float64]
LAW = settings(deadline=None, max_examples=60)
SHARES = st.lists(st.integers(0, HISTORY).map(lambda passed: passed / HISTORY), min_size=1, max_size=60)


def test_variance_parts_are_those_of_the_analysis_of_variance() -> None:
    rng = np.random.default_rng(1)
    cases = np.repeat(np.arange(40), 6)
    values = rng.normal(size=40)[cases] + 0.5 * rng.normal(size=cases.size)
    groups = values.reshape(40, 6)
    within = float(groups.var(axis=1, ddof=1).mean())
    around = float(stats.f_oneway(*groups).statistic) * within
    found = variance_parts(values, cases)
    assert found is not None
    assert (found.between, found.within) == pytest.approx(((around - within) / 6, within))


def test_unequal_groups_are_estimated_without_bias() -> None:
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(60), rng.integers(1, 9, 60))
    found = []
    for _ in range(300):
        values = 2 * rng.normal(size=60)[groups] + rng.normal(size=groups.size)
        parts = variance_parts(values, groups)
        assert parts is not None
        found.append((parts.between, parts.within))
    assert np.mean(found, axis=0) == pytest.approx((4, 1), rel=0.06)


def test_variance_of_a_mean_follows_from_its_parts() -> None:
    parts = VarianceParts(0.04, 0.2)
    assert parts.of_mean(50) == pytest.approx(0.24 / 50)
    assert parts.of_mean(50, repeats=4) == pytest.approx(0.09 / 50)
    assert parts.correlation == pytest.approx(1 / 6)
    assert design_effect(11, parts.correlation) == pytest.approx(1 + 10 / 6)
    assert VarianceParts(0.0, 0.0).correlation == 0


def test_one_group_or_one_run_a_case_says_nothing_about_parts() -> None:
    assert variance_parts([0.1, 0.2], ["a", "a"]) is None
    assert variance_parts([0.1, 0.2], ["a", "b"]) is None


@LAW
@given(SHARES, st.integers(2, 8))
def test_only_flaky_cases_are_repeated_and_no_more_than_agreed(shares: list[float], mean: int) -> None:
    repeats = flaky_repeats(shares, mean_repeats=mean)
    is_flaky = np.array([0 < share < 1 for share in shares])
    assert (repeats[~is_flaky] == 1).all()
    assert (repeats[is_flaky] >= 2).all()
    if is_flaky.any():
        assert repeats[is_flaky].mean() <= mean + 0.5


def test_repeats_are_in_proportion_to_the_spread() -> None:
    shares = np.array([0.0, 0.02, 0.5, 1.0, 0.5])
    assert flaky_repeats(shares, mean_repeats=4).tolist() == [1, 2, 5, 1, 5]


def test_neyman_leaves_no_more_noise_than_equal_repeats_of_the_same_cost() -> None:
    shares = np.concatenate([np.full(40, 0.03), np.full(40, 0.5)])
    neyman = flaky_repeats(shares)
    equal = np.full(80, neyman.mean())
    assert expected_noise(shares, n_history=8, repeats=neyman) < expected_noise(
        shares, n_history=8, repeats=equal
    )


def test_expected_noise_is_what_runs_show() -> None:
    rng = np.random.default_rng(3)
    shares = rng.random(200)
    repeats = flaky_repeats(shares)
    seen = [
        np.mean((rng.binomial(repeats, shares) / repeats - rng.binomial(8, shares) / 8) ** 2)
        for _ in range(400)
    ]
    assert np.mean(seen) == pytest.approx(expected_noise(shares, n_history=8, repeats=repeats), rel=0.03)


def stored(rng: np.random.Generator, shares: Floats, n_runs: int) -> Runs:
    return Runs.of(list((rng.random((shares.size, n_runs)) < shares[:, np.newaxis]).astype(float)))


@pytest.mark.parametrize(("change", "stale"), [(-0.25, True), (0.25, True), (0.0, False)])
def test_a_history_is_stale_once_the_model_changed_either_way(change: float, stale: bool) -> None:
    rng = np.random.default_rng(4)
    shares = rng.random(300)
    history, fresh = stored(rng, shares, HISTORY), stored(rng, np.clip(shares + change, 0, 1), 1)
    assert is_history_stale(history, fresh, 300, alpha=0.05, seed=1) == stale
    clusters = np.arange(300) // 3
    assert is_history_stale(history, fresh, 300, alpha=0.05, clusters=clusters, seed=1) == stale


@pytest.mark.parametrize("share", [0.03, 0.5, 0.97])
def test_a_history_of_an_unchanged_model_is_rarely_called_stale(share: float) -> None:
    rng = np.random.default_rng(5)
    reps, stale = 100, 0
    for seed in range(reps):
        shares = np.full(60, share)
        stale += is_history_stale(
            stored(rng, shares, HISTORY), stored(rng, shares, 1), 60, alpha=0.05, seed=seed
        )
    assert stale / reps <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / reps)


def test_refuses_shares_that_are_none() -> None:
    with pytest.raises(ValueError, match="shares"):
        flaky_repeats([0.5, 1.2])
    nothing = Runs.of([[], []])
    with pytest.raises(ValueError, match="not empty"):
        is_history_stale(nothing, nothing, 2, alpha=0.05, seed=0)
