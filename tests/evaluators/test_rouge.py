"""ROUGE: what rouge-score says, which reference counts, and what it cannot read."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import pytest
from pydantic import ValidationError
from rouge_score.rouge_scorer import RougeScorer

from llmops.errors import EvaluatorError
from llmops.evaluators import open_evaluator
from llmops.evaluators.base import Judgement
from llmops.records import Status

Judge = Callable[..., Judgement]
VARIANTS = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
OUTPUT = "Police killed the gunman.\nThe gunmen had fired first."
REFERENCES = ["The gunman was killed by police.\nHe fired first.", "Police kill gunman"]


@pytest.mark.parametrize("use_stemmer", [False, True])
def test_each_variant_is_that_of_rouge_score(judge: Judge, use_stemmer: bool) -> None:
    found = judge("rouge", OUTPUT, REFERENCES[0], use_stemmer=use_stemmer)
    wanted = RougeScorer(VARIANTS, use_stemmer=use_stemmer).score(REFERENCES[0], OUTPUT)
    assert dict(found.parts) == {name: score.fmeasure for name, score in wanted.items()}
    assert found.value == wanted["rougeL"].fmeasure
    assert len(set(found.parts.values())) > 2


def test_a_known_pair_has_the_values_of_the_paper(judge: Judge) -> None:
    """Lin (2004), section 3.1: S1 and S2 share the words but not the order."""
    first = judge("rouge", "police kill the gunman", "police killed the gunman")
    second = judge("rouge", "the gunman kill police", "police killed the gunman")
    assert (first.value, second.value) == (0.75, 0.5)
    assert first.parts["rouge1"] == second.parts["rouge1"] == 0.75


def test_for_each_variant_the_reference_with_the_best_f_counts(judge: Judge) -> None:
    found = judge("rouge", OUTPUT, REFERENCES).parts
    alone = [judge("rouge", OUTPUT, reference).parts for reference in REFERENCES]
    assert found == {name: max(one[name] for one in alone) for name in VARIANTS}


def test_the_value_is_rouge_l_or_the_first_variant_there_is(judge: Judge) -> None:
    found = judge("rouge", OUTPUT, REFERENCES, variants=["rouge1", "rougeL"])
    assert (found.value, set(found.parts)) == (found.parts["rougeL"], {"rouge1", "rougeL"})
    found = judge("rouge", OUTPUT, REFERENCES, variants=["rouge2", "rouge1"])
    assert found.value == found.parts["rouge2"] != found.parts["rouge1"]


def test_precision_and_recall_are_parts_when_asked_for(judge: Judge) -> None:
    found = judge(
        "rouge", "the cat", "the cat sat down", variants=["rouge1"], with_precision_and_recall=True
    ).parts
    assert found == {"rouge1": pytest.approx(2 / 3), "rouge1_precision": 1.0, "rouge1_recall": 0.5}


@pytest.mark.parametrize(
    "options", [{"variants": []}, {"variants": ["rouge9"]}, {"variants": ["rouge1"] * 2}]
)
def test_variants_are_some_of_four_each_once(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        open_evaluator("rouge", options)


@pytest.mark.parametrize("output", ["", "...", "猫"])
def test_an_output_without_words_scores_0(judge: Judge, output: str) -> None:
    found = judge("rouge", output, "the cat")
    assert (found.value, set(found.parts.values())) == (0.0, {0.0})
    assert judge("rouge", None, "the cat", status=Status.CRASHED).value == 0.0


@pytest.mark.parametrize(
    ("output", "expected", "why"),
    [
        (7, "the cat", "the output is a number, no text"),
        ("the cat", "猫が座った", "a reference has no word of a-z or 0-9"),
        ("the cat", ["the cat", "!"], "a reference has no word of a-z or 0-9"),
        ("the cat", " ", "a reference is empty"),
        ("the cat", None, "has no expected"),
        ("a " * 10_000, "a " * 1_001, "output and reference are too long to compare"),
        ("1," * 10_000, "1," * 1_001, "output and reference are too long to compare"),
    ],
)
def test_what_cannot_be_judged_is_refused_with_its_reason(
    judge: Judge, output: Any, expected: Any, why: str
) -> None:
    with pytest.raises(EvaluatorError, match=f"case 'case-1'.*{why}"):
        judge("rouge", output, expected)


def test_the_version_names_that_of_rouge_score() -> None:
    assert open_evaluator("rouge", {}).version == f"1+rouge-score-{version('rouge-score')}"
