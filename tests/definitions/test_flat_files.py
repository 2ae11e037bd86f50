"""One function reads every format, and each gives the same rows."""

from __future__ import annotations

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmops.definitions.flat_files import SUFFIXES, read_rows
from llmops.errors import UsageError

ROWS = [{"id": "a", "text": "one,\u2028two"}, {"id": "b", "text": ""}]


def packed() -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), stream)
    return stream.getvalue()


FILES = {
    "d.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode(),
    "d.csv": 'id,text\na,"one,\u2028two"\nb,\n'.encode(),
    "D.CSV": 'id,text\na,"one,\u2028two"\nb,\n'.encode(),
    "d.parquet": packed(),
}


@pytest.mark.parametrize("path", FILES)
def test_every_format_gives_the_same_rows(path: str) -> None:
    assert [row for _, row in read_rows(io.BytesIO(FILES[path]), path)] == ROWS


def test_another_suffix_is_refused_with_those_that_are_read() -> None:
    with pytest.raises(UsageError) as caught:
        read_rows(io.BytesIO(b""), "d.xlsx")
    assert all(suffix in str(caught.value) for suffix in SUFFIXES)
