"""One case of one variant: the steps of a chain leave spans, the whole an output, and evaluators give it scores.

A row is all of it together; of the same, what figures need stands apart without its texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

from pydantic import Field

from llmops.definitions.chain import STEP_PARTS
from llmops.definitions.dataset import Case
from llmops.records.base import Record
from llmops.records.calls import ErrorInfo, Status, Usage

Verb = Literal[
    "prompt",
    "chain",
    "python",
    "retrieve",
    "agent",
    "tool",
    "http",
    "map",
    "converse",
    "branch",
    "vote",
    "guard",
    "recorded",
]
"""What a span carries out: the verb of a step, a tool that an agent called, or what was recorded elsewhere."""


class Span(Record):
    """One step of one case: what went in, what came out, what it took.

    index, parent: position in the case's list of spans, parents first; parent is None at the top.
    start_s: seconds after the case's start.
    """

    index: int
    parent: int | None
    name: str
    kind: Verb
    inputs: Any
    output: Any = None
    status: Status = Status.OK
    call_id: str | None = None
    model: str | None = None
    usage: Usage | None = None
    cost_usd: float | None = None
    start_s: float = 0.0
    duration_s: float = 0.0
    ttft_s: float | None = None
    tpot_s: float | None = None
    error: ErrorInfo | None = None

    @property
    def number(self) -> int | None:
        """Of an item, sample or attempt among those of its parent, which its name ends in: `find[3]`."""
        digits = self.name.rpartition("[")[2].removesuffix("]")
        return int(digits) if self.name.endswith(f"[{digits}]") and digits.isdecimal() else None

    def given(self) -> dict[str, Any]:
        """Return what templates reach of it as STEP.NAME: its `output`, and the parts that its verb has."""
        names = STEP_PARTS.get(self.kind, ()) if isinstance(self.output, Mapping) else ()
        return {"output": self.output, **{name: self.output[name] for name in names if name in self.output}}


ANEW = frozenset({"vote", "guard"})
"""Verbs that carry out the same again and want another answer."""
Repeat = int | tuple[int, ...]
"""Which of several independent answers to one request is meant: the repeat, or it with the numbers of samples in it."""


def sampled(repeat: Repeat, number: int) -> Repeat:
    """Return the repeat of a sample; the first of all is that of who takes no samples, and paid for once with it."""
    numbers = [*((repeat,) if isinstance(repeat, int) else repeat), number]
    return numbers[0] if not any(numbers[1:]) else tuple(numbers)


def repeat_of(span: Span, spans: Sequence[Span], repeat: int) -> Repeat:
    """Return which answer a span asked for, by the samples that it stands in. spans: of its case, in their order."""
    numbers: list[int] = []
    by_index = {each.index: each for each in spans}
    while span.parent is not None:
        above = by_index[span.parent]
        if above.kind in ANEW and span.number is not None:
            numbers.insert(0, span.number)
        span = above
    found: Repeat = repeat
    for number in numbers:
        found = sampled(found, number)
    return found


class Output(Record):
    """What one variant gave for one case, or the error it met.

    valid: False when the value lies outside the declared response format; None when none is declared.
    latency_s: the recorded time of the case's calls and steps, not the time a re-run took.
    cost_usd: None when any call's cost is unknown. usage_estimated: some tokens were counted by us.
    unfiltered: the content filter of the service did not run for some reply.
    """

    cell_id: str
    value: Any = None
    status: Status = Status.OK
    error: ErrorInfo | None = None
    valid: bool | None = None
    latency_s: float | None = None
    ttft_s: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    usage_estimated: bool = False
    cost_usd: float | None = None
    returned_model: str | None = None
    unfiltered: bool = False
    spans: tuple[Span, ...] = ()
    created_at: datetime


class Score(Record):
    """What one evaluator says of one output.

    value: the score; None when it could not be worked out, then `error` says why and the case is counted
        as missing, never as 0.
    label, truth: the class found and the class expected, for evaluators that sum up over classes.
    parts: further scores of the same evaluator, reached as `EVALUATOR.PART`.
    sums: what the evaluator adds up over all cases for a figure that is no mean (the n-gram counts of BLEU).
    call_ids: of the calls it made, when it asks models.
    """

    evaluator: str
    evaluator_identity: str
    value: float | None = None
    label: str | None = None
    truth: str | None = None
    parts: Mapping[str, float] = Field(default_factory=dict)
    sums: tuple[float, ...] = ()
    call_ids: tuple[str, ...] = ()
    rationale: str | None = None
    error: str | None = None


class Row(Record):
    """One cell of a run with everything known of it: the line of `report --rows`."""

    variant: str
    repeat: int
    case: Case
    output: Output | None
    scores: tuple[Score, ...] = ()


class CaseNumbers(NamedTuple):
    """What figures need of a case."""

    id: str
    slice: str | None
    cluster: str | None
    content_key: str

    def key(self) -> str:
        """Return the hash of its content."""
        return self.content_key


class OutputNumbers(NamedTuple):
    """What figures need of an output; fields as there."""

    status: str
    valid: bool | None
    latency_s: float
    ttft_s: float | None
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    returned_model: str | None
    unfiltered: bool


class ScoreNumbers(NamedTuple):
    """What figures need of a score; fields as there."""

    evaluator: str
    value: float | None
    label: str | None
    truth: str | None
    parts: Mapping[str, float]
    sums: tuple[float, ...]


class RowNumbers(NamedTuple):
    """What figures need of a row: none of its texts, and so read in a fifth of the time and room."""

    case: CaseNumbers
    output: OutputNumbers | None
    scores: Sequence[ScoreNumbers]
