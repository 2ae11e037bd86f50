"""What every evaluator is: a pure judgement of one output, and where it needs one a summary over all of them.

An evaluator sees a case and its output in one object, and its `output:` and `expected:` expressions have been
worked out before it is asked. Calling it never costs anything; judges, which call models, come on top.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from llmops.records import Figure, Score, Span, Status


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


@dataclass(frozen=True, slots=True)
class Judgement:
    """What an evaluator found: `value` in its range, or a label beside the true one, and why.

    parts: further scores, by name. sums: what a summary adds up over all cases.
    None as a value says that there is no score, and `rationale` why.
    """

    value: float | None
    rationale: str | None = None
    label: str | None = None
    truth: str | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    sums: tuple[float, ...] = ()


class Evaluator(Protocol):
    """One way to judge an output."""

    version: str
    """Raised when the same output could get another score; part of the evaluator's identity."""

    low: float | None
    high: float | None
    """The range of its scores; None where it is open. An output that crashed scores `low`."""

    async def judge(self, subject: Subject) -> Judgement:
        """Return the judgement of one output.

        Raises EvaluatorError when it cannot be worked out: the score is then absent and counted.
        """


@runtime_checkable
class Summary(Protocol):
    """An evaluator that also has figures which are no mean over cases (macro F1, a confusion matrix)."""

    def ahead(self) -> AbstractContextManager[None]:
        """Get ready whatever `summarise` will need, beside the work of the block."""

    def summarise(
        self, scores: Sequence[Score], clusters: Sequence[str] | None, *, level: float, seed: int
    ) -> Mapping[str, Figure]:
        """Return figures by part name (`macro_f1`), from the scored cases of one variant, one score a case."""
