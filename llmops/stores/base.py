"""What the journal asks of a database: transactions, a hold, and errors that mean something to people.

Statements, tables and records are the same for every database; what is different stands behind this protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from llmops.records import Call

T = TypeVar("T")


class Area(IntEnum):
    """Tables that are written together. A transaction in one is alone there; no transaction writes in both."""

    RUNS = 1
    """Runs with their cells and cases, and what of them was delivered."""
    RESULTS = 2
    """Calls, outputs, spans and scores."""
    SHARES = 3
    """What runners tell one another of limits."""


class Database(Protocol):
    """One place for a journal. A store is what is in it once `Journal` has made its tables."""

    name: str
    """What people know it by; holds no password."""

    is_shared: bool
    """Whether runners of different runs work on it side by side."""

    @property
    def engine(self) -> Engine:
        """Where its connections come from."""

    def __init__(self, url: str, *, root: Path, environment: Mapping[str, str]) -> None:
        """Take what `open_database` was given; raises StoreError when the URL does not name a database."""

    def found_revision(self) -> str | None:
        """Return the schema version of the store, None where there is none yet; changes nothing.

        Raises StoreError when it cannot be reached, is damaged, or holds something else than a store.
        """

    def prepare(self) -> None:
        """See that a store can be made and written here, before the first call is paid; StoreError where not."""

    def making(self) -> AbstractContextManager[None]:
        """Be the only one to make or migrate the store; StoreHeldError while a runner works on it."""

    def read(self, work: Callable[[Connection], T]) -> T:
        """Return what `work` reads in one transaction. It may be called again where the connection was lost.

        Raises StoreError, as all here, with what to do about it.
        """

    def write(self, work: Callable[[Connection], T], area: Area, *, again: bool = True) -> T:
        """Return what `work` returns once its transaction is committed, alone in its area.

        again: it may be called again where the connection was lost; what it writes is there once all the same.

        Raises StoreHeldError when the hold was lost to another runner meanwhile.
        """

    def hold(self, owner: str) -> AbstractContextManager[None]:
        """Be the one process that works for `owner`; it is let go when the process ends, however it ends.

        Raises StoreHeldError naming the holder when another is. Whether others may work beside it for owners of
        their own is up to the database.
        """

    def delivering(self) -> AbstractContextManager[None]:
        """Be the only one to deliver from this store, beside whoever runs; StoreHeldError while another does."""

    def release_reserve(self) -> None:
        """Give back what `hold` keeps of the disk, so that answers in flight can still be written."""

    def set_aside(self, calls: Iterable[Call]) -> None:
        """Keep answers that cannot be committed, and no others, for whoever holds the store next, if it can."""

    def aside(self) -> list[Call]:
        """Return what was set aside."""

    def alive(self, connection: Connection, owners: Collection[str]) -> Collection[str]:
        """Return those of the owners, none our own, that some process works for now."""

    def close(self) -> None:
        """Close all connections; the next use would open new ones."""
