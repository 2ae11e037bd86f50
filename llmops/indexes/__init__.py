"""Indexes: passages go in, and those that are nearest to a query come back.

`open_index` gives an index of the project, built before if it has not been: versioned by what went in and how.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmops.definitions.base import identity_of
from llmops.definitions.index import Index
from llmops.definitions.workspace import Workspace
from llmops.errors import DefinitionError, UsageError
from llmops.indexes import files
from llmops.indexes.base import VERSION, Hit, Passage, Query, Store
from llmops.indexes.chunks import passages_of
from llmops.indexes.documents import Corpus, corpus_of
from llmops.indexes.fts import FullText, write_passages


@dataclass(frozen=True)
class OpenIndex:
    """An index that can be asked. about: what it says of itself: documents, passages, sources."""

    name: str
    version: str
    about: Mapping[str, Any]
    passages: FullText
    store: Store

    def find(self, query: Query, k: int, where: Mapping[str, Any]) -> list[tuple[Passage, float]]:
        """Return the k passages nearest to a query with their scores, best first. where: metadata they must have."""
        hits = self.store.search(query, k, self.passages.among(where))
        found = self.passages.read([hit.place for hit in hits])
        return [(found[hit.place], hit.score) for hit in hits]


def index_version(workspace: Workspace, name: str) -> str:
    """Return the hash of all that decides what an index finds: its definition, its documents and our code."""
    return identity_of([VERSION, workspace.identity("index", name)])


def open_index(workspace: Workspace, name: str) -> OpenIndex:
    """Return an index of the project, built where this version of it has not been.

    Raises DefinitionError when documents cannot be read, UsageError when there are none, StoreError for a disk that
    does not take it.
    """
    version = index_version(workspace, name)
    definition = workspace.index(name)
    folder = files.find_built(workspace.root, name, version)
    if folder is None:
        folder = _build(workspace, name, definition, version)
    files.note_use(folder)
    passages = FullText(folder)
    return OpenIndex(
        name, version, files.read_about(folder) or {}, passages, _store(definition, folder, passages)
    )


def _build(workspace: Workspace, name: str, definition: Index, version: str) -> Path:
    corpus = corpus_of(workspace, name)
    if corpus.findings:
        raise DefinitionError(corpus.findings)
    if not corpus.documents:
        raise UsageError(f"index {name}: none of its {len(corpus.empty)} documents has any text")
    known = _known_vectors(workspace.root, name) if definition.embedder == "hashing" else {}

    def write(folder: Path) -> dict[str, Any]:
        n = write_passages(folder, passages_of(corpus.documents, definition.chunker))
        if definition.embedder != "none":
            _write_vectors(definition, folder, known)
        return {
            "name": name,
            "version": version,
            "code": VERSION,
            "n_passages": n,
            **_said(definition, corpus),
        }

    return files.build(workspace.root, name, version, write)


def _said(definition: Index, corpus: Corpus) -> dict[str, Any]:
    return {
        "n_documents": len(corpus.documents),
        "empty": corpus.empty,
        "embedder": definition.meaning()["embedder"],
    }


def _write_vectors(definition: Index, folder: Path, known: Mapping[str, Any]) -> None:
    reading = FullText(folder)
    try:
        texts = [passage.searched for passage in reading.all()]
    finally:
        reading.close()
    if definition.embedder == "tfidf":
        from llmops.indexes.tfidf import TfIdf

        TfIdf.write(folder, texts)
    else:
        from llmops.indexes.dense import hashed, write_vectors

        write_vectors(folder, hashed(texts, known))


def _known_vectors(root: Path, name: str) -> dict[str, Any]:
    """Return the vectors of the passages of the last version, by what was searched: they need not be made again."""
    for folder in files.newest(root, name):
        about = files.read_about(folder)
        if about is not None and (about["code"], about["embedder"]) == (VERSION, "hashing"):
            from llmops.indexes.dense import Dense

            vectors, passages = Dense(folder).vectors, FullText(folder)
            try:
                return {passage.searched: vectors[place] for place, passage in enumerate(passages.all())}
            finally:
                passages.close()
    return {}


def _store(definition: Index, folder: Path, passages: FullText) -> Store:
    stores: dict[str, Callable[[], Store]] = {
        "fts": lambda: passages,
        "vectors": lambda: _vectors(definition, folder),
        "fused": lambda: _fused([passages, _vectors(definition, folder)]),
    }
    return stores[definition.store]()


def _vectors(definition: Index, folder: Path) -> Store:
    if definition.embedder == "tfidf":
        from llmops.indexes.tfidf import TfIdf

        return TfIdf(folder)
    from llmops.indexes.dense import Dense

    return Dense(folder)


def _fused(stores: Sequence[Store]) -> Store:
    from llmops.indexes.fused import Fused

    return Fused(stores)


__all__ = ["Hit", "OpenIndex", "Passage", "Query", "index_version", "open_index"]
