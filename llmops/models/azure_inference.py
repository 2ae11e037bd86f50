"""Azure AI model inference, through the azure-ai-inference SDK that Microsoft retired on 2026-08-26.

The SDK writes, signs and sends the request; the answer is taken from its pipeline unread, because its stream
parser breaks on comments and its error handling reads without limit. `exchange.py` reads instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmops.errors import RequestError, UsageError
from llmops.models.access import resolve_access
from llmops.models.exchange import CONNECT_S, IDLE_S, Answer, Exchange, call_headers
from llmops.models.wire import encode_chat

if TYPE_CHECKING:
    from collections.abc import Mapping

    from azure.ai.inference.aio import ChatCompletionsClient
    from azure.core.pipeline import PipelineResponse

    from llmops.definitions.project import ModelDefinition
    from llmops.records import Reply, Request

PARAMETERS = frozenset({"max_tokens", "seed", "stop", "temperature", "top_p"})
API_VERSION = "2024-05-01-preview"
BLOCK_BYTES = 64 * 1024
NO_READ_TIMEOUT_S = 24 * 3600.0  # the whole call has a deadline of its own


def encode(request: Request, model: str | None, stream: bool) -> dict[str, Any]:
    """Return the body of the chat call. model: None where the endpoint serves one model only."""
    body = encode_chat(request, model, PARAMETERS)
    if stream:
        body["stream"] = True
    return body


class AzureInferenceModel:
    """One model behind an Azure AI inference endpoint."""

    version = "azure_inference@1"
    parameters = PARAMETERS

    def __init__(self, name: str, definition: ModelDefinition, environment: Mapping[str, str]) -> None:
        # No own hosts: every Azure resource has a name of its own, and anyone can register one.
        self._access = resolve_access(name, definition, environment, default_endpoint=None, own_hosts=())
        if self._access.key is None:
            raise UsageError(f"model {name!r} has no key; name its variable with api_key_env in llmops.yaml")
        self._key = self._access.key
        self._model = definition.model
        self._stream = definition.stream
        self._concurrency = definition.limits.concurrency
        self._client: ChatCompletionsClient | None = None
        self._is_closed = False

    async def complete(self, request: Request, *, call_id: str, timeout_s: float) -> Reply:
        """Send one request and return its reply; see `base.Model`."""
        if self._is_closed:
            raise RequestError("the model is closed", model=self._access.model, sent=False)
        body = encode(request, self._model, self._stream)
        client = self._open()  # before the clock starts: the first time, it imports the SDK
        exchange = Exchange(self._access)
        return await exchange.within(timeout_s, _send(client, body, call_id, exchange))

    async def close(self) -> None:
        """Close the connections."""
        self._is_closed = True
        if self._client is not None:
            await self._client.close()
            self._client = None

    def _open(self) -> ChatCompletionsClient:
        """Return the client, built on the first call so that only who calls pays for the import."""
        if self._client is None:
            import aiohttp
            from azure.ai.inference.aio import ChatCompletionsClient
            from azure.core.credentials import AzureKeyCredential
            from azure.core.pipeline.transport import AioHttpTransport

            session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._concurrency, keepalive_timeout=IDLE_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                proxy=self._access.proxy,
            )
            self._client = ChatCompletionsClient(
                self._access.endpoint,
                AzureKeyCredential(self._key.value),
                api_version=API_VERSION,
                retry_total=0,
                permit_redirects=False,
                connection_timeout=CONNECT_S,
                read_timeout=NO_READ_TIMEOUT_S,
                transport=AioHttpTransport(session=session, connection_data_block_size=BLOCK_BYTES),
            )
        return self._client


async def _send(
    client: ChatCompletionsClient, body: dict[str, Any], call_id: str, exchange: Exchange
) -> Reply:
    import aiohttp
    from azure.core.exceptions import AzureError, ServiceRequestTimeoutError

    try:
        await client.complete(
            body=body,
            stream=True,  # to the SDK it means: leave the body unread; the service goes by `body`
            headers=call_headers(call_id),
            request_id=call_id,
            raw_response_hook=_take,
        )
    except _Arrived as arrived:
        response = arrived.response
    except AzureError as error:
        unsent = (aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError)
        if isinstance(error.__cause__, unsent) or isinstance(error, ServiceRequestTimeoutError):
            raise exchange.not_sent(error) from error
        raise exchange.not_answered() from error
    try:
        broken = (AzureError, aiohttp.ClientError, OSError)
        answer = Answer(response.status_code, response.headers, response.iter_raw(), broken)
        return await exchange.read(answer)
    finally:
        await response.close()


class _Arrived(Exception):
    """The answer, on its way out of the SDK's pipeline before the SDK reads it."""

    def __init__(self, response: Any) -> None:
        super().__init__()
        self.response = response


def _take(response: PipelineResponse[Any, Any]) -> None:
    raise _Arrived(response.http_response)
