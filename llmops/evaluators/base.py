"""What every evaluator is: a judgement of one output, and where it needs one a summary over all of them.

An evaluator sees a case and its output in one object, and its `output:` and `expected:` expressions have been
worked out before it is asked. Most are pure and cost nothing; those that ask models are given the way to them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from llmops.records import (
    EmbeddingRequest,
    Embeddings,
    Figure,
    ModelVersion,
    Repeat,
    Reply,
    Request,
    Span,
    Status,
)

if TYPE_CHECKING:
    from llmops.call import Answer, Caller
    from llmops.definitions.dataset import Case
    from llmops.stats.bootstrap import Statistic


@dataclass(frozen=True, slots=True)
class Subject:
    """Everything an evaluator may see of one output.

    output, expected: after the evaluator's own expressions. steps: by step id, what each step gave.
    """

    case_id: str
    inputs: Mapping[str, Any]
    output: Any
    expected: Any
    metadata: Mapping[str, Any] = field(default_factory=dict)
    status: Status = Status.OK
    spans: tuple[Span, ...] = ()
    cluster: str | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """What an evaluator found: `value` in its range, or a label beside the true one, and why.

    parts: further scores, by name. sums: what a summary adds up over all cases. call_ids: of the models' calls.
    None as a value says that there is no score, and `rationale` why.
    """

    value: float | None
    rationale: str | None = None
    label: str | None = None
    truth: str | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    sums: tuple[float, ...] = ()
    call_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Asking:
    """The way from an evaluator to its models: the one path of all calls, for one repeat of one carrying out.

    Both are part of a call's identity: the same output under the same rubric is one call, and each repeat is
    judged anew, so that the noise of a judge is in the spread of the repeats.
    """

    caller: Caller
    repeat: Repeat = 0
    fresh: int = 0

    async def ask(self, model: str, request: Request) -> Answer[Reply]:
        """Return the reply of a model, as `Caller.ask` does."""
        return await self.caller.ask(model, request, repeat=self.repeat, fresh=self.fresh)

    async def embed(self, model: str, request: EmbeddingRequest) -> Answer[Embeddings]:
        """Return the vectors of a model, as `Caller.embed` does."""
        return await self.caller.embed(model, request, repeat=self.repeat, fresh=self.fresh)


class Evaluator(Protocol):
    """One way to judge an output."""

    version: str
    """Raised when the same output could get another score; part of the evaluator's identity."""

    low: float | None
    high: float | None
    """The range of its scores; None where it is open. An output that crashed scores `low`; `lower_is_better`, as
    an attribute of those of which it is true, makes that the best, and what `judge` says of such an output counts.
    `parts_share_range`, likewise, says that every part lies in the same range."""

    async def judge(self, subject: Subject) -> Judgement:
        """Return the judgement of one output.

        Raises EvaluatorError when it cannot be worked out: the score is then absent and counted.
        """


@runtime_checkable
class AskingEvaluator(Protocol):
    """An evaluator that asks models; its class is opened by `open_in(options, workspace)`."""

    version: str
    low: float | None
    high: float | None

    @property
    def models(self) -> Mapping[str, ModelVersion]:
        """The models it asks, by name."""

    @property
    def prompts(self) -> Mapping[str, str]:
        """Identity of each prompt it asks them with, by name; an evaluator that has any is a judge."""

    @property
    def meaning(self) -> Mapping[str, Any]:
        """All that determines its scores beside its version, as plain data: no name that only points somewhere."""

    def least_tokens(self, case: Case) -> int | None:
        """Return about how many input tokens scoring an output of this case takes at least; None when unknown."""

    async def judge(self, subject: Subject, asking: Asking) -> Judgement:
        """Return the judgement of one output, with the ids of the calls that were made for it.

        A reply that came, and is no score, is a judgement without a value. Raises EvaluatorError when there is
        nothing to ask, and what `Caller` raises when there is no reply: then there is no judgement yet.
        """


class Summed(Protocol):
    """What figures over all cases need to know of a score; `Score` is one, and slimmer ones keep no more."""

    @property
    def value(self) -> float | None:
        """The score, None when it is absent."""

    @property
    def label(self) -> str | None:
        """The class found."""

    @property
    def truth(self) -> str | None:
        """The class expected."""

    @property
    def sums(self) -> tuple[float, ...]:
        """What is added up over all cases."""


@runtime_checkable
class Summary(Protocol):
    """An evaluator that also has figures which are no mean over cases (macro F1, corpus BLEU).

    It is asked to judge outputs that crashed too, since such a figure has to count them.
    """

    def ahead(self) -> AbstractContextManager[None]:
        """Get ready whatever `summarise` will need, beside the work of the block."""

    def summarise(
        self, scores: Sequence[Summed], clusters: Sequence[str] | None, *, level: float, seed: int
    ) -> Mapping[str, Figure]:
        """Return figures by part name (`macro_f1`), from the scored cases of one variant, one score a case."""

    def is_summed(self, score: Summed) -> bool:
        """Say whether a score has what figures over all cases need."""

    def statistics(self, scores: Sequence[Summed]) -> Mapping[str, Statistic]:
        """Return the figures that two variants are compared on, by part name, as functions of weights.

        scores: at least one, all of them summed. Sides of a comparison are asked for each on its own.
        """
