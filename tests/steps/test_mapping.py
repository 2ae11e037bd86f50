"""A map: each item of a list is done, a few at a time, and what comes back keeps the order of the items."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from llmops.definitions.chain import Chain
from llmops.steps.base import Bound
from llmops.steps.chain import ChainProgram
from llmops.steps.mapping import MapProgram, open_map
from tests.steps.conftest import Carried, function


def mapped(call: Callable[..., Any], **options: Any) -> ChainProgram:
    """Return a chain of one map over its input; `do` is given the item and its place."""
    given = {"item": "{{ item }}", "index": "{{ index }}", "text": "{{ text }}"}
    body: Mapping[str, Any] = {"over": "{{ text }}", "do": {"python": "code:f", "with": given}, **options}
    chain = Chain.model_validate({"inputs": {"text": "any"}, "steps": [{"id": "all", "map": body}]})
    step = chain.steps[0]
    assert step.map is not None
    program = open_map(step.map, Bound(step.map.do, function(call)))
    return ChainProgram("each", chain, {"all": Bound(step, program)}, "identity")


def test_outputs_keep_the_order_of_the_items_however_they_end(carry_out: Callable[..., Carried]) -> None:
    last_is_done = threading.Event()

    def first_ends_last(item: str, index: int, text: object) -> str:
        if index == 0:
            last_is_done.wait(20)
        if index == 2:
            last_is_done.set()
        return f"{index}{item}"

    carried = carry_out(mapped(first_ends_last), {"text": ["a", "b", "c"]})
    assert carried.output.value == ["0a", "1b", "2c"]
    assert [span.name for span in carried.spans] == ["each", "all", "all[0]", "all[1]", "all[2]"]
    assert {span.parent for span in carried.spans[2:]} == {1}


def test_no_more_items_are_under_way_than_asked_for(carry_out: Callable[..., Carried]) -> None:
    lock, under_way, most = threading.Lock(), set[int](), 0
    both = threading.Barrier(2, timeout=20)

    def count(item: int, index: int, text: object) -> int:
        nonlocal most
        with lock:
            under_way.add(index)
            most = max(most, len(under_way))
        both.wait()
        with lock:
            under_way.remove(index)
        return item

    assert carry_out(mapped(count, concurrency=2), {"text": list(range(8))}).output.value == list(range(8))
    assert most == 2


def test_an_empty_list_gives_an_empty_list(carry_out: Callable[..., Carried]) -> None:
    assert carry_out(mapped(lambda **_: 1), {"text": []}).output.value == []


def fragile(item: int, index: int, text: object) -> float:
    return 1 / item


def test_one_item_that_fails_ends_the_step(carry_out: Callable[..., Carried]) -> None:
    carried = carry_out(mapped(fragile), {"text": [1, 0, 2]})
    assert carried.output.error is not None
    assert carried.output.error.step == "all[1]"
    assert "ZeroDivisionError" in carried.output.error.message


def test_a_failed_item_is_null_where_that_is_asked_for(carry_out: Callable[..., Carried]) -> None:
    carried = carry_out(mapped(fragile, on_error="null"), {"text": [1, 0, 2]})
    assert carried.output.value == [1.0, None, 0.5]
    assert [span.name for span in carried.spans if span.error] == ["all[1]"]


def test_what_went_wrong_with_an_item_is_recorded_where_that_is_asked_for(
    carry_out: Callable[..., Carried],
) -> None:
    first, second, third = carry_out(mapped(fragile, on_error="record"), {"text": [1, 0, 2]}).output.value
    assert (first, third) == (1.0, 0.5)
    assert second["error"]["kind"] == "step"
    assert "ZeroDivisionError" in second["error"]["message"]


def test_after_a_failure_no_more_items_are_begun_and_those_under_way_end(
    carry_out: Callable[..., Carried],
) -> None:
    done = list[int]()
    failed = threading.Event()

    def work(item: int, index: int, text: object) -> None:
        if index == 0:
            failed.set()
            raise ValueError("no")
        failed.wait(20)
        done.append(index)

    carried = carry_out(mapped(work, concurrency=2), {"text": list(range(50))})
    assert carried.output.error is not None
    assert "ValueError" in carried.output.error.message
    assert done
    assert len(done) < 5


def test_more_items_than_allowed_are_refused_before_one_is_done(carry_out: Callable[..., Carried]) -> None:
    carried = carry_out(mapped(fragile, at_most=2), {"text": [1, 1, 1]})
    assert carried.output.error is not None
    assert carried.output.error.message == "all: 3 items are more than `at_most: 2`"
    assert len(carried.spans) == 2


@pytest.mark.parametrize("value", ["text", {"a": 1}, 3, None])
def test_what_is_no_list_is_told(carry_out: Callable[..., Carried], value: object) -> None:
    carried = carry_out(mapped(fragile), {"text": value})
    assert carried.output.error is not None
    assert (
        carried.output.error.message
        == f"all: `over` gives {type(value).__name__}, and a map goes over a list"
    )


def test_how_many_at_a_time_changes_no_identity_and_all_else_does() -> None:
    def identity(**options: Any) -> str:
        program = mapped(fragile, **options).steps["all"].program
        assert isinstance(program, MapProgram)
        return program.identity

    assert identity(concurrency=2) == identity()
    assert len({identity(), identity(on_error="null"), identity(over=[1])}) == 3
