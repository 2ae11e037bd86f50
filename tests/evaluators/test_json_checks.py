"""What counts as JSON, and as JSON of the right shape."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from llmops.definitions.json_schema import full_validator
from llmops.evaluators import open_evaluator
from llmops.evaluators.json_checks import parse_json
from llmops.records import Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmops.evaluators.base import Judgement

    Judge = Callable[..., Judgement]

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("ab1_"),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("ab1_", max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)


@pytest.mark.parametrize(
    "output",
    [
        '{"a": [1, 2.5e3, true, null, "x"]}',
        " 3 ",
        '"text"',
        "null",
        '"\\ud800"',
        {"a": 1},
        [1],
        3,
        True,
        None,
    ],
)
def test_json_and_what_is_already_a_value_is_valid(judge: Judge, output: Any) -> None:
    found = judge("json_valid", output)
    assert (found.value, found.rationale) == (1, None)


@pytest.mark.parametrize(
    ("output", "rationale"),
    [
        ("", "no JSON at line 1 column 1"),
        ('{"a": 1,\n "b": }', "no JSON at line 2 column 7"),
        ("{'a': 1}", "no JSON at line 1 column 2"),
        ('{"a": 1} and more', "no JSON at line 1 column 10: Extra data"),
        ("\ufeff{}", "no JSON at line 1 column 1"),
        ("NaN", "NaN is no JSON number"),
        ("[-Infinity]", "-Infinity is no JSON number"),
        ("1e999", "the number 1e999 is out of range"),
        ("7" * 5000, "an integer of 5000 digits is out of range"),
        ("[" * 100_000, "nested too deeply to be read"),
        ("```json\n{}\n```", "column 1: Expecting value; it stands in a Markdown fence"),
    ],
)
def test_what_is_no_json_says_where_it_stops(judge: Judge, output: str, rationale: str) -> None:
    for found in (judge("json_valid", output), judge("json_schema", output, schema={})):
        assert found.value == 0
        assert found.rationale is not None
        assert rationale in found.rationale


@pytest.mark.parametrize("kind", ["json_valid", "json_schema"])
def test_a_truncated_output_is_said_to_be_cut_off_rather_than_wrong(judge: Judge, kind: str) -> None:
    options: dict[str, Any] = {} if kind == "json_valid" else {"schema": {}}
    cut = judge(kind, '{"a": [1, 2', status=Status.TRUNCATED, **options)
    assert cut.value == 0
    assert cut.rationale == "cut off before its end (truncated), so it is no whole JSON"
    assert judge(kind, '{"a": [1, 2]}', status=Status.TRUNCATED, **options).value == 1


@settings(deadline=None)
@given(JSON_VALUES)
def test_parsing_gives_back_what_was_written(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value


@settings(deadline=None)
@given(st.text(st.characters(), max_size=30) | st.text('{}[]",:0123456789.eE-+ntf', max_size=30))
def test_parsing_agrees_with_python_but_for_numbers_that_are_not_finite(text: str) -> None:
    try:
        theirs = json.loads(text)
    except ValueError:
        theirs = None
    try:
        ours = parse_json(text)
    except ValueError as error:
        assert str(error)
        assert theirs is None or not all(map(math.isfinite, _floats(theirs)))
    else:
        assert ours == theirs


def _floats(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for part in value.values() for number in _floats(part)]
    if isinstance(value, list):
        return [number for part in value for number in _floats(part)]
    return [value] if isinstance(value, float) else []


TICKET = {
    "type": "object",
    "properties": {
        "team": {"enum": ["billing", "shipping"]},
        "id": {"type": "string", "pattern": "^T-[0-9]+$"},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}},
    },
    "required": ["team"],
    "patternProperties": {"^x-": {"type": "number"}},
    "additionalProperties": False,
    "$defs": {"line": {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}}},
}


@pytest.mark.parametrize(
    ("value", "problems"),
    [
        ({"team": "billing", "id": "T-1", "x-note": 3, "lines": [{"n": 2}]}, None),
        ({}, "at the top: 'team' is a required property"),
        ([], "at the top: [] is not of type 'object'"),
        ({"team": "legal"}, "at /team: 'legal' is not one of ['billing', 'shipping']"),
        ({"team": "billing", "id": "1"}, "at /id: '1' does not match '^T-[0-9]+$'"),
        ({"team": "billing", "x-note": "a"}, "at /x-note: 'a' is not of type 'number'"),
        (
            {"team": "billing", "lines": [{"n": 1}, {"n": 0}]},
            "at /lines/1/n: 0 is less than the minimum of 1",
        ),
        (
            {"team": "billing", "teem": 1},
            "at the top: Additional properties are not allowed ('teem' was unexpected)",
        ),
    ],
)
def test_a_schema_says_what_does_not_fit_and_where(judge: Judge, value: Any, problems: str | None) -> None:
    for output in (value, json.dumps(value)):
        found = judge("json_schema", output, schema=TICKET)
        assert (found.value, found.rationale) == (float(problems is None), problems)
        assert found.parts == {"parsed": 1}


def test_many_problems_are_counted_and_a_long_value_is_cut(judge: Judge) -> None:
    found = judge("json_schema", ["x" * 1000] * 5, schema={"items": {"type": "number"}})
    assert found.rationale is not None
    assert found.rationale.endswith("is not of type 'number'; and 2 more")
    assert found.rationale.startswith("at /0: …xxx")
    assert len(found.rationale) < 700


def test_what_is_no_json_did_not_parse(judge: Judge) -> None:
    assert judge("json_schema", "{", schema=TICKET).parts == {"parsed": 0}


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "strng"}, r"the schema is wrong at \$\.type: 'strng'"),
        ({"properties": {"a": {"minimum": "1"}}}, r"wrong at \$\.properties\.a\.minimum"),
        ({"$ref": "https://example.com/x.json"}, "'https://example.com/x.json' is not in the schema"),
        ({"items": {"$ref": "file:///etc/passwd"}}, "no schema is fetched"),
        ({"allOf": [{"$ref": "#/$defs/none"}]}, "'#/\\$defs/none' is not in the schema"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "must be of Draft 2020-12"),
        ({"properties": {"a": {"pattern": "(?=x)"}}}, "uses look-ahead"),
        ({"patternProperties": {"(a)\\1": {}}}, "uses backreferences"),
        ({"patternProperties": {"a": {}}, "unevaluatedProperties": False}, "is not supported"),
        (
            {"$defs": {"a": {"$id": "urn:a", "$schema": "urn:b"}}},
            r"only the top of a schema may say \$schema",
        ),
        ("object", "valid dictionary"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused_at_its_key(schema: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        open_evaluator("json_schema", {"schema": schema})
    assert caught.value.errors()[0]["loc"] == ("schema",)


@pytest.mark.parametrize(
    "schema",
    [
        {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$ref": "#/$defs/n",
            "$defs": {"n": {"type": "null"}},
        },
        {"$id": "urn:t", "$ref": "urn:n", "$defs": {"n": {"$id": "urn:n", "type": "null"}}},
        {"$ref": "#n", "$defs": {"n": {"$anchor": "n", "type": "null"}}},
    ],
)
def test_references_inside_the_schema_are_followed(judge: Judge, schema: dict[str, Any]) -> None:
    assert judge("json_schema", None, schema=schema).value == 1
    assert judge("json_schema", 3, schema=schema).value == 0


@pytest.mark.parametrize("naming_its_draft", [False, True])
def test_a_pattern_that_would_backtrack_for_ever_ends(judge: Judge, naming_its_draft: bool) -> None:
    draft = {"$schema": "https://json-schema.org/draft/2020-12/schema"} if naming_its_draft else {}
    hostile = "^(a+)+$"
    deep = {"properties": {"next": {"$ref": "#"}, "text": {"pattern": hostile}}}
    keys = {"patternProperties": {hostile: {}}, "additionalProperties": False}
    text = "a" * 5000 + "!"
    assert judge("json_schema", {"next": {"next": {"text": text}}}, schema={**draft, **deep}).value == 0
    assert judge("json_schema", {text: 1}, schema={**draft, **keys}).value == 0


def test_a_recursive_schema_on_deep_nesting_ends(judge: Judge) -> None:
    schema = {"items": {"$ref": "#"}}
    value: Any = 3
    for _ in range(5000):
        value = [value]
    assert judge("json_schema", value, schema=schema).rationale == "nested too deeply to be checked"


PARTS = st.sampled_from([{}, {"type": "number"}, {"type": "string", "pattern": "^a|1"}, {"minLength": 2}])
SCHEMAS = st.fixed_dictionaries(
    {},
    optional={
        "properties": st.dictionaries(st.text("ab1_", max_size=2), PARTS, max_size=2),
        "patternProperties": st.dictionaries(st.sampled_from(["^a", "1$", "_"]), PARTS, max_size=2),
        "additionalProperties": st.booleans() | PARTS,
        "items": PARTS,
    },
)


@settings(deadline=None)
@given(JSON_VALUES, SCHEMAS)
def test_patterns_on_re2_find_what_jsonschema_finds(value: Any, schema: dict[str, Any]) -> None:
    theirs = Draft202012Validator(schema).iter_errors(value)
    ours = full_validator(schema).iter_errors(value)
    assert sorted(map(str, (e.json_path for e in ours))) == sorted(map(str, (e.json_path for e in theirs)))
