"""The vectors of passages by a model, asked for in batches that stay the same when something else changes.

A batch ends where the text of a passage says so, not after so many: a passage that comes, goes or changes moves no
other to another batch, and so the journal answers again for all but a few.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

Embed = Callable[[Sequence[str]], Awaitable[Sequence[Sequence[float]]]]
"""Gives one vector a text, in their order."""

USUAL = 32
"""Passages in a batch, on average."""

MOST = 128
AT_ONCE = 64
"""Batches that wait for the model; how many of them are under way is for its limits to say."""


def batches(texts: Sequence[str]) -> Iterator[list[str]]:
    """Yield the texts in batches whose ends their own words decide."""
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == MOST or zlib.crc32(text.encode("utf-8", "surrogatepass")) % USUAL == 0:
            yield batch
            batch = []
    if batch:
        yield batch


async def embed_all(texts: Sequence[str], embed: Embed) -> Any:
    """Return one vector a text, shape (n, size).

    Raises what asking raises; batches that were answered stay in the journal.
    """
    import numpy as np

    free = asyncio.Semaphore(AT_ONCE)

    async def ask(batch: Sequence[str]) -> Any:
        async with free:
            return np.asarray(await embed(batch), dtype=np.float32)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask(batch)) for batch in batches(texts)]
    return np.concatenate([task.result() for task in tasks])
