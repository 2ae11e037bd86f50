"""A run as Markdown: the golden file, and that nothing in it notifies, fetches or breaks out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.report.grids import Grid
from llmops.report.markdown import NOTE_LIMIT, escape, fence, paragraph, run_markdown, table

if TYPE_CHECKING:
    from collections.abc import Callable


def test_a_run_as_a_note(example: Callable[..., Any], golden: Callable[[str, str], None]) -> None:
    made = example()
    golden("run.md", run_markdown(made.run, made.run.comparisons, made))


@pytest.mark.parametrize(
    "text",
    [
        "@octocat please",
        "fixes #12 and closes GH-7",
        "see https://evil.example/x and www.evil.example",
        "![i](x) [l](y) <script>alert(1)</script> `code` *b* _i_ ~~s~~ $m$",
        "a | b",
        "&lt;b&gt;",
    ],
)
def test_escaped_text_is_dead_and_reads_the_same(text: str) -> None:
    shown = escape(text)
    assert not re.search(r"@\w|#\d|GH-\d|://|www\.|(?<!\\)[`*_\[\]<>~|!$]", shown)
    read = re.sub(r"\\(.)", r"\1", shown).replace("\u200b", "").replace("&amp;", "&")
    assert read == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("# a", "\\# a"),
        ("- a", "\\- a"),
        ("12. a", "12\\. a"),
        ("1) a", "1\\) a"),
        ("/close", "\\/close"),
        ("12 a", "12 a"),
    ],
)
def test_the_start_of_a_paragraph_makes_no_block_of_its_own(text: str, shown: str) -> None:
    assert paragraph(text) == shown


@given(st.lists(st.text("`~a\n ", max_size=20), max_size=5))
def test_a_fence_is_longer_than_any_inside(lines: list[str]) -> None:
    opening, *inside, closing = fence(lines).split("\n")
    ticks = opening.removesuffix("text")
    assert closing == ticks
    assert set(ticks) == {"`"}
    assert len(ticks) >= 3
    assert "\n".join(inside) == "\n".join(lines)
    assert ticks not in "\n".join(inside)


def test_hostile_text_stands_only_inside_fences(example: Callable[..., Any]) -> None:
    made = example()
    text = run_markdown(made.run, (), made)
    fences = re.findall(r"^(`{3,})text\n(.*?)\n\1$", text, re.MULTILINE | re.DOTALL)
    outside = re.sub(r"^(`{3,})text\n.*?\n\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    assert any("@octocat" in inside and "````" in inside for _, inside in fences)
    assert "octocat" not in outside
    assert "<script>" not in outside


def test_a_cell_with_a_bar_stays_one_cell() -> None:
    shown = table(Grid("t", ("name", "n"), (("a | b", "1"),), 1, ("mind *this*",)))
    assert shown == "**t**\n\n| name | n |\n| --- | ---: |\n| a \\| b | 1 |\n\nmind \\*this\\*"


def test_a_note_that_is_too_long_is_cut_between_blocks(example: Callable[..., Any]) -> None:
    made = example()
    many = [made.run.comparisons[0]] * 40
    text = run_markdown(made.run, many, made)
    assert NOTE_LIMIT / 2 < len(text) <= NOTE_LIMIT
    assert text.endswith("\n\nThe rest: `llmops report triage-1a2b3c4d`\n")
    assert text.count("```") % 2 == 0
