"""SQuAD's exact match and F1, on the cases that its official script settles and by law."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.errors import EvaluatorError
from llmops.evaluators.base import Judgement
from llmops.evaluators.overlap import squad_words
from llmops.records import Status

Judge = Callable[..., Judgement]
BOTH = pytest.mark.parametrize("kind", ["squad_exact_match", "token_f1"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The Panthers' defense", ["panthers", "defense"]),
        ("a.n. apple!", ["apple"]),  # punctuation goes first, and what is left may be an article
        ("U.S.-led", ["usled"]),
        ("an  end\tof the\nline", ["end", "of", "line"]),
        ("Theater", ["theater"]),
        ("24–10", ["24–10"]),  # no ASCII punctuation, so it stays
        ("L'été à Paris", ["lété", "à", "paris"]),
        ("THE", []),
        ("", []),
    ],
)
def test_words_are_those_of_the_official_script(text: str, words: list[str]) -> None:
    assert squad_words(text) == words


@pytest.mark.parametrize(
    ("output", "expected", "exact", "f1"),
    [
        ("Denver Broncos", ["Denver Broncos"], 1, 1),
        ("the denver broncos!", ["Denver Broncos"], 1, 1),
        ("Broncos Denver", ["Denver Broncos"], 0, 1),
        ("Denver", ["Denver Broncos"], 0, 2 / 3),
        ("gold gold", ["gold"], 0, 2 / 3),  # precision 1/2, recall 1
        ("gold", ["gold gold"], 0, 2 / 3),
        ("Santa Clara", ["Levi's Stadium", "Santa Clara, California"], 0, 0.8),
        ("in 1963", "1963", 0, 2 / 3),
        ("", ["308"], 0, 0),
        ("none", ["308"], 0, 0),
    ],
)
def test_the_best_accepted_answer_counts(
    judge: Judge, output: str, expected: Any, exact: float, f1: float
) -> None:
    assert judge("squad_exact_match", output, expected).value == exact
    assert judge("token_f1", output, expected).value == pytest.approx(f1, abs=1e-12)


@BOTH
@pytest.mark.parametrize("nothing", ["", [], [""], ["the"], ["...", "a"]])
def test_where_there_is_no_answer_only_an_output_without_words_is_right(
    judge: Judge, kind: str, nothing: Any
) -> None:
    assert judge(kind, "", nothing).value == 1.0
    assert judge(kind, "The.", nothing).value == 1.0
    wrong = judge(kind, "308", nothing)
    assert (wrong.value, wrong.rationale) == (0.0, "'308', where there is no answer")


@BOTH
def test_an_answer_without_words_does_not_count_beside_others(judge: Judge, kind: str) -> None:
    assert judge(kind, "", ["the", "308"]).value == 0.0


@BOTH
@pytest.mark.parametrize(
    ("output", "expected", "why"),
    [
        (None, "308", "the output is null, no text"),
        (308, "308", "the output is a number, no text"),
        ({"answer": "308"}, "308", "the output is an object, no text"),
        ("308", None, "has no expected"),
        ("308", 308, "expected must be a text or a list of texts, not a number 308"),
        ("308", ["308", 4], r"not an array \[\"308\",4\]"),
    ],
)
def test_what_cannot_be_judged_is_refused_with_its_reason(
    judge: Judge, kind: str, output: Any, expected: Any, why: str
) -> None:
    with pytest.raises(EvaluatorError, match=f"case 'case-1'.*{why}"):
        judge(kind, output, expected)


@BOTH
def test_a_crash_is_judged_as_the_empty_text(judge: Judge, kind: str) -> None:
    assert judge(kind, None, "308", status=Status.CRASHED).value == 0.0


def test_a_miss_is_told_in_words(judge: Judge) -> None:
    assert judge("squad_exact_match", "Denver", "The Broncos").rationale == "'Denver', expected 'broncos'"
    found = judge("token_f1", "Denver", ["Broncos", "Denver Broncos"]).rationale
    assert found == "'Denver' has not all the words of any of the 2 accepted answers, or others too"
    assert judge("token_f1", "Broncos", "the Broncos").rationale is None


WORDS = st.lists(st.sampled_from(["red", "green", "blue", "the", "7"]), max_size=6)


@given(one=WORDS, other=WORDS)
def test_f1_is_the_share_of_common_words_whichever_side_is_which(
    judge: Judge, one: list[str], other: list[str]
) -> None:
    found, answer = (Counter(word for word in words if word != "the") for words in (one, other))
    n_words = found.total() + answer.total()
    wanted = 1.0 if n_words == 0 else 2 * (found & answer).total() / n_words
    f1 = judge("token_f1", " ".join(one), " ".join(other)).value
    assert f1 == pytest.approx(wanted, abs=1e-12)
    assert f1 == judge("token_f1", " ".join(other), " ".join(one)).value
    assert f1 == 1 or judge("squad_exact_match", " ".join(one), " ".join(other)).value == 0
