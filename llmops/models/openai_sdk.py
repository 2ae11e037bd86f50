"""OpenAI's protocol through the openai SDK, for who would rather have it than the lean client: `client: sdk`.

Its retries and redirects are off, it reads nothing from the environment, and the answer is read by `exchange.py`.
Importing it costs half a second.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from socket import SOCK_STREAM
from ssl import SSLError
from typing import TYPE_CHECKING, Any

import anyio
import httpx2
from openai import APIConnectionError, AsyncAzureOpenAI, AsyncOpenAI

from llmops.addresses import ForbiddenAddressError, is_forbidden, refuse_forbidden
from llmops.models.exchange import CONNECT_S, IDLE_S, Answer, Exchange, R
from llmops.models.failures import READ_BYTES
from llmops.models.wire import written
from llmops.secrets import clean_cause

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from llmops.definitions.project import ModelDefinition
    from llmops.models.access import Access

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
_UNSENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError, SSLError, ForbiddenAddressError)
_BROKEN = (httpx2.HTTPError, anyio.EndOfStream, OSError)


class SdkClient:
    """Whichever of the SDK's two clients the definition wants; see `openai.Client`.

    key_header: the one header beyond ours that may leave, where there is a key or a token.
    """

    def __init__(self, access: Access, definition: ModelDefinition, key_header: str) -> None:
        self._model = definition.model or ""
        kept = _HEADERS | ({key_header} if access.key or access.by_token else frozenset())

        async def keep_ours(request: httpx2.Request) -> None:
            for name in set(request.headers) - kept:
                del request.headers[name]
            request.extensions = {**request.extensions, "trace": _check_connection}

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
        self._client = _client(access.endpoint, definition.api_version, http_client)

    async def send(
        self,
        route: str,
        body: Mapping[str, Any] | None,
        headers: Mapping[str, str],
        exchange: Exchange[R],
        query: Mapping[str, str],
    ) -> R:
        """Send and return what the exchange reads of the answer; see `openai.Client`."""
        try:
            async with self._opening(route, body, dict(headers), query) as response:
                return await exchange.read(
                    _answer(response.http_response, response.http_response.aiter_raw())
                )
        except _Declined as declined:
            answer = declined.answer
        except (APIConnectionError, ForbiddenAddressError) as error:
            if isinstance(error.__cause__ or error, _UNSENT):
                raise exchange.not_sent(error) from clean_cause(error)
            raise exchange.not_answered() from clean_cause(error)
        return await exchange.read(answer)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    def _opening(
        self, route: str, body: Mapping[str, Any] | None, headers: dict[str, str], query: Mapping[str, str]
    ) -> Any:
        """Return an answer as the SDK gives it, not yet entered. The SDK has its own names for the routes."""
        if route.startswith("models/"):
            return self._client.models.with_streaming_response.retrieve(self._model, extra_headers=headers)
        asked: Any = self._client.chat.completions if route == "chat/completions" else self._client.embeddings
        if body is None:
            return asked.with_streaming_response.list(extra_query=query, extra_headers=headers)
        written(body)  # what cannot be is refused as everywhere; the SDK would have words of its own
        return asked.with_streaming_response.create(**body, extra_headers=headers)


def _client(endpoint: str, api_version: str | None, http_client: httpx2.AsyncClient) -> AsyncOpenAI:
    if api_version is None:
        return AsyncOpenAI(api_key=NO_KEY, base_url=endpoint, max_retries=0, http_client=http_client)
    return AsyncAzureOpenAI(
        api_key=NO_KEY,
        azure_endpoint=endpoint,
        api_version=api_version,
        max_retries=0,
        http_client=http_client,
    )


async def _check_connection(event: str, about: dict[str, Any]) -> None:
    """See before and after connecting that the name leads nowhere forbidden; nothing has been sent by then."""
    if event == "connection.connect_tcp.started":
        loop = asyncio.get_running_loop()
        found = []
        with suppress(OSError):  # who connects says so
            found = await loop.getaddrinfo(about["host"], about["port"], type=SOCK_STREAM)
        refuse_forbidden(about["host"], [str(address[0]) for *_, address in found])
    elif event == "connection.connect_tcp.complete":
        stream = about["return_value"]
        peer = str(stream.get_extra_info("server_addr")[0])
        if is_forbidden(peer):
            await stream.aclose()
        refuse_forbidden(peer, [peer])


class _Declined(Exception):
    """An answer that is no success, taken from the SDK, which would read its body without a limit."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


async def _decline(response: httpx2.Response) -> None:
    if response.is_success:
        return
    chunks: list[bytes] = []
    with suppress(*_BROKEN):  # the status says enough
        async for chunk in response.aiter_raw():
            chunks.append(chunk)
            if sum(map(len, chunks)) > READ_BYTES:
                break
    raise _Declined(_answer(response, _replay(chunks)))


def _answer(response: httpx2.Response, chunks: AsyncIterator[bytes]) -> Answer:
    return Answer(response.status_code, response.headers, chunks, _BROKEN)


async def _replay(chunks: list[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
