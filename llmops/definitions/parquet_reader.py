"""Parquet in, one plain row by column out, in batches; the one module that needs `pyarrow`.

A few kilobytes can claim to be terabytes, so what a file unpacks to is looked at before anything is unpacked, and
counted again while it is. What a row means is left to whoever reads it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import date, time
from decimal import Decimal
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from llmops.definitions.documents import RowFindings, brief, name_findings, refusal
from llmops.errors import DefinitionError, Finding

MAX_INFLATED = 64 << 30
"""Bytes that a file may unpack to: a hundred times the texts of a large dataset."""

MAX_RATIO = 200
"""How many times its own size a file may unpack to; texts reach about ten, columns that repeat one value more."""

SMALL = 256 << 20
"""Bytes that any file may unpack to, however small it is itself."""

_BATCH_ROWS = 256
_BATCH_BYTES = 1 << 30
"""What a batch may come to when every value in it is the largest there can be: such a one is stored but once."""


def read_parquet(data: BinaryIO, path: str) -> Iterator[tuple[int, dict[str, object]]]:
    """Yield the number, from 1, and the values by column of each row that is right; null is None.

    Dates and times are ISO texts, decimals numbers, structs and maps mappings.

    Raises RowsError after the last row when any was wrong, and DefinitionError at once for a file that is damaged,
    unpacks to too much, or has columns that no case can hold.
    """
    problems = RowFindings()
    try:
        yield from _rows(data, path, problems)
    except (pa.ArrowException, OSError, UnicodeDecodeError, OverflowError) as error:
        reason = str(error).partition("\n")[0][:200]
        hint = "write it again, for example with pandas: to_parquet(...)"
        raise DefinitionError(
            Finding(path, None, None, f"this is no Parquet, or damaged: {reason}", hint)
        ) from error
    problems.raise_any()


def _rows(data: BinaryIO, path: str, problems: RowFindings) -> Iterator[tuple[int, dict[str, object]]]:
    size = data.seek(0, 2)
    data.seek(0)
    # Without pre-buffering a batch holds its own pages and not those of its whole row group.
    file = pq.ParquetFile(data, pre_buffer=False, buffer_size=1 << 16, page_checksum_verification=True)
    most = min(MAX_INFLATED, max(SMALL, MAX_RATIO * size))
    groups = [file.metadata.row_group(place) for place in range(file.metadata.num_row_groups)]
    _check_size(sum(map(_declared, groups)), size, most, path)
    plain = _plain_columns(file.schema_arrow, path)
    largest = max((group.total_byte_size for group in groups), default=0)
    n_rows = min(_BATCH_ROWS, max(1, _BATCH_BYTES // max(largest, 1)))
    number = inflated = 0
    for packed in file.iter_batches(batch_size=n_rows):
        batch = _unpacked(packed)
        inflated += batch.nbytes
        _check_size(inflated, size, most, path)
        for values in batch.to_pylist(maps_as_pydicts="strict"):
            number += 1
            faults = _make_plain(values, plain)
            if faults:
                problems.add(*(Finding(path, number, None, fault) for fault in faults))
            else:
                yield number, values


def _declared(group: pq.RowGroupMetaData) -> int:
    """Return the bytes a row group says it unpacks to; a run of one number is stored once and takes eight each.

    Columns are not asked for theirs: pyarrow ends the whole process over some that are damaged.
    """
    return int(group.total_byte_size + 8 * group.num_rows * group.num_columns)


def _unpacked(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch whose columns hold their values themselves, as the count of bytes needs them."""
    columns = [
        column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _check_size(inflated: int, size: int, most: int, path: str) -> None:
    if inflated > most:
        message = f"its {size:,} bytes unpack to {inflated:,} or more, and at most {most:,} are read"
        raise DefinitionError(Finding(path, None, None, message, "split the file, or store it less packed"))


def _make_plain(values: dict[str, Any], plain: dict[str, _Plainer]) -> list[str]:
    """Make a row's values plain in place, and return what is wrong with those that cannot be."""
    faults = []
    for name, make in plain.items():
        if values[name] is not None:
            try:
                values[name] = make(values[name])
            except ValueError as error:
                faults.append(f"column {brief(name)}: {error}")
    return faults


_Plainer = Callable[[Any], object]


def _plain_columns(schema: pa.Schema, path: str) -> dict[str, _Plainer]:
    """Return what makes the values of each column plain, for the columns where something must be done or looked at."""
    found = name_findings(schema.names, path, None)
    plain = {}
    for field in schema:
        is_packed = pa.types.is_dictionary(field.type)
        try:
            make = _plainer(field.type.value_type if is_packed else field.type)
        except ValueError as error:
            found.append(Finding(path, None, None, f"column {brief(field.name)} is {field.type}", str(error)))
            continue
        if make is not None:
            plain[field.name] = make
    if found:
        raise refusal(found)
    return plain


def _plainer(kind: pa.DataType) -> _Plainer | None:
    """Return what makes a value of a type plain, None when it is so already.

    Raises ValueError with what to do about a type that no case can hold.
    """
    types = pa.types
    if types.is_boolean(kind) or types.is_integer(kind) or types.is_null(kind):
        return None
    if types.is_struct(kind):
        return _of_struct(kind)
    if types.is_map(kind):
        return _of_map(kind)
    if any(is_list(kind) for is_list in (types.is_list, types.is_large_list, types.is_fixed_size_list)):
        return _of_list(kind)
    for is_kind, make in _SCALARS:
        if is_kind(kind):
            return make
    raise ValueError(
        _HINTS.get(str(kind).partition("[")[0], "make it text, a number, or a list or struct of them")
    )


def _of_list(kind: pa.DataType) -> _Plainer | None:
    make = _plainer(kind.value_type)
    return make and (lambda value: [None if item is None else make(item) for item in value])


def _of_struct(kind: pa.DataType) -> _Plainer | None:
    makers = {field.name: make for field in kind if (make := _plainer(field.type)) is not None}
    if len({field.name for field in kind}) < kind.num_fields:
        raise ValueError("two of its fields have the same name")

    def make_struct(value: dict[str, Any]) -> object:
        changed = {name: make(value[name]) for name, make in makers.items() if value[name] is not None}
        return {**value, **changed}

    return make_struct if makers else None


def _of_map(kind: pa.DataType) -> _Plainer | None:
    if not _is_text(kind.key_type):
        raise ValueError("make its keys text")
    make = _plainer(kind.item_type)
    return make and (lambda value: {key: None if item is None else make(item) for key, item in value.items()})


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _text(value: str) -> str:
    if "\0" in value:
        raise ValueError("text with a NUL character: databases cannot store it")
    return value


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{value}: infinity and NaN are refused; write null for a value that is absent")
    return float(value)


def _number(value: Decimal) -> int | float:
    """Return the number of a decimal, whole where it is; one that a float cannot tell from others is refused."""
    if value == value.to_integral_value():
        return int(value)
    number = float(value)
    if Decimal(repr(number)) != value:
        raise ValueError(f"the decimal {value} has more digits than a number keeps; make the column text")
    return number


def _iso(value: date | time) -> str:
    return value.isoformat()


_SCALARS: tuple[tuple[Callable[[pa.DataType], bool], _Plainer], ...] = (
    (_is_text, _text),
    (pa.types.is_floating, _finite),
    (pa.types.is_decimal, _number),
    (pa.types.is_date, _iso),
    (pa.types.is_timestamp, _iso),
    (pa.types.is_time, _iso),
)
_HINTS = {
    "binary": "decode it to text; bytes such as an image go into a file or a data URL",
    "large_binary": "decode it to text; bytes such as an image go into a file or a data URL",
    "fixed_size_binary": "decode it to text; bytes such as an image go into a file or a data URL",
    "duration": "make it a number of seconds",
}
