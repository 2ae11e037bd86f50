"""One way to read a file of rows, whatever its format: JSONL, CSV or Parquet, by the end of its name.

What a row means, and what the text of a CSV's cells stands for, is left to whoever reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import BinaryIO

from llmops.definitions.csv_reader import read_csv
from llmops.definitions.jsonl_reader import read_jsonl
from llmops.errors import UsageError

SUFFIXES = (".jsonl", ".csv", ".parquet")


def read_rows(data: BinaryIO, path: str) -> Iterator[tuple[int, dict[str, object]]]:
    """Yield the number and the values by column of each row that is right.

    data: open at its start, and seekable; it is read as a stream. path: as people type it; its suffix decides.
    Numbers are lines, from 1, or rows of a Parquet file. Cells of a CSV are text, the empty one too. In CSV and
    Parquet every row has all columns, in the order of the file.

    Raises RowsError after the last row when some were wrong, DefinitionError at once when the file as a whole is,
    and UsageError for another suffix.
    """
    match PurePosixPath(path).suffix.lower():
        case ".jsonl":
            return read_jsonl(data, path)
        case ".csv":
            return read_csv(data, path)
        case ".parquet":
            from llmops.definitions.parquet_reader import read_parquet

            return read_parquet(data, path)
    raise UsageError(f"{path}: cases and outputs are read from {', '.join(SUFFIXES)}")
