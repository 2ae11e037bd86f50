"""Rows of a run as a table: one column for each thing known of a cell, each of one type, what is nested as JSON.

Which columns there are is known after the last row only, so rows wait in a temporary file until then: memory stays
flat. CSV, Parquet and pandas make their tables of this; the lossless form of a row is its JSON in `rows`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from llmops.definitions.base import canonical
from llmops.definitions.spool import Spool
from llmops.records import Row, Run, Score
from llmops.secrets import scrub_json

Kind = Literal["text", "whole", "number", "truth"]
Cell = str | int | float | bool | None

_BEFORE_INPUTS = ("run", "experiment", "variant", "repeat", "case_id", "split", "slice", "cluster")
_AFTER_INPUTS: Mapping[str, Kind] = {
    "expected": "text",
    "output": "text",
    "status": "text",
    "error_kind": "text",
    "error_message": "text",
    "valid": "truth",
    "latency_s": "number",
    "ttft_s": "number",
    "input_tokens": "whole",
    "output_tokens": "whole",
    "cost_usd": "number",
    "model": "text",
}
_ALWAYS_TEXT = {("expected",), ("output",)}
_MOST_WHOLE = 2**63
_MOST_EXACT = 2**53  # beyond, a whole number is no float any more

Source = tuple[str, ...]
"""Where a column's values come from: `("inputs", NAME)`, `("score", EVALUATOR, PART)`, or a name of its own."""


@dataclass(slots=True)
class _Column:
    """One column in the making. rank: where it stands among the others. kinds: of the values it has met."""

    number: int
    rank: tuple[int, ...]
    name: str
    default: Kind
    kinds: set[str] = field(default_factory=set)

    @property
    def kind(self) -> Kind:
        """The one type that takes all values it has met."""
        met = self.kinds
        if not met:
            return self.default
        if met <= {"whole", "large"}:
            return "whole"
        if met <= {"whole", "number"}:
            return "number"
        return "truth" if met == {"truth"} else "text"


class FlatRows:
    """The rows of one run as a table, in their order. Iterating gives each as its cells, in the order of `columns`.

    run: whose id and experiment stand in each row, and whose evaluators have columns even if none has scored.
    """

    def __init__(self, rows: Iterable[Row], run: Run | None = None) -> None:
        self._found: dict[Source, _Column] = {}
        self._evaluators: dict[str, int] = {}
        self._about = (None, None) if run is None else (run.id, run.experiment)
        self._spool = Spool()
        for place, name in enumerate(_BEFORE_INPUTS):
            self._column((name,), (0, place), "whole" if name == "repeat" else "text")
        for place, (name, kind) in enumerate(_AFTER_INPUTS.items()):
            self._column((name,), (2, place), kind)
        for version in () if run is None else run.evaluators:
            self._evaluator(version.name)
        self._n = 0
        for row in rows:
            self._add(row)
            self._n += 1
        self._columns = self._in_order()

    @property
    def columns(self) -> dict[str, Kind]:
        """The columns by name, in their order."""
        return {column.name: column.kind for column in self._columns}

    def __len__(self) -> int:
        return self._n

    def __iter__(self) -> Iterator[list[Cell]]:
        shapes = [(str(column.number), column.kind) for column in self._columns]
        for line in self._spool.lines():
            cells = json.loads(line)
            yield [_cell(cells.get(number), kind) for number, kind in shapes]

    def _in_order(self) -> list[_Column]:
        """Name the columns, those of scores last: an evaluator may be called as another column is."""
        taken: set[str] = set()
        for source, column in sorted(self._found.items(), key=lambda item: item[0][0] == "score"):
            while column.name in taken:
                column.name = f"{source[0]}.{column.name}"
            taken.add(column.name)
        return sorted(self._found.values(), key=lambda column: column.rank)

    def _column(
        self, source: Source, rank: tuple[int, ...], default: Kind, name: str | None = None
    ) -> _Column:
        if source not in self._found:
            name = ".".join(source) if name is None else name
            self._found[source] = _Column(len(self._found), rank, name, default)
        return self._found[source]

    def _evaluator(self, name: str) -> int:
        """Return which evaluator it is, of those met."""
        if name not in self._evaluators:
            place = self._evaluators[name] = len(self._evaluators)
            self._column(("score", name), (3, place, 0), "number", name)
            self._column(("score", name, "", "rationale"), (3, place, 2), "text", f"{name}.rationale")
            self._column(("score", name, "", "error"), (3, place, 3), "text", f"{name}.error")
        return self._evaluators[name]

    def _add(self, row: Row) -> None:
        cells: dict[int, Any] = {}
        for source, value in self._values(row):
            if value is None:
                continue
            column = self._found[source]
            column.kinds.add("text" if source in _ALWAYS_TEXT else _kind_of(value))
            cells[column.number] = value
        self._spool.write(scrub_json(json.dumps(cells, allow_nan=False)).encode() + b"\n")

    def _values(self, row: Row) -> Iterator[tuple[Source, Any]]:
        case = row.case
        run, experiment = self._about
        plain = (run, experiment, row.variant, row.repeat, case.id, case.split, case.slice, case.cluster)
        yield from (((name,), value) for name, value in zip(_BEFORE_INPUTS, plain, strict=True))
        yield from self._named("inputs", 1, case.inputs)
        yield ("expected",), case.expected
        yield from _output_values(row)
        for score in row.scores:
            yield from self._score_values(score)
        yield from self._named("metadata", 4, case.metadata)

    def _named(self, group: str, rank: int, values: Mapping[str, Any]) -> Iterator[tuple[Source, Any]]:
        for name, value in values.items():
            self._column((group, name), (rank, len(self._found)), "text")
            yield (group, name), value

    def _score_values(self, score: Score) -> Iterator[tuple[Source, Any]]:
        place, name = self._evaluator(score.evaluator), score.evaluator
        yield ("score", name), score.value
        for part, value in score.parts.items():
            self._column(("score", name, part), (3, place, 1, len(self._found)), "number", f"{name}.{part}")
            yield ("score", name, part), value
        yield ("score", name, "", "rationale"), score.rationale
        yield ("score", name, "", "error"), score.error


def _output_values(row: Row) -> Iterator[tuple[Source, Any]]:
    output = row.output
    if output is None:
        return
    yield ("output",), output.value
    yield ("status",), str(output.status)
    if output.error is not None:
        yield ("error_kind",), output.error.kind
        yield ("error_message",), output.error.message
    for name in ("valid", "latency_s", "ttft_s", "input_tokens", "output_tokens", "cost_usd"):
        yield (name,), getattr(output, name)
    yield ("model",), output.returned_model


def _kind_of(value: object) -> str:
    """Return what a value is; one that no column of numbers takes exactly is text."""
    if isinstance(value, bool):
        return "truth"
    if isinstance(value, int):
        exact = abs(value) <= _MOST_EXACT
        return "whole" if exact else "large" if -_MOST_WHOLE <= value < _MOST_WHOLE else "text"
    return "number" if isinstance(value, float) else "text"


def _cell(value: Any, kind: Kind) -> Cell:
    if value is None:
        return None
    if kind == "number":
        return float(value)
    if kind != "text":
        return value  # type: ignore[no-any-return]
    return _storable(value if isinstance(value, str) else canonical(value))


def _storable(text: str) -> str:
    """Return text as any file in UTF-8 takes it: half a surrogate pair becomes the sign for what cannot be shown."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
