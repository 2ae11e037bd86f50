"""OpenAI, and every server that speaks its chat protocol: Azure's /openai/v1, vLLM, Ollama, llama.cpp.

The request goes out through the openai SDK, which is imported on the first call: it costs half a second. Its
retries and redirects are off, it reads nothing from the environment, and the answer is read by `exchange.py`.
"""

from __future__ import annotations

from contextlib import suppress
from ssl import SSLError
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from llmops.errors import RequestError, UsageError
from llmops.models.access import resolve_access
from llmops.models.exchange import CONNECT_S, IDLE_S, Answer, Exchange, call_headers
from llmops.models.failures import READ_BYTES
from llmops.models.wire import encode_chat

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    import httpx2
    from openai import AsyncOpenAI

    from llmops.definitions.project import ModelDefinition
    from llmops.records import Reply, Request

PARAMETERS = frozenset({"max_tokens", "reasoning_effort", "seed", "stop", "temperature", "top_p"})
OWN_ENDPOINT = "https://api.openai.com/v1"
OWN_HOSTS = ("api.openai.com", "eu.api.openai.com", "us.api.openai.com")

# All that may leave: the SDK adds what it finds in OPENAI_CUSTOM_HEADERS and the like.
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


def encode(request: Request, model: str, stream: bool, *, host: str = "") -> dict[str, Any]:
    """Return the arguments of the SDK's chat call.

    host: of the endpoint. OpenAI's own hosts and Azure's take `max_completion_tokens`, and so does any server
    for a reasoning model; others only know the older `max_tokens`.
    """
    body = encode_chat(request, model, PARAMETERS)
    is_newer = host in OWN_HOSTS or host.endswith(".openai.azure.com") or "reasoning_effort" in body
    if is_newer and "max_tokens" in body:
        body["max_completion_tokens"] = body.pop("max_tokens")
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return body


class OpenAIModel:
    """One model behind an OpenAI-compatible endpoint."""

    version = "openai@1"
    parameters = PARAMETERS

    def __init__(self, name: str, definition: ModelDefinition, environment: Mapping[str, str]) -> None:
        if definition.model is None:
            raise UsageError(f"model {name!r} has no model; give the service's name for it in llmops.yaml")
        self._model = definition.model
        self._stream = definition.stream
        self._concurrency = definition.limits.concurrency
        self._access = resolve_access(
            name, definition, environment, default_endpoint=OWN_ENDPOINT, own_hosts=OWN_HOSTS
        )
        self._host = urlsplit(self._access.endpoint).hostname or ""
        self._client: AsyncOpenAI | None = None
        self._is_closed = False

    async def complete(self, request: Request, *, call_id: str, timeout_s: float) -> Reply:
        """Send one request and return its reply; see `base.Model`."""
        if self._is_closed:
            raise RequestError("the model is closed", model=self._access.model, sent=False)
        body = encode(request, self._model, self._stream, host=self._host)
        client = self._open()  # before the clock starts: the first time, it imports the SDK
        exchange = Exchange(self._access)
        return await exchange.within(timeout_s, _send(client, body, call_id, exchange))

    async def close(self) -> None:
        """Close the connections."""
        self._is_closed = True
        if self._client is not None:
            await self._client.close()
            self._client = None

    def _open(self) -> AsyncOpenAI:
        """Return the client, built on the first call so that only who calls pays for the import."""
        if self._client is None:
            import httpx2
            from openai import AsyncOpenAI

            http_client = httpx2.AsyncClient(
                follow_redirects=False,
                trust_env=False,
                proxy=self._access.proxy,
                verify=httpx2.create_ssl_context(),
                timeout=httpx2.Timeout(None, connect=CONNECT_S),
                limits=httpx2.Limits(
                    max_connections=self._concurrency,
                    max_keepalive_connections=self._concurrency,
                    keepalive_expiry=IDLE_S,
                ),
                event_hooks={"request": [self._keep_ours], "response": [_decline]},
            )
            self._client = AsyncOpenAI(
                api_key=self._access.key.value if self._access.key else "none",
                base_url=self._access.endpoint,
                max_retries=0,
                http_client=http_client,
            )
        return self._client

    async def _keep_ours(self, request: httpx2.Request) -> None:
        for name in set(request.headers) - _HEADERS:
            del request.headers[name]
        if self._access.key is not None:
            request.headers["Authorization"] = f"Bearer {self._access.key.value}"


async def _send(client: AsyncOpenAI, body: dict[str, Any], call_id: str, exchange: Exchange) -> Reply:
    import httpx2
    from openai import APIConnectionError

    chat = client.chat.completions.with_streaming_response
    try:
        async with chat.create(**body, extra_headers=call_headers(call_id)) as response:
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
