"""A request goes to a model or a host, a reply comes back, and the two are journalled as a call with what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from operator import add
from typing import Any, Literal, NamedTuple

from pydantic import Field

from llmops.records.base import Record


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


class ErrorInfo(Record):
    """What went wrong: a class from a closed list and a sentence for people."""

    kind: str
    message: str
    step: str | None = None


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
