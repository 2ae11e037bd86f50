"""Numbers in one format, and nothing of others' text that could act."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.records import Effect, Interval
from llmops.report import texts

if TYPE_CHECKING:
    from collections.abc import Callable


def effect(
    estimate: float | None,
    low: float | None = None,
    high: float = 0.0,
    scale: Literal["difference", "ratio"] = "difference",
    metric: str = "exact_match",
) -> Effect:
    ends = None if low is None else Interval(low=low, high=high, level=0.9)
    return Effect(metric=metric, scale=scale, baseline=0, candidate=0, estimate=estimate, interval=ends)


@pytest.mark.parametrize(
    ("metric", "value", "shown"),
    [
        ("exact_match", 0.8731, "0.873"),
        ("classification.macro_f1", -0.0001, "0.000"),
        ("words", 12345.6, "12,345.600"),
        ("error_rate", None, "unknown"),
        ("latency_s.p95", 0.412, "0.412 s"),
        ("ttft_s", 0.0001, "<0.001 s"),
        ("latency_s", 0.0, "0.000 s"),
        ("input_tokens.sum", 1234.0, "1,234"),
        ("output_tokens", 12.34, "12.3"),
        ("cost_usd", 0.0042, "0.0042"),
        ("cost_usd", 0.00001, "<0.0001"),
        ("cost_usd", None, "unknown"),
    ],
)
def test_a_value_has_the_format_of_its_metric(metric: str, value: float | None, shown: str) -> None:
    assert texts.quantity(metric, value) == shown


@pytest.mark.parametrize(
    ("found", "shown", "ends"),
    [
        (effect(0.231, 0.158, 0.302), "+0.23", "[0.16, 0.30]"),
        (effect(-0.05, -0.1, -0.0004), "-0.0500", "[-0.1000, -0.0004]"),
        (effect(0.05, 0.004, 0.1), "+0.050", "[0.004, 0.100]"),
        (effect(0.0, -0.1, 0.1), "+0.00", "[-0.10, 0.10]"),
        (effect(-1e-12, -0.1, 0.1), "+0.00", "[-0.10, 0.10]"),
        (effect(1.04, 1.003, 1.08, "ratio"), "x1.040", "[1.003, 1.080]"),
        (effect(1.5, 1.2, 1.8, "ratio"), "x1.50", "[1.20, 1.80]"),
        (effect(0.0042, metric="cost_usd"), "+0.0042", ""),
        (effect(-0.025, metric="error_rate"), "-0.025", ""),
        (effect(None), "unknown", ""),
    ],
)
def test_an_effect_is_never_rounded_into_no_change(found: Effect, shown: str, ends: str) -> None:
    assert (texts.effect_value(found), texts.effect_interval(found)) == (shown, ends)


@given(st.floats(-1, 1), st.floats(0, 0.5))
def test_an_interval_clear_of_0_looks_clear_of_0(low: float, length: float) -> None:
    shown = texts.interval(Interval(low=low, high=low + length, level=0.9))
    ends = [float(end) for end in shown.strip("[]").split(", ")]
    for end, value in zip(ends, (low, low + length), strict=True):
        assert end == pytest.approx(value, abs=0.00501)
        assert end != 0 or abs(value) <= 0.00005
    assert "-0.00]" not in shown
    assert not shown.startswith("[-0.00,")


def test_a_count_agrees_with_its_noun() -> None:
    assert [texts.count(n, "case") for n in (0, 1, 1234)] == ["0 cases", "1 case", "1,234 cases"]


# --- what others wrote --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\n\ttext, ünïcode 配送 🚚\n", "plain\n\ttext, ünïcode 配送 🚚\n"),
        ("one\r\ntwo\rthree", "one\ntwothree"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]52;c;ZXZpbA==\x07copied", "copied"),
        ("\x9d52;c;ZXZpbA==\x9ccopied", "copied"),
        ("\x1bPq#0;2;0\x1b\\sixel", "sixel"),
        ("\x1b]never ends", "never ends"),
        ("\x9b2Jcleared", "cleared"),
        ("\x1bcreset", "reset"),
        ("a\x00b\x07c\x08d\x7fe\x85f", "abcdef"),
        ("\u202eevil\u202c \u2066x\u2069 \u200f\u061c", "evil x "),
        ("tag\U000e0041\U000e007f", "tag"),
        ("half \ud83d", "half \ufffd"),
        ("::error::x\n  ::add-mask::y\na::b", ": :error::x\n  : :add-mask::y\na::b"),
        ("x ##[group]y ## z", "x ## [group]y ## z"),
    ],
)
def test_printable_text_only_shows(text: str, shown: str) -> None:
    assert texts.printable(text) == shown


SNIPPETS = st.sampled_from(
    ["\x1b", "\x1b]", "\x9d", "\x9b", "[", "]", "\\", "\x07", ":", "::", "##[", "#", "\n", "a"]
)


@given(st.lists(SNIPPETS | st.characters(), max_size=30).map("".join))
def test_whatever_comes_in_no_control_comes_out(text: str) -> None:
    shown = texts.printable(text)
    assert not {unicodedata.category(sign) for sign in shown if sign not in "\n\t"} & {"Cc", "Cs"}
    assert not re.search("[\u202a-\u202e\u2066-\u2069]", shown)
    assert not re.search(r"^[^\S\n]*::|##\[", shown, re.MULTILINE)
    assert texts.printable(shown) == shown
    shown.encode()


@given(st.text(max_size=50))
def test_one_line_is_one_line(text: str) -> None:
    assert len(texts.one_line(text).splitlines()) <= 1


@pytest.mark.parametrize("opener", ["\x1b]", "\x9d", "\x1bP", "\x90", "\x1b[", "\x9b0"])
def test_sequences_that_never_end_are_read_once(opener: str) -> None:
    shown = texts.printable(opener * 100_000)
    assert "\x1b" not in shown
    assert len(texts.one_line(opener * 100_000)) <= 2_000


def test_values_that_are_no_text_are_shown_as_json(hostile: str) -> None:
    assert texts.value_text({"a": [1, None, "é"]}) == '{"a": [1, null, "é"]}'
    assert texts.value_text(None) == "null"
    assert texts.value_text("  two\nlines ") == "two lines"
    assert "\x1b" not in texts.value_text({"a": hostile})


def test_ascii_text_loses_nothing() -> None:
    assert texts.ascii_text("né 配 🚚") == "n\\xe9 \\u914d \\U0001f69a"


def test_every_kind_of_harm_is_in_the_hostile_text(hostile: str, example: Callable[..., Any]) -> None:
    made = example()
    assert any(row.case.inputs["ticket"] == hostile for row in made.rows(made.run.id, with_spans=False))
    for sign in ("\x1b]8", "\u202e", "\n::", "##[", "````", "@", "fixes #", "![", "<script>", "|"):
        assert sign in hostile


def test_a_page_shows_what_hides_or_drives_and_changes_nothing_else() -> None:
    shown = texts.visible("a\x00\x1b[31m\x7f\x9b\u202eb\u200b\ud800\ufeff\r\n\tc")
    assert shown == "a\u2400\u241b[31m\u2421‹U+009B›‹U+202E›b‹U+200B›‹U+D800›‹U+FEFF›\n\tc"
    plain = "Grüße, 配送 👩\u200d🚀 ::x ##[y] <b>&amp;"
    assert texts.visible(plain) == plain


@given(st.text(st.characters()))
def test_a_page_has_no_character_that_cannot_be_written_or_turns_direction(text: str) -> None:
    shown = texts.visible(text)
    shown.encode("utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", shown)
    assert texts.visible(shown) == shown


@given(st.text("ab ", max_size=60), st.text("ab ", max_size=9), st.text("ab ", max_size=9))
def test_excerpts_of_two_texts_end_as_these_and_start_where_both_are_the_same(
    same: str, old: str, new: str
) -> None:
    before, after = same + old, same + new
    excerpts = texts.from_difference(before, after)
    for whole, excerpt in zip((before, after), excerpts, strict=True):
        assert excerpt == whole or whole.endswith(excerpt.removeprefix("..."))
    cut = [len(whole) - len(excerpt) for whole, excerpt in zip((before, after), excerpts, strict=True)]
    assert cut[0] == cut[1] <= len(same)


def test_an_excerpt_shows_a_difference_that_comes_late() -> None:
    before, after = (f"{'the same words again and ' * 9}{end}" for end in ("yes", "no"))
    assert texts.from_difference(before, after) == (
        "...the same words again and yes",
        "...the same words again and no",
    )
    assert texts.from_difference("short one", "short two") == ("short one", "short two")
