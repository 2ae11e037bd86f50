"""The `retrieve` step: the passages of an index that a query is nearest to, best first, within a number of tokens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Literal

from llmops.call import Answer, Caller
from llmops.definitions.base import identity_of, short
from llmops.definitions.chain import Retrieve
from llmops.definitions.index import ModelEmbedder
from llmops.definitions.workspace import Resolved
from llmops.errors import LlmopsError, StepError, first_error
from llmops.indexes import (
    OpenIndex,
    Passage,
    Query,
    embed_index,
    find_index,
    index_version,
    model_of,
    open_index,
    readable_corpus,
)
from llmops.models.tokens import cut_to_tokens, estimate_tokens
from llmops.records import EmbeddingRequest, Embeddings, ModelVersion, Span
from llmops.steps.base import Context, Place, Program, with_error


@dataclass(frozen=True)
class RetrieveProgram:
    """An index ready to be asked. found: where it stands. version: of the index. model: of its vectors, if any."""

    definition: Retrieve
    found: Resolved
    version: str
    model: ModelVersion | None
    kind: Literal["retrieve"] = "retrieve"
    prompts: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, Program] = field(default_factory=dict)
    _open: list[OpenIndex] = field(default_factory=list)
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)

    @cached_property
    def identity(self) -> str:
        """Hash of what is asked, how, and of which version of the index."""
        own = self.definition.model_dump(mode="json", exclude={"index"})
        return identity_of({"retrieve": own, "index": self.version})

    @property
    def models(self) -> Mapping[str, ModelVersion]:
        """The model that makes the vectors of the index and of a query, if one does."""
        return {} if self.model is None else {self.model.name: self.model}

    def load(self) -> None:
        """Open the index, or read its documents where a model has to be asked for their vectors first.

        Raises what building it raises, so that this is known before anything is paid for.
        """
        workspace, name = self.found.workspace, self.found.name
        if self._open:
            return
        if self.model is None:
            self._open.append(open_index(workspace, name))
        elif (found := find_index(workspace, name)) is not None:
            self._open.append(found)
        else:
            readable_corpus(workspace, name)

    @property
    def least_calls(self) -> int:
        """One for the vector of the query, where a model makes it."""
        return int(self.model is not None)

    async def carry_out(self, inputs: Mapping[str, Any], context: Context, place: Place) -> Span:
        """Return the span whose output has the passages; what the query's vector took stands on it."""
        index = context.trace.open()
        said = {**inputs, "index": self.found.name, "version": short(self.version)}
        try:
            query = _query(inputs["query"], place.name)
            opened = await self._opened(context)
            answer = await self._embedded(context, "query", [query])
            started = time.perf_counter()
            vector = None if answer is None else answer.reply.vectors[0]
            hits = opened.find(Query(query, vector), self.definition.top_k, inputs["where"])
            output = {"passages": within(hits, self.definition.max_tokens)}
            took_s = time.perf_counter() - started
        except (LlmopsError, ExceptionGroup) as raised:
            error = first_error(raised)
            if not isinstance(error, LlmopsError):
                raise
            context.trace.close(with_error(place.span(index, self.kind, said), error))
            raise error from None
        return context.trace.close(
            place.span(index, self.kind, said, output=output, **self._took(answer, took_s))
        )

    async def _opened(self, context: Context) -> OpenIndex:
        """Return the index; the first case that needs it has a model make its vectors, and the others wait."""
        async with self._opening:
            if not self._open:
                self.load()
            if not self._open:
                embed = partial(self._vectors, context)
                self._open.append(await embed_index(self.found.workspace, self.found.name, embed))
        return self._open[0]

    async def _vectors(self, context: Context, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        answer = await self._embedded(context, "document", texts)
        return () if answer is None else answer.reply.vectors

    async def _embedded(
        self, context: Context, purpose: Literal["query", "document"], texts: Sequence[str]
    ) -> Answer[Embeddings] | None:
        """Return the vectors of texts; None where no model makes any. Repeats of a case ask for the same."""
        embedder = self.found.workspace.index(self.found.name).embedder
        if self.model is None or not isinstance(embedder, ModelEmbedder):
            return None
        request = EmbeddingRequest(inputs=tuple(texts), purpose=purpose, dimensions=embedder.dimensions)
        caller: Caller = context.caller
        return await caller.embed(self.model.name, request, fresh=context.fresh)

    def _took(self, answer: Answer[Embeddings] | None, took_s: float) -> dict[str, Any]:
        if answer is None or self.model is None:
            return {"duration_s": took_s}
        return {
            "call_id": answer.call_id,
            "model": self.model.name,
            "usage": answer.reply.usage,
            "cost_usd": answer.cost_usd,
            "duration_s": took_s + answer.reply.latency_s,
        }


def _query(query: Any, name: str) -> str:
    if not isinstance(query, str):
        raise StepError(f"{name}: `query` gives {type(query).__name__}, and an index is asked with text")
    return query


def within(found: Sequence[tuple[Passage, float]], max_tokens: int | None) -> list[dict[str, Any]]:
    """Return passages as a step gives them: the best ones that fit into so many tokens, the very best in any case.

    The best one that is too long by itself is cut, and says so.
    """
    given: list[dict[str, Any]] = []
    left = max_tokens
    for passage, score in found:
        cost = estimate_tokens(passage.text)
        if left is None or cost <= left:
            given.append(_given(passage, score, passage.text))
            left = None if left is None else left - cost
        else:
            if not given:
                given.append({**_given(passage, score, cut_to_tokens(passage.text, left)), "cut": True})
            break
    return given


def _given(passage: Passage, score: float, text: str) -> dict[str, Any]:
    return {
        "id": passage.id,
        "text": text,
        "source": passage.source,
        "score": score,
        "metadata": dict(passage.metadata),
    }


def open_retrieve(definition: Retrieve, found: Resolved) -> RetrieveProgram:
    """Return a step that asks an index; nothing is built and nothing opened yet.

    Raises what reading the index' definition and the names of its files raises.
    """
    workspace, name = found.workspace, found.name
    return RetrieveProgram(definition, found, index_version(workspace, name), model_of(workspace, name))
