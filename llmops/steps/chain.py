"""The `chain` step: steps as a graph inferred from what they read, independent ones side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from llmops.definitions.chain import Chain, Step, dependencies
from llmops.errors import LlmopsError, first_error
from llmops.records import Span
from llmops.render import Checks, checks_of, declared_inputs
from llmops.steps.base import Bound, Context, Holding, Place, Program, end_of, filled, with_error


@dataclass(frozen=True)
class ChainProgram(Holding):
    """A chain with what each of its steps carries out, by id."""

    name: str
    chain: Chain
    steps: Mapping[str, Bound]
    identity: str
    kind: Literal["chain"] = "chain"

    async def carry_out(self, inputs: Mapping[str, Any], context: Context, place: Place) -> Span:
        """Return the span whose output is what `outputs` says, or the last step's output."""
        index = context.trace.open()
        try:
            values = declared_inputs(self._checks, inputs)
            steps = await self._carry_out(values, context, Place(place.name, index, place.start_s))
            output = self._output(values, steps)
        except (LlmopsError, ExceptionGroup) as raised:
            error = first_error(raised)
            if not isinstance(error, LlmopsError):
                raise
            context.trace.close(with_error(place.span(index, self.kind, inputs), error))
            raise error from None
        took_s = end_of(steps.values(), place.start_s) - place.start_s
        span = place.span(index, self.kind, inputs, output=output, duration_s=took_s)
        return context.trace.close(span)

    @property
    def parts(self) -> Mapping[str, Program]:
        """The programs of its steps, by id."""
        return {name: step.program for name, step in self.steps.items()}

    @property
    def order(self) -> tuple[str, ...]:
        """The ids of its steps, each after those it needs, else in the order of the file."""
        order: list[str] = []
        while len(order) < len(self._needs):
            left = (name for name in self._needs if name not in order)
            order.append(next(name for name in left if self._needs[name] <= set(order)))
        return tuple(order)

    @cached_property
    def _checks(self) -> Checks:
        return checks_of(self.chain.inputs)

    @cached_property
    def _needs(self) -> Mapping[str, set[str]]:
        return dependencies(self.chain)

    async def _carry_out(self, inputs: Mapping[str, Any], context: Context, place: Place) -> dict[str, Span]:
        """Start every step; each waits for the steps it reads."""
        tasks: dict[str, asyncio.Task[Span]] = {}

        async def carry_out(step: Step) -> Span:
            before = {name: await tasks[name] for name in self._needs[step.id]}
            start = end_of(before.values(), place.start_s)
            scope = {**inputs, **{name: span.given() for name, span in before.items()}}
            return await self.steps[step.id].carry_out(context, Place(step.id, place.parent, start, scope))

        async with asyncio.TaskGroup() as group:
            for step in self.chain.steps:  # none begins before all are there: nothing is awaited in between
                tasks[step.id] = group.create_task(carry_out(step))
        return {step.id: tasks[step.id].result() for step in self.chain.steps}

    def _output(self, inputs: Mapping[str, Any], steps: Mapping[str, Span]) -> Any:
        if self.chain.outputs is None:
            return steps[self.chain.steps[-1].id].output
        scope = {**inputs, **{name: span.given() for name, span in steps.items()}}
        return filled(self.chain.outputs, scope, "outputs")
