"""One limit for all processes that ask a deployment side by side, through the store.

Each takes its part of what is declared, and of what all together have learnt: the mean of what they say. The store
is looked at beside the calls and never on their way; where it fails, each goes on as it last was, and the writer
says what is wrong.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from statistics import fmean
from typing import TYPE_CHECKING

from llmops.errors import StoreError

if TYPE_CHECKING:
    from llmops.call.limits import Limiter
    from llmops.stores.journal import Journal

SHARE_S = 1.0
"""Between looks at the store."""


class Shares:
    """Our part in the limits of deployments, by their identity."""

    def __init__(self, limiters: Mapping[str, Limiter]) -> None:
        self._limiters = limiters
        self._n_processes = Counter(dict.fromkeys(limiters, 1))

    def learnt(self) -> dict[str, float | None]:
        """Return what each deployment bears of all, as far as we know."""
        rates = {key: limiter.learnt_per_s for key, limiter in self._limiters.items()}
        return {key: rate and rate * self._n_processes[key] for key, rate in rates.items()}

    def take(self, said: Mapping[str, Sequence[float | None]]) -> None:
        """Go on with our part. said: by deployment, what all say who ask it, ourselves included."""
        for key, rates in said.items():
            n = self._n_processes[key] = len(rates)
            known = [rate for rate in rates if rate is not None]
            self._limiters[key].share(n, fmean(known) / n if known and n > 1 else None)


@asynccontextmanager
async def sharing(limiters: Mapping[str, Limiter], journal: Journal) -> AsyncIterator[None]:
    """Share the limits with other runners of the store while the block goes on. limiters: by deployment."""
    if not (limiters and journal.is_shared):
        yield
        return
    shares, over = Shares(limiters), asyncio.Event()

    async def look() -> None:
        with suppress(StoreError):  # the writer meets the same, and says so
            shares.take(await asyncio.to_thread(journal.share_limits, shares.learnt()))

    async def keep_looking() -> None:
        while not over.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), SHARE_S)
                return
            await look()

    await look()
    looking = asyncio.create_task(keep_looking())
    try:
        yield
    finally:
        over.set()
        await asyncio.wait({looking})
        with suppress(StoreError):
            await asyncio.to_thread(journal.share_limits, {})
