"""Corpus figures against sacrebleu's own, many corpora at once, and at their edges."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu import BLEU

from llmops.stats import corpus
from llmops.stats.bootstrap import of_sums, percentile_interval

COUNTS = st.integers(0, 40)


@st.composite
def bleu_counts(draw: st.DrawFn) -> list[int]:
    """What a corpus can add up to: each order has fewer n-grams than the one before, and no more matches."""
    totals = sorted(draw(st.lists(COUNTS, min_size=4, max_size=4)), reverse=True)
    matches = [draw(st.integers(0, total)) for total in totals]
    return [totals[0], draw(COUNTS), *sorted(matches, reverse=True), *totals]


@given(st.lists(bleu_counts(), min_size=1, max_size=5))
def test_bleu_is_that_of_sacrebleu_for_each_row(rows: list[list[int]]) -> None:
    found = corpus.bleu(np.array(rows, dtype=np.float64))
    wanted = [BLEU.compute_bleu(row[2:6], row[6:], row[0], row[1], smooth_method="exp").score for row in rows]
    assert found == pytest.approx(wanted, abs=1e-9)


def test_bleu_of_known_counts() -> None:
    # Half of all n-grams match and one word in eleven is missing: 50 x exp(1 - 11 / 10).
    found = corpus.bleu(np.array([[10, 11, 5, 4, 3, 2, 10, 8, 6, 4]], dtype=np.float64))
    assert found.tolist() == pytest.approx([50 * np.exp(-0.1)])


@pytest.mark.parametrize(
    "row", [[0, 5] + 8 * [0], [3, 3, 0, 0, 0, 0, 3, 2, 1, 0], [3, 3, 3, 2, 1, 0, 3, 2, 1, 0]]
)
def test_bleu_is_0_without_a_match_and_without_a_sentence_of_four_words(row: list[float]) -> None:
    assert corpus.bleu(np.array([row], dtype=np.float64)).tolist() == [0.0]


def test_chrf_weighs_recall_as_four_times_precision() -> None:
    # Precision 3/4 and recall 3/6 in one order, none of the other on one side: 5 pr / (4p + r).
    found = corpus.chrf(np.array([[4, 6, 3, 0, 2, 0], [4, 6, 3, 0, 0, 0]], dtype=np.float64))
    assert found.tolist() == pytest.approx(2 * [100 * 5 * 0.75 * 0.5 / (4 * 0.75 + 0.5)])


def test_chrf_is_0_without_a_match_and_without_anything() -> None:
    assert corpus.chrf(np.array([[4, 6, 0], [0, 0, 0]], dtype=np.float64)).tolist() == [0.0, 0.0]


def test_ter_is_edits_for_each_hundred_words_and_has_no_upper_end() -> None:
    rows = np.array([[3, 4], [9, 4], [0, 4], [2, 0], [0, 0]], dtype=np.float64)
    assert corpus.ter(rows).tolist() == [75.0, 225.0, 0.0, 100.0, 0.0]


@given(st.lists(st.tuples(COUNTS, st.integers(1, 40)), min_size=2, max_size=8), st.data())
def test_a_weight_counts_a_case_so_often(cases: list[Any], data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.integers(0, 3), min_size=len(cases), max_size=len(cases)))
    statistic = of_sums(np.array(cases, dtype=np.float64), corpus.ter)
    repeated = [case for case, n in zip(cases, weights, strict=True) for _ in range(n)] or [(0, 0)]
    total = np.array(repeated, dtype=np.float64).sum(axis=0, keepdims=True)
    assert statistic(np.array([weights])).tolist() == pytest.approx(corpus.ter(total).tolist())


def test_an_interval_of_a_corpus_covers_the_true_figure_nine_times_in_ten() -> None:
    """TER of sentences of all lengths with two edits in five words on average, so 40 by construction."""
    random = np.random.default_rng(5)
    lengths = random.integers(5, 40, (300, 120)).astype(np.float64)
    edits = random.binomial(lengths.astype(int), random.beta(2, 3, lengths.shape)).astype(np.float64)
    n_covered = 0
    for turn in range(300):
        sums = np.column_stack([edits[turn], lengths[turn]])
        low, high = percentile_interval(of_sums(sums, corpus.ter), 120, level=0.9, resamples=400, seed=turn)
        n_covered += low <= 40.0 <= high
    assert 0.85 <= n_covered / 300 <= 0.95
