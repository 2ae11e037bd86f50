"""The `python` step: a function of the project's own, called with copies, in threads that hold up nobody."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from llmops.call import Caller
from llmops.errors import StepError
from llmops.records import Span, Status
from llmops.steps.base import THREADS, Context, Place, Trace
from llmops.steps.python import PythonProgram

NOBODY: Caller = None  # type: ignore[assignment]  # a python step asks no model


def carried(function: Callable[..., Any], **inputs: Any) -> Span:
    program = PythonProgram("code:f", lambda: function, "identity")
    context = Context(caller=NOBODY, trace=Trace())
    return asyncio.run(program.carry_out(inputs, context, Place("step", None, 2.0)))


def failed(function: Callable[..., Any], **inputs: Any) -> tuple[str, Span]:
    """Return what the step says and the span it leaves behind."""
    program = PythonProgram("code:f", lambda: function, "identity")
    trace = Trace()
    with pytest.raises(StepError) as raised:
        asyncio.run(program.carry_out(inputs, Context(caller=NOBODY, trace=trace), Place("step")))
    return str(raised.value), trace.finished()[0]


def test_the_span_holds_what_the_function_returned_and_its_own_time() -> None:
    def slow(text: str) -> dict[str, Any]:
        time.sleep(0.05)
        return {"said": text, "n": (1, 2.5, None, True)}

    span = carried(slow, text="x")
    assert span.output == {"said": "x", "n": [1, 2.5, None, True]}
    assert (span.name, span.kind, span.inputs, span.start_s) == ("step", "python", {"text": "x"}, 2.0)
    assert span.duration_s >= 0.05
    assert span.cost_usd is None and span.call_id is None


def test_an_async_function_is_awaited() -> None:
    async def double(n: int) -> int:
        await asyncio.sleep(0)
        return 2 * n

    assert carried(double, n=21).output == 42


@pytest.mark.parametrize(
    "error", [KeyError("red"), SystemExit(3), StopIteration(1), KeyboardInterrupt(), MemoryError()]
)
def test_whatever_a_function_raises_is_the_steps_own_fault(error: BaseException) -> None:
    def broken() -> None:
        raise error

    said, span = failed(broken)
    assert said.startswith(f"code:f raised {type(error).__name__}")
    assert (span.status, span.error and span.error.kind) == (Status.CRASHED, "step")


def test_an_async_function_that_exits_ends_its_step_alone() -> None:
    async def exits() -> None:
        raise SystemExit(3)

    assert "SystemExit" in failed(exits)[0]


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), {1, 2}, b"bytes", Ellipsis, {("a", "b"): 1}], ids=repr
)
def test_what_is_not_plain_data_is_refused(value: object) -> None:
    said, span = failed(lambda: value)
    assert "not plain data" in said
    assert span.output is None


def test_data_that_holds_itself_is_refused() -> None:
    circle: list[Any] = []
    circle.append(circle)
    assert "not plain data" in failed(lambda: circle)[0]


def test_a_function_cannot_change_what_it_was_given() -> None:
    def spoil(items: list[int]) -> list[int]:
        items.append(3)
        return items

    given = [1, 2]
    span = carried(spoil, items=given)
    assert given == [1, 2] == span.inputs["items"]
    assert span.output == [1, 2, 3]


def test_no_more_functions_run_at_a_time_than_there_are_places() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def busy() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1

    async def go() -> None:
        program = PythonProgram("code:busy", lambda: busy, "identity")
        places = asyncio.Semaphore(THREADS)
        await asyncio.gather(
            *(
                program.carry_out({}, Context(caller=NOBODY, trace=Trace(), threads=places), Place("step"))
                for _ in range(3 * THREADS)
            )
        )

    asyncio.run(go())
    assert 1 < most <= THREADS


def test_a_function_that_hangs_holds_up_nobody_who_gives_up_waiting() -> None:
    let_go = threading.Event()

    async def go() -> None:
        program = PythonProgram("code:wait", lambda: let_go.wait, "identity")
        work = program.carry_out({}, Context(caller=NOBODY, trace=Trace()), Place("step"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await work

    asyncio.run(go())  # would wait for the thread, were it one of the loop's own
    let_go.set()
