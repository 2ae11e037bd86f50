"""Nothing is lost in silence: every leaf of every file that is read has one fate, and the fate is true."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.convert import Fate, convert_file
from llmops.convert.account import UNKNOWN, Page, leaves, shown_key
from llmops.definitions.documents import Document, Mark
from llmops.definitions.yaml_reader import read_yaml
from llmops.errors import LlmopsError
from tests.convert.samples import FILES, SAMPLES, Sample, convert, copied, keys_in, project

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=12,
)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.path)
def test_every_leaf_of_every_file_has_exactly_one_fate_and_its_line(sample: Sample) -> None:
    converted = convert(sample.path)
    assert converted.record.format == sample.format
    by_file: dict[str, dict[str, int | None]] = {}
    for note in converted.record.notes:
        told = by_file.setdefault(note.path, {})
        assert note.key not in told, f"{note.path} {note.key} is accounted for twice"
        told[note.key] = note.line
    assert FILES.joinpath(sample.path).as_posix() in by_file
    for path, told in by_file.items():
        assert told == keys_in(Path(path)), path


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.path)
def test_each_note_says_how_or_why(sample: Sample) -> None:
    for note in convert(sample.path).record.notes:
        assert len(note.how) > 3, note


def test_all_three_fates_are_seen_in_each_large_sample() -> None:
    for name in ("prompty/weather.prompty", "promptfoo/promptfooconfig.yaml", "promptflow/flow.dag.yaml"):
        assert all(convert(name).record.count(fate) for fate in Fate), name


# --- fates are true: what is kept counts, what is dropped does not ------------------------------------------------


def changed(value: Any) -> Any:
    """Return another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return f"{value}x" if isinstance(value, str) else "x"


def at(value: Any, place: tuple[str | int, ...]) -> Any:
    for item in place:
        value = value[item]
    return value


def with_changed(value: Any, place: tuple[str | int, ...]) -> Any:
    """Return a copy with the leaf at a place changed."""
    copy = json.loads(json.dumps(value))
    at(copy, place[:-1])[place[-1]] = changed(at(value, place))
    return copy


def outcome(path: Path) -> Any:
    """Return what is written, and what is told of each key; an error's words where nothing can be."""
    try:
        found = convert_file(path, project())
    except LlmopsError as error:
        return str(error), None, None
    return found.texts, found.record.models, Counter((n.key, n.fate, n.how) for n in found.record.notes)


YAMLS = [s.path for s in SAMPLES if s.path.endswith((".yaml", ".yml"))]


@pytest.mark.parametrize("sample", YAMLS)
def test_another_value_of_a_kept_key_changes_the_outcome_and_of_a_dropped_one_nothing_that_is_written(
    sample: str, tmp_path: Path
) -> None:
    path = copied(sample, tmp_path)
    value = read_yaml(path.read_bytes(), "f").value
    path.write_text(json.dumps(value), encoding="utf-8")
    notes = {n.key: n for n in convert_file(path, project()).record.notes if n.path == path.as_posix()}
    before = outcome(path)
    for place in leaves(value):
        note = notes[shown_key(place)]
        path.write_text(json.dumps(with_changed(value, place)), encoding="utf-8")
        after = outcome(path)
        if note.fate is Fate.KEPT:
            assert after != before, f"{note.key} is told as kept ({note.how}), and changes nothing"
        elif note.fate is Fate.DROPPED and note.how == UNKNOWN:
            assert after[:2] == before[:2], f"{note.key} is told as dropped, and changes what is written"


@pytest.mark.parametrize(
    "sample", [s for s in SAMPLES if s.path.endswith((".yaml", ".yml"))], ids=lambda s: s.path
)
def test_a_key_that_nobody_knows_is_dropped_by_name_wherever_it_stands(
    sample: Sample, tmp_path: Path
) -> None:
    path = copied(sample.path, tmp_path)
    value: Any = read_yaml(path.read_bytes(), "f").value
    value["zzUnheardOf"] = {"inner": [1, {"deep": "x"}]}
    path.write_text(json.dumps(value), encoding="utf-8")
    found = {note.key: note for note in convert_file(path, project()).record.notes}
    for key in ("zzUnheardOf.inner[0]", "zzUnheardOf.inner[1].deep"):
        assert (found[key].fate, found[key].how) == (Fate.DROPPED, UNKNOWN)


# --- the account itself -------------------------------------------------------------------------------------------


@given(value=VALUES, data=st.data())
def test_however_keys_are_settled_each_leaf_is_told_once_and_the_first_word_counts(
    value: Any, data: Any
) -> None:
    page = Page(Document("f", value, Mark(1, 1)))
    all_leaves = list(leaves(value))
    places = [leaf[: data.draw(st.integers(0, len(leaf)))] for leaf in all_leaves] + [("nowhere", 1)]
    first: dict[Any, str] = {}
    for number, place in enumerate(data.draw(st.permutations(places))):
        data.draw(st.sampled_from([page.keep, page.approximate, page.drop]))(place, f"said {number}")
        for leaf in all_leaves:
            if leaf[: len(place)] == place:
                first.setdefault(leaf, f"said {number}")
    notes = list(page.notes())
    assert [note.key for note in notes] == [shown_key(leaf) for leaf in all_leaves]
    assert [note.how for note in notes] == [first.get(leaf, UNKNOWN) for leaf in all_leaves]


def test_what_nobody_settles_is_dropped() -> None:
    page = Page(Document("f", {"a": {"b": [], "c": 1}}, Mark(1, 1, {"a": Mark(2, 1, {"b": Mark(3, 3)})})))
    page.keep(("a", "c"), "as c")
    assert [(note.key, note.fate, note.line) for note in page.notes()] == [
        ("a.b", Fate.DROPPED, 3),
        ("a.c", Fate.KEPT, 2),
    ]
