"""One request on its way over HTTP: the time it may take, what has come back, and what that amounts to.

Shared by all HTTP providers: they send through their SDK and hand the answer over unread, so that limits on
size and time and the reading of streams are ours, and the same for all.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from llmops.errors import AccessError, ModelError, ModelTimeoutError, ReplyError, UnavailableError
from llmops.models.failures import READ_BYTES, diagnosis, request_id, service_error
from llmops.models.wire import Body, EventReader, StreamedChat, decode, parse_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping

    from llmops.models.access import Access
    from llmops.records import Reply

_E = TypeVar("_E", bound=ModelError)

CONNECT_S = 10.0
IDLE_S = 30.0
LINGER_S = 1.0  # for a stream to end after its last event, so that the connection can be used again


def call_headers(call_id: str) -> dict[str, str]:
    """Return the headers of every request; compression is not asked for, since replies are small."""
    return {"Idempotency-Key": call_id, "X-Client-Request-Id": call_id, "Accept-Encoding": "identity"}


@dataclass(frozen=True)
class Answer:
    """What an SDK hands over. chunks: the body as it comes off the wire.

    broken: what reading the chunks raises when the connection breaks.
    """

    status: int
    headers: Mapping[str, str]
    chunks: AsyncIterator[bytes]
    broken: tuple[type[Exception], ...]


class Exchange:
    """One request, and what is known of its answer so far."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._started = time.perf_counter()
        self._headers: dict[str, str] = {}
        self._body = Body("")

    async def within(self, timeout_s: float, sending: Coroutine[None, None, Reply]) -> Reply:
        """Return what sending gives. Raises ModelTimeoutError when that takes longer than `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                return await sending
        except TimeoutError as error:
            message = f"no whole reply within {timeout_s:g} s; a slow model wants a longer limits.timeout_s"
            raise self._error(ModelTimeoutError, message, sent=bool(self._headers) or None) from error

    async def read(self, answer: Answer) -> Reply:
        """Return the reply that an answer holds. Raises the ModelError that it amounts to otherwise."""
        self._headers = {name.lower(): value for name, value in answer.headers.items()}
        encoding = self._headers.get("content-encoding", "").strip().lower()
        if not 200 <= answer.status < 300:
            with suppress(ReplyError, *answer.broken):  # whatever came is enough to say what is wrong
                self._body = Body(encoding, READ_BYTES)
                await self._read_whole(answer)
            raise service_error(answer.status, self._headers, bytes(self._body), self._access)
        try:
            self._body = Body(encoding)
            return await self._read_reply(answer)
        except answer.broken as error:
            raise self._error(ReplyError, "the reply broke off; it may have been billed") from error
        except ReplyError as error:
            content_type = self._headers.get("content-type", "of no type")
            explained = self._error(ReplyError, f"{error} (the service calls it {content_type[:80]!a})")
            explained.kind = error.kind
            raise explained from error

    def not_sent(self, error: Exception) -> ModelError:
        """Return the error for a request that could not leave: no connection, or none to be trusted."""
        insecure = [cause for cause in _chain(error) if isinstance(cause, ssl.SSLError)]
        if insecure:
            told = (getattr(insecure[-1], name, None) for name in ("verify_message", "reason"))
            why = next(filter(None, told), "no secure connection")
            return self._error(AccessError, f"{self._access.place} cannot be trusted: {why}", sent=False)
        message = f"{self._access.place} cannot be reached; check the address, the proxy and the network"
        return self._error(UnavailableError, message, sent=False)

    def not_answered(self) -> ModelError:
        """Return the error for a connection that broke after the request may have left."""
        message = "the connection broke before an answer came; the request may have been billed"
        return self._error(UnavailableError, message, sent=None)

    async def _read_whole(self, answer: Answer) -> None:
        async for chunk in answer.chunks:
            self._body.add(chunk)

    async def _read_reply(self, answer: Answer) -> Reply:
        if self._headers.get("content-type", "").lower().startswith("text/event-stream"):
            chat = await self._read_events(answer)
            took_s = self._elapsed_s()
            await _let_end(answer)
            reply = chat.reply()
        else:
            await self._read_whole(answer)
            took_s = self._elapsed_s()
            reply = decode(parse_json(self._access.scrub_bytes(bytes(self._body))))
        facts = {
            "text": self._access.scrub(reply.text),  # a stream may have brought the key in pieces
            "raw": self._access.scrub_bytes(bytes(self._body)),
            "request_id": request_id(self._headers) or reply.request_id,
            "latency_s": took_s,
        }
        return reply.model_copy(update=facts)

    async def _read_events(self, answer: Answer) -> StreamedChat:
        reader, chat = EventReader(), StreamedChat()
        async for chunk in answer.chunks:
            for name, data in reader.feed(self._body.add(chunk)):
                chat.add(name, self._access.scrub(data), self._elapsed_s())
                if chat.error is not None:
                    raise self._reported(chat.error)
            if chat.done:
                break
        return chat

    def _reported(self, said: object) -> ModelError:
        error = service_error(None, self._headers, json.dumps(said).encode(), self._access)
        error.body = diagnosis(self._body.start(READ_BYTES), self._access)
        return error

    def _elapsed_s(self) -> float:
        return time.perf_counter() - self._started

    def _error(self, kind: type[_E], message: str, *, sent: bool | None = True) -> _E:
        return kind(
            self._access.scrub(f"model {self._access.model!r}: {message}"),
            model=self._access.model,
            request_id=request_id(self._headers),
            sent=sent,
            body=diagnosis(self._body.start(READ_BYTES), self._access),
        )


async def _let_end(answer: Answer) -> None:
    with suppress(TimeoutError, *answer.broken):
        async with asyncio.timeout(LINGER_S):
            async for _ in answer.chunks:
                pass


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what caused it, innermost last."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
