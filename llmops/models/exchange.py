"""One request on its way over HTTP: the time it may take, what has come back, and what that amounts to.

Shared by all HTTP providers: each sends in its own way and hands the answer over unread, so that limits on
size and time and the reading of streams are ours, and the same for all. What an answer holds (a chat, vectors,
what is known of a model) is for a decoder of the asker's to say.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from llmops.addresses import ForbiddenAddressError
from llmops.errors import AccessError, ModelError, ModelTimeoutError, ReplyError, UnavailableError, causes
from llmops.models.failures import READ_BYTES, diagnosis, request_id, service_error
from llmops.models.hints import tell_hint
from llmops.models.wire import Body, EventReader, parse_json
from llmops.records import Embeddings, ModelInfo, Reply
from llmops.secrets import MASK, clean_cause, scrub, scrub_bytes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Mapping

    from llmops.models.access import Access
    from llmops.secrets import Secret

_E = TypeVar("_E", bound=ModelError)
R = TypeVar("R", Reply, Embeddings, ModelInfo)
R_co = TypeVar("R_co", Reply, Embeddings, ModelInfo, covariant=True)

CONNECT_S = 10.0
IDLE_S = 30.0
LINGER_S = 1.0  # for a stream to end after its last event, so that the connection can be used again


def call_headers(call_id: str | None) -> dict[str, str]:
    """Return the headers of every request; compression is not asked for, since replies are small."""
    named = {"Idempotency-Key": call_id, "X-Client-Request-Id": call_id} if call_id else {}
    return {**named, "Accept-Encoding": "identity"}


@dataclass(frozen=True)
class Answer:
    """What a client hands over. chunks: the body as it comes off the wire.

    broken: what reading the chunks raises when the connection breaks.
    """

    status: int
    headers: Mapping[str, str]
    chunks: AsyncIterator[bytes]
    broken: tuple[type[Exception], ...]


class Pieces(Protocol[R_co]):
    """What puts a stream together. error: what the service reported; done: nothing more is to come."""

    done: bool
    error: object

    def add(self, name: str, data: str, at_s: float) -> None:
        """Take one event. Raises ReplyError for one that is no piece."""

    def reply(self) -> R_co:
        """Return what the pieces amount to so far."""


class Exchange(Generic[R]):
    """One request, and what is known of its answer so far.

    whole: what a body amounts to. pieces: opens what puts a stream together, None where none is asked for.
    access: with the key or token that this request carries.
    """

    def __init__(
        self,
        access: Access,
        whole: Callable[[object], R],
        pieces: Callable[[], Pieces[R]] | None = None,
    ) -> None:
        self.access = access
        self._whole: Callable[[object], R] = whole
        self._pieces: Callable[[], Pieces[R]] | None = pieces
        self._started = 0.0
        self._headers: dict[str, str] = {}
        self._body = Body("")

    def carry(self, token: Secret) -> None:
        """Let the request go with a token; what fetching it took is not the model's time."""
        self.access = replace(self.access, key=token)
        self._started = time.perf_counter()

    async def within(self, timeout_s: float, sending: Coroutine[None, None, R]) -> R:
        """Return what sending gives. Raises ModelTimeoutError when that takes longer than `timeout_s`."""
        self._started = time.perf_counter()
        try:
            async with asyncio.timeout(timeout_s):
                return await sending
        except TimeoutError as error:
            message = f"no whole reply within {timeout_s:g} s; a slow model wants a longer limits.timeout_s"
            raise self._error(ModelTimeoutError, message, sent=bool(self._headers) or None) from error

    async def read(self, answer: Answer) -> R:
        """Return what an answer holds. Raises the ModelError that it amounts to otherwise."""
        self._headers = {name.lower(): value for name, value in answer.headers.items()}
        tell_hint(self._headers)
        encoding = self._headers.get("content-encoding", "").strip().lower()
        if not 200 <= answer.status < 300:
            with suppress(ReplyError, *answer.broken):  # whatever came is enough to say what is wrong
                self._body = Body(encoding, READ_BYTES)
                await self._read_whole(answer)
            raise service_error(answer.status, self._headers, bytes(self._body), self.access)
        try:
            self._body = Body(encoding)
            return await self._read_said(answer)
        except answer.broken as error:
            raise self._error(ReplyError, "the reply broke off; it may have been billed") from clean_cause(
                error
            )
        except ReplyError as error:
            content_type = self._headers.get("content-type", "of no type")
            explained = self._error(ReplyError, f"{error} (the service calls it {content_type[:80]!a})")
            explained.kind = error.kind
            raise explained from clean_cause(error)

    def not_sent(self, error: Exception) -> ModelError:
        """Return the error for a request that could not leave: no connection, or none to be trusted."""
        insecure = [cause for cause in causes(error) if isinstance(cause, ssl.SSLError)]
        if insecure:
            told = (getattr(insecure[-1], name, None) for name in ("verify_message", "reason"))
            why = next(filter(None, told), "no secure connection")
            return self._error(AccessError, f"{self.access.place} cannot be trusted: {why}", sent=False)
        if any(isinstance(cause, ForbiddenAddressError) for cause in causes(error)):
            message = f"{self.access.place} leads to a link-local address, where clouds keep their metadata"
            return self._error(AccessError, message, sent=False)
        message = f"{self.access.place} cannot be reached; check the address, the proxy and the network"
        return self._error(UnavailableError, message, sent=False)

    def not_answered(self) -> ModelError:
        """Return the error for a connection that broke after the request may have left."""
        message = "the connection broke before an answer came; the request may have been billed"
        return self._error(UnavailableError, message, sent=None)

    async def _read_whole(self, answer: Answer) -> None:
        async for chunk in answer.chunks:
            deque(self._body.add(chunk), maxlen=0)

    async def _read_said(self, answer: Answer) -> R:
        if self._pieces and self._headers.get("content-type", "").lower().startswith("text/event-stream"):
            pieces = await self._read_events(answer, self._pieces())
            took_s = self._elapsed_s()
            await _let_end(answer)
            return self._completed(pieces.reply(), took_s, scrub_bytes(bytes(self._body)))
        await self._read_whole(answer)
        took_s, raw = self._elapsed_s(), scrub_bytes(bytes(self._body))
        return self._completed(self._whole(parse_json(raw)), took_s, raw)

    async def _read_events(self, answer: Answer, pieces: Pieces[R]) -> Pieces[R]:
        """Return what came; a connection that breaks leaves a reply that is cut off, and its text was paid for."""
        reader = EventReader()
        with suppress(*answer.broken):
            async for chunk in answer.chunks:
                for name, data in chain.from_iterable(map(reader.feed, self._body.add(chunk))):
                    pieces.add(name, scrub(data), self._elapsed_s())
                    if pieces.error is not None:
                        raise self._reported(pieces.error)
                if pieces.done:
                    break
        return pieces

    def _completed(self, said: R, took_s: float, raw: bytes) -> R:
        return said.model_copy(update=self._facts(said, took_s, raw))

    def _facts(self, said: Reply | Embeddings | ModelInfo, took_s: float, raw: bytes) -> dict[str, Any]:
        """Return what only the exchange knows, and texts anew: a stream may have brought the key in pieces."""
        if isinstance(said, ModelInfo):
            return {}
        facts: dict[str, Any] = {
            "raw": raw,
            "request_id": request_id(self._headers) or said.request_id,
            "latency_s": took_s,
        }
        if isinstance(said, Reply):
            text = scrub(said.text)
            calls = tuple(
                call.model_copy(update={"arguments": scrub(call.arguments)}) for call in said.tool_calls
            )
            facts |= {"text": text, "tool_calls": calls}
            if (text, calls) != (said.text, said.tool_calls):
                facts["raw"] = MASK.encode()  # whoever has all pieces has the key
        return facts

    def _reported(self, said: object) -> ModelError:
        error = service_error(None, self._headers, json.dumps(said).encode(), self.access)
        error.body = diagnosis(self._body.start(READ_BYTES))
        return error

    def _elapsed_s(self) -> float:
        return time.perf_counter() - self._started

    def _error(self, kind: type[_E], message: str, *, sent: bool | None = True) -> _E:
        return kind(
            scrub(f"model {self.access.model!r}: {message}"),
            model=self.access.model,
            request_id=request_id(self._headers),
            sent=sent,
            body=diagnosis(self._body.start(READ_BYTES)),
        )


async def _let_end(answer: Answer) -> None:
    with suppress(TimeoutError, *answer.broken):
        async with asyncio.timeout(LINGER_S):
            async for _ in answer.chunks:
                pass
