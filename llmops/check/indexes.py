"""What is wrong with an index, or with a step that asks one: sources that give nothing, and metadata nobody has."""

from __future__ import annotations

from collections.abc import Iterator

from llmops.definitions.chain import Retrieve
from llmops.definitions.documents import Document, Location
from llmops.definitions.index import ModelEmbedder
from llmops.definitions.workspace import Workspace
from llmops.errors import Finding, LlmopsError, nearest
from llmops.indexes.documents import corpus_of
from llmops.models import model_class
from llmops.models.abilities import able_providers
from llmops.models.base import Ability

LISTED = 5


def check_index(workspace: Workspace, name: str) -> list[Finding]:
    """Return what is wrong with an index and with the documents it reads."""
    document = workspace.document("index", name)
    corpus = corpus_of(workspace, name)
    found = [*corpus.findings, *_embedder_findings(workspace, document, name)]
    if not found and not corpus.documents:
        message = f"none of its {len(corpus.empty)} documents has any text"
        found.append(document.finding(("sources",), message))
    return found


def _embedder_findings(workspace: Workspace, document: Document, name: str) -> Iterator[Finding]:
    embedder = workspace.index(name).embedder
    if not isinstance(embedder, ModelEmbedder):
        return
    place = ("embedder", "model")
    try:
        provider = workspace.model(embedder.model).provider
        abilities = model_class(provider).abilities
    except LlmopsError as error:
        yield document.finding(place, str(error))
        return
    if Ability.EMBEDDINGS not in abilities:
        able = ", ".join(able_providers({Ability.EMBEDDINGS}))
        yield document.finding(place, f"{provider} has no {Ability.EMBEDDINGS}", f"these have: {able}")


def index_notes(workspace: Workspace, name: str) -> Iterator[str]:
    """Yield what is no fault and yet good to know of an index."""
    empty = corpus_of(workspace, name).empty
    if empty:
        more = f" and {len(empty) - LISTED} more" if len(empty) > LISTED else ""
        yield f"{len(empty)} without text left out: {', '.join(empty[:LISTED])}{more}"


def retrieve_findings(
    workspace: Workspace, document: Document, place: Location, retrieve: Retrieve
) -> list[Finding]:
    """Return what is wrong with a step that asks an index."""
    below = (*place, "retrieve")
    found = workspace.resolve("index", retrieve.index)
    corpus = corpus_of(found.workspace, found.name)
    known = {key for each in corpus.documents for key in each.metadata}
    if found.workspace.index(found.name).chunker.by == "heading":
        known.add("heading")
    return [
        document.finding(
            (*below, "where", key),
            f"no passage of index {found.name} has {key!r}",
            nearest(key, known) or f"its metadata: {', '.join(sorted(known)) or 'none'}",
        )
        for key in retrieve.where
        if key not in known and not corpus.findings
    ]
