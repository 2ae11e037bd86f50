"""Cases that belong together without a declared cluster are noticed, and cases that do not are left in peace."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.check import find_workspace_notes
from llmops.check.independence import signs_of, undeclared_clusters
from llmops.definitions.dataset import Case
from llmops.definitions.workspace import load_workspace
from tests.gated import FILES, NEUTRAL, Repository
from tests.workplace import jsonl

WORDS = [
    f"{colour}{thing}"
    for colour in ("red", "blue", "grey", "pink")
    for thing in ("lamp", "road", "bell", "tree")
]
DEFINITION = "inputs: {text: string}\nexpected: {type: string}\n"


def told(root: Path, cases: list[dict[str, Any]], definition: str = DEFINITION) -> list[str]:
    (root / "datasets").mkdir(exist_ok=True)
    (root / "llmops.yaml").write_text("")
    (root / "datasets/some.dataset.yaml").write_text(definition)
    lines = [
        {"id": f"c{at}", "inputs": {"text": text_of(at)}, "expected": "x"} | case
        for at, case in enumerate(cases)
    ]
    (root / "datasets/some.jsonl").write_text(jsonl(lines))
    return undeclared_clusters(load_workspace(root).dataset("some"), None)


def text_of(number: int) -> str:
    """Return a text of its own for each number."""
    return " ".join(WORDS[(number * 7 + place * (1 + number % 5)) % 16] + str(number) for place in range(12))


def test_cases_of_their_own_are_left_in_peace(tmp_path: Path) -> None:
    metadata = [
        {"slice": "ab"[at % 2], "source": "mail", "level": at % 3, "doc": f"d{at}"} for at in range(60)
    ]
    assert told(tmp_path, [{"id": f"t-{at:04}", "metadata": each} for at, each in enumerate(metadata)]) == []


@pytest.mark.parametrize("key", ["doc", "sourceDocument", "conversation_id", "user", "pageUrl"])
def test_metadata_that_names_a_source_is_noticed(tmp_path: Path, key: str) -> None:
    (found,) = told(tmp_path, [{"metadata": {key: f"s{at // 3}"}} for at in range(30)])
    assert found.startswith(
        f"cases may not be independent: 30 of 30 share metadata.{key} with another; declare"
    )


def test_what_may_be_a_category_is_a_source_once_it_has_many_values(tmp_path: Path) -> None:
    assert told(tmp_path, [{"metadata": {"source": "ab"[at % 2]}} for at in range(30)]) == []
    assert len(told(tmp_path, [{"metadata": {"source": f"s{at // 2}"}} for at in range(30)])) == 1


def test_ids_that_count_on_from_a_source_are_noticed(tmp_path: Path) -> None:
    (found,) = told(tmp_path, [{"id": f"doc{at // 5}-{at % 5}"} for at in range(30)])
    assert "30 of 30 have an id that counts on from another's" in found
    assert told(tmp_path, [{"id": f"v2-{at:04}"} for at in range(30)]) == [], "a prefix of all is no source"


def test_a_passage_that_many_questions_are_about_is_noticed(tmp_path: Path) -> None:
    definition = "inputs: {text: string, passage: string}\nexpected: {type: string}\n"
    passages = [" ".join(WORDS) + f" {at // 4}" for at in range(20)]
    cases = [{"inputs": {"text": text_of(at), "passage": passages[at]}} for at in range(20)]
    assert "20 of 20 share the whole inputs.passage with another" in told(tmp_path, cases, definition)[0]


def test_inputs_that_differ_in_case_points_and_a_word_are_noticed(tmp_path: Path) -> None:
    long = " ".join(text_of(at) for at in (101, 102, 103))
    cases: list[dict[str, Any]] = [{} for _ in range(18)]
    cases += [{"inputs": {"text": f"{long}."}}, {"inputs": {"text": f"{long.upper()} once"}}]
    (found,) = told(tmp_path, cases)
    assert "2 of 20 have inputs nearly the same as another's" in found


def test_a_declared_cluster_is_believed(tmp_path: Path) -> None:
    definition = f"{DEFINITION}cluster: metadata.doc\n"
    assert told(tmp_path, [{"metadata": {"doc": f"d{at // 3}"}} for at in range(30)], definition) == []


INPUTS = st.dictionaries(st.text(min_size=1), st.text() | st.integers() | st.none(), max_size=3)
CASES = st.builds(lambda name, inputs: Case(id=name, inputs=inputs), st.text(min_size=1), INPUTS)


@given(st.lists(CASES, max_size=8))
def test_whatever_people_write_no_more_cases_share_than_there_are(cases: list[Case]) -> None:
    assert all(0 <= n <= len(cases) and n != 1 for _, n in signs_of(cases))


def test_check_notes_it_and_the_verdict_says_it(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in FILES["datasets/tickets.jsonl"].splitlines()]
    for at, line in enumerate(lines):
        line["metadata"]["conversation"] = f"k{at // 3}"
    repository = Repository(tmp_path, **{"datasets/tickets.jsonl": jsonl(lines)})
    (note,) = find_workspace_notes(load_workspace(tmp_path), today=date(2026, 1, 1))
    assert note.startswith("sort: cases may not be independent: 90 of 90 share metadata.conversation")
    repository.edit(*NEUTRAL)
    verdict, _ = repository.verdict()
    assert verdict.warnings == (note.removeprefix("sort: "),)
    markdown = repository.left("v.md")
    assert "may not be independent" in repository.gate("sort", "--markdown", str(markdown)).stdout
    assert "may not be independent" in markdown.read_text(encoding="utf-8")
