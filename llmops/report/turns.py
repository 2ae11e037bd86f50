"""One turn of a chat, or one case, in a terminal: its steps with model, tokens, cost and time, compactly or whole."""

from __future__ import annotations

from collections.abc import Iterator

from llmops.records import Output, Span
from llmops.report import texts

MOST_STEPS = 40
_DEEPEST = 8
_MOST_NAME = 32


def turn_lines(output: Output, n_sent: int) -> Iterator[str]:
    """Yield a line a step, and one for all of them where there are several.

    n_sent: requests that went to a model; others were answered before.
    """
    spans = output.spans[:MOST_STEPS]
    depths = _depths(output)
    named = [("  " * (depths[span.index] + 1) + texts.one_line(span.name), span) for span in spans]
    width = min(_MOST_NAME, max((len(name) for name, _ in named), default=0))
    for name, span in named:
        yield f"{name[:_MOST_NAME]:<{width}}  {'  '.join(_facts(span))}"
    if len(output.spans) > MOST_STEPS:
        yield f"  and {texts.count(len(output.spans) - MOST_STEPS, 'more step')}"
    n_calls = sum(span.call_id is not None for span in output.spans)
    if n_calls > 1:
        yield f"  in all: {'  '.join(_total(output))}"
    if n_calls and not n_sent:
        yield "  answered before: 0 calls"


def step_lines(output: Output) -> Iterator[str]:
    """Yield each step with what went in and what came out, a line each."""
    depths = _depths(output)
    for span in output.spans:
        indent = "  " * (depths[span.index] + 1)
        yield f"{indent}{texts.one_line(span.name)} ({span.kind})  {'  '.join(_facts(span))}"
        yield f"{indent}  in:  {texts.value_text(span.inputs)}"
        if span.error is None:
            yield f"{indent}  out: {texts.value_text(span.output)}"


def _depths(output: Output) -> dict[int, int]:
    depths: dict[int, int] = {}
    for span in output.spans:
        depths[span.index] = 0 if span.parent is None else min(_DEEPEST, depths.get(span.parent, 0) + 1)
    return depths


def _facts(span: Span) -> Iterator[str]:
    if span.model is not None:
        yield texts.one_line(span.model)
    if span.usage is not None:
        about = "about " if span.usage.estimated else ""
        yield f"{about}{span.usage.input_tokens:,} -> {span.usage.output_tokens:,} tokens"
    if span.call_id is not None:
        yield f"{texts.usd(span.cost_usd)} USD"
    yield texts.seconds(span.duration_s)
    if span.error is not None:
        yield texts.one_line(f"{span.error.kind}: {span.error.message}")


def _total(output: Output) -> Iterator[str]:
    if output.input_tokens is not None and output.output_tokens is not None:
        yield f"{output.input_tokens:,} -> {output.output_tokens:,} tokens"
    yield f"{texts.usd(output.cost_usd)} USD"
    if output.latency_s is not None:
        yield texts.seconds(output.latency_s)
