"""The vectors of passages by a model, asked for in batches that stay the same when something else changes.

A batch ends where the text of a passage says so, not after so many: a passage that comes, goes or changes moves no
other to another batch, and so the journal answers again for all but a few.
"""

from __future__ import annotations

import asyncio
import tempfile
import zlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from llmops.errors import StoreError, UsageError

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


async def embed_all(texts: Sequence[str], embed: Embed, folder: Path) -> Any:
    """Return one vector a text, shape (n, size), of which the memory holds only what is looked at.

    folder: where they lie meanwhile, in a file without a name.
    Raises what asking raises, and StoreError for the disk; batches that were answered stay in the journal.
    """
    import numpy as np

    free = asyncio.Semaphore(AT_ONCE)
    sizes: set[int] = set()

    async def ask(start: int, batch: Sequence[str]) -> None:
        async with free:
            vectors = np.asarray(await embed(batch), dtype=np.float32)
        sizes.add(vectors.shape[1])
        if len(sizes) > 1:
            raise UsageError(f"the model gave vectors of {' and of '.join(map(str, sorted(sizes)))} numbers")
        try:
            file.seek(start * vectors[0].nbytes)
            left = memoryview(vectors.tobytes())
            while left:
                left = left[file.write(left) :]
        except OSError as error:
            raise StoreError(f"the vectors of an index cannot be written below {folder}: {error}") from error

    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        async with asyncio.TaskGroup() as group:
            start = 0
            for batch in batches(texts):
                group.create_task(ask(start, batch))
                start += len(batch)
        return np.memmap(file, dtype=np.float32, mode="r").reshape(len(texts), -1)
