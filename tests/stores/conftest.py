"""Journals in real databases, and other processes at work on them."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine, make_url

from llmops.stores.journal import Journal, open_journal
from tests.postgres_server import PostgresServer
from tests.stores.samples import URL, store_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

ROOT = Path(__file__).parent.parent.parent
DATABASES = ("sqlite", "postgresql")


@dataclass(frozen=True)
class Place:
    """Where a test keeps its journal. kind: one of `DATABASES`."""

    kind: str
    url: str
    root: Path

    def open(self) -> Journal:
        return open_journal(self.url, root=self.root)

    @contextmanager
    def another(self) -> Iterator[Journal]:
        """Give a journal of its own on the same store."""
        with closing(self.open()) as journal:
            yield journal

    def execute(self, sql: str) -> list[Any]:
        """Carry out a statement behind the journal's back and return its rows."""
        url = make_url(self.url).set(drivername="postgresql+psycopg")
        if self.kind == "sqlite":
            url = make_url(f"sqlite:///{store_of(self.root)}")
        engine = create_engine(url)
        try:
            with engine.begin() as connection:
                result = connection.exec_driver_sql(sql)
                return list(result) if result.returns_rows else []
        finally:
            engine.dispose()


def place_of(kind: str, root: Path, request: pytest.FixtureRequest) -> Place:
    """Return a place for a new store, removed when whoever asks for it is done."""
    if kind == "sqlite":
        return Place(kind, URL, root)
    postgres: PostgresServer = request.getfixturevalue("postgres")
    url = postgres.new_database()
    request.addfinalizer(lambda: postgres.drop(url))
    return Place(kind, url, root)


@pytest.fixture(params=DATABASES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Give a place in each kind of database, in turn; nothing is made there yet."""
    return place_of(request.param, tmp_path, request)


@pytest.fixture
def journal(place: Place) -> Iterator[Journal]:
    """Give a new, empty journal at `place`."""
    with place.another() as journal:
        yield journal


Child = subprocess.Popen[str]


@pytest.fixture
def child(place: Place) -> Callable[..., AbstractContextManager[Child]]:
    """Start `tests.stores.child` on the store at `place`; it is killed at the latest when the test ends."""

    @contextmanager
    def start(mode: str, owner: str = "r1") -> Iterator[Child]:
        command = [sys.executable, "-m", "tests.stores.child", mode, place.url, str(place.root), owner]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
            try:
                yield process
            finally:
                process.kill()

    return start


def lines(process: Child) -> IO[str]:
    """Return what the child says, a line at a time."""
    assert process.stdout is not None
    return process.stdout


def answer(process: Child) -> None:
    """Give the child the line it waits for."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
