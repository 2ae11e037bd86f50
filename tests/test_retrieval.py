"""The project in which searches are compared checks, runs and scores each question by the passage that answers it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.measure import llmops
from benchmarks.retrieval import WAYS, Asked, Question, compare_ways, read_set, write_retrieval_project

ANIMALS = (
    "heron",
    "badger",
    "otter",
    "lynx",
    "marmot",
    "adder",
    "plover",
    "stoat",
    "vole",
    "pike",
    "newt",
    "kite",
)
ASKED = Asked(
    {f"p{place}": f"The {animal} sleeps below a stone." for place, animal in enumerate(ANIMALS)},
    (
        Question("q1", "What of the heron?", "p0", "birds"),
        Question("q2", "Does a plover rest?", "p6", "birds"),
        Question("q3", "Where is the badger?", "p1", "beasts"),
        Question("q4", "What about the lynx?", "p11", "beasts"),  # which says nothing of it
    ),
)


def test_the_project_checks_with_an_index_and_a_variant_for_each_way(tmp_path: Path) -> None:
    write_retrieval_project(tmp_path, ASKED)
    said = llmops("check", cwd=tmp_path).output
    assert "ok: " in said
    assert f"{len(WAYS)} indexes" in said


def test_each_way_is_laid_beside_bm25_with_intervals_over_documents(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = compare_ways(tmp_path, ASKED)
    assert line.startswith(
        "12 passages, 4 questions, bm25 recall@4 0.750, nDCG@10 0.750, and to that: tfidf +0.000 ["
    )
    assert line.count(" [") == 2 * (len(WAYS) - 1)
    printed = capsys.readouterr().out
    for way in WAYS.keys() - {"bm25"}:
        said = f"\n{way} against bm25: 4 cases in 2 clusters"
        assert printed.count(said) == 2  # once by run, once by compare


def test_what_is_not_there_is_no_set(tmp_path: Path) -> None:
    assert read_set("rag_xquad_en", tmp_path) is None


def written(path: Path, *rows: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_paragraphs_of_one_article_are_one_document(tmp_path: Path) -> None:
    folder = tmp_path / "rag_xquad_en"
    written(folder / "documents.jsonl", {"id": "xq-07-00", "text": "a"}, {"id": "xq-07-01", "text": "b"})
    written(folder / "questions.jsonl", {"id": "q", "inputs": {"question": "?", "doc_id": "xq-07-01"}})
    found = Asked({"xq-07-00": "a", "xq-07-01": "b"}, (Question("q", "?", "xq-07-01", "xq-07"),))
    assert read_set("rag_xquad_en", tmp_path) == found


def test_a_passage_that_two_questions_share_stands_once(tmp_path: Path) -> None:
    rows = [
        {"id": f"q{n}", "inputs": {"question": "?", "context": [{"title": "Moai", "text": text}]}}
        for n, text in enumerate(("stone", "stone", "island"))
    ]
    written(tmp_path / "rag_clapnq/dev.jsonl", *rows)
    found = read_set("rag_clapnq", tmp_path)
    assert found is not None
    assert list(found.passages.values()) == ["Moai\nstone", "Moai\nisland"]
    assert [question.passage for question in found.questions] == ["p0", "p0", "p1"]
    assert {question.document for question in found.questions} == {"Moai"}
