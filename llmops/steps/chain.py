"""The `chain` step: steps as a graph inferred from what they read, independent ones side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from llmops.definitions.chain import Chain, Step, dependencies
from llmops.definitions.templates import TemplateError, evaluate, parse_template
from llmops.errors import LlmopsError, StepError, first_error
from llmops.records import ModelVersion, Span
from llmops.render import Checks, checks_of, declared_inputs
from llmops.steps.base import Context, Place, Program, with_error


@dataclass(frozen=True)
class ChainProgram:
    """A chain with a program for each step."""

    name: str
    chain: Chain
    programs: Mapping[str, Program]
    identity: str
    models: Mapping[str, ModelVersion]
    prompts: Mapping[str, str]
    kind: Literal["chain"] = "chain"

    async def carry_out(self, inputs: Mapping[str, Any], context: Context, place: Place) -> Span:
        """Return the span whose output is what `outputs` says, or the last step's output."""
        index = context.trace.open()
        try:
            values = declared_inputs(self._checks, inputs)
            steps = await self._steps(values, context, Place(place.name, index, place.start_s))
            output = self._output(values, steps)
        except (LlmopsError, ExceptionGroup) as raised:
            error = first_error(raised)
            if not isinstance(error, LlmopsError):
                raise
            context.trace.close(with_error(place.span(index, self.kind, inputs), error))
            raise error from None
        end = max((step.start_s + step.duration_s for step in steps.values()), default=place.start_s)
        span = place.span(index, self.kind, inputs, output=output, duration_s=end - place.start_s)
        return context.trace.close(span)

    @cached_property
    def _checks(self) -> Checks:
        return checks_of(self.chain.inputs)

    @cached_property
    def _needs(self) -> Mapping[str, set[str]]:
        return dependencies(self.chain)

    async def _steps(self, inputs: Mapping[str, Any], context: Context, place: Place) -> dict[str, Span]:
        """Start every step; each waits for the steps it reads."""
        tasks: dict[str, asyncio.Task[Span]] = {}

        async def carry_out(step: Step) -> Span:
            before = {name: await tasks[name] for name in self._needs[step.id]}
            start = max((s.start_s + s.duration_s for s in before.values()), default=place.start_s)
            values = {**inputs, **{name: {"output": span.output} for name, span in before.items()}}
            arguments = _filled(step.arguments, values, step.id)
            return await self.programs[step.id].carry_out(
                arguments, context, Place(step.id, place.parent, start)
            )

        async with asyncio.TaskGroup() as group:
            for step in self.chain.steps:  # none begins before all are there: nothing is awaited in between
                tasks[step.id] = group.create_task(carry_out(step))
        return {step.id: tasks[step.id].result() for step in self.chain.steps}

    def _output(self, inputs: Mapping[str, Any], steps: Mapping[str, Span]) -> Any:
        if self.chain.outputs is None:
            return steps[self.chain.steps[-1].id].output
        values = {**inputs, **{name: {"output": span.output} for name, span in steps.items()}}
        return _filled(self.chain.outputs, values, "outputs")


def _filled(value: Any, values: Mapping[str, Any], where: str) -> Any:
    """Fill every template in a nested value; one that is wholly an expression keeps its type."""
    if isinstance(value, str):
        try:
            return evaluate(parse_template(value), values)
        except TemplateError as error:
            raise StepError(f"{where}: {error}") from error
    if isinstance(value, Mapping):
        return {key: _filled(item, values, where) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(item, values, where) for item in value]
    return value
