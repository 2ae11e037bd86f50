"""Every case of a run as JSON, one line each, with nothing lost: for notebooks, other tools and MLflow."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, TextIO

from llmops.records import Row


def row_json(row: Row) -> dict[str, Any]:
    """Return a row as plain JSON values; `Row.model_validate` gives the row back."""
    return row.model_dump(mode="json")


def write_rows(rows: Iterable[Row], file: TextIO) -> int:
    """Write one line of ASCII JSON a row, keys sorted, and return how many."""
    n = 0
    for row in rows:
        file.write(json.dumps(row_json(row), sort_keys=True, ensure_ascii=True, allow_nan=False))
        file.write("\n")
        n += 1
    return n
