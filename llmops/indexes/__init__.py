"""Indexes: passages go in, and those that are nearest to a query come back.

`open_index` gives an index of the project, built before if it has not been: versioned by what went in and how. Where a
model makes its vectors, whoever opens it says how the model is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmops.definitions.base import identity_of
from llmops.definitions.index import Index, ModelEmbedder
from llmops.definitions.workspace import Workspace
from llmops.errors import DefinitionError, UsageError
from llmops.indexes import files
from llmops.indexes.base import VERSION, Hit, Passage, Query, Store
from llmops.indexes.chunks import passages_of
from llmops.indexes.documents import Corpus, corpus_of
from llmops.indexes.embedding import Embed, embed_all
from llmops.indexes.fts import FullText, write_passages
from llmops.indexes.snapshots import find_snapshot, is_outside
from llmops.models import model_version
from llmops.records import ModelVersion

if TYPE_CHECKING:
    from llmops.indexes.dense import Dense, Known
    from llmops.indexes.lance import Lance

Vectors = Callable[[Sequence[str]], Iterable[Any]]
"""Gives the vectors of all passages in their order, as arrays of some at a time."""


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


def model_of(workspace: Workspace, name: str) -> ModelVersion | None:
    """Return the model that makes the vectors of an index; None where none is asked."""
    embedder = workspace.index(name).embedder
    if not isinstance(embedder, ModelEmbedder):
        return None
    return model_version(embedder.model, workspace.model(embedder.model))


def index_version(workspace: Workspace, name: str) -> str:
    """Return the hash of all that decides what an index finds: its definition, documents, model and our code."""
    model = model_of(workspace, name)
    taken = [
        None if found is None else found.hash
        for source in workspace.index(name).sources
        if is_outside(source)
        for found in [find_snapshot(workspace.root, source)]
    ]
    own = workspace.identity("index", name)
    return identity_of([VERSION, own, None if model is None else model.identity, taken])


def find_index(workspace: Workspace, name: str) -> OpenIndex | None:
    """Return an index of the project if this version of it has been built.

    Raises UsageError when its store is an extra that is not installed.
    """
    if workspace.index(name).store == "lancedb":
        from llmops.indexes.lance import library

        library()
    version = index_version(workspace, name)
    folder = files.find_built(workspace.root, name, version)
    return None if folder is None else _opened(workspace.index(name), name, version, folder)


def open_index(workspace: Workspace, name: str) -> OpenIndex:
    """Return an index of the project whose vectors no model makes, built where this version of it has not been.

    Raises DefinitionError when documents cannot be read, UsageError when there are none, StoreError for a disk that
    does not take it.
    """
    found = find_index(workspace, name)
    if found is not None:
        return found
    definition = workspace.index(name)
    corpus = readable_corpus(workspace, name)
    passages = list(passages_of(corpus.documents, definition.chunker))

    def vectors(texts: Sequence[str]) -> Iterable[Any]:
        from llmops.indexes.dense import hashed_blocks

        return hashed_blocks(texts, _known_vectors(workspace.root, name, definition))

    return _built(workspace, name, corpus, passages, vectors)


async def embed_index(workspace: Workspace, name: str, embed: Embed) -> OpenIndex:
    """Return an index of the project whose vectors a model makes, built where it has not been; raises as `open_index`.

    embed: asks the model; what it raises is raised.
    """
    found = find_index(workspace, name)
    if found is not None:
        return found
    definition = workspace.index(name)
    corpus = readable_corpus(workspace, name)
    passages = list(passages_of(corpus.documents, definition.chunker))
    texts = [passage.searched for passage in passages]
    made = await embed_all(texts, embed, files.home(workspace.root, name))
    return _built(workspace, name, corpus, passages, lambda _: _blocks(made))


def readable_corpus(workspace: Workspace, name: str) -> Corpus:
    """Return the documents of an index.

    Raises DefinitionError when some cannot be read, UsageError when none has any text.
    """
    corpus = corpus_of(workspace, name)
    if corpus.findings:
        raise DefinitionError(corpus.findings)
    if corpus.untaken:
        raise UsageError(
            f"index {name}: nothing has been taken from {corpus.untaken[0]}; `llmops run` does so first"
        )
    if not corpus.documents:
        raise UsageError(f"index {name}: none of its {len(corpus.empty)} documents has any text")
    return corpus


def _built(
    workspace: Workspace, name: str, corpus: Corpus, passages: Sequence[Passage], vectors: Vectors
) -> OpenIndex:
    definition, version = workspace.index(name), index_version(workspace, name)

    def write(folder: Path) -> dict[str, Any]:
        write_passages(folder, passages)
        _write_vectors(definition, folder, [passage.searched for passage in passages], vectors)
        return {
            "name": name,
            "version": version,
            "code": VERSION,
            "embedder": definition.meaning()["embedder"],
            "n_documents": len(corpus.documents),
            "n_passages": len(passages),
            "empty": corpus.empty,
            "sources": [
                asdict(found)
                for source in definition.sources
                if (found := find_snapshot(workspace.root, source)) is not None
            ],
        }

    folder = files.build(workspace.root, name, version, write)
    return _opened(definition, name, version, folder)


def _write_vectors(definition: Index, folder: Path, texts: Sequence[str], vectors: Vectors) -> None:
    if definition.embedder == "tfidf":
        from llmops.indexes.tfidf import TfIdf

        TfIdf.write(folder, texts)
    elif definition.store == "lancedb":
        from llmops.indexes import lance

        lance.write_vectors(folder, vectors(texts))
    elif definition.embedder != "none":
        from llmops.indexes import dense

        dense.write_vectors(folder, vectors(texts))


def _blocks(vectors: Any) -> Iterable[Any]:
    from llmops.indexes.dense import AT_ONCE

    return (vectors[start : start + AT_ONCE] for start in range(0, len(vectors), AT_ONCE))


def _known_vectors(root: Path, name: str, definition: Index) -> Known:
    """Return what gives the vectors of those texts that the last version has: they need not be made again."""
    from llmops.indexes.lance import FOLDER

    for folder in files.newest(root, name):
        about = files.read_about(folder)
        if about is None or (about["code"], about["embedder"]) != (VERSION, "hashing"):
            continue
        if (folder / FOLDER).is_dir() == (definition.store == "lancedb"):
            return _vectors_in(folder, _by_length(definition, folder))
    return lambda _: {}


def _vectors_in(folder: Path, store: Dense | Lance) -> Known:
    passages = FullText(folder)
    try:
        places = {_digest(passage.searched): place for place, passage in enumerate(passages.all())}
    finally:
        passages.close()

    def known(texts: Sequence[str]) -> Mapping[str, Any]:
        there = {text: places[digest] for text in texts if (digest := _digest(text)) in places}
        return dict(zip(there, store.rows(list(there.values())), strict=True)) if there else {}

    return known


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _opened(definition: Index, name: str, version: str, folder: Path) -> OpenIndex:
    files.note_use(folder)
    passages = FullText(folder)
    about = files.read_about(folder) or {}
    return OpenIndex(name, version, about, passages, _store(definition, folder, passages))


def _store(definition: Index, folder: Path, passages: FullText) -> Store:
    if definition.store == "fts":
        return passages
    if definition.store != "fused":
        return _vectors(definition, folder)
    from llmops.indexes.fused import Fused

    return Fused([passages, _vectors(definition, folder)])


def _vectors(definition: Index, folder: Path) -> Store:
    if definition.embedder == "tfidf":
        from llmops.indexes.tfidf import TfIdf

        return TfIdf(folder)
    return _by_length(definition, folder)


def _by_length(definition: Index, folder: Path) -> Dense | Lance:
    """Return the store of vectors of a fixed length."""
    if definition.store == "lancedb":
        from llmops.indexes.lance import Lance

        return Lance(folder)
    from llmops.indexes.dense import Dense

    return Dense(folder)


__all__ = [
    "Hit",
    "OpenIndex",
    "Passage",
    "Query",
    "embed_index",
    "find_index",
    "index_version",
    "model_of",
    "open_index",
    "readable_corpus",
]
