"""The writer loses nothing that was acknowledged, whatever becomes of the process or the disk."""

from __future__ import annotations

import asyncio
import math
import signal
from contextlib import contextmanager
from functools import wraps
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Engine, event

from llmops.errors import StoreError
from llmops.records import CallState, Status
from llmops.stores import writer
from llmops.stores.journal import Journal
from llmops.stores.writer import MAX_WAITING, Writer
from tests.stores.conftest import Child, Place, lines
from tests.stores.samples import (
    EXACT,
    Batch,
    answered,
    apply,
    call_of,
    cells_of,
    evaluator,
    output_of,
    run_of,
    score_of,
    span_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from contextlib import AbstractContextManager

    StartChild = Callable[..., AbstractContextManager[Child]]


def awaited(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test in a loop of its own."""

    @wraps(test)
    def run(*arguments: Any, **fixtures: Any) -> None:
        asyncio.run(test(*arguments, **fixtures))

    return run


@contextmanager
def broken(place: Place, table: str) -> Iterator[None]:
    """Take a table away, so that whatever needs it fails, and give it back."""
    place.execute(f"ALTER TABLE {table} RENAME TO away")
    try:
        yield
    finally:
        place.execute(f"ALTER TABLE away RENAME TO {table}")


@contextmanager
def counted_commits() -> Iterator[list[object]]:
    commits: list[object] = []

    def count(connection: object) -> None:
        commits.append(connection)

    event.listen(Engine, "commit", count)
    try:
        yield commits
    finally:
        event.remove(Engine, "commit", count)


# --- when another runner was here meanwhile ---------------------------------------------------------------


@awaited
async def test_a_call_is_sent_at_once_while_the_hold_is_certain_and_looked_up_after_a_standstill_F50(
    journal: Journal, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = call_of("ours"), call_of("theirs")
    async with Writer(journal) as run:
        assert [await run.intend(call) for call in (ours, theirs)] == [None, None]
        with counted_commits() as commits:
            assert await run.still_ours(ours) is None
        assert commits == []
        with place.another() as another:
            apply(another, Batch(calls=[answered(theirs)]))
        monkeypatch.setattr(writer, "CERTAIN_S", -1.0)  # as if the process had stood still
        assert await run.still_ours(ours) is None
        assert await run.still_ours(theirs) == answered(theirs)


# --- when all goes well -----------------------------------------------------------------------------------


@awaited
async def test_an_intent_is_committed_before_its_call_may_go_out(journal: Journal, place: Place) -> None:
    call = call_of("one")
    with place.another() as other:
        async with Writer(journal) as writer:
            assert await writer.intend(call) is None
            assert other.find_call(call.id) == call


@awaited
async def test_a_call_that_was_answered_comes_back_and_nothing_is_sent(journal: Journal) -> None:
    call = answered(call_of("one"))
    apply(journal, Batch(calls=[call]))
    async with Writer(journal) as writer:
        assert await writer.intend(call_of("one")) == call
    assert journal.find_call(call.id) == call


@awaited
async def test_a_call_is_stored_with_its_request_and_all_its_attempts(journal: Journal) -> None:
    call = call_of("one")
    for state, attempts in ((CallState.FAILED, 3), (CallState.ANSWERED, 2)):
        async with Writer(journal) as writer:
            assert await writer.intend(call) is None
            writer.record_call(answered(call, state=state, attempts=attempts))
    assert journal.find_call(call.id) == answered(call, attempts=5)


@awaited
async def test_what_is_handed_over_is_committed_without_anyone_waiting(
    journal: Journal, place: Place
) -> None:
    call = answered(call_of("one"))
    with place.another() as other:
        async with Writer(journal) as writer:
            writer.record_call(call)
            for _ in range(1_000):
                if other.find_call(call.id) is not None:
                    break
                await asyncio.sleep(0.01)
            assert other.find_call(call.id) == call


@awaited
async def test_flush_returns_when_all_before_it_is_committed(journal: Journal) -> None:
    cells = cells_of(50)
    journal.begin_run(run_of(), cells)
    async with Writer(journal) as writer:
        for cell, _ in cells:
            await writer.record_output(cell, output_of(cell, spans=(span_of(),)))
            await writer.record_scores(cell, [score_of()])
        await writer.flush()
        assert journal.n_pending("r1", [EXACT.identity]) == 0
        assert all(row.output and row.output.spans and row.scores for row in journal.rows("r1"))


@awaited
async def test_leaving_commits_all_even_when_the_block_breaks_off(journal: Journal) -> None:
    cells = cells_of(10)
    journal.begin_run(run_of(), cells)
    with pytest.raises(KeyboardInterrupt):
        async with Writer(journal) as writer:
            for cell, _ in cells:
                await writer.record_output(cell, output_of(cell))
            raise KeyboardInterrupt
    assert journal.n_pending("r1", ()) == 0


@awaited
async def test_of_two_outputs_of_a_cell_the_later_stays_with_its_spans_only(journal: Journal) -> None:
    ((cell, case),) = cells_of(1, variants="a")
    journal.begin_run(run_of(), [(cell, case)])
    later = output_of(cell, "later", spans=(span_of(),))
    async with Writer(journal) as writer:
        await writer.record_output(
            cell, output_of(cell, status=Status.ERROR, spans=(span_of(), span_of(1), span_of(2)))
        )
        await writer.record_output(cell, later)
    assert [row.output for row in journal.rows("r1")] == [later]


@awaited
async def test_intents_that_come_together_share_a_transaction(journal: Journal) -> None:
    calls = [call_of(f"call {number}") for number in range(500)]
    with counted_commits() as commits:
        async with Writer(journal) as writer:
            await asyncio.gather(*map(writer.intend, calls))
            assert 1 <= len(commits) <= 3
    assert all(journal.find_call(call.id) == call for call in calls)


@awaited
async def test_intents_that_come_one_by_one_share_transactions_too(journal: Journal) -> None:
    started = monotonic()
    with counted_commits() as commits:
        async with Writer(journal) as run:
            async with asyncio.TaskGroup() as group:
                for number in range(50):
                    group.create_task(run.intend(call_of(f"call {number}")))
                    await asyncio.sleep(0.001)
            assert len(commits) <= 2 + (monotonic() - started) / writer.GATHER_S


@awaited
async def test_one_who_is_alone_and_the_end_wait_for_nobody_to_share_with(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "GATHER_S", 86_400.0)
    async with Writer(journal) as run:
        assert await run.intend(call_of("alone")) is None
        run.record_call(answered(call_of("alone")))
    assert journal.find_call(call_of("alone").id) == answered(call_of("alone"))


@awaited
async def test_more_than_may_wait_is_written_all_the_same(journal: Journal) -> None:
    cells = cells_of(MAX_WAITING)
    journal.begin_run(run_of(), cells)
    with counted_commits() as commits:
        async with Writer(journal) as writer:
            for cell, _ in cells:
                await writer.record_scores(cell, [score_of(), score_of(evaluator("tone"))])
            assert commits  # somebody had to wait, or all would be in memory
    assert {len(row.scores) for row in journal.rows("r1")} == {2}


@awaited
async def test_a_waiter_who_gives_up_leaves_the_others_alone(journal: Journal) -> None:
    async with Writer(journal) as writer:
        impatient = asyncio.ensure_future(writer.intend(call_of("impatient")))
        patient = asyncio.ensure_future(writer.intend(call_of("patient")))
        await asyncio.sleep(0)
        impatient.cancel()
        assert await patient is None
        assert impatient.cancelled()


@awaited
async def test_what_cannot_be_stored_is_refused_at_once_and_harms_nothing_else(journal: Journal) -> None:
    (cell, _), (other, _) = cells_of(1)
    async with Writer(journal) as writer:
        with pytest.raises(StoreError, match="cannot be stored"):
            await writer.record_output(cell, output_of(cell, math.nan))
        with pytest.raises(StoreError, match="handed over for"):
            await writer.record_output(cell, output_of(other))
        await writer.record_output(other, output_of(other))
        await writer.flush()


# --- when the store fails ---------------------------------------------------------------------------------


@awaited
async def test_after_a_failed_commit_every_waiting_and_later_intent_is_refused(
    journal: Journal, place: Place
) -> None:
    async with Writer(journal) as writer:
        with broken(place, "calls"):
            waiting = (writer.intend(call_of(f"call {number}")) for number in range(20))
            told = await asyncio.gather(*waiting, writer.flush(), return_exceptions=True)
        assert {type(error) for error in told} == {StoreError}
        assert len({id(error) for error in told}) == len(told)
        for _ in range(2):
            with pytest.raises(StoreError, match="calls"):
                await writer.intend(call_of("later"))
        with pytest.raises(StoreError):
            await writer.flush()
    assert journal.find_call(call_of("later").id) is None


@awaited
async def test_answers_in_flight_at_a_failure_are_kept_and_stored_when_that_is_possible(
    journal: Journal, place: Place
) -> None:
    ((cell, case),) = cells_of(1, variants="a")
    journal.begin_run(run_of(), [(cell, case)])
    early, late = call_of("early"), call_of("late")
    async with Writer(journal) as writer:
        for call in (early, late):
            await writer.intend(call)
        with broken(place, "calls"):
            writer.record_call(answered(early))
            with pytest.raises(StoreError):
                await writer.flush()
            writer.record_call(answered(late))
            await writer.record_output(cell, output_of(cell))
    assert [journal.find_call(call.id) for call in (early, late)] == [answered(early), answered(late)]
    assert journal.n_pending("r1", ()) == 0


@awaited
async def test_replies_are_saved_when_only_what_follows_from_them_cannot_be(
    journal: Journal, place: Place
) -> None:
    ((cell, _),) = cells_of(1, variants="a")
    call = answered(call_of("one"))
    with broken(place, "outputs"):
        with pytest.raises(StoreError, match="outputs"):
            async with Writer(journal) as writer:
                writer.record_call(call)
                await writer.record_output(cell, output_of(cell))
        assert journal.find_call(call.id) == call


@awaited
async def test_no_output_is_stored_when_its_reply_cannot_be(journal: Journal, place: Place) -> None:
    ((cell, case),) = cells_of(1, variants="a")
    journal.begin_run(run_of(), [(cell, case)])
    with broken(place, "calls"), pytest.raises(StoreError):
        async with Writer(journal) as writer:
            writer.record_call(answered(call_of("one")))
            await writer.record_output(cell, output_of(cell))
    assert journal.n_pending("r1", ()) == 1


@awaited
async def test_what_is_kept_for_a_broken_store_is_bounded_but_for_replies(
    journal: Journal, place: Place
) -> None:
    cells = cells_of(MAX_WAITING)
    journal.begin_run(run_of(), cells)
    with broken(place, "outputs"), pytest.raises(StoreError):
        async with Writer(journal) as writer:
            n_taken = 0
            with pytest.raises(StoreError):
                for cell, _ in cells:
                    await writer.record_output(cell, output_of(cell))
                    n_taken += 1
            assert n_taken == MAX_WAITING
            writer.record_call(answered(call_of("one")))
    assert journal.find_call(call_of("one").id) is not None


# --- when the process dies --------------------------------------------------------------------------------


@pytest.mark.parametrize("n_lines", [3, 30, 150])
def test_kill_9_loses_nothing_that_was_acknowledged_f37(
    place: Place, child: StartChild, n_lines: int
) -> None:
    with child("write") as process:
        said = [line.split() for line in islice(lines(process), n_lines)]
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    intents = [words[1] for words in said if words[0] == "intent"]
    n_flushed = max([int(words[1]) + 1 for words in said if words[0] == "flushed"], default=0)
    assert intents
    with place.another() as journal:
        assert all(journal.find_call(call_id) for call_id in intents)
        rows = list(journal.rows("r1"))
        done = [row for row in rows if row.output is not None]
        assert rows[:n_flushed] == [row for row in rows[:n_flushed] if row.output and row.scores]
        for row in done:  # nothing derived is there without the reply it was derived from
            assert row.output is not None
            call = journal.find_call(row.output.spans[0].call_id or "")
            assert call is not None
            assert call.state is CallState.ANSWERED
        with journal.hold("r1"):
            assert journal.n_pending("r1", ()) == len(rows) - len(done)
            pending = [cell for cell, _, _ in journal.pending("r1", ())]
            apply(journal, Batch(outputs=[output_of(cell) for cell in pending]))
        assert journal.n_pending("r1", ()) == 0
