"""The types that definitions declare for inputs, and the names that templates can look up."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from llmops.definitions.schemas import InputTypes, check_name, problem_with, schema_of
from llmops.definitions.templates import parse_template

INPUTS: TypeAdapter[Any] = TypeAdapter(InputTypes)


@pytest.mark.parametrize("name", ["ticket", "a1", "ticket_text", "größe", "class", "loop"])
def test_an_identifier_that_a_template_finds_is_a_name(name: str) -> None:
    assert check_name(name) == name
    assert name in parse_template(f"{{{{ {name} }}}}").variables


@pytest.mark.parametrize(
    "name",
    [
        *("steps", "output", "expected"),  # what evaluators and chains see
        *("a-b", "1a", "", "a b", "a.b", "a\n", "_a", "__class__", "self", "ﬁ"),
        *(
            "not",
            "and",
            "or",
            "in",
            "is",
            "if",
            "else",
            "true",
            "True",
            "none",
            "None",
        ),  # words of the template
    ],
)
def test_what_a_template_would_read_as_something_else_is_no_name(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be looked up in a template"):
        check_name(name)


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"a-b": "string"}, "cannot be looked up"),
        ({"a": "text"}, "no type is called 'text'; types: string, number"),
        ({"a": {"type": "nothing"}}, "the schema is wrong"),
        ({"a": {"pattern": "(?=x)"}}, "look-ahead"),
    ],
)
def test_a_declared_input_has_a_name_and_a_type_that_exist(declared: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        INPUTS.validate_python(declared)


@pytest.mark.parametrize(
    ("kind", "fits", "fails"),
    [
        ("string", "", 5),
        ("number", 1, True),
        ("number", -1.5, "1"),
        ("integer", 2, 2.5),
        ("boolean", False, 0),
        ("array", [], {}),
        ("object", {}, []),
        ("null", None, ""),
        ({"type": "string", "enum": ["a"]}, "a", "b"),
    ],
)
def test_a_type_takes_its_values_and_no_others(kind: Any, fits: object, fails: object) -> None:  # F61
    assert INPUTS.validate_python({"a": kind}) == {"a": kind}
    assert problem_with(fits, schema_of(kind)) is None
    assert problem_with(fails, schema_of(kind)) is not None


@pytest.mark.parametrize("value", [None, 1, "a", [1], {"a": None}])
def test_any_takes_anything(value: object) -> None:
    assert problem_with(value, schema_of("any")) is None
