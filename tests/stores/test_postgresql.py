"""A journal for a team: runners side by side, and a server that goes away and comes back in mid-run."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import pytest
from sqlalchemy import Connection

from llmops.errors import StoreError, StoreHeldError
from llmops.records import CallState
from llmops.stores import postgresql
from llmops.stores.base import Area
from llmops.stores.journal import Journal, open_journal
from llmops.stores.postgresql import PostgreSQL
from llmops.stores.rows import Rows, intent_row
from llmops.stores.writer import Writer
from tests.postgres_server import GUEST, GUEST_PASSWORD, HOST, PostgresServer, connected, free_port
from tests.stores.conftest import Child, Place, answer, lines, place_of
from tests.stores.cutting_proxy import cutting
from tests.stores.samples import (
    EXACT,
    NOW,
    Batch,
    answered,
    apply,
    call_of,
    cells_of,
    output_of,
    run_of,
    score_of,
    span_of,
)
from tests.workplace import calls_in

StartChild = Callable[..., AbstractContextManager[Child]]
Mode = Literal["fast", "immediate"]
PATIENCE_S = 20.0


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Give a place in PostgreSQL, and no other."""
    return place_of("postgresql", tmp_path, request)


@contextmanager
def patient_for(place: Place, patience_s: float, url: str | None = None) -> Iterator[Journal]:
    """Give a journal that waits so long for a server that is away."""
    database = PostgreSQL(url or place.url, root=place.root, environment={}, patience_s=patience_s)
    with closing(Journal(database)) as journal:
        yield journal


def until(claim: Callable[[], bool]) -> None:
    """Wait for something another process or the server does, at most half a minute."""
    for _ in range(3_000):
        if claim():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen")


# --- a server that goes away (F55) ------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restart_in_mid_run_loses_nothing_and_counts_nothing_twice_f55(
    journal: Journal, postgres: PostgresServer, mode: Mode
) -> None:
    cells = cells_of(150, variants="a")
    journal.begin_run(run_of(), cells)
    asyncio.run(write_through_restarts(journal, postgres, mode))
    calls = [journal.find_call(call_of(cell.cell_id).id) for cell, _ in cells]
    assert [call and (call.state, call.attempts) for call in calls] == [(CallState.ANSWERED, 1)] * 150
    assert journal.n_pending("r1", [EXACT.identity]) == 0
    assert all(row.output and len(row.output.spans) == 1 for row in journal.rows("r1"))


async def write_through_restarts(journal: Journal, postgres: PostgresServer, mode: Mode) -> None:
    cells = cells_of(150, variants="a")
    numbers = iter(range(150))

    async def work(writer: Writer) -> None:
        for number in numbers:
            cell = cells[number][0]
            call = call_of(cell.cell_id)
            assert await writer.intend(call) is None
            await asyncio.sleep(0.01)
            writer.record_call(answered(call))
            await writer.record_output(cell, output_of(cell, spans=(span_of(call_id=call.id),)))
            await writer.record_scores(cell, [score_of()])

    with journal.hold("r1"):
        async with Writer(journal) as writer, asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(work(writer))
            for _ in range(2):
                await asyncio.sleep(0.1)
                await asyncio.to_thread(postgres.restart, mode)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_reading_goes_on_over_a_restart_f55(journal: Journal, postgres: PostgresServer, mode: Mode) -> None:
    cells = cells_of(400)
    journal.begin_run(run_of(), cells)
    pending = journal.pending("r1", ())
    first = [next(pending)]
    postgres.restart(mode)
    assert [cell for cell, _, _ in [*first, *pending]] == [cell for cell, _ in cells]


def test_a_server_that_is_away_for_a_while_is_waited_for(journal: Journal, postgres: PostgresServer) -> None:
    postgres.stop("fast")
    waiting = threading.Thread(target=journal.save_run, args=(run_of(),))
    waiting.start()
    waiting.join(0.5)
    assert waiting.is_alive()
    postgres.start()
    waiting.join()
    assert journal.revision("r1") == 1


def test_a_server_that_stays_away_is_given_up_after_our_patience_with_what_to_do(
    place: Place, postgres: PostgresServer
) -> None:
    place.open().close()
    with patient_for(place, 0.3) as journal:
        journal.save_run(run_of())
        postgres.stop("fast")
        try:
            for _ in range(
                2
            ):  # the second time at once: our patience is with the server, not with a statement
                with pytest.raises(StoreError, match="cannot be reached; start it") as caught:
                    journal.save_run(run_of())
                assert not isinstance(caught.value, StoreHeldError)
        finally:
            postgres.start()
        journal.save_run(run_of())
        assert journal.revision("r1") == 2


def test_answers_are_kept_while_the_server_is_given_up_and_stored_when_it_is_back_f45_f55(
    place: Place, postgres: PostgresServer
) -> None:
    place.open().close()
    call = call_of("one")

    async def lose_the_server(journal: Journal) -> None:
        async with Writer(journal) as writer:
            await writer.intend(call)
            await asyncio.to_thread(postgres.stop, "immediate")
            writer.record_call(answered(call))
            with pytest.raises(StoreError):
                await writer.intend(call_of("two"))
            await asyncio.to_thread(postgres.start)

    with patient_for(place, 0.3) as journal:
        asyncio.run(lose_the_server(journal))
        assert journal.find_call(call.id) == answered(call)
        assert journal.find_call(call_of("two").id) is None


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("mode", [None, "immediate"])
def test_a_commit_whose_answer_is_lost_is_there_exactly_once_f55(
    place: Place, postgres: PostgresServer, when: Literal["before", "after"], mode: Mode | None
) -> None:
    place.open().close()
    failed = call_of("one").model_copy(update={"state": CallState.FAILED, "attempts": 3, "answered_at": NOW})

    def restart() -> None:
        if mode is not None:
            postgres.restart(mode)

    with cutting(postgres.port) as proxy:
        url = place.url.replace(str(postgres.port), str(proxy.port))
        with patient_for(place, PATIENCE_S, url) as journal, journal.hold("r1"):
            apply(journal, Batch(intents=[call_of("one")]))
            proxy.arm(when, restart)
            apply(journal, Batch(calls=[failed]))
            assert proxy.n_cut == 1
            found = journal.find_call(failed.id)
            assert found is not None and found.attempts == 3
            if mode is None:
                proxy.arm(when)
                journal.save_run(run_of())
                assert (proxy.n_cut, journal.revision("r1")) == (2, 1)


def test_a_server_started_anew_is_not_asked_what_a_number_meant_before_f55(journal: Journal) -> None:
    database: Any = journal._database
    number = database.write(
        lambda connection: connection.exec_driver_sql("SELECT pg_current_xact_id()::text").scalar(), Area.RUNS
    )
    server = database.read(
        lambda connection: connection.exec_driver_sql("SELECT pg_postmaster_start_time()::text").scalar()
    )
    doubts = [(number, server), (number, "another life"), ("999999999", "another life")]
    found = [
        database._was_committed(postgresql._Doubt(transaction, life, None), Area.RUNS)
        for transaction, life in doubts
    ]
    assert found == [True, False, False]


def test_a_run_that_could_not_be_begun_says_so_and_can_be_begun_again_f55(
    place: Place, postgres: PostgresServer
) -> None:
    with cutting(postgres.port) as proxy:
        place.open().close()
        url = place.url.replace(str(postgres.port), str(proxy.port))
        with patient_for(place, PATIENCE_S, url) as journal:
            assert journal.runs() == []
            proxy.arm("before")
            with pytest.raises(StoreError, match="run again"):
                journal.begin_run(run_of(), iter(cells_of(3)))
            assert journal.find_run("r1") is None
            journal.begin_run(run_of(), iter(cells_of(3)))
            assert journal.n_cells("r1") == 6


def test_a_run_is_begun_over_a_connection_that_broke_before_f55(
    journal: Journal, postgres: PostgresServer
) -> None:
    assert journal.runs() == []
    with journal.hold("r1"):
        postgres.restart("fast")
        journal.begin_run(run_of(), iter(cells_of(3)))
    assert journal.n_cells("r1") == 6


def test_a_server_without_a_free_connection_is_waited_for_f55(place: Place, postgres: PostgresServer) -> None:
    place.open().close()
    database = place.url.rpartition("/")[2]
    postgres.execute("CREATE ROLE runner LOGIN")
    postgres.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO runner", database=database)
    try:
        with patient_for(place, PATIENCE_S, postgres.url(database, "runner")) as journal:
            journal.save_run(run_of())
            postgres.execute("ALTER ROLE runner CONNECTION LIMIT 0")
            postgres.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'runner'"
            )
            waiting = threading.Thread(target=journal.save_run, args=(run_of(),))
            waiting.start()
            waiting.join(0.5)
            assert waiting.is_alive()
            with (
                patient_for(place, 0, postgres.url(database, "runner")) as other,
                pytest.raises(StoreError, match="no connection left"),
            ):
                other.runs()
            postgres.execute("ALTER ROLE runner CONNECTION LIMIT -1")
            waiting.join()
            assert journal.revision("r1") == 2
    finally:
        postgres.execute("DROP OWNED BY runner", database=database)
        postgres.execute("DROP ROLE runner")


def test_a_deadlock_is_tried_again(journal: Journal, place: Place) -> None:
    calls = sorted((call_of("one"), call_of("two")), key=lambda call: call.id)
    apply(journal, Batch(intents=calls))
    touch = "UPDATE calls SET attempts = attempts + 1 WHERE id = %s"
    with connected(place.url) as other:
        other.execute("SET deadlock_timeout = '60s'")  # so that the journal is the one that is chosen
        other.execute(touch, [calls[1].id])
        writing = threading.Thread(
            target=apply, args=(journal, Batch(calls=[answered(call) for call in calls]))
        )
        writing.start()
        until(lambda: bool(place.execute("SELECT 1 FROM pg_locks WHERE NOT granted")))
        other.execute(touch, [calls[0].id])
        other.commit()
        writing.join()
    found = [journal.find_call(call.id) for call in calls]
    assert [call and (call.state, call.attempts) for call in found] == [(CallState.ANSWERED, 2)] * 2


# --- runners side by side ---------------------------------------------------------------------------------


def test_a_second_runner_of_a_run_is_told_who_has_it_and_one_of_another_run_goes_on_f49(
    journal: Journal, child: StartChild
) -> None:
    with child("hold", "r1") as process:
        assert lines(process).readline() == "held\n"
        with (
            pytest.raises(
                StoreHeldError, match=rf"host {socket.gethostname()[:40]}, pid {process.pid}\) works on r1"
            ),
            journal.hold("r1"),
        ):
            raise AssertionError("two runners hold one run")
        with journal.hold("r2"):
            journal.begin_run(run_of("r2"), cells_of(2))
        assert journal.n_cells("r2") == 4


def test_a_hold_goes_with_its_process_f37(journal: Journal, child: StartChild) -> None:
    with child("hold", "r1") as process:
        assert lines(process).readline() == "held\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
    until(lambda: can_hold(journal, "r1"))


def can_hold(journal: Journal, owner: str) -> bool:
    try:
        with journal.hold(owner):
            return True
    except StoreHeldError:
        return False


def test_a_run_that_this_process_holds_already_is_not_held_twice(journal: Journal, place: Place) -> None:
    with place.another() as other, journal.hold("r1"):
        assert not can_hold(other, "r1")
    assert can_hold(journal, "r1")


def test_a_call_in_flight_elsewhere_is_waited_for_and_paid_once(journal: Journal, child: StartChild) -> None:
    with child("intend", "r1") as process:
        assert [lines(process).readline() for _ in range(2)] == ["held\n", "sent\n"]

        async def ask() -> Any:
            async with Writer(journal) as writer:
                asking = asyncio.ensure_future(writer.intend(call_of("shared")))
                other = asyncio.ensure_future(writer.intend(call_of("own")))
                assert await other is None  # only who needs the same call waits
                await asyncio.sleep(0.2)
                assert not asking.done()
                answer(process)
                return await asking

        with journal.hold("r2"):
            assert asyncio.run(ask()) == answered(call_of("shared"))
    found = journal.find_call(call_of("shared").id)
    assert found is not None and found.attempts == 1


def test_a_call_whose_runner_was_killed_is_ours_to_send(journal: Journal, child: StartChild) -> None:
    with child("intend", "r1") as process:
        assert [lines(process).readline() for _ in range(2)] == ["held\n", "sent\n"]

        async def ask() -> Any:
            async with Writer(journal) as writer:
                asking = asyncio.ensure_future(writer.intend(call_of("shared")))
                await asyncio.sleep(0.2)
                assert not asking.done()
                process.kill()
                return await asking

        with journal.hold("r2"):
            doubted = asyncio.run(ask())
            assert doubted is not None and doubted.reply is None
            assert [call.id for call in calls_in(journal, "r2")] == [call_of("shared").id]


def test_a_call_that_stands_as_sent_by_nobody_alive_is_ours_at_once(journal: Journal) -> None:
    with journal.hold("gone"):
        apply(journal, Batch(intents=[call_of("one")]))
    rows = Rows()
    rows.add_intent(intent_row(call_of("one")))
    with journal.hold("r1"):
        taken = journal.commit(rows)
    assert (dict(taken.answered), list(taken.elsewhere)) == ({}, [])


def test_a_hold_whose_connection_broke_is_taken_again(journal: Journal, place: Place) -> None:
    with journal.hold("r1"), place.another() as other:
        end_holds(place)
        until(lambda: not place.execute("SELECT 1 FROM pg_locks WHERE locktype = 'advisory'"))
        journal.save_run(run_of())
        assert not can_hold(other, "r1")
    assert journal.revision("r1") == 1


def test_what_a_runner_writes_after_another_took_its_run_is_refused_f50(
    journal: Journal, place: Place
) -> None:
    with journal.hold("r1"), place.another() as other:
        end_holds(place)
        name = "llmops elsewhere 4711"
        with connected(place.url, autocommit=True, application_name=name) as thief:
            key = postgresql._signed(postgresql._key("r1"))
            until(
                lambda: bool(
                    thief.execute("SELECT pg_try_advisory_lock(%s, %s)", [postgresql.OWNERS, key]).fetchone()
                    == (True,)
                )
            )
            with pytest.raises(StoreHeldError, match=r"another runner \(host elsewhere, pid 4711\)"):
                journal.save_run(run_of())
        assert other.find_run("r1") is None


def end_holds(place: Place) -> None:
    """End every session that holds an owner, as a lost network does."""
    with connected(place.url) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND classid = %s::bigint::oid",
            [postgresql.OWNERS],
        )


def test_runs_begun_at_the_same_time_come_one_after_the_other(place: Place) -> None:
    place.open().close()

    def begin(number: int) -> None:
        with place.another() as journal:
            journal.begin_run(run_of(f"r{number}"), cells_of(50))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(begin, range(8)))
    sequences = place.execute("SELECT sequence FROM runs ORDER BY sequence")
    assert [row[0] for row in sequences] == list(range(1, 9))


def test_a_new_store_opened_by_many_at_once_is_made_once(place: Place) -> None:
    def look(_: int) -> int:
        with place.another() as journal:
            return len(journal.runs())

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(look, range(6))) == [0] * 6


def test_a_store_is_not_migrated_while_a_runner_works_on_it(
    journal: Journal, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "MAKING_WAIT_S", 1)
    with journal.hold("r1"):
        place.execute("UPDATE alembic_version SET version_num = '0001'")
        with pytest.raises(StoreHeldError, match=f"pid {os.getpid()}\\) works on it"):
            place.open()


# --- what people are told ---------------------------------------------------------------------------------


def told(url: str, **environment: str) -> str:
    with pytest.raises(StoreError) as caught:
        open_journal(url, root=Path("/nowhere"), environment=environment)
    assert GUEST_PASSWORD not in str(caught.value)
    return str(caught.value)


def test_a_server_that_cannot_be_reached_is_told(postgres: PostgresServer) -> None:
    url = f"postgresql://{HOST}:{free_port()}/team"
    assert told(url).startswith(f"{url}: the server cannot be reached; start it, or name another store")


def test_a_database_that_is_not_there_is_told(postgres: PostgresServer) -> None:
    assert "there is no such database; make it with createdb" in told(postgres.url("no-such"))


def test_a_role_that_is_not_there_is_told(postgres: PostgresServer) -> None:
    assert "does not know this role; name another" in told(postgres.url("postgres", "no-such"))


@pytest.mark.parametrize("environment", [{}, {"PGPASSWORD": "wrong"}])
def test_a_missing_or_wrong_password_is_told(postgres: PostgresServer, environment: dict[str, str]) -> None:
    said = told(postgres.url("postgres", GUEST), **environment)
    assert "refuses role or password; set PGPASSWORD or ~/.pgpass" in said


@contextmanager
def asking_for_the_password() -> Iterator[tuple[int, list[bytes]]]:
    """Give the port of a server that wants the password in the clear, and what it gets after having said so."""
    got: list[bytes] = []

    def serve(server: socket.socket) -> None:
        with suppress(OSError), server.accept()[0] as peer:
            while len(begun := peer.recv(1_000)) == 8:  # it asks for encryption, of one kind or another
                peer.sendall(b"N")
            peer.sendall(b"R" + struct.pack("!ii", 8, 3) if begun else b"")
            got.append(peer.recv(1_000))

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=(server,), daemon=True)
        thread.start()
        yield server.getsockname()[1], got
        server.close()
        thread.join(5)


HERE = "0.0.0.0"  # noqa: S104 - this machine, by a name that does not say so


@pytest.mark.parametrize(
    ("query", "more", "may"),
    [
        ("", {}, False),
        ("?require_auth=password", {}, False),
        ("", {"LLMOPS_SECRET_HOSTS": HERE}, True),
        ("", {"LLMOPS_SECRET_HOSTS": f"PGPASSWORD={HERE}"}, True),
        ("", {"PGHOST": HERE}, True),
    ],
)
def test_a_password_itself_goes_to_no_server_that_only_a_file_names_S14(
    query: str, more: dict[str, str], may: bool
) -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    with asking_for_the_password() as (port, got):
        said = told(f"postgresql://me@{HERE}:{port}/x{query}", PGPASSWORD=GUEST_PASSWORD, **more)
    assert (GUEST_PASSWORD.encode() in b"".join(got)) == may
    assert ("LLMOPS_SECRET_HOSTS" in said) == (not may)


def test_a_role_without_rights_is_told_what_it_needs_and_nothing_is_made(
    postgres: PostgresServer, place: Place
) -> None:
    database = place.url.rpartition("/")[2]
    url = postgres.url(database, GUEST)
    assert "may not write here; GRANT it CREATE on the schema" in told(url, PGPASSWORD=GUEST_PASSWORD)
    postgres.execute(f"GRANT CREATE ON SCHEMA public TO {GUEST}", database=database)
    with closing(open_journal(url, root=place.root, environment={"PGPASSWORD": GUEST_PASSWORD})) as journal:
        journal.save_run(run_of())
        assert GUEST_PASSWORD not in journal._database.name
    postgres.execute(f"REVOKE INSERT ON runs FROM {GUEST}", database=database)
    with (
        closing(open_journal(url, root=place.root, environment={"PGPASSWORD": GUEST_PASSWORD})) as journal,
        pytest.raises(StoreError, match="this role may not do that; GRANT it"),
    ):
        journal.save_run(run_of("r2"))
    postgres.execute(f"DROP OWNED BY {GUEST}", database=database)


def test_a_server_that_takes_no_writes_is_refused_before_anything_is_paid(
    postgres: PostgresServer, place: Place
) -> None:
    place.open().close()
    database = place.url.rpartition("/")[2]
    postgres.execute(f'ALTER DATABASE "{database}" SET default_transaction_read_only = on')
    assert "it cannot be written; name the server that takes writes" in told(place.url)


def test_a_database_of_something_else_is_refused_and_left_alone(
    postgres: PostgresServer, place: Place
) -> None:
    place.execute("CREATE TABLE runs (id text)")
    assert "a database, but not a store; name another" in told(place.url)
    assert place.execute("SELECT relname FROM pg_class WHERE relname IN ('runs', 'calls')") == [("runs",)]


def test_a_full_disk_is_told_at_once_with_what_to_do_f45(journal: Journal, place: Place) -> None:
    place.execute(
        "CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'No space left on device' USING ERRCODE = '53100'; END $$"
    )
    place.execute("CREATE TRIGGER full_disk BEFORE INSERT ON calls EXECUTE FUNCTION fill()")
    with pytest.raises(StoreError, match="its disk is full; make room and run again"):
        apply(journal, Batch(intents=[call_of("one")]))


def test_a_missing_driver_is_told_with_how_to_install_it() -> None:
    program = (
        "import sys; from pathlib import Path; sys.modules['psycopg'] = None\n"
        "from llmops.errors import StoreError; from llmops.stores.journal import open_journal\n"
        "try: open_journal('postgres://host/team', root=Path())\n"
        "except StoreError as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said == (
        "postgresql://host/team: its driver is not installed; pip install 'llmops-workbench[postgresql]'\n"
    )


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_every_way_to_write_the_url_means_the_same(place: Place, scheme: str) -> None:
    with closing(open_journal(place.url.replace("postgresql", scheme, 1), root=place.root)) as journal:
        assert journal._database.name == place.url


def test_what_stands_behind_the_question_mark_of_a_url_is_kept(place: Place) -> None:
    with closing(open_journal(f"{place.url}?application_name=mine", root=place.root)) as journal:
        found = journal._database.read(
            lambda connection: connection.exec_driver_sql("SHOW application_name").scalar()
        )
    assert found == "mine"


# --- the database itself ----------------------------------------------------------------------------------


def test_text_sorts_by_its_bytes_whatever_the_language_of_the_database(
    journal: Journal, place: Place
) -> None:
    for number, name in enumerate(("b", "A", "a", "B")):
        journal.begin_run(run_of(f"r{number}", experiment=name), [])
    assert place.execute("SELECT v FROM (VALUES ('b'), ('A'), ('a'), ('B')) AS t (v) ORDER BY v") == [
        ("a",),
        ("A",),
        ("b",),
        ("B",),
    ]
    assert [row[0] for row in place.execute("SELECT experiment FROM runs ORDER BY experiment")] == [*"ABab"]


def test_a_runner_that_fell_silent_holds_up_nobody_for_longer_than_a_minute_f43(journal: Journal) -> None:
    def settings(connection: Connection) -> dict[str, str]:
        return {name: str(connection.exec_driver_sql(f"SHOW {name}").scalar()) for name in postgresql.SESSION}

    found = journal._database.read(settings)
    silent_s = int(found["tcp_keepalives_idle"])
    silent_s += int(found["tcp_keepalives_interval"]) * int(found["tcp_keepalives_count"])
    assert (silent_s, found["idle_in_transaction_session_timeout"]) == (60, "1min")


def test_a_runner_that_stood_still_in_mid_write_writes_again_f43(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**postgresql.SESSION, "idle_in_transaction_session_timeout": "100ms"}
    monkeypatch.setattr(postgresql, "SESSION", settings)
    journal.close()  # so that the next connection has this setting
    naps = [0.0, 0.5]

    def work(connection: Connection) -> int:
        time.sleep(naps.pop())
        return int(connection.exec_driver_sql("SELECT 1").scalar_one())

    assert journal._database.write(work, Area.RESULTS) == 1
    assert naps == []
