"""What the strict JSONL reader takes, what it refuses, and that no line is passed over in silence."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmops.definitions.jsonl_reader import read_jsonl
from llmops.errors import DefinitionError, Finding
from tests.definitions.values import TEXT, json_values


def rows_of(data: str | bytes) -> list[dict[str, object]]:
    return [row for _, row in read_jsonl(data if isinstance(data, bytes) else data.encode(), "d.jsonl")]


def jsonl_findings(data: str | bytes) -> tuple[Finding, ...]:
    with pytest.raises(DefinitionError) as caught:
        rows_of(data)
    return caught.value.findings


def jsonl_finding(data: str | bytes) -> Finding:
    (finding,) = jsonl_findings(data)
    assert finding.path == "d.jsonl"
    return finding


@settings(deadline=None)
@given(
    st.lists(st.dictionaries(TEXT, json_values(TEXT), max_size=3)),
    st.booleans(),
    st.sampled_from(["\n", "\r\n"]),
)
def test_jsonl_written_and_read_is_the_same(rows: list[dict[str, Any]], ascii_only: bool, end: str) -> None:
    text = "".join(json.dumps(row, ensure_ascii=ascii_only) + end for row in rows)
    assert json.dumps(rows_of(text)) == json.dumps(rows)


JSON_SCRAPS = [
    '{"a": 1}',
    '{"a": ',
    "{",
    "}",
    "[",
    '"',
    ", ",
    "1e999",
    "NaN",
    "\\ud800",
    "\\u0000",
    "9" * 4301,
    "\r",
]


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.lists(st.sampled_from(JSON_SCRAPS) | st.text(max_size=3), max_size=6).map("".join), max_size=9
    )
)
def test_each_line_is_yielded_or_reported_and_none_is_lost(lines: list[str]) -> None:
    data = "\n".join(line.replace("\n", " ") for line in [*lines, "{}"]).encode("utf-8", "surrogatepass")
    expected = {number for number, line in enumerate(data.split(b"\n"), 1) if line.strip()}
    seen: set[int] = set()
    try:
        for number, _ in read_jsonl(data, "d.jsonl"):
            seen.add(number)
    except DefinitionError as error:
        if data.count(b"\0") * 3 <= len(data[:200]):
            reported = {finding.line for finding in error.findings if finding.line}
            assert not seen & reported
            assert seen | reported == expected
    else:
        assert seen == expected


LINE_SEPARATOR, NEXT_LINE = "\u2028", "\x85"

ROWS = [{"id": "ä", "text": f"one{LINE_SEPARATOR}two{NEXT_LINE}three"}, {"id": "b", "n": [1.5, 10**30]}, {}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(LINES, id="F57-as-it-is"),
        pytest.param("\ufeff" + LINES, id="F57-bom"),
        pytest.param(LINES.replace("\n", "\r\n"), id="F57-crlf"),
        pytest.param(LINES.replace("\n", "\r"), id="F57-lone-cr-as-line-end"),
        pytest.param(LINES.replace(": ", ":\r"), id="F57-lone-cr-as-space"),
        pytest.param(LINES.rstrip("\n"), id="F57-no-final-newline"),
        pytest.param("\n \r\n" + LINES.replace("\n", "\n\t\n\n"), id="blank-lines"),
    ],
)
def test_line_ends_bom_and_blank_lines_leave_the_rows_as_they_are(text: str) -> None:
    assert rows_of(text) == ROWS


def test_rows_come_with_the_numbers_of_their_lines() -> None:
    assert list(read_jsonl(b'\n{"a": 1}\n\r\n{"a": 2}', "d.jsonl")) == [(2, {"a": 1}), (4, {"a": 2})]


def test_no_data_is_no_rows() -> None:
    assert rows_of(b"") == rows_of(b"\xef\xbb\xbf\n") == []


@pytest.mark.parametrize(
    ("line", "column", "message"),
    [
        pytest.param('{"a": 1,, "b": 2}', 9, "a key in double quotes", id="F58-comma"),
        pytest.param('{"a": }', 7, "a value was expected", id="F58-no-value"),
        pytest.param('{"a" 1}', 6, "':' was expected", id="F58-no-colon"),
        pytest.param('{"a": 1 "b": 2}', 9, "',' was expected", id="F58-no-comma"),
        pytest.param("{'a': 1}", 2, "a key in double quotes", id="F58-single-quotes"),
        pytest.param('{"a": "x\ty"}', 9, "control character", id="F58-tab-in-text"),
        pytest.param('{"a": "\\x"}', 8, "an unknown escape", id="F58-escape"),
        pytest.param('{"a": 1} {"a": 2}', 10, "more than one value", id="F58-two-on-a-line"),
        pytest.param("[1]", 1, "no JSON object", id="F58-list"),
        pytest.param("  12", 3, "no JSON object", id="F58-number"),
        pytest.param('{"a": NaN}', 7, "'NaN'", id="F62-nan"),
        pytest.param('{"a": [1, -Infinity]}', 11, "'-Infinity'", id="F62-infinity"),
        pytest.param('{"a": 1e999, "b": -1E+400}', 7, "'1e999'", id="F62-1e999"),
        pytest.param('{"a": ' + "7" * 5000 + "}", 7, "5,000 digits", id="F62-5000-digits"),
        pytest.param('{"a": 1, "b": {"c": 1, "c": 2}}', 24, "'c' stands twice", id="duplicate"),
        pytest.param('{"a": [{}], "\\u0061": 2}', 13, "'a' stands twice", id="duplicate-by-escape"),
        pytest.param('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", 106, "100 levels", id="F67-100000-deep"),
        pytest.param('{"a": ' + "[" * 100 + "]" * 100 + "}", 106, "100 levels", id="F67-101-deep"),
        pytest.param('{"a": "x\\ud800"}', 9, "half a surrogate", id="F27-high-half"),
        pytest.param('{"a": "\\uDE00\\ud83d"}', 8, "half a surrogate", id="F27-halves-swapped"),
        pytest.param('{"\\ud83d\\u0041": 1}', 3, "half a surrogate", id="F27-in-a-key"),
        pytest.param('{"a": "\\\\\\u0000"}', 10, "NUL", id="F66-NUL-escape"),
        pytest.param('{"ä": "x\0y"}', 9, "a NUL byte (byte 18)", id="F66-NUL-byte"),
    ],
)
def test_a_bad_line_is_named_with_line_and_column_and_the_good_ones_are_read(
    line: str, column: int, message: str
) -> None:
    rows: list[int] = []
    with pytest.raises(DefinitionError) as caught:
        rows.extend(number for number, _ in read_jsonl(f'{{"a": 1}}\n{line}\n{{}}\n'.encode(), "d.jsonl"))
    first = caught.value.findings[0]
    assert (first.path, first.line, first.column) == ("d.jsonl", 2, column)
    assert message in first.message
    assert first.hint is not None


@pytest.mark.parametrize("text", ['{"a": 1}\n{"a": "hal', '{"a": 1}\n{"a": [1,', '{"a": 1}\n{"a"'])
def test_half_a_line_at_the_end_is_called_so(text: str) -> None:  # F58
    finding = jsonl_finding(text)
    assert finding.line == 2
    assert finding.message.startswith("half a line")
    assert "cut off" in str(finding)


def test_a_cut_line_elsewhere_is_not_called_the_end() -> None:
    assert "half a line" not in str(jsonl_finding('{"a": "hal\n{"a": 1}\n'))


@pytest.mark.parametrize(
    ("data", "place", "message"),
    [
        pytest.param('{"a": 1}\n{"é": "é'.encode() + b'\xe9"}\n', (2, 9), "byte 19 (0xE9)", id="F66-mixed"),
        pytest.param('{"a": "é"}\n'.encode("latin-1"), (1, 8), "byte 7 (0xE9)", id="F66-latin-1"),
        pytest.param(b'\xef\xbb\xbf{"a": "\xff"}', (1, 8), "byte 10 (0xFF)", id="F66-after-bom"),
        pytest.param(b'{"a": "\xed\xa0\x80"}', (1, 8), "byte 7 (0xED)", id="F27-raw-surrogate"),
        pytest.param('{"a": 1}\n'.encode("utf-16"), (1, 1), "UTF-16", id="F66-utf-16"),
        pytest.param('{"a": 1}\n'.encode("utf-16-le"), (1, 1), "UTF-16", id="F66-utf-16-without-mark"),
    ],
)
def test_jsonl_that_is_not_utf_8_names_the_byte(data: bytes, place: tuple[int, int], message: str) -> None:
    finding = jsonl_finding(data)
    assert (finding.line, finding.column) == place
    assert message in finding.message


def test_what_only_looks_like_a_forbidden_escape_is_taken() -> None:
    assert rows_of(r'{"a": "\\ud800 \\u0000 \ud83d\ude00 \u00e4", "b": "NaN 1e999 {{{ }"}') == [
        {"a": "\\ud800 \\u0000 😀 ä", "b": "NaN 1e999 {{{ }"}
    ]


def test_wide_is_not_deep_and_braces_in_text_are_no_depth() -> None:  # F67
    row = {"a": [[]] * 300, "b": "[" * 300, "c": "{" * 300 + '"'}
    assert rows_of(json.dumps(row)) == [row]


def test_integers_and_floats_in_range_are_kept_exactly() -> None:  # F62
    row = {"big": int("7" * 4300), "far": 10**400, "small": 5e-324, "large": 1.7976931348623157e308}
    assert rows_of(json.dumps(row)) == [row]


def test_a_number_that_this_python_will_not_read_is_reported_all_the_same() -> None:  # F62
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(640)
    try:
        finding = jsonl_finding('{"a": ' + "7" * 1000 + "}")
    finally:
        sys.set_int_max_str_digits(limit)
    assert finding.line == 1


def test_twenty_bad_lines_are_listed_and_the_others_counted() -> None:  # F58
    findings = jsonl_findings("{\n" * 50 + '{"a": 1}\n')
    assert [finding.line for finding in findings] == [*range(1, 21), None]
    assert findings[-1].message == "and 30 more like these"
