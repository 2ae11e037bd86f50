"""A journal in a file of SQLite: what is no good store is left alone, and one runner holds it at a time."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path

import pytest

from llmops.errors import StoreError, StoreHeldError, UsageError
from llmops.stores import has_store
from llmops.stores.journal import Journal, open_journal
from llmops.stores.sqlite import RESERVE_BYTES, store_error
from llmops.stores.writer import Writer
from tests.stores.conftest import Child, Place, answer, lines
from tests.stores.samples import URL, answered, call_of, cells_of, opened, run_of, store_of

StartChild = Callable[..., AbstractContextManager[Child]]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Give a place in a file, and no other."""
    return Place("sqlite", URL, tmp_path)


# --- opening ----------------------------------------------------------------------------------------------


def test_a_relative_store_starts_at_the_project_and_its_folder_is_made(tmp_path: Path) -> None:
    opened(tmp_path).close()
    assert store_of(tmp_path).is_file()


def test_looking_for_a_store_makes_nothing(tmp_path: Path) -> None:
    assert not has_store(URL, root=tmp_path)
    with pytest.raises(StoreError, match="no store here yet"):
        open_journal(URL, root=tmp_path, create=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("not a url", "no database URL"),
        ("sqlite://", "must outlive"),
        ("sqlite:///:memory:", "must outlive"),
    ],
)
def test_a_url_that_names_no_file_is_refused(tmp_path: Path, url: str, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        open_journal(url, root=tmp_path)


def test_a_database_of_no_known_kind_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="no database is called 'mysql'; known databases: postgresql, sqlite"
    ):
        open_journal("mysql+pymysql://host/db", root=tmp_path)


def garbage(path: Path) -> None:
    path.write_bytes(b"not a database at all" * 1_000)


def only_a_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20_000])


def broken_inside(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:100] + b"\xff" * 3_996 + content[4_096:])


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")


def foreign(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE runs (id TEXT)")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (garbage, "not a store"),
        (only_a_header, "not a store"),
        (cut_short, "cut short"),
        (broken_inside, "damaged"),
        (newer, "newer than"),
        (foreign, "not a store"),
    ],
)
def test_what_is_no_good_store_is_refused_and_left_as_it_is_f53(
    tmp_path: Path, harm: Callable[[Path], None], message: str
) -> None:
    with closing(opened(tmp_path)) as journal:
        journal.save_run(run_of())
    harm(store_of(tmp_path))
    before = store_of(tmp_path).read_bytes()
    with pytest.raises(StoreError, match=message):
        opened(tmp_path)
    assert store_of(tmp_path).read_bytes() == before


def test_damage_found_later_is_a_store_error_f53(tmp_path: Path) -> None:
    cells = cells_of(2_000)
    with closing(opened(tmp_path)) as journal:
        journal.begin_run(run_of(), cells)
    path = store_of(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: 40 * 4_096] + b"\xff" * (len(content) - 40 * 4_096))
    with closing(opened(tmp_path)) as journal, pytest.raises(StoreError, match="damaged"):
        list(journal.pending("r1", ()))


def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    store_of(tmp_path).parent.mkdir()
    store_of(tmp_path).touch()
    with closing(opened(tmp_path)) as journal:
        assert journal.runs() == []


def test_a_store_below_a_file_is_refused_with_what_to_do_f47(tmp_path: Path) -> None:
    (tmp_path / ".llmops").write_text("a file where a folder belongs")
    with pytest.raises(StoreError, match="name another store"):
        opened(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("place", ["folder", "file"])
def test_a_read_only_place_is_refused_with_what_to_do_f47(tmp_path: Path, place: str) -> None:
    opened(tmp_path).close()
    path = store_of(tmp_path).parent if place == "folder" else store_of(tmp_path)
    path.chmod(0o500 if place == "folder" else 0o400)
    try:
        with pytest.raises(StoreError, match="writable"):
            opened(tmp_path)
    finally:
        path.chmod(0o700)


def test_neither_a_new_store_nor_one_up_to_date_needs_alembic(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from llmops.stores.journal import open_journal;"
        f"open_journal({URL!r}, root=Path({str(tmp_path)!r})).close(); print('alembic' in sys.modules)"
    )
    command = [sys.executable, "-c", program]
    said = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert said == ["False\n", "False\n"]


# --- other processes --------------------------------------------------------------------------------------


def test_a_second_runner_is_told_who_holds_the_store_f49(journal: Journal, child: StartChild) -> None:
    with child("hold") as process:
        assert lines(process).readline() == "held\n"
        message = f"host {socket.gethostname()}, pid {process.pid}"
        with pytest.raises(StoreHeldError, match=message), journal.hold("r1"):
            raise AssertionError("two runners hold the store")
        process.kill()
        process.wait()
        with journal.hold("r1"):  # the lock went with the process
            pass


def test_a_store_can_be_held_again_after_it_was_let_go(journal: Journal) -> None:
    n_held = 0
    for _ in range(2):
        with journal.hold("r1"):
            n_held += 1
    assert n_held == 2


def test_a_new_store_is_not_made_while_another_process_makes_it(tmp_path: Path) -> None:
    store_of(tmp_path).parent.mkdir()
    with store_of(tmp_path).with_name("store.db.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StoreHeldError, match="another runner"):
            opened(tmp_path)


def test_a_write_waits_while_another_process_keeps_the_store_locked_f51(
    journal: Journal, child: StartChild
) -> None:
    with child("lock") as process:
        assert lines(process).readline() == "locked\n"
        waiting = threading.Thread(target=journal.save_run, args=(run_of(),))
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        assert journal.runs() == []  # readers do not wait
        answer(process)
        waiting.join()
    assert journal.find_run("r1") == run_of()


def test_a_store_locked_for_too_long_counts_as_held_f51(journal: Journal, tmp_path: Path) -> None:
    path = store_of(tmp_path)
    with closing(sqlite3.connect(path)) as one, closing(sqlite3.connect(path, timeout=0)) as other:
        one.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError) as caught:
            other.execute("BEGIN IMMEDIATE")
    assert isinstance(store_error(path, caught.value), StoreHeldError)


def test_every_connection_writes_ahead_and_checks_references(journal: Journal, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="FOREIGN KEY"):
        journal.deliveries.mark_delivered("no such run", "mlflow", 1, {})
    with closing(sqlite3.connect(store_of(tmp_path))) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


# --- the disk ---------------------------------------------------------------------------------------------


def test_a_full_disk_stops_new_calls_and_loses_no_answer_f45(
    journal: Journal, tmp_path: Path, child: StartChild
) -> None:
    with child("full") as process:
        said = [line.strip() for line in lines(process)]
    assert said[0] == "held"
    assert said[1].startswith("refused ")
    assert str(store_of(tmp_path)) in said[1]
    assert said[2:] == ["ended well"]
    cells = [cell for cell, _ in cells_of(20)]
    assert [journal.find_call(call_of(cell.cell_id).id) for cell in cells] == [
        answered(call_of(cell.cell_id)) for cell in cells
    ]
    assert journal.n_pending("r1", ()) == 0


def test_a_disk_that_stays_full_is_told_and_the_store_stays_whole_f45(
    journal: Journal, child: StartChild
) -> None:
    with child("full-for-good") as process:
        said = [line.split()[0] for line in lines(process)]
    assert said == ["held", "refused", "lost"]
    cell = cells_of(20)[0][0]
    assert journal.find_call(call_of(cell.cell_id).id) == call_of(cell.cell_id)
    assert journal.n_pending("r1", ()) == 40


def test_space_is_kept_back_while_the_store_is_held_and_given_up_when_it_fails_f45(
    journal: Journal, place: Place
) -> None:
    reserve = store_of(place.root).with_name("store.db.reserve")

    async def fail() -> None:
        async with Writer(journal) as writer:
            await writer.intend(call_of("one"))

    with journal.hold("r1"):
        assert reserve.stat().st_size == RESERVE_BYTES
        place.execute("ALTER TABLE calls RENAME TO away")
        with pytest.raises(StoreError):
            asyncio.run(fail())
        assert not reserve.exists()
    place.execute("ALTER TABLE away RENAME TO calls")
    with journal.hold("r1"):
        assert reserve.exists()
