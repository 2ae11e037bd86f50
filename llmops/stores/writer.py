"""The one writer of a run in progress: takes records as they come and commits them in groups.

A thread of its own waits for the disk, so that no call does: an intent waits for the group it is in, all else
is handed over and forgotten. What was paid for is kept in memory when the disk refuses it.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from dataclasses import dataclass, field
from time import CLOCK_MONOTONIC, clock_gettime, monotonic
from typing import TYPE_CHECKING, Self

from llmops.errors import StoreError
from llmops.records import NOTHING
from llmops.stores.rows import Rows, call_row, intent_row, output_row, score_row, span_rows

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from llmops.records import Call, Output, Score, Spent
    from llmops.stores.journal import Cell, Journal, Taken
    from llmops.stores.rows import Row

MAX_AGE_S = 0.05  # of what is not committed yet
GATHER_S = 0.04  # from one transaction to the next: what comes meanwhile, intents too, shares one
MAX_WAITING = 2_000  # records not committed yet: beyond that, whoever brings more waits
CERTAIN_S = 5.0  # after a commit we still hold what we held: no database lets go of a silent process so soon
ELSEWHERE_S = (
    0.05,
    1.0,
)  # between looks at a call that another runner has in flight: the first wait, the longest

_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", CLOCK_MONOTONIC)


@dataclass(slots=True)
class _Group:
    """What goes into one transaction, and who waits for it."""

    rows: Rows = field(default_factory=Rows)
    waiting: list[asyncio.Future[Taken | None]] = field(default_factory=list)
    due: float | None = None
    """When it must be committed, on the monotonic clock; None while it is empty."""


class Writer:
    """Writes to a journal from a thread while the event loop goes on; `async with` starts and ends it.

    Leaving the block commits everything handed over. When a commit fails, no further intent is taken, and
    what was answered is tried again on its own, replies first; what then still cannot be written is kept,
    tried with each later group and once more at the end.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._changed = threading.Condition()
        self._group = _Group()
        self._taken = _Group()
        self._kept = Rows()
        self._intents: dict[str, Row] = {}  # of calls in flight: requests are long, and needed twice
        self._intended: dict[str, float] = {}  # calls in flight: when their intent was committed
        self._confirmed_at = -CERTAIN_S  # when the last transaction that went through was begun
        self._certain_from = 0.0  # since when there was one at least every CERTAIN_S
        self._failure: StoreError | None = None
        self._begun_at = -math.inf  # when the last transaction was begun, on the monotonic clock
        self._closing = False
        self._waking = False

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        threading.Thread(target=self._work, name="llmops-writer", daemon=True).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        await asyncio.shield(self._ended)
        if kind is None and self._failure is not None and self._kept:
            raise _again(self._failure)

    async def intend(self, call: Call) -> Call | None:
        """Return the call when the journal has its answer; otherwise, once the intent is committed, None.

        One of which nobody learnt what became of a request before is returned as it stood, without an answer.

        A call that another runner has in flight is waited for, and is ours to send when that runner is gone.

        Raises StoreError when it cannot be committed: then nothing may be sent.
        """
        wait_s, longest_s = ELSEWHERE_S
        while (taken := await self._wait_for(call)) is not None and call.id in taken.elsewhere:
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, longest_s)
        if taken is None:
            return None
        if call.id in taken.answered:
            self._intents.pop(call.id, None)
            return taken.answered[call.id]
        self._intended[call.id] = _now()
        return taken.doubtful.get(call.id)

    async def still_ours(self, call: Call) -> Call | None:
        """Return the call when it has been answered since it was intended; otherwise None: it may be sent now.

        A process that stood still, or could not reach its database, may have lost its hold to another runner
        meanwhile: then the intent is committed anew, which finds what that one did.

        Raises StoreError when it cannot be committed, StoreHeldError while another runner holds what we held.
        """
        is_certain = (
            self._intended.get(call.id, 0.0) >= self._certain_from
            and _now() - self._confirmed_at <= CERTAIN_S
        )
        return None if is_certain else await self.intend(call)

    def record_call(self, call: Call, spent: Spent | None = None) -> None:
        """Hand over what came of a call; what was paid for is always taken. spent: since the last try was recorded.

        Raises StoreError when it cannot be stored as it is.
        """
        row = call_row(call, self._intents.pop(call.id, None))
        self._intended.pop(call.id, None)
        with self._changed:
            self._group.rows.add_call(row, spent or NOTHING)
            self._let_come_due()

    async def record_try(self, call: Call, spent: Spent) -> None:
        """Return once it is committed what came of one try of a call that is tried again.

        So a kill never hides more than one request of a call. Raises StoreError when it cannot be committed: then
        nothing more may be sent.
        """
        row = call_row(call, self._intents.get(call.id))
        with self._changed:
            self._group.rows.add_call(row, spent)
        await self.flush()

    async def record_output(self, cell: Cell, output: Output) -> None:
        """Hand over the output of a cell; waits only when the disk is far behind.

        Raises StoreError when it cannot be stored as it is, or when too much waits for a broken disk.
        """
        if output.cell_id != cell.cell_id:
            raise StoreError(f"the output of cell {output.cell_id} was handed over for {cell.cell_id}")
        row, spans = output_row(output), span_rows(output)
        await self._room()
        with self._changed:
            self._group.rows.add_output(row, spans)
            self._let_come_due()

    async def record_scores(self, cell: Cell, scores: Iterable[Score]) -> None:
        """Hand over scores of a cell; waits and raises as `record_output` does."""
        rows = [score_row(cell.cell_id, cell.case_key, score) for score in scores]
        await self._room()
        with self._changed:
            for row in rows:
                self._group.rows.add_score(row)
            self._let_come_due()

    async def flush(self) -> None:
        """Return when everything handed over so far is committed.

        Raises StoreError when it cannot be.
        """
        await self._wait_for(None)

    # --- on the event loop --------------------------------------------------------------------------------

    async def _wait_for(self, call: Call | None) -> Taken | None:
        future: asyncio.Future[Taken | None] = self._loop.create_future()
        with self._changed:
            if self._failure is not None:
                raise _again(self._failure)
            if call is not None:
                row = self._intents[call.id] = intent_row(call)
                self._group.rows.add_intent(row)
            self._group.waiting.append(future)
        if not self._waking:  # once for all that this turn of the loop brings
            self._waking = True
            self._loop.call_soon(self._wake)
        return await future

    def _wake(self) -> None:
        self._waking = False
        with self._changed:
            if self._group.waiting and self._group.due != 0.0:
                self._group.due = 0.0
                self._changed.notify_all()

    async def _room(self) -> None:
        if len(self._group.rows) + len(self._kept) >= MAX_WAITING:
            await self._wait_for(None)

    def _let_come_due(self) -> None:
        if self._group.due is None:
            self._group.due = monotonic() + MAX_AGE_S
            self._changed.notify_all()

    # --- on the thread ------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while (group := self._next_group()) is not None:
                self._taken = group
                self._store(group)
            if self._kept:
                self._rescue()
        finally:
            self._loop.call_soon_threadsafe(self._end)

    def _next_group(self) -> _Group | None:
        """Return what is to be committed now, waiting until there is something; None when all is done."""
        with self._changed:
            while not self._closing:
                due = self._group.due
                left = None if due is None else max(due, self._begun_at + GATHER_S) - monotonic()
                if left is not None and left <= 0:
                    break
                self._changed.wait(left)
            if self._closing and not self._group.waiting and not self._group.rows:
                return None
            self._begun_at = monotonic()
            group, self._group = self._group, _Group()
            return group

    def _store(self, group: _Group) -> None:
        if self._kept:
            self._kept.update(group.rows)
        else:
            self._kept = group.rows
        taken: Taken | None = None
        if self._failure is None:
            try:
                begun_at = _now()
                taken = self._journal.commit(self._kept)
                self._confirm(begun_at)
                self._kept = Rows()
            except StoreError as error:
                self._failure = error
                self._journal.release_reserve()
        if self._failure is not None:
            self._rescue()
        self._loop.call_soon_threadsafe(_settle, group.waiting, taken, self._failure)

    def _confirm(self, begun_at: float) -> None:
        if begun_at - self._confirmed_at > CERTAIN_S:
            self._certain_from = begun_at
        self._confirmed_at = begun_at

    def _rescue(self) -> None:
        """Commit replies, then what is derived from them; what the disk still refuses stays kept."""
        self._kept.intents.clear()
        try:
            self._journal.commit(Rows(calls=self._kept.calls, spent=self._kept.spent, is_doubtful=True))
            self._kept.calls.clear()
            self._kept.spent.clear()
            self._journal.commit(self._kept)
            self._kept = Rows()
        except StoreError:  # the first failure is the one that is told
            self._journal.set_aside(self._kept)

    # --- on the event loop, at the thread's bidding -------------------------------------------------------

    def _end(self) -> None:
        """Say that the thread has ended, and let nobody wait for it any more."""
        if not self._closing:
            self._failure = self._failure or StoreError(
                "the journal's writer broke off; this is a fault of llmops"
            )
        stopped = self._failure or StoreError("the journal's writer has ended")
        for group in (self._taken, self._group):
            _settle(group.waiting, None, stopped)
        self._ended.set_result(None)


def _now() -> float:
    """Return seconds on a clock that goes on while the machine sleeps, where there is one."""
    return clock_gettime(_CLOCK)


def _settle(
    waiting: Iterable[asyncio.Future[Taken | None]], taken: Taken | None, failure: StoreError | None
) -> None:
    for future in waiting:
        if future.done():  # whoever waited was cancelled
            continue
        if failure is not None:
            future.set_exception(_again(failure))
        else:
            future.set_result(taken)


def _again(failure: StoreError) -> StoreError:
    """Return the failure anew: one exception raised in many tasks would gather all their tracebacks."""
    return type(failure)(*failure.args)
