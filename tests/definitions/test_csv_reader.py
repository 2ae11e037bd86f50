"""What the strict CSV reader takes, what it refuses, and that no row is passed over in silence."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.definitions.csv_reader import read_csv
from llmops.errors import DefinitionError, RowsError
from tests.definitions.values import TEXT

PATH = "d.csv"


def rows_of(data: str | bytes) -> list[tuple[int, dict[str, object]]]:
    return list(read_csv(io.BytesIO(data if isinstance(data, bytes) else data.encode()), PATH))


def read_until_told(data: str | bytes) -> tuple[list[int], DefinitionError]:
    """Return the lines of the rows that were read, and the error that came."""
    lines: list[int] = []
    stream = io.BytesIO(data if isinstance(data, bytes) else data.encode())
    with pytest.raises(DefinitionError) as caught:
        lines.extend(line for line, _ in read_csv(stream, PATH))
    return lines, caught.value


@given(
    st.lists(st.tuples(TEXT, TEXT, TEXT), min_size=1, max_size=5),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_what_the_standard_library_writes_is_read_back(
    rows: list[tuple[str, str, str]], end: str, quoting: Any
) -> None:
    stream = io.StringIO()
    csv.writer(stream, lineterminator=end, quoting=quoting).writerows([("a", "b", "c"), *rows])
    assert [tuple(row.values()) for _, row in rows_of(stream.getvalue())] == rows


PLAIN = 'id,text\n1,"one, ""quoted"" \u2028 \x85"\n2,\n3,last\n'


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("\ufeff" + PLAIN, id="F57-bom"),
        pytest.param(PLAIN.replace("\n", "\r\n"), id="F57-crlf"),
        pytest.param(PLAIN.replace("\n", "\r"), id="F57-lone-cr"),
        pytest.param(PLAIN.replace("\n2", "\r2"), id="F57-one-lone-cr"),
        pytest.param(PLAIN.removesuffix("\n"), id="F57-no-final-newline"),
        pytest.param("\n" + PLAIN.replace("\n", "\n\n \r\n"), id="blank-lines"),
    ],
)
def test_line_ends_bom_and_blank_lines_leave_the_rows_as_they_are(text: str) -> None:
    assert [row for _, row in rows_of(text)] == [
        {"id": "1", "text": 'one, "quoted" \u2028 \x85'},
        {"id": "2", "text": ""},
        {"id": "3", "text": "last"},
    ]


def test_line_ends_inside_quotes_belong_to_the_cell_and_count_as_lines() -> None:
    assert rows_of('id,text\n1,"a\nb\r\nc"\n2,x\n') == [
        (2, {"id": "1", "text": "a\nb\r\nc"}),
        (5, {"id": "2", "text": "x"}),
    ]


def test_a_cell_of_a_million_characters_is_read_whatever_other_libraries_set() -> None:  # F63
    long = "x" * 10**6
    assert csv.field_size_limit() < len(long)
    plain, quoted = rows_of(f'a,b\n1,{long}\n2,"{long}\n{long}"\n')
    assert plain[1]["b"] == long
    assert quoted[1]["b"] == f"{long}\n{long}"
    assert csv.field_size_limit() < len(long)


def test_a_hundred_thousand_columns_are_read() -> None:  # F63
    names = [f"c{number}" for number in range(10**5)]
    ((_, row),) = rows_of(",".join(names) + "\n" + ",".join(names) + "\n")
    assert list(row.values()) == names


def test_no_data_and_a_header_alone_are_no_rows() -> None:  # F64
    assert rows_of("") == rows_of("a,b\n") == rows_of("\ufeffa,b") == []


@pytest.mark.parametrize(
    ("line", "column", "message"),
    [
        pytest.param("1,x,y", None, "3 cells, and the header names 2 columns", id="F60-too-many"),
        pytest.param("1", None, "1 cell, and the header names 2 columns", id="F60-too-few"),
        pytest.param('1,12" wide', 5, "a quote inside a cell that begins without one", id="F58-stray-quote"),
        pytest.param('"1"x,y', 4, "text between a closing quote and the next comma", id="F58-after-quote"),
        pytest.param("1,x\0", 4, "a NUL byte (byte 16)", id="F66-NUL"),
    ],
)
def test_a_bad_row_is_named_with_its_place_and_the_others_are_read(
    line: str, column: int | None, message: str
) -> None:
    lines, error = read_until_told(f"id,text\n0,é\n{line}\n3,last\n")
    assert lines == [2, 4]
    (finding,) = error.findings
    assert (finding.path, finding.line, finding.column) == (PATH, 3, column)
    assert message in finding.message
    assert finding.hint is not None
    assert isinstance(error, RowsError)
    assert error.n_rows == 1


def test_a_fault_on_a_later_line_of_a_cell_is_named_where_it_stands() -> None:
    lines, error = read_until_told('a,b\n1,"x\nyy"z\n2,ok\n')
    assert lines == [4]
    assert (error.findings[0].line, error.findings[0].column) == (3, 4)


@pytest.mark.parametrize(
    ("data", "place", "message"),
    [
        ("id,t\n1,é\n2,x\n".encode("latin-1"), (2, 3), "byte 7 (0xE9) is not UTF-8"),
        ("id,t\n1,ä\n2,x".encode() + b"\xff\n", (3, 4), "byte 13 (0xFF) is not UTF-8"),
        (b'id,t\n1,"x\ny\xff"\n', (3, 2), "byte 11 (0xFF) is not UTF-8"),
        ("id,t\n".encode("utf-16"), (1, 1), "UTF-16 or UTF-32"),
        (b"id,t\xff\n1,x\n", (1, 5), "byte 4 (0xFF) is not UTF-8"),
    ],
)
def test_csv_that_is_not_utf_8_names_the_byte(
    data: bytes, place: tuple[int, int], message: str
) -> None:  # F66
    _, error = read_until_told(data)
    assert (error.findings[0].line, error.findings[0].column) == place
    assert message in error.findings[0].message


def test_a_header_that_cannot_be_read_is_not_passed_over_for_the_next_line() -> None:
    lines, error = read_until_told(b"id,t\xff\n1,x\n2,y\n")
    assert lines == []
    assert not isinstance(error, RowsError)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("id;text", "separated by semicolons, not by commas"),
        ("id\ttext", "separated by tabs"),
        ("id|text", "separated by bars"),
        (",id", "column 1 has no name"),
        ("id,text,id", "columns 1 and 3 are both called 'id'"),
    ],
)
def test_a_header_that_does_not_name_the_columns_is_refused(header: str, message: str) -> None:  # F60
    lines, error = read_until_told(f"{header}\n1,2,3\n")
    assert lines == []
    assert message in error.findings[0].message
    assert not isinstance(error, RowsError)


def test_a_quote_that_is_never_closed_is_named_where_it_opens_and_refuses_the_file() -> None:  # F58
    lines, error = read_until_told('a,b\n1,x\n2,"y\n3,z\n4,w\n')
    assert lines == [2]
    assert str(error).startswith(f"{PATH}:3:3: this quote is never closed")
    assert not isinstance(error, RowsError)


def test_a_quote_that_takes_in_too_much_is_refused_before_memory_is_full() -> None:
    _, error = read_until_told(b'a,b\n1,"' + (b"x" * (1 << 20) + b"\n") * 65)
    assert "not closed within 64 million characters" in str(error)


@pytest.mark.parametrize("text", ['a,b\n1,x\n2,"y', "a,b\n1,x\n2", 'a,b\n1,x\n"2'])
def test_half_a_line_at_the_end_is_called_so(text: str) -> None:  # F58
    lines, error = read_until_told(text)
    assert lines == [2]
    assert error.findings[0].line == 3
    assert error.findings[0].message.startswith("half a line")
    assert isinstance(error, RowsError)


def test_twenty_bad_rows_are_listed_and_the_others_counted() -> None:
    _, error = read_until_told("a,b\n" + "1\n" * 50)
    assert len(error.findings) == 21
    assert error.findings[-1].message == "and 30 more like these"
    assert isinstance(error, RowsError)
    assert (error.n_rows, error.n_unlisted) == (50, 30)


SCRAPS = ["a", '"', '""', ",", "\r", "é", '"x"', '"x,y"', " "]


@given(st.lists(st.lists(st.sampled_from(SCRAPS), max_size=6).map("".join), max_size=8))
def test_each_line_outside_quotes_is_read_or_reported(lines: list[str]) -> None:
    text = "a,b\n" + "\n".join(lines) + "\n"
    seen: list[int] = []
    reported: set[int | None] = set()
    try:
        seen.extend(line for line, _ in read_csv(io.BytesIO(text.encode()), PATH))
    except DefinitionError as error:
        reported = {finding.line for finding in error.findings}
    assert len(set(seen)) == len(seen)
    assert sorted(seen) == seen
    if '"' not in text and "\r" not in text:
        assert set(seen) | reported == {number for number, line in enumerate(lines, 2) if line.strip()}
    if not reported:
        expected = [
            row
            for row in csv.reader(io.StringIO(text, newline=""), strict=True)
            if "".join(row).strip() or len(row) > 1
        ]
        assert len(seen) == len(expected) - 1
