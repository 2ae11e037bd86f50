"""The chat protocol that OpenAI began and others speak: requests into JSON, replies and streams out of it.

Pure: bytes and plain data in, values out, so all of it is tested without a network. The SDKs hand through
whatever a service says; here a reply is a reply or an error. Sending and waiting is left to `exchange.py`.
"""

from __future__ import annotations

import json
import re
import zlib
from typing import TYPE_CHECKING, Any

from llmops.definitions.base import without_none
from llmops.errors import ReplyError, RequestError
from llmops.records import Reply, Status, Usage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llmops.records import Request

MOST_BYTES = 32 * 1024 * 1024
MOST_TOKENS = 10**8  # beyond any context there is: a count above it is a fault of the service

_LINE_END = re.compile(rb"\r\n|\n|\r(?=.)", re.DOTALL)  # a lone CR at the end may be half of a CRLF
_CUT_SHORT = frozenset({"length", "max_tokens", "model_length"})


# --- out --------------------------------------------------------------------------------------------------


def encode_chat(request: Request, model: str | None, parameters: frozenset[str]) -> dict[str, Any]:
    """Return the body of a chat request, parameters by llmops' own names.

    parameters: those the provider takes.

    Raises RequestError for any other, and for what JSON cannot hold, before anything is sent.
    """
    unknown = sorted(set(request.parameters) - parameters)
    if unknown:
        raise RequestError(
            f"the model does not take {', '.join(unknown)}; it takes {', '.join(sorted(parameters))}",
            sent=False,
        )
    schema = request.response_format
    fields = {
        "model": model,
        "messages": [{"role": message.role, "content": message.content} for message in request.messages],
        **request.parameters,
        "response_format": _structured(schema) if schema and schema.get("type") == "object" else None,
    }
    body = without_none(fields)
    try:
        json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise RequestError(f"the request cannot be written as JSON: {error}", sent=False) from error
    return body


def _structured(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "json_schema",
        "json_schema": {"name": "reply", "schema": schema, "strict": _is_strict(schema)},
    }


def _is_strict(schema: object) -> bool:
    """Return whether a service takes the schema as strict: every object closed, every property required."""
    if isinstance(schema, list):
        return all(map(_is_strict, schema))
    if not isinstance(schema, dict):
        return True
    if schema.get("type") == "object":
        closed = schema.get("additionalProperties") is False
        if not closed or set(schema.get("required", ())) != set(schema.get("properties", {})):
            return False
    return all(map(_is_strict, schema.values()))


# --- in, whole --------------------------------------------------------------------------------------------


def parse_json(data: bytes | str) -> object:
    """Return the JSON value of a body; bytes that are no UTF-8 become U+FFFD.

    Raises ReplyError for anything else, an empty body and nesting too deep included.
    """
    text = data.decode("utf-8-sig", "replace") if isinstance(data, bytes) else data
    if not text.strip():
        raise ReplyError("the reply is empty")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ReplyError(f"the reply is not JSON: {error}") from error


def decode(body: object) -> Reply:
    """Return the reply that a whole body holds.

    Raises ReplyError when it holds none: strict, because the SDKs pass on anything that is JSON.
    """
    if not isinstance(body, dict):
        raise ReplyError(f"the reply is a JSON {type(body).__name__} instead of an object")
    choice = _first_choice(body)
    message = _typed(choice, "message", dict) or {}
    finish_reason = _typed(choice, "finish_reason", str)
    status, text = _outcome(message, finish_reason)
    return Reply(
        text=clean(text),
        status=status,
        finish_reason=finish_reason and clean(finish_reason),
        model=clean(_typed(body, "model", str) or ""),
        system_fingerprint=clean(_typed(body, "system_fingerprint", str) or "") or None,
        request_id=clean(_typed(body, "id", str) or "") or None,
        usage=_usage(body.get("usage")),
    )


def _first_choice(body: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = body.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return choices[0]
    problem = f"an error: {clean(str(body['error']))[:300]}" if body.get("error") else "no choices"
    raise ReplyError(f"the reply holds {problem}")


def _typed(fields: Mapping[str, Any], key: str, kind: type) -> Any:
    """Return a field that is of one kind or absent."""
    value = fields.get(key)
    if value is not None and not isinstance(value, kind):
        raise ReplyError(f"{key} in the reply is a {type(value).__name__} instead of a {kind.__name__}")
    return value


def _outcome(message: Mapping[str, Any], finish_reason: str | None) -> tuple[Status, str]:
    content = _typed(message, "content", str)
    refusal = _typed(message, "refusal", str)
    if finish_reason == "content_filter":
        return Status.FILTERED, content or ""
    if refusal:
        return Status.REFUSED, content or refusal
    if finish_reason in _CUT_SHORT:
        return Status.TRUNCATED, content or ""
    if content is None:
        asked = "calls tools, which it was not given" if message.get("tool_calls") else "holds no text"
        raise ReplyError(f"the reply {asked}")
    return Status.OK, content


def _usage(found: object) -> Usage | None:
    """Return the tokens, or None when one count is none: an unknown cost must not look like a known one."""
    if not isinstance(found, dict):
        return None
    sent, made = found.get("prompt_tokens"), found.get("completion_tokens")
    if type(sent) is not int or type(made) is not int:  # a bool is no count
        return None
    if min(sent, made) < 0 or max(sent, made) > MOST_TOKENS:
        return None
    return Usage(input_tokens=sent, output_tokens=made)


def clean(text: str) -> str:
    """Return text that UTF-8 and every database can hold; surrogates without a partner, and NUL, are U+FFFD.

    The raw reply keeps what this loses.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


class Body:
    """The bytes of a reply as far as they came, inflated, and never more than `limit` of them."""

    def __init__(self, encoding: str, limit: int = MOST_BYTES) -> None:
        if encoding not in ("", "identity", "gzip", "deflate"):
            raise ReplyError(f"the reply is compressed as {encoding}, which was not asked for")
        self._inflater = zlib.decompressobj(32 + zlib.MAX_WBITS) if encoding in ("gzip", "deflate") else None
        self._limit = limit
        self._data = bytearray()

    def __bytes__(self) -> bytes:
        return bytes(self._data)

    def start(self, n_bytes: int) -> bytes:
        """Return the first bytes, without a copy of all."""
        return bytes(self._data[:n_bytes])

    def add(self, chunk: bytes) -> bytes:
        """Return what a chunk holds, inflated. Raises ReplyError past the limit, keeping what fits."""
        if self._inflater is not None:
            try:
                chunk = self._inflater.decompress(chunk, self._limit - len(self._data) + 1)
            except zlib.error as error:
                raise ReplyError(f"the reply is not compressed as it says: {error}") from error
        room = self._limit - len(self._data)
        self._data += chunk[:room]
        if len(chunk) > room:
            too_large = ReplyError(f"the reply is larger than {self._limit} bytes")
            too_large.kind = "too_large"
            raise too_large
        return chunk


# --- in, as a stream --------------------------------------------------------------------------------------


class EventReader:
    """Server-sent events out of bytes, by the HTML standard: comments and events without data are nothing."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._name = ""
        self._data: list[str] = []

    def feed(self, chunk: bytes) -> Iterator[tuple[str, str]]:
        """Yield name and data of every event that the chunk completes."""
        for line in self._lines(chunk):
            if not line:
                if self._data:
                    yield self._name, "\n".join(self._data)
                self._name, self._data = "", []
                continue
            field, _, value = line.decode("utf-8", "replace").partition(":")
            if field == "data":
                self._data.append(value.removeprefix(" "))
            elif field == "event":
                self._name = value.removeprefix(" ")

    def _lines(self, chunk: bytes) -> list[bytes]:
        self._parts.append(chunk)
        if b"\n" not in chunk and b"\r" not in chunk and not self._parts[0].endswith(b"\r"):
            return []  # joined only when a line ends: one event of many megabytes stays linear
        *lines, rest = _LINE_END.split(b"".join(self._parts))
        self._parts = [rest]
        return lines


class StreamedChat:
    """The pieces of a streamed reply, put together as the whole body that they are pieces of.

    first_s, last_s: when the first and the last text came, None before. error: what the service reported.
    """

    def __init__(self) -> None:
        self.first_s: float | None = None
        self.last_s: float | None = None
        self.done = False
        self.error: object = None
        self._head: dict[str, Any] = {}
        self._message: dict[str, Any] = {}
        self._finish_reason: str | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the service said that it had finished."""
        return self.done or self._finish_reason is not None

    def add(self, name: str, data: str, at_s: float) -> None:
        """Take one event. Raises ReplyError for one that is no piece of a reply."""
        if data.strip() == "[DONE]":
            self.done = True
            return
        piece = parse_json(data)
        if not isinstance(piece, dict):
            raise ReplyError(f"a piece of the stream is a JSON {type(piece).__name__} instead of an object")
        if name == "error" or piece.get("error"):
            self.error = piece
            return
        if not isinstance(piece.get("choices"), list):
            raise ReplyError("a piece of the stream holds no choices")
        kept = ("id", "model", "system_fingerprint", "usage")
        self._head |= {key: piece[key] for key in kept if piece.get(key) is not None}
        for choice in piece["choices"]:
            self._add_choice(choice, at_s)

    def _add_choice(self, choice: object, at_s: float) -> None:
        if not isinstance(choice, dict):
            raise ReplyError(f"a choice of the stream is a {type(choice).__name__} instead of an object")
        self._finish_reason = _typed(choice, "finish_reason", str) or self._finish_reason
        delta = _typed(choice, "delta", dict) or {}
        for key in ("content", "refusal"):
            text = _typed(delta, key, str)
            if text is not None:
                self._message[key] = self._message.get(key, "") + text
        if delta.get("tool_calls"):
            self._message["tool_calls"] = delta["tool_calls"]
        if delta.get("content"):
            self.first_s = at_s if self.first_s is None else self.first_s
            self.last_s = at_s

    def reply(self) -> Reply:
        """Return the reply so far; one that broke off is truncated, whatever it holds."""
        if not self._message and not self.is_whole:
            raise ReplyError("the stream ended before the reply began")
        if not self.is_whole:
            self._message.setdefault("content", "")
        choice = {"message": self._message, "finish_reason": self._finish_reason}
        reply = decode({**self._head, "choices": [choice]})
        if not self.is_whole:
            reply = reply.model_copy(update={"status": Status.TRUNCATED})
        return reply.model_copy(update={"ttft_s": self.first_s, "tpot_s": self._tpot_s(reply.usage)})

    def _tpot_s(self, usage: Usage | None) -> float | None:
        if usage is None or usage.output_tokens < 2 or self.first_s is None or self.last_s is None:
            return None
        return (self.last_s - self.first_s) / (usage.output_tokens - 1)
