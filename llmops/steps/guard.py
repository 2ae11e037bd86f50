"""The `guard` step: a value passes if every evaluator says so; else the case stops, or what the policy says is done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from llmops.call import Answer
from llmops.definitions.base import identity_of
from llmops.definitions.chain import Guard, Redaction, wiring
from llmops.definitions.experiment import EvaluatorUse
from llmops.definitions.patterns import compile_pattern, encodable
from llmops.errors import EvaluatorError, LlmopsError
from llmops.evaluators.base import Asking, Judgement, Subject
from llmops.evaluators.bound import BoundEvaluator
from llmops.records import ModelVersion, Reply, Request, Span, Status, sampled
from llmops.steps.base import (
    Bound,
    Context,
    Halted,
    Holding,
    Place,
    Program,
    end_of,
    filled,
    with_error,
)

FALLBACK = "fallback"


@dataclass(frozen=True)
class Condition:
    """An evaluator whose score decides. open: loads it, which may import the project's own code.

    at_least: the lowest score that passes; None is the best there is.
    """

    use: EvaluatorUse
    identity: str
    open: Callable[[], BoundEvaluator]
    models: Mapping[str, ModelVersion]
    prompts: Mapping[str, str]
    at_least: float | None = None


@dataclass(frozen=True)
class _Watch:
    """One guard at work on one case. parent: its own span."""

    context: Context
    place: Place
    parent: int

    def inside(self, name: str, start_s: float, **scope: Any) -> Place:
        """Return the place of something that the guard carries out. name: ends in the number of the attempt."""
        return Place(f"{self.place.name}{name}", self.parent, start_s, {**self.place.scope, **scope})

    def anew(self, attempt: int) -> Context:
        """Return the context of an attempt, whose calls are its own."""
        return replace(self.context, repeat=sampled(self.context.repeat, attempt))


@dataclass(frozen=True)
class _Recorded(Asking):
    """The way from an evaluator to its models, on which every call leaves a span below the evaluator's."""

    context: Context | None = None
    place: Place | None = None

    async def ask(self, model: str, request: Request) -> Answer[Reply]:
        """Return the reply of a model."""
        assert self.context is not None and self.place is not None  # noqa: S101 - so it is made below
        answer = await Asking.ask(self, model, request)
        trace, reply = self.context.trace, answer.reply
        said = {"call_id": answer.call_id, "model": model, "usage": reply.usage, "cost_usd": answer.cost_usd}
        times = {"duration_s": reply.latency_s, "ttft_s": reply.ttft_s, "tpot_s": reply.tpot_s}
        trace.close(self.place.span(trace.open(), "prompt", {}, output=reply.text, **said, **times))
        return answer


@dataclass(frozen=True)
class GuardProgram(Holding):
    """What makes the value, if anything does, what it has to pass, and what may stand in for it."""

    guard: Guard
    conditions: tuple[Condition, ...]
    identity: str
    do: Bound | None = None
    fallback: Bound | None = None
    kind: Literal["guard"] = "guard"

    @property
    def models(self) -> Mapping[str, ModelVersion]:
        """The models of what it carries out, and of its evaluators."""
        judges = {name: model for each in self.conditions for name, model in each.models.items()}
        return {**super().models, **judges}

    @property
    def prompts(self) -> Mapping[str, str]:
        """The prompts of what it carries out, and of its evaluators."""
        judges = {name: prompt for each in self.conditions for name, prompt in each.prompts.items()}
        return {**super().prompts, **judges}

    @property
    def parts(self) -> Mapping[str, Program]:
        """What it may carry out."""
        bound = {"do": self.do, FALLBACK: self.fallback}
        return {name: each.program for name, each in bound.items() if each is not None}

    def load(self) -> None:
        """Import what its evaluators call."""
        for condition in self.conditions:
            condition.open()

    @property
    def least_calls(self) -> int:
        """Those of what it is to do, if that passes at once."""
        return 0 if self.do is None else self.do.program.least_calls

    async def carry_out(self, inputs: Mapping[str, Any], context: Context, place: Place) -> Span:
        """Return the span whose output is the value that passed, or what stands in for it.

        Below it each evaluator has a span that says its score, whether that passed, and why.
        """
        index = context.trace.open()
        watch = _Watch(context, place, index)
        try:
            value, end_s = await self._passed(inputs, watch)
        except LlmopsError as error:
            context.trace.close(with_error(place.span(index, self.kind, inputs), error))
            raise
        took_s = end_s - place.start_s
        return context.trace.close(place.span(index, self.kind, inputs, output=value, duration_s=took_s))

    async def _passed(self, inputs: Mapping[str, Any], watch: _Watch) -> tuple[Any, float]:
        """Return a value that may pass, and when it was there."""
        at_s, feedback, value = watch.place.start_s, "", None
        attempts = 1 + (self.guard.n if self.guard.on_fail == "retry" else 0)
        for attempt in range(attempts):
            value, at_s = await self._value(inputs, watch, at_s, attempt, feedback)
            wrong, at_s = await self._wrong(value, watch, at_s, attempt)
            if not wrong:
                return value, at_s
            feedback = "\n".join(wrong)
        if self.guard.on_fail == "redact":
            value = redacted(value, self.guard.redact)
            wrong, at_s = await self._wrong(value, watch, at_s, 1)
            if not wrong:
                return value, at_s
            feedback = "\n".join(wrong)
        elif self.guard.fallback is not None:
            return await self._stand_in(watch, at_s)
        raise Halted(
            Status.GUARDED, f"{watch.place.name} stopped the case: {'; '.join(feedback.splitlines())}"
        )

    async def _value(
        self, inputs: Mapping[str, Any], watch: _Watch, at_s: float, attempt: int, feedback: str
    ) -> tuple[Any, float]:
        if self.do is None:
            return inputs["value"], at_s
        place = watch.inside(f"[{attempt}]", at_s, feedback=feedback, attempt=attempt)
        span = await self.do.carry_out(watch.anew(attempt), place)
        return span.output, end_of([span], at_s)

    async def _stand_in(self, watch: _Watch, at_s: float) -> tuple[Any, float]:
        if self.fallback is not None:
            place = watch.inside(f"[{FALLBACK}]", at_s)
            span = await self.fallback.carry_out(watch.context, place)
            return span.output, end_of([span], at_s)
        value = self.guard.fallback.value if self.guard.fallback else None
        return filled(value, watch.place.scope, f"{watch.place.name}: fallback"), at_s

    async def _wrong(self, value: Any, watch: _Watch, at_s: float, attempt: int) -> tuple[list[str], float]:
        """Return what is wrong with a value, a line each; models are asked only about one that passes all else."""
        wrong: list[str] = []
        for condition in sorted(self.conditions, key=lambda each: bool(each.models)):
            if wrong and condition.models:
                break
            span = await _judged(condition, value, watch, at_s, attempt)
            at_s = end_of([span], at_s)
            if not span.output["passed"]:
                wrong.append(f"{condition.use.name}: {span.output['why']}")
        return wrong, at_s


async def _judged(condition: Condition, value: Any, watch: _Watch, at_s: float, attempt: int) -> Span:
    """Return the span of one evaluator; one that cannot say lets nothing pass."""
    use, trace = condition.use, watch.context.trace
    place = watch.inside(f".{use.name}[{attempt}]", at_s, output=value)
    index = trace.open()
    below = Place(f"{use.name} asks", index, at_s)
    anew = watch.anew(attempt)
    asking = _Recorded(anew.caller, anew.repeat, anew.fresh, anew, below)
    try:
        bound = condition.open()
        judgement = await bound.judge(_subject(use, value, anew, place), asking)
        limit = bound.evaluator.high if condition.at_least is None else condition.at_least
    except EvaluatorError as error:
        judgement, limit = Judgement(None, str(error)), None
    except LlmopsError as error:
        trace.close(with_error(place.span(index, "guard", {"value": value}), error))
        raise
    score = judgement.value
    passed = score is not None and limit is not None and score >= limit
    why = judgement.rationale or ("" if passed else f"scores {score}, and {limit} passes")
    output = {"score": score, "passed": passed, "why": why}
    took_s = end_of(_below(trace.finished(), index), at_s) - at_s
    return trace.close(place.span(index, "guard", {"value": value}, output=output, duration_s=took_s))


def _below(spans: Iterable[Span], parent: int) -> Iterator[Span]:
    return (span for span in spans if span.parent == parent)


def _subject(use: EvaluatorUse, value: Any, context: Context, place: Place) -> Subject:
    def of(source: str | None, default: Any) -> Any:
        return default if source is None else filled(source, place.scope, place.name)

    seen = {name: each for name, each in place.scope.items() if name != "output"}
    return Subject(
        case_id=context.case_id or "",
        inputs=seen,
        output=of(use.output, value),
        expected=of(use.expected, None),
        cluster=context.cluster,
    )


def redacted(value: Any, redactions: Iterable[Redaction]) -> Any:
    """Return plain data with what the patterns match replaced in every text, those of keys aside."""
    if isinstance(value, str):
        for each in redactions:
            pattern, by = compile_pattern(each.pattern), each.by
            value = pattern.sub(lambda _, by=by: by, encodable(value))
        return value
    if isinstance(value, Mapping):
        return {key: redacted(item, redactions) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(item, redactions) for item in value]
    return value


def open_guard(
    definition: Guard, conditions: tuple[Condition, ...], do: Bound | None, fallback: Bound | None
) -> GuardProgram:
    """Return a guard with its evaluators, what makes its value, and what may stand in for it."""
    used = [each.program.identity for each in (do, fallback) if each is not None]
    judged = [condition.identity for condition in conditions]
    identity = identity_of({"guard": wiring(definition), "evaluators": judged, "uses": used})
    return GuardProgram(definition, conditions, identity, do, fallback)
