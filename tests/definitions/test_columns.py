"""Where the columns of a flat file go, and what the text in a CSV's cells stands for."""

from __future__ import annotations

from typing import Any

import pytest

from llmops.definitions.columns import Columns
from llmops.errors import DefinitionError


def columns(
    *names: str,
    path: str = "d.csv",
    mapping: dict[str, str] | None = None,
    inputs: dict[str, Any] | None = None,
    expected: dict[str, Any] | None = None,
) -> Columns:
    return Columns(names, path, mapping=mapping or {}, inputs=inputs or {}, expected=expected)


def told(*names: str, **declared: Any) -> str:
    with pytest.raises(DefinitionError) as caught:
        columns(*names, **declared)
    return str(caught.value)


def test_columns_go_where_their_own_names_say() -> None:
    found = columns("id", "inputs.q", "expected", "metadata.lang", "x-note")
    row = {"id": "1", "inputs.q": "hi", "expected": "yes", "metadata.lang": "en", "x-note": "?"}
    assert found.fields(row) == (
        {"id": "1", "inputs": {"q": "hi"}, "expected": "yes", "metadata": {"lang": "en"}},
        [],
    )


def test_a_mapping_says_where_and_the_other_columns_become_metadata() -> None:
    found = columns(
        "nr",
        "text",
        "team",
        "lang",
        "metadata.split",
        mapping={"id": "nr", "inputs.q": "text", "expected": "team"},
    )
    row = {"nr": "1", "text": "hi", "team": "a", "lang": "en", "metadata.split": "test"}
    assert found.fields(row)[0] == {
        "id": "1",
        "inputs": {"q": "hi"},
        "expected": "a",
        "metadata": {"lang": "en", "split": "test"},
    }


def test_nested_columns_of_parquet_are_taken_as_they_are() -> None:
    found = columns("id", "inputs", "metadata", path="d.parquet")
    fields, _ = found.fields({"id": "1", "inputs": {"q": "x", "r": None}, "metadata": None})
    assert fields == {"id": "1", "inputs": {"q": "x"}, "expected": None, "metadata": {}}


@pytest.mark.parametrize(
    ("names", "declared", "said"),
    [
        (
            ("ticket", "team"),
            {"inputs": {"ticket": "string"}},
            ["'ticket', 'team': no field of a case", "columns: {expected: team, id: COLUMN, inputs.ticket: ticket}"],
        ),
        (("nr", "tickets"), {"inputs": {"ticket": "string"}}, ["{id: nr, inputs.ticket: tickets}"]),
        (("id", "question", "answer"), {}, ["{expected: answer, inputs.NAME: question}"]),
        (("id", "my text"), {}, ['{inputs.NAME: "my text"}']),
        (("id", "expected"), {}, ["no column is an input", "inputs.NAME: COLUMN"]),
        (("inputs.q",), {}, ["no column is called id"]),
        (("id", "text"), {"mapping": {"inputs.q": "texts"}}, ["no column is called 'texts'", "did you mean 'text'?"]),
    ],
)  # fmt: skip
def test_columns_that_make_no_case_are_told_with_the_mapping_to_write(
    names: tuple[str, ...], declared: dict[str, Any], said: list[str]
) -> None:  # F60
    found = told(*names, **declared)
    assert all(part in found for part in said), found


def test_ten_columns_are_shown_of_a_hundred_thousand() -> None:  # F63
    assert len(told(*(f"c{n}" for n in range(10**5)))) < 1000


def cell(text: str, kind: Any) -> object:
    found = columns("id", "inputs.v", inputs={"v": kind})
    fields, faults = found.fields({"id": "1", "inputs.v": text})
    return faults[0].removeprefix("column 'inputs.v': ") if faults else fields["inputs"].get("v", "(absent)")


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("007", "string", "007"),
        ("", "string", ""),
        (" true ", "any", " true "),
        ("", "any", None),
        ("", "integer", "(absent)"),
        ("  ", "number", "(absent)"),
        ("", {"type": ["integer", "null"]}, None),
        ("", {"type": ["string", "null"]}, ""),
        ("-5", "integer", -5),
        ("5.0", "integer", 5),
        ("9" * 4300, "integer", int("9" * 4300)),
        (" 5 ", "number", 5),
        ("1e3", "number", 1000.0),
        (".5", "number", 0.5),
        ("TRUE", "boolean", True),
        ("false", "boolean", False),
        ('{"a": [1, null]}', "object", {"a": [1, None]}),
        ("[1.5]", "array", [1.5]),
        ("2", {"enum": [1, 2]}, 2),
        ("b", {"enum": ["a", "b"]}, "b"),
    ],
)
def test_a_cell_is_what_its_input_is_declared_as(text: str, kind: Any, value: object) -> None:
    found = cell(text, kind)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("x", "integer", "'x' is not of type integer"),
        ("1,5", "number", "write 1.5 for 1,5"),
        ("NaN", "number", "'NaN' is not of type number"),
        ("1e999", "number", "infinity and NaN are refused"),
        ("9" * 4301, "integer", "4300"),
        ("yes", "boolean", "'yes' is not of type boolean"),
        ("{a: 1}", "object", "is no JSON that can be taken"),
        ("[NaN]", "array", "not a finite number"),
        ('{"a": 1, "a": 2}', "object", "a key stands twice"),
        ("[" * 200 + "]" * 200, "array", "nested more than 100 levels deep"),
        ('["\\u0000"]', "array", "NUL"),
    ],
)
def test_a_cell_that_is_not_what_is_declared_is_told(text: str, kind: Any, said: str) -> None:  # F61 F62
    assert said in str(cell(text, kind))


def test_whole_floats_of_parquet_become_the_integers_they_are_declared_as() -> None:
    found = columns("id", "inputs.n", "inputs.x", path="d.parquet", inputs={"n": "integer", "x": "number"})
    inputs = found.fields({"id": "1", "inputs.n": 5.0, "inputs.x": 5.0})[0]["inputs"]
    assert [type(value) for value in inputs.values()] == [int, float]
