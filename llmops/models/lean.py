"""OpenAI's protocol over aiohttp and nothing more: the default client, for the SDK costs fifteen times as much.

It sends the bytes that the SDK would send, which a test holds it to, and hands the answer over unread. It knows no
protocol beyond where to post; retries, redirects, cookies and the environment's settings are off.
"""

from __future__ import annotations

import ssl
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import aiohttp
from yarl import URL

from llmops.models.exchange import CONNECT_S, IDLE_S, Answer, Exchange, R
from llmops.models.resolver import CheckedResolver
from llmops.models.wire import in_path, written
from llmops.secrets import clean_cause

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmops.definitions.project import ModelDefinition
    from llmops.models.access import Access

_HEADERS = {"Accept": "application/json", "User-Agent": "llmops"}
_UNSENT = (
    aiohttp.ClientConnectorError,  # with names that do not resolve, and certificates that are not trusted
    aiohttp.ConnectionTimeoutError,
    aiohttp.ClientHttpProxyError,
)
_PLAIN_BYTES = 1 << 20  # aiohttp warns of more, and images are more
_BROKEN = (aiohttp.ClientError, OSError)


class LeanClient:
    """The connections to one model; see `openai.Client`."""

    def __init__(self, access: Access, definition: ModelDefinition) -> None:
        self._posts_to, self._asks, self._query = _address(access.endpoint, definition)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=definition.limits.concurrency,
                keepalive_timeout=IDLE_S,
                resolver=CheckedResolver(),
                ssl=_trust(access),
            ),
            headers=_HEADERS,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            proxy=access.proxy,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
        )

    async def send(
        self,
        route: str,
        body: Mapping[str, Any] | None,
        headers: Mapping[str, str],
        exchange: Exchange[R],
        query: Mapping[str, str],
    ) -> R:
        """Send and return what the exchange reads of the answer; see `openai.Client`."""
        base = self._asks if body is None else self._posts_to
        response = await self._begin(self._url(f"{base}/{route}", query), body, headers, exchange)
        try:
            chunks = response.content.iter_any()
            return await exchange.read(Answer(response.status, response.headers, chunks, _BROKEN))
        finally:
            response.release()  # what is not read to its end is closed

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    def _url(self, path: str, query: Mapping[str, str]) -> URL:
        fields = {**self._query, **query}
        return URL(f"{path}?{urlencode(fields, quote_via=quote)}" if fields else path, encoded=True)

    async def _begin(
        self, url: URL, body: Mapping[str, Any] | None, headers: Mapping[str, str], exchange: Exchange[R]
    ) -> aiohttp.ClientResponse:
        try:
            if body is None:
                return await self._session.get(url, headers=headers, allow_redirects=False)
            data = written(body)
            return await self._session.post(
                url,
                data=data if len(data) <= _PLAIN_BYTES else BytesIO(data),
                headers={**headers, "Content-Type": "application/json"},
                allow_redirects=False,
            )
        except _UNSENT as error:
            raise exchange.not_sent(error) from clean_cause(error)
        except aiohttp.ClientError as error:
            raise exchange.not_answered() from clean_cause(error)


def _trust(access: Access) -> ssl.SSLContext | bool:
    """Return whom to trust; aiohttp's own is older than the SSL_CERT_FILE of a .env, and does where none is needed."""
    addresses = (access.endpoint, access.proxy or "")
    is_needed = any(address.lower().startswith("https:") for address in addresses)
    return ssl.create_default_context() if is_needed else True  # making one takes as long as forty calls


def _address(endpoint: str, definition: ModelDefinition) -> tuple[str, str, dict[str, str]]:
    """Return the base URL of what is posted and of what is asked, and the query of both.

    Where the service has dated versions, posting is by deployment.
    """
    if definition.api_version is None:
        return endpoint, endpoint, {}
    base = f"{endpoint}/openai"
    posts_to = f"{base}/deployments/{in_path(definition.model or '')}"
    return posts_to, base, {"api-version": definition.api_version}
