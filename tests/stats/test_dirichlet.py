"""The bound with one worst-case unit, against closed forms, direct simulation and exact enumeration."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from llmops.stats.dirichlet import lower_bound, probability_at_most

Floats = npt.NDArray[np.float64]
LAW = settings(deadline=None, max_examples=60)
SCORES = st.lists(st.floats(0, 1) | st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=40)


def differences(n: int, losses: int, gains: int) -> Floats:
    return np.repeat([-1.0, 0.0, 1.0], [losses, n - losses - gains, gains])


def simulated(values: Floats, worst: float, threshold: float, draws: int = 200_000) -> float:
    weights = np.random.default_rng(7).dirichlet(np.ones(values.size + 1), draws)
    return float((weights @ np.append(values, worst) <= threshold).mean())


@pytest.mark.parametrize(
    ("passed", "n"), [(0, 1), (1, 1), (0, 12), (7, 12), (12, 12), (190, 200), (9_999, 10_000)]
)
@pytest.mark.parametrize("alpha", [0.05, 0.005])
def test_binary_bound_is_clopper_pearson(passed: int, n: int, alpha: float) -> None:
    values = np.repeat([1.0, 0.0], [passed, n - passed])
    expected = stats.beta.ppf(alpha, passed, n - passed + 1) if passed else 0.0
    assert lower_bound(values, 0, alpha) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("n", "losses", "gains"), [(9, 3, 6), (50, 1, 8), (50, 0, 5), (944, 86, 150), (9_000, 40, 70)]
)
def test_paired_binary_at_no_margin_is_exact_mcnemar(n: int, losses: int, gains: int) -> None:
    expected = stats.binomtest(gains, losses + gains, 0.5, alternative="greater").pvalue
    assert probability_at_most(differences(n, losses, gains), -1, 0) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("margin", "needed"), [(0.01, 299), (0.02, 149), (0.05, 59), (0.10, 29)])
def test_unchanged_cases_exclude_a_margin_from_the_published_number_on(margin: float, needed: int) -> None:
    assert needed == math.ceil(math.log(0.05) / math.log(1 - margin))
    assert probability_at_most(np.zeros(needed), -1, -margin) <= 0.05
    assert probability_at_most(np.zeros(needed - 1), -1, -margin) > 0.05


def test_losses_without_gains_follow_the_binomial_tail() -> None:
    found = probability_at_most(differences(200, 3, 0), -1, -0.05)
    assert found == pytest.approx(stats.binom.cdf(3, 200, 0.05), rel=1e-12)


@pytest.mark.parametrize(
    ("n", "losses", "gains", "margin"),
    [(20, 0, 1, 0.05), (50, 3, 2, 0.05), (300, 30, 25, 0.03), (40, 20, 19, 0.2), (40, 1, 38, -0.8)],
)
def test_three_values_agree_with_direct_simulation(n: int, losses: int, gains: int, margin: float) -> None:
    values = differences(n, losses, gains)
    assert probability_at_most(values, -1, -margin) == pytest.approx(
        simulated(values, -1, -margin), abs=0.005
    )


@pytest.mark.parametrize("n", [3, 4, 10, 60])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 1.0, 1.1])
def test_graded_values_agree_with_direct_simulation(n: int, share: float) -> None:
    values = np.random.default_rng(n).beta(4, 1, n)
    threshold = share * (values.sum() / (n + 1))
    assert probability_at_most(values, 0, threshold) == pytest.approx(
        simulated(values, 0, threshold), rel=0.03, abs=0.005
    )


@pytest.mark.parametrize(("n", "losses", "gains"), [(30, 2, 3), (200, 8, 12), (10_000, 300, 200)])
def test_saddlepoint_stays_within_its_error_of_the_quadrature(n: int, losses: int, gains: int) -> None:
    values = differences(n, losses, gains)
    nearly = values.copy()
    nearly[losses] = 1e-9  # a fourth value, so that the saddlepoint answers for the same data
    for threshold in (lower_bound(values, -1, 0.05), (gains - losses - 1) / (n + 1)):
        assert probability_at_most(nearly, -1, threshold) == pytest.approx(
            probability_at_most(values, -1, threshold), rel=0.05
        )


def test_saddlepoint_has_no_seam_where_the_threshold_crosses_the_mean() -> None:
    values = np.random.default_rng(3).random(500)
    mean = values.sum() / 501
    found = [probability_at_most(values, 0, mean + step) for step in np.linspace(-2e-6, 2e-6, 41)]
    steps = np.diff(found)
    assert steps.min() > 0
    assert steps.max() < 1.2 * steps.min()


@pytest.mark.parametrize(
    ("values", "threshold", "expected"),
    [
        ([0.0, 0.0], 0.0, 1.0),
        ([0.0, 0.0], -0.1, 0.0),
        ([0.5], 0.0, 0.0),
        ([0.5], 0.5, 1.0),
        ([0.5], 0.25, 0.5),
    ],
)
def test_ends_and_single_cases_are_exact(values: list[float], threshold: float, expected: float) -> None:
    assert probability_at_most(values, 0, threshold) == pytest.approx(expected)


def test_values_that_are_all_the_worst_bound_nothing() -> None:
    assert lower_bound([0.25] * 50, 0.25, 0.05) == 0.25


def test_equal_values_leave_room_for_the_unseen() -> None:
    assert lower_bound([0.8] * 20, 0, 0.05) == pytest.approx(0.8 * 0.05 ** (1 / 20))


@LAW
@given(SCORES, st.sampled_from([0.01, 0.05, 0.2]))
def test_bound_is_where_the_probability_reaches_alpha(values: list[float], alpha: float) -> None:
    bound = lower_bound(values, -0.5, alpha)
    assert -0.5 < bound < max(values) + 1e-12
    assert probability_at_most(values, -0.5, bound) == pytest.approx(alpha, abs=1e-6)


@LAW
@given(SCORES, st.randoms(use_true_random=False))
def test_order_changes_nothing(values: list[float], random: object) -> None:
    shuffled = sorted(values, key=lambda _: random.random())  # type: ignore[attr-defined]
    assert lower_bound(shuffled, 0, 0.05) == lower_bound(values, 0, 0.05)


@LAW
@given(SCORES, st.floats(-3, 3), st.floats(0.1, 100))
def test_bound_moves_with_the_units(values: list[float], shift: float, scale: float) -> None:
    moved = lower_bound([shift + scale * value for value in values], shift - 0.1 * scale, 0.05)
    assert moved == pytest.approx(shift + scale * lower_bound(values, -0.1, 0.05), abs=1e-6 * scale)


@LAW
@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=40), st.floats(0, 1))
def test_a_worse_worst_case_never_raises_the_bound(values: list[float], further: float) -> None:
    assert lower_bound(values, -further, 0.05) <= lower_bound(values, 0, 0.05) + 1e-9


def least_gains(n: int, margin: float) -> list[int]:
    """For 0, 1, ... losses, the fewest gains that exclude the margin, as long as there are any."""
    found: list[int] = []
    gains = 0
    for losses in range(n + 1):
        while losses + gains <= n and probability_at_most(differences(n, losses, gains), -1, -margin) > 0.05:
            gains += 1
        if losses + gains > n:
            break
        found.append(gains)
    return found


def pass_probability(n: int, least: list[int], loss: float, gain: float) -> float:
    losses = np.arange(len(least))
    enough_gains = stats.binom.sf(np.array(least) - 1, n - losses, gain / (1 - loss))
    return float(stats.binom.pmf(losses, n, loss) @ enough_gains)


@pytest.mark.parametrize(
    ("n", "margin", "published"),
    [(20, 0.05, 0.028), (50, 0.02, 0.032), (50, 0.05, 0.033), (200, 0.05, 0.041)],
)
def test_false_pass_at_the_margin_is_as_published(n: int, margin: float, published: float) -> None:
    least = least_gains(n, margin)
    half = [pass_probability(n, least, margin + x, x) for x in np.linspace(0, (0.5 - margin) / 2, 200)]
    assert max(half) == pytest.approx(published, abs=0.0006)
    beyond = [pass_probability(n, least, margin + x, x) for x in np.linspace(0, (1 - margin) / 2 - 1e-9, 200)]
    assert max(beyond) <= 0.05


@pytest.mark.parametrize("margin", [0.01, 0.1, 0.2, 0.5])
@pytest.mark.parametrize("n", [3, 8, 9, 15, 28])
def test_small_samples_never_pass_too_often(n: int, margin: float) -> None:
    least = least_gains(n, margin)
    worst = max(
        pass_probability(n, least, margin + x, x) for x in np.linspace(0, (1 - margin) / 2 - 1e-9, 100)
    )
    assert worst <= 0.05


@pytest.mark.parametrize(("n", "margin", "published"), [(200, 0.05, 0.631), (1000, 0.02, 0.602)])
def test_unchanged_candidate_passes_as_often_as_published(n: int, margin: float, published: float) -> None:
    assert pass_probability(n, least_gains(n, margin), 0.05, 0.05) == pytest.approx(published, abs=0.0006)


@pytest.mark.parametrize("values", [[], [[0.1, 0.2]], [0.1, math.nan], [math.inf], [-0.1]])
def test_refuses_what_cannot_be_bounded(values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"values|worst"):
        lower_bound(values, 0, 0.05)
    with pytest.raises(ValueError, match=r"values|worst"):
        probability_at_most(values, 0, 0.5)


@pytest.mark.parametrize("number", [-0.1, 0.0, 1.0, math.nan])
def test_refuses_an_alpha_out_of_range(number: float) -> None:
    with pytest.raises(ValueError, match="alpha"):
        lower_bound([0.5], 0, number)


def test_refuses_a_threshold_or_worst_case_that_is_not_finite() -> None:
    with pytest.raises(ValueError, match="threshold"):
        probability_at_most([0.5], 0, math.nan)
    with pytest.raises(ValueError, match="worst"):
        lower_bound([0.5], -math.inf, 0.05)
