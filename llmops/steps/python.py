"""The `python` step: a function of the project's own, given its inputs by name."""

from __future__ import annotations

import asyncio
import copy
import inspect
import json
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from llmops.errors import StepError
from llmops.records import ModelVersion, Span
from llmops.steps.base import Context, Place, Program, with_error


@dataclass(frozen=True)
class PythonProgram:
    """A function ready to be called. reference: MODULE:function. load: imports it, once it is needed."""

    reference: str
    load: Callable[[], Callable[..., Any]]
    identity: str
    kind: Literal["python"] = "python"
    models: Mapping[str, ModelVersion] = field(default_factory=dict)
    prompts: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, Program] = field(default_factory=dict)
    least_calls: int = 0

    async def carry_out(self, inputs: Mapping[str, Any], context: Context, place: Place) -> Span:
        """Return the span whose output is what the function returned, as plain data."""
        index = context.trace.open()
        try:
            outcome = await self._call(copy.deepcopy(dict(inputs)), context)
            value = self._value(outcome)
        except StepError as error:
            context.trace.close(with_error(place.span(index, self.kind, inputs), error))
            raise
        span = place.span(index, self.kind, inputs, output=value, duration_s=outcome.took_s)
        return context.trace.close(span)

    async def _call(self, arguments: Mapping[str, Any], context: Context) -> Outcome:
        """Return what became of the call; its time does not count the wait for a free thread."""
        function = self.load()
        if inspect.iscoroutinefunction(function):
            return await _awaited(function, arguments)
        async with context.threads:
            return await _in_thread(function, arguments)

    def _value(self, outcome: Outcome) -> Any:
        """Refuse what is not JSON, so that a record holds exactly what the next step saw."""
        if outcome.error is not None:
            raise StepError(
                f"{self.reference} raised {type(outcome.error).__name__}: {outcome.error}"
            ) from outcome.error
        try:
            return json.loads(json.dumps(outcome.value, allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            raise StepError(
                f"{self.reference} returned {type(outcome.value).__name__} that is not plain data ({error}); "
                "return text, finite numbers, booleans, None, lists and dicts"
            ) from error


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a function returned or raised, and its seconds."""

    took_s: float
    value: Any = None
    error: BaseException | None = None


async def _awaited(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Outcome:
    started = time.perf_counter()
    try:
        value = await function(**arguments)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the project's code may raise anything; it is recorded
        return Outcome(time.perf_counter() - started, error=error)
    return Outcome(time.perf_counter() - started, value)


async def _in_thread(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Outcome:
    """Call a function in a thread that nobody waits for when the run is interrupted and it hangs."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Outcome] = loop.create_future()

    def tell(outcome: Outcome) -> None:
        if not done.done():
            done.set_result(outcome)

    def work() -> None:
        started = time.perf_counter()
        try:
            value, error = function(**arguments), None
        except BaseException as raised:  # noqa: BLE001 - as above; a thread has nobody else to tell
            value, error = None, raised
        with suppress(RuntimeError):  # the loop has been closed, and nobody waits any more
            loop.call_soon_threadsafe(tell, Outcome(time.perf_counter() - started, value, error))

    threading.Thread(target=work, name="llmops-step", daemon=True).start()
    return await done
