"""The `prompt` step: what a reply is worth, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from llmops.definitions.prompt import Prompt
from llmops.records import Status
from llmops.render import Renderer
from llmops.steps.prompt import PromptProgram, read_reply
from tests.model_server import ModelServer
from tests.steps.conftest import VERSION, Carried

COLOURS = {"type": "string", "enum": ["red", "green"]}
POINT = {"type": "object", "required": ["x"], "properties": {"x": {"type": "integer", "minimum": 5}}}


def program_of(system: str = "Answer: red, green.", **fields: Any) -> PromptProgram:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": "{{ text }}"}]
    prompt = Prompt.model_validate({"inputs": {"text": "string"}, "messages": messages, **fields})
    return PromptProgram(
        "sort", Renderer(prompt), VERSION, {"max_tokens": 8}, "identity", {"sort": "identity"}
    )


def test_a_reply_becomes_a_span_with_all_that_is_known_of_it(carry_out: Callable[..., Carried]) -> None:
    carried = carry_out(program_of(), {"text": "it is green"}, repeat=1)
    (span,) = carried.spans
    assert (span.name, span.kind, span.index, span.parent) == ("sort", "prompt", 0, None)
    assert (span.output, span.status, span.inputs, span.model) == (
        "green",
        Status.OK,
        {"text": "it is green"},
        "default",
    )
    assert span.call_id and span.usage and span.cost_usd and span.duration_s > 0
    output = carried.output
    assert (output.value, output.status, output.valid, output.returned_model) == (
        "green",
        Status.OK,
        None,
        "m",
    )
    assert (output.latency_s, output.cost_usd) == (span.duration_s, span.cost_usd)
    assert (output.input_tokens, output.output_tokens) == (span.usage.input_tokens, span.usage.output_tokens)


def test_a_reply_from_the_journal_has_the_time_and_cost_it_was_paid_with(
    carry_out: Callable[..., Carried], server: ModelServer
) -> None:
    first, again = (carry_out(program_of(), {"text": "it is green"}) for _ in range(2))
    assert first.output == again.output
    assert len(server.received) == 1


def test_an_object_is_asked_for_and_given_as_an_object(carry_out: Callable[..., Carried]) -> None:
    carried = carry_out(program_of(response_format=POINT), {"text": "x"})
    assert isinstance(carried.output.value, dict)
    assert carried.output.valid is True


def test_a_reply_outside_its_format_is_kept_and_said_to_be(carry_out: Callable[..., Carried]) -> None:
    carried = carry_out(program_of("Answer: blue, pink.", response_format=COLOURS), {"text": "blue"})
    assert (carried.output.value, carried.output.status, carried.output.valid) == ("blue", Status.OK, False)


@pytest.mark.parametrize(
    ("fault", "status"), [("refusal", Status.REFUSED), ("finish_filter", Status.FILTERED)]
)
def test_a_reply_that_is_none_has_no_value_and_no_validity_F13_F23(
    carry_out: Callable[..., Carried], fault: str, status: Status
) -> None:
    carried = carry_out(program_of(response_format=COLOURS), {"text": f"[[fault:{fault}]]"})
    output = carried.output
    assert (output.value, output.status, output.valid) == (None, status, None)
    assert output.error is not None and output.error.kind == str(status)
    assert carried.spans[0].call_id is not None
    assert output.cost_usd is not None


def test_a_refused_request_is_filtered_and_no_error_F12(carry_out: Callable[..., Carried]) -> None:
    carried = carry_out(program_of(), {"text": "[[fault:content_filter]]"})
    assert carried.output.status is Status.FILTERED
    assert "violence" in str(carried.output.error)
    assert carried.spans[0].status is Status.FILTERED


def test_a_reply_that_was_cut_is_kept_and_says_so_F16(carry_out: Callable[..., Carried]) -> None:
    carried = carry_out(program_of(response_format=POINT), {"text": "[[fault:length]]"})
    assert carried.output.status is Status.TRUNCATED
    assert carried.output.value is not None


def test_a_model_that_fails_is_an_error_of_the_case(carry_out: Callable[..., Carried]) -> None:
    carried = carry_out(program_of(), {"text": "[[fault:500]]"})
    output = carried.output
    assert output.status is Status.ERROR
    assert output.error is not None and (output.error.kind, output.error.step) == ("unavailable", "sort")
    assert carried.spans[0].status is Status.ERROR


def test_an_input_that_does_not_fit_is_the_chains_own_fault(
    carry_out: Callable[..., Carried], server: ModelServer
) -> None:
    carried = carry_out(program_of(), {"text": 7})
    assert carried.output.status is Status.CRASHED
    assert carried.output.error is not None and "input 'text'" in carried.output.error.message
    assert server.received == []


@pytest.mark.parametrize(
    ("text", "schema", "value", "valid"),
    [
        (" red\n", COLOURS, " red\n", True),
        ("Red", COLOURS, "Red", False),
        ('"red"', COLOURS, '"red"', False),
        ("red", {"enum": ["red"]}, "red", True),
        ('"red"', {"enum": ["red"]}, '"red"', True),
        ("7", {"type": "integer"}, "7", True),
        ("7.5", {"type": "integer"}, "7.5", False),
        ("seven", {"type": "integer"}, "seven", False),
        ("null", {"type": ["string", "null"]}, "null", True),
        ("red", {"type": ["string", "null"]}, "red", True),
        ("[1, 2]", {"type": "array", "items": {"type": "integer"}}, "[1, 2]", True),
        ("true", {"type": "boolean"}, "true", True),
        ('{"x": 5}', POINT, {"x": 5}, True),
        ('{"x": 4}', POINT, {"x": 4}, False),
        ('```json\n{"x": 5}\n```', POINT, '```json\n{"x": 5}\n```', False),
        ('{"x": NaN}', POINT, '{"x": NaN}', False),
        ('{"x": 1e999}', POINT, '{"x": 1e999}', False),
        ("NaN", {"type": "number"}, "NaN", False),
        ("[" * 100_000, POINT, "[" * 100_000, False),
        ("9" * 5_000, {"type": "integer"}, "9" * 5_000, False),
        ("", COLOURS, "", False),
    ],
)
def test_a_reply_is_read_by_its_declared_format(
    text: str, schema: dict[str, Any], value: object, valid: bool
) -> None:
    assert read_reply(text, schema) == (value, valid)
