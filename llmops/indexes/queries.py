"""The rows of a query to a database: a file of SQLite in the project, or whatever URL a variable holds.

A query reads and changes nothing: SQLite is asked for no more than to select, and what another database was asked is
rolled back. Rows, bytes and time have an end.
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from llmops.errors import UsageError
from llmops.secrets import register_address

MAX_BYTES = 500_000_000
TIMEOUT_S = 300.0
_ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
_INSTRUCTIONS = 100_000  # of SQLite, between two looks at the clock: a few milliseconds

Row = tuple[int, dict[str, object]]


def ask_file(path: Path, query: str) -> Iterator[Row]:
    """Yield number and values of each row that a query to a file gives.

    Raises UsageError in SQLite's words for a query it does not take, or that does more than read.
    """
    ends_at = time.monotonic() + TIMEOUT_S
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        connection.set_authorizer(
            lambda action, *_: sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY
        )
        connection.set_progress_handler(lambda: int(time.monotonic() > ends_at), _INSTRUCTIONS)
        try:
            cursor = connection.execute(query)
            names = [column[0] for column in cursor.description or ()]
            yield from _bounded(dict(zip(names, row, strict=True)) for row in cursor)
        except sqlite3.Error as error:
            raise UsageError(f"the query cannot be answered: {error}") from error


def ask_url(variable: str, query: str, environment: Mapping[str, str]) -> Iterator[Row]:
    """Yield number and values of each row that a query gives to the database whose URL a variable holds.

    Raises UsageError when the variable is not set, and for whatever the database says; never with the URL.
    """
    from sqlalchemy import create_engine
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError

    url = environment.get(variable, "").strip()
    if not url:
        raise UsageError(f"{variable} is not set in the environment or in .env")
    register_address(url)
    try:
        engine = create_engine(url)
    except (ArgumentError, ImportError, ValueError) as error:
        raise UsageError(f"{variable} holds no address of a database that is known here") from error
    try:
        with engine.connect() as connection:
            rows = connection.exec_driver_sql(query, execution_options={"stream_results": True})
            yield from _bounded(dict(row) for row in rows.mappings())
            connection.rollback()
    except SQLAlchemyError as error:
        said = str(getattr(error, "orig", None) or type(error).__name__).partition("\n")[0]
        raise UsageError(f"the database in {variable} does not answer: {said}") from error
    finally:
        engine.dispose()


def _bounded(rows: Iterable[Mapping[str, Any]]) -> Iterator[Row]:
    """Yield rows as plain values: what is neither text nor number becomes text, and bytes go."""
    ends_at = time.monotonic() + TIMEOUT_S
    size = 0
    for number, row in enumerate(rows, 1):
        plain = {
            key: _plain(value) for key, value in row.items() if not isinstance(value, bytes | memoryview)
        }
        size += sum(len(value) for value in plain.values() if isinstance(value, str))
        if size > MAX_BYTES or time.monotonic() > ends_at:
            raise UsageError(
                f"the query gives more than {MAX_BYTES:,} characters, or takes more than {TIMEOUT_S:g} s"
            )
        yield number, plain


def _plain(value: Any) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float) else str(value)
