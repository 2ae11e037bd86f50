"""The `retrieve` step: the passages of an index that a query is nearest to, best first, within a number of tokens."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from llmops.definitions.base import identity_of, short
from llmops.definitions.chain import Retrieve
from llmops.definitions.workspace import Resolved
from llmops.errors import LlmopsError, StepError
from llmops.indexes import OpenIndex, Passage, Query, index_version, open_index
from llmops.models.tokens import cut_to_tokens, estimate_tokens
from llmops.records import ModelVersion, Span
from llmops.steps.base import Context, Place, Program, with_error


@dataclass(frozen=True)
class RetrieveProgram:
    """An index ready to be asked. found: where it stands. version: of the index."""

    definition: Retrieve
    found: Resolved
    version: str
    kind: Literal["retrieve"] = "retrieve"
    models: Mapping[str, ModelVersion] = field(default_factory=dict)
    prompts: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, Program] = field(default_factory=dict)

    @cached_property
    def identity(self) -> str:
        """Hash of what is asked, how, and of which version of the index."""
        own = self.definition.model_dump(mode="json", exclude={"index"})
        return identity_of({"retrieve": own, "index": self.version})

    @cached_property
    def index(self) -> OpenIndex:
        """The index, open; it is built when first asked for, where this version of it has not been."""
        return open_index(self.found.workspace, self.found.name)

    def load(self) -> None:
        """Open the index, so that one that cannot be built is known before anything is paid for."""
        _ = self.index

    async def carry_out(self, inputs: Mapping[str, Any], context: Context, place: Place) -> Span:
        """Return the span whose output has the passages."""
        index = context.trace.open()
        said = {**inputs, "index": self.found.name, "version": short(self.version)}
        started = time.perf_counter()
        try:
            found = self.index.find(self._query(inputs, place.name), self.definition.top_k, _asked(inputs))
        except LlmopsError as error:
            context.trace.close(with_error(place.span(index, self.kind, said), error))
            raise
        output = {"passages": within(found, self.definition.max_tokens)}
        took_s = time.perf_counter() - started
        return context.trace.close(place.span(index, self.kind, said, output=output, duration_s=took_s))

    def _query(self, inputs: Mapping[str, Any], name: str) -> Query:
        query = inputs["query"]
        if not isinstance(query, str):
            raise StepError(f"{name}: `query` gives {type(query).__name__}, and an index is asked with text")
        return Query(query)


def _asked(inputs: Mapping[str, Any]) -> Mapping[str, Any]:
    where: Mapping[str, Any] = inputs.get("where") or {}
    return where


def within(found: list[tuple[Passage, float]], max_tokens: int | None) -> list[dict[str, Any]]:
    """Return passages as a step gives them: the best ones that fit into so many tokens, the very best in any case.

    The best one that is too long by itself is cut, and says so.
    """
    given: list[dict[str, Any]] = []
    left = max_tokens
    for passage, score in found:
        text = passage.text
        cost = estimate_tokens(text)
        if left is not None and cost > left:
            if given:
                break
            text = cut_to_tokens(text, left)
        given.append(
            {
                "id": passage.id,
                "text": text,
                "source": passage.source,
                "score": score,
                "metadata": dict(passage.metadata),
                **({"cut": True} if text is not passage.text else {}),
            }
        )
        left = None if left is None else left - cost
    return given


def open_retrieve(definition: Retrieve, found: Resolved) -> RetrieveProgram:
    """Return a step that asks an index; nothing is built and nothing opened yet.

    Raises what reading the index' definition and the names of its files raises.
    """
    return RetrieveProgram(definition, found, index_version(found.workspace, found.name))
