"""PostgreSQL as a place for the journal, for a team: runners of different runs work on it side by side.

Advisory locks say who works for what: the server frees them when a process is gone, however it ended. A server
that goes away for a while is waited for, and what was being written then is there once when it is back.
"""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, exc, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from llmops.addresses import SECRET_HOSTS, is_listed, is_loopback
from llmops.errors import StoreError, StoreHeldError
from llmops.secrets import register

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from pathlib import Path

    from llmops.records import Call
    from llmops.stores.base import Area

T = TypeVar("T")

PATIENCE_S = 300.0  # with a server that is away while a run goes on
WAITS_S = (0.1, 10.0)  # between tries to reach it again: the first, the longest
MAKING_WAIT_S = 10  # for another process that makes or migrates the store

# The first half of our advisory locks: the areas of `Area`, the schema, owners by their hash, deliveries.
AREAS, SCHEMA, OWNERS, DELIVERIES = 0x6C6C6D01, 0x6C6C6D02, 0x6C6C6D03, 0x6C6C6D04

# Any: the options of libpq. A peer that fell silent is noticed within a minute or two, not within hours.
CONNECT: Mapping[str, Any] = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
SESSION: Mapping[str, str] = {
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    "idle_in_transaction_session_timeout": "60s",  # a runner put to sleep in mid-write holds up nobody for longer
}

_TABLES = """
SELECT relname FROM pg_class
WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) AND relkind IN ('r', 'p')
"""
_MAY_WRITE = """
SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean,
       current_schema() IS NOT NULL AND has_schema_privilege(current_schema(), 'CREATE'),
       coalesce(has_table_privilege(to_regclass('calls'), 'INSERT, UPDATE'), false)
"""
_LOCKS = """
FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_ALIVE = f"SELECT objid::bigint {_LOCKS} AND classid::bigint = %s AND objid::bigint = ANY(%s::bigint[])"
_HOLDERS = """
SELECT a.application_name, a.pid FROM pg_stat_activity AS a JOIN pg_locks AS l ON l.pid = a.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 AND a.datname = current_database()
AND l.classid::bigint = %s AND (l.objid::bigint = %s OR %s) ORDER BY a.pid
"""
_BEGUN = f"""
SELECT pg_current_xact_id()::text, pg_postmaster_start_time()::text,
       EXISTS (SELECT {_LOCKS} AND classid::bigint = %s AND objid::bigint = %s AND pid = %s)
"""
_ENDED = "SELECT CASE WHEN pg_postmaster_start_time()::text = %s THEN pg_xact_status(%s::xid8) END"

# By the class or code that PostgreSQL gives an error, the first that fits: what it means for whoever runs us.
_MEANINGS: tuple[tuple[str, str], ...] = (
    ("53100", "its disk is full; make room and run again, nothing that was answered is paid twice"),
    ("53300", "it has no connection left; close some or raise max_connections, then run again"),
    ("25006", "it cannot be written; name the server that takes writes"),
    ("42501", "this role may not do that; GRANT it CREATE on the schema, or all on its tables"),
    ("25P03", "this process stood still for too long; run again"),
    ("57P", "the server went away; run again when it is back"),
    ("08", "the connection broke; run again"),
    ("40", "another transaction was in the way; run again"),
    ("XX00", "it is damaged; restore a copy, nothing was overwritten"),
)
# While connecting there is no code, only words. What is refused stays so; what is away may come back.
_REFUSED: tuple[tuple[tuple[str, ...], str], ...] = (
    (('database "', "does not exist"), "there is no such database; make it with createdb, or name another"),
    (('role "', "does not exist"), "the server does not know this role; name another as USER@ or in PGUSER"),
    (
        ("authentication method requirement",),
        f"it wants the password itself, and only llmops.yaml names it; allow it: {SECRET_HOSTS}=HOST",
    ),
    (("password",), "the server refuses role or password; set PGPASSWORD or ~/.pgpass"),
    (("authentication failed",), "the server refuses this role; name another as USER@ or in PGUSER"),
    (("pg_hba.conf",), "the server takes no such connection; let pg_hba.conf allow it"),
    (("permission denied",), "this role may not connect; GRANT it CONNECT on the database"),
    (("not permitted to log in",), "this role may not log in; name another as USER@ or in PGUSER"),
)
_AWAY: tuple[tuple[tuple[str, ...], str], ...] = (
    (("too many",), "it has no connection left; close some or raise max_connections, then run again"),
    (("connection slots",), "it has no connection left; close some or raise max_connections, then run again"),
    (("the database system is",), "the server is starting up or shutting down; wait for it and run again"),
    ((), "the server cannot be reached; start it, or name another store in llmops.yaml"),
)
_PASSING = ("08", "25006", "25P03", "40001", "40P01", "53300", "57P")


class _LostHoldError(Exception):
    """The lock that says for whom we work went with its connection, or that connection still has it."""


@dataclass(frozen=True)
class _Doubt(Generic[T]):
    """A transaction whose COMMIT was sent. server: when it was started, which tells one life of it from another."""

    transaction: str
    server: str
    result: T


@dataclass
class _Hold:
    """For whom we work. connection: whose session has the lock, None once that is known to be lost."""

    owner: str
    connection: Connection | None = None
    pid: int = 0


def _is_vouched(url: URL, environment: Mapping[str, str]) -> bool:
    """Say whether the environment, and not a file alone, names the host that a password would go to."""
    host = url.host or ""
    if {"host", "hostaddr", "service"} & url.query.keys():
        return False
    named = environment.get("PGHOST") == host or is_listed(
        environment, {host, f"{host}:{url.port}"}, "PGPASSWORD"
    )
    return not host or named or is_loopback(host)


class PostgreSQL:
    """A database on a server; the constructor only says which.

    patience_s: how long a server that is away is waited for, once a store has been opened.
    """

    is_shared = True

    def __init__(
        self, url: str, *, root: Path, environment: Mapping[str, str], patience_s: float = PATIENCE_S
    ) -> None:
        del root  # a server has none
        try:
            self._url = make_url(url).set(drivername="postgresql+psycopg")
        except exc.ArgumentError as error:
            raise StoreError("store: no database URL; write postgresql://HOST/NAME") from error
        place = (self._url.host, self._url.port, self._url.database)
        self.name = URL.create("postgresql", self._url.username, None, *place).render_as_string()
        self._password = environment.get("PGPASSWORD")
        register(self._password)
        self._is_vouched = _is_vouched(self._url, environment)
        self._patience_s = patience_s
        self._away_since: float | None = None
        self._hold: _Hold | None = None
        self._holding = threading.Lock()

    @cached_property
    def engine(self) -> Engine:
        """Where connections come from; opened when it is first used."""
        options = {**CONNECT, "application_name": _signature()}
        options = {name: value for name, value in options.items() if name not in self._url.query}
        if self._password is not None:
            options["password"] = self._password
            if not self._is_vouched:  # a proof that one has it may go to a host that a file names, itself not
                options["require_auth"] = "!password"
        try:
            engine = create_engine(self._url, connect_args=options)
        except ModuleNotFoundError as error:
            raise StoreError(
                f"{self.name}: its driver is not installed; pip install 'llmops-workbench[postgresql]'"
            ) from error
        event.listen(engine, "connect", _set_up)
        return engine

    # --- opening ------------------------------------------------------------------------------------------

    def found_revision(self) -> str | None:
        """Return the schema version of the store in the first schema of the search path."""
        return self._once(self._revision)

    def _revision(self, connection: Connection) -> str | None:
        tables = set(connection.exec_driver_sql(_TABLES).scalars())
        if not tables:
            return None
        if not {"alembic_version", "cells", "calls"} <= tables:
            raise StoreError(
                f"{self.name}: a database, but not a store; name another, nothing in it was changed"
            )
        found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
        return None if found is None else str(found)

    def prepare(self) -> None:
        """See that the server takes writes from this role."""
        read_only, may_create, may_write = self._once(
            lambda connection: connection.exec_driver_sql(_MAY_WRITE).one()
        )
        if read_only:
            raise StoreError(f"{self.name}: it cannot be written; name the server that takes writes")
        if not (may_create or may_write):
            raise StoreError(
                f"{self.name}: this role may not write here; GRANT it CREATE on the schema, or all on its tables"
            )

    @contextmanager
    def making(self) -> Iterator[None]:
        """Hold the schema alone; runners share it."""
        with self._session() as session:
            session.exec_driver_sql(f"SET lock_timeout = '{MAKING_WAIT_S}s'")
            try:
                session.exec_driver_sql("SELECT pg_advisory_lock(%s, 0)", (SCHEMA,))
            except DBAPIError as error:
                if _code(error) != "55P03":
                    raise
                holder = _told(_holders(session, SCHEMA))
                raise StoreHeldError(f"{self.name}: {holder} works on it; wait for it or stop it") from error
            yield

    @contextmanager
    def _session(self) -> Iterator[Connection]:
        """Give a connection of its own, closed in the end: its locks go with it."""
        try:
            session = self._connect()
            try:
                yield session
            finally:
                _end(session)
        except SQLAlchemyError as error:
            raise self._error(error) from error

    def _connect(self) -> Connection:
        session = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        session.detach()
        return session

    # --- transactions -------------------------------------------------------------------------------------

    def read(self, work: Callable[[Connection], T]) -> T:
        """Return what `work` reads in one transaction; a server that is away is waited for."""

        def attempt() -> T:
            with self.engine.begin() as connection:
                return work(connection)

        return self._patiently(attempt)

    def write(self, work: Callable[[Connection], T], area: Area, *, again: bool = True) -> T:
        """Return what `work` returns once it is committed, exactly once, whatever became of the connection.

        Where the answer to COMMIT was lost, the server is asked what it did. One that was started anew cannot
        say: after a crash it gives the numbers of transactions a second time. Then it is written again, which
        changes nothing that is there but, at most, a run's revision.
        """
        doubt: _Doubt[T] | None = None
        has_begun = False

        def attempt() -> T:
            nonlocal doubt, has_begun
            self._hold_again()
            if doubt is not None and self._was_committed(doubt, area):
                return doubt.result
            doubt = None
            with self.engine.begin() as connection:
                transaction, server = self._begin(connection, area)
                has_begun = True
                result = work(connection)
                doubt = _Doubt(transaction, server, result)
            return result

        return self._patiently(attempt, lambda: again or not has_begun)

    def _begin(self, connection: Connection, area: Area) -> tuple[str, str]:
        """Be alone in the area until the transaction ends, and still the one who works for our owner."""
        _alone_in(connection, area)
        hold = self._hold
        values = (OWNERS, _key(hold.owner), hold.pid) if hold else (OWNERS, 0, 0)
        transaction, server, is_held = connection.exec_driver_sql(_BEGUN, values).one()
        if hold is not None and not is_held:
            with self._holding:
                if hold.pid == values[2]:  # else it was taken again meanwhile
                    _forget(hold)
            raise _LostHoldError(f"{self.name}: the hold on {hold.owner} was lost; run again")
        return transaction, server

    def _was_committed(self, doubt: _Doubt[T], area: Area) -> bool:
        with self.engine.begin() as connection:
            _alone_in(connection, area)  # until now the transaction itself may have gone on
            status = connection.exec_driver_sql(_ENDED, (doubt.server, doubt.transaction)).scalar()
        return bool(status == "committed")

    def _once(self, work: Callable[[Connection], T]) -> T:
        try:
            with self.engine.begin() as connection:
                return work(connection)
        except (SQLAlchemyError, UnicodeError) as error:
            raise self._error(error) from error

    def _patiently(self, attempt: Callable[[], T], may_repeat: Callable[[], bool] = lambda: True) -> T:
        """Return what the attempt returns, made again while the server is away, at most for our patience."""
        wait_s, longest_s = WAITS_S
        while True:
            try:
                result = attempt()
            except _LostHoldError as error:
                failure: StoreError = StoreHeldError(str(error))
            except (SQLAlchemyError, UnicodeError) as error:
                failure = self._error(error)
                if not (_is_passing(error) and may_repeat()):
                    raise failure from error
            else:
                self._away_since = None
                return result
            now = monotonic()
            self._away_since = self._away_since or now
            if now + wait_s > self._away_since + self._patience_s:
                raise failure
            sleep(wait_s)
            wait_s = min(2 * wait_s, longest_s)

    # --- who works for what -------------------------------------------------------------------------------

    @contextmanager
    def hold(self, owner: str) -> Iterator[None]:
        """Hold `owner` in a session of its own; runners with other owners go on beside us."""
        hold = _Hold(owner)
        try:
            self._take(hold)
        except _LostHoldError as error:  # here it is no lost one: this process holds it twice
            raise StoreHeldError(str(error)) from error
        except SQLAlchemyError as error:
            raise self._error(error) from error
        self._hold = hold
        try:
            yield
        finally:
            self._hold = None
            _forget(hold)

    def _take(self, hold: _Hold) -> None:
        """Take the lock of an owner; _LostHoldError when a process of our own name has it already."""
        session = self._connect()
        try:
            session.exec_driver_sql("SELECT pg_advisory_lock_shared(%s, 0)", (SCHEMA,))
            taken = session.exec_driver_sql(
                "SELECT pg_try_advisory_lock(%s, %s), pg_backend_pid()", (OWNERS, _signed(_key(hold.owner)))
            ).one()
            if not taken[0]:
                holders = _holders(session, OWNERS, hold.owner)
                is_ours = {name for name, _ in holders} == {_signature()}
                text = f"{self.name}: {_told(holders)} works on {hold.owner}; wait for it or stop it"
                raise _LostHoldError(text) if is_ours else StoreHeldError(text)
        except BaseException:
            _end(session)
            raise
        hold.connection, hold.pid = session, taken[1]

    def _hold_again(self) -> None:
        """Take again what we held when its connection was lost."""
        with self._holding:
            if self._hold is not None and self._hold.connection is None:
                self._take(self._hold)

    @contextmanager
    def delivering(self) -> Iterator[None]:
        """Hold deliveries in a session of its own."""
        with self._session() as session:
            if not session.exec_driver_sql("SELECT pg_try_advisory_lock(%s, 0)", (DELIVERIES,)).scalar():
                holder = _told(_holders(session, DELIVERIES))
                raise StoreHeldError(f"{self.name}: {holder} delivers from it; wait for it or stop it")
            yield

    def release_reserve(self) -> None:
        """Do nothing: the disk is the server's."""

    def set_aside(self, calls: Iterable[Call]) -> None:
        """Do nothing: whoever goes on may do so from another machine."""

    def aside(self) -> list[Call]:
        """Return none."""
        return []

    def alive(self, connection: Connection, owners: Collection[str]) -> Collection[str]:
        """Return the owners whose lock some session has."""
        keys = {_key(owner): owner for owner in owners}
        found = connection.exec_driver_sql(_ALIVE, (OWNERS, list(keys))).scalars()
        return {keys[key] for key in found}

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    # --- what errors mean ---------------------------------------------------------------------------------

    def _error(self, error: Exception) -> StoreError:
        cause = getattr(error, "orig", None) or error
        text = " ".join(str(cause).split())
        return StoreError(f"{self.name}: {_meaning(error, text)} ({text})")


def _set_up(connection: Any, _record: object) -> None:
    """Let the server, too, notice within a minute that we are gone, and free what we hold."""
    with connection.cursor() as cursor:
        for setting, value in SESSION.items():
            cursor.execute(f"SET {setting} = '{value}'")
    connection.commit()


def _alone_in(connection: Connection, area: Area) -> None:
    connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s, %s)", (AREAS, int(area)))


def _key(owner: str) -> int:
    """Return the second half of an owner's lock as `pg_locks` shows it, from 0 to 2**32 - 1."""
    return int.from_bytes(hashlib.sha256(owner.encode()).digest()[:4], "big")


def _signed(key: int) -> int:
    """Return a key as the functions that lock take it."""
    return key - 2**32 if key >= 2**31 else key


def _signature() -> str:
    """Return how our sessions are named; PostgreSQL cuts names off at 63 bytes."""
    return f"llmops {socket.gethostname()[:40]} {os.getpid()}"


def _holders(session: Connection, first: int, owner: str | None = None) -> list[tuple[str, int]]:
    values = (first, 0 if owner is None else _key(owner), owner is None)
    return [(name or "", pid) for name, pid in session.exec_driver_sql(_HOLDERS, values)]


def _told(holders: list[tuple[str, int]]) -> str:
    """Return who has a lock, in words."""
    for name, pid in holders:
        words = name.split()
        if len(words) == 3 and words[0] == "llmops":
            return f"another runner (host {words[1]}, pid {words[2]})"
        return f"another runner (session {pid} of the server{f', {name}' if name else ''})"
    return "another runner"


def _forget(hold: _Hold) -> None:
    session, hold.connection = hold.connection, None
    if session is not None:
        _end(session)


def _end(session: Connection) -> None:
    """Free what a session holds and close it; where it is broken the server does."""
    with suppress(SQLAlchemyError):
        session.exec_driver_sql("SELECT pg_advisory_unlock_all()")
    with suppress(SQLAlchemyError):
        session.close()


def _code(error: Exception) -> str | None:
    """Return the five letters by which PostgreSQL names an error, None where it never got to name one."""
    found: str | None = getattr(getattr(error, "orig", None), "sqlstate", None)
    return found


def _is_passing(error: Exception) -> bool:
    """Say whether the same may go well later: the server is away, has no room for us, or chose us as victim."""
    if isinstance(error, exc.TimeoutError):
        return True  # our own pool has no connection left
    if not isinstance(error, DBAPIError):
        return False
    code = _code(error)
    if code is not None:
        return code.startswith(_PASSING)
    if error.connection_invalidated:
        return True
    return isinstance(error, exc.OperationalError) and _said(str(error.orig), _REFUSED) is None


def _said(text: str, table: tuple[tuple[tuple[str, ...], str], ...]) -> str | None:
    return next((meaning for words, meaning in table if all(word in text for word in words)), None)


def _meaning(error: Exception, text: str) -> str:
    code = _code(error)
    found: str | None = None
    if code is not None:
        found = next((meaning for start, meaning in _MEANINGS if code.startswith(start)), None)
    elif isinstance(error, exc.TimeoutError):
        found = "it has no connection left; run again"
    elif isinstance(error, DBAPIError) and error.connection_invalidated:
        found = "the connection broke; run again"
    elif isinstance(error, exc.OperationalError):
        found = _said(text, _REFUSED) or _said(text, _AWAY)
    return found or "it could not be used"
