"""Betting: what wealth may say at any time, and what it may not."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmops.stats.betting import Wealth, betting_lower_bound, betting_p, metrics_e, shards_e

Floats = npt.NDArray[np.float64]
LAW = settings(deadline=None, max_examples=60)
DIFFERENCES = st.lists(st.floats(-1, 1), min_size=1, max_size=40)


def by_hand(differences: list[float], margin: float, effect: float) -> tuple[float, float]:
    """The two products of the formula, one case at a time."""
    e_pass = e_fail = 1.0
    squares = [0.25]
    for d in differences:
        v = sum(squares) / len(squares)
        e_pass *= 1 + min(0.9 / (1 - margin), margin / (v + margin**2)) * (d + margin)
        e_fail *= 1 - min(0.9, effect / (v + effect**2)) * d
        squares.append(d * d)
    return e_pass, e_fail


@LAW
@given(DIFFERENCES, st.sampled_from([0.02, 0.05, 0.3]))
def test_wealth_is_the_product_of_the_formula(differences: list[float], margin: float) -> None:
    wealth = Wealth(margin, 2 * margin).after(differences)
    e_pass, e_fail = by_hand(differences, margin, 2 * margin)
    assert math.exp(wealth.log_pass) == pytest.approx(e_pass)
    assert math.exp(wealth.log_fail) == pytest.approx(e_fail)


@LAW
@given(DIFFERENCES, st.integers(0, 40))
def test_wealth_does_not_mind_where_a_stream_is_cut(differences: list[float], cut: int) -> None:
    cut = min(cut, len(differences) - 1)
    whole = Wealth(0.05, 0.1).after(differences)
    parts = Wealth(0.05, 0.1)
    for part in (differences[:cut], differences[cut:]):
        parts = parts.after(part) if part else parts
    assert parts.n == whole.n
    assert (parts.log_pass, parts.log_fail) == pytest.approx((whole.log_pass, whole.log_fail))


@pytest.mark.parametrize(("drift", "expected"), [(0.0, "pass"), (-0.3, "fail")])
def test_a_stream_comes_to_a_verdict(drift: float, expected: str) -> None:
    rng = np.random.default_rng(1)
    wealth = Wealth(0.05, 0.1)
    assert wealth.verdict(0.05) == "open"
    verdict = "open"
    for _ in range(400):
        wealth = wealth.after(np.clip(rng.normal(drift, 0.2, 10), -1, 1))
        verdict = wealth.verdict(0.05)
        if verdict != "open":
            break
    assert verdict == expected


def test_looking_after_every_case_errs_no_more_often_than_said() -> None:
    rng = np.random.default_rng(2)
    reps, passed, failed = 400, 0, 0
    for _ in range(reps):
        at_margin = rng.choice([-1.0, 0.0, 1.0], 600, p=[0.10, 0.85, 0.05])
        unchanged = rng.choice([-1.0, 0.0, 1.0], 600, p=[0.05, 0.90, 0.05])
        passed += betting_p(at_margin, 0.05, seed=0) <= 0.05  # the most it ever had: a look after every case
        wealth, most = Wealth(0.05, 0.1), 0.0
        for part in np.split(unchanged, 60):
            wealth = wealth.after(part)
            most = max(most, wealth.log_fail)
        failed += most >= math.log(20)
    assert max(passed, failed) / reps <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / reps)


def test_an_unchanged_candidate_passes_as_often_as_published() -> None:
    rng = np.random.default_rng(3)
    draws = rng.choice([-1.0, 0.0, 1.0], (500, 200), p=[0.05, 0.90, 0.05])
    passed = np.mean([betting_p(drawn, 0.05, seed=seed) <= 0.05 for seed, drawn in enumerate(draws)])
    assert passed == pytest.approx(0.395, abs=3 * math.sqrt(0.4 * 0.6 / 500))


@LAW
@given(DIFFERENCES, st.sampled_from([0.02, 0.05, 0.3]), st.sampled_from([0.01, 0.05, 0.2]))
def test_bound_clears_the_margin_exactly_when_the_p_value_does(
    differences: list[float], margin: float, alpha: float
) -> None:
    bound = betting_lower_bound(differences, margin, alpha, seed=1)
    p_value = betting_p(differences, margin, seed=1)
    if p_value < alpha * (1 - 1e-9):
        assert bound >= -margin - 1e-9
    if p_value > alpha * (1 + 1e-9):
        assert bound <= -margin + 1e-9


def test_shards_multiply_and_metrics_average() -> None:
    assert shards_e([2.0, 3.0, 4.0]) == 24
    assert metrics_e([2.0, 4.0]) == 3
    with pytest.raises(ValueError, match="no e-value"):
        metrics_e([])


def test_refuses_what_is_out_of_range() -> None:
    with pytest.raises(ValueError, match="shares of the range"):
        Wealth(0.05, 0.1).after([1.5])
    with pytest.raises(ValueError, match="shares of the range"):
        Wealth(0.0, 0.1)
    with pytest.raises(ValueError, match="margin"):
        betting_p([0.1], 1.0, seed=0)
    with pytest.raises(ValueError, match="alpha"):
        betting_lower_bound([0.1], 0.05, 1.0, seed=0)
