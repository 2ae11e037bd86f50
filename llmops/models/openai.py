"""OpenAI, and every server that speaks its protocol: Azure's /openai/v1, vLLM, Ollama, llama.cpp.

The request goes out through the openai SDK, which is imported on the first call: it costs half a second. Its
retries and redirects are off, it reads nothing from the environment, and the answer is read by `exchange.py`.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from ssl import SSLError
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from llmops.errors import UsageError
from llmops.models.abilities import refuse_unable
from llmops.models.access import resolve_access
from llmops.models.base import Ability, abilities_for
from llmops.models.chat import encode_chat
from llmops.models.connection import Connection, chat_exchange, embeddings_exchange
from llmops.models.embeddings import encode_embeddings
from llmops.models.exchange import CONNECT_S, IDLE_S, Answer, Exchange, R, call_headers
from llmops.models.failures import READ_BYTES
from llmops.models.wire import lacking, objects_only, text_of
from llmops.records import ModelInfo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    import httpx2
    from openai import AsyncOpenAI

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
    }
)
PARAMETERS = frozenset({"max_tokens", "reasoning_effort", "seed", "stop", "temperature", "top_p"})
SETTINGS = frozenset({"model", "endpoint", "endpoint_env", "api_key_env", "auth", "stream"})
OWN_ENDPOINT = "https://api.openai.com/v1"
OWN_HOSTS = ("api.openai.com", "eu.api.openai.com", "us.api.openai.com")
NO_KEY = "none"  # the SDK wants one; what leaves is set for each request

# All that may leave, with the key or token: the SDK adds what it finds in OPENAI_CUSTOM_HEADERS and the like.
_HEADERS = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-length",
        "content-type",
        "host",
        "idempotency-key",
        "transfer-encoding",
        "user-agent",
        "x-client-request-id",
        "x-stainless-raw-response",  # the SDK reads it back from the request it has sent
    }
)


def encode(request: Request, model: str, stream: bool, *, takes_newer: bool = False) -> dict[str, Any]:
    """Return the arguments of the SDK's chat call.

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

    async def info(self, *, timeout_s: float) -> ModelInfo:
        """Return what the service says of the model; see `base.Model`."""
        return await self._service.info(timeout_s)

    async def close(self) -> None:
        """Close the connections."""
        await self._service.close()


class OpenAIService:
    """One model behind OpenAI's protocol, through whichever of the SDK's two clients its definition wants.

    takes_newer: as in `encode`.
    """

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
        self._takes_newer = takes_newer
        self._refuse_unable = partial(refuse_unable, access.model, definition.provider, abilities)
        self._key_header = "api-key" if definition.api_version and not access.by_token else "authorization"
        self._connection = Connection(access, partial(_open, access, definition, self._key_header))

    async def complete(self, request: Request, call_id: str, timeout_s: float) -> Reply:
        """Send one request and return its reply."""
        self._refuse_unable(abilities_for(request))
        body = encode(request, self._model, self._stream, takes_newer=self._takes_newer)

        def send(client: AsyncOpenAI, headers: dict[str, str]) -> Any:
            return client.chat.completions.with_streaming_response.create(**body, extra_headers=headers)

        exchange = chat_exchange(self._connection.access, request)
        return await self._ask(exchange, send, call_id, timeout_s)

    async def embed(self, request: EmbeddingRequest, call_id: str, timeout_s: float) -> Embeddings:
        """Send one request and return its vectors."""
        self._refuse_unable(abilities_for(request))
        body = encode_embeddings(request, self._model)

        def send(client: AsyncOpenAI, headers: dict[str, str]) -> Any:
            return client.embeddings.with_streaming_response.create(**body, extra_headers=headers)

        exchange = embeddings_exchange(self._connection.access, request)
        return await self._ask(exchange, send, call_id, timeout_s)

    async def info(self, timeout_s: float) -> ModelInfo:
        """Return what the service says of the model."""
        self._refuse_unable({Ability.INFO})

        def send(client: AsyncOpenAI, headers: dict[str, str]) -> Any:
            return client.models.with_streaming_response.retrieve(self._model, extra_headers=headers)

        return await self._ask(Exchange(self._connection.access, decode_info), send, None, timeout_s)

    async def close(self) -> None:
        """Close the connections."""
        await self._connection.close()

    async def _ask(
        self,
        exchange: Exchange[R],
        send: Callable[[AsyncOpenAI, dict[str, str]], Any],
        call_id: str | None,
        timeout_s: float,
    ) -> R:
        async def sending(client: AsyncOpenAI, exchange: Exchange[R]) -> R:
            headers = call_headers(call_id) | self._signed(exchange.access)
            return await _send(send(client, headers), exchange)

        return await self._connection.ask(exchange, sending, timeout_s)

    def _signed(self, access: Access) -> dict[str, str]:
        if access.key is None:
            return {}
        value = access.key.value
        return {self._key_header: value if self._key_header == "api-key" else f"Bearer {value}"}


def _open(access: Access, definition: ModelDefinition, key_header: str) -> AsyncOpenAI:
    """Return the client; opened by the first call, so that only who calls pays for the import."""
    import httpx2
    from openai import AsyncAzureOpenAI, AsyncOpenAI

    kept = _HEADERS | ({key_header} if access.key or access.by_token else frozenset())

    async def keep_ours(request: httpx2.Request) -> None:
        for name in set(request.headers) - kept:
            del request.headers[name]

    concurrency = definition.limits.concurrency
    http_client = httpx2.AsyncClient(
        follow_redirects=False,
        trust_env=False,
        proxy=access.proxy,
        verify=httpx2.create_ssl_context(),
        timeout=httpx2.Timeout(None, connect=CONNECT_S),
        limits=httpx2.Limits(
            max_connections=concurrency, max_keepalive_connections=concurrency, keepalive_expiry=IDLE_S
        ),
        event_hooks={"request": [keep_ours], "response": [_decline]},
    )
    if definition.api_version is None:
        return AsyncOpenAI(api_key=NO_KEY, base_url=access.endpoint, max_retries=0, http_client=http_client)
    return AsyncAzureOpenAI(
        api_key=NO_KEY,
        azure_endpoint=access.endpoint,
        api_version=definition.api_version,
        max_retries=0,
        http_client=http_client,
    )


async def _send(opening: Any, exchange: Exchange[R]) -> R:
    """Return what the exchange reads of an answer. opening: of it, as the SDK gives it, not yet entered."""
    import httpx2
    from openai import APIConnectionError

    try:
        async with opening as response:
            return await exchange.read(_answer(response.http_response, response.http_response.aiter_raw()))
    except _Declined as declined:
        answer = declined.answer
    except APIConnectionError as error:
        unsent = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError, SSLError)
        if isinstance(error.__cause__, unsent):
            raise exchange.not_sent(error) from error
        raise exchange.not_answered() from error
    return await exchange.read(answer)


class _Declined(Exception):
    """An answer that is no success, taken from the SDK, which would read its body without a limit."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


async def _decline(response: httpx2.Response) -> None:
    if response.is_success:
        return
    chunks: list[bytes] = []
    with suppress(*_broken()):  # the status says enough
        async for chunk in response.aiter_raw():
            chunks.append(chunk)
            if sum(map(len, chunks)) > READ_BYTES:
                break
    raise _Declined(_answer(response, _replay(chunks)))


def _answer(response: httpx2.Response, chunks: AsyncIterator[bytes]) -> Answer:
    return Answer(response.status_code, response.headers, chunks, _broken())


async def _replay(chunks: list[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def _broken() -> tuple[type[Exception], ...]:
    import anyio
    import httpx2

    return (httpx2.HTTPError, anyio.EndOfStream, OSError)
