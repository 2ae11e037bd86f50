"""The cells of a run as they are read: in order, with their cases, outputs, spans and scores, a batch at a time.

Which cells are wanted is asked by the journal; numbers alone are read by `numbers`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Select, select

from llmops.definitions.dataset import Case
from llmops.records import Score, Span
from llmops.stores.rows import score_of, span_of, unescape
from llmops.stores.tables import CASES, CELLS, OUTPUTS, SCORES, SPANS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

READ_BATCH = 500  # cells read in one short transaction: memory stays flat, and no reader holds up the writer

Read = Callable[[Select[Any]], Sequence[Any]]
"""Gives the rows of a query, in a transaction of its own."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One variant on one case, once. `cell_id` hashes all that determines its output; runs share outputs.

    position: place in the run's order, from 0. case_key: hash of the case's content, gold answer included.
    """

    position: int
    variant: str
    repeat: int
    case_id: str
    case_key: str
    cell_id: str


Known = tuple[Cell, Case, tuple[Any, ...]]
"""A cell with its case and the row of its output, all None where it has none."""


def read_cells(read: Read, wanted: Sequence[ColumnElement[bool]]) -> Iterator[list[Known]]:
    """Yield the cells that fulfil all of `wanted` in order of position, a batch at a time.

    Each batch is a transaction of its own: one over the whole run would keep SQLite from reusing its
    write-ahead log for as long as the run lasts.
    """
    columns = [column for column in CELLS.c if column is not CELLS.c.run_id]
    query = (
        select(*columns, CASES.c.content, *OUTPUTS.c)
        .select_from(CELLS.join(CASES).outerjoin(OUTPUTS, same_cell()))
        .where(*wanted)
        .order_by(CELLS.c.position)
        .limit(READ_BATCH)
    )
    last = -1
    while True:
        found = read(query.where(CELLS.c.position > last))
        if not found:
            return
        last = found[-1][0]
        cases: dict[str, Case] = {}
        yield [(_cell_of(row), _case_of(row[4], row[6], cases), row[7:]) for row in found]


def read_spans(read: Read, cell_ids: Sequence[str]) -> Mapping[str, list[Span]]:
    """Return the spans of some cells, by cell, parents first."""
    found: dict[str, list[Span]] = defaultdict(list)
    query = select(SPANS).order_by(SPANS.c.cell_id, SPANS.c.index)
    if cell_ids:
        for row in read(query.where(SPANS.c.cell_id.in_(cell_ids))):
            found[row[0]].append(span_of(row))
    return found


def read_scores(
    read: Read, cell_ids: Sequence[str], order: Mapping[str, int]
) -> Mapping[tuple[str, str], list[Score]]:
    """Return the scores of some cells, by cell and case. order: the place of each evaluator by its identity."""
    found: dict[tuple[str, str], list[Score]] = defaultdict(list)
    query = select(SCORES).where(SCORES.c.cell_id.in_(cell_ids), SCORES.c.evaluator_identity.in_(order))
    if cell_ids and order:
        for row in read(query):
            found[row[0], row[2]].append(score_of(row))
    for scores in found.values():
        scores.sort(key=lambda score: order[score.evaluator_identity])
    return found


def same_cell() -> ColumnElement[bool]:
    """Say which output belongs to a cell."""
    return OUTPUTS.c.cell_id == CELLS.c.cell_id


def _cell_of(row: Sequence[Any]) -> Cell:
    return Cell(row[0], unescape(row[1]), row[2], unescape(row[3]), row[4], row[5])


def _case_of(case_key: str, content: str, known: dict[str, Case]) -> Case:
    """Return the case of a row, the same object for all cells of a batch that have it."""
    if case_key not in known:
        known[case_key] = Case(**json.loads(content))
    return known[case_key]
