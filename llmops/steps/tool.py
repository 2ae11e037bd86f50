"""A tool of an agent: arguments in, an observation out, whatever goes wrong with it.

What a model does wrong and what a tool fails at is told to the model. What the world does to a model below (a service
that is down, a budget that is spent) is no fault of the tool: it ends the case, which a later run tries again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmops.definitions.schemas import checker
from llmops.definitions.tools import ToolSpec
from llmops.errors import LlmopsError, RequestError, StepError
from llmops.models.wire import clean
from llmops.records import Span, Tool
from llmops.steps.base import Bound, Context, Halted, Place, end_of, filled, with_error
from llmops.steps.protocol import Observation

MOST_OBSERVED = 20_000
"""Characters of an observation that a model is shown: some five thousand tokens, paid for in every further turn."""


@dataclass(frozen=True)
class AgentTool:
    """What a model may ask for, with what is then carried out."""

    spec: ToolSpec
    bound: Bound

    @property
    def offered(self) -> Tool:
        """The tool as a model is told of it."""
        return Tool(name=self.spec.name, description=self.spec.description, parameters=self.spec.schema)

    def problem_with(self, arguments: Mapping[str, Any]) -> str | None:
        """Say in one sentence why these arguments are none for this tool."""
        return checker(self.spec.schema)(dict(arguments))

    async def carry_out(
        self, arguments: Mapping[str, Any], context: Context, place: Place
    ) -> tuple[Span, Observation]:
        """Return the span of the tool, with what the verb left below it, and what the model sees of it."""
        index = context.trace.open()
        inside = Place(place.name, index, place.start_s, {**place.scope, **arguments})
        try:
            span = await self._carry_out(arguments, context, inside)
        except LlmopsError as error:
            below = [each for each in context.trace.finished() if each.parent == index]
            took_s = end_of(below, place.start_s) - place.start_s
            failed = with_error(place.span(index, "tool", arguments, duration_s=took_s), error)
            context.trace.close(failed)
            if not _is_its_own(error):
                raise
            return failed, Observation(place.name, _cut(str(error)), is_error=True)
        seen = place.span(index, "tool", arguments, output=span.output, duration_s=span.duration_s)
        return context.trace.close(seen), Observation(place.name, _cut(_shown(span)))

    async def _carry_out(self, arguments: Mapping[str, Any], context: Context, place: Place) -> Span:
        _, templates = self.bound.use.filled
        inputs = filled(templates, place.scope, place.name)
        if self.bound.use.body is None:
            given = {name: arguments[name] for name in self.spec.passed if name in arguments}
            inputs = {**given, **inputs}
        return await self.bound.program.carry_out(inputs, context, place)


def _is_its_own(error: LlmopsError) -> bool:
    """Say whether a failure is the tool's: that of a step, a refusal, or a service that answered that it will not."""
    return isinstance(error, StepError | Halted) or (
        isinstance(error, RequestError) and error.sent is not False
    )


def _shown(span: Span) -> str:
    """Return what a verb gave, for a model: text as it is, passages one below the other, all else as JSON."""
    output = span.output
    passages = output.get("passages") if span.kind == "retrieve" and isinstance(output, Mapping) else None
    if isinstance(passages, list):
        return (
            "\n\n".join(f"[{each.get('id')}]\n{each.get('text')}" for each in passages) or "nothing was found"
        )
    return output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)


def _cut(text: str) -> str:
    text = clean(text)
    n_more = len(text) - MOST_OBSERVED
    return (
        text
        if n_more <= 0
        else f"{text[:MOST_OBSERVED]}\n... and {n_more} more characters, which are not shown"
    )
