"""The FAIL side: exact McNemar and sign flips, against scipy, full enumeration and simulated A/A."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from llmops.stats.sign_flips import mcnemar_p, sign_flip_p

Floats = npt.NDArray[np.float64]
LAW = settings(deadline=None, max_examples=60)
DIFFERENCES = st.lists(st.sampled_from([-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=10)


def enumerated(sums: list[float]) -> float:
    observed = sum(sums)
    flipped = [
        sum(sign * value for sign, value in zip(signs, sums, strict=True))
        for signs in product((-1, 1), repeat=len(sums))
    ]
    return sum(value <= observed + 1e-12 for value in flipped) / len(flipped)


@pytest.mark.parametrize(
    ("losses", "gains"), [(0, 0), (0, 3), (3, 0), (5, 0), (12, 4), (150, 86), (9000, 8800)]
)
def test_mcnemar_is_the_binomial_test_of_scipy(losses: int, gains: int) -> None:
    n = losses + gains
    expected = stats.binomtest(losses, n, 0.5, alternative="greater").pvalue if n else 1.0
    assert mcnemar_p(losses, gains) == pytest.approx(expected, rel=1e-10)


def test_mcnemar_is_that_of_statsmodels_from_both_sides() -> None:
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    for losses, gains in ((12, 4), (4, 12), (31, 17)):
        two_sided = tables.mcnemar([[50, losses], [gains, 30]], exact=True).pvalue
        assert min(1.0, 2 * min(mcnemar_p(losses, gains), mcnemar_p(gains, losses))) == pytest.approx(
            two_sided
        )


@LAW
@given(DIFFERENCES)
def test_few_cases_are_enumerated(differences: list[float]) -> None:
    assert sign_flip_p(differences, seed=0) == pytest.approx(enumerated(differences))


@LAW
@given(DIFFERENCES, st.integers(1, 4))
def test_clusters_flip_as_one(differences: list[float], n_clusters: int) -> None:
    labels = [i % n_clusters for i in range(len(differences))]
    sums = [
        sum(d for d, label in zip(differences, labels, strict=True) if label == g)
        for g in sorted(set(labels))
    ]
    assert sign_flip_p(differences, clusters=labels, seed=0) == pytest.approx(enumerated(sums))


@LAW
@given(DIFFERENCES)
def test_both_directions_and_the_tie_between_them_add_up(differences: list[float]) -> None:
    worse = sign_flip_p(differences, seed=0)
    better = sign_flip_p([-d for d in differences], seed=0)
    assert worse + better >= 1 - 1e-12


@LAW
@given(DIFFERENCES, st.integers(0, 9))
def test_a_case_that_falls_never_makes_a_regression_less_sure(differences: list[float], at: int) -> None:
    fallen = list(differences)
    fallen[at % len(fallen)] = -1.0
    assert sum(fallen) <= sum(differences)
    if differences[at % len(fallen)] <= 0:
        assert sign_flip_p(fallen, seed=0) <= sign_flip_p(differences, seed=0) + 1e-12


def test_0_1_scores_need_no_draws() -> None:
    differences = np.repeat([-1.0, 0.0, 1.0], [40, 900, 60])
    assert sign_flip_p(differences, seed=1) == mcnemar_p(40, 60)
    assert sign_flip_p(-0.3 * differences, seed=2) == mcnemar_p(60, 40)


@pytest.mark.parametrize("n", [20, 63, 400])
def test_draws_agree_with_the_permutation_test_of_scipy(n: int) -> None:
    differences = np.random.default_rng(n).normal(-0.15, 1, n)
    found = sign_flip_p(differences, seed=3)
    expected = stats.permutation_test(
        (differences, np.zeros(n)),
        lambda after, before, axis: (after - before).sum(axis=axis),
        permutation_type="samples",
        alternative="less",
        n_resamples=9999,
        rng=4,
    ).pvalue
    error = math.sqrt(2 * expected * (1 - expected) / 9999)
    assert found == pytest.approx(expected, abs=4 * error)


def test_one_seed_gives_one_p_value_and_order_changes_nothing() -> None:
    differences = np.random.default_rng(5).normal(size=200)
    assert sign_flip_p(differences, seed=6) == sign_flip_p(differences[::-1], seed=6)
    assert sign_flip_p(differences, seed=6) != sign_flip_p(differences, seed=7)


def test_draws_never_give_a_p_value_of_0() -> None:
    assert sign_flip_p(np.linspace(-1, -0.5, 200), resamples=999, seed=0) == 1 / 1000


def test_nothing_that_changed_proves_nothing() -> None:
    assert sign_flip_p(np.zeros(100), seed=0) == 1.0
    # Within a cluster a gain and a loss cancel: nothing is left to flip.
    assert sign_flip_p([0.1, 0.2, -0.3], clusters=["a"] * 3, seed=0) == 1.0


def test_fewer_than_five_changed_clusters_cannot_prove_a_regression() -> None:
    for n_clusters, can in ((4, False), (5, True)):
        labels = np.repeat(np.arange(n_clusters), 30)
        assert (sign_flip_p(np.full(labels.size, -1.0), clusters=labels, seed=0) <= 0.05) == can


@pytest.mark.parametrize("family", ["graded", "clustered"])
def test_an_unchanged_candidate_is_blocked_no_more_often_than_said(family: str) -> None:
    rng = np.random.default_rng(8)
    clusters = np.repeat(np.arange(25), 8) if family == "clustered" else None
    blocked, reps = 0, 400
    for seed in range(reps):
        differences = rng.integers(-4, 5, 200) / 4
        if clusters is not None:
            differences = np.repeat(rng.choice([-1.0, 1.0], 25), 8) * rng.random(200)
        blocked += sign_flip_p(differences, clusters=clusters, resamples=999, seed=seed) <= 0.05
    assert blocked / reps <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / reps)


def test_refuses_what_is_no_count_or_no_number() -> None:
    with pytest.raises(ValueError, match="counts"):
        mcnemar_p(-1, 2)
    with pytest.raises(ValueError, match=r"differences\[1\] is nan"):
        sign_flip_p([0.1, math.nan], seed=0)
    with pytest.raises(ValueError, match="one label"):
        sign_flip_p([0.1, 0.2], clusters=["a"], seed=0)
