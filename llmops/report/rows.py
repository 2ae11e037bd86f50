"""Every case of a run in a file: JSONL with nothing lost, CSV for spreadsheets, Parquet for data frames.

CSV and Parquet hold the table of `flat_rows`: without spans, and with what is nested as JSON.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO

from llmops.definitions.documents import BOM
from llmops.errors import UsageError
from llmops.report.flat_rows import Cell, FlatRows
from llmops.secrets import scrub_json

if TYPE_CHECKING:
    from pathlib import Path

    from llmops.records import Row, Run

_GROUP = 2_000  # rows of one group in a Parquet file, which is held in memory
_FORMULA = frozenset("=+-@\t\r\n\0＝＋－＠")
"""What makes a spreadsheet take a cell for a formula when it stands first: OWASP ASVS 5.0, 1.2.10, full-width too."""


def row_json(row: Row) -> dict[str, Any]:
    """Return a row as plain JSON values; `Row.model_validate` gives the row back."""
    return row.model_dump(mode="json")


def row_line(row: Row) -> str:
    """Return a row as one line of ASCII JSON, keys sorted, without secrets."""
    return scrub_json(json.dumps(row_json(row), sort_keys=True, ensure_ascii=True, allow_nan=False)) + "\n"


def write_rows(rows: Iterable[Row], path: Path, *, run: Run | None = None) -> int:
    """Write rows into a file, by the end of its name as JSONL, CSV or Parquet, and return how many.

    run: whose id and experiment stand in each row of a CSV or Parquet file.
    Rows are written as they come: who must not leave half a file writes beside it and renames.

    Raises UsageError for another suffix, before anything is read or written.
    """
    check_suffix(path)
    with path.open("wb") as file:
        return _WRITERS[path.suffix.lower()](rows, file, run)


def check_suffix(path: Path) -> None:
    """See that rows can be written by the end of a file's name (UsageError when not)."""
    if path.suffix.lower() not in _WRITERS:
        raise UsageError(f"{path}: rows are written as {', '.join(_WRITERS)}; end the file's name so")


def _write_jsonl(rows: Iterable[Row], file: BinaryIO, _: Run | None) -> int:
    n = 0
    for row in rows:
        file.write(row_line(row).encode("ascii"))
        n += 1
    return n


def _write_csv(rows: Iterable[Row], file: BinaryIO, run: Run | None) -> int:
    """Write RFC 4180, every text in quotes, so that no other separator can begin a cell inside of one.

    It starts with a byte order mark: Excel would take UTF-8 for the code page of its machine without, and pandas
    and our own reader pass over it. Text that a spreadsheet would run as a formula gets a leading `'`.
    """
    table = FlatRows(rows, run)
    file.write(BOM)
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow([_harmless(name) for name in table.columns])
    for cells in table:
        writer.writerow([_harmless(cell) for cell in cells])
    text.detach()  # written out, and left open for whoever opened it
    return len(table)


def _harmless(cell: Cell) -> Cell:
    if isinstance(cell, bool):
        return str(cell).lower()
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in _FORMULA else cell


def _write_parquet(rows: Iterable[Row], file: BinaryIO, run: Run | None) -> int:
    """Write typed columns; they are known before the first group is written, so all groups have the same."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = FlatRows(rows, run)
    types = {"text": pa.string(), "whole": pa.int64(), "number": pa.float64(), "truth": pa.bool_()}
    schema = pa.schema([(name, types[kind]) for name, kind in table.columns.items()])
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for group in _groups(table):
            columns = zip(schema, zip(*group, strict=True), strict=True)
            arrays = [pa.array(cells, type=about.type) for about, cells in columns]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
    return len(table)


def _groups(table: Iterable[Sequence[Cell]]) -> Iterator[list[Sequence[Cell]]]:
    rows = iter(table)
    while group := list(islice(rows, _GROUP)):
        yield group


_WRITERS: Mapping[str, Callable[[Iterable[Row], BinaryIO, Run | None], int]] = {
    ".jsonl": _write_jsonl,
    ".csv": _write_csv,
    ".parquet": _write_parquet,
}
