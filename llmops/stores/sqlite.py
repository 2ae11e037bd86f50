"""SQLite as a place for the journal: the file, its lock, its reserve, and what its errors mean.

One runner holds the whole file, and one process writes it at a time.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sqlite3
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from llmops.errors import StoreError, StoreHeldError
from llmops.stores.aside import Aside

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from llmops.records import Call
    from llmops.stores.base import Area

T = TypeVar("T")

WRITING = {"begin": "BEGIN IMMEDIATE"}  # execution options of transactions that write
BUSY_TIMEOUT_S = 60
RESERVE_BYTES = 4 * 2**20  # room for what some hundred calls in flight bring back when the disk is full
LOOK_AGAIN_S = 0.005
WAL_RESET_FIXED = ((3, 51, 3), (3, 50, 7), (3, 44, 6))
WRITE_AHEAD_SINCE = (3, 7, 0)
_CHECK = "PRAGMA quick_check(1)"
_MAGIC = b"SQLite format 3\0"

# By the name SQLite gives an error, the first that fits: what it means for whoever runs us.
_MEANINGS: tuple[tuple[str, str], ...] = (
    ("SQLITE_FULL", "the disk is full; make room and run again, nothing that was answered is paid twice"),
    ("SQLITE_READONLY", "it cannot be written; make the file and its directory writable"),
    ("SQLITE_CANTOPEN", "it cannot be opened; make the file and its directory readable and writable"),
    ("SQLITE_CORRUPT", "it is damaged; move it away or restore a copy, nothing was overwritten"),
    ("SQLITE_NOTADB", "it is not a store; move it away or name another, nothing was overwritten"),
    ("SQLITE_IOERR", "the disk does not take or give what it should; check it and run again"),
)


class SQLite:
    """A file of SQLite; the constructor only says which."""

    is_shared = False

    def __init__(self, url: str, *, root: Path, environment: Mapping[str, str]) -> None:  # noqa: ARG002 - no password here
        self.path = store_path(url, root=root)
        self.name = str(self.path)
        self._aside = Aside(self.path.with_name(self.path.name + ".aside"))
        self._doubt = self.path.with_name(self.path.name + ".doubt")

    @cached_property
    def engine(self) -> Engine:
        """Where transactions that read come from; opened when it is first used."""
        return open_engine(self.path)

    @cached_property
    def _engine_for_writing(self) -> Engine:
        return self.engine.execution_options(**WRITING)

    def found_revision(self) -> str | None:
        """Return the schema version of the file, None where there is none yet."""
        return found_revision(self.path)

    def prepare(self) -> None:
        """Make the folder, see that folder and file can be written, and that no failure of the disk is left open."""
        prepare_folder(self.path)
        if self._doubt.exists():
            with writing_alone(self.path):
                self._verify()

    def making(self) -> AbstractContextManager[None]:
        """Hold the file, as a runner does."""
        return hold_file(self.path)

    def read(self, work: Callable[[Connection], T]) -> T:
        """Return what `work` reads in one transaction."""
        return self._transact(self.engine, work)

    def write(self, work: Callable[[Connection], T], area: Area, *, again: bool = True) -> T:  # noqa: ARG002 - one file
        """Return what `work` returns once it is committed; one process writes at a time, whatever the area.

        A disk that fails leaves open what of a transaction it has: the file is opened anew and looked through
        before anything more is written, by this process or the next.
        """
        with writing_alone(self.path):
            self._verify()
            try:
                return self._transact(self._engine_for_writing, work)
            except StoreError as error:
                if _is_doubtful(error):
                    self._note_doubt()
                raise

    def _transact(self, engine: Engine, work: Callable[[Connection], T]) -> T:
        try:
            with engine.begin() as connection:
                return work(connection)
        except (SQLAlchemyError, UnicodeError) as error:  # UnicodeError: an id that is no text at all
            raise store_error(self.path, error) from error

    def _note_doubt(self) -> None:
        self.engine.dispose()
        with suppress(OSError):  # a disk that takes nothing: then the next write fails as this one did
            self._doubt.touch()

    def _verify(self) -> None:
        """See, where the disk failed before, that the store is whole and that what is in it can be brought to disk."""
        if not self._doubt.exists():
            return
        found = self._transact(self.engine, lambda connection: connection.exec_driver_sql(_CHECK).scalar())
        if found != "ok":
            raise StoreError(f"{self.path}: it is damaged; move it away or restore a copy ({found})")
        self._bring_to_disk()
        self._doubt.unlink(missing_ok=True)

    def _settle(self) -> None:
        """Bring all that was committed to the disk, before anybody is told that it is done."""
        with writing_alone(self.path):
            try:
                self._bring_to_disk()
            except StoreError as error:
                if _is_doubtful(error):
                    self._note_doubt()
                raise

    def _bring_to_disk(self) -> None:
        try:
            with closing(self.engine.raw_connection()) as connection:
                connection.cursor().execute("PRAGMA wal_checkpoint")
        except (sqlite3.Error, SQLAlchemyError) as error:
            raise store_error(self.path, error) from error

    @contextmanager
    def hold(self, owner: str) -> Iterator[None]:  # noqa: ARG002 - there is one holder for all
        """Hold the whole file, whoever for, and keep some disk space back for answers that come late."""
        with hold_file(self.path):
            keep_reserve(self.path)
            self._aside.take_room()
            yield
            self._settle()

    def delivering(self) -> AbstractContextManager[None]:
        """Hold a file of its own, so that a delivery and a run do not wait for each other."""
        return hold_file(self.path.with_name("sync"))

    def release_reserve(self) -> None:
        """Give back the space kept back."""
        release_reserve(self.path)

    def set_aside(self, calls: Iterable[Call]) -> None:
        """Keep them in a file beside the store."""
        self._aside.put(calls)

    def aside(self) -> list[Call]:
        """Return what is in that file."""
        return self._aside.calls()

    def alive(self, connection: Connection, owners: Collection[str]) -> Collection[str]:  # noqa: ARG002 - as `hold`
        """Return none: whoever asks holds the file alone."""
        return ()

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def store_path(url: str, *, root: Path) -> Path:
    """Return the file of a SQLite URL; a relative path starts at `root`.

    Raises StoreError when the URL is malformed, or names no file.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise StoreError(f"store: {url!r} is no database URL; write sqlite:///PATH") from error
    if not parsed.database or parsed.database == ":memory:":
        raise StoreError("store: a run must outlive its process; write sqlite:///PATH")
    return Path(os.path.normpath(root / parsed.database))


def found_revision(path: Path) -> str | None:
    """Return the schema version of the store at `path`, None where there is none yet; changes nothing.

    Raises StoreError when the file is damaged or something else than a store.
    """
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}; name another store in llmops.yaml") from error
    if size == 0:
        return None
    _check_header(path, size)
    try:
        return _read_revision(path)
    except sqlite3.Error as error:
        raise store_error(path, error) from error


def _check_header(path: Path, size: int) -> None:
    """Raise StoreError when the file does not begin as SQLite does, or is shorter than it says."""
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}; make it readable and writable") from error
    if not header.startswith(_MAGIC) or len(header) < 100:
        raise StoreError(f"{path}: not a store; move it away or name another, nothing was overwritten")
    write_ahead = path.with_name(path.name + "-wal")
    if header[24:28] != header[92:96] or (write_ahead.exists() and write_ahead.stat().st_size):
        return  # the length is not stated here, or some of the pages are still in the write-ahead log
    page_size = int.from_bytes(header[16:18], "big")
    page_size = 65536 if page_size == 1 else page_size
    if size < page_size * int.from_bytes(header[28:32], "big"):
        raise StoreError(f"{path}: cut short; move it away or restore a copy, nothing was overwritten")


def _read_revision(path: Path) -> str | None:
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_TIMEOUT_S)
    try:
        tables = {
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        }
        if not tables:
            return None
        if not {"alembic_version", "cells", "calls"} <= tables:
            raise StoreError(f"{path}: a database, but not a store; name another in llmops.yaml")
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        return None if row is None else str(row[0])
    finally:
        connection.close()


def prepare_folder(path: Path) -> None:
    """Make the folder of a store and see that both can be written.

    Raises StoreError where they cannot, saying what to do: before the first call is paid.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{path.parent}: {error.strerror}; name another store in llmops.yaml") from error
    for place in (path.parent, path):
        if place.exists() and not os.access(place, os.W_OK):
            raise StoreError(f"{place}: cannot be written; make it writable or name another store")


def open_engine(path: Path) -> Engine:
    """Return an engine whose connections write ahead, wait for others, and begin transactions as told.

    The execution option `begin` says how: a transaction that will write begins IMMEDIATE, because one that
    turns from reading to writing fails at once when another writes, whatever the timeout.
    """
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        connect_args={"timeout": BUSY_TIMEOUT_S, "cached_statements": 256},
    )
    event.listen(engine, "connect", _set_up)
    event.listen(engine, "begin", _begin)
    return engine


def _set_up(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # SQLAlchemy begins transactions, not the driver
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))


@contextmanager
def writing_alone(path: Path) -> Iterator[None]:
    """Keep other processes from writing meanwhile: SQLite before 3.51.3 may lose what two write at once.

    Raises StoreHeldError when another has not let go in time.
    """
    with _lock_file(path, "writing") as descriptor:
        deadline = monotonic() + BUSY_TIMEOUT_S
        while not _lock(descriptor):
            if monotonic() > deadline:
                raise StoreHeldError(
                    f"{path}: another process has been writing for {BUSY_TIMEOUT_S} s; stop it"
                )
            sleep(LOOK_AGAIN_S)
        yield


@contextmanager
def _lock_file(path: Path, ending: str) -> Iterator[int]:
    lock = path.with_name(f"{path.name}.{ending}")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise StoreError(f"{lock}: {error.strerror}; make its directory writable") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def hold_file(path: Path) -> Iterator[None]:
    """Hold the store for one runner: a lock that the system drops with the process, however it ends.

    Raises StoreHeldError naming host and pid of the holder, StoreError where the lock cannot be made.
    """
    with _lock_file(path, "lock") as descriptor:
        if not _lock(descriptor):
            raise StoreHeldError(f"{path}: {_holder(descriptor)} holds it; wait for it or stop it")
        _sign(descriptor, json.dumps({"host": socket.gethostname(), "pid": os.getpid()}))
        try:
            yield
        finally:
            _sign(descriptor, "")


def _sign(descriptor: int, text: str) -> None:
    with suppress(OSError):  # a full disk: the lock holds without the name of its holder
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)


def _holder(descriptor: int) -> str:
    try:
        signed = json.loads(os.pread(descriptor, 1000, 0))
        return f"another runner (host {signed['host']}, pid {signed['pid']})"
    except (ValueError, KeyError, TypeError):
        return "another runner"


def keep_reserve(path: Path) -> None:
    """Keep some disk space back, for answers that arrive after the disk is full.

    Raises StoreError when even now there is no room for it.
    """
    reserve = _reserve(path)
    try:
        if not reserve.exists() or reserve.stat().st_size != RESERVE_BYTES:
            reserve.write_bytes(bytes(RESERVE_BYTES))
    except OSError as error:
        release_reserve(path)
        raise StoreError(f"{reserve}: {error.strerror}; make room for the store first") from error


def release_reserve(path: Path) -> None:
    """Give the space kept back to the store."""
    with suppress(OSError):  # then there is none to give
        _reserve(path).unlink()


def _reserve(path: Path) -> Path:
    return path.with_name(path.name + ".reserve")


def known_fault(version: tuple[int, ...]) -> str | None:
    """Return in words the fault that SQLite 3.51.3 mended, in 3.50.7 and 3.44.6 too; None where it is not."""
    mended = version >= WAL_RESET_FIXED[0] or any(
        version[:2] == fix[:2] and version >= fix for fix in WAL_RESET_FIXED
    )
    if mended or version < WRITE_AHEAD_SINCE:
        return None
    text = ".".join(map(str, version))
    return f"{text} can lose a write when two processes write ahead at once; llmops lets only one write"


def _is_doubtful(error: StoreError) -> bool:
    """Say whether nobody knows what the disk has of a transaction that failed so."""
    cause = getattr(error.__cause__, "orig", None) or error.__cause__
    return (getattr(cause, "sqlite_errorname", None) or "").endswith("FSYNC")


def store_error(path: Path, error: BaseException) -> StoreError:
    """Return what an error of SQLite, SQLAlchemy's wrapping taken off, means for whoever runs us."""
    cause = getattr(error, "orig", None) or error
    name = getattr(cause, "sqlite_errorname", None) or ""
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return StoreHeldError(f"{path}: another process has kept it locked for {BUSY_TIMEOUT_S} s; stop it")
    meaning = next((text for start, text in _MEANINGS if name.startswith(start)), "it could not be used")
    return StoreError(f"{path}: {meaning} ({cause})")
