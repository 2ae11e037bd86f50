"""What every model is: something that takes a request and gives a reply, once, without retrying.

Retries, limits, journalling and cost belong to `call.py`; a provider translates, sends and checks. Protocol
work is apart from waiting: `encode` and `decode` are pure functions of each provider's module.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from llmops.records import EmbeddingRequest, Embeddings, ImagePart, ModelInfo, Part, Reply, Request

if TYPE_CHECKING:
    from collections.abc import Iterable


class Ability(StrEnum):
    """What a provider may be able to do; asking for anything else is an error before anything is sent."""

    CHAT = "chat"
    STREAM = "stream"
    TOOLS = "tools"
    SCHEMA = "schema"
    IMAGES = "images"
    EMBEDDINGS = "embeddings"
    IMAGE_EMBEDDINGS = "image embeddings"
    INFO = "info"
    RECONCILE = "way to look up what it has answered"


def abilities_for(request: Request | EmbeddingRequest) -> frozenset[Ability]:
    """Return what a provider must be able to do to answer a request."""
    if isinstance(request, EmbeddingRequest):
        with_images = any(isinstance(each, ImagePart) for each in request.inputs)
        return frozenset({Ability.IMAGE_EMBEDDINGS if with_images else Ability.EMBEDDINGS})
    asked = {Ability.CHAT}
    if request.response_format is not None:
        asked.add(Ability.SCHEMA)
    if request.tools:
        asked.add(Ability.TOOLS)
    for message in request.messages:
        if message.role == "tool" or message.tool_calls:
            asked.add(Ability.TOOLS)
        if not isinstance(message.content, str) and _has_image(message.content):
            asked.add(Ability.IMAGES)
    return frozenset(asked)


def _has_image(parts: Iterable[Part]) -> bool:
    return any(isinstance(part, ImagePart) for part in parts)


class Model(Protocol):
    """One deployment of a model, behind one provider."""

    version: str
    """Version of our own code behind the replies; part of the model's identity (`embedded` changes with it)."""

    abilities: frozenset[Ability]
    """What its provider can do; whether this very model can is for the service to say."""

    settings: frozenset[str]
    """Fields of its definition that mean something to its provider, beside those that all have."""

    parameters: frozenset[str]
    """Names of parameters it takes; any other is an error before anything is sent."""

    async def complete(self, request: Request, *, call_id: str, timeout_s: float) -> Reply:
        """Send one request and return its reply, whole; a streaming model measures `ttft_s` and `tpot_s`.

        call_id: sent as `Idempotency-Key` and `X-Client-Request-Id`; seeds the noise of `embedded`.
        timeout_s: for the whole call, first byte to last.

        Raises the leaves of ModelError, nothing else.
        """

    async def embed(self, request: EmbeddingRequest, *, call_id: str, timeout_s: float) -> Embeddings:
        """Send one request and return its vectors, as many as inputs, all of one length; the rest as `complete`."""

    async def find(self, request: Request, *, call_id: str, timeout_s: float) -> Reply | None:
        """Return the reply that the service has kept for a call; None when it has none, or none yet.

        It keeps those of a model whose `on_unknown` is `reconcile`. Nothing is asked of the model and nothing billed;
        the times of the reply are those of the look-up. Raises the leaves of ModelError.
        """

    async def info(self, *, timeout_s: float) -> ModelInfo:
        """Return what the service says of the model. Raises the leaves of ModelError."""

    async def close(self) -> None:
        """Close connections; further calls are an error."""
