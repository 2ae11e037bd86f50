"""Figures over classes, here and from a process of their own."""

from __future__ import annotations

import json
import subprocess
import sys

from hypothesis import given, settings
from hypothesis import strategies as st

from llmops.evaluators.classification import Classification
from llmops.evaluators.figures import Aside, class_figures
from llmops.records import Score

TRUTH, FOUND = [0, 0, 1, 1, 2], [0, 1, 1, 3, 0]


def test_figures_are_those_worked_out_by_hand() -> None:
    figures = class_figures(TRUTH, FOUND, 3)
    assert figures.accuracy == 0.4
    assert figures.precision == [0.5, 0.5, None]
    assert figures.recall == [0.5, 0.5, 0.0]
    assert figures.macro_f1 == (0.5 + 0.5 + 0.0) / 3
    assert figures.confusion == [[1, 1, 0, 0], [0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]]


def test_a_process_aside_gives_the_same_figures() -> None:
    aside = Aside()
    try:
        assert aside.figures(TRUTH, FOUND, 3) == class_figures(TRUTH, FOUND, 3)
        assert aside.figures(FOUND[:2], TRUTH[:2], 2) == class_figures(FOUND[:2], TRUTH[:2], 2)
    finally:
        aside.close()


def test_a_process_that_has_gone_is_done_without() -> None:
    aside = Aside()
    try:
        aside._process.kill()
        aside._process.wait()
        assert aside.figures(TRUTH, FOUND, 3) == class_figures(TRUTH, FOUND, 3)
    finally:
        aside.close()


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=30))
def test_the_confusion_adds_up(codes: list[tuple[int, int]]) -> None:
    truth, found = [t for t, _ in codes], [f for _, f in codes]
    figures = class_figures(truth, found, 3)
    assert sum(map(sum, figures.confusion)) == len(codes)
    assert [sum(row) for row in figures.confusion[:3]] == figures.expected


def test_a_summary_made_ahead_is_the_summary() -> None:
    evaluator = Classification(Classification.Options())
    scores = [
        Score(evaluator="c", evaluator_identity="i", value=float(t == f), label=f, truth=t)
        for t, f in ("aa", "ab", "bb", "bb")
    ]
    plain = evaluator.summarise(scores, None, level=0.9, seed=1)
    with evaluator.ahead():
        assert evaluator.summarise(scores, None, level=0.9, seed=1) == plain


def test_the_process_answers_line_by_line_and_ends_with_its_questions() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "llmops.evaluators.figures"],
        input=json.dumps([[0], [0], 1]) + "\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["accuracy"] == 1.0
