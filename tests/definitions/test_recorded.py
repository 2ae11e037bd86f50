"""Files of recorded outputs: what is read, what is refused and where, and an identity that is the outputs' own."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.definitions.recorded import COLUMNS, RecordedFile, RecordedOutput, check_path, read_recorded
from llmops.errors import DefinitionError

ROWS: list[dict[str, Any]] = [
    {"id": "q1", "output": "a, b\nc", "latency_s": 0.5, "input_tokens": 3, "model": "sys-1"},
    {"id": "q2", "output": "1.0", "cost_usd": 0.25, "output_tokens": 7, "ttft_s": 0.125},
    {"id": "q2", "output": "é", "repeat": 1},
    {"id": "q3", "error": "no reply in 60 s"},
]


def jsonl(rows: Sequence[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def as_csv(rows: Sequence[dict[str, Any]], columns: Sequence[str] = COLUMNS) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def parquet(rows: Sequence[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([{name: row.get(name) for name in COLUMNS} for row in rows]), sink)
    return sink.getvalue()


def read(data: bytes, path: str = "o/a.jsonl") -> RecordedFile:
    return read_recorded(io.BytesIO(data), path)


def findings(data: bytes, path: str = "o/a.jsonl") -> list[str]:
    with pytest.raises(DefinitionError) as caught:
        read(data, path)
    return [str(finding).removeprefix(path) for finding in caught.value.findings]


# --- what is read -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "path"),
    [
        (jsonl(ROWS), "a.jsonl"),
        (as_csv(ROWS), "a.csv"),
        (parquet(ROWS), "a.parquet"),
        (as_csv(ROWS), "A.CSV"),
    ],
)
def test_all_formats_give_the_same_outputs_under_the_same_identity(data: bytes, path: str) -> None:
    file = read(data, path)
    assert len(file) == len(ROWS)
    assert file.identity == read(jsonl(ROWS)).identity
    for row in ROWS:
        assert file.find(row["id"], row.get("repeat", 0)) == RecordedOutput(**row)


def test_a_case_or_repeat_without_a_row_has_no_output() -> None:
    file = read(jsonl(ROWS))
    assert file.find("q4", 0) is None
    assert file.find("q1", 1) is None


def test_any_value_of_json_is_an_output() -> None:
    values = ["", 0, False, [], {}, {"a": [1, None]}, 1.5, "\u2028"]
    file = read(jsonl([{"id": str(n), "output": value} for n, value in enumerate(values)]))
    found = [file.find(str(n), 0) for n in range(len(values))]
    assert [None if output is None else output.output for output in found] == values


def test_an_empty_cell_of_a_csv_is_an_empty_answer_and_says_nothing_of_anything_else() -> None:
    file = read(b'id,output,latency_s,error\n1,,,\n2,,0.5,"gone"\n', "a.csv")
    assert file.find("1", 0) == RecordedOutput("1", output="")
    assert file.find("2", 0) == RecordedOutput("2", latency_s=0.5, error="gone")


def test_an_answer_that_came_with_an_error_is_kept() -> None:
    file = read(jsonl([{"id": "1", "output": "half an", "error": "cut off"}]))
    assert file.find("1", 0) == RecordedOutput("1", output="half an", error="cut off")


def test_whole_numbers_are_ids_as_in_a_dataset() -> None:
    assert read(jsonl([{"id": 7, "output": "x"}])).find("7", 0) == RecordedOutput("7", output="x")


def test_notes_of_ones_own_are_passed_over() -> None:
    noted = [{**row, "x-seen": [1], "x-": "y"} for row in ROWS]
    assert read(jsonl(noted)).identity == read(jsonl(ROWS)).identity


# --- identity ---------------------------------------------------------------------------------------------

OUTPUTS = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.text("abé1", min_size=1, max_size=3),
            "output": st.text(max_size=4) | st.integers() | st.booleans(),
        },
        optional={"repeat": st.integers(0, 3), "latency_s": st.floats(0, 9), "model": st.just("m")},
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda row: (row["id"], row.get("repeat", 0)),
).filter(lambda rows: "\0" not in json.dumps(rows) and "\\u0000" not in json.dumps(rows))


@given(OUTPUTS, st.randoms(use_true_random=False))
def test_what_is_read_is_what_stands_there_in_any_order_and_spelling(
    rows: list[dict[str, Any]], order: random.Random
) -> None:
    file = read(jsonl(rows))
    for row in rows:
        assert file.find(row["id"], row.get("repeat", 0)) == RecordedOutput(**row)
    shuffled = [dict(order.sample(list(row.items()), len(row))) for row in order.sample(rows, len(rows))]
    spelled = "\r\n \n".join(json.dumps(row, ensure_ascii=False, indent=None) for row in shuffled)
    assert read(spelled.encode()).identity == file.identity


@pytest.mark.parametrize(
    "changed",
    [{"output": "b"}, {"latency_s": 0.25}, {"repeat": 1}, {"id": "q9"}, {"model": "sys-2"}, {"error": "e"}],
)
def test_whatever_an_output_says_is_part_of_its_identity(changed: dict[str, Any]) -> None:
    assert read(jsonl([{**ROWS[0], **changed}, *ROWS[1:]])).identity != read(jsonl(ROWS)).identity


def test_a_large_file_is_found_again_from_disk() -> None:
    rows = [{"id": f"q{n}", "output": f"{n} " * 40} for n in range(20_000)]
    file = read(jsonl(rows))
    for n in (0, 1, 9_999, 19_999):
        found = file.find(f"q{n}", 0)
        assert found is not None and found.output == f"{n} " * 40


# --- how it fits ------------------------------------------------------------------------------------------


def test_gaps_and_strangers_are_counted_with_the_nearest_spelling() -> None:
    file = read(jsonl([{"id": name, "output": "x"} for name in ("q-1", "q-2", "other", "Q_3", "far away")]))
    cases = [("q-1", True), ("q-2", True), ("q-3", True), ("q-4", True), ("other", False)]
    fit = file.coverage(cases, 1)
    assert (fit.n_rows, fit.n_cells, fit.n_without, fit.n_unknown, fit.n_beyond) == (5, 4, 2, 2, 0)
    assert fit.without == ("q-3", "q-4")
    assert fit.unknown == (("Q_3", None), ("far away", None))
    assert file.coverage([("q-1", True), ("Q-3", True)], 1).unknown[2] == ("Q_3", "did you mean 'Q-3'?")


def test_repeats_are_counted_one_by_one() -> None:
    file = read(jsonl(ROWS))
    fit = file.coverage([("q1", True), ("q2", True), ("q3", True)], 2)
    assert (fit.n_cells, fit.n_without, fit.n_beyond) == (6, 2, 0)
    assert file.coverage([("q2", True)], 1).n_beyond == 1


# --- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"output": "x"}, ":1: the row has no id"),
        ({"id": " ", "output": "x"}, ":1: the row has no id"),
        ({"id": True, "output": "x"}, ":1: an id is text or a whole number, not true"),
        ({"id": ["1"], "output": "x"}, ":1: an id is text or a whole number, not a list"),
        ({"id": "1"}, ":1: '1' has neither an output nor an error"),
        ({"id": "1", "output": None}, "leave the row out, or say in `error` why there is none"),
        ({"id": "1", "output": "x", "latency": 1}, "unknown column 'latency'\n    did you mean 'latency_s'?"),
        ({"id": "1", "output": "x", "score": 1}, "columns: id, output, repeat"),
        ({"id": "1", "output": "x", "latency_s": -1}, "latency_s is -1: it lies between 0 and"),
        ({"id": "1", "output": "x", "latency_s": "fast"}, "latency_s is a number, not the text 'fast'"),
        ({"id": "1", "output": "x", "latency_s": True}, "latency_s is a number, not true"),
        ({"id": "1", "output": "x", "cost_usd": 1e300}, "cost_usd is 1e+300: it lies"),
        ({"id": "1", "output": "x", "output_tokens": 10**400}, "output_tokens is 1000"),
        ({"id": "1", "output": "x", "input_tokens": 1.5}, "input_tokens is a whole number, not 1.5"),
        ({"id": "1", "output": "x", "repeat": -1}, "repeat is -1"),
        ({"id": "1", "output": "x", "model": 4}, "model is text, not 4"),
        ({"id": "1", "error": {"code": 1}}, "error is text, not a mapping"),
        ({"id": "1", "error": ""}, "error is text, not the text ''"),
    ],
)
def test_a_row_that_is_wrong_is_refused_with_its_line(row: dict[str, Any], said: str) -> None:
    assert said in "\n".join(findings(jsonl([row])))


def test_every_wrong_line_is_told_with_what_the_reader_found() -> None:
    data = (
        jsonl(ROWS)
        + b'{"id": 1\n{"id": "q8"}\n{"id": "q1", "output": "again"}\n{"id": "q2", "repeat": 1, "output": 1}\n'
    )
    told = findings(data)
    assert [line.split(": ")[0].split(":")[1] for line in told] == ["5", "6", "7", "8"]
    assert "id 'q1' stands already on line 1" in told[2]
    assert "id 'q2' (repeat 1) stands already on line 3" in told[3]


def test_an_unknown_column_is_told_once() -> None:
    rows = [{**row, "text": "t"} for row in ROWS]
    assert len(findings(jsonl(rows))) == 1
    assert len(findings(as_csv(rows, [*COLUMNS, "text"]), "o/a.csv")) == 1


@pytest.mark.parametrize(
    ("data", "path", "said"),
    [
        (b"", "a.jsonl", ":1: the file has no outputs"),
        (b"id,output\n", "a.csv", ":1: the file has no outputs"),
        (b"case,output\n1,x\n", "a.csv", ":1: there is no column 'id'\n    it has: 'case', 'output'"),
        (b"id,prediction\n1,x\n", "a.csv", "there is no column 'output'"),
        (b"id,output,latency_s\n1,x,0.5s\n", "a.csv", ":2: latency_s is a number, not the text '0.5s'"),
        (b"id,output,latency_s\n1,x,NaN\n", "a.csv", "latency_s is a number, not the text 'NaN'"),
        ("id,output\n1,x\n".encode("utf-16"), "a.csv", "UTF-16"),
        (parquet(ROWS)[:-9], "a.parquet", ""),
    ],
)
def test_a_file_that_is_wrong_as_a_whole_is_refused(data: bytes, path: str, said: str) -> None:
    assert said in "\n".join(findings(data, path))


@pytest.mark.parametrize(
    "path",
    [
        "../a.csv",
        "/a.csv",
        "o\\a.csv",
        "o/a b.csv",
        "o/..%2fa.csv",
        "file:a.csv",
        "nul.csv",
        "",
        "o/a",
        "a.tsv",
    ],
)
def test_a_path_that_leads_out_or_to_nothing_readable_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"no path inside|outputs are read from"):
        check_path(path)


@pytest.mark.parametrize("folder", ["prompts", "chains"])
def test_outputs_do_not_stand_among_prompts_and_chains(folder: str) -> None:
    with pytest.raises(ValueError, match=f"outputs are no {folder}"):
        check_path(f"{folder}/a.jsonl")
    assert check_path(f"outputs/{folder}/a.jsonl") == f"outputs/{folder}/a.jsonl"
