"""What a run leaves behind, in the order in which it comes to be.

A request is answered by a reply, and the two are journalled as a call; the steps of a chain leave spans;
a case gives an output; evaluators give it scores; all of that together is a run, and two variants of runs
give a comparison. Records hold facts and survive a round trip through JSON and every store unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from operator import add
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from llmops.definitions.chain import STEP_PARTS
from llmops.definitions.dataset import Case

SCHEMA_VERSION = 1
REPLAYED = "~replayed-"
"""In the id of a run or call that recordings answered, before the digits of their identity; no name holds a `~`."""


class Record(BaseModel):
    """Base of all records: frozen, no unknown fields, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


# --- a call -----------------------------------------------------------------------------------------------


class TextPart(Record):
    """A piece of text in a message that has other parts too."""

    text: str


class ImagePart(Record):
    """An image in a message. image: a `data:` URL that holds it, so that a request is whole in itself."""

    image: str


Part = TextPart | ImagePart


class ToolCall(Record):
    """A tool that the model asks for. arguments: the JSON text as the model wrote it, not yet checked."""

    id: str
    name: str
    arguments: str


class Message(Record):
    """One message of a conversation, as the model gets it.

    tool_calls: of an assistant's message. tool_call_id: which of them a message of role `tool` answers.
    """

    role: Literal["system", "user", "assistant", "tool"]
    content: str | tuple[Part, ...]
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        """The text of the content, its parts joined by line ends; images have none."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content if isinstance(part, TextPart))


class Tool(Record):
    """A function that the model may ask for. parameters: a JSON Schema of type object."""

    name: str
    description: str
    parameters: Mapping[str, Any]


class Request(Record):
    """What goes to a model that chats.

    parameters: by llmops' own names (`temperature`, `max_tokens`, ...); the provider translates them.
    response_format: a JSON Schema. An object schema is asked of the model as structured output; of any
        other the model may use what it can (`embedded` reads `enum`), and the reply is checked on arrival.
    """

    messages: tuple[Message, ...]
    parameters: Mapping[str, Any] = Field(default_factory=dict)
    response_format: Mapping[str, Any] | None = None
    tools: tuple[Tool, ...] = ()


class EmbeddingRequest(Record):
    """What goes to a model that embeds: texts, or images, each of which becomes one vector.

    purpose: for services that embed a question otherwise than what it searches. dimensions: None is the model's own.
    """

    inputs: tuple[str | ImagePart, ...] = Field(min_length=1)
    purpose: Literal["query", "document"] | None = None
    dimensions: int | None = Field(default=None, ge=1)


class HttpRequest(Record):
    """What goes to a host that is no model: an operation of an API.

    url: with its path encoded, without a query. secrets: by header, the variable whose value goes there, after a word
    that stands for itself (`Bearer NAME`). allow: statuses that are an answer; none is 200 to 299.
    is_repeatable: it may be sent twice and is carried out once. timeout_s: how long to wait; it decides no answer.
    """

    method: str
    url: str
    query: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = Field(default_factory=dict)
    body: str | None = None
    secrets: Mapping[str, str] = Field(default_factory=dict)
    allow: tuple[int, ...] = ()
    is_repeatable: bool = True
    timeout_s: float = 30.0


class Usage(Record):
    """Tokens of a call; `estimated` when the provider did not say and we counted for ourselves."""

    input_tokens: int = Field(ge=0)
    output_tokens: int = Field(ge=0)
    estimated: bool = False


class Status(StrEnum):
    """How a call or a case ended."""

    OK = "ok"
    FILTERED = "filtered"  # a content filter stopped the request or the reply
    REFUSED = "refused"  # the model itself declined
    TRUNCATED = "truncated"  # the reply hit max_tokens or broke off
    CRASHED = "crashed"  # the chain itself failed: its template, function or inputs; again would not help
    ERROR = "error"  # the world failed; running again tries again
    UNKNOWN = "unknown"  # sent, and nobody knows what became of it
    GUARDED = "guarded"  # a guard stopped the case
    SKIPPED = "skipped"


NOT_YET = frozenset({Status.ERROR, Status.UNKNOWN, Status.SKIPPED})
"""No output, for now: running again tries again."""
FAILED = NOT_YET | {Status.CRASHED}
"""No output, whoever was to blame."""


class Reply(Record):
    """What a model gave back.

    text: empty when the model only asks for tools.
    model: the identifier the service returned, which may be more exact than the one asked for.
    latency_s: from sending to the last byte. ttft_s: to the first text, only when streamed.
    tpot_s: seconds per output token after the first, only when streamed.
    unfiltered: the service says that its content filter did not run.
    raw: the body as it came, bytes kept as they are.
    """

    text: str
    status: Status = Status.OK
    finish_reason: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    model: str = ""
    system_fingerprint: str | None = None
    request_id: str | None = None
    usage: Usage | None = None
    latency_s: float = Field(default=0.0, ge=0)
    ttft_s: float | None = None
    tpot_s: float | None = None
    unfiltered: bool = False
    raw: bytes = b""


class Embeddings(Record):
    """What an embedding model gave back: one vector an input, in their order; the rest as in `Reply`."""

    vectors: tuple[tuple[float, ...], ...]
    model: str = ""
    request_id: str | None = None
    usage: Usage | None = None
    latency_s: float = Field(default=0.0, ge=0)
    raw: bytes = b""


class HttpReply(Record):
    """What a host gave back. headers: those that say what it is, in lower case; it has no tokens, and costs nothing."""

    http_status: int
    headers: Mapping[str, str] = Field(default_factory=dict)
    text: str = ""
    usage: Usage = Usage(input_tokens=0, output_tokens=0)
    request_id: str | None = None
    latency_s: float = Field(default=0.0, ge=0)
    raw: bytes = b""


AnyRequest = Request | EmbeddingRequest | HttpRequest
AnyReply = Reply | Embeddings | HttpReply


def reply_kind(fields: Mapping[str, Any]) -> type[AnyReply]:
    """Return what kind of reply has these fields."""
    if "vectors" in fields:
        return Embeddings
    return HttpReply if "http_status" in fields else Reply


class ModelInfo(Record):
    """What a service says of a model. kind: `chat`, `embeddings`, ... in the service's own word; None is unsaid."""

    model: str
    kind: str | None = None
    provider: str | None = None


class CallState(StrEnum):
    """Where a call stands in the journal."""

    PLANNED = "planned"
    SENT = "sent"  # on its way: after a crash its outcome is unknown
    ANSWERED = "answered"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Call(Record):
    """One paid request and what came of it. `id` is the hash of all that determines the reply.

    attempts: requests known to have been sent for it, over all runs; n_unknown: requests of which nobody learnt what
    became of them, and with any it is in doubt. upper_usd: what a request costs at most, None without a price.
    cost_usd: None when the price or usage is unknown. owner: of one in doubt, whoever asked, where that is
    who asks again. body: what came that is no reply, raw and capped, for diagnosis.
    """

    id: str
    model: str
    model_identity: str
    request: AnyRequest
    state: CallState
    attempts: int = 0
    n_unknown: int = 0
    upper_usd: float | None = None
    reply: AnyReply | None = None
    cost_usd: float | None = None
    error: ErrorInfo | None = None
    body: bytes | None = None
    created_at: datetime
    answered_at: datetime | None = None
    owner: str | None = None


class Spent(NamedTuple):
    """What asking models came to: of one try, of a call, of a run; all of it adds up.

    n_calls: requests known to have been sent. n_retried: further tries of a call. n_repeated: those sent though one
        before may have been carried out.
    n_unknown: requests whose outcome nobody learnt; n_adrift: those of them that a kill left, which may never have
        been sent and are not in n_calls; n_unbounded: those of them without a price.
    usd: what was charged, n_unpriced requests of it at their upper estimate only. hidden_usd: upper estimate of what
        the unknown ones may have been charged besides.
    """

    n_calls: int = 0
    n_retried: int = 0
    n_repeated: int = 0
    n_unknown: int = 0
    n_adrift: int = 0
    n_unbounded: int = 0
    n_unpriced: int = 0
    usd: float = 0.0
    hidden_usd: float = 0.0

    def plus(self, other: Spent) -> Spent:
        """Return both together."""
        return other if self is NOTHING else Spent(*map(add, self, other))


NOTHING = Spent()


class ErrorInfo(Record):
    """What went wrong: a class from a closed list and a sentence for people."""

    kind: str
    message: str
    step: str | None = None


# --- a case -----------------------------------------------------------------------------------------------


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


# --- a run ------------------------------------------------------------------------------------------------


class Interval(Record):
    """A confidence interval; level is its coverage as a share. None marks an end that is not known."""

    low: float
    high: float
    level: float


class Figure(Record):
    """One metric of one variant.

    kind: `mean` over cases, `share` of cases, `sum`, `quantile`, or a `statistic` of all cases together.
    n: cases it stands on. n_missing: cases whose score is absent.
    value None means that nobody knows (an unknown cost, no scored case), never 0.
    """

    value: float | None
    kind: Literal["mean", "share", "sum", "quantile", "statistic"]
    n: int
    n_missing: int = 0
    interval: Interval | None = None
    note: str | None = None


class ModelVersion(Record):
    """The model a variant asks: the name in llmops.yaml, the provider's own name, and its identity."""

    name: str
    provider: str
    model: str
    identity: str


class StepVersion(Record):
    """One step of a chain, resolved. reads: the steps whose outputs it reads.

    parts: identity of each thing that determines its output beside these, by what people call it (`words`, `model`).
    """

    id: str
    verb: Verb
    reads: tuple[str, ...] = ()
    parts: Mapping[str, str]


class Variant(Record):
    """One thing tried in a run, resolved: the same identity means the same outputs.

    definition: `prompts/NAME`, `chains/NAME`, or the file of a recorded one. reference: as written, with its `@` part.
    definition_identity: of the prompt or chain with all it refers to. identity: with model, parameters, `set`.
    group: the cell of the matrix it stands in; comparisons stay within a group.
    prompts: identity of each prompt it uses, by name. response_format: of a prompt that declares one.
    steps: of a chain, each after those it needs, else in the order of the file.
    """

    name: str
    definition: str
    reference: str
    definition_identity: str
    identity: str
    models: tuple[ModelVersion, ...]
    parameters: Mapping[str, Any] = Field(default_factory=dict)
    set: Mapping[str, Any] = Field(default_factory=dict)
    group: str = ""
    prompts: Mapping[str, str] = Field(default_factory=dict)
    response_format: Mapping[str, Any] | None = None
    is_baseline: bool = False
    steps: tuple[StepVersion, ...] = ()

    @property
    def kind(self) -> Literal["prompt", "chain", "recorded"]:
        """What was tried; recorded outputs never stand in the folders of the other two."""
        match self.definition.partition("/")[0]:
            case "prompts":
                return "prompt"
            case "chains":
                return "chain"
        return "recorded"


class DatasetVersion(Record):
    """The cases a run was made on. version: SHA-256 of their content.

    n_skipped: rows of the whole file that were wrong and are left out.
    schema_identity: of the types its inputs and answers are declared with; None of runs that did not note it.
    """

    name: str
    split: str | None
    version: str
    schema_identity: str | None = None
    n_cases: int
    n_skipped: int = 0
    path: str


class EvaluatorVersion(Record):
    """An evaluator as it judged. low, high: the range of its scores, None where it is open.

    models: those it asks. prompts: identity of each prompt it asks them with, by name; one that has any is a judge.
    """

    name: str
    kind: str
    identity: str
    low: float | None = None
    high: float | None = None
    lower_is_better: bool = False
    models: tuple[ModelVersion, ...] = ()
    prompts: Mapping[str, str] = Field(default_factory=dict)


class StepBlame(Record):
    """The wrong cases that come from one step.

    step: None where no step's own score failed. share: of all wrong cases.
    """

    step: str | None
    share: float
    case_ids: tuple[str, ...]


class Blame(Record):
    """Which steps of a chain its wrong cases come from: of each, the first step whose own score failed.

    metric: the final score, which fails below pass_at, or above it where lower is better. n: cases that have it.
    steps: in the order of the chain, those without a case too where they have a score of their own.
    """

    metric: str
    pass_at: float
    lower_is_better: bool = False
    n: int
    n_wrong: int
    steps: tuple[StepBlame, ...]

    def by_case(self) -> dict[str, str]:
        """Return the step that each wrong case comes from, by case id, where one explains it."""
        return {case_id: each.step for each in self.steps if each.step for case_id in each.case_ids}


class RunStatus(StrEnum):
    """How far a run has come."""

    RUNNING = "running"
    PARTIAL = "partial"  # some cells have no output or score yet; running again goes on
    COMPLETE = "complete"
    STOPPED = "stopped"  # by budget, access or quota


class Source(Record):
    """Where the definitions came from in git; None outside a repository."""

    commit: str | None = None
    branch: str | None = None
    dirty: bool = False


class Run(Record):
    """One carrying out of an experiment. `identity` is the hash of all that determines it.

    fresh: 0 for the first carrying out of this identity, counted up by `--fresh`.
    summary: by variant, by metric name. slices: by variant, slice, metric name.
    comparisons: of each candidate with its baseline.
    n_cells counts variants x cases x repeats; n_done those with an output; n_errors outputs that are errors;
    n_unscored those with an output that some evaluator has still to judge.
    n_calls, cost_usd: requests sent and money spent by this run itself, those of judges included, reused replies
    not counted; cost_usd is None when a price is unknown. The metric `cost_usd` is what the outputs cost.
    replayed: identity of the recordings that answered in place of models, None where models did. Such a run says
    what came with the files: it is no evidence of what the models do now.
    n_retried, n_repeated, n_unknown, hidden_usd: as in `Spent`. After a kill n_calls counts what is known to have been
    sent; what may have been sent besides is in n_unknown, and the truth lies between n_calls and their sum.
    answered_by: by variant, the models that the services said had answered, which may not be those asked for.
    blame: by variant, of those whose steps have scores of their own.
    """

    schema_version: int = SCHEMA_VERSION
    id: str
    experiment: str
    identity: str
    fresh: int = 0
    replayed: str | None = None
    status: RunStatus
    created_at: datetime
    finished_at: datetime | None = None
    dataset: DatasetVersion
    variants: tuple[Variant, ...]
    evaluators: tuple[EvaluatorVersion, ...]
    repeats: int
    seed: int
    source: Source = Source()
    experiment_definition: Mapping[str, Any] = Field(default_factory=dict)
    n_cells: int
    n_done: int = 0
    n_errors: int = 0
    n_unscored: int = 0
    n_calls: int = 0
    n_retried: int = 0
    n_repeated: int = 0
    n_unknown: int = 0
    n_reused: int = 0
    cost_usd: float | None = 0.0
    hidden_usd: float | None = 0.0
    wall_s: float = 0.0
    summary: Mapping[str, Mapping[str, Figure]] = Field(default_factory=dict)
    slices: Mapping[str, Mapping[str, Mapping[str, Figure]]] = Field(default_factory=dict)
    answered_by: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    blame: Mapping[str, Blame] = Field(default_factory=dict)
    comparisons: tuple[Comparison, ...] = ()


# --- a comparison -----------------------------------------------------------------------------------------


class Flip(Record):
    """A case whose score differs between the two sides."""

    case_id: str
    baseline: float | None
    candidate: float | None


class Effect(Record):
    """Candidate less baseline on one metric, over the cases scored on both sides.

    estimate: mean difference, or the ratio of geometric means for open-ended metrics (`scale`).
    n_missing: cases scored on one side only. improved, regressed: flipped cases, largest change first.
    lower_is_better: of scores such as TER; of what is measured unasked less is better always.
    """

    metric: str
    scale: Literal["difference", "ratio"]
    baseline: float | None
    candidate: float | None
    estimate: float | None
    interval: Interval | None = None
    n: int = 0
    n_clusters: int | None = None
    n_missing: int = 0
    lower_is_better: bool = False
    improved: tuple[Flip, ...] = ()
    regressed: tuple[Flip, ...] = ()
    note: str | None = None


class Side(Record):
    """One side of a comparison: a variant of a run."""

    run_id: str
    variant: str
    definition: str
    identity: str


class Comparison(Record):
    """Two variants, paired by case. n_unpaired: cases present on one side, or whose content differs."""

    schema_version: int = SCHEMA_VERSION
    created_at: datetime
    baseline: Side
    candidate: Side
    dataset: str
    n_cases: int
    n_unpaired: int = 0
    effects: tuple[Effect, ...]
    slices: Mapping[str, tuple[Effect, ...]] = Field(default_factory=dict)


Call.model_rebuild()
Run.model_rebuild()


# --- a verdict ----------------------------------------------------------------------------------------------------


class Outcome(StrEnum):
    """What a gate says: also that it cannot say."""

    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class Place(Record):
    """Where in a file of the project something stands; line and column from 1, None for the whole file."""

    path: str
    line: int | None = None
    column: int | None = None


class GateResult(Record):
    """What one gate of an experiment says of one candidate: the fields of statistics.md, section 1.3.11.

    gate: as people write it, in one line. place: of the gate in the experiment's file. reason: in words.
    blocks: whether it decides; those that inform are shown and decide nothing.
    limit: of a floor or ceiling; margin: of a comparison, in units of the score, or a share on the scale of ratios.
    n: cases judged; n_missing: left out because a score is missing; n_clusters: None where each case is its own.
    repeats: runs of each case on the baseline's side and the candidate's.
    estimate, interval: of what is judged, candidate less (or over) baseline, or the figure itself.
    p_pass, p_worse: that what is wished for, and what is feared, is no accident; p_worse_adjusted: Holm's.
    q_worse: of what no gate asks, the share of false alarms among all that look as much worse (Benjamini-Hochberg).
    smallest_margin, smallest_regression: what such a gate could have passed, and proved, four times in five.
    look, n_looks: of a sequential gate, this one and those planned; None where there is one look.
    improved, regressed: the cases that changed, largest change first.
    """

    metric: str
    gate: str
    place: Place | None = None
    slice: str | None = None
    outcome: Outcome
    reason: str
    blocks: bool = True
    method: str | None = None
    alpha: float | None = None
    limit: float | None = None
    margin: float | None = None
    scale: Literal["difference", "ratio"] | None = None
    lower_is_better: bool = False
    baseline: float | None = None
    candidate: float | None = None
    estimate: float | None = None
    interval: Interval | None = None
    n: int = 0
    n_missing: int = 0
    n_clusters: int | None = None
    effective_clusters: float | None = None
    repeats: tuple[int, int] = (1, 1)
    p_pass: float | None = None
    p_worse: float | None = None
    p_worse_adjusted: float | None = None
    q_worse: float | None = None
    smallest_margin: float | None = None
    smallest_regression: float | None = None
    n_needed: int | None = None
    look: int | None = None
    n_looks: int | None = None
    improved: tuple[Flip, ...] = ()
    regressed: tuple[Flip, ...] = ()


class CandidateVerdict(Record):
    """What all gates together say of one candidate.

    baseline: None where no gate compares. baseline_age_s: since the oldest reply of the baseline that was used again.
    changed: where the candidate's files differ from the baseline's, most telling first: annotations stand there.
    n_history: runs of the baseline, that of this run included, with whose mean bounded scores were compared; 0 where
    one run stands beside the other. n_stale: earlier ones left out, because the baseline is not what it was then.
    n_flaky: cases that the baseline's history shows to be flaky, on which the candidate ran `flaky_repeats` times.
    ungated: scores, by slice too, that no gate asks about: they decide nothing.
    """

    candidate: Side
    baseline: Side | None = None
    baseline_age_s: float | None = None
    outcome: Outcome
    gates: tuple[GateResult, ...] = ()
    changed: tuple[Place, ...] = ()
    n_history: int = 0
    n_stale: int = 0
    n_flaky: int = 0
    flaky_repeats: int = 1
    ungated: tuple[GateResult, ...] = ()


class Looks(Record):
    """How often this candidate has been judged against this baseline: pressing the button again is no new evidence.

    n_verdicts: verdicts on the same identities, this one included. n_fresh: times it was paid for anew.
    n_held_out: runs of any candidate judged on this held-out split, None where the split is not held out.
    """

    n_verdicts: int = 1
    n_fresh: int = 0
    n_held_out: int | None = None


class Verdict(Record):
    """The verdict on one experiment; exit code, terminal, JUnit, comment, annotations, MLflow and page follow from it.

    id: the hash of all below that determines it. outcome: fail if a candidate fails, else inconclusive if one is.
    blocks: whether it stops a merge or a promotion, by the policy `on_inconclusive`.
    run_id: of the run judged; baseline_run_id: where that is another.
    evaluators: the versions that judged, the same on both sides. policy: what decided besides the gates, by name.
    replayed: identity of the recordings that answered in place of models; such a verdict never promotes.
    quarantined: cases that did not count, because they are measured to be flaky.
    warnings: what makes the figures less sure than they look, such as cases that seem to belong together.
    n_calls, cost_usd: what this verdict cost; n_calls_saved: of a sequential gate, those it did not need.
    """

    schema_version: int = SCHEMA_VERSION
    id: str
    created_at: datetime
    experiment: str
    place: Place
    outcome: Outcome
    reason: str
    blocks: bool
    run_id: str
    baseline_run_id: str | None = None
    dataset: DatasetVersion
    evaluators: tuple[EvaluatorVersion, ...] = ()
    candidates: tuple[CandidateVerdict, ...] = ()
    policy: Mapping[str, str] = Field(default_factory=dict)
    looks: Looks = Looks()
    replayed: str | None = None
    quarantined: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    source: Source = Source()
    n_calls: int = 0
    n_calls_saved: int | None = None
    cost_usd: float | None = 0.0
    link: str | None = None
