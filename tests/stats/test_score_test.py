"""Tango's score test, against a direct maximisation of the likelihood and the published error rates."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from llmops.stats.score_test import score_lower_bound, score_p

LAW = settings(deadline=None, max_examples=60)


def by_likelihood(losses: int, gains: int, n: int, margin: float) -> float:
    """The same test with the restricted estimate found numerically."""

    def against(share: float) -> float:
        ties = 1 - 2 * share + margin
        return -(
            losses * math.log(share)
            + gains * math.log(share - margin)
            + (n - losses - gains) * math.log(ties)
        )

    ends = margin + 1e-12, (1 + margin) / 2 - 1e-12
    share = optimize.minimize_scalar(against, bounds=ends, method="bounded", options={"xatol": 1e-12}).x
    variance = n * (2 * share - margin - margin**2)
    return float(stats.norm.sf((gains - losses + n * margin) / math.sqrt(variance)))


@pytest.mark.parametrize(("losses", "gains", "n"), [(3, 2, 100), (10, 10, 200), (30, 5, 90), (1, 40, 60)])
@pytest.mark.parametrize("margin", [0.02, 0.05, 0.2])
def test_restricted_estimate_is_the_most_likely_one(losses: int, gains: int, n: int, margin: float) -> None:
    expected = by_likelihood(losses, gains, n, margin)
    assert score_p(losses, gains, n, margin) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("n", "margin", "published"), [(50, 0.05, 0.052), (200, 0.02, 0.050), (200, 0.05, 0.051)]
)
def test_false_pass_at_the_margin_is_as_published(n: int, margin: float, published: float) -> None:
    passes = np.array(
        [
            [score_p(a, b, n, margin) <= 0.05 if a + b <= n else False for b in range(n + 1)]
            for a in range(n // 2)
        ]
    )
    rates = []
    for gain in np.linspace(0, (0.5 - margin) / 2, 60):
        loss = margin + gain
        losses, gains = np.meshgrid(np.arange(n // 2), np.arange(n + 1), indexing="ij")
        mass = stats.binom.pmf(losses, n, loss) * stats.binom.pmf(gains, n - losses, gain / (1 - loss))
        rates.append(float(np.nan_to_num(mass[passes]).sum()))
    assert max(rates) == pytest.approx(published, abs=0.002)


@LAW
@given(st.integers(1, 300), st.data())
def test_a_wider_margin_is_easier(n: int, data: st.DataObject) -> None:
    losses = data.draw(st.integers(0, n))
    gains = data.draw(st.integers(0, n - losses))
    p_values = [score_p(losses, gains, n, margin) for margin in (-0.3, 0.0, 0.01, 0.05, 0.3)]
    assert p_values == sorted(p_values, reverse=True)


@LAW
@given(st.integers(2, 300), st.data())
def test_bound_is_where_the_p_value_reaches_alpha(n: int, data: st.DataObject) -> None:
    losses = data.draw(st.integers(0, n))
    gains = data.draw(st.integers(0, n - losses))
    bound = score_lower_bound(losses, gains, n, 0.05)
    assert -1 <= bound <= (gains - losses) / n + 1e-9
    if -1 + 1e-9 < bound < 1 - 1e-9:
        assert (
            score_p(losses, gains, n, -bound + 1e-6)
            <= 0.05
            <= score_p(losses, gains, n, -bound - 1e-6) + 1e-9
        )


def test_unchanged_cases_still_need_a_number_of_them() -> None:
    assert score_p(0, 0, 20, 0.05) > 0.05
    assert score_p(0, 0, 60, 0.05) < 0.05
    assert score_p(0, 0, 60, 0.0) == 0.5


def test_refuses_what_does_not_fit() -> None:
    for losses, gains, n in ((1, 1, 1), (-1, 0, 5), (0, 0, 0)):
        with pytest.raises(ValueError, match="do not fit"):
            score_p(losses, gains, n, 0.05)
    with pytest.raises(ValueError, match="margin"):
        score_p(1, 1, 5, 1.0)
    with pytest.raises(ValueError, match="alpha"):
        score_lower_bound(1, 1, 5, 0.0)
