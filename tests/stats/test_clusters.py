"""The CR2 variance of a mean and its degrees of freedom, against the matrices they are short for."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmops.stats.clusters import ClusteredMean, clustered_mean, effective_clusters

Floats = npt.NDArray[np.float64]
LAW = settings(deadline=None, max_examples=60)
SIZES = st.lists(st.integers(1, 12), min_size=2, max_size=10)


def by_matrices(values: Floats, labels: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Bell and McCaffrey's estimator for the regression on a constant, as it is defined."""
    n = values.size
    centring = np.eye(n) - np.ones((n, n)) / n
    residuals = centring @ values
    variance, columns = 0.0, []
    for label in np.unique(labels):
        own = labels == label
        eigenvalues, vectors = np.linalg.eigh(centring[np.ix_(own, own)])
        adjusted = (vectors / np.sqrt(eigenvalues)) @ vectors.T @ np.ones(own.sum()) / n
        variance += float(adjusted @ residuals[own]) ** 2
        columns.append(centring[:, own] @ adjusted)
    gram = np.array(columns) @ np.array(columns).T
    return variance, float(np.trace(gram) ** 2 / np.trace(gram @ gram))


def estimate(values: Floats, labels: npt.NDArray[np.int64] | None = None) -> ClusteredMean:
    found = clustered_mean(values, labels)
    assert found is not None
    return found


@LAW
@given(SIZES, st.integers(0, 2**32))
def test_sums_agree_with_the_matrices_they_are_short_for(sizes: list[int], seed: int) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    values = np.random.default_rng(seed).normal(size=labels.size)
    variance, df = by_matrices(values, labels)
    found = estimate(values, labels)
    assert (found.variance, found.df) == pytest.approx((variance, df))


def test_single_cases_give_the_textbook_variance_of_a_mean() -> None:
    values = np.random.default_rng(1).normal(size=10_000)
    found = estimate(values)
    assert found.variance == pytest.approx(values.var(ddof=1) / 10_000)
    assert found.df == pytest.approx(9_999)


@pytest.mark.parametrize(("n_clusters", "size"), [(2, 1), (2, 50), (8, 25), (200, 5)])
def test_equal_clusters_are_worth_their_number(n_clusters: int, size: int) -> None:
    assert effective_clusters(np.repeat(np.arange(n_clusters), size)) == pytest.approx(n_clusters)


@LAW
@given(SIZES)
def test_unequal_clusters_are_worth_at_most_their_number(sizes: list[int]) -> None:
    worth = effective_clusters([f"doc-{g}" for g, size in enumerate(sizes) for _ in range(size)])
    assert 2 - 1e-9 <= worth <= len(sizes) + 1e-9


def test_a_dominant_cluster_leaves_few_effective_ones() -> None:
    sizes = [100, *[5] * 20]
    assert effective_clusters(np.repeat(np.arange(21), sizes)) < 8
    # Two clusters are worth two however unequal; rounding must not eat the small one.
    assert effective_clusters(np.repeat([0, 1], [9_999, 1])) == pytest.approx(2)


def test_a_single_cluster_has_no_variance_to_show() -> None:
    assert clustered_mean([0.1, 0.2, 0.9], ["a", "a", "a"]) is None
    assert clustered_mean([0.1]) is None
    assert effective_clusters(["a", "a", "a"]) == 1


def test_labels_are_names_only() -> None:
    values = [0.1, 0.4, 0.9, 0.3, 0.2]
    named = clustered_mean(values, ["b", "a", "b", "c", "a"])
    assert named == clustered_mean(values, np.array([1, 0, 1, 2, 0]))


def test_refuses_labels_that_are_not_one_a_case() -> None:
    with pytest.raises(ValueError, match="one label"):
        clustered_mean([0.1, 0.2], ["a"])
    with pytest.raises(ValueError, match="at least one label"):
        effective_clusters([])


def test_equal_clusters_have_the_variance_of_statsmodels() -> None:
    api = pytest.importorskip("statsmodels.api")
    labels = np.repeat(np.arange(25), 8)
    values = np.random.default_rng(2).normal(size=25)[labels] + np.random.default_rng(3).normal(size=200)
    fitted = api.OLS(values, np.ones(200)).fit(cov_type="cluster", cov_kwds={"groups": labels})
    found = estimate(values, labels)
    # CR1 and CR2 are one where clusters are equal: G / (G - 1) is 1 / (1 - n_g / n).
    assert (found.mean, found.variance) == pytest.approx((fitted.params[0], fitted.cov_params()[0, 0]))
