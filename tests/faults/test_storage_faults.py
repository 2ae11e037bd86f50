"""What happens to a run's store - full, failing, read-only, locked, damaged, away - costs no answer that came home."""

from __future__ import annotations

import os
import resource
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from llmops.cli.session import warn_of_sqlite
from llmops.errors import StoreHeldError
from llmops.records import RunStatus
from llmops.stores import sqlite
from llmops.stores.aside import ROOM_BYTES, Aside
from llmops.stores.sqlite import known_fault, writing_alone
from tests.cli.command import PATIENCE_S, command_line, environment, llmops
from tests.cli.inside import llmops_inside
from tests.faults.running import (
    COMMAND,
    IN_FLIGHT,
    answered,
    asked,
    calls,
    ended,
    figures,
    fill,
    running,
    shim,
    wait_for,
    without_rights,
)
from tests.model_server import running_model_server
from tests.postgres_server import PostgresServer, connected
from tests.stores.samples import answered as with_answer
from tests.stores.samples import call_of, store_of
from tests.workplace import FILES, Workplace

N_CASES = 40
DELAY_MS = 60


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    with running_model_server(delay_ms=DELAY_MS) as server:
        yield fill(Workplace(tmp_path / "project", server), N_CASES)


def finish(place: Workplace) -> None:
    """Carry the run on to its end, undisturbed, by a process of its own."""
    done = llmops(*COMMAND, cwd=place.root, more=place.environment)
    assert done.returncode == 0, done.stderr


def assert_nothing_is_paid_twice(place: Workplace, n_cases: int = N_CASES) -> None:
    """Finish the run; what the server has answered before is not asked for again."""
    before = {received.call_id for received in place.new_requests() if received.status == 200}
    finish(place)
    assert not before & set(asked(place))
    assert figures(place)["exact_match"].n == n_cases


# --- a full disk ------------------------------------------------------------------------------------------


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[None]:
    """Mount a disk of its own at a folder; skip where that is not allowed."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small disk can be mounted by root alone")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill_disk(folder: Path) -> Path:
    """Write a file until there is no room any more."""
    ballast = folder / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return ballast


def test_a_disk_that_fills_up_stops_a_run_and_costs_no_answer_F45(place: Workplace) -> None:
    n_cases = 5 * N_CASES
    fill(place, n_cases)
    with small_disk(place.root / ".llmops", 16):
        with running(place) as process:
            wait_for(lambda: len(answered(place)) > IN_FLIGHT, process)
            ballast = fill_disk(place.root / ".llmops")
            told_full = len(place.server.received)
            code, said = ended(process)
        assert (code, "disk is full" in said, "Traceback" in said) == (3, True, False), said
        assert "run again" in said
        n_behind = IN_FLIGHT + IN_FLIGHT * 1000 // DELAY_MS  # until the next group fails, on a busy machine
        assert len(place.server.received) <= told_full + n_behind < n_cases
        ballast.unlink()
        place.server.delay_s = 0
        assert_nothing_is_paid_twice(place, n_cases)


def test_answers_that_a_full_store_refuses_to_the_end_are_kept_aside_F45(place: Workplace) -> None:
    with running(place) as process:
        wait_for(lambda: len(answered(place)) > IN_FLIGHT, process)
        files = place.root.glob(".llmops/store.db*")
        size = max(path.stat().st_size for path in files if path.suffix not in {".reserve", ".aside"})
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size // 2, resource.RLIM_INFINITY))
        code, said = ended(process)
    assert (code, "Traceback" in said) == (3, False), said
    aside = Aside(store_of(place.root).with_name("store.db.aside"))
    kept = {call.id for call in aside.calls()}
    assert kept and not kept & answered(place)
    assert_nothing_is_paid_twice(place)
    assert aside.calls() == []


def test_no_first_call_is_paid_where_there_is_no_room_for_a_store_F45(place: Workplace) -> None:
    with small_disk(place.root / ".llmops", 4):
        done = llmops(*COMMAND, cwd=place.root, more=place.environment)
    assert (done.returncode, "make room" in done.stderr) == (3, True), done.stderr
    assert asked(place) == []


def test_what_is_set_aside_comes_back_as_it_was_as_far_as_it_is_whole_F45(tmp_path: Path) -> None:
    aside = Aside(tmp_path / "store.db.aside")
    aside.take_room()
    given = [with_answer(call_of(f"call {number}")) for number in range(3)]
    aside.put(given)
    assert (aside.calls(), aside.path.stat().st_size) == (given, ROOM_BYTES)
    content = bytearray(aside.path.read_bytes())
    second = content.index(b"\n") + 40
    content[second] ^= 1  # a write that was cut short
    aside.path.write_bytes(content)
    assert aside.calls() == given[:1]
    aside.put(())
    assert aside.calls() == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_log_that_is_full_costs_no_answer_F45(place: Workplace, stream: str) -> None:
    place.server.delay_s = 0
    with Path("/dev/full").open("w") as full:
        streams: dict[str, Any] = {stream: full}
        done = llmops(*COMMAND, cwd=place.root, more=place.environment, **streams)
    assert done.returncode in {0, 3}
    assert "Traceback" not in (done.stderr or "")
    assert_nothing_is_paid_twice(place)


def test_a_report_that_finds_no_room_leaves_the_one_before_as_it_is_F45(
    place: Workplace, tmp_path: Path
) -> None:
    place.server.delay_s = 0
    finish(place)
    with small_disk(tmp_path / "small", 1):
        page = tmp_path / "small" / "page.html"
        page.write_text("the one before")
        fill_disk(page.parent)
        done = llmops("report", "sort", "--html", str(page), cwd=place.root)
        assert (done.returncode, "No space left" in done.stderr) == (3, True), done.stderr
        assert "Traceback" not in done.stderr
        assert page.read_text() == "the one before"
        assert sorted(path.name for path in page.parent.iterdir()) == ["ballast", "page.html"]


# --- a disk that fails ------------------------------------------------------------------------------------


def test_a_disk_that_does_not_keep_what_it_took_is_never_told_as_done_F46(
    place: Workplace, tmp_path: Path
) -> None:
    failing = tmp_path / "failing"
    more = {"LD_PRELOAD": shim(), "FAULT_FSYNC": str(failing)}
    with running(place, more) as process:
        wait_for(lambda: len(answered(place)) > IN_FLIGHT, process)
        failing.touch()
        code, said = ended(process)
    assert (code, "disk does not take" in said, "Traceback" in said) == (3, True, False), said
    again = llmops(*COMMAND, cwd=place.root, more={**place.environment, **more})
    assert (again.returncode, "disk does not take" in again.stderr) == (3, True), again.stderr
    failing.unlink()
    assert_nothing_is_paid_twice(place)
    assert not store_of(place.root).with_name("store.db.doubt").exists()
    with closing(sqlite3.connect(store_of(place.root))) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_store_in_doubt_is_looked_through_before_anything_more_is_written_F46(place: Workplace) -> None:
    place.server.delay_s = 0
    finish(place)
    path = store_of(place.root)
    place.edit("experiments/sort.experiment.yaml", "seed: 3", "seed: 4")
    path.with_name("store.db.doubt").touch()
    content = bytearray(path.read_bytes())
    page = 4096 * (len(content) // 4096 // 2)
    content[page : page + 4096] = b"\xff" * 4096
    path.write_bytes(content)
    asked(place)
    done = llmops(*COMMAND, "--fresh", cwd=place.root, more=place.environment)
    assert (done.returncode, "damaged" in done.stderr) == (3, True), done.stderr
    assert asked(place) == []
    assert path.read_bytes() == content


# --- a store that cannot be written -----------------------------------------------------------------------


@pytest.mark.parametrize("closed", [".llmops", ".llmops/store.db", "."])
def test_a_place_that_cannot_be_written_is_told_before_the_first_call_F47(
    place: Workplace, closed: str
) -> None:
    if closed != ".":
        done = llmops(*COMMAND, "--limit", "1", cwd=place.root, more=place.environment)
        assert done.returncode == 0, done.stderr
        asked(place)
    target = place.root / closed
    rights = target.stat().st_mode
    target.chmod(0o500 if target.is_dir() else 0o400)
    try:
        done = subprocess.run(
            without_rights(command_line(*COMMAND)),
            cwd=place.root,
            env=environment(**place.environment),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
    finally:
        target.chmod(rights)
    assert (done.returncode, "Traceback" in done.stderr) == (3, False), done.stderr
    assert "writable" in done.stderr or "Permission denied" in done.stderr
    assert asked(place) == []


# --- a store that others use ------------------------------------------------------------------------------

BRIEF = """
import sys
from llmops.stores import sqlite
sqlite.BUSY_TIMEOUT_S = float(sys.argv.pop(1))
from llmops.cli import main
main()
"""


def brief_run(place: Workplace, patience_s: float) -> subprocess.Popen[str]:
    """Start a run that waits less long for a store that is locked."""
    return subprocess.Popen(
        [sys.executable, "-P", "-c", BRIEF, str(patience_s), *COMMAND],
        cwd=place.root,
        env=environment(**place.environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep a store locked, as another program that looks into it may."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=PATIENCE_S)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def test_a_store_that_another_program_locks_for_a_while_is_waited_for_F51(place: Workplace) -> None:
    with running(place) as process:
        wait_for(lambda: len(answered(place)) > IN_FLIGHT, process)
        with locked(store_of(place.root)):
            time.sleep(1)
        code, said = ended(process)
    assert code == 0, said
    sent = asked(place)
    assert len(sent) == len(set(sent)) == N_CASES


def test_a_store_that_stays_locked_ends_the_run_with_5_and_costs_no_answer_F51(place: Workplace) -> None:
    with brief_run(place, 0.3) as process:
        wait_for(lambda: len(answered(place)) > IN_FLIGHT, process)
        with locked(store_of(place.root)):
            code, said = ended(process)
    assert (code, "locked" in said, "Traceback" in said) == (5, True, False), said
    assert_nothing_is_paid_twice(place)


def test_every_transaction_of_a_run_that_writes_begins_as_one_F52(place: Workplace, tmp_path: Path) -> None:
    place.server.delay_s = 0
    traced: list[list[str]] = []

    def trace(connection: Any, _record: object) -> None:
        traced.append([])
        connection.set_trace_callback(traced[-1].append)

    event.listen(Engine, "connect", trace)
    try:
        for command in (COMMAND, ("score", "sort"), ("report", "sort"), ("compare", "sort", "sort")):
            llmops_inside(*command, cwd=place.root, more=place.environment)
        place.edit("experiments/sort.experiment.yaml", "exact_match]", "exact_match, contains]")
        assert llmops_inside(*COMMAND, cwd=place.root, more=place.environment).returncode == 0
    finally:
        event.remove(Engine, "connect", trace)
    written = set()
    for statements in traced:
        begun_by = ""
        for statement in statements:
            verb = statement.split(maxsplit=1)[0].upper()
            if verb == "BEGIN":
                begun_by = statement
            elif verb in {"COMMIT", "ROLLBACK"}:
                begun_by = ""
            elif verb in {"INSERT", "UPDATE", "DELETE", "REPLACE", "CREATE", "ALTER", "DROP"}:
                written |= {table for table in ("runs", "calls", "outputs", "scores") if table in statement}
                assert begun_by == "BEGIN IMMEDIATE", f"after {begun_by!r}: {statement[:80]}"
    assert written == {"runs", "calls", "outputs", "scores"}


def test_one_process_writes_at_a_time_and_another_is_waited_for_no_longer_than_a_lock_F54(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store_of(place.root)
    path.parent.mkdir()
    with running(place) as process:
        wait_for(lambda: len(answered(place)) > IN_FLIGHT, process)
        with writing_alone(path):
            n_committed = len(answered(place))
            time.sleep(0.5)
            assert len(answered(place)) == n_committed
            monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_S", 0.05)
            with pytest.raises(StoreHeldError, match="another process has been writing"), writing_alone(path):
                raise AssertionError("two processes write")
        code, said = ended(process)
    assert code == 0, said
    sent = asked(place)
    assert len(sent) == len(set(sent)) == N_CASES


@pytest.mark.parametrize(
    ("version", "is_affected"),
    [
        ((3, 6, 23), False),
        ((3, 7, 0), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
    ],
)
def test_a_sqlite_that_may_lose_a_write_is_told_at_the_start_F54(
    version: tuple[int, ...], is_affected: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (known_fault(version) is not None) == is_affected
    warn_of_sqlite(version)
    assert ("can lose a write" in capsys.readouterr().err) == is_affected


# --- a store that is not what it was ----------------------------------------------------------------------


def garbage(path: Path) -> None:
    path.write_bytes(b"not a database, and nobody's loss " * 200)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20_000])


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")


@pytest.mark.parametrize(
    ("harm", "says"), [(garbage, "not a store"), (cut_short, "cut short"), (newer, "update llmops")]
)
def test_a_store_that_is_damaged_or_newer_is_refused_and_never_overwritten_F53(
    place: Workplace, harm: Callable[[Path], None], says: str
) -> None:
    place.server.delay_s = 0
    finish(place)
    harm(store_of(place.root))
    before = store_of(place.root).read_bytes()
    asked(place)
    for command in (COMMAND, (*COMMAND, "--fresh")):
        done = llmops_inside(*command, cwd=place.root, more=place.environment)
        assert (done.returncode, says in done.stderr) == (3, True), done.stderr
    assert store_of(place.root).read_bytes() == before
    assert asked(place) == []


def test_a_write_ahead_log_that_is_cut_short_costs_only_what_stood_there_F53(place: Workplace) -> None:
    with running(place) as process:
        wait_for(lambda: len(answered(place)) > N_CASES // 2, process)
        process.kill()
        process.communicate()
    log = store_of(place.root).with_name("store.db-wal")
    assert log.stat().st_size
    os.truncate(log, log.stat().st_size * 9 // 10 + 7)
    left = answered(place)
    asked(place)
    finish(place)
    assert not left & set(asked(place))
    assert figures(place)["exact_match"].n == N_CASES


# --- a server that goes away ------------------------------------------------------------------------------


def test_a_server_that_crashes_with_no_connection_left_afterwards_costs_no_answer_F55(
    place: Workplace, postgres: PostgresServer
) -> None:
    place.url = url = postgres.new_database()
    place.write("llmops.yaml", FILES["llmops.yaml"] + f"store: {{url: '{url}'}}\n")
    others: list[Any] = []
    try:
        with running(place) as process:
            wait_for(lambda: len(answered(place)) > IN_FLIGHT, process)
            postgres.restart("immediate")
            with suppress(Exception):  # psycopg is imported where there is a server alone
                while True:
                    others.append(connected(postgres.url("postgres")))
            assert others
            time.sleep(1)
            while others:
                others.pop().close()
            code, said = ended(process)
        assert code == 0, said
        sent = asked(place)
        assert len(sent) == len(set(sent)) == N_CASES
        assert {(call.id, call.attempts) for call in calls(place)} == {(call_id, 1) for call_id in sent}
        with place.journal() as journal:
            run = journal.latest_run()
        assert run is not None and (run.status, run.n_calls) == (RunStatus.COMPLETE, N_CASES)
    finally:
        for other in others:
            other.close()
        postgres.drop(url)
