"""Marks stand where words differ, the texts stay whole, and no text takes long to compare."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llmops.report.differences import Piece, mark

WORDS = st.lists(
    st.sampled_from(["the ", "parcel ", "is ", "late", ", ", "\n", "配送", "{", '"a": ', "1"])
).map("".join)


def plain(pieces: tuple[Piece, ...]) -> str:
    """Return a text with its marks as brackets."""
    return "".join(f"[{piece.text}]" if piece.is_changed else piece.text for piece in pieces)


def shown(before: str, after: str) -> tuple[str, str]:
    marked = mark(before, after)
    assert marked is not None
    return plain(marked[0]), plain(marked[1])


def test_only_the_words_that_differ_are_marked() -> None:
    assert shown("the parcel is lost", "the red parcel is late") == (
        "the parcel is [lost]",
        "the [red ]parcel is [late]",
    )
    assert shown('{"team": "billing"}', '{"team": "other"}') == (
        '{"team": "[billing]"}',
        '{"team": "[other]"}',
    )
    assert shown("配送中です", "配達中です") == ("配[送]中です", "配[達]中です")
    assert shown("", "new") == ("", "[new]")


def test_equal_texts_have_no_marks() -> None:
    assert mark("a b", "a b") is None
    assert mark("", "") is None


@given(WORDS, WORDS)
def test_the_pieces_are_the_texts_and_what_is_not_marked_is_common(before: str, after: str) -> None:
    marked = mark(before, after)
    if marked is None:
        assert before == after
        return
    assert tuple("".join(piece.text for piece in side) for side in marked) == (before, after)
    common = ["".join(piece.text for piece in side if not piece.is_changed) for side in marked]
    assert common[0] == common[1]
    assert any(piece.is_changed for side in marked for piece in side)


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_two_texts_can_be_compared(before: str, after: str) -> None:
    marked = mark(before, after)
    assert (marked is None) == (before == after)


def test_texts_that_repeat_a_word_without_end_are_left_unmarked() -> None:
    assert mark("a " * 2_000, "a " * 1_999) is None
    assert mark("a " * 200, "a " * 199) is not None
