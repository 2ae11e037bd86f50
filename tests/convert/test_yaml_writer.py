"""What is written reads back as it was, whatever it is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.convert.yaml_writer import write_yaml
from llmops.definitions.yaml_reader import read_yaml

SIGNS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
TEXTS = st.text(SIGNS, max_size=20) | st.text("ab \n:#-{}[]'\"|>%&*!,?~@\\\t.", max_size=12)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
    | st.sampled_from(
        ["no", "null", "1e3", "0x1", "-", "<<", "a: b", "x #y", "{{ a }}", "|", "---", "- a", "~", ".5"]
    )
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=20,
)


@given(value=st.dictionaries(TEXTS, VALUES, max_size=5))
def test_what_is_written_reads_back_as_it_was(value: dict[str, Any]) -> None:
    found = read_yaml(write_yaml(value, "a heading").encode(), "f").value
    assert found == value
    assert repr(found) == repr(value), "true is not 1, and 1.0 is not 1"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": "one\ntwo\n"}, "a: |\n  one\n  two\n"),
        ({"a": "one\n\ntwo"}, "a: |-\n  one\n\n  two\n"),
        ({"a": {"b": 1, "c": [True, None]}}, "a: {b: 1, c: [true, null]}\n"),
        ({"steps": [{"id": "x", "with": {"t": "a\nb\n"}}]}, None),
        ({"a": "no"}, "a: no\n"),
        ({"a": [{"k" * 1_000: {"b": "x\ny\n"}, "l" * 2_000: [1]}]}, None),
        ({"a": "12"}, 'a: "12"\n'),
        ({}, "{}\n"),
    ],
)
def test_people_like_to_read_it(value: dict[str, Any], text: str | None) -> None:
    if text is not None:
        assert write_yaml(value) == text
    assert read_yaml(write_yaml(value).encode(), "f").value == value
