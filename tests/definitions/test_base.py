"""Names, canonical JSON, and an identity that changes with meaning only."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from llmops.definitions.base import (
    Definition,
    Float,
    Int,
    Name,
    canonical,
    identity_of,
    is_name,
    meaning_of,
    short,
    without_none,
)
from tests.definitions.values import TEXT, json_values


class Inner(Definition):
    source: str = Field(alias="from")
    free: dict[str, Any] = Field(default_factory=dict)


class Sample(Definition):
    name: Name = "a"
    count: Int | None = None
    share: Float = 0.5
    inner: Inner | None = None
    items: tuple[Inner, ...] = ()


def shuffled(value: Any, seed: int) -> Any:
    """The same value with the keys of every mapping in another order."""
    if isinstance(value, dict):
        keys = list(value)
        random.Random(seed).shuffle(keys)
        return {key: shuffled(value[key], seed) for key in keys}
    return [shuffled(item, seed) for item in value] if isinstance(value, list) else value


@given(json_values(TEXT), st.integers())
def test_the_order_of_keys_changes_no_identity(value: Any, seed: int) -> None:
    assert identity_of(shuffled(value, seed)) == identity_of(value)


@given(json_values(TEXT), json_values(TEXT))
def test_two_values_share_an_identity_only_when_they_are_the_same_json(one: Any, two: Any) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(two, sort_keys=True)
    assert (identity_of(one) == identity_of(two)) is same


@given(json_values(TEXT))
def test_canonical_json_reads_back_as_the_value(value: Any) -> None:
    text = canonical(value)
    assert json.dumps(json.loads(text), sort_keys=True) == json.dumps(value, sort_keys=True)
    assert canonical(json.loads(text)) == text


def test_an_identity_is_a_sha_256_of_which_people_see_twelve_digits() -> None:
    # printf '%s' '{"a":[1,"ä"]}' | sha256sum
    assert identity_of({"a": [1, "ä"]}) == "c97c8ce68f1442638d1e9bd89c22a13b37a5da83dddfcc5ccde2c61657beb17f"
    assert len(identity_of({})) == 64
    assert short("0123456789abcdef") == "0123456789ab"


def test_half_a_character_has_an_identity_and_no_number_that_is_none_has() -> None:
    assert identity_of("\ud800") != identity_of("\ud801")
    with pytest.raises(ValueError, match="not JSON compliant"):
        identity_of([float("nan")])


@pytest.mark.parametrize("text", ["a", "A-b_c.9", "...", "-", "a.b"])
def test_letters_digits_and_three_signs_make_a_name(text: str) -> None:
    assert is_name(text)


@pytest.mark.parametrize(
    "text", ["", ".", "..", "a\n", "a b", "a/b", "ä", "a@b", "a:b", "a%2fb", "a\0", "\uff41"]
)
def test_nothing_else_makes_a_name(text: str) -> None:  # S06
    assert not is_name(text)


@pytest.mark.parametrize(
    "fields",
    [
        {"nmae": "a"},
        {"count": "1"},
        {"count": True},
        {"count": 1.0},
        {"share": "0.5"},
        {"share": float("inf")},
    ],
    ids=str,
)
def test_nothing_is_guessed_and_nothing_unknown_is_taken(fields: dict[str, Any]) -> None:  # F62 F73
    with pytest.raises(ValidationError):
        Sample.model_validate(fields)


def test_a_definition_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Sample().name = "b"


def test_the_meaning_holds_what_is_set_by_the_keys_people_write() -> None:
    inner = Inner.model_validate({"from": "d", "free": {"x": [1]}})
    assert meaning_of(Sample(inner=inner), without={"share"}) == {
        "name": "a",
        "inner": {"from": "d", "free": {"x": [1]}},
        "items": [],
    }


def test_a_null_that_somebody_wrote_stays_in_the_meaning_and_an_unset_field_does_not() -> None:
    inner = Inner.model_validate({"from": "d", "free": {"const": None, "deep": [{"x": None}]}})
    assert meaning_of(inner)["free"] == {"const": None, "deep": [{"x": None}]}
    assert meaning_of(Sample(count=None)) == meaning_of(Sample())


def test_entries_that_are_not_set_are_left_out() -> None:
    assert without_none({"a": None, "b": 0, "c": ""}) == {"b": 0, "c": ""}
