"""How records become rows of the journal's tables and come back unchanged.

Written by hand, column by column, because every call, output and score passes here; a row is a tuple in the
order of its table's columns. What cannot be stored is refused here, before it reaches a transaction.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii
from typing import Any, TypeAlias

from pydantic import BaseModel

from llmops.errors import StoreError
from llmops.records import (
    AnyReply,
    AnyRequest,
    Call,
    CallState,
    Message,
    Output,
    Record,
    Request,
    Run,
    Score,
    Span,
    Spent,
    Verdict,
    reply_kind,
)
from llmops.secrets import scrub, scrub_bytes, scrub_json

# Any: what a database driver takes and gives; the columns of `tables.py` say more than a type could.
Row: TypeAlias = tuple[Any, ...]

MAX_INTEGER = 2**63 - 1
# Places in the row of a call.
_STATE, _ATTEMPTS, _REQUEST, _CREATED_AT, ANSWERED_AT, OWNER, _N_UNKNOWN = 3, 4, 5, 10, 11, 12, 13


def _plain(value: object) -> object:
    """Return what JSON can say of a record, a time or a mapping inside a record."""
    if isinstance(value, Record):
        return value.__dict__
    if isinstance(value, BaseModel):  # definitions may keep what they have worked out beside their fields
        fields = value.__dict__
        return {name: fields[name] for name in type(value).model_fields}
    if isinstance(value, datetime):
        return time_text(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a value of type {type(value).__name__} is not JSON")


_encode = json.JSONEncoder(
    ensure_ascii=True, check_circular=False, allow_nan=False, separators=(",", ":"), default=_plain
).encode  # what goes round in circles is nested without end


def to_json(value: object) -> str:
    """Return a value, records included, as ASCII JSON without secrets.

    Raises StoreError for what JSON cannot hold: NaN, infinity, bytes, objects, or nesting without end.
    """
    try:
        return scrub_json(_encode(value))
    except (TypeError, ValueError, RecursionError) as error:
        raise StoreError(f"a value cannot be stored: {error}") from error


def escape(text: str) -> str:
    """Return text with all but printable ASCII as JSON escapes, and without secrets.

    Different texts stay different, but for two halves of a surrogate pair: they come back as the one
    character they mean.
    """
    return encode_basestring_ascii(scrub(text))[1:-1]


def unescape(text: str) -> str:
    """Return what `escape` was given."""
    return str(json.loads(f'"{text}"')) if "\\" in text else text


def time_text(time: datetime) -> str:
    """Return a time as ISO 8601 in UTC, always of one length, so that text sorts as time does."""
    return time.astimezone(UTC).isoformat(timespec="microseconds")


def whole(number: int) -> int:
    """Return a count that 64 bits can hold.

    Raises StoreError for a larger one: both databases would refuse the whole transaction.
    """
    if not -MAX_INTEGER <= number <= MAX_INTEGER:
        raise StoreError(f"a count cannot be stored: {str(number)[:40]} does not fit into 64 bits")
    return number


# What may be absent, one function for each direction.


def _json(value: object | None) -> str | None:
    return None if value is None else to_json(value)


def _parsed(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def _escaped(text: str | None) -> str | None:
    return None if text is None else escape(text)


def _unescaped(text: str | None) -> str | None:
    return None if text is None else unescape(text)


def _count(number: int | None) -> int | None:
    return None if number is None else whole(number)


def _scrubbed(data: bytes | None) -> bytes | None:
    return None if data is None else scrub_bytes(data)


def _request_json(request: AnyRequest) -> str:
    """Return a request as JSON, four times as fast as `to_json`: requests are the bulk of what is written."""
    if not isinstance(request, Request):
        return to_json(request)
    return to_json(
        {**request.__dict__, "messages": [_message_fields(message) for message in request.messages]}
    )


def _reply_json(reply: AnyReply) -> str:
    fields = reply.__dict__.copy()
    del fields["raw"]
    return to_json(fields)


def _message_fields(message: Message) -> dict[str, object]:
    """Return the fields of a message; those of tools only where there are any."""
    if message.tool_calls or message.tool_call_id is not None:
        return message.__dict__
    return {"role": message.role, "content": message.content}


def _reply_of(row: Row) -> AnyReply | None:
    if row[6] is None:
        return None
    fields = json.loads(row[6])
    return reply_kind(fields)(raw=row[7], **fields)


def call_row(call: Call, intent: Row | None = None) -> Row:
    """Return the row of a call; its owner is nobody until the journal, which alone knows, says whose it is.

    intent: what was its row when it was about to be sent, if that is at hand: most of it stays.
    """
    intent = intent or intent_row(call)
    reply = call.reply
    return (
        *intent[:_STATE],
        str(call.state),
        whole(call.attempts),
        intent[_REQUEST],
        None if reply is None else _reply_json(reply),
        _scrubbed(call.body if reply is None else reply.raw),
        call.cost_usd,
        _json(call.error),
        intent[_CREATED_AT],
        None if call.answered_at is None else time_text(call.answered_at),
        None,
        whole(call.n_unknown),
        call.upper_usd,
    )


def intent_row(call: Call) -> Row:
    """Return the row of a call that is about to be sent."""
    about = (call.id, escape(call.model), call.model_identity, CallState.SENT.value, whole(call.attempts))
    end = (None, whole(call.n_unknown), call.upper_usd)
    created_at = time_text(call.created_at)
    return (*about, _request_json(call.request), None, None, None, None, created_at, None, *end)


def owned(row: Row, owner: str | None) -> Row:
    """Return the row of a call with its owner."""
    return (*row[:OWNER], owner, *row[OWNER + 1 :])


def call_of(row: Row) -> Call:
    """Return the call of a row."""
    return Call(
        id=row[0],
        model=unescape(row[1]),
        model_identity=row[2],
        state=row[3],
        attempts=row[4],
        request=json.loads(row[5]),
        reply=_reply_of(row),
        cost_usd=row[8],
        error=_parsed(row[9]),
        body=row[7] if row[6] is None else None,
        created_at=row[10],
        answered_at=row[11],
        n_unknown=row[13],
        upper_usd=row[14],
    )


def account_row(owner: str, spent: Spent) -> Row:
    """Return what an owner's calls came to as a row of its account."""
    return (owner, *spent)


def account_of(row: Row) -> Spent:
    """Return what the calls of an account came to."""
    return Spent(*row[1:])


def output_row(output: Output) -> Row:
    """Return the row of an output; its spans have rows of their own."""
    return (
        output.cell_id,
        to_json(output.value),
        str(output.status),
        _json(output.error),
        output.valid,
        output.latency_s,
        output.ttft_s,
        _count(output.input_tokens),
        _count(output.output_tokens),
        output.usage_estimated,
        output.cost_usd,
        _escaped(output.returned_model),
        time_text(output.created_at),
        output.unfiltered,
    )


def output_of(row: Row, spans: Iterable[Span]) -> Output:
    """Return the output of a row, with its spans in the order given."""
    return Output(
        cell_id=row[0],
        value=json.loads(row[1]),
        status=row[2],
        error=_parsed(row[3]),
        valid=row[4],
        latency_s=row[5],
        ttft_s=row[6],
        input_tokens=row[7],
        output_tokens=row[8],
        usage_estimated=row[9],
        cost_usd=row[10],
        returned_model=_unescaped(row[11]),
        spans=tuple(spans),
        created_at=row[12],
        unfiltered=row[13],
    )


def span_rows(output: Output) -> list[Row]:
    """Return a row for each step behind an output."""
    return [_span_row(output.cell_id, span) for span in output.spans]


def _span_row(cell_id: str, span: Span) -> Row:
    return (
        cell_id,
        whole(span.index),
        _count(span.parent),
        escape(span.name),
        span.kind,
        to_json(span.inputs),
        to_json(span.output),
        str(span.status),
        span.call_id,
        _escaped(span.model),
        _json(span.usage),
        span.cost_usd,
        span.start_s,
        span.duration_s,
        span.ttft_s,
        span.tpot_s,
        _json(span.error),
    )


def span_of(row: Row) -> Span:
    """Return the span of a row; the cell it belongs to is `row[0]`."""
    return Span(
        index=row[1],
        parent=row[2],
        name=unescape(row[3]),
        kind=row[4],
        inputs=json.loads(row[5]),
        output=json.loads(row[6]),
        status=row[7],
        call_id=row[8],
        model=_unescaped(row[9]),
        usage=_parsed(row[10]),
        cost_usd=row[11],
        start_s=row[12],
        duration_s=row[13],
        ttft_s=row[14],
        tpot_s=row[15],
        error=_parsed(row[16]),
    )


def score_row(cell_id: str, case_key: str, score: Score) -> Row:
    """Return the row of what one evaluator says of a cell's output, given what the case expects."""
    return (
        cell_id,
        score.evaluator_identity,
        case_key,
        escape(score.evaluator),
        score.value,
        _escaped(score.label),
        _escaped(score.truth),
        to_json(score.parts) if score.parts else "{}",
        _escaped(score.rationale),
        _escaped(score.error),
        to_json(score.sums) if score.sums else "[]",
        to_json(score.call_ids) if score.call_ids else "[]",
    )


def score_of(row: Row) -> Score:
    """Return the score of a row; its cell and case key are `row[0]` and `row[2]`."""
    return Score(
        evaluator_identity=row[1],
        evaluator=unescape(row[3]),
        value=row[4],
        label=_unescaped(row[5]),
        truth=_unescaped(row[6]),
        parts=json.loads(row[7]) if row[7] != "{}" else {},
        rationale=_unescaped(row[8]),
        error=_unescaped(row[9]),
        sums=json.loads(row[10]) if row[10] != "[]" else (),
        call_ids=json.loads(row[11]) if row[11] != "[]" else (),
    )


def run_texts(run: Run) -> tuple[str, str]:
    """Return the record of a run without its comparisons, and these: two columns, because they can be long."""
    fields = dict(run.__dict__)
    comparisons = fields.pop("comparisons")
    return to_json(fields), to_json(comparisons)


def run_of(record: str, comparisons: str = "[]") -> Run:
    """Return the run of the two."""
    return Run.model_validate({**json.loads(record), "comparisons": json.loads(comparisons)})


def verdict_of(record: str) -> Verdict:
    """Return the verdict of a record."""
    return Verdict.model_validate(json.loads(record))


@dataclass(slots=True)
class Rows:
    """What one transaction writes, encoded, by key: of two rows with one key the later stays.

    spans: all spans of each cell, which replace those it had. spent: what each of `calls` came to.
    is_doubtful: some of it may be written already, by a transaction of which nobody knows whether it went through.
    """

    intents: dict[str, Row] = field(default_factory=dict)
    calls: dict[str, Row] = field(default_factory=dict)
    spent: dict[str, Spent] = field(default_factory=dict)
    outputs: dict[str, Row] = field(default_factory=dict)
    spans: dict[str, list[Row]] = field(default_factory=dict)
    scores: dict[tuple[str, str, str], Row] = field(default_factory=dict)
    is_doubtful: bool = False

    def add_intent(self, row: Row) -> None:
        """Take in a call that is about to be sent."""
        self.intents[row[0]] = row

    def add_call(self, row: Row, spent: Spent) -> None:
        """Take in what came of a call, and to what it came, since it was last said.

        It is added to what was said of the call before; an answer is not given up for a failure.
        """
        call_id = row[0]
        known = self.calls.get(call_id)
        if known is not None:
            spent = self.spent[call_id].plus(spent)
            told = known if known[_STATE] == CallState.ANSWERED != row[_STATE] else row
            sums = {place: known[place] + row[place] for place in (_ATTEMPTS, _N_UNKNOWN)}
            row = tuple(sums.get(place, value) for place, value in enumerate(told))
        self.calls[call_id], self.spent[call_id] = row, spent

    def answered(self) -> list[Call]:
        """Return the calls that have an answer."""
        return [call_of(row) for row in self.calls.values() if row[_STATE] == CallState.ANSWERED]

    def add_output(self, row: Row, spans: list[Row]) -> None:
        """Take in an output and its spans."""
        self.outputs[row[0]], self.spans[row[0]] = row, spans

    def add_score(self, row: Row) -> None:
        """Take in what one evaluator says of a cell."""
        self.scores[row[:3]] = row

    def update(self, later: Rows) -> None:
        """Take in all of `later`."""
        self.is_doubtful = self.is_doubtful or later.is_doubtful
        for call_id, row in later.calls.items():
            self.add_call(row, later.spent[call_id])
        for mine, other in zip(self._parts(), later._parts(), strict=True):
            mine.update(other)

    def _parts(self) -> tuple[dict[Any, Any], ...]:
        return (self.intents, self.outputs, self.spans, self.scores)

    def __len__(self) -> int:
        return len(self.intents) + len(self.calls) + len(self.outputs) + len(self.scores)
