"""Another process at work on a store: what the tests of stores start, stop, kill and starve of disk.

    python -m tests.stores.child {write|hold|intend|lock|full|full-for-good} URL ROOT OWNER

Says on stdout what it has done, a line at a time, so that the test knows what it may rely on.
"""

from __future__ import annotations

import asyncio
import resource
import sqlite3
import sys
from itertools import count
from pathlib import Path

from llmops.errors import StoreError
from llmops.stores.journal import Journal, open_journal
from llmops.stores.writer import Writer
from tests.stores.samples import (
    answered,
    call_of,
    cells_of,
    output_of,
    run_of,
    score_of,
    span_of,
    store_of,
)


def say(*words: object) -> None:
    print(*words, flush=True)


async def write_for_ever(journal: Journal) -> None:
    """Write cell after cell; say which intents are acknowledged, and up to which cell all is flushed."""
    cells = cells_of(2_000)
    journal.begin_run(run_of(), cells)
    async with Writer(journal) as writer:
        for number, (cell, _) in enumerate(cells):
            call = call_of(cell.cell_id)
            await writer.intend(call)
            say("intent", call.id)
            writer.record_call(answered(call))
            await writer.record_output(cell, output_of(cell, spans=(span_of(call_id=call.id),)))
            await writer.record_scores(cell, [score_of()])
            if number % 7 == 6:
                await writer.flush()
                say("flushed", number)


async def have_in_flight(journal: Journal) -> None:
    """Send a call and wait for a line before its answer comes."""
    async with Writer(journal) as writer:
        call = call_of("shared")
        known = await writer.intend(call)
        say("known" if known else "sent")
        if known is None:
            await asyncio.to_thread(sys.stdin.readline)
            writer.record_call(answered(call))


async def fill_the_disk(root: Path, journal: Journal, *, free_it: bool) -> None:
    """Have calls in flight when files may not grow any more; say what each party was told."""
    cells = [cell for cell, _ in cells_of(20)]
    calls = [call_of(cell.cell_id) for cell in cells]
    size = store_of(root).with_name("store.db-wal").stat().st_size
    async with Writer(journal) as writer:
        for call in calls:
            await writer.intend(call)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        for number in count():
            try:
                await writer.intend(call_of(f"more {number} " + "x" * 20_000))
            except StoreError as error:
                say("refused", error)
                break
        for cell, call in zip(cells, calls, strict=True):
            writer.record_call(answered(call))
            await writer.record_output(cell, output_of(cell))
        await asyncio.sleep(0.3)  # time for the writer to fail at these as well
        if free_it:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def main(mode: str, url: str, root: Path, owner: str) -> None:
    if mode == "lock":
        connection = sqlite3.connect(store_of(root), isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        say("locked")
        sys.stdin.readline()
        connection.execute("COMMIT")
        return
    journal = open_journal(url, root=root)
    with journal.hold(owner):
        say("held")
        if mode == "write":
            asyncio.run(write_for_ever(journal))
        elif mode == "intend":
            asyncio.run(have_in_flight(journal))
        elif mode == "hold":
            sys.stdin.readline()
        else:
            journal.begin_run(run_of(), cells_of(20))
            try:
                asyncio.run(fill_the_disk(root, journal, free_it=mode == "full"))
                say("ended well")
            except StoreError as error:
                say("lost", error)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4])
