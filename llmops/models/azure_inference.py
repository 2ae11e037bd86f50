"""Azure AI model inference, through the azure-ai-inference SDK that Microsoft retired on 2026-08-26.

The SDK writes and sends the request; the answer is taken from its pipeline unread, because its stream parser
breaks on comments and its error handling reads without limit. `exchange.py` reads instead.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from llmops.errors import UsageError
from llmops.models.abilities import refuse_unable
from llmops.models.access import resolve_access
from llmops.models.base import Ability, abilities_for
from llmops.models.chat import encode_chat
from llmops.models.connection import Connection, chat_exchange, embeddings_exchange
from llmops.models.embeddings import encode_embeddings
from llmops.models.exchange import CONNECT_S, IDLE_S, Answer, Exchange, R, call_headers
from llmops.models.wire import lacking, objects_only, text_of, written
from llmops.records import ModelInfo
from llmops.secrets import clean_cause

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from azure.core.pipeline import PipelineResponse

    from llmops.definitions.project import ModelDefinition
    from llmops.models.access import Access
    from llmops.records import EmbeddingRequest, Embeddings, Reply, Request

PARAMETERS = frozenset({"max_tokens", "seed", "stop", "temperature", "top_p"})
API_VERSION = "2024-05-01-preview"
BLOCK_BYTES = 64 * 1024
NO_READ_TIMEOUT_S = 24 * 3600.0  # the whole call has a deadline of its own


def encode(request: Request, model: str | None, stream: bool) -> dict[str, Any]:
    """Return the body of the chat call. model: None where the endpoint serves one model only."""
    body = encode_chat(request, model, PARAMETERS, strict_tools=False)
    if stream:
        body["stream"] = True
    return body


def encode_vectors(request: EmbeddingRequest, model: str | None) -> dict[str, Any]:
    """Return the body of the call for vectors, of texts or images."""
    body = encode_embeddings(request, model)
    if request.purpose is not None:
        body["input_type"] = request.purpose
    return body


def decode_info(body: object) -> ModelInfo:
    """Return what the service says of its model. Raises ReplyError when that is not even its name."""
    fields = objects_only(body)
    if not text_of(fields, "model_name"):
        raise lacking(fields, "model_name")
    return ModelInfo(
        model=text_of(fields, "model_name"),
        kind=text_of(fields, "model_type") or None,
        provider=text_of(fields, "model_provider_name") or None,
    )


class AzureInferenceModel:
    """One model behind an Azure AI inference endpoint."""

    version = "azure_inference@1"
    abilities = frozenset(Ability) - {Ability.RECONCILE}
    settings = frozenset({"model", "endpoint", "endpoint_env", "api_key_env", "auth", "stream"})
    parameters = PARAMETERS

    def __init__(self, name: str, definition: ModelDefinition, environment: Mapping[str, str]) -> None:
        # No own hosts: every Azure resource has a name of its own, and anyone can register one.
        access = resolve_access(name, definition, environment, default_endpoint=None, own_hosts=())
        if access.key is None and not access.by_token:
            raise UsageError(
                f"model {name!r} has no key; name its variable with api_key_env in llmops.yaml, or sign in to "
                "Entra ID with auth: entra"
            )
        self._model = definition.model
        self._stream = definition.stream
        self._refuse_unable = partial(refuse_unable, name, definition.provider, self.abilities)
        self._connection = Connection(access, partial(_Clients, access, definition.limits.concurrency))

    async def complete(self, request: Request, *, call_id: str, timeout_s: float) -> Reply:
        """Send one request and return its reply; see `base.Model`."""
        self._refuse_unable(abilities_for(request))
        body = encode(request, self._model, self._stream)

        async def send(clients: _Clients, exchange: Exchange[Reply]) -> Reply:
            written(body)
            return await _send(partial(clients.chat.complete, body=body), call_id, exchange)

        return await self._connection.ask(chat_exchange(self._connection.access, request), send, timeout_s)

    async def embed(self, request: EmbeddingRequest, *, call_id: str, timeout_s: float) -> Embeddings:
        """Send one request and return its vectors; see `base.Model`."""
        needed = abilities_for(request)
        self._refuse_unable(needed)
        body = encode_vectors(request, self._model)

        async def send(clients: _Clients, exchange: Exchange[Embeddings]) -> Embeddings:
            written(body)
            client = clients.image_vectors if Ability.IMAGE_EMBEDDINGS in needed else clients.vectors
            return await _send(partial(client.embed, body=body), call_id, exchange)

        exchange = embeddings_exchange(self._connection.access, request)
        return await self._connection.ask(exchange, send, timeout_s)

    async def find(self, request: Request, *, call_id: str, timeout_s: float) -> Reply | None:  # noqa: ARG002
        """Raise RequestError: the service keeps nothing."""
        self._refuse_unable({Ability.RECONCILE})
        return None

    async def info(self, *, timeout_s: float) -> ModelInfo:
        """Return what the service says of the model; see `base.Model`."""

        async def send(clients: _Clients, exchange: Exchange[ModelInfo]) -> ModelInfo:
            return await _send(clients.chat.get_model_info, None, exchange)

        exchange = Exchange(self._connection.access, decode_info)
        return await self._connection.ask(exchange, send, timeout_s)

    async def close(self) -> None:
        """Close the connections."""
        await self._connection.close()


class _Clients:
    """The SDK's three clients, over the same connections."""

    def __init__(self, access: Access, concurrency: int) -> None:
        import ssl

        import aiohttp
        from azure.ai.inference.aio import ChatCompletionsClient, EmbeddingsClient, ImageEmbeddingsClient
        from azure.core.pipeline.policies import HeadersPolicy
        from azure.core.pipeline.transport import AioHttpTransport

        from llmops.models.resolver import CheckedResolver

        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=concurrency,
                keepalive_timeout=IDLE_S,
                ssl=ssl.create_default_context(),  # aiohttp's own is older than the SSL_CERT_FILE of a .env
                resolver=CheckedResolver(),
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            proxy=access.proxy,
        )
        common: dict[str, Any] = {
            "endpoint": access.endpoint,
            "credential": object(),  # it holds none, and the policy adds none: each request brings its own
            "authentication_policy": HeadersPolicy(),
            "api_version": API_VERSION,
            "retry_total": 0,
            "permit_redirects": False,
            "connection_timeout": CONNECT_S,
            "read_timeout": NO_READ_TIMEOUT_S,
            "transport": AioHttpTransport(
                session=self._session, session_owner=False, connection_data_block_size=BLOCK_BYTES
            ),
        }
        self.chat = ChatCompletionsClient(**common)
        self.vectors = EmbeddingsClient(**common)
        self.image_vectors = ImageEmbeddingsClient(**common)

    async def close(self) -> None:
        await self._session.close()


async def _send(call: Callable[..., Awaitable[Any]], call_id: str | None, exchange: Exchange[R]) -> R:
    """Return what the exchange reads of an answer. call: the SDK's, but for what is the same for all."""
    import aiohttp
    from azure.core.exceptions import AzureError, ServiceRequestTimeoutError

    try:
        await call(
            stream=True,  # to the SDK it means: leave the body unread; the service goes by `body`
            headers=call_headers(call_id) | _signed(exchange.access),
            request_id=call_id,
            raw_response_hook=_take,
        )
    except _Arrived as arrived:
        response = arrived.response
    except AzureError as error:
        unsent = (aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError)
        if isinstance(error.__cause__, unsent) or isinstance(error, ServiceRequestTimeoutError):
            raise exchange.not_sent(error) from clean_cause(error)
        raise exchange.not_answered() from clean_cause(error)
    try:
        broken = (AzureError, aiohttp.ClientError, OSError)
        answer = Answer(response.status_code, response.headers, response.iter_raw(), broken)
        return await exchange.read(answer)
    finally:
        await response.close()


def _signed(access: Access) -> dict[str, str]:
    """Return the headers of a key, which some hosts want in one and some in the other, or of a token."""
    if access.key is None:
        return {}
    bearer = {"Authorization": f"Bearer {access.key.value}"}
    return bearer if access.by_token else bearer | {"api-key": access.key.value}


class _Arrived(Exception):
    """The answer, on its way out of the SDK's pipeline before the SDK reads it."""

    def __init__(self, response: Any) -> None:
        super().__init__()
        self.response = response


def _take(response: PipelineResponse[Any, Any]) -> None:
    raise _Arrived(response.http_response)
