"""Sources in, documents out: text, Markdown, HTML, and the rows of JSONL and CSV, bounded in size.

Nothing is inflated and nothing leads out of the project. What cannot be read is told with all else that cannot;
what has no text is noted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import BinaryIO

from llmops.definitions.documents import BOM, other_encoding, undecodable
from llmops.definitions.flat_files import read_rows
from llmops.definitions.index import FORMATS, Format, Index, Source
from llmops.definitions.workspace import Workspace
from llmops.errors import DefinitionError, Finding
from llmops.indexes.base import Document
from llmops.indexes.pages import read_page

MAX_TEXT_BYTES = 16_000_000
"""Of one file that is a document; a book of a thousand pages has 2 MB."""

MAX_ROWS_BYTES = 2_000_000_000
MAX_DOCUMENTS = 2_000_000
MAX_FINDINGS = 20


@dataclass
class Corpus:
    """The documents of an index. empty: names of those without text. findings: what keeps sources from being read."""

    documents: list[Document] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    _names: set[str] = field(default_factory=set)

    def add(self, document: Document, path: str) -> None:
        """Take in one document; of two with one name, the second is a finding."""
        if document.id in self._names:
            self._say(
                Finding(path, None, None, f"two documents are called {document.id!r}", "name each its own")
            )
        elif len(self.documents) >= MAX_DOCUMENTS:
            self._say(Finding(path, None, None, f"more than {MAX_DOCUMENTS:,} documents in one index"))
        elif not document.text.strip():
            self.empty.append(document.id)
        else:
            self.documents.append(document)
        self._names.add(document.id)

    def take(self, documents: Iterator[Document], path: str) -> None:
        """Take in what one file or query gives, or what is wrong with it."""
        try:
            for document in documents:
                self.add(document, path)
        except DefinitionError as error:
            for finding in error.findings:
                self._say(finding)

    def _say(self, finding: Finding) -> None:
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(finding)


def corpus_of(workspace: Workspace, name: str) -> Corpus:
    """Return the documents of an index, in the order of its sources and of the names of their files; read once."""
    return workspace.remember("corpus", name, lambda: _read(workspace, name))


def _read(workspace: Workspace, name: str) -> Corpus:
    index = workspace.index(name)
    corpus = Corpus()
    for place in range(len(index.sources)):
        corpus.take(_documents(workspace, name, index, place), workspace.path("index", name))
    return corpus


def _documents(workspace: Workspace, name: str, index: Index, place: int) -> Iterator[Document]:
    source = index.sources[place]
    document = workspace.document("index", name)
    paths = workspace.source_files(source)
    if not paths:
        raise DefinitionError(document.finding(("sources", place), *_matches_nothing(workspace, source)))
    findings: list[Finding] = []
    for path in paths:
        try:
            yield from read_file(workspace, path, source)
        except DefinitionError as error:
            findings += error.findings
    if findings:
        raise DefinitionError(findings)


def _matches_nothing(workspace: Workspace, source: Source) -> tuple[str, str]:
    hint = "it is relative to llmops.yaml; links and hidden folders are not followed, and ** goes through folders"
    return f"no file in {workspace.tree.label} matches {source.place}", hint


def read_file(workspace: Workspace, path: str, source: Source) -> Iterator[Document]:
    """Yield the documents of one file of a source.

    Raises DefinitionError for one that is too large, in no format that is read, or not the text it should be.
    """
    kind = source.format or FORMATS.get(PurePosixPath(path).suffix.lower())
    if kind is None:
        hint = "give the source a format, narrow its pattern, or convert the file to text"
        known = f"only {', '.join(FORMATS)}"
        raise DefinitionError(Finding(path, None, None, f"it is in no format that is read: {known}", hint))
    with workspace.tree.open_path(path) as file:
        yield from read_as(kind, file, path, source)


def read_as(kind: Format, file: BinaryIO, path: str, source: Source) -> Iterator[Document]:
    """Yield the documents of an open file. path: how it is called; raises as `read_file`."""
    limit = MAX_ROWS_BYTES if kind in {"jsonl", "csv"} else MAX_TEXT_BYTES
    size = file.seek(0, 2)
    file.seek(0)
    if size > limit:
        message = f"{size:,} bytes, and one file has at most {limit:,}"
        raise DefinitionError(Finding(path, None, None, message, "split it"))
    if kind in {"jsonl", "csv"}:
        yield from row_documents(read_rows(file, f"{path}.{kind}" if source.format else path), path, source)
        return
    text = decoded(file.read(), path)
    if kind == "html":
        title, text = read_page(text)
        named = {"title": title} if title else {}
        yield Document(path, text, {**named, **source.labels}, has_headings=True)
    else:
        yield Document(path, text, source.labels, has_headings=kind == "markdown")


def decoded(data: bytes, path: str) -> str:
    """Return a file as text (DefinitionError for what is not UTF-8, or no text at all)."""
    if foreign := other_encoding(data, path):
        raise DefinitionError(foreign)
    if b"\0" in data:
        message = f"it is no text: a NUL byte (byte {data.index(0)})"
        raise DefinitionError(Finding(path, None, None, message, "narrow the pattern of the source"))
    try:
        return data.removeprefix(BOM).decode()
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line, column = before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
        raise DefinitionError(undecodable(error, path, line, column, error.start)) from error


def row_documents(
    rows: Iterable[tuple[int, Mapping[str, object]]], path: str, source: Source
) -> Iterator[Document]:
    """Yield a document a row; whatever else is plain in it becomes metadata.

    Raises DefinitionError for rows without text, or with a name that is none.
    """
    findings = []
    for number, row in rows:
        text, name = row.get(source.text), row.get(source.id, f"{path}:{number}")
        if not isinstance(text, str):
            said = "is missing" if text is None else "is no text"
            hint = f"its columns: {', '.join(map(repr, row))}; `text:` of the source names the one"
            findings.append(Finding(path, number, None, f"the column {source.text!r} {said}", hint))
        elif isinstance(name, bool) or not isinstance(name, str | int) or not str(name).strip():
            findings.append(Finding(path, number, None, f"the column {source.id!r} names nothing"))
        else:
            metadata = {key: value for key, value in row.items() if key not in {source.text, source.id}}
            yield Document(str(name), text, {**_plain(metadata), **source.labels})
        if len(findings) >= MAX_FINDINGS:
            break
    if findings:
        raise DefinitionError(findings)


def _plain(row: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in row.items() if isinstance(value, str | int | float)}
