"""Datasets: what becomes a case, what is refused, who goes into which split, and what leaks."""

from __future__ import annotations

import csv
import json
import random
import unicodedata
from collections import Counter
from hashlib import sha256
from io import BytesIO, StringIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.definitions.build import build
from llmops.definitions.case_file import CaseFile
from llmops.definitions.dataset import Case, Dataset, DatasetDefinition, leaks, near_equal, read_cases
from llmops.definitions.yaml_reader import read_yaml
from llmops.errors import DefinitionError
from tests.definitions.values import TEXT, json_values

PATH = "datasets/d.jsonl"


def definition_of(text: str) -> DatasetDefinition:
    return build(DatasetDefinition, read_yaml(text.encode(), "datasets/d.dataset.yaml"))


def jsonl(*rows: dict[str, Any]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def read(data: bytes, **fields: Any) -> Dataset:
    return read_cases("d", BytesIO(data), PATH, DatasetDefinition(**fields))


def told(data: bytes, **fields: Any) -> list[str]:
    with pytest.raises(DefinitionError) as caught:
        read(data, **fields)
    return [str(finding).removeprefix(f"{PATH}:") for finding in caught.value.findings]


def row(case_id: object = "a", **others: Any) -> dict[str, Any]:
    return {"id": case_id, "inputs": {"q": "x"}, **others}


# --- the definition -----------------------------------------------------------------------------------------

DESIGNED = """\
kind: evaluation
inputs: {ticket: string}
expected: {type: string, enum: [billing, shipping]}
columns: {inputs.ticket: text, expected: team}
splits: {by: metadata.split}
slices: {by: metadata.slice, at_least: {essential: 40, average: 80}}
cluster: metadata.customer
license: CC0-1.0
origin: written for this project
"""


def test_the_dataset_of_the_design_is_read_as_written() -> None:
    definition = definition_of(DESIGNED)
    assert definition.slices is not None
    assert definition.slices.at_least == {"essential": 40, "average": 80}
    assert definition.splits == {"by": "metadata.split"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("splits: {by: metadata.a, train: 0.5}", "1:1: splits: write {by: PATH} or shares, not both"),
        ("splits: {train: 0.5, test: 0.6}", "the shares add up to 1.1, not to 1"),
        ("splits: {train: 1.5, test: -0.5}", "a share between 0 and 1"),
        ("splits: {train: a}", "write {by: PATH}, or a share"),
        ("splits: {by: split}", "'split' is no field of a case"),
        ("splits: {a/b: 1.0}", "does not have the form"),
        ("slices: {by: 5}", "by: should be text, not 5"),
        ("slices: {by: slice}", "write metadata.NAME, inputs.NAME, expected or id"),
        ("slices: {by: metadata.s, at_least: {x: 0}}", "should be at least 1, not 0"),
        ("cluster: customer", "1:1: cluster: 'customer' is no field of a case"),
        ("columns: {ticket: text}", "'ticket' is none of id, expected, inputs.NAME, metadata.NAME"),
        ("columns: {expected: team}", "no column is an input"),
        ("kind: few-shot", "did you mean 'few_shot'?"),
        ("clutser: metadata.c", "did you mean 'cluster'?"),
        ("inputs: {a: {type: 5}}", "the schema is wrong"),
    ],
)
def test_a_slip_in_a_definition_is_told(text: str, said: str) -> None:  # F60 F73
    with pytest.raises(DefinitionError) as caught:
        definition_of(text)
    assert said in str(caught.value)


# --- cases --------------------------------------------------------------------------------------------------

ROWS = [
    row("a", expected="yes", metadata={"split": "train", "n": 1}),
    row("b", inputs={"q": "one\u2028two\x85three"}, metadata={"split": "test", "n": 2.5}),
]


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data,
        lambda data: b"\xef\xbb\xbf" + data,
        lambda data: data.replace(b"\n", b"\r\n"),
        lambda data: data.replace(b"\n", b"\r"),
        lambda data: data[:-1],
        lambda data: b"\n\n" + data.replace(b"\n", b"\n  \n"),
    ],
    ids=["plain", "bom", "crlf", "cr", "no newline at the end", "blank lines"],
)
def test_line_ends_and_bom_change_no_case_and_no_version(change: Any) -> None:  # F57
    dataset = read(change(jsonl(*ROWS)), splits={"by": "metadata.split"})
    assert [case.id for case in dataset.cases] == ["a", "b"]
    assert dataset.cases[1].inputs == {"q": "one\u2028two\x85three"}
    assert dataset.split_names == ("test", "train")
    assert dataset.version() == read(jsonl(*ROWS), splits={"by": "metadata.split"}).version()


@given(st.lists(st.dictionaries(st.sampled_from("qrs"), json_values(TEXT)), min_size=1, max_size=4))
def test_every_input_is_kept_exactly(inputs: list[dict[str, Any]]) -> None:  # F62
    rows = [{"id": str(n), "inputs": values, "expected": values} for n, values in enumerate(inputs)]
    cases = read(jsonl(*rows)).cases
    assert json.dumps([[case.inputs, case.expected] for case in cases]) == json.dumps(
        [[v, v] for v in inputs]
    )


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\xef\xbb\xbf", b"\r\n"])
def test_no_cases_are_a_finding(data: bytes) -> None:  # F64
    assert told(data) == [
        " the dataset has no cases\n    write one JSON object a line, with an id and inputs"
    ]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("é".encode("latin-1") + b"\n", "1:1: byte 0 (0xE9) is not UTF-8"),
        (jsonl(row()) + b'{"id": "b\xff"}\n', f"2:10: byte {len(jsonl(row())) + 9} (0xFF) is not UTF-8"),
        ('{"id": "a"}'.encode("utf-16"), "1:1: the file is UTF-16 or UTF-32, not UTF-8 (byte 0)"),
        (jsonl(row()) + b'{"id": "b", "inputs": {"q": "x\x00"}}\n', "a NUL byte"),
        (jsonl(row()) + b'{"id": "b", "inp', "half a line"),
        (b'{"id": "a", "inputs": {"q": 1e999}}\n', "'1e999': infinity and NaN are refused"),
        (b'{"id": "a", "inputs": {"q": NaN}}\n', "infinity and NaN are refused"),
        (b'{"id": "a", "inputs": {"q": ' + b"9" * 5000 + b"}}\n", "a whole number of 5,000 digits"),
        (b'{"id": "a", "inputs": {"q": ' + b"[" * 200 + b"]" * 200 + b"}}\n", "nested more than 100 levels"),
    ],
)
def test_a_file_that_is_not_right_is_told_with_its_place(data: bytes, said: str) -> None:  # F58 F62 F66 F67
    assert any(said in finding for finding in told(data))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"inputs": {"q": "x"}}, "1: the case has no id"),
        (row(""), "1: the case has no id"),
        (row("  "), "1: the case has no id"),
        (row(None), "1: the case has no id"),
        (row(1.5), "1: an id is text or a whole number, not 1.5"),
        (row(True), "an id is text or a whole number, not true"),
        (row(["a"]), "an id is text or a whole number, not a list"),
        ({"id": "a"}, "1: a case has its inputs by name"),
        ({"id": "a", "inputs": "x"}, "a case has its inputs by name"),
        ({"id": "a", "input": {"q": "x"}}, "unknown key 'input'\n    did you mean 'inputs'?"),
        (row(metadata=None), "metadata is an object, not null"),
        (row(inputs={"p": "x"}), "case 'a': input 'p' is not declared"),
        (row(inputs={}), "case 'a': input 'q' is missing"),
        (row(inputs={"q": 5}), "case 'a': input 'q': 5 is not of type string"),
        (row(inputs={"q": None}), "case 'a': input 'q': null is not of type string"),
        (row(expected="no"), "case 'a': expected 'no' is none of 'yes', 'maybe'"),
        (row(), "case 'a': expected is missing"),
        (
            row(expected="yes", metadata={"group": ["x"]}),
            "case 'a': metadata.group is a list, not text or a number",
        ),
        (row(expected="yes", metadata={"group": True}), "metadata.group is true, not text or a number"),
    ],
)
def test_a_case_that_is_not_right_is_told_with_its_line(line: dict[str, Any], said: str) -> None:  # F60 F61
    found = told(
        jsonl(line),
        inputs={"q": "string"},
        expected={"type": "string", "enum": ["yes", "maybe"]},
        cluster="metadata.group",
    )
    assert any(said in finding for finding in found), found


def test_an_expected_null_passes_where_the_schema_has_it() -> None:
    cases = read(jsonl(row(), row("b", expected=None)), expected={"type": ["string", "null"]}).cases
    assert [case.expected for case in cases] == [None, None]


def test_keys_that_start_with_x_are_notes() -> None:
    assert read(jsonl(row(**{"x-note": 1}))).version() == read(jsonl(row())).version()


def test_every_wrong_line_of_a_file_is_told_at_once_in_order() -> None:
    data = jsonl(row("a", inputs={})) + b"{\n" + jsonl(row("c", inputs={})) + b"[]\n"
    assert [line.partition(":")[0] for line in told(data, inputs={"q": "string"})] == ["1", "2", "3", "4"]


def test_twenty_findings_are_listed_and_the_others_counted() -> None:
    found = told(jsonl(*(row(n, inputs={}) for n in range(45))), inputs={"q": "string"})
    assert len(found) == 21
    assert found[-1] == " and 25 more like these"


@pytest.mark.parametrize(
    ("ids", "lines"),
    [
        (["a", "a"], [2]),
        (["a", "A", "b", "a"], [2, 4]),
        (["é", unicodedata.normalize("NFD", "é")], [2]),
        (["É", "é"], [2]),
        ([1, "1"], [2]),
        (["straße", "STRASSE"], [2]),
        (["a", " a "], [2]),
        (["a1", "a2", "a3"], []),
        (["1", "01", 2], []),
    ],
    ids=ascii,
)
def test_ids_that_look_the_same_collide_and_all_collisions_are_told(
    ids: list[Any], lines: list[int]
) -> None:  # F59
    data = jsonl(*map(row, ids))
    if lines:
        found = told(data)
        assert [int(line.partition(":")[0]) for line in found] == lines
        assert all("stands already on line 1" in line for line in found)
    else:
        assert len(read(data).cases) == len(ids)


def test_a_whole_number_as_id_becomes_text() -> None:
    assert [case.id for case in read(jsonl(row(7), row(-1))).cases] == ["7", "-1"]


# --- flat files ---------------------------------------------------------------------------------------------

COLUMNS = {"inputs.ticket": "text", "expected": "team", "metadata.from": "source"}


def test_columns_map_a_flat_line_to_a_case_and_the_others_become_metadata() -> None:
    (case,) = read(
        jsonl({"id": 3, "text": "hi", "team": "x", "source": "mail", "lang": "en"}), columns=COLUMNS
    ).cases
    assert (case.id, case.inputs, case.expected) == ("3", {"ticket": "hi"}, "x")
    assert case.metadata == {"lang": "en", "from": "mail"}


def test_a_column_can_be_the_id() -> None:
    (case,) = read(jsonl({"nr": "n-1", "text": "hi"}), columns={"id": "nr", "inputs.ticket": "text"}).cases
    assert (case.id, case.metadata) == ("n-1", {})


def test_a_renamed_column_is_named_with_its_nearest() -> None:  # F60
    found = told(jsonl({"id": 1, "texts": "hi", "team": "x", "source": "m"}), columns=COLUMNS)
    assert found == ["1: no column is called 'text'\n    did you mean 'texts'?"]


def flat(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return cases as one column a value."""
    return [
        {"id": r["id"], "expected": r["expected"]}
        | {f"inputs.{name}": value for name, value in r["inputs"].items()}
        | {f"metadata.{name}": value for name, value in r["metadata"].items()}
        for r in rows
    ]


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    def text(value: Any) -> str:
        if value is None or isinstance(value, str):
            return value or ""
        return json.dumps(value, ensure_ascii=False)

    stream = StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows({name: text(value) for name, value in row.items()} for row in rows)
    return stream.getvalue().encode()


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    stream = BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), stream)
    return stream.getvalue()


TYPED = {
    "t": "string",
    "i": "integer",
    "x": "number",
    "b": "boolean",
    "l": "array",
    "o": "object",
    "n": {"type": ["integer", "null"]},
}
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
INT64 = st.integers(-(2**63), 2**63 - 1)
TYPED_ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "t": TEXT,
            "i": INT64,
            "x": FLOATS,
            "b": st.booleans(),
            "l": st.lists(INT64, max_size=3),
            "o": st.fixed_dictionaries({"k": TEXT, "f": FLOATS}),
            "n": st.none() | INT64,
        }
    ),
    min_size=1,
    max_size=4,
)


@given(TYPED_ROWS, TEXT.filter(bool))
def test_the_same_cases_in_any_format_have_the_same_version(inputs: list[dict[str, Any]], note: str) -> None:
    rows = [
        {
            "id": f"c{n}",
            "inputs": values,
            "expected": values["i"],
            "metadata": {"note": note, "s": "ab"[n % 2]},
        }
        for n, values in enumerate(inputs)
    ]
    declared: dict[str, Any] = {
        "inputs": TYPED,
        "expected": {"type": "integer"},
        "splits": {"by": "metadata.s"},
        "cluster": "metadata.note",
    }
    found = [
        read_cases("d", BytesIO(data), f"datasets/d{suffix}", DatasetDefinition(**declared))
        for data, suffix in (
            (jsonl(*rows), ".jsonl"),
            (as_csv(flat(rows)), ".csv"),
            (as_parquet(flat(rows)), ".parquet"),
            (as_parquet(rows), ".parquet"),
        )
    ]
    assert {json.dumps([dict(case) for case in dataset.cases], sort_keys=True) for dataset in found} == {
        json.dumps([dict(case) for case in found[0].cases], sort_keys=True)
    }
    for split in (None, "a", "b"):
        assert len({dataset.version(split) for dataset in found}) == 1


def told_of_csv(text: str, **fields: Any) -> list[str]:
    with pytest.raises(DefinitionError) as caught:
        read_cases("d", BytesIO(text.encode()), "d.csv", DatasetDefinition(**fields))
    return [str(finding).removeprefix("d.csv:") for finding in caught.value.findings]


def test_an_empty_cell_is_an_input_that_is_missing_but_for_text() -> None:  # F61
    header = "id,inputs.n,inputs.t\n"
    found = told_of_csv(f"{header}a,,\nb,x,y\n", inputs={"n": "integer", "t": "string"})
    assert found == [
        "2: case 'a': input 'n' is missing",
        "3: case 'b': column 'inputs.n': 'x' is not of type integer",
    ]


def test_a_csv_without_a_mapping_is_told_once_with_the_one_to_write() -> None:  # F60
    (found,) = told_of_csv("nr,ticket\n1,a\n2,b\n", inputs={"ticket": "string"})
    assert found.startswith("1: 'nr', 'ticket': no field of a case")
    assert "columns: {id: nr, inputs.ticket: ticket}" in found


def test_what_was_wrong_before_a_file_breaks_off_is_told_too() -> None:
    found = told_of_csv('id,inputs.q\n,x\nb,"y\n\n\n')
    assert [line.partition(" ")[0] for line in found] == ["2:", "3:3:"]


@pytest.mark.parametrize("path", ["d.jsonl", "d.csv", "d.parquet"])
def test_no_cases_are_a_finding_unless_they_are_allowed(path: str) -> None:  # F64
    empty = {"d.jsonl": b"\n", "d.csv": b"id,inputs.q\n", "d.parquet": as_parquet([])}[path]
    with pytest.raises(DefinitionError, match="the dataset has no cases"):
        read_cases("d", BytesIO(empty), path, DatasetDefinition())
    dataset = read_cases("d", BytesIO(empty), path, DatasetDefinition(), allow_empty=True)
    assert (len(dataset.cases), dataset.split_names, dataset.input_names()) == (0, (), frozenset())
    assert dataset.version() == dataset.version("none") == sha256().hexdigest()


# --- cases that are left out --------------------------------------------------------------------------------


def test_wrong_cases_can_be_left_out_and_are_counted() -> None:  # F58
    bad = b'{"id": "x"}\nnot json\n{"id": "a", "inputs": {"q": 1, "r": 1e999, "s": NaN}}\n'
    data = jsonl(row("a")) + bad + jsonl(row("A"), row("b"), row("b"), row(None))
    dataset = read_cases("d", BytesIO(data), PATH, DatasetDefinition(), skip_bad=True)
    assert [case.id for case in dataset.cases] == ["a", "b"]
    assert dataset.n_skipped == 6
    assert dataset.version() == read(jsonl(row("a"), row("b"))).version()


def test_nothing_left_is_no_dataset() -> None:
    with pytest.raises(DefinitionError, match="no cases"):
        read_cases("d", BytesIO(b"x\n"), PATH, DatasetDefinition(), skip_bad=True)


def test_a_file_that_is_wrong_as_a_whole_cannot_be_left_out() -> None:
    data = b'id,inputs.q\na,x\nb,"y\nc,z\nd,w\n'
    with pytest.raises(DefinitionError, match="never closed"):
        read_cases("d", BytesIO(data), "d.csv", DatasetDefinition(), skip_bad=True)


# --- many cases ---------------------------------------------------------------------------------------------


def test_many_cases_behave_as_few_do() -> None:  # F65
    rows = [row(f"c{n}", metadata={"s": "ab"[n % 2]}) for n in range(9000)]
    rows[2000]["id"] = "C7"
    dataset = read_cases(
        "d", BytesIO(jsonl(*rows)), PATH, DatasetDefinition(splits={"by": "metadata.s"}), skip_bad=True
    )
    assert dataset.n_skipped == 1
    assert isinstance(dataset.cases, CaseFile)
    assert dataset.of("a") is dataset.of("a")
    kept = [one["id"] for one in rows if one["id"] != "C7"]
    assert [case.id for case in dataset.cases] == kept
    assert [case.id for case in dataset.of("b")] == [f"c{n}" for n in range(1, 9000, 2)]
    for split in (None, "a", "b"):
        keys = "".join(case.key() for case in dataset.of(split))
        assert dataset.version(split) == sha256(keys.encode()).hexdigest()
    with pytest.raises(DefinitionError) as caught:
        read(jsonl(*rows))
    assert [str(finding) for finding in caught.value.findings] == [
        f"{PATH}:2001: id 'C7' stands already on line 8 as 'c7': they differ only in case, form or spaces\n"
        "    ids are unique"
    ]


# --- splits and slices --------------------------------------------------------------------------------------


def test_cases_go_where_their_metadata_says() -> None:
    dataset = read(jsonl(*ROWS, row("c")), splits={"by": "metadata.split"}, slices={"by": "metadata.n"})
    assert [case.id for case in dataset.of("train")] == ["a"]
    assert [case.split for case in dataset.cases] == ["train", "test", None]
    assert [case.slice for case in dataset.cases] == ["1", "2.5", None]
    assert dataset.of(None) == dataset.cases


def test_a_blank_cluster_is_none() -> None:
    dataset = read(jsonl(row("a", metadata={"c": " "}), row("b", metadata={"c": ""})), cluster="metadata.c")
    assert [case.cluster for case in dataset.cases] == [None, None]


SHARES = {"train": 0.7, "dev": 0.1, "test": 0.2}


def clustered(n: int) -> list[dict[str, Any]]:
    return [row(f"c{i}", metadata={"k": f"k{i % 97}"} if i % 3 else {}) for i in range(n)]


def test_shares_by_hash_come_close_to_what_was_asked() -> None:
    counts = Counter(case.split for case in read(jsonl(*(row(n) for n in range(3000))), splits=SHARES).cases)
    assert set(counts) == set(SHARES)
    for name, share in SHARES.items():
        assert abs(counts[name] / 3000 - share) < 0.03


def test_a_cluster_goes_into_one_split_as_a_whole() -> None:
    cases = read(jsonl(*clustered(600)), splits=SHARES, cluster="metadata.k").cases
    splits: dict[str | None, set[str | None]] = {}
    for case in cases:
        splits.setdefault(case.cluster, set()).add(case.split)
    assert all(len(found) == 1 for cluster, found in splits.items() if cluster is not None)
    assert len(splits[None]) == 3


@given(st.randoms(use_true_random=False), st.integers(1, 40))
def test_shares_by_hash_are_stable(order: random.Random, n: int) -> None:
    rows = clustered(60)
    before = {case.id: case.split for case in read(jsonl(*rows), splits=SHARES, cluster="metadata.k").cases}
    order.shuffle(rows)
    turned = dict(reversed(SHARES.items()))
    after = read(jsonl(*rows[:n], row("new")), splits=turned, cluster="metadata.k").cases
    assert all(before[case.id] == case.split for case in after if case.id != "new")


def test_the_inputs_of_a_dataset_are_the_declared_ones_or_those_all_cases_have() -> None:
    data = jsonl(row("a", inputs={"q": 1, "r": 2}, metadata={"s": "x"}), row("b", inputs={"q": 1}))
    assert read(data).input_names() == {"q"}
    assert read(data, splits={"by": "metadata.s"}).input_names("x") == {"q", "r"}
    assert read(jsonl(row()), inputs={"q": "string"}).input_names() == {"q"}


# --- versions -----------------------------------------------------------------------------------------------

CASE = {
    "id": "a",
    "inputs": {"q": "x"},
    "expected": "y",
    "metadata": {"m": 1},
    "split": "s",
    "slice": "t",
    "cluster": "k",
}


@pytest.mark.parametrize("field", list(CASE))
def test_anything_in_a_case_changes_its_key(field: str) -> None:
    changed = Case(**{**CASE, field: {"q": "z"} if field in {"inputs", "metadata"} else "z"})  # type: ignore[arg-type]
    assert changed.key() != Case(**CASE).key()  # type: ignore[arg-type]
    keeps_output = field in {"expected", "metadata", "split", "slice"}
    assert (changed.input_key() == Case(**CASE).input_key()) is keeps_output  # type: ignore[arg-type]


def test_versions_stay_what_they_were() -> None:
    """Stored runs are found again by these; nothing but a change of the cases may change them."""
    dataset = read(jsonl(*ROWS), splits={"by": "metadata.split"})
    assert dataset.version() == "7606a1364c8a7a0e3f066e53d1ecebea9b47a1453498134b606a0d6c7f53d0e8"
    assert dataset.version("train") == "dcf026f090885129627ebee93f46eaca13264df4a0fc194b18a58f290bffe673"


def test_the_version_of_a_split_knows_its_cases_and_their_order_only() -> None:
    def version(*rows: dict[str, Any]) -> str:
        return read(jsonl(*rows), splits={"by": "metadata.split"}).version("train")

    one, two = row("a", metadata={"split": "train"}), row("b", metadata={"split": "train"})
    other = row("c", metadata={"split": "test"})
    assert version(one, two) == version(one, other, two)
    assert version(one, two) == version({key: one[key] for key in reversed(one)}, two)
    assert (
        len({version(one, two), version(two, one), version(one), version({**one, "expected": 1}, two)}) == 4
    )


# --- leaks --------------------------------------------------------------------------------------------------


def case(case_id: str, text: Any, cluster: str | None = None) -> Case:
    return Case(id=case_id, inputs={"q": text}, cluster=cluster)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("Where is my parcel?", "where is my  PARCEL"),
        ("“Quoted”, he said…", '"quoted" he said.'),
        ("ﬁle", "file"),
        ("a\u2028b", "a b"),
        (["A.", {"k": "B!"}], ["a", {"k": "b"}]),
    ],
)
def test_inputs_that_differ_in_case_spaces_and_punctuation_leak(one: Any, two: Any) -> None:
    assert list(leaks([case("a", one)], [case("b", two)])) == [("a", "b", "same inputs")]


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("3 - 2", "3 + 2"),
        ("-5", "5"),
        (-5, 5),
        ("1.5", "15"),
        ("👍", "👎"),
        ("?", "!"),
        ("", " x"),
        (1, True),
    ],
)
def test_signs_that_mean_something_keep_inputs_apart(one: Any, two: Any) -> None:
    assert list(leaks([case("a", one)], [case("b", two)])) == []


def test_a_cluster_on_both_sides_leaks() -> None:
    found = list(
        leaks(
            [case("a", "x", "k"), case("b", "y")], [case("c", "z", "k"), case("d", "w", "l"), case("e", "v")]
        )
    )
    assert found == [("a", "c", "same cluster 'k'")]


@given(st.lists(TEXT, max_size=5), st.lists(TEXT, max_size=5))
def test_every_evaluated_case_with_a_twin_is_found(shown: list[str], evaluated: list[str]) -> None:
    found = leaks(
        [case(f"s{n}", t) for n, t in enumerate(shown)], [case(f"e{n}", t) for n, t in enumerate(evaluated)]
    )
    forms = [near_equal(text) for text in shown]
    assert [twin for _, twin, _ in found] == [
        f"e{n}" for n, t in enumerate(evaluated) if near_equal(t) in forms
    ]
