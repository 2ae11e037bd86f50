"""The steps of a turn in a terminal: who was asked, what it took, and nothing that others wrote but as plain text."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from llmops.records import ErrorInfo, Output, Span, Usage
from llmops.report.turns import MOST_STEPS, step_lines, turn_lines

EVIL = "\x1b[2J\u202eevil\n::set-env"


def span(index: int, parent: int | None = None, **known: Any) -> Span:
    fields: dict[str, Any] = {"name": f"s{index}", "kind": "python", "inputs": {}, **known}
    return Span(index=index, parent=parent, **fields)


def asked(index: int, parent: int | None = None, **known: Any) -> Span:
    usage = Usage(input_tokens=1_200, output_tokens=34)
    fields: dict[str, Any] = {"kind": "prompt", "model": "m", "call_id": "c", "usage": usage, "cost_usd": 0.5}
    return span(index, parent, **{**fields, "duration_s": 0.25, **known})


def output(*spans: Span, **known: Any) -> Output:
    return Output(cell_id="c", spans=spans, created_at=datetime(2026, 1, 1, tzinfo=UTC), **known)


def test_a_step_says_who_was_asked_and_what_it_took() -> None:
    assert list(turn_lines(output(asked(0)), n_sent=1)) == [
        "  s0  m  1,200 -> 34 tokens  0.5000 USD  0.250 s"
    ]


def test_steps_stand_under_the_step_they_belong_to_and_are_added_up() -> None:
    spans = (span(0, kind="chain", name="all"), asked(1, 0), asked(2, 0, cost_usd=None))
    lines = list(turn_lines(output(*spans, input_tokens=2_400, output_tokens=68, latency_s=0.5), n_sent=2))
    assert [line[: len(line) - len(line.lstrip())] for line in lines] == ["  ", "    ", "    ", "  "]
    assert "unknown USD" in lines[2]
    assert lines[-1] == "  in all: 2,400 -> 68 tokens  unknown USD  0.500 s"


def test_tokens_that_we_counted_and_calls_that_were_answered_before_are_told() -> None:
    estimated = asked(0, usage=Usage(input_tokens=3, output_tokens=4, estimated=True))
    assert list(turn_lines(output(estimated), n_sent=0)) == [
        "  s0  m  about 3 -> 4 tokens  0.5000 USD  0.250 s",
        "  answered before: 0 calls",
    ]


def test_a_step_that_failed_says_why() -> None:
    failed = span(0, error=ErrorInfo(kind="step", message="no such thing"))
    assert list(turn_lines(output(failed), n_sent=0)) == ["  s0  0.000 s  step: no such thing"]


def test_many_steps_are_cut_and_counted() -> None:
    lines = list(turn_lines(output(*(span(place) for place in range(MOST_STEPS + 3))), n_sent=0))
    assert len(lines) == MOST_STEPS + 1
    assert lines[-1] == "  and 3 more steps"


def test_nothing_that_others_wrote_drives_the_terminal() -> None:
    evil = output(
        asked(0, name=EVIL, model=EVIL, inputs={"a": EVIL}, output=EVIL),
        span(1, 0, error=ErrorInfo(kind="step", message=EVIL)),
    )
    shown = "\n".join([*turn_lines(evil, n_sent=1), *step_lines(evil)])
    assert not set("\x1b\u202e") & set(shown)
    assert "\n::" not in shown
    assert shown.count("evil") >= 6
