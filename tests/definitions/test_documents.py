"""Where the parts of a document stand, for every finding that points at one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmops.definitions.documents import Document
from llmops.definitions.yaml_reader import read_yaml
from llmops.errors import Finding
from tests.definitions.values import json_values

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PATH = "prompts/a.prompt.yaml"
NOT_PRINTABLE = [chr(code) for code in (*range(0x7F, 0xA0), 0xFFFE, 0xFFFF)]
PRINTABLE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=["\0", *NOT_PRINTABLE]))

NESTED = """\
steps:
  - id: one
    with:
      rows: [[1, 2],
             [3, {deep: x}]]
  -
    - &seq [a]
    - *seq
last: *seq
"""


@pytest.mark.parametrize(
    ("location", "place"),
    [
        ((), (1, 1)),
        (("steps",), (1, 1)),
        (("steps", 0), (2, 5)),
        (("steps", 0, "with"), (3, 5)),
        (("steps", 0, "with", "rows"), (4, 7)),
        (("steps", 0, "with", "rows", 0), (4, 14)),
        (("steps", 0, "with", "rows", 0, 1), (4, 18)),
        (("steps", 0, "with", "rows", 1, 1, "deep"), (5, 19)),
        (("steps", 1, 1), (8, 7)),
        (("last",), (9, 1)),
        (("last", 0), (7, 13)),
        (("steps", 0, "nothing"), (2, 5)),
        (("steps", 7, "x"), (1, 1)),
        (("steps", -1), (1, 1)),
        (("steps", "id"), (1, 1)),
        (("nothing", 3), (1, 1)),
    ],
)
def test_a_position_is_that_of_the_key_or_item_or_of_what_is_around_it(
    location: Sequence[str | int], place: tuple[int, int]
) -> None:
    assert read_yaml(NESTED.encode(), PATH).position(location) == place


def test_a_finding_stands_where_the_location_does() -> None:
    document = read_yaml(NESTED.encode(), PATH)
    assert document.finding(["last"], "wrong", "right") == Finding(PATH, 9, 1, "wrong", "right")


def test_a_value_that_was_not_read_has_no_positions() -> None:
    document = Document("x", {"a": 1})
    assert document.position(["a"]) is None
    assert str(document.finding(["a"], "wrong")) == "x: wrong"


def locations(value: Any, at: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    yield at
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, inner in entries:
        yield from locations(inner, (*at, key))


@settings(deadline=None)
@given(json_values(PRINTABLE))
def test_each_position_is_where_the_text_of_the_key_or_item_starts(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=2)
    document = read_yaml(text.encode(), PATH)
    lines = text.split("\n")
    for location in locations(value):
        line, column = document.position(location) or (0, 0)
        inner = value
        for item in location:
            inner = inner[item]
        shown = location[-1] if location and isinstance(location[-1], str) else inner
        assert lines[line - 1][column - 1 :].startswith(json.dumps(shown, ensure_ascii=False)[:1])
