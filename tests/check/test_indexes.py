"""What `check` says of indexes and of steps that ask them, with the line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from llmops.check import check_workspace, find_workspace_notes
from llmops.definitions.workspace import load_workspace

Project = Callable[..., Path]

CHAIN = """
inputs: {question: string, lang: string}
steps:
  - id: find
    retrieve:
      index: docs
      query: "{{ question }}"
      where: {lang: "{{ lang }}"}
outputs: "{{ find.passages }}"
"""
FILES: dict[str, str | bytes] = {
    "docs/a.jsonl": '{"id": "a", "text": "one", "lang": "en"}\n',
    "chains/indexes/docs.index.yaml": "sources:\n  - files: docs/*.jsonl\n",
    "chains/ask.chain.yaml": CHAIN,
}


def told(root: Path) -> list[str]:
    return [str(finding) for finding in check_workspace(load_workspace(root))]


def test_a_chain_that_asks_an_index_is_right(project: Project) -> None:
    assert told(project(FILES)) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("index: docs", "index: dogs", "chains/ask.chain.yaml:5:5: no index is called 'dogs'"),
        ("index: docs", "index: docs@production", "docs@production: no such alias"),
        (
            "where: {lang",
            "where: {lagn",
            "chains/ask.chain.yaml:8:15: no passage of index docs has 'lagn'\n    did you mean 'lang'?",
        ),
        ("{{ question }}", "{{ qestion }}", "chains/ask.chain.yaml:7:7: 'qestion' is not defined here"),
        ("{{ find.passages }}", "{{ find.pasages }}", "step 'find' gives no 'pasages'"),
        (
            "      index: docs\n",
            "      index: docs\n      top_k: 0\n",
            "7:7: top_k: should be at least 1, not 0",
        ),
        ("      index: docs\n", "      index: docs\n      topk: 3\n", "did you mean 'top_k'?"),
        ("  - id: find\n", "  - id: find\n    with: {x: 1}\n", "retrieve says what goes in by itself"),
    ],
)
def test_what_is_wrong_with_a_step_is_told_with_its_line(
    project: Project, old: str, new: str, said: str
) -> None:
    assert old in CHAIN
    found = told(project({**FILES, "chains/ask.chain.yaml": CHAIN.replace(old, new)}))
    assert len(found) == 1
    assert said in found[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "sources:\n  - files: docs/*.md\n",
            "docs.index.yaml:2:5: no file in the work tree matches docs/*.md",
        ),
        (
            "sources:\n  - files: docs/*.jsonl\n    text: body\n",
            "docs/a.jsonl:1: the column 'body' is missing",
        ),
        (
            "sources:\n  - files: docs/*.jsonl\nstore: vectors\nembedder: {model: nobody}\n",
            "docs.index.yaml:4:12: llmops.yaml has no model 'nobody'",
        ),
        (
            "sources:\n  - files: docs/*.jsonl\nstore: vectors\nembedder: {model: default}\n",
            None,
        ),
    ],
)
def test_what_is_wrong_with_an_index_is_told_with_its_line(
    project: Project, text: str, said: str | None
) -> None:
    found = told(project({**FILES, "chains/indexes/docs.index.yaml": text}))
    assert [said in each for each in found if said] == ([True] if said else [])


def test_an_index_of_nothing_is_told_and_one_empty_document_is_noted(project: Project) -> None:
    files = {**FILES, "chains/indexes/docs.index.yaml": "sources:\n  - files: docs/*.*\n", "docs/b.md": "\n"}
    root = project(files)
    assert told(root) == []
    assert list(find_workspace_notes(load_workspace(root))) == ["docs: 1 without text left out: docs/b.md"]
    (root / "docs/a.jsonl").unlink()
    assert "chains/indexes/docs.index.yaml:1:1: none of its 1 documents has any text" in told(root)


def test_a_stray_file_among_indexes_is_told(project: Project) -> None:
    (found,) = told(project({**FILES, "chains/indexes/more.yaml": ""}))
    assert found.startswith("chains/indexes/more.yaml: this file is read by nobody")
