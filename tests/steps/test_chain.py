"""The `chain` step: which steps see what, in which order, and what becomes of them when one fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from llmops.definitions.chain import Chain
from llmops.definitions.prompt import Prompt
from llmops.records import Status
from llmops.render import Renderer
from llmops.steps.base import Bound, Program
from llmops.steps.chain import ChainProgram
from llmops.steps.prompt import PromptProgram
from tests.model_server import ModelServer
from tests.steps.conftest import VERSION, Carried, function


def chain_of(
    steps: Mapping[str, Mapping[str, Any]], programs: Mapping[str, Program], outputs: Any = None
) -> ChainProgram:
    """Return a chain of python steps by id, each with its arguments."""
    chain = Chain.model_validate(
        {
            "inputs": {"text": "string"},
            "steps": [{"id": name, "python": "code:f", "with": dict(given)} for name, given in steps.items()],
            "outputs": outputs,
        }
    )
    bound = {step.id: Bound(step, programs[step.id]) for step in chain.steps}
    return ChainProgram("two", chain, bound, "identity")


def asking(system: str) -> PromptProgram:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": "{{ text }}"}]
    prompt = Prompt.model_validate({"inputs": {"text": "string"}, "messages": messages})
    return PromptProgram("ask", Renderer(prompt), VERSION, {}, "identity", {})


def length(text: str) -> int:
    return len(text)


TEXT = {"text": "{{ text }}"}


def test_a_step_reads_what_earlier_ones_gave_and_values_keep_their_type(
    carry_out: Callable[..., Carried],
) -> None:
    program = chain_of(
        {
            "count": TEXT,
            "more": {
                "n": "{{ count.output }}",
                "said": "n is {{ count.output }}",
                "fixed": [1, "{{ text }}"],
            },
        },
        {"count": function(length), "more": function(lambda **given: given)},
    )
    carried = carry_out(program, {"text": "four"})
    assert carried.output.value == {"n": 4, "said": "n is 4", "fixed": [1, "four"]}


def test_outputs_pick_what_the_chain_gives_and_without_them_the_last_step_does(
    carry_out: Callable[..., Carried],
) -> None:
    programs = {"a": function(lambda text: text.upper()), "b": function(lambda text: text[::-1])}
    steps = {"a": TEXT, "b": TEXT}
    assert carry_out(chain_of(steps, programs), {"text": "ab"}).output.value == "ba"
    picked = chain_of(steps, programs, {"big": "{{ a.output }}", "list": ["{{ b.output }}", 1]})
    assert carry_out(picked, {"text": "ab"}).output.value == {"big": "AB", "list": ["ba", 1]}
    assert carry_out(chain_of(steps, programs, "{{ a.output }}"), {"text": "ab"}).output.value == "AB"


def test_independent_steps_run_side_by_side(carry_out: Callable[..., Carried]) -> None:
    both = threading.Barrier(2, timeout=20)

    def meet(text: str) -> bool:
        both.wait()
        return True

    program = chain_of({"a": TEXT, "b": TEXT}, {"a": function(meet), "b": function(meet)})
    assert carry_out(program, {"text": "x"}).output.value is True


def test_a_step_may_stand_before_those_it_reads(carry_out: Callable[..., Carried]) -> None:
    program = chain_of(
        {"late": {"text": "{{ early.output }}"}, "early": TEXT},
        {"late": function(lambda text: text + "!"), "early": function(lambda text: text * 2)},
        "{{ late.output }}",
    )
    carried = carry_out(program, {"text": "x"})
    assert carried.output.value == "xx!"


def test_the_time_of_a_chain_is_that_of_its_longest_way(carry_out: Callable[..., Carried]) -> None:
    program = chain_of(
        {"a": TEXT, "b": TEXT, "c": {"text": "{{ a.output }}"}},
        {name: function(lambda text: text) for name in "abc"},
    )
    spans = {span.name: span for span in carry_out(program, {"text": "x"}).spans}
    ends = {name: span.start_s + span.duration_s for name, span in spans.items()}
    assert spans["c"].start_s == pytest.approx(ends["a"])
    assert spans["b"].start_s == 0.0
    assert spans["two"].duration_s == pytest.approx(max(ends["b"], ends["c"]))
    assert [span.parent for span in spans.values()] == [None, 0, 0, 0]


def test_a_chain_inside_a_chain_leaves_its_spans_under_its_own(carry_out: Callable[..., Carried]) -> None:
    inner = chain_of({"deep": TEXT}, {"deep": function(lambda text: text)})
    outer = chain_of({"first": TEXT}, {"first": inner})
    spans = carry_out(outer, {"text": "x"}).spans
    assert [(span.name, span.kind, span.parent) for span in spans] == [
        ("two", "chain", None),
        ("first", "chain", 0),
        ("deep", "python", 1),
    ]


def test_a_step_that_fails_ends_its_chain_and_those_that_wait_for_it(
    carry_out: Callable[..., Carried],
) -> None:
    called = []

    def broken(text: str) -> None:
        raise ValueError("no")

    def after(text: str) -> None:
        called.append(text)

    program = chain_of(
        {"a": TEXT, "b": {"text": "{{ a.output }}"}},
        {"a": function(broken), "b": function(after)},
    )
    output = carry_out(program, {"text": "x"}).output
    assert (output.status, called) == (Status.CRASHED, [])
    assert output.error is not None and (output.error.step, output.error.kind) == ("a", "step")
    assert [(span.name, span.status) for span in output.spans] == [
        ("two", Status.CRASHED),
        ("a", Status.CRASHED),
    ]


def test_a_model_that_fails_in_a_chain_is_an_error_that_is_tried_again(
    carry_out: Callable[..., Carried],
) -> None:
    program = chain_of({"ask": TEXT}, {"ask": asking("Answer: yes, no.")})
    output = carry_out(program, {"text": "[[fault:500]]"}).output
    assert (output.status, output.error and output.error.step) == (Status.ERROR, "ask")


def test_a_refusal_in_a_chain_is_no_fault_of_the_chain(
    carry_out: Callable[..., Carried], server: ModelServer
) -> None:
    program = chain_of(
        {"ask": TEXT, "then": {"text": "{{ ask.output }}"}},
        {"ask": asking("Answer: yes, no."), "then": asking("Answer: good, bad.")},
    )
    output = carry_out(program, {"text": "[[fault:refusal]]"}).output
    assert output.status is Status.REFUSED
    assert len(server.received) == 1


def test_tokens_and_cost_are_those_of_all_calls_and_unknown_once_one_is(
    carry_out: Callable[..., Carried],
) -> None:
    program = chain_of(
        {"one": TEXT, "two_": {"text": "again {{ text }}"}},
        {"one": asking("Answer: yes, no."), "two_": asking("Answer: good, bad.")},
    )
    carried = carry_out(program, {"text": "fine"})
    asked = [span for span in carried.spans if span.call_id]
    assert carried.output.cost_usd == pytest.approx(sum(span.cost_usd or 0 for span in asked))
    assert carried.output.input_tokens == sum(span.usage.input_tokens for span in asked if span.usage)
    odd = carry_out(program, {"text": "[[fault:usage-missing]] fine"}).output
    assert (odd.cost_usd, odd.usage_estimated) == (None, True)


@pytest.mark.parametrize(("inputs", "says"), [({}, "'text' is missing"), ({"text": 3}, "input 'text'")])
def test_a_chain_refuses_inputs_that_do_not_fit(
    carry_out: Callable[..., Carried], inputs: dict[str, Any], says: str
) -> None:
    program = chain_of({"a": TEXT}, {"a": function(lambda text: text)})
    output = carry_out(program, inputs).output
    assert output.status is Status.CRASHED
    assert output.error is not None and says in output.error.message


def test_an_expression_that_fails_says_in_which_step(carry_out: Callable[..., Carried]) -> None:
    program = chain_of(
        {"a": TEXT, "b": {"text": "{{ a.output.missing }}"}},
        {"a": function(lambda text: {"there": text}), "b": function(lambda text: text)},
    )
    output = carry_out(program, {"text": "x"}).output
    assert output.status is Status.CRASHED
    assert output.error is not None and output.error.message.startswith("b: ")


def test_the_order_of_steps_has_each_after_those_it_needs() -> None:
    needs = {"last": {"text": "{{ middle.output }} {{ first.output }}"}, "first": TEXT}
    steps = {**needs, "middle": {"text": "{{ first.output }}"}, "alone": TEXT}
    program = chain_of(steps, {name: function(length) for name in steps})
    assert program.order == ("first", "middle", "last", "alone")
