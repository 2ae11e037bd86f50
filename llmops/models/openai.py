"""OpenAI, and every server that speaks its protocol: Azure's /openai/v1, vLLM, Ollama, llama.cpp.

What is asked and what a reply means is settled here; `lean.py` sends it, or `openai_sdk.py` where a definition
says `client: sdk`: the same bytes to the same place, at fifteen times the cost. Both are imported on the first call.
"""

from __future__ import annotations

from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from llmops.errors import UsageError
from llmops.models.abilities import refuse_unable
from llmops.models.access import resolve_access
from llmops.models.base import Ability, abilities_for
from llmops.models.chat import encode_chat
from llmops.models.connection import Connection, chat_exchange, embeddings_exchange
from llmops.models.embeddings import encode_embeddings
from llmops.models.exchange import Exchange, R, call_headers
from llmops.models.stored import NotStored, decode_listed, listing, to_be_stored
from llmops.models.wire import in_path, lacking, objects_only, text_of
from llmops.records import ModelInfo

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmops.definitions.project import ModelDefinition
    from llmops.models.access import Access
    from llmops.records import EmbeddingRequest, Embeddings, Reply, Request

ABILITIES = frozenset(
    {
        Ability.CHAT,
        Ability.STREAM,
        Ability.TOOLS,
        Ability.SCHEMA,
        Ability.IMAGES,
        Ability.EMBEDDINGS,
        Ability.INFO,
        Ability.RECONCILE,
    }
)
PARAMETERS = frozenset({"max_tokens", "reasoning_effort", "seed", "stop", "temperature", "top_p"})
SETTINGS = frozenset({"model", "endpoint", "endpoint_env", "api_key_env", "auth", "stream", "client"})
OWN_ENDPOINT = "https://api.openai.com/v1"
OWN_HOSTS = ("api.openai.com", "eu.api.openai.com", "us.api.openai.com")
CHAT, EMBEDDINGS = "chat/completions", "embeddings"


def encode(request: Request, model: str, stream: bool, *, takes_newer: bool = False) -> dict[str, Any]:
    """Return the body of the chat call.

    takes_newer: whether the service wants `max_completion_tokens`, as any does for a reasoning model; others
    only know the older `max_tokens`.
    """
    body = encode_chat(request, model, PARAMETERS, strict_tools=True)
    if (takes_newer or "reasoning_effort" in body) and "max_tokens" in body:
        body["max_completion_tokens"] = body.pop("max_tokens")
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return body


def decode_info(body: object) -> ModelInfo:
    """Return what a service says of a model. Raises ReplyError when that is not even its name."""
    fields = objects_only(body)
    if not text_of(fields, "id"):
        raise lacking(fields, "id of a model")
    return ModelInfo(model=text_of(fields, "id"), provider=text_of(fields, "owned_by") or None)


def takes_newer(host: str) -> bool:
    """Return whether a host is OpenAI's own or Azure's, which refuse the older `max_tokens` for some models."""
    return host in OWN_HOSTS or host.endswith(".openai.azure.com")


class OpenAIModel:
    """One model behind an OpenAI-compatible endpoint."""

    version = "openai@1"
    abilities = ABILITIES
    settings = SETTINGS
    parameters = PARAMETERS

    def __init__(self, name: str, definition: ModelDefinition, environment: Mapping[str, str]) -> None:
        access = resolve_access(
            name, definition, environment, default_endpoint=OWN_ENDPOINT, own_hosts=OWN_HOSTS
        )
        is_newer = takes_newer(urlsplit(access.endpoint).hostname or "")
        self._service = OpenAIService(definition, access, self.abilities, takes_newer=is_newer)

    async def complete(self, request: Request, *, call_id: str, timeout_s: float) -> Reply:
        """Send one request and return its reply; see `base.Model`."""
        return await self._service.complete(request, call_id, timeout_s)

    async def embed(self, request: EmbeddingRequest, *, call_id: str, timeout_s: float) -> Embeddings:
        """Send one request and return its vectors; see `base.Model`."""
        return await self._service.embed(request, call_id, timeout_s)

    async def find(self, request: Request, *, call_id: str, timeout_s: float) -> Reply | None:
        """Return the reply kept for a call; see `base.Model`."""
        return await self._service.find(request, call_id, timeout_s)

    async def info(self, *, timeout_s: float) -> ModelInfo:
        """Return what the service says of the model; see `base.Model`."""
        return await self._service.info(timeout_s)

    async def close(self) -> None:
        """Close the connections."""
        await self._service.close()


class Client(Protocol):
    """What sends. It knows where, and no key; each request brings its own."""

    async def send(
        self,
        route: str,
        body: Mapping[str, Any] | None,
        headers: Mapping[str, str],
        exchange: Exchange[R],
        query: Mapping[str, str],
    ) -> R:
        """Send a body, or ask for what is there when it is None, and return what the exchange reads.

        route: under the base URL. query: besides what the address says. Nothing is sent twice.

        Raises the leaves of ModelError.
        """

    async def close(self) -> None:
        """Close connections."""


class OpenAIService:
    """One model behind OpenAI's protocol, at either of its addresses. takes_newer: as in `encode`."""

    def __init__(
        self,
        definition: ModelDefinition,
        access: Access,
        abilities: frozenset[Ability],
        *,
        takes_newer: bool,
    ) -> None:
        if definition.model is None:
            raise UsageError(
                f"model {access.model!r} has no model; give the service's name for it in llmops.yaml"
            )
        self._model = definition.model
        self._stream = definition.stream
        self._is_stored = definition.on_unknown == "reconcile"
        self._takes_newer = takes_newer
        self._refuse_unable = partial(refuse_unable, access.model, definition.provider, abilities)
        self._key_header = "api-key" if definition.api_version and not access.by_token else "authorization"
        self._connection = Connection(access, partial(_open, access, definition, self._key_header))

    async def complete(self, request: Request, call_id: str, timeout_s: float) -> Reply:
        """Send one request and return its reply."""
        self._refuse_unable(abilities_for(request))
        body = encode(request, self._model, self._stream, takes_newer=self._takes_newer)
        if self._is_stored:
            body |= to_be_stored(call_id)
        exchange = chat_exchange(self._connection.access, request)
        return await self._ask(exchange, CHAT, body, call_id, timeout_s)

    async def embed(self, request: EmbeddingRequest, call_id: str, timeout_s: float) -> Embeddings:
        """Send one request and return its vectors."""
        self._refuse_unable(abilities_for(request))
        body = encode_embeddings(request, self._model)
        exchange = embeddings_exchange(self._connection.access, request)
        return await self._ask(exchange, EMBEDDINGS, body, call_id, timeout_s)

    async def find(self, request: Request, call_id: str, timeout_s: float) -> Reply | None:
        """Return the reply that the service has kept for a call, None when it has none."""
        self._refuse_unable({Ability.RECONCILE})

        exchange = Exchange(self._connection.access, partial(decode_listed, tools=bool(request.tools)))
        try:
            return await self._ask(exchange, CHAT, None, None, timeout_s, query=listing(call_id))
        except NotStored:
            return None

    async def info(self, timeout_s: float) -> ModelInfo:
        """Return what the service says of the model."""
        self._refuse_unable({Ability.INFO})
        exchange = Exchange(self._connection.access, decode_info)
        return await self._ask(exchange, f"models/{in_path(self._model)}", None, None, timeout_s)

    async def close(self) -> None:
        """Close the connections."""
        await self._connection.close()

    async def _ask(
        self,
        exchange: Exchange[R],
        route: str,
        body: Mapping[str, Any] | None,
        call_id: str | None,
        timeout_s: float,
        query: Mapping[str, str] = MappingProxyType({}),
    ) -> R:
        async def sending(client: Client, exchange: Exchange[R]) -> R:
            headers = call_headers(call_id) | self._signed(exchange.access)
            return await client.send(route, body, headers, exchange, query)

        return await self._connection.ask(exchange, sending, timeout_s)

    def _signed(self, access: Access) -> dict[str, str]:
        if access.key is None:
            return {}
        value = access.key.value
        return {self._key_header: value if self._key_header == "api-key" else f"Bearer {value}"}


def _open(access: Access, definition: ModelDefinition, key_header: str) -> Client:
    """Return what sends; opened by the first call, so that only who calls pays for the import."""
    if definition.client == "sdk":
        from llmops.models.openai_sdk import SdkClient

        return SdkClient(access, definition, key_header)
    from llmops.models.lean import LeanClient

    return LeanClient(access, definition)
