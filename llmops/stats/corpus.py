"""BLEU, chrF and TER of a whole corpus, from what its cases add up to: many resamples at once, no text touched again.

The formulas are sacrebleu's, whose own take one corpus at a time; counting what cases add up is left to its metrics.
"""

from __future__ import annotations

import numpy as np

from llmops.stats.arrays import Floats

BLEU_ORDER = 4
_CHRF_BETA = 2


def bleu(totals: Floats) -> Floats:
    """Return BLEU between 0 and 100, shape (rows,).

    totals: shape (rows, 10): words of the outputs, words of the closest references, then the n-grams that match
    and the n-grams there are, n = 1 to 4.

    Papineni et al. (2002); an order without a match counts half of the one before it (NIST's smoothing, `exp`).
    """
    n_words, n_expected = totals[:, 0], totals[:, 1]
    matches, found = totals[:, 2 : 2 + BLEU_ORDER], totals[:, 2 + BLEU_ORDER :]
    is_bare = matches == 0
    smoothed = np.where(is_bare, 0.5 ** np.cumsum(is_bare, axis=1), matches)
    has_score = np.asarray(matches.any(axis=1) & (found > 0).all(axis=1))
    precisions = np.where(has_score[:, np.newaxis], smoothed / np.maximum(found, 1), 1.0)
    brevity = np.minimum(0.0, 1 - n_expected / np.maximum(n_words, 1))
    return np.asarray(np.where(has_score, 100 * np.exp(brevity + np.log(precisions).mean(axis=1)), 0.0))


def chrf(totals: Floats) -> Floats:
    """Return chrF between 0 and 100, shape (rows,); chrF++ where word n-grams are among the orders.

    totals: shape (rows, 3 x orders): of each order the n-grams of the outputs, of the references, of both.

    Popović (2015, 2017), beta 2, over the orders that output and reference both have.
    """
    counts = totals.reshape(len(totals), -1, 3)
    there, expected, matches = (counts[:, :, column] for column in range(3))
    is_known = (there > 0) & (expected > 0)
    n_known = np.maximum(is_known.sum(axis=1), 1)
    precision = np.where(is_known, matches / np.maximum(there, 1), 0.0).sum(axis=1) / n_known
    recall = np.where(is_known, matches / np.maximum(expected, 1), 0.0).sum(axis=1) / n_known
    weight = _CHRF_BETA**2
    below = weight * precision + recall
    has_score = below > 0
    score = (1 + weight) * precision * recall / np.where(has_score, below, 1.0)
    return np.asarray(np.where(has_score, 100 * score, 0.0))


def ter(totals: Floats) -> Floats:
    """Return TER, 0 and up, shape (rows,): edits for each 100 words of the references.

    totals: shape (rows, 2): edits, and words of the references.

    Snover et al. (2006); without a word to compare with, 100 as soon as there is an edit.
    """
    edits, n_expected = totals[:, 0], totals[:, 1]
    has_words = n_expected > 0
    ratio = np.where(has_words, edits / np.where(has_words, n_expected, 1.0), edits > 0)
    return np.asarray(100 * ratio)
