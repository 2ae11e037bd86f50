"""Figures over all cases, paired: against sacrebleu and scikit-learn, by law, and by simulation."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from llmops.evaluators import open_evaluator
from llmops.evaluators.base import Subject
from llmops.score.paired import PairedFigure, PairedSums, pair_sums
from llmops.score.summary import Ledger, Sums

REFERENCES = ["the cat sat on the mat", "it rains in spain", "prices rose again in may", "nobody was there"]
OLD = ["a cat sat on a mat", "it rains in the plain", "prices fell", ""]
NEW = ["the cat sat on the mat", "it is raining in spain", "the prices rose in may", "there was nobody"]


def ledger(kind: str, outputs: Mapping[int, Sequence[str]], expected: Sequence[str] = REFERENCES) -> Ledger:
    """Return what an evaluator says of the outputs of each case, one a repeat."""
    found = Ledger()
    evaluator: Any = open_evaluator(kind, {})
    for place, repeats in outputs.items():
        for output in repeats:
            subject = Subject(f"c{place}", {}, output, expected[place])
            said = asyncio.run(evaluator.judge(subject))
            found.add(place, Sums(said.value, said.label, said.truth, said.sums))
    return found


def once(outputs: Sequence[str]) -> dict[int, list[str]]:
    return {place: [output] for place, output in enumerate(outputs)}


def paired(kind: str, old: Ledger, new: Ledger, n: int = 4) -> PairedSums:
    evaluator: Any = open_evaluator(kind, {})
    pairs = {place: place for place in range(n)}
    return pair_sums(evaluator, (old, new), (pairs, pairs))


def only(sums: PairedSums, clusters: Sequence[str] | None = None, level: float = 0.9) -> PairedFigure:
    (figure,) = sums.figures(clusters, level=level, seed=3)
    return figure


@pytest.mark.parametrize("kind", ["bleu", "chrf", "ter"])
def test_both_sides_are_the_corpus_figures_of_the_cases_that_both_have(kind: str) -> None:
    metric: Any = {"bleu": sacrebleu.BLEU, "chrf": sacrebleu.CHRF, "ter": sacrebleu.TER}[kind]()
    new = {place: [output] for place, output in enumerate(NEW) if place != 1}
    sums = paired(kind, ledger(kind, once(OLD)), ledger(kind, new))
    figure = only(sums)
    kept = [0, 2, 3]
    wanted = [
        metric.corpus_score([side[at] for at in kept], [[REFERENCES[at] for at in kept]]).score
        for side in (OLD, NEW)
    ]
    assert (figure.baseline, figure.candidate) == pytest.approx(wanted, abs=1e-9)
    assert (figure.part, sums.pairs, sums.n_missing) == ("corpus", kept, 1)


def test_macro_f1_of_both_sides_is_that_of_scikit_learn() -> None:
    truth, old, new = ["a", "b", "b", "c"], ["a", "a", "b", "x"], ["a", "b", "b", "a"]
    sums = paired(
        "classification",
        ledger("classification", once(old), truth),
        ledger("classification", once(new), truth),
    )
    figure = only(sums)
    wanted = [
        f1_score(truth, side, labels=["a", "b", "c"], average="macro", zero_division=0) for side in (old, new)
    ]
    assert (figure.baseline, figure.candidate) == pytest.approx(wanted)
    assert figure.part == "macro_f1"


TEXTS = st.sampled_from([*OLD, *NEW, "cat", "rain in may"])
SIDES = st.lists(TEXTS, min_size=4, max_size=4)


@settings(max_examples=25)
@given(SIDES, SIDES, st.sampled_from(["bleu", "chrf", "ter"]), st.booleans())
def test_swapping_the_sides_turns_the_interval_round(
    old: list[str], new: list[str], kind: str, in_clusters: bool
) -> None:
    one, other = ledger(kind, once(old)), ledger(kind, once(new))
    clusters = ["x", "x", "y", "z"] if in_clusters else None
    forth, back = only(paired(kind, one, other), clusters), only(paired(kind, other, one), clusters)
    assert (forth.baseline, forth.candidate) == (back.candidate, back.baseline)
    assert forth.interval.low == pytest.approx(-back.interval.high, abs=1e-9)
    assert forth.interval.high == pytest.approx(-back.interval.low, abs=1e-9)


@pytest.mark.parametrize("kind", ["bleu", "chrf", "ter", "classification"])
def test_the_same_outputs_differ_by_nothing_however_often_they_were_repeated(kind: str) -> None:
    # Each keeps four words in a row: BLEU smooths a corpus that has none by its size.
    outputs = [
        "so the cat sat on the mat",
        "it rains in spain",
        "prices rose again in june",
        "it rains in spain",
    ]
    expected = [*REFERENCES[:3], "it rains in spain, it does"]
    once_each = ledger(kind, once(outputs), expected)
    thrice = ledger(kind, {place: [output] * 3 for place, output in enumerate(outputs)}, expected)
    figure = only(paired(kind, once_each, thrice))
    assert (figure.interval.low, figure.interval.high) == (0.0, 0.0)


def test_the_order_of_rows_changes_nothing() -> None:
    repeats = {place: [OLD[place], NEW[place]] for place in range(4)}
    turned = {place: repeats[place][::-1] for place in (2, 0, 3, 1)}
    new = ledger("ter", once(NEW))
    assert only(paired("ter", ledger("ter", repeats), new)) == only(paired("ter", ledger("ter", turned), new))


def test_clusters_are_drawn_whole_for_both_sides() -> None:
    places = range(40)
    old = {place: [OLD[place % 4]] for place in places}
    new = {place: [NEW[place % 4]] for place in places}
    expected = [REFERENCES[place % 4] for place in places]
    sums = paired("chrf", ledger("chrf", old, expected), ledger("chrf", new, expected), n=40)
    alone = only(sums).interval
    whole = only(sums, [str(place % 4) for place in places]).interval
    assert whole.high - whole.low > 2 * (alone.high - alone.low)


def test_an_absent_score_is_no_pair() -> None:
    old = ledger("bleu", once(OLD))
    new = ledger("bleu", {0: [NEW[0]]})
    new.add(1, Sums(None, None, None, ()))
    sums = paired("bleu", old, new)
    assert (sums.pairs, sums.n_missing) == ([0], 3)


def test_a_paired_interval_covers_the_true_difference_nine_times_in_ten() -> None:
    """Counts of edits whose rate is known: 0.40 and 0.35 of the words, hard cases hard for both sides."""
    random = np.random.default_rng(11)
    evaluator: Any = open_evaluator("ter", {})
    n_covered, n_cases, n_turns = 0, 150, 120
    for turn in range(n_turns):
        words = random.integers(5, 30, n_cases)
        hard = random.beta(2, 3, n_cases)
        sides: tuple[dict[int, list[Sums]], dict[int, list[Sums]]] = ({}, {})
        for place in range(n_cases):
            for side, ease in zip(sides, (1.0, 0.875), strict=True):
                edits = random.binomial(words[place], ease * hard[place])
                side[place] = [Sums(0.0, None, None, (1.0, float(edits), float(words[place])))]
        (figure,) = PairedSums(evaluator, sides).figures(None, level=0.9, seed=turn)
        n_covered += figure.interval.low <= -5.0 <= figure.interval.high
    assert 0.83 <= n_covered / n_turns <= 0.96
