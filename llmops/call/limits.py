"""What may be asked of one deployment at a time and in a minute, kept for all who ask it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from llmops.definitions.project import Limits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Limiter:
    """Keeps one deployment's limits: requests in flight, requests and tokens a minute, and pauses asked for."""

    def __init__(
        self,
        limits: Limits,
        now: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._sleep = sleep
        self._slots = asyncio.Semaphore(limits.concurrency)
        self._now = now
        self._request_s = 60 / limits.rpm if limits.rpm else 0.0
        self._token_s = 60 / limits.tpm if limits.tpm else 0.0
        self._next_request = self._next_token = self._open_at = 0.0

    @asynccontextmanager
    async def slot(self, tokens: int) -> AsyncIterator[None]:
        """Hold one of the places in flight, entered when the limits allow a request of so many tokens."""
        async with self._slots:
            await self._wait_turn(tokens)
            yield

    def pause(self, seconds: float) -> None:
        """Let nobody send to this deployment for a while."""
        self._open_at = max(self._open_at, self._now() + seconds)

    async def _wait_turn(self, tokens: int) -> None:
        now = self._now()
        turn = max(now, self._next_request, self._next_token)
        self._next_request = turn + self._request_s
        self._next_token = turn + self._token_s * tokens
        while (wait := max(turn, self._open_at) - self._now()) > 0:  # a pause may grow meanwhile
            await self._sleep(wait)
