"""What every step is once its references are resolved: values go in, a value comes out, and a span stays behind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from llmops.call import Caller
from llmops.definitions.chain import Use
from llmops.definitions.templates import TemplateError, evaluate, parse_template
from llmops.errors import LlmopsError, ModelError, OutcomeUnknownError, RefusalError, StepError
from llmops.records import ErrorInfo, ModelVersion, Repeat, Span, Status, Verb

THREADS = 16
"""Functions of the project's own that run at a time."""


class Halted(LlmopsError):
    """A step ended without a value and without a fault of ours: the model refused, or a filter stopped it."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status

    @property
    def kind(self) -> str:
        """What an output's error calls it."""
        return str(self.status)


def with_error(span: Span, error: LlmopsError) -> Span:
    """Return the span of a step that gave no value, with what went wrong.

    A model that fails may answer next time; anything else is the chain's own fault, and stays.
    """
    status = Status.ERROR if isinstance(error, ModelError) else Status.CRASHED
    if isinstance(error, Halted):
        status = error.status
    elif isinstance(error, OutcomeUnknownError):
        status = Status.UNKNOWN
    elif isinstance(error, RefusalError):
        status = Status.FILTERED
    info = ErrorInfo(kind=getattr(error, "kind", "step"), message=str(error), step=span.name)
    return span.model_copy(update={"status": status, "error": info})


@dataclass(slots=True)
class Trace:
    """The spans of one case as they come to be, on a timeline of recorded durations.

    A reply from the journal counts with the time it took when it was paid for, and waiting for a free place
    does not count, so that a re-run and a busy machine give the same latency.

    figures: fields of the output that are known otherwise than by adding up the spans.
    """

    spans: list[Span | None] = field(default_factory=list)
    figures: Mapping[str, Any] = field(default_factory=dict)
    truncated: bool = False
    unfiltered: bool = False
    returned_model: str | None = None
    valid: bool | None = None

    def open(self) -> int:
        """Return the place of a new span, so that parents stand before their children."""
        self.spans.append(None)
        return len(self.spans) - 1

    def close(self, span: Span) -> Span:
        """Put a finished span in its place and return it."""
        self.spans[span.index] = span
        return span

    def finished(self) -> tuple[Span, ...]:
        """Return the spans that were closed, parents first."""
        return tuple(span for span in self.spans if span is not None)

    def note_valid(self, valid: bool) -> None:
        """Remember whether a reply kept its declared format; one that did not decides."""
        self.valid = valid if self.valid is None else self.valid and valid


@dataclass(frozen=True, slots=True)
class Context:
    """What a step needs to know of the cell it runs for. threads: places for functions, shared by a run.

    repeat: which answer every call below asks for, as it stands: that of a sample is not that of its cell.
    """

    caller: Caller
    trace: Trace
    case_id: str | None = None
    cluster: str | None = None
    repeat: Repeat = 0
    fresh: int = 0
    threads: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(THREADS))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a step stands in its case: its name, the span above it, and when it starts on the timeline.

    scope: what templates see there, by name.
    """

    name: str
    parent: int | None = None
    start_s: float = 0.0
    scope: Mapping[str, Any] = field(default_factory=dict)

    def span(self, index: int, kind: Verb, inputs: Mapping[str, Any], **known: Any) -> Span:
        """Return the span of the step that stands here, with what is known of it."""
        return Span(
            index=index,
            parent=self.parent,
            name=self.name,
            kind=kind,
            inputs=dict(inputs),
            start_s=self.start_s,
            **known,
        )


def end_of(spans: Iterable[Span], start_s: float) -> float:
    """Return when the last of these spans ends on the timeline; the start where there is none."""
    return max((span.start_s + span.duration_s for span in spans), default=start_s)


def filled(value: Any, scope: Mapping[str, Any], where: str) -> Any:
    """Fill every template in a nested value; one that is wholly an expression keeps its type.

    Raises StepError saying where, when one cannot be.
    """
    if isinstance(value, str):
        try:
            return evaluate(parse_template(value), scope)
        except TemplateError as error:
            raise StepError(f"{where}: {error}") from error
    if isinstance(value, Mapping):
        return {key: filled(item, scope, where) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [filled(item, scope, where) for item in value]
    return value


class Program(Protocol):
    """A prompt, chain or function, resolved with all its overrides and ready to be carried out."""

    @property
    def kind(self) -> Verb:
        """The verb it carries out."""

    @property
    def identity(self) -> str:
        """Hash of all that determines its outputs."""

    @property
    def models(self) -> Mapping[str, ModelVersion]:
        """The models it asks, by name."""

    @property
    def prompts(self) -> Mapping[str, str]:
        """Identity of each prompt it uses, by name."""

    @property
    def parts(self) -> Mapping[str, Program]:
        """The programs that it carries out, by name; none for one that does its work itself."""

    @property
    def least_calls(self) -> int:
        """How many calls it makes at least."""

    async def carry_out(self, inputs: Mapping[str, Any], context: Context, place: Place) -> Span:
        """Return the span of having carried it out; its `output` is the value, its children are in the trace.

        Raises ModelError, StepError, BudgetError or Halted, after closing the span with the error on it.
        """


@dataclass(frozen=True, slots=True)
class Bound:
    """What a step carries out, with the templates that give its inputs."""

    use: Use
    program: Program

    async def carry_out(self, context: Context, place: Place) -> Span:
        """Return the span of the step; its templates see the scope of its place. Raises as its program does."""
        _, templates = self.use.filled
        return await self.program.carry_out(filled(templates, place.scope, place.name), context, place)


class Holding:
    """What programs that carry out others have in common: whom those ask, they ask, unless they say otherwise."""

    @property
    def parts(self) -> Mapping[str, Program]:
        """The programs that it carries out, by name."""
        raise NotImplementedError

    @property
    def models(self) -> Mapping[str, ModelVersion]:
        """The models that its parts ask, by name."""
        return {name: model for part in self.parts.values() for name, model in part.models.items()}

    @property
    def prompts(self) -> Mapping[str, str]:
        """Identity of each prompt that its parts use, by name."""
        return {name: prompt for part in self.parts.values() for name, prompt in part.prompts.items()}

    @property
    def least_calls(self) -> int:
        """How many calls its parts make at least, each of them once."""
        return sum(part.least_calls for part in self.parts.values())
