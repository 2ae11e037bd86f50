"""Several tests at once, against statsmodels and by law."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmops.stats.multiplicity import benjamini_hochberg, fixed_sequence, holm

LAW = settings(deadline=None, max_examples=60)
P_VALUES = st.lists(st.floats(0, 1) | st.sampled_from([0.0, 0.01, 0.05, 1.0]), min_size=1, max_size=12)


@LAW
@given(P_VALUES)
def test_adjusted_values_are_those_of_statsmodels(p_values: list[float]) -> None:
    multipletests = pytest.importorskip("statsmodels.stats.multitest").multipletests
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])
    assert benjamini_hochberg(p_values) == pytest.approx(multipletests(p_values, method="fdr_bh")[1])


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.2]) == pytest.approx((0.04, 0.09, 0.09, 0.2))


@LAW
@given(P_VALUES)
def test_holm_stands_between_nothing_and_bonferroni(p_values: list[float]) -> None:
    adjusted = np.array(holm(p_values))
    assert (adjusted >= np.array(p_values)).all()
    assert (adjusted <= np.minimum(1, len(p_values) * np.array(p_values))).all()
    assert (np.array(benjamini_hochberg(p_values)) <= adjusted + 1e-12).all()


@LAW
@given(P_VALUES, st.randoms(use_true_random=False))
def test_order_of_metrics_changes_nothing(p_values: list[float], random: object) -> None:
    order = sorted(range(len(p_values)), key=lambda _: random.random())  # type: ignore[attr-defined]
    shuffled = holm([p_values[at] for at in order])
    assert shuffled == pytest.approx([holm(p_values)[at] for at in order])


@pytest.mark.parametrize(
    ("p_values", "proved"), [([0.01, 0.05, 0.2, 0.001], 2), ([0.06, 0.001], 0), ([0.02, 0.03], 2), ([], 0)]
)
def test_a_fixed_sequence_ends_where_the_first_claim_is_not_proved(
    p_values: list[float], proved: int
) -> None:
    assert fixed_sequence(p_values, 0.05) == proved


def test_no_test_needs_no_correction() -> None:
    assert holm([]) == benjamini_hochberg([]) == ()


@pytest.mark.parametrize("correct", [holm, benjamini_hochberg])
def test_refuses_what_is_no_p_value(correct: object) -> None:
    for p_values in ([0.1, 1.1], [-0.1], [float("nan")]):
        with pytest.raises(ValueError, match=r"p.values"):
            correct(p_values)  # type: ignore[operator]
