"""What becomes of Parquet's types, and what is refused before it is unpacked."""

from __future__ import annotations

import datetime as dt
import io
import random
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmops.definitions.parquet_reader import read_parquet
from llmops.errors import DefinitionError, RowsError

PATH = "d.parquet"


def packed(columns: dict[str, Any], **options: Any) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream, **options)
    return stream.getvalue()


def rows_of(data: bytes) -> list[dict[str, object]]:
    rows = list(read_parquet(io.BytesIO(data), PATH))
    assert [number for number, _ in rows] == list(range(1, len(rows) + 1))
    return [row for _, row in rows]


def told(data: bytes) -> DefinitionError:
    with pytest.raises(DefinitionError) as caught:
        rows_of(data)
    return caught.value


UTC = dt.UTC
DAY = dt.datetime(2026, 1, 2, 3, 4, 5, 678)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        (pa.array([2**63 - 1]), 2**63 - 1),
        (pa.array([2**64 - 1], pa.uint64()), 2**64 - 1),
        (pa.array([0.1]), 0.1),
        (pa.array([0.5], pa.float16()), 0.5),
        (pa.array([True]), True),
        (pa.array(["ä\u2028"]), "ä\u2028"),
        (pa.array(["ä"], pa.large_string()), "ä"),
        (pa.array(["x"]).dictionary_encode(), "x"),
        (pa.array([[1, None]]), [1, None]),
        (pa.array([[DAY.date(), None]]), ["2026-01-02", None]),
        (pa.array([{"a": 1, "b": {"c": [DAY.date()]}}]), {"a": 1, "b": {"c": ["2026-01-02"]}}),
        (pa.array([[("k", 1.5)]], pa.map_(pa.string(), pa.float64())), {"k": 1.5}),
        (pa.array([[("k", DAY.date())]], pa.map_(pa.string(), pa.date32())), {"k": "2026-01-02"}),
        (pa.array([DAY]), "2026-01-02T03:04:05.000678"),
        (pa.array([1], pa.timestamp("ns")), "1970-01-01T00:00:00.000000001"),
        (pa.array([DAY.replace(tzinfo=UTC)]), "2026-01-02T03:04:05.000678+00:00"),
        (pa.array([dt.time(1, 2, 3)]), "01:02:03"),
        (pa.array([Decimal("12.00")]), 12),
        (pa.array([Decimal("12.50")]), 12.5),
        (pa.nulls(1), None),
    ],
    ids=str,
)
def test_a_value_becomes_the_plain_one_that_jsonl_would_hold(column: pa.Array, value: object) -> None:
    (row,) = rows_of(packed({"v": column}))
    assert row == {"v": value}
    assert type(row["v"]) is type(value)


def test_null_is_none_in_every_type() -> None:
    columns = {"t": pa.array(["x", None]), "d": pa.array([DAY, None]), "s": pa.array([{"a": DAY}, None])}
    assert rows_of(packed(columns))[1] == {"t": None, "d": None, "s": None}


@pytest.mark.parametrize(
    ("column", "type_name", "hint"),
    [
        (pa.array([b"x"]), "binary", "decode it to text"),
        (pa.array([b"x"], pa.binary(1)), "fixed_size_binary[1]", "decode it to text"),
        (pa.array([[b"x"]]), "list<element: binary>", "decode it to text"),
        (pa.array([{"b": b"x"}]), "struct<b: binary>", "decode it to text"),
        (pa.array([1], pa.duration("s")), "duration[s]", "make it a number of seconds"),
        (pa.array([[(1, 2)]], pa.map_(pa.int8(), pa.int8())), "map<int8, int8>", "make its keys text"),
    ],
)
def test_a_column_that_no_case_can_hold_is_refused_with_what_to_do(
    column: pa.Array, type_name: str, hint: str
) -> None:
    error = told(packed({"fine": pa.array(["x"]), "v": column}))
    (finding,) = error.findings
    assert finding.message.startswith(f"column 'v' is {type_name.partition('<')[0]}")
    assert finding.hint is not None
    assert hint in finding.hint
    assert not isinstance(error, RowsError)


def test_values_that_cannot_be_stored_are_named_with_row_and_column() -> None:  # F62
    columns = {
        "f": [1.0, float("nan"), float("inf"), 2.0],
        "t": ["x", "y", "z", "a\0b"],
        "d": [Decimal("1"), Decimal("1"), Decimal("1"), Decimal("0.12345678901234567890")],
    }
    error = told(packed(columns))
    assert isinstance(error, RowsError)
    assert error.n_rows == 3
    assert [(finding.line, finding.message.partition(":")[0]) for finding in error.findings] == [
        (2, "column 'f'"),
        (3, "column 'f'"),
        (4, "column 'd'"),
        (4, "column 't'"),
    ]


def test_duplicate_and_empty_column_names_are_refused() -> None:  # F60
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_arrays([pa.array([1])] * 3, names=["a", "", "a"]), stream)
    assert [finding.message for finding in told(stream.getvalue()).findings] == [
        "column 2 has no name",
        "columns 1 and 3 are both called 'a'",
    ]


def test_rows_of_many_batches_and_groups_come_in_order() -> None:
    numbers = list(range(1000))
    assert [row["n"] for row in rows_of(packed({"n": numbers}, row_group_size=300))] == numbers


LONG = "x" * 10**6


@pytest.mark.parametrize(
    ("column", "options"),
    [
        pytest.param(lambda: pa.repeat(LONG, 300), {"use_dictionary": False}, id="said-in-its-metadata"),
        pytest.param(lambda: pa.repeat(LONG, 300), {}, id="each-value-stored-once"),
        pytest.param(
            lambda: pa.DictionaryArray.from_arrays(pa.repeat(0, 300), [LONG]), {}, id="once-to-the-end"
        ),
        pytest.param(lambda: pa.repeat(7, 40_000_000), {}, id="a-run-of-one-number"),
    ],
)
def test_a_file_that_unpacks_to_far_more_than_it_is_is_refused(
    column: Callable[[], pa.Array], options: dict[str, Any]
) -> None:  # F68
    data = packed({"t": column()}, compression="zstd", **options)
    assert len(data) < 10**6
    n_rows = 0
    with pytest.raises(DefinitionError, match="at most 268,435,456 are read"):
        for _ in read_parquet(io.BytesIO(data), PATH):
            n_rows += 1
    assert n_rows <= 256


WHOLE = packed({"id": ["a", "b"], "n": [1, 2], "l": [["x"], ["y", "z"]], "d": [DAY, None]})


@pytest.mark.parametrize(
    "data", [b"", b"id,text\n1,x\n", WHOLE[:-1], WHOLE[: len(WHOLE) // 2], WHOLE[4:], b"PAR1PAR1"]
)
def test_what_is_no_parquet_is_refused_as_such(data: bytes) -> None:  # F66
    error = told(data)
    assert "this is no Parquet, or damaged" in str(error)
    assert not isinstance(error, RowsError)


def test_a_damaged_file_is_read_or_refused_and_nothing_worse() -> None:
    draw = random.Random(5)
    n_refused = 0
    for _ in range(400):
        data = bytearray(WHOLE)
        for _ in range(draw.randint(1, 4)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        try:
            rows_of(bytes(data))
        except DefinitionError:
            n_refused += 1
    assert n_refused > 200
