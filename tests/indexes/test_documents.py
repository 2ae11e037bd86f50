"""Reading sources: formats, and what is told of files that are too large, no text, or not where they should be."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from llmops.definitions.workspace import load_workspace
from llmops.indexes import documents
from llmops.indexes.base import Document
from llmops.indexes.documents import Corpus, corpus_of

Project = Callable[..., Path]


@pytest.fixture
def read(project: Project) -> Callable[..., Corpus]:
    """Return the corpus of one source over files."""

    def read(source: str, files: dict[str, str | bytes]) -> Corpus:
        root = project({"chains/indexes/docs.index.yaml": f"sources: [{source}]\n", **files})
        return corpus_of(load_workspace(root), "docs")

    return read


Read = Callable[..., Corpus]


def told(corpus: Corpus) -> list[str]:
    return [str(finding) for finding in corpus.findings]


def test_every_format_becomes_documents_in_the_order_of_their_paths(read: Read) -> None:
    files: dict[str, str | bytes] = {
        "d/a.txt": "plain",
        "d/b.md": "# Head",
        "d/c.html": "<title>T</title><p>page",
        "d/e.jsonl": '{"id": "one", "text": "first", "year": 2020, "tags": ["x"]}\n{"text": "second"}\n',
        "d/f.csv": "id,text,lang\n7,third,en\n",
    }
    corpus = read("{files: [d/*.*], labels: {team: a}}", files)
    assert told(corpus) == []
    assert corpus.documents == [
        Document("d/a.txt", "plain", {"team": "a"}),
        Document("d/b.md", "# Head", {"team": "a"}, has_headings=True),
        Document("d/c.html", "page", {"title": "T", "team": "a"}, has_headings=True),
        Document("one", "first", {"year": 2020, "team": "a"}),
        Document("d/e.jsonl:2", "second", {"team": "a"}),
        Document("7", "third", {"lang": "en", "team": "a"}),
    ]


def test_columns_and_format_are_as_the_source_says(read: Read) -> None:
    corpus = read(
        "{files: d/rows.data, format: jsonl, text: body, id: nr}", {"d/rows.data": '{"nr": 3, "body": "b"}\n'}
    )
    assert corpus.documents == [Document("3", "b", {})]


def test_patterns_go_through_folders_and_not_into_hidden_ones(read: Read) -> None:
    files: dict[str, str | bytes] = dict.fromkeys(
        ("d/a.md", "d/x/y/b.md", "d/.git/c.md", "d/.hidden.md", "d/x/n.txt", "e/f.md", "d/Ein Blatt é.md"),
        "text",
    )
    found = read("{files: d/**/*.md}", files)
    assert [each.id for each in found.documents] == ["d/Ein Blatt é.md", "d/a.md", "d/x/y/b.md"]
    assert [each.id for each in read("{files: d/?.md}", {}).documents] == ["d/a.md"]


def test_what_has_no_text_is_noted_and_left_out(read: Read) -> None:
    corpus = read("{files: d/*}", {"d/a.txt": "x", "d/b.txt": " \n", "d/c.html": "<script>1</script>"})
    assert corpus.empty == ["d/b.txt", "d/c.html"]
    assert [each.id for each in corpus.documents] == ["d/a.txt"]


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.pdf", b"%PDF-1.7", "d/a.pdf: it is in no format that is read: only .txt, .text, .rst, .md"),
        ("a.txt", b"\xff\xfeh\0i\0", "d/a.txt:1:1: the file is UTF-16 or UTF-32, not UTF-8 (byte 0)"),
        ("a.md", b"long enough to be text, and yet \0", "d/a.md: it is no text: a NUL byte (byte 32)"),
        ("a.txt", b"one\ncaf\xe9", "d/a.txt:2:4: byte 7 (0xE9) is not UTF-8"),
        ("a.jsonl", b'{"text": 5}\n', "d/a.jsonl:1: the column 'text' is no text"),
        ("a.jsonl", b'{"body": "x"}\n', "d/a.jsonl:1: the column 'text' is missing\n    its columns: 'body'"),
        ("a.jsonl", b'{"text": "x", "id": null}\n', "d/a.jsonl:1: the column 'id' names nothing"),
        ("a.jsonl", b'{"text": "x", "id": [1]}\n', "the column 'id' names nothing"),
        ("a.jsonl", b'{"text"\n', "d/a.jsonl:1:9"),
        ("a.jsonl", b'{"id":"x","text":"a"}\n{"id":"x","text":"b"}\n', "two documents are called 'x'"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_with_its_line(
    read: Read, name: str, data: bytes, said: str
) -> None:
    (finding,) = told(read("{files: d/*}", {f"d/{name}": data}))
    assert said in finding


def test_one_broken_file_hides_no_other(read: Read) -> None:
    corpus = read("{files: d/*}", {"d/a.txt": b"\xff", "d/b.txt": b"fine", "d/c.txt": b"\xff"})
    assert [finding.path for finding in corpus.findings] == ["d/a.txt", "d/c.txt"]


def test_a_file_that_is_too_large_is_not_read_S18(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_TEXT_BYTES", 10)
    monkeypatch.setattr(documents, "MAX_ROWS_BYTES", 40)
    files: dict[str, str | bytes] = {
        "d/a.md": "x" * 11,
        "d/b.jsonl": '{"text": "x"}\n' * 3,
        "d/c.txt": "x" * 10,
    }
    corpus = read("{files: d/*}", files)
    assert [finding.message for finding in corpus.findings] == [
        "11 bytes, and one file has at most 10",
        "42 bytes, and one file has at most 40",
    ]


def test_there_is_an_end_to_how_many_documents_an_index_takes_S18(
    read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "MAX_DOCUMENTS", 2)
    (finding,) = told(read("{files: d/*}", {"d/a.jsonl": '{"text": "x"}\n' * 3}))
    assert "more than 2 documents in one index" in finding


def test_nothing_outside_the_project_is_read_through_a_link_S06(
    read: Read, project: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret.txt").write_text("secret")
    root = project({"d/a.txt": "seen"})
    (root / "d/link.txt").symlink_to(outside / "secret.txt")
    (root / "d/folder").symlink_to(outside, target_is_directory=True)
    assert [each.text for each in read("{files: d/**/*.txt}", {}).documents] == ["seen"]
    (root / "e").symlink_to(root / "d", target_is_directory=True)
    assert "no file in the work tree matches e/*.txt" in told(read("{files: e/*.txt}", {}))[0]


def test_what_is_no_file_is_passed_over(read: Read, project: Project) -> None:
    root = project({"d/a.txt": "seen"})
    os.mkfifo(root / "d/pipe.txt")
    assert [each.id for each in read("{files: d/*.txt}", {}).documents] == ["d/a.txt"]


def test_a_source_that_matches_nothing_is_told_at_its_place(read: Read) -> None:
    (finding,) = read("{files: d/*.md}", {"d/a.txt": "x"}).findings
    assert (finding.path, finding.line) == ("chains/indexes/docs.index.yaml", 1)
    assert finding.message == "no file in the work tree matches d/*.md"
