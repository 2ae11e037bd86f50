"""JSON values filled from a text: valid for every simple schema, and from the right place in the text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from llmops.models.objects import Source, fill

if TYPE_CHECKING:
    from collections.abc import Sequence

TICKET = "You took £1,064.90 for order 48213, which had 3 mugs. This is urgent. It is not broken, I like it."


def source(text: str = TICKET, shown: Sequence[tuple[str, Any]] = ()) -> Source:
    """Return a source that ranks what was shown first, then by name, and quotes sentences that have the hint."""

    def rank(names: Sequence[str], answers: Sequence[tuple[str, str]]) -> list[str]:
        given_answers = [answer for _, answer in answers]
        return sorted(names, key=lambda name: (-given_answers.count(name), name))

    def quote(hint: str) -> list[str]:
        found = [sentence for sentence in text.split(". ") if sentence]
        word = hint.partition(" ")[0]
        return sorted(found, key=lambda sentence: word not in sentence)

    return Source(text, shown, rank, quote)


def filled(schema: dict[str, Any], *, name: str = "it", **given_source: Any) -> Any:
    whole = {"type": "object", "properties": {name: schema}}
    return fill(whole, source(**given_source))[name]


# --- schemas ----------------------------------------------------------------------------------------------

BOUNDS = st.integers(-50, 50)
NAMES = st.text(alphabet="abcdefg_", min_size=1, max_size=6)


@st.composite
def ranged(draw: st.DrawFn, low: str, high: str, least: int, room: int) -> dict[str, int]:
    """Draw none, one or both of two bounds, with room between them."""
    start = draw(st.integers(least, 20))
    both = {low: start, high: start + draw(st.integers(room, 40))}
    return {key: both[key] for key in draw(st.sets(st.sampled_from([low, high])))}


def leaves() -> st.SearchStrategy[dict[str, Any]]:
    numbers = st.one_of(
        ranged("minimum", "maximum", -20, 0),
        ranged("exclusiveMinimum", "exclusiveMaximum", -20, 2),
        st.integers(1, 9).map(lambda step: {"multipleOf": step}),
        st.tuples(st.integers(1, 5), ranged("minimum", "maximum", -20, 5)).map(
            lambda pair: {"multipleOf": pair[0], **pair[1]}
        ),
    )
    kinds = st.sampled_from(["integer", "number", ["integer", "null"]])
    return st.one_of(
        st.sampled_from([{"type": kind} for kind in ("boolean", "null", "string")] + [{}]),
        st.builds(lambda kind, bounds: {"type": kind, **bounds}, kinds, numbers),
        ranged("minLength", "maxLength", 0, 0).map(lambda bounds: {"type": "string", **bounds}),
        st.lists(st.one_of(st.text(max_size=5), st.integers(), st.none()), min_size=1).map(
            lambda values: {"enum": values}
        ),
        st.one_of(st.text(max_size=5), st.booleans()).map(lambda value: {"const": value}),
    )


def nested(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    objects = st.dictionaries(NAMES, inner, max_size=4).map(
        lambda properties: {
            "type": "object",
            "properties": properties,
            "required": sorted(properties),
            "additionalProperties": False,
        }
    )
    arrays = st.builds(
        lambda items, bounds: {"type": "array", "items": items, **bounds},
        inner,
        ranged("minItems", "maxItems", 0, 0),
    )
    either = inner.map(lambda schema: {"anyOf": [schema, {"type": "null"}]})
    return st.one_of(objects, arrays, either, inner.map(lambda schema: {"allOf": [schema]}))


@given(st.recursive(leaves(), nested, max_leaves=8), st.one_of(st.just(TICKET), st.text(max_size=60)))
def test_what_is_filled_is_valid_json_of_its_schema(schema: dict[str, Any], text: str) -> None:
    value = fill(schema, source(text))
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(json.loads(json.dumps(value, allow_nan=False)))


def test_references_are_followed_and_a_linked_list_ends() -> None:
    node = {
        "type": "object",
        "properties": {
            "mood": {"$ref": "#/$defs/Mood"},
            "next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]},
            "others": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
        },
        "required": ["mood", "next", "others"],
    }
    schema = {"$ref": "#/$defs/Node", "$defs": {"Mood": {"enum": ["glad", "sad"]}, "Node": node}}
    value = fill(schema, source())
    Draft202012Validator(schema).validate(value)
    assert value["mood"] == value["next"]["mood"] == "glad"


def test_a_schema_that_requires_itself_without_end_ends_all_the_same() -> None:
    schema = {"type": "object", "properties": {"me": {"$ref": "#"}}, "required": ["me"]}
    assert "me" in fill(schema, source())


def test_what_is_not_required_is_left_out_where_a_schema_repeats_itself() -> None:
    value = fill({"type": "object", "properties": {"me": {"$ref": "#"}}}, source())
    assert value == {"me": {"me": {"me": {"me": {}}}}}


def test_what_is_required_without_being_described_is_a_text() -> None:
    assert fill({"type": "object", "required": ["urgent"]}, source()) == {"urgent": "This is urgent"}


# --- values -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "description", "expected"),
    [
        ("order_id", "", 48213),
        ("n_mugs", "how many", 3),
        ("amount", "what we took, in pounds", 1065),
        ("colour", "", 1065),
    ],
)
def test_a_number_is_the_one_nearest_to_words_of_its_property(
    name: str, description: str, expected: int
) -> None:
    assert filled({"type": "integer", "description": description}, name=name) == expected


def test_a_number_keeps_its_decimals_and_loses_its_thousands_separator() -> None:
    assert filled({"type": "number"}, name="took") == 1064.9


def test_a_number_is_brought_within_its_bounds() -> None:
    assert filled({"type": "integer", "minimum": 1, "maximum": 5}, name="order") == 5
    assert filled({"type": "number", "exclusiveMaximum": 10, "multipleOf": 4}, name="order") == 8


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "number"}, 0),
        ({"type": ["number", "null"]}, None),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, None),
        ({"type": "string"}, ""),
        ({"type": ["string", "null"]}, None),
        ({"type": "boolean"}, False),
    ],
)
def test_where_nothing_is_found_the_value_is_null_if_it_may_be(
    schema: dict[str, Any], expected: object
) -> None:
    assert filled(schema, text="") == expected


def test_a_boolean_is_true_where_its_word_stands_undenied() -> None:
    assert filled({"type": "boolean"}, name="is_urgent") is True
    assert filled({"type": "boolean"}, name="is_broken") is False
    assert filled({"type": "boolean"}, name="angry") is False


def test_examples_speak_for_booleans_and_allowed_values_of_their_own_property() -> None:
    shown = [("a", {"it": True, "other": "x"}), ("b", {"other": "x"}), ("c", "no object")]
    assert filled({"type": "boolean"}, shown=shown) is True
    assert filled({"enum": ["a", "x"]}, name="other", shown=shown) == "x"
    assert filled({"enum": ["a", "x"]}, shown=shown) == "a"


def test_a_string_is_the_best_sentence_within_its_length() -> None:
    assert filled({"type": "string"}, name="urgent") == "This is urgent"
    assert filled({"type": "string", "maxLength": 4}, name="urgent") == "This"


def test_an_array_takes_the_best_ones_in_turn() -> None:
    assert filled({"type": "array", "items": {"enum": ["b", "a", "c"]}, "minItems": 2}) == ["a", "b"]
    assert filled({"type": "array", "items": {"type": "string"}}, name="urgent") == ["This is urgent"]
    assert filled({"type": "array", "items": {"type": "integer"}, "maxItems": 0}) == []
