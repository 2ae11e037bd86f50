"""Work that asks models, carried out side by side: workers, signals, what went wrong, and an end in good order.

What one piece of work is, is left to `run` (a cell) and `score` (an output that lacks a score).
"""

from __future__ import annotations

import asyncio
import signal
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from llmops.call.caller import Caller, Stopping
from llmops.errors import (
    AccessError,
    BudgetError,
    LlmopsError,
    ModelError,
    ParkedError,
    StoreError,
    first_error,
)
from llmops.records import FAILED, Output, Run

if TYPE_CHECKING:
    from llmops.call.replay import Replay
    from llmops.stores.writer import Writer

LOOKAHEAD = 64
"""Pieces of work under way beyond those in flight, so that their intents are on disk before a place is free."""

READ_AHEAD = 100
"""Pieces of work read from the journal at a time."""

DRAIN_S = 9.0
"""What is in flight when a run is stopped may take so long to come home."""

SETTLE_S = 0.5
"""What came home is scored and written down in so much time, or by the next run."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come, for whoever shows it."""

    n_done: int
    n_total: int
    n_errors: int
    n_calls: int
    cost_usd: float


@dataclass
class Tally:
    """What one carrying out did, whatever the journal had before. examples: one message for each kind of error."""

    n_total: int
    n_done: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def note_output(self, output: Output) -> None:
        """Count an output that is an error."""
        if output.error is not None and output.status in FAILED:
            self.note_error(output.error.kind, output.error.message)

    def note_error(self, kind: str, message: str) -> None:
        """Count an error."""
        self.kinds[kind] += 1
        self.examples.setdefault(kind, message)

    def errors(self) -> dict[str, tuple[int, str]]:
        """Return by kind, the most frequent first, how often an error was met and one message."""
        return {kind: (n, self.examples[kind]) for kind, n in self.kinds.most_common()}


@dataclass(frozen=True)
class Result:
    """A run after being carried out. stopped: why it ended early, None when all of it was done.

    n_selected: cells asked for. n_without_output: of those, how many have none. n_without_score: how many have
    an output that some evaluator has still to judge. signal: that interrupted it.
    errors: by kind, how often it was met and one message.
    """

    run: Run
    n_selected: int
    n_without_output: int
    errors: Mapping[str, tuple[int, str]]
    n_without_score: int = 0
    stopped: LlmopsError | None = None
    signal: int | None = None


def _interrupt(_: int) -> None:
    raise KeyboardInterrupt


@dataclass(frozen=True)
class Settings:
    """What the command line says about carrying out. concurrency: in flight for each model, None as declared.

    give_up: called with the number of the second signal. replay: what answers in place of models, if anything.
    """

    environment: Mapping[str, str]
    utc_now: Callable[[], datetime]
    concurrency: int | None = None
    progress: Callable[[Progress], None] = lambda _: None
    give_up: Callable[[int], None] = _interrupt
    replay: Replay | None = None


@dataclass
class Carrying:
    """One carrying out: workers that take work in order until there is none, or something stops them.

    stopped: the first thing that keeps it from doing all. broken: the journal failed.
    """

    caller: Caller
    writer: Writer
    settings: Settings
    tally: Tally
    wall_s: float | None = None
    stopped: LlmopsError | None = None
    broken: StoreError | None = None
    signal: int | None = None
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _ahead: deque[Any] = field(default_factory=deque)
    _is_read: bool = False
    _reading: asyncio.Lock = field(default_factory=asyncio.Lock)
    # Its one thread starts with the run: asyncio's own pool starts one to end the others, and hangs without memory.
    _reader: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "llmops-reader"))

    def __post_init__(self) -> None:
        if self.wall_s is not None:
            self.caller.end_after(self.wall_s)

    async def carry_out(self, work: Iterator[T], one: Callable[[T], Awaitable[None]]) -> None:
        """Do `one` for each piece of work; the first signal stops taking new ones, the second ends at once.

        Raises StoreError when the journal fails; what is in flight then has still come home.
        """
        n_workers = LOOKAHEAD + 2 * sum(
            deployment.definition.limits.concurrency for deployment in self.caller.deployments.values()
        )
        with _Signals(self._note_signal):
            doing = asyncio.ensure_future(self._all(work, one, min(n_workers, max(self.tally.n_total, 1))))
            try:
                await self._until_done_or_stopped(doing)
                if not doing.done():
                    self.caller.stop()
                    await self._drain(doing)
            finally:
                doing.cancel()
                await asyncio.wait({doing})
                self._reader.shutdown(wait=False)
            if not doing.cancelled() and (error := doing.exception()) is not None:
                raise first_error(error)
        if self.broken is not None:
            raise self.broken
        await self.writer.flush()

    def meet(self, error: LlmopsError, *, of: str = "") -> None:
        """Take note of what keeps a piece of work undone, and stop where going on would be of no use.

        of: what met it, said in front of the message. Of several models the others go on.
        """
        if isinstance(error, BudgetError):
            self.stop_because(error)
        elif isinstance(error, ModelError):
            self.tally.note_error(error.kind, f"{of}: {error}" if of else str(error))
            if isinstance(error, AccessError):
                if self.stopped is None or isinstance(self.stopped, ParkedError):  # the graver reason is told
                    self.stopped = error
                if all(deployment.stopped is not None for deployment in self.caller.deployments.values()):
                    self.stop_because(error)
        elif not isinstance(error, Stopping):
            raise error

    def stop_because(self, error: LlmopsError) -> None:
        """Take no new work; the first reason is the one that is told."""
        self.stopped = self.stopped or error
        self._stop.set()

    def count_done(self) -> None:
        """Count a piece of work as done and tell how far all of it has come."""
        budget, tally = self.caller.budget, self.tally
        tally.n_done += 1
        n_errors = tally.kinds.total()
        self.settings.progress(
            Progress(tally.n_done, tally.n_total, n_errors, budget.n_calls, budget.spent_usd)
        )

    async def _until_done_or_stopped(self, doing: asyncio.Future[None]) -> None:
        if not await _first_of(doing, self._stop, self.wall_s):
            self.stop_because(BudgetError(f"the budget of {self.wall_s:g} s is used up"))

    async def _drain(self, doing: asyncio.Future[None]) -> None:
        """Let requests in flight come home; whoever only waits for a turn is let go."""
        await _first_of(doing, self.caller.idle, DRAIN_S)
        await asyncio.wait({doing}, timeout=SETTLE_S)

    async def _all(self, work: Iterator[T], one: Callable[[T], Awaitable[None]], n_workers: int) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(n_workers):
                group.create_task(self._take(work, one))

    async def _take(self, work: Iterator[T], one: Callable[[T], Awaitable[None]]) -> None:
        while not self._stop.is_set():
            try:
                found = await self._next(work)
                if found is None:
                    return
                await one(found)
            except StoreError as error:
                self.broken = self.broken or error
                self.stop_because(error)

    async def _next(self, work: Iterator[T]) -> T | None:
        """Return the next piece of work; the loop goes on while a database that is away is waited for."""
        while not self._ahead and not self._is_read:
            async with self._reading:
                if not self._ahead and not self._is_read:
                    await self._read(work)
        return self._ahead.popleft() if self._ahead else None

    async def _read(self, work: Iterator[T]) -> None:
        read = asyncio.get_running_loop().run_in_executor(
            self._reader, lambda: list(islice(work, READ_AHEAD))
        )
        self._ahead.extend(found := await read)
        self._is_read = not found

    def _note_signal(self, number: int) -> None:
        if self.signal is not None:
            if number == signal.SIGHUP:  # a terminal that closes sends several: nobody asks for haste
                return
            self.settings.give_up(number)
        self.signal = number
        self._stop.set()


async def _first_of(doing: asyncio.Future[None], event: asyncio.Event, timeout_s: float | None) -> bool:
    """Wait for either; return whether one of them came in time."""
    other = asyncio.ensure_future(event.wait())
    both: set[asyncio.Future[Any]] = {doing, other}
    done, _ = await asyncio.wait(both, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    other.cancel()
    return bool(done)


class _Signals:
    """Turns SIGINT, SIGTERM and SIGHUP into a call, where the main thread lets us; `nohup` is left in force."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        self._tell = tell
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue
            try:
                self._before[number] = signal.getsignal(number)
                loop.add_signal_handler(number, self._tell, number)
            except (ValueError, RuntimeError, NotImplementedError):
                self._before.pop(number, None)

    def __exit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for number, handler in self._before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
