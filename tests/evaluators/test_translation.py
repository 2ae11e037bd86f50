"""BLEU, chrF and TER: what sacrebleu says of sentences and corpora, what is refused, and what counts as worst."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from llmops.errors import EvaluatorError, UsageError
from llmops.evaluators import extras, open_evaluator
from llmops.evaluators.base import Judgement, Subject
from llmops.evaluators.translation import Bleu, Chrf, Ter
from llmops.records import Figure, Score, Status

Judge = Callable[..., Judgement]
KINDS = ("bleu", "chrf", "ter")
every_kind = pytest.mark.parametrize("kind", KINDS)

OUTPUTS = [
    "The quick brown fox jumped over the lazy dog.",
    "It is raining cats & dogs, isn't it?",
    "a b",
    "",
    "Prices rose 3.5% in May -- again",
]
REFERENCES = [
    ["A quick brown fox jumps over the lazy dog.", "The fox is quick, the dog is lazy."],
    ["It's raining cats and dogs, is it not?", "What rain!"],
    ["a b c d", "b a"],
    ["Nothing was said.", "Silence."],
    ["Prices rose by 3.5 % again in May.", "In May, prices were up 3.5%"],
]
WAYS: list[tuple[Any, dict[str, Any], Any]] = [
    (Bleu, {}, sacrebleu.BLEU()),
    (Bleu, {"lowercase": True, "tokenize": "char"}, sacrebleu.BLEU(lowercase=True, tokenize="char")),
    (Bleu, {"tokenize": "zh"}, sacrebleu.BLEU(tokenize="zh")),
    (Bleu, {"tokenize": "intl"}, sacrebleu.BLEU(tokenize="intl")),
    (Bleu, {"tokenize": "none"}, sacrebleu.BLEU(tokenize="none")),
    (Chrf, {}, sacrebleu.CHRF()),
    (Chrf, {"word_order": 2, "lowercase": True}, sacrebleu.CHRF(word_order=2, lowercase=True)),
    (Ter, {}, sacrebleu.TER()),
    (Ter, {"lowercase": False}, sacrebleu.TER(case_sensitive=True)),
]
every_way = pytest.mark.parametrize(
    ("evaluator", "options", "metric"), WAYS, ids=[f"{kind.__name__} {options}" for kind, options, _ in WAYS]
)


def judged(evaluator: Any, outputs: Sequence[str], references: Sequence[Sequence[str]]) -> list[Judgement]:
    async def ask() -> list[Judgement]:
        pairs = zip(outputs, references, strict=True)
        return [await evaluator.judge(Subject("c", {}, output, list(texts))) for output, texts in pairs]

    return asyncio.run(ask())


def scores(judgements: Sequence[Judgement]) -> list[Score]:
    return [
        Score(evaluator="e", evaluator_identity="0", value=found.value, sums=found.sums)
        for found in judgements
    ]


def corpus_of(evaluator: Any, kept: Sequence[Score], clusters: Sequence[str] | None = None) -> Figure:
    found: Figure = evaluator.summarise(kept, clusters, level=0.9, seed=1)["corpus"]
    return found


# --- the numbers --------------------------------------------------------------------------------------------


@every_way
@pytest.mark.parametrize("n_references", [1, 2])
def test_the_corpus_figure_is_that_of_sacrebleu_with_its_signature(
    evaluator: Any, options: dict[str, Any], metric: Any, n_references: int
) -> None:
    references = [texts[:n_references] for texts in REFERENCES]
    opened = evaluator(evaluator.Options(**options))
    found = corpus_of(opened, scores(judged(opened, OUTPUTS, references)))
    wanted = metric.corpus_score(OUTPUTS, list(zip(*references, strict=True)))
    assert found.value == pytest.approx(wanted.score, abs=1e-9)
    assert found.note == f"{metric.get_signature().format()}; a rough interval: fewer than 50 cases"
    assert f"nrefs:{n_references}|" in found.note
    assert (found.kind, found.n, found.n_missing) == ("statistic", len(OUTPUTS), 0)
    assert found.interval is not None
    assert found.interval.low <= wanted.score + 1e-9
    assert found.interval.high >= wanted.score - 1e-9


@every_way
def test_the_score_of_a_case_is_that_of_its_sentence(
    evaluator: Any, options: dict[str, Any], metric: Any
) -> None:
    metric.effective_order = True  # which the other two ignore
    found = judged(evaluator(evaluator.Options(**options)), OUTPUTS, REFERENCES)
    metric.effective_order = False
    if evaluator is Bleu:
        metric = sacrebleu.BLEU(effective_order=True, **options)
    for judgement, output, texts in zip(found, OUTPUTS, REFERENCES, strict=True):
        assert judgement.value == pytest.approx(metric.sentence_score(output, texts).score, abs=1e-9)


LETTERS = st.text("ab c.", max_size=30)


@settings(max_examples=60)
@given(st.lists(st.tuples(LETTERS, LETTERS.filter(str.strip)), min_size=1, max_size=6))
def test_counts_taken_by_no_public_way_give_the_public_score(pairs: list[tuple[str, str]]) -> None:
    """chrF's counts come from inside sacrebleu: should they mean something else one day, this fails."""
    outputs, references = [pair[0] for pair in pairs], [[pair[1]] for pair in pairs]
    for word_order in (0, 2):
        opened = Chrf(Chrf.Options(word_order=word_order))
        found = judged(opened, outputs, references)
        metric = sacrebleu.CHRF(word_order=word_order)
        wanted = metric.corpus_score(outputs, [[pair[1] for pair in pairs]]).score
        assert corpus_of(opened, scores(found)).value == pytest.approx(wanted, abs=1e-9)
        assert found[0].value == pytest.approx(
            metric.sentence_score(outputs[0], references[0]).score, abs=1e-9
        )
        assert len(found[0].sums) == 1 + 3 * (6 + word_order)


@every_kind
def test_the_mean_of_sentences_and_the_corpus_are_two_numbers(kind: str) -> None:
    evaluator: Any = open_evaluator(kind, {})
    found = judged(evaluator, OUTPUTS, REFERENCES)
    mean = sum(judgement.value or 0.0 for judgement in found) / len(found)
    assert corpus_of(evaluator, scores(found)).value != pytest.approx(mean, abs=0.1)


@every_kind
def test_cases_with_different_numbers_of_references_are_told_in_the_signature(kind: str) -> None:
    evaluator: Any = open_evaluator(kind, {})
    references = [REFERENCES[0], REFERENCES[1][:1]]
    found = corpus_of(evaluator, scores(judged(evaluator, OUTPUTS[:2], references)))
    columns = [[REFERENCES[0][0], REFERENCES[1][0]], [REFERENCES[0][1], None]]
    metric: Any = {"bleu": sacrebleu.BLEU, "chrf": sacrebleu.CHRF, "ter": sacrebleu.TER}[kind]()
    assert found.value == pytest.approx(metric.corpus_score(OUTPUTS[:2], columns).score, abs=1e-9)
    assert found.note is not None
    assert found.note.startswith("nrefs:var|")


@every_kind
def test_a_corpus_of_a_hundred_same_cases_has_an_interval_without_width(kind: str) -> None:
    evaluator: Any = open_evaluator(kind, {})
    kept = scores(judged(evaluator, OUTPUTS[:1] * 100, REFERENCES[:1] * 100))
    found = corpus_of(evaluator, kept)
    assert found.interval is not None
    assert found.interval.low == pytest.approx(found.value)
    assert found.interval.high == pytest.approx(found.value)
    assert found.note is not None
    assert "rough" not in found.note


@every_kind
def test_clusters_are_drawn_whole(kind: str) -> None:
    evaluator: Any = open_evaluator(kind, {})
    kept = scores(judged(evaluator, OUTPUTS, REFERENCES)) * 12
    alone = corpus_of(evaluator, kept).interval
    by_kind = corpus_of(evaluator, kept, [str(place % 5) for place in range(len(kept))]).interval
    assert alone is not None and by_kind is not None
    assert by_kind.high - by_kind.low > 1.5 * (alone.high - alone.low)


@every_kind
def test_scores_without_sums_are_missing_and_without_any_nobody_knows(kind: str) -> None:
    evaluator: Any = open_evaluator(kind, {})
    absent = Score(evaluator="e", evaluator_identity="0", error="no text")
    kept = scores(judged(evaluator, OUTPUTS, REFERENCES))
    found = corpus_of(evaluator, [*kept, absent])
    assert (found.value, found.n, found.n_missing) == (corpus_of(evaluator, kept).value, 5, 1)
    nothing = corpus_of(evaluator, [absent])
    assert (nothing.value, nothing.interval, nothing.n, nothing.n_missing) == (None, None, 0, 1)


# --- what can be judged -------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize(
    ("output", "expected", "why"),
    [
        (None, "a cat", "the output is null, no text"),
        (["a cat"], "a cat", "the output is an array, no text"),
        ("a cat", None, "has no expected"),
        ("a cat", {"ref": "a cat"}, "expected must be a text or a list of texts, not an object"),
        ("a cat", "", "a reference is empty"),
        ("a cat", ["a cat", " \n"], "a reference is empty"),
        ("a cat", [], "a reference is empty"),
    ],
)
def test_what_cannot_be_judged_is_refused_with_its_reason(
    judge: Judge, kind: str, output: Any, expected: Any, why: str
) -> None:
    with pytest.raises(EvaluatorError, match=f"case 'case-1'.*{why}"):
        judge(kind, output, expected)


@every_kind
def test_an_empty_output_is_judged_and_a_crash_counts_as_one(judge: Judge, kind: str) -> None:
    empty = judge(kind, "", "the cat sat")
    assert empty.value == (100.0 if kind == "ter" else 0.0)
    assert judge(kind, None, "the cat sat", status=Status.CRASHED) == empty


def test_ter_goes_beyond_100_and_lower_is_better(judge: Judge) -> None:
    assert judge("ter", "the cat sat on the mat and sang", "dog").value == 800.0
    ter: Any = open_evaluator("ter", {})
    assert (ter.low, ter.high, ter.lower_is_better) == (0.0, None, True)
    assert not any(getattr(open_evaluator(kind, {}), "lower_is_better", False) for kind in ("bleu", "chrf"))


def test_ter_of_two_long_texts_is_refused_before_the_search(judge: Judge) -> None:
    text = " ".join(str(number) for number in range(501))
    with pytest.raises(EvaluatorError, match="more than 500 words each"):
        judge("ter", text, text[::-1])
    assert judge("ter", text, "0 1 2").value == pytest.approx(100 * 498 / 3)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("bleu", {"tokenize": "flores200"}),  # would download a model
        ("bleu", {"tokenize": "ja-mecab"}),  # would need another library
        ("bleu", {"tokenize": ""}),
        ("chrf", {"word_order": 3}),
        ("chrf", {"word_order": -1}),
    ],
)
def test_what_would_need_more_than_sacrebleu_is_no_option(kind: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        open_evaluator(kind, options)


# --- the library --------------------------------------------------------------------------------------------


@every_kind
def test_the_version_names_that_of_sacrebleu(kind: str) -> None:
    assert open_evaluator(kind, {}).version == f"1+sacrebleu-{sacrebleu.__version__}"


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        UsageError, match=r"no-such is not installed; `pip install 'llmops-workbench\[text\]'`"
    ):
        extras.installed_version("no-such", "text")
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(
        UsageError, match=r"sacrebleu is not installed; `pip install 'llmops-workbench\[text\]'`"
    ):
        judged(Bleu(Bleu.Options()), ["a"], [["a"]])


_ALONE = """
import asyncio, json, socket, sys
def refuse(*arguments, **named): raise AssertionError("a socket was opened")
socket.socket.connect = socket.getaddrinfo = refuse
from llmops.evaluators import open_evaluator
from llmops.evaluators.base import Subject
found = [asyncio.run(open_evaluator(kind, {}).judge(Subject("c", {}, "the cats sat", "a cat sat"))).value
         for kind in ("bleu", "chrf", "ter", "rouge")]
print(json.dumps(found))
"""


def test_judging_opens_no_socket_leaves_nothing_at_home_and_warns_of_nothing(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-W", "error", "-c", _ALONE]
    root = Path(__file__).parent.parent.parent
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(json.loads(done.stdout)) == 4
    assert list(tmp_path.iterdir()) == []
