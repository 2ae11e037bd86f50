"""The `prompt` step: render, ask, read the reply in its declared format."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from llmops.call import Answer
from llmops.definitions.schemas import problem_with
from llmops.errors import ModelError, RefusalError, StepError
from llmops.records import ModelVersion, Reply, Request, Span, Status
from llmops.render import Renderer
from llmops.steps.base import Context, Halted, Place, Program, Trace, with_error

_HALTS = {
    Status.FILTERED: "a content filter stopped the reply",
    Status.REFUSED: "the model refused to answer",
}


@dataclass(frozen=True)
class PromptProgram:
    """A prompt with the model and parameters it is asked with. words: identity of the prompt without these.

    fallbacks: who is asked where that one is down.
    """

    name: str
    renderer: Renderer
    model: ModelVersion
    parameters: Mapping[str, Any]
    identity: str
    prompts: Mapping[str, str]
    words: str = ""
    fallbacks: Sequence[ModelVersion] = ()
    kind: Literal["prompt"] = "prompt"
    parts: Mapping[str, Program] = field(default_factory=dict)
    least_calls: int = 1

    @cached_property
    def models(self) -> Mapping[str, ModelVersion]:
        """The one model it asks, and its fallbacks."""
        return {version.name: version for version in (self.model, *self.fallbacks)}

    @property
    def shows_images(self) -> bool:
        """Whether it takes a model that sees."""
        return self.renderer.prompt.shows_images

    async def carry_out(self, inputs: Mapping[str, Any], context: Context, place: Place) -> Span:
        """Return the span whose output is the reply's text, or its object where the format asks for one."""
        index = context.trace.open()
        try:
            request = self.request(inputs, context)
        except StepError as error:
            span = place.span(index, self.kind, inputs, model=self.model.name)
            context.trace.close(with_error(span, error))
            raise
        span, _ = await self.ask(
            request, inputs, context, place, index, lambda reply: self.value(reply.text, context.trace)
        )
        context.trace.truncated = context.trace.truncated or span.status is Status.TRUNCATED
        return span

    def request(self, inputs: Mapping[str, Any], context: Context) -> Request:
        """Return what is sent for these inputs. Raises StepError as `Renderer.request` does."""
        return self.renderer.request(
            inputs, self.parameters, case_id=context.case_id, cluster=context.cluster
        )

    async def ask(
        self,
        request: Request,
        inputs: Mapping[str, Any],
        context: Context,
        place: Place,
        index: int,
        read: Callable[[Reply], Any],
    ) -> tuple[Span, Reply]:
        """Return the closed span of one request, with the reply. read: gives the span's output.

        Raises ModelError, BudgetError, and Halted for a reply that is none; the span then says so.
        """
        try:
            model, answer = await context.caller.ask_first(
                tuple(self.models), request, repeat=context.repeat, fresh=context.fresh
            )
        except ModelError as error:
            span = place.span(index, self.kind, inputs, model=self.model.name)
            context.trace.close(with_error(span, error))
            if isinstance(error, RefusalError):
                raise Halted(Status.FILTERED, str(error)) from error
            raise
        halted = _HALTS.get(answer.reply.status)
        output = answer.reply.text if halted else read(answer.reply)
        span = self._span(place, index, inputs, model, answer, output)
        _note_reply(context.trace, answer.reply)
        if halted:
            stop = Halted(answer.reply.status, halted)
            context.trace.close(with_error(span, stop))
            raise stop
        return context.trace.close(span), answer.reply

    def _span(
        self,
        place: Place,
        index: int,
        inputs: Mapping[str, Any],
        model: str,
        answer: Answer[Reply],
        output: object,
    ) -> Span:
        reply = answer.reply
        return place.span(
            index,
            self.kind,
            inputs,
            output=output,
            status=reply.status,
            call_id=answer.call_id,
            model=model,
            usage=reply.usage,
            cost_usd=answer.cost_usd,
            duration_s=reply.latency_s,
            ttft_s=reply.ttft_s,
            tpot_s=reply.tpot_s,
        )

    def value(self, text: str, trace: Trace) -> Any:
        """Return what a reply's text is in the declared format, and note whether it keeps it."""
        schema = self.renderer.prompt.response_format
        if schema is None:
            return text
        value, valid = read_reply(text, schema)
        trace.note_valid(valid)
        return value


def _note_reply(trace: Trace, reply: Reply) -> None:
    trace.returned_model = reply.model or trace.returned_model
    trace.unfiltered = trace.unfiltered or reply.unfiltered


def read_reply(text: str, schema: Mapping[str, Any]) -> tuple[Any, bool]:
    """Return the value of a reply and whether it keeps the declared format.

    An object schema gives the object, or the text as it is when it is none. Any other type stays text: it is
    checked as the JSON value it spells, or as text without the spaces around it where it spells none or a
    string is asked for.
    """
    stripped = text.strip()
    if schema.get("type") == "string":
        return text, problem_with(stripped, schema) is None
    try:
        value = json.loads(stripped, parse_constant=finite, parse_float=finite)
    except (ValueError, RecursionError):
        return text, problem_with(stripped, schema) is None
    valid = problem_with(value, schema) is None
    if not valid and not isinstance(value, dict):
        valid = problem_with(stripped, schema) is None
    return (value if isinstance(value, dict) else text), valid


def finite(spelled: str) -> float:
    """Refuse what JSON itself does not have and no store takes: NaN, infinity, and 1e999."""
    number = float(spelled)
    if not math.isfinite(number):
        raise ValueError(f"{spelled} is no number of JSON")
    return number
