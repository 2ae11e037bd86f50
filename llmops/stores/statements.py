"""The statements that write the journal's rows, built by SQLAlchemy and compiled once for a database.

Many rows go into one statement: SQLite gives up the interpreter's lock at each statement, and a writer that
did so for every row would wait its turn for every row.
"""

from __future__ import annotations

from itertools import chain, islice
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Dialect, Table, case, literal_column
from sqlalchemy.dialects import postgresql, sqlite

from llmops.records import CallState
from llmops.stores.tables import ACCOUNTS, CALLS, CASES, CELLS, OUTPUTS, SCORES, SPANS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from llmops.stores.rows import Row

T = TypeVar("T")

MAX_ROWS = 64  # in one statement: 64 spans have 1,088 values, far below any database's limit

_STEP = 8  # between the numbers of rows that have a text of their own, beyond the first few

# Both kinds of insert have the same methods, and no type in common.
AnyInsert = Any
_INSERTS: Mapping[str, Callable[[Table], AnyInsert]] = {
    "postgresql": postgresql.insert,
    "sqlite": sqlite.insert,
}
_PARAMSTYLES: Mapping[str, str] = {"postgresql": "format", "sqlite": "qmark"}


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield items in their order, so many at a time."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def insert_for(dialect: Dialect, table: Table) -> AnyInsert:
    """Return an insert into `table` that can say what happens where its key is taken."""
    return _INSERTS[dialect.name](table)


def replace_columns(insert: AnyInsert, table: Table) -> AnyInsert:
    """Return the insert so that a row whose key is taken replaces the one that is there."""
    changes = {column.name: insert.excluded[column.name] for column in table.c if not column.primary_key}
    return insert.on_conflict_do_update(index_elements=_key(table), set_=changes)


def _key(table: Table) -> Sequence[str]:
    return [column.name for column in table.primary_key]


class Many:
    """One statement about any number of rows. values: its text for one of them, which stands between the rest."""

    def __init__(self, head: str, values: str, tail: str) -> None:
        self._head, self._values, self._tail = head, values, tail
        self._texts: dict[int, str] = {}

    def run(self, connection: Connection, rows: Collection[Row]) -> None:
        """Carry it out for `MAX_ROWS` at a time, and for what is left in two steps: each text is kept prepared."""
        left, remaining = len(rows), iter(rows)
        while left:
            n = min(MAX_ROWS, left - left % _STEP or left)
            connection.exec_driver_sql(self._text(n), tuple(chain.from_iterable(islice(remaining, n))))
            left -= n

    def _text(self, n: int) -> str:
        if n not in self._texts:
            self._texts[n] = self._head + ", ".join([self._values] * n) + self._tail
        return self._texts[n]


def insert_many(dialect: Dialect, insert: AnyInsert) -> Many:
    """Return an insert for any number of rows; each holds all columns of the table, in their order."""
    make: Callable[..., Dialect] = type(dialect)
    positional = make(paramstyle=_PARAMSTYLES[dialect.name])
    text = str(insert.inline().compile(dialect=positional))
    start = text.index("VALUES (") + len("VALUES ")
    end = text.index(")", start) + 1
    return Many(text[:start], text[start:end], text[end:])


class Inserts:
    """Every insert of rows that the journal does, for one database."""

    def __init__(self, dialect: Dialect) -> None:
        def many(table: Table, finish: Callable[[AnyInsert], AnyInsert]) -> Many:
            return insert_many(dialect, finish(insert_for(dialect, table)))

        self.cases = many(CASES, lambda insert: insert.on_conflict_do_nothing())
        self.cells = many(CELLS, lambda insert: insert)
        self.intents = many(CALLS, _begin_call)
        self.calls = many(CALLS, _end_call)
        self.accounts = many(ACCOUNTS, _add_up)
        self.outputs = many(OUTPUTS, lambda insert: replace_columns(insert, OUTPUTS))
        self.spans = many(SPANS, lambda insert: insert)
        self.scores = many(SCORES, lambda insert: replace_columns(insert, SCORES))
        place = "%s" if _PARAMSTYLES[dialect.name] == "format" else "?"
        self._earlier_spans = Many(
            f"DELETE FROM {SPANS.name} WHERE {SPANS.c.cell_id.name} IN (",  # noqa: S608 - our own names
            place,
            ")",
        )

    def clear_spans(self, connection: Connection, cell_ids: Collection[str]) -> None:
        """Delete the spans that some cells have from an earlier output."""
        self._earlier_spans.run(connection, [(cell_id,) for cell_id in sorted(cell_ids)])


def _begin_call(insert: AnyInsert) -> AnyInsert:
    """Send a call again that has no answer yet; how often it was sent before is not forgotten."""
    names = ("state", "created_at", "answered_at", "owner", "upper_usd")
    changes = {name: insert.excluded[name] for name in names}
    return insert.on_conflict_do_update(index_elements=_key(CALLS), set_=changes, where=_unanswered())


def _end_call(insert: AnyInsert) -> AnyInsert:
    """Say what came of a call: attempts and what is unknown add up over runs, and the first answer stays.

    Said twice, as when a connection broke before anybody knew whether it was written, it counts once: a call
    has one end at one time.
    """
    names = ("state", "reply", "raw", "cost_usd", "error", "answered_at")
    changes: dict[str, Any] = {name: insert.excluded[name] for name in names}
    for name in ("attempts", "n_unknown"):
        known = CALLS.c[name]
        said_before = CALLS.c.answered_at == insert.excluded.answered_at
        changes[name] = case((said_before, known), else_=known + insert.excluded[name])
    return insert.on_conflict_do_update(index_elements=_key(CALLS), set_=changes, where=_unanswered())


def _add_up(insert: AnyInsert) -> AnyInsert:
    """Add to an account."""
    names = [column.name for column in ACCOUNTS.c if not column.primary_key]
    changes = {name: ACCOUNTS.c[name] + insert.excluded[name] for name in names}
    return insert.on_conflict_do_update(index_elements=_key(ACCOUNTS), set_=changes)


def _unanswered() -> ColumnElement[bool]:
    return CALLS.c.state != literal_column(f"'{CallState.ANSWERED}'")
