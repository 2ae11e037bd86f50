"""The `converse` step: an assistant and a user who is simulated speak in turn, and what they said comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from llmops.definitions.base import identity_of, meaning_of
from llmops.definitions.chain import Converse
from llmops.definitions.schemas import MESSAGES, problem_with
from llmops.errors import LlmopsError, StepError
from llmops.records import Span
from llmops.steps.base import Bound, Context, Holding, Place, Program, with_error

Speaker = Literal["user", "assistant"]
_OTHER: Mapping[str, Speaker] = {"user": "assistant", "assistant": "user"}


@dataclass(frozen=True)
class ConverseProgram(Holding):
    """The two who speak. identity: of how and of whom."""

    converse: Converse
    user: Bound
    assistant: Bound
    identity: str
    kind: Literal["converse"] = "converse"

    @property
    def parts(self) -> Mapping[str, Program]:
        """What each of them carries out for a message."""
        return {"user": self.user.program, "assistant": self.assistant.program}

    async def carry_out(self, inputs: Mapping[str, Any], context: Context, place: Place) -> Span:
        """Return the span whose output is the list of messages, each of them a span below it."""
        index = context.trace.open()
        try:
            said, end_s = await self._spoken(_opening(inputs.get("opening")), context, place, index)
        except LlmopsError as error:
            context.trace.close(with_error(place.span(index, self.kind, inputs), error))
            raise
        took_s = end_s - place.start_s
        return context.trace.close(place.span(index, self.kind, inputs, output=said, duration_s=took_s))

    async def _spoken(
        self, said: list[dict[str, str]], context: Context, place: Place, parent: int
    ) -> tuple[list[dict[str, str]], float]:
        """Return what was said in all, and when the last of it ends on the timeline."""
        speaker: Speaker = "user" if not said else _OTHER[said[-1]["role"]]
        n_replies, end_s = 0, place.start_s
        while n_replies < self.converse.max_turns:
            scope = {**place.scope, "history": _seen_by(speaker, said), "turn": n_replies}
            here = Place(f"{place.name}.{speaker}[{n_replies}]", parent, end_s, scope)
            bound = self.user if speaker == "user" else self.assistant
            span = await bound.carry_out(context, here)
            text = _text_of(span)
            said.append({"role": speaker, "content": text})
            end_s = span.start_s + span.duration_s
            n_replies += speaker == "assistant"
            if any(stop in text for stop in self.converse.stops):
                break
            speaker = _OTHER[speaker]
        return said, end_s


def _opening(value: Any) -> list[dict[str, str]]:
    """Return what was said before as messages: text is a user's."""
    if value is None:
        return []
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if problem := problem_with(value, MESSAGES):
        raise StepError(f"opening: {problem}")
    return [dict(message) for message in value]


def _seen_by(speaker: Speaker, said: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return the conversation as a model gets it that speaks for one of the two: its own words are the assistant's."""
    if speaker == "assistant":
        return [dict(message) for message in said]
    return [{"role": _OTHER[message["role"]], "content": message["content"]} for message in said]


def _text_of(span: Span) -> str:
    if not isinstance(span.output, str) or not span.output.strip():
        gave = "nothing" if span.output in (None, "") else type(span.output).__name__
        raise StepError(f"{span.name} gave {gave}, and what is said in a conversation is text")
    return span.output


def open_converse(definition: Converse, user: Bound, assistant: Bound) -> ConverseProgram:
    """Return a conversation between what is bound for its two sides."""
    speakers = {"user": user.program.identity, "assistant": assistant.program.identity}
    identity = identity_of({"converse": meaning_of(definition), **speakers})
    return ConverseProgram(definition, user, assistant, identity)
