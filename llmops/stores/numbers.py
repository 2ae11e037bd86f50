"""The numbers of a variant's cells, straight from their columns: what summaries and comparisons are made of.

`Journal.rows` gives the same rows with all their texts, which takes five times as long.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from sqlalchemy import Select, and_, bindparam, select

from llmops.records import CaseNumbers, OutputNumbers, RowNumbers, ScoreNumbers
from llmops.stores.rows import unescape
from llmops.stores.tables import CASES, CELLS, OUTPUTS, SCORES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_OUTPUT = [OUTPUTS.c[name] for name in OutputNumbers._fields]
_SCORE = [SCORES.c[name] for name in ScoreNumbers._fields]
_ABOUT = 4  # columns before those of the output: position, cell, case, its content
_OF_VARIANT = and_(
    CELLS.c.run_id == bindparam("run"),
    CELLS.c.variant == bindparam("variant"),
    CELLS.c.position > bindparam("after"),
)
_CELLS = (
    select(CELLS.c.position, CELLS.c.cell_id, CELLS.c.case_key, CASES.c.content, *_OUTPUT)
    .select_from(CELLS.join(CASES).outerjoin(OUTPUTS, OUTPUTS.c.cell_id == CELLS.c.cell_id))
    .where(_OF_VARIANT)
    .order_by(CELLS.c.position)
    .limit(bindparam("most"))
)
_SCORES = (
    select(CELLS.c.position, *_SCORE)
    .select_from(
        CELLS.join(SCORES, and_(SCORES.c.cell_id == CELLS.c.cell_id, SCORES.c.case_key == CELLS.c.case_key))
    )
    .where(
        _OF_VARIANT,
        CELLS.c.position <= bindparam("last"),
        SCORES.c.evaluator_identity.in_(bindparam("identities", expanding=True)),
    )
)


def read_numbers(
    read: Callable[[Select[Any]], Sequence[Any]],
    run_id: str,
    variant: str,
    identities: Sequence[str],
    batch: int,
) -> Iterator[RowNumbers]:
    """Yield the numbers of a variant's cells in order of position, each batch read in a transaction of its own.

    variant: its name as the store has it. identities: of the evaluators whose scores count.
    """
    last = -1
    while True:
        known = {"run": run_id, "variant": variant, "after": last}
        cells = read(_CELLS.params(most=batch, **known))
        if not cells:
            return
        last = cells[-1][0]
        scores = _by_position(
            read(_SCORES.params(last=last, identities=identities, **known)) if identities else ()
        )
        cases: dict[str, CaseNumbers] = {}
        for position, _, case_key, content, *output in cells:
            case = cases.get(case_key)
            if case is None:
                case = cases[case_key] = _case_of(case_key, content)
            yield RowNumbers(
                case, None if output[0] is None else _output_of(output), scores.get(position, ())
            )


def _by_position(rows: Sequence[Any]) -> Mapping[int, list[ScoreNumbers]]:
    found: dict[int, list[ScoreNumbers]] = defaultdict(list)
    for position, evaluator, value, label, truth, parts, sums in rows:
        found[position].append(
            ScoreNumbers(
                unescape(evaluator),
                value,
                None if label is None else unescape(label),
                None if truth is None else unescape(truth),
                {} if parts == "{}" else json.loads(parts),
                () if sums == "[]" else tuple(json.loads(sums)),
            )
        )
    return found


def _case_of(case_key: str, content: str) -> CaseNumbers:
    fields = json.loads(content)
    return CaseNumbers(fields["id"], fields.get("slice"), fields.get("cluster"), case_key)


def _output_of(columns: Sequence[Any]) -> OutputNumbers:
    output = OutputNumbers(*columns)
    name = output.returned_model
    return output if name is None else output._replace(returned_model=unescape(name))
