"""What a gate can see, against the published table and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmops.stats.dirichlet import paired_binary_probability
from llmops.stats.power import (
    fail_probability,
    n_needed,
    n_unchanged,
    normal_effect,
    normal_n,
    pass_probability,
    power_report,
    smallest_margin,
    smallest_regression,
)
from llmops.stats.sign_flips import mcnemar_p

LAW = settings(deadline=None, max_examples=15)
NOISE = (0.02, 0.05, 0.10, 0.20)
# Points: the regression seen, and the margin an unchanged candidate passes, 4 times in 5 at alpha 0.05.
PUBLISHED = {
    20: ((33, 14), (36, 22), (40, 25), (46, 31)),
    50: ((14.9, 9.1), (17.2, 10.7), (19.8, 13.4), (24.1, 18.0)),
    100: ((8.3, 5.4), (10.0, 6.8), (12.1, 9.2), (15.2, 12.1)),
    200: ((4.8, 3.4), (6.1, 4.7), (7.7, 6.1), (10.0, 8.4)),
    500: ((2.4, 1.9), (3.3, 2.7), (4.4, 3.8), (5.8, 5.2)),
    1000: ((1.5, 1.2), (2.2, 1.9), (2.9, 2.6), (3.9, 3.6)),
    5000: ((0.6, 0.5), (0.9, 0.8), (1.2, 1.1), (1.7, 1.6)),
}


@pytest.mark.parametrize("n", PUBLISHED)
def test_table_is_the_published_one(n: int) -> None:
    last_digit = 1.0 if n == 20 else 0.1
    for noise, (regression, margin) in zip(NOISE, PUBLISHED[n], strict=True):
        assert 100 * smallest_regression(n, noise) == pytest.approx(regression, abs=0.65 * last_digit)
        assert 100 * smallest_margin(n, noise) == pytest.approx(margin, abs=0.65 * last_digit)


@pytest.mark.parametrize(("margin", "n"), [(0.05, 59), (0.02, 149), (0.01, 299), (0.10, 29)])
def test_cases_without_which_no_test_can_pass(margin: float, n: int) -> None:
    assert n_unchanged(margin) == n


@pytest.mark.parametrize(("loss", "gain"), [(0.05, 0.05), (0.10, 0.05), (0.0, 0.1), (0.06, 0.0)])
def test_probabilities_are_what_simulation_gives(loss: float, gain: float) -> None:
    rng = np.random.default_rng(1)
    n, reps = 120, 4000
    losses = rng.binomial(n, loss, reps)
    gains = rng.binomial(n - losses, gain / (1 - loss))
    drawn = list(zip(losses.tolist(), gains.tolist(), strict=True))
    failed = np.mean([mcnemar_p(*flips) <= 0.05 for flips in drawn])
    passed = np.mean([paired_binary_probability(*flips, n, 0.08) <= 0.05 for flips in drawn])
    assert fail_probability(n, loss, gain) == pytest.approx(failed, abs=0.025)
    assert pass_probability(n, loss, gain, 0.08) == pytest.approx(passed, abs=0.025)


def test_published_rates_at_n_200() -> None:
    assert fail_probability(200, 0.05, 0.05) == pytest.approx(0.033, abs=0.001)
    assert fail_probability(200, 0.10, 0.05) == pytest.approx(0.512, abs=0.006)
    assert pass_probability(200, 0.05, 0.05, 0.05) == pytest.approx(0.631, abs=0.003)
    assert pass_probability(200, 0.10, 0.05, 0.05) == pytest.approx(0.037, abs=0.003)


@LAW
@given(st.integers(2, 200), st.sampled_from([0.0, 0.01, 0.1, 0.3]))
def test_more_cases_see_less(n: int, noise: float) -> None:
    for smallest in (smallest_margin, smallest_regression):
        few, many = smallest(n, noise), smallest(2 * n + 20, noise)
        assert many <= few + 1e-3
        assert 0 < many <= 1


@LAW
@given(st.integers(10, 300), st.sampled_from([0.01, 0.1, 0.3]))
def test_smallest_margin_is_the_one_that_is_passed_often_enough(n: int, noise: float) -> None:
    margin = smallest_margin(n, noise)
    assert pass_probability(n, noise / 2, noise / 2, margin) >= 0.8
    assert pass_probability(n, noise / 2, noise / 2, margin - 0.003) < 0.8 or margin < 0.004


@pytest.mark.parametrize(
    ("margin", "noise"), [(0.05, 0.1), (0.05, 0.0), (0.02, 0.1), (0.1, 0.02), (0.01, 0.1)]
)
def test_n_needed_is_enough_and_hardly_more(margin: float, noise: float) -> None:
    n = n_needed(margin, noise)
    assert smallest_margin(n, noise) <= margin * 1.02
    assert smallest_margin(math.floor(0.95 * n), noise) >= margin * 0.99


def test_normal_formula_inverts() -> None:
    n = normal_n(0.1, 0.02)
    assert normal_effect(0.1, n) <= 0.02 < normal_effect(0.1, n - 1)
    assert normal_effect(0.1, 5000) == pytest.approx(0.0111, abs=1e-4)


def test_one_case_sees_nothing() -> None:
    assert smallest_regression(1, 0.1) == 1
    assert smallest_regression(4, 0.0) == 1  # 1/16 is above 0.05
    assert fail_probability(4, 1.0, 0.0) == 0
    assert fail_probability(5, 1.0, 0.0) == 1
    assert fail_probability(50, 0.0, 0.0) == 0


def test_report_says_what_clusters_leave() -> None:
    alone, clustered = power_report(200, 0.05), power_report(200, 0.05, design_effect=2.0)
    assert clustered.n_effective == 100
    assert (alone.n_unchanged, alone.noise) == (59, 0.10)
    assert clustered.smallest_margin == smallest_margin(100, 0.10) > alone.smallest_margin
    assert clustered.smallest_regression > alone.smallest_regression
    assert alone.n_needed == clustered.n_needed == n_needed(0.05, 0.10)


def test_refuses_a_gate_without_cases_or_margin() -> None:
    for n, margin in ((0, 0.05), (10, 0.0), (10, 1.0)):
        with pytest.raises(ValueError, match="margin between"):
            power_report(n, margin)
