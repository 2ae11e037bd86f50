"""Work that is numbered, done some at a time: items of a map, samples of a vote, tools that one turn asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def side_by_side(n: int, concurrency: int, carry_out: Callable[[int], Awaitable[T]]) -> list[T]:
    """Return what carrying out each number gives, in their order.

    After a failure no more are begun, and those under way come to their end: they may have been paid for. Raises
    what the first in the order of numbers raised.
    """
    done: dict[int, T] = {}
    failed: dict[int, Exception] = {}
    numbers = iter(range(n))

    async def work() -> None:
        for number in numbers:
            if failed:
                return
            try:
                done[number] = await carry_out(number)
            except Exception as error:  # noqa: BLE001 - raised below, once the others have ended
                failed[number] = error

    async with asyncio.TaskGroup() as group:
        for _ in range(min(n, concurrency)):
            group.create_task(work())
    if failed:
        raise failed[min(failed)]
    return [done[number] for number in range(n)]
