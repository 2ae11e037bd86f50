"""The client of one model: opened by its first call, closed once, given a key or a fresh token for each call.

What all HTTP providers share around what sends for them; which client it is, and how it sends, each says for itself.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from llmops.errors import RequestError
from llmops.models.chat import decode_chat
from llmops.models.embeddings import decode_embeddings
from llmops.models.entra import EntraTokens
from llmops.models.exchange import Exchange, R
from llmops.models.stream import StreamedChat

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from llmops.models.access import Access
    from llmops.records import EmbeddingRequest, Embeddings, Reply, Request


def chat_exchange(access: Access, request: Request) -> Exchange[Reply]:
    """Return the exchange of a chat, whole or streamed as the service pleases."""
    tools = bool(request.tools)
    return Exchange(access, partial(decode_chat, tools=tools), partial(StreamedChat, tools=tools))


def embeddings_exchange(access: Access, request: EmbeddingRequest) -> Exchange[Embeddings]:
    """Return the exchange of a request for vectors."""
    return Exchange(access, partial(decode_embeddings, request=request))


class Client(Protocol):
    """What a client must do besides sending."""

    async def close(self) -> None:
        """Close connections."""


C = TypeVar("C", bound=Client)


class Connection(Generic[C]):
    """Opens, lends and closes the client of one model. access: where it leads; the client itself knows no key."""

    def __init__(self, access: Access, open_client: Callable[[], C]) -> None:
        self.access = access
        self._open_client = open_client
        self._tokens = EntraTokens(access.model) if access.by_token else None
        self._client: C | None = None
        self._is_closed = False

    async def ask(
        self,
        exchange: Exchange[R],
        send: Callable[[C, Exchange[R]], Coroutine[None, None, R]],
        timeout_s: float,
    ) -> R:
        """Return what sending through the client gives, within the time. Raises the leaves of ModelError."""
        if self._is_closed:
            raise RequestError("the model is closed", model=self.access.model, sent=False)
        if self._client is None:  # before the clock starts: opening imports what sends
            self._client = self._open_client()
        return await exchange.within(timeout_s, self._send(self._client, exchange, send))

    async def close(self) -> None:
        """Close the client and whatever fetches tokens."""
        self._is_closed = True
        client, self._client = self._client, None
        if client is not None:
            await client.close()
        if self._tokens is not None:
            await self._tokens.close()

    async def _send(
        self, client: C, exchange: Exchange[R], send: Callable[[C, Exchange[R]], Coroutine[None, None, R]]
    ) -> R:
        if self._tokens is not None:
            exchange.carry(await self._tokens.current())
        return await send(client, exchange)
