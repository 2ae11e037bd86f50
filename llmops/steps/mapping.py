"""The `map` step: one thing done with each item of a list, some at a time, the outputs in the order of the items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from llmops.definitions.base import identity_of
from llmops.definitions.chain import Map, wiring
from llmops.errors import LlmopsError, StepError
from llmops.records import Span
from llmops.steps.base import Bound, Context, Halted, Holding, Place, Program, end_of, with_error
from llmops.steps.side_by_side import side_by_side


@dataclass(frozen=True)
class MapProgram(Holding):
    """What is done with each item. identity: of how and of what."""

    map: Map
    do: Bound
    identity: str
    kind: Literal["map"] = "map"

    @property
    def parts(self) -> Mapping[str, Program]:
        """What is carried out for an item."""
        return {"do": self.do.program}

    @property
    def least_calls(self) -> int:
        """None: the list may be empty."""
        return 0

    async def carry_out(self, inputs: Mapping[str, Any], context: Context, place: Place) -> Span:
        """Return the span whose output is the list of what each item gave."""
        index = context.trace.open()
        try:
            items = self._items(inputs["over"], place.name)
            done = await self._each(items, context, place, index)
        except LlmopsError as error:
            context.trace.close(with_error(place.span(index, self.kind, inputs), error))
            raise
        spans = [each for each in done if isinstance(each, Span)]
        output = [each.output if isinstance(each, Span) else each for each in done]
        took_s = end_of(spans, place.start_s) - place.start_s
        return context.trace.close(place.span(index, self.kind, inputs, output=output, duration_s=took_s))

    def _items(self, value: Any, name: str) -> list[Any]:
        if not isinstance(value, list):
            raise StepError(f"{name}: `over` gives {type(value).__name__}, and a map goes over a list")
        if len(value) > self.map.at_most:
            raise StepError(f"{name}: {len(value)} items are more than `at_most: {self.map.at_most}`")
        return value

    async def _each(self, items: list[Any], context: Context, place: Place, parent: int) -> list[Any]:
        """Carry out every item; on the timeline all begin at once. An item that failed stands as what it leaves."""

        async def carry_out(number: int) -> Any:
            scope = {**place.scope, self.map.name: items[number], "index": number}
            inside = Place(f"{place.name}[{number}]", parent, place.start_s, scope)
            try:
                return await self.do.carry_out(context, inside)
            except (StepError, Halted) as error:
                if self.map.on_error == "fail":
                    raise
                return self._left(error)

        return await side_by_side(len(items), self.map.concurrency, carry_out)

    def _left(self, error: StepError | Halted) -> Any:
        if self.map.on_error == "null":
            return None
        return {"error": {"kind": getattr(error, "kind", "step"), "message": str(error)}}


def open_map(definition: Map, do: Bound) -> MapProgram:
    """Return a map that carries out what is bound for each item."""
    return MapProgram(definition, do, identity_of({"map": wiring(definition), "do": do.program.identity}))
