"""JSON Schema: our short way agrees with the library, and nothing is fetched or runs away."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from llmops.definitions.json_schema import _plain_fits, check_schema, checker, full_validator, problem_with
from tests.definitions.values import json_values

WORDS = st.sampled_from(["", "a", "b", "ab", "LL-12345", "1"])
VALUES = json_values(WORDS) | st.sampled_from([0, 1, 1.0, True, False, 2, 2.5, None, [1], [True], {"a": 1}])
TYPES = st.sampled_from(["string", "number", "integer", "boolean", "array", "object", "null"])


def schemas(depth: int) -> st.SearchStrategy[dict[str, Any]]:
    keywords: dict[str, st.SearchStrategy[Any]] = {
        "type": TYPES | st.lists(TYPES, min_size=1, max_size=3, unique=True),
        "enum": st.lists(VALUES, max_size=4),
        "required": st.lists(WORDS, max_size=2, unique=True),
        "additionalProperties": st.booleans(),
        "minimum": st.integers(-3, 3) | st.floats(-3, 3),
        "maximum": st.integers(-3, 3),
        "pattern": st.sampled_from(["^a", "b$", "^LL-[0-9]{5}$", ""]),
        "description": WORDS,
    }
    if depth:
        inner = schemas(depth - 1)
        keywords |= {"properties": st.dictionaries(WORDS, inner, max_size=3), "items": inner}
    return st.fixed_dictionaries({}, optional=keywords)


@settings(max_examples=300)
@given(schemas(2), VALUES)
def test_what_fits_by_the_short_way_is_what_the_library_lets_pass(schema: dict[str, Any], value: Any) -> None:
    check_schema(schema)
    fits = _plain_fits(schema)
    assert fits is not None
    assert fits(value) is Draft202012Validator(schema).is_valid(value)


@given(schemas(1), VALUES)
def test_a_problem_is_told_exactly_when_a_value_does_not_fit(schema: dict[str, Any], value: Any) -> None:
    told = problem_with(value, schema)
    assert (told is None) is Draft202012Validator(schema).is_valid(value)
    assert told is None or 0 < len(told) < 400


ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | WORDS | TYPES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=2),
    max_leaves=5,
)


@settings(max_examples=300)
@given(
    st.dictionaries(
        st.sampled_from(
            ["type", "enum", "required", "additionalProperties", "minimum", "properties", "items", "title"]
        ),
        ODD,
        max_size=3,
    )
)
def test_a_schema_the_short_way_takes_is_right_by_the_draft(schema: dict[str, Any]) -> None:
    if _plain_fits(schema) is not None:
        Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": ["string", "nul"]}, r"wrong at \$\.type"),
        ({"type": []}, r"wrong at \$\.type"),
        ({"enum": 5}, r"wrong at \$\.enum"),
        ({"required": "a"}, r"wrong at \$\.required"),
        ({"minimum": "1"}, r"wrong at \$\.minimum"),
        ({"properties": {"a": {"type": 5}}}, r"wrong at \$\.properties\.a\.type"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "must be of Draft 2020-12"),
        ({"$ref": "http://127.0.0.1:1/x"}, "no schema is fetched"),
        ({"$ref": "#/$defs/nothing"}, "is not in the schema"),
        ({"items": {"$schema": "https://json-schema.org/draft/2020-12/schema"}}, "only the top"),
        ({"pattern": "(?<=a)b"}, "look-behind"),
        ({"properties": {"a": {"pattern": "("}}}, "wrong"),
    ],
)
def test_a_schema_that_is_wrong_or_reaches_beyond_itself_is_refused(
    schema: dict[str, Any], said: str
) -> None:  # S14
    with pytest.raises(ValueError, match=said):
        check_schema(schema)


@pytest.mark.parametrize(
    ("value", "schema", "said"),
    [
        (5, {"type": "string"}, "5 is not of type string"),
        (None, {"type": "object"}, "null is not of type object"),
        ("c", {"enum": ["a", "b", None, True]}, "'c' is none of 'a', 'b', null, true"),
        (True, {"enum": [1, 0]}, "true is none of 1, 0"),
        (
            {"a": {"b": 5}},
            {"properties": {"a": {"properties": {"b": {"type": "string"}}}}},
            "a.b: 5 is not of type",
        ),
        ({}, {"required": ["a"]}, "'a' is a required property"),
        ("x" * 999, {"pattern": "^y"}, "does not match '^y'"),
    ],
)
def test_a_misfit_is_told_in_a_sentence(value: object, schema: dict[str, Any], said: str) -> None:  # F61
    told = problem_with(value, schema)
    assert told is not None
    assert said in told
    assert len(told) < 300


def test_a_pattern_that_would_backtrack_for_ever_ends() -> None:  # S17
    problem = checker({"pattern": "^(a+)+$"})
    assert problem("a" * 50_000 + "!") is not None


def test_nesting_too_deep_for_the_library_is_told() -> None:  # F67
    value: Any = 3
    for _ in range(5000):
        value = [value]
    assert problem_with(value, {"items": {"$ref": "#"}}) == "nested too deeply to be checked"


def test_a_reference_inside_a_schema_is_followed() -> None:
    schema = {"$defs": {"text": {"type": "string"}}, "properties": {"a": {"$ref": "#/$defs/text"}}}
    check_schema(schema)
    assert problem_with({"a": "x"}, schema) is None
    assert problem_with({"a": 5}, schema) == "a: 5 is not of type 'string'"
    assert not list(full_validator(schema).iter_errors({"a": "x"}))


def test_what_most_schemas_say_is_checked_without_the_library() -> None:
    code = (
        "import sys; from llmops.definitions.json_schema import check_schema, problem_with\n"
        "schema = {'type': 'object', 'required': ['a'], 'properties': {'a': {'type': ['string', 'null']}}}\n"
        "check_schema(schema); assert problem_with({'a': None}, schema) is None\n"
        "assert problem_with(5, schema) == '5 is not of type object'\n"
        "print([name for name in ('jsonschema', 're2', 'referencing') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
