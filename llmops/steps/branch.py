"""The `branch` step: the first arm whose condition holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from llmops.definitions.base import identity_of
from llmops.definitions.chain import Branch, wiring
from llmops.errors import LlmopsError, StepError
from llmops.records import Span
from llmops.steps.base import (
    Bound,
    Context,
    Holding,
    Place,
    Program,
    end_of,
    filled,
    with_error,
)

OTHERWISE = "else"


@dataclass(frozen=True)
class BranchProgram(Holding):
    """Arms by name: `0`, `1`, ... in the order of their conditions, and `else`."""

    branch: Branch
    arms: Mapping[str, Bound]
    identity: str
    kind: Literal["branch"] = "branch"

    @property
    def parts(self) -> Mapping[str, Program]:
        """What each arm carries out."""
        return {name: arm.program for name, arm in self.arms.items()}

    @property
    def least_calls(self) -> int:
        """Those of the arm that makes the fewest; none where no arm may be taken."""
        return min(arm.program.least_calls for arm in self.arms.values()) if OTHERWISE in self.arms else 0

    async def carry_out(self, inputs: Mapping[str, Any], context: Context, place: Place) -> Span:  # noqa: ARG002 - conditions are filled in turn
        """Return the span whose output is that of the arm; its inputs say what the conditions gave, and which arm."""
        index = context.trace.open()
        shown: dict[str, Any] = {"if": []}
        try:
            name = self._taken(place, shown["if"])
            shown["arm"] = name
            span = await self._carried_out(name, context, place, index)
        except LlmopsError as error:
            context.trace.close(with_error(place.span(index, self.kind, shown), error))
            raise
        took_s = end_of([span] if span else [], place.start_s) - place.start_s
        output = span.output if span else None
        return context.trace.close(place.span(index, self.kind, shown, output=output, duration_s=took_s))

    def _taken(self, place: Place, found: list[bool]) -> str:
        """Return the name of the arm, noting what each condition gave that was looked at."""
        for number, arm in enumerate(self.branch.when):
            where = f"{place.name}: condition {number + 1}"
            holds = filled(arm.condition, place.scope, where)
            if not isinstance(holds, bool):
                raise StepError(f"{where} gives {_told(holds)}, and a condition is true or false")
            found.append(holds)
            if holds:
                return str(number)
        return OTHERWISE

    async def _carried_out(self, name: str, context: Context, place: Place, parent: int) -> Span | None:
        arm = self.arms.get(name)
        if arm is None:
            return None
        return await arm.carry_out(
            context, Place(f"{place.name}[{name}]", parent, place.start_s, place.scope)
        )


def _told(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 60 else text[:60] + '...'}"


def open_branch(definition: Branch, arms: Mapping[str, Bound]) -> BranchProgram:
    """Return a branch between what is bound, by the name of each arm."""
    used = {name: arm.program.identity for name, arm in arms.items()}
    return BranchProgram(definition, arms, identity_of({"branch": wiring(definition), "arms": used}))
