"""Figures of a search: by hand, beside scikit-learn's nDCG, and by law."""

from __future__ import annotations

from collections.abc import Callable
from math import log2
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from llmops.errors import EvaluatorError
from llmops.evaluators import evaluator_class, open_evaluator
from llmops.evaluators.base import Judgement

Judge = Callable[..., Judgement]

IDS = [f"p{number}" for number in range(12)]
RANKINGS = st.permutations(IDS).flatmap(lambda ids: st.integers(0, len(ids)).map(lambda n: ids[:n]))
NEEDS = st.sets(st.sampled_from(IDS), min_size=1).map(sorted)


def passage(name: str, text: str = "", source: str = "docs/a.md") -> dict[str, Any]:
    return {"id": name, "source": source, "text": text, "score": 1.5, "place": None}


def test_figures_are_those_worked_out_by_hand(judge: Judge) -> None:
    found = judge("retrieval", ["x", "a", "y", "b"], ["a", "b", "c"], k=[1, 2, 4])
    assert found.value == pytest.approx(2 / 3)
    gain = 1 / log2(3) + 1 / log2(5)
    best = 1 + 1 / log2(3) + 1 / log2(4)
    assert found.parts == pytest.approx(
        {
            "mrr": 1 / 2,
            "ndcg": gain / best,
            "recall_at_1": 0.0,
            "precision_at_1": 0.0,
            "hit_at_1": 0.0,
            "ndcg_at_1": 0.0,
            "recall_at_2": 1 / 3,
            "precision_at_2": 1 / 2,
            "hit_at_2": 1.0,
            "ndcg_at_2": (1 / log2(3)) / (1 + 1 / log2(3)),
            "recall_at_4": 2 / 3,
            "precision_at_4": 1 / 2,
            "hit_at_4": 1.0,
            "ndcg_at_4": gain / best,
        }
    )
    assert found.rationale == "1 of 3 not among 4 passages: id 'c'"


@given(ranking=RANKINGS, wanted=NEEDS, k=st.integers(1, 12))
def test_ndcg_is_that_of_scikit_learn(judge: Judge, ranking: list[str], wanted: list[str], k: int) -> None:
    from sklearn.metrics import ndcg_score

    assume(k <= len(ranking))
    truth = [[float(name in wanted) for name in IDS]]
    scores = [[float(len(IDS) - ranking.index(name)) if name in ranking else 0.0 for name in IDS]]
    theirs = ndcg_score(truth, scores, k=k, ignore_ties=True)
    ours = judge("retrieval", ranking, wanted, k=k).parts[f"ndcg_at_{k}"]
    assert ours == pytest.approx(theirs, abs=1e-12)


@given(ranking=RANKINGS, wanted=NEEDS, k=st.integers(1, 14))
def test_figures_grow_with_the_depth_and_agree_with_sets(
    judge: Judge, ranking: list[str], wanted: list[str], k: int
) -> None:
    found = judge("retrieval", ranking, wanted, k=[k, k + 1])
    first = set(ranking[:k])
    assert found.value == len(set(ranking) & set(wanted)) / len(wanted)
    assert found.parts[f"recall_at_{k}"] == len(first & set(wanted)) / len(wanted)
    assert found.parts[f"precision_at_{k}"] == len(first & set(wanted)) / k
    assert found.parts[f"hit_at_{k}"] == float(bool(first & set(wanted)))
    assert found.parts[f"recall_at_{k}"] <= found.parts[f"recall_at_{k + 1}"] <= found.value
    assert all(0 <= value <= 1 for value in found.parts.values())


def test_all_relevant_passages_first_is_perfect_in_any_order_of_theirs(judge: Judge) -> None:
    for ranking in (["a", "b", "x"], ["b", "a", "x", "y"]):
        found = judge("retrieval", ranking, ["a", "b"], k=2)
        assert (found.value, found.rationale) == (1.0, None)
        assert {found.parts[name] for name in ("mrr", "ndcg", "ndcg_at_2", "precision_at_2")} == {1.0}


def test_precision_counts_the_places_that_were_left_empty(judge: Judge) -> None:
    found = judge("retrieval", ["a"], ["a"], k=4)
    assert (found.parts["recall_at_4"], found.parts["precision_at_4"]) == (1.0, 0.25)


def test_nothing_found_is_the_worst_score_and_nothing_to_find_is_none(judge: Judge) -> None:
    nothing = judge("retrieval", [], ["a"])
    assert (nothing.value, set(nothing.parts.values())) == (0.0, {0.0})
    absent = judge("retrieval", ["a"], [])
    assert absent.value is None
    assert absent.parts == {}
    assert absent.rationale == "no passage is relevant, so there is nothing to find"


def test_a_quote_is_found_across_line_breaks_and_in_its_source_alone(judge: Judge) -> None:
    wanted = [{"source": "docs/b.md", "quote": "paid for\n twice"}]
    text = "Nothing is ever paid\nfor   twice."
    assert judge("retrieval", [passage("1", text, "docs/b.md")], wanted).value == 1.0
    assert judge("retrieval", [passage("1", text, "docs/a.md")], wanted).value == 0.0
    assert judge("retrieval", [text], [{"quote": "paid for twice"}]).value == 1.0
    assert judge("retrieval", [passage("1", "Paid for twice", "docs/b.md")], wanted).value == 0.0


def test_a_text_is_an_id_or_a_source(judge: Judge) -> None:
    found = {"passages": [passage("1"), passage("2", source="docs/b.md")]}
    assert judge("retrieval", found, ["2", "docs/a.md"]).value == 1.0
    assert judge("retrieval", found, ["docs/c.md"]).value == 0.0
    assert judge("retrieval", found, "docs/b.md").value == 1.0


def test_one_of_several_alternatives_will_do(judge: Judge) -> None:
    wanted = ["a", ["b", {"quote": "the same said elsewhere"}]]
    found = judge("retrieval", [passage("z", "Here is the same said elsewhere."), passage("a")], wanted)
    assert (found.value, found.parts["ndcg"]) == (1.0, 1.0)
    assert judge("retrieval", [passage("a")], wanted).rationale == "1 of 2 not among 1 passages: id 'b'"


def test_a_passage_that_holds_two_of_what_is_wanted_is_a_perfect_answer_alone(judge: Judge) -> None:
    found = judge("retrieval", [passage("1", "one two")], [{"quote": "one"}, {"quote": "two"}])
    assert (found.value, found.parts["ndcg"], found.parts["mrr"]) == (1.0, 1.0, 1.0)


def test_a_passage_that_says_again_what_stood_above_gains_nothing(judge: Judge) -> None:
    needs = [{"quote": "one"}, {"quote": "two"}]
    passages = [passage("1", "one"), passage("2", "one"), passage("3", "two")]
    again = judge("retrieval", passages, needs, k=3)
    assert again.parts["ndcg"] == pytest.approx((1 + 1 / log2(4)) / (1 + 1 / log2(3)))
    assert again.parts["precision_at_3"] == 1.0


@pytest.mark.parametrize(
    "wanted", [[3], [None], [{}], [{"quote": ""}], [{"text": "x"}], [{"id": 3}], [[]], [""], {"id": None}]
)
def test_what_cannot_be_found_is_refused_in_words(judge: Judge, wanted: Any) -> None:
    with pytest.raises(EvaluatorError, match=r"'case-1': (what is to be found is a text|an empty list)"):
        judge("retrieval", ["a"], wanted)


@pytest.mark.parametrize("output", [[3], None, 1.5, [{"score": 1}], [["a"]]])
def test_what_is_no_passage_is_refused_in_words(judge: Judge, output: Any) -> None:
    with pytest.raises(EvaluatorError, match="a passage is a text, or has id, source or text"):
        judge("retrieval", output, ["a"])


def test_one_depth_or_several_are_taken_and_name_the_parts() -> None:
    kind = evaluator_class("retrieval")
    assert kind.parts(kind.Options.model_validate({"k": 4})) == kind.parts(kind.Options())
    parts = kind.parts(kind.Options.model_validate({"k": [1, 10, 1]}))
    assert parts == (
        *("mrr", "ndcg"),
        *("recall_at_1", "precision_at_1", "hit_at_1", "ndcg_at_1"),
        *("recall_at_10", "precision_at_10", "hit_at_10", "ndcg_at_10"),
    )
    for wrong in (0, [], "4", 1.5, [1, -1], True):
        with pytest.raises(ValidationError):
            open_evaluator("retrieval", {"k": wrong})
