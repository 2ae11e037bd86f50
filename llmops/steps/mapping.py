"""The `map` step: one thing done with each item of a list, some at a time, the outputs in the order of the items."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from llmops.definitions.base import identity_of
from llmops.definitions.chain import Map
from llmops.errors import LlmopsError, StepError, first_error
from llmops.records import ModelVersion, Span
from llmops.steps.base import Bound, Context, Place, Program, end_of, with_error


@dataclass(frozen=True)
class MapProgram:
    """What is done with each item. identity: of how and of what."""

    map: Map
    do: Bound
    identity: str
    kind: Literal["map"] = "map"

    @property
    def models(self) -> Mapping[str, ModelVersion]:
        """The models asked for an item."""
        return self.do.program.models

    @property
    def prompts(self) -> Mapping[str, str]:
        """The prompts used for an item."""
        return self.do.program.prompts

    @property
    def parts(self) -> Mapping[str, Program]:
        """What is carried out for an item."""
        return {"do": self.do.program}

    async def carry_out(self, inputs: Mapping[str, Any], context: Context, place: Place) -> Span:
        """Return the span whose output is the list of what each item gave."""
        index = context.trace.open()
        try:
            spans = await self._each(_items(inputs["over"], place.name), context, place, index)
        except (LlmopsError, ExceptionGroup) as raised:
            error = first_error(raised)
            if not isinstance(error, LlmopsError):
                raise
            context.trace.close(with_error(place.span(index, self.kind, inputs), error))
            raise error from None
        output = [None if span is None else span.output for span in spans]
        took_s = end_of((span for span in spans if span is not None), place.start_s) - place.start_s
        return context.trace.close(place.span(index, self.kind, inputs, output=output, duration_s=took_s))

    async def _each(self, items: list[Any], context: Context, place: Place, parent: int) -> list[Span | None]:
        """Carry out every item, each as soon as one of the places is free; on the timeline all begin at once."""
        free = asyncio.Semaphore(self.map.concurrency)

        async def carry_out(number: int, item: Any) -> Span | None:
            scope = {**place.scope, self.map.name: item, "index": number}
            async with free:
                try:
                    return await self.do.carry_out(
                        context, Place(f"{place.name}[{number}]", parent, place.start_s, scope)
                    )
                except StepError:
                    if self.map.on_error == "fail":
                        raise
                    return None

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(carry_out(number, item)) for number, item in enumerate(items)]
        return [task.result() for task in tasks]


def _items(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise StepError(f"{name}: `over` gives {type(value).__name__}, and a map goes over a list")
    return value


def open_map(definition: Map, do: Bound) -> MapProgram:
    """Return a map that carries out what is bound for each item."""
    own = definition.model_dump(mode="json", by_alias=True, exclude={"concurrency"})
    return MapProgram(definition, do, identity_of({"map": own, "do": do.program.identity}))
