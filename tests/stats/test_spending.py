"""The levels of planned looks, against the published ones and the multivariate normal of scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from llmops.stats.spending import nominal_levels, spent

PUBLISHED = {
    5: (0.00385, 0.00694, 0.01245, 0.02172, 0.03697),
    10: (0.00173, 0.00252, 0.00368, 0.00527, 0.00740, 0.01021, 0.01390, 0.01870, 0.02493, 0.03297),
}


def crossing_probability(fractions: tuple[float, ...], levels: tuple[float, ...]) -> float:
    """P(some look crosses) by the joint law of the looks."""
    correlation = [[(min(a, b) / max(a, b)) ** 0.5 for b in fractions] for a in fractions]
    law = stats.multivariate_normal(
        np.zeros(len(fractions)), correlation, maxpts=2_000_000, abseps=1e-8, releps=1e-8, seed=1
    )
    return float(1 - law.cdf(stats.norm.isf(levels)))


@pytest.mark.parametrize("k", [5, 10])
def test_levels_are_the_published_ones(k: int) -> None:
    fractions = tuple(look / k for look in range(1, k + 1))
    assert nominal_levels(fractions, 0.05) == pytest.approx(PUBLISHED[k], abs=5.1e-6)


@pytest.mark.parametrize(
    "fractions", [(0.5, 1.0), (0.2, 0.5, 1.0), (0.31, 0.6, 0.62, 1.0), (0.02, 0.97, 1.0), (0.3, 0.6)]
)
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_looks_together_spend_what_is_due(fractions: tuple[float, ...], alpha: float) -> None:
    due = spent(fractions[-1], alpha)
    assert crossing_probability(fractions, nominal_levels(fractions, alpha)) == pytest.approx(due, abs=1e-6)


def test_one_look_at_all_cases_has_all_of_alpha() -> None:
    assert nominal_levels((1.0,), 0.05) == pytest.approx((0.05,))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 100), min_size=1, max_size=6, unique=True), st.sampled_from([0.05, 0.001]))
def test_a_level_depends_on_earlier_looks_only(hundredths: list[int], alpha: float) -> None:
    fractions = tuple(at / 100 for at in sorted(hundredths))
    levels = nominal_levels(fractions, alpha)
    assert all(0 < level <= alpha for level in levels)
    for k in range(1, len(fractions)):
        assert nominal_levels(fractions[:k], alpha) == levels[:k]


@pytest.mark.parametrize("fractions", [(0.2, 0.6, 1.0), (0.5, 0.5001, 1.0), (0.999, 1.0)])
def test_strict_levels_are_safe_whatever_the_joint_law(fractions: tuple[float, ...]) -> None:
    assert sum(nominal_levels(fractions, 0.05, strict=True)) == pytest.approx(0.05)


@pytest.mark.parametrize("fractions", [(0.5, 0.5001, 1.0), (0.999, 1.0)])
def test_looks_next_to_each_other_spend_no_more_than_is_due(fractions: tuple[float, ...]) -> None:
    assert crossing_probability(fractions, nominal_levels(fractions, 0.05)) <= 0.05 + 1e-6


def test_refuses_looks_that_do_not_go_on() -> None:
    for fractions in ((), (0.5, 0.5), (0.0, 1.0), (0.6, 0.2)):
        with pytest.raises(ValueError, match="rise"):
            nominal_levels(fractions, 0.05)
    with pytest.raises(ValueError, match="fraction"):
        nominal_levels((0.5, 1.2), 0.05)
    with pytest.raises(ValueError, match="alpha"):
        spent(0.5, 1.0)
