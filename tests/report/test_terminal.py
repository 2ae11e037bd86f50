"""What a person sees of a run, as golden files, and what must hold of it whatever is shown."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from rich.cells import cell_len

from llmops.compare.changes import Changes, PromptChange
from llmops.records import ModelVersion, RunStatus
from llmops.report.terminal import MOST_LINES, comparison_text, run_text

if TYPE_CHECKING:
    from collections.abc import Callable

LOOKS = [{"ascii_only": False}, {"ascii_only": True}, {"colour": True}, {"width": 60}, {"width": 120}]


def test_a_run_leads_with_what_there_is_to_say(
    example: Callable[..., Any], golden: Callable[[str, str], None]
) -> None:
    made = example()
    golden("run.txt", run_text(made.run, made.run.comparisons, made) + "\n")


def test_a_run_in_ascii_and_without_a_baseline(
    example: Callable[..., Any], golden: Callable[[str, str], None]
) -> None:
    made = example()
    golden("alone.ascii.txt", run_text(made.run, (), made, ascii_only=True) + "\n")


def test_a_comparison_stands_by_itself(
    example: Callable[..., Any], golden: Callable[[str, str], None]
) -> None:
    made = example()
    golden("comparison.txt", comparison_text(made.run.comparisons[0], made) + "\n")


@pytest.mark.parametrize("look", LOOKS)
def test_every_line_fits_the_width(example: Callable[..., Any], look: dict[str, Any]) -> None:
    made = example()
    shown = "\n".join(run_text(made.run, some, made, **look) for some in (made.run.comparisons, ()))
    plain = re.sub("\x1b\\[[0-9;]*m", "", shown)
    assert max(map(cell_len, plain.splitlines())) <= look.get("width", 80)
    assert ("\x1b" in shown) == look.get("colour", False)


def test_ascii_only_is_ascii_and_says_the_same(example: Callable[..., Any]) -> None:
    made = example()
    shown = run_text(made.run, made.run.comparisons, made, ascii_only=True)
    assert shown.isascii()
    assert "\\u914d\\u9001 team" in shown


@pytest.mark.parametrize("look", LOOKS)
def test_nothing_hostile_reaches_the_terminal(example: Callable[..., Any], look: dict[str, Any]) -> None:
    made = example()
    shown = run_text(made.run, made.run.comparisons, made, **look)
    without_colour = re.sub("\x1b\\[[0-9;]*m", "", shown)
    assert "click" in without_colour
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", without_colour)
    assert "evil.example\x07" not in without_colour
    assert not re.search(r"##\[|^\s*::", without_colour, re.MULTILINE)


@pytest.mark.parametrize("look", LOOKS)
def test_what_was_changed_is_shown_harmless_and_fits_the_width_S11(
    example: Callable[..., Any], hostile: str, look: dict[str, Any]
) -> None:
    made = example()
    lines = ("--- a", "+++ b", *(f"{sign}\t{hostile}" for sign in (" ", "-", "+", "@")))
    changes = Changes((hostile,), (PromptChange(hostile, hostile, lines, hostile),))
    shown = comparison_text(made.run.comparisons[0], made, changes, **look)
    plain = re.sub("\x1b\\[[0-9;]*m", "", shown)
    room = look.get("width", 80) + 1  # for the space that breaks a command where a line was wrapped
    assert max(map(cell_len, plain.splitlines())) <= room
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", plain)
    assert not re.search(r"##\[|^\s*::", plain, re.MULTILINE)
    assert re.search(r"^-    click red", plain, re.MULTILINE)


def test_a_long_diff_is_cut_and_says_so(example: Callable[..., Any]) -> None:
    made = example()
    lines = ("--- a", "+++ b", *(f"+line {number}" for number in range(MOST_LINES)))
    shown = comparison_text(made.run.comparisons[0], made, Changes((), (PromptChange("a", "b", lines),)))
    assert f"+line {MOST_LINES - 3}\n2 more lines\n" in shown


def test_the_environment_changes_nothing(
    example: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = example()
    before = run_text(made.run, made.run.comparisons, made)
    for name, value in {"COLUMNS": "20", "TERM": "dumb", "FORCE_COLOR": "1", "NO_COLOR": ""}.items():
        monkeypatch.setenv(name, value)
    assert run_text(made.run, made.run.comparisons, made) == before


def test_a_run_that_is_not_finished_says_how_to_go_on(example: Callable[..., Any]) -> None:
    made = example(status=RunStatus.PARTIAL, n_done=68)
    shown = run_text(made.run, made.run.comparisons, made)
    assert "partial: 12 cells of 80 without an output; `llmops run triage` goes on" in shown


def test_an_unknown_cost_is_never_0(example: Callable[..., Any]) -> None:
    made = example(cost_usd=None)
    shown = run_text(made.run, made.run.comparisons, made)
    assert "cost unknown" in shown
    assert re.search(r"zero-shot .* unknown +39$", shown, re.MULTILINE)


def test_embedded_is_named_with_the_variants_that_use_it(example: Callable[..., Any]) -> None:
    made = example()
    real = ModelVersion(name="real", provider="openai", model="big", identity="r" * 64)
    few = made.run.variants[1].model_copy(update={"models": (real,)})
    mixed = made.run.model_copy(update={"variants": (made.run.variants[0], few)})
    phrase = "embedded is not a language model: a baseline that needs no key"
    assert f"{phrase}\n" in run_text(made.run, (), made)
    assert f"{phrase} (zero-shot)\n" in run_text(mixed, (), made)
    assert phrase not in run_text(made.run.model_copy(update={"variants": (few,)}), (), made)


def test_a_run_without_evaluators_says_that_nothing_was_scored(example: Callable[..., Any]) -> None:
    made = example(evaluators=(), summary={})
    assert run_text(made.run, (), made).startswith("80 outputs, nothing scored: there are no evaluators\n")


def test_a_narrow_terminal_breaks_no_name_while_columns_can_go(example: Callable[..., Any]) -> None:
    made = example()
    shown = run_text(made.run, made.run.comparisons, made, width=60)
    assert re.search(r"^output_tokens +x1.00 +\[1.00, 1.00\] +39$", shown, re.MULTILINE)
    assert re.search(r"^essential +exact_match +\+0.69 +\[0.46, 0.83\] +29 +better$", shown, re.MULTILINE)


def test_names_as_long_as_can_be_keep_to_the_width(example: Callable[..., Any]) -> None:
    made = example()
    name = "very-long-" * 12
    renamed = tuple(v.model_copy(update={"name": f"{name}{v.name}"}) for v in made.run.variants)
    summary = {f"{name}{key}": figures for key, figures in made.run.summary.items()}
    shown = run_text(
        made.run.model_copy(update={"variants": renamed, "summary": summary}), (), made, width=60
    )
    assert max(map(cell_len, shown.splitlines())) <= 60
    assert "[0.10, 0.25]" in shown
