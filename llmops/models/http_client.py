"""One request to a host over aiohttp, and nothing more: no redirect, cookie, retry or setting of the environment's."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

import aiohttp
from yarl import URL

from llmops.addresses import PRIVATE_HOSTS, ForbiddenAddressError
from llmops.errors import AccessError, ModelError, ReplyError, UnavailableError, causes
from llmops.models.exchange import CONNECT_S, IDLE_S
from llmops.models.resolver import CheckedResolver, PublicResolver
from llmops.models.wire import Body
from llmops.secrets import clean_cause

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Protocol

    from llmops.records import HttpRequest

    class Errors(Protocol):
        """Makes an error of a kind, in the host's name."""

        def __call__(self, kind: type[ModelError], message: str, *, sent: bool | None) -> ModelError:
            """Return it."""


_UNSENT = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ClientHttpProxyError,
)


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What came back. headers: names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpClient:
    """The connections to one host. may_be_private: whether it may be of a private network, or this machine."""

    def __init__(self, proxy: str | None, concurrency: int, *, may_be_private: bool) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=concurrency,
                keepalive_timeout=IDLE_S,
                resolver=CheckedResolver() if may_be_private else PublicResolver(),
                ssl=ssl.create_default_context(),
            ),
            headers={"User-Agent": "llmops"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            proxy=proxy,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
        )

    async def send(
        self, request: HttpRequest, headers: Mapping[str, str], *, most: int, error: Errors
    ) -> HttpAnswer:
        """Return the answer to one request, of at most so many bytes. Raises what `error` makes."""
        response = await self._begin(request, headers, error)
        try:
            found = {name.lower(): value for name, value in response.headers.items()}
            body = Body(found.get("content-encoding", "").strip().lower(), most)
            async for chunk in response.content.iter_any():
                for _ in body.add(chunk):
                    pass
            return HttpAnswer(response.status, found, bytes(body))
        except ReplyError as raised:
            told = error(ReplyError, str(raised), sent=True)
            told.kind = raised.kind
            raise told from clean_cause(raised)
        except (aiohttp.ClientError, OSError) as raised:
            raise error(UnavailableError, "the answer broke off", sent=None) from clean_cause(raised)
        finally:
            response.release()

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def _begin(
        self, request: HttpRequest, headers: Mapping[str, str], error: Errors
    ) -> aiohttp.ClientResponse:
        asked = urlencode(request.query, quote_via=quote)
        url = URL(f"{request.url}{'?' if asked else ''}{asked}", encoded=True)
        data = None if request.body is None else BytesIO(request.body.encode("utf-8", "replace"))
        try:
            return await self._session.request(
                request.method, url, data=data, headers=headers, allow_redirects=False
            )
        except _UNSENT as raised:
            raise _unsent(raised, error) from clean_cause(raised)
        except aiohttp.ClientError as raised:
            message = "the connection broke before an answer came"
            raise error(UnavailableError, message, sent=None) from clean_cause(raised)


def _unsent(raised: Exception, error: Errors) -> ModelError:
    """Return the error for a request that could not leave."""
    found = tuple(causes(raised))
    forbidden = [cause for cause in found if isinstance(cause, ForbiddenAddressError)]
    if forbidden:
        message = f"{forbidden[0]}; {PRIVATE_HOSTS} lists hosts of a private network that may be asked"
        return error(AccessError, message, sent=False)
    if any(isinstance(cause, ssl.SSLError) for cause in found):
        return error(AccessError, "it cannot be trusted: no secure connection", sent=False)
    return error(
        UnavailableError, "it cannot be reached; check the address, the proxy and the network", sent=False
    )
