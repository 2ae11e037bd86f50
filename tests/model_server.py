"""A model server on this machine: a real one for HTTP, a made-up one for what it says.

It speaks three protocols (OpenAI, Azure OpenAI by deployment, Azure inference) with chat, embeddings and model
information, answers by the request alone, so that a run can be repeated, keeps a ledger of what it received, and
fails on demand: `[[fault:NAME]]` anywhere in the messages or inputs, `[[fault:NAME:2]]` for the first two requests
of an idempotency key. NAME is one of FAULTS or an HTTP status. `[[say:TEXT]]` in the last message is answered so,
`[[wait:MS]]` anywhere that much later. What `turns(...)` gives, in a message, scripts the conversation that follows:
calls of tools or texts, one after the other. `script`, `outage` and `revoked` fail whatever is asked.

    with running_model_server(delay_ms=50) as server:      # in a thread of the test
    python tests/model_server.py --delay-ms 50 --ledger ledger.jsonl      # prints its base URL first
    python tests/model_server.py --limit '{"per_s": 20, "tells": true}'   # refuses beyond, see RateLimit
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gzip
import hashlib
import json
import math
import re
import signal
import socket
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from aiohttp import web

if TYPE_CHECKING:
    import ssl

MARKER = re.compile(r"\[\[fault:([a-z0-9_-]+)(?::(\d+))?\]\]")
SAY = re.compile(r"\[\[say:(.*?)\]\]", re.DOTALL)
WAIT = re.compile(r"\[\[wait:(\d+)\]\]")
TURNS = re.compile(r"\[\[turns:([^\]]*)\]\]")
LABELS = re.compile(r":\s*([A-Za-z][\w-]*(?:, [A-Za-z][\w-]*)+)")
IDENTITY = "whoever-runs-this"
MEGABYTE = b" " * 1_000_000


@dataclass
class Received:
    """One request as it came. Times are seconds since the epoch; status, answered_at None until it ends.

    usage: what is billed, whether or not anybody hears the answer; None where nothing was carried out.
    """

    call_id: str
    path: str
    query: dict[str, str]
    headers: dict[str, str] = field(repr=False)
    body: dict[str, Any] = field(repr=False)
    fault: str
    arrived_at: float
    answered_at: float | None = None
    status: int | None = None
    usage: dict[str, int] | None = None


def turns(*script: str | list[tuple[str, Any]]) -> str:
    """Return the marker that scripts what is answered next: a text, or calls as (tool, input); the last one stays.

    An input that is a text is sent as it is, JSON or not.
    """
    return f"[[turns:{quote(json.dumps(script), safe='')}]]"


# --- what it answers --------------------------------------------------------------------------------------


def reply_text(body: dict[str, Any]) -> str:
    """Return the answer: of the asked form, one of the listed labels, what a tool said or an image is, or an echo."""
    said = [_text_of(message) for message in body["messages"]]
    digest = hashlib.sha256(json.dumps([said, body.get("seed")]).encode()).hexdigest()
    if told := SAY.search(said[-1]):
        return told[1]
    wanted = body.get("response_format", {}).get("json_schema")
    if wanted:
        return json.dumps(_filled(wanted["schema"], digest))
    if body["messages"][-1]["role"] == "tool":
        return f"the tool said {said[-1]}"
    listed = LABELS.findall(said[0])
    if listed:
        return str(_picked(listed[-1].split(", "), said[-1], digest))
    images = _images_of(body["messages"])
    if images:
        return f"saw {', '.join(hashlib.sha256(image.encode()).hexdigest()[:8] for image in images)}"
    return f"echo {digest[:12]}"


def _text_of(message: dict[str, Any]) -> str:
    content = message["content"] or ""
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part["type"] == "text")


def _images_of(messages: list[dict[str, Any]]) -> list[str]:
    contents = [message["content"] for message in messages if isinstance(message["content"], list)]
    return [part["image_url"]["url"] for parts in contents for part in parts if part["type"] == "image_url"]


def tool_calls(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a call of each tool whose name the last message says, with arguments that fit; a tool's answer ends it."""
    scripted = _scripted(body)
    if scripted is not None:
        n_before = sum(len(message.get("tool_calls") or ()) for message in body["messages"])
        asked = [] if isinstance(scripted, str) else scripted
        return [_call(n_before + place, *call) for place, call in enumerate(asked)]
    last = body["messages"][-1]
    functions = [tool["function"] for tool in body.get("tools", []) if last["role"] == "user"]
    named = [function for function in functions if function["name"] in _text_of(last)]
    return [
        _call(place, function["name"], _filled(function["parameters"], f"{place}a"))
        for place, function in enumerate(named)
    ]


def _call(number: int, name: str, given: Any) -> dict[str, Any]:
    arguments = given if isinstance(given, str) else json.dumps(given)
    return {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": arguments}}


def _scripted(body: dict[str, Any]) -> Any:
    """Return the turn that comes next, by how often the model has spoken since the marker; None without one."""
    messages = body["messages"]
    for place, message in enumerate(messages):
        if told := TURNS.search(_text_of(message)):
            script = json.loads(unquote(told[1]))
            n_said = sum(later["role"] == "assistant" for later in messages[place + 1 :])
            return script[min(n_said, len(script) - 1)]
    return None


def _picked(labels: list[Any], text: str, digest: str) -> Any:
    named = [label for label in labels if str(label) in text]
    return named[0] if named else labels[int(digest, 16) % len(labels)]


def _filled(schema: dict[str, Any], digest: str) -> Any:
    if "enum" in schema:
        return _picked(schema["enum"], "", digest)
    low = schema.get("minimum", 0)
    made: dict[str, Callable[[], Any]] = {
        "object": lambda: {key: _filled(part, digest) for key, part in schema.get("properties", {}).items()},
        "array": lambda: [_filled(schema.get("items", {}), digest)],
        "integer": lambda: low + int(digest, 16) % (schema.get("maximum", low + 10) - low + 1),
        "number": lambda: low + int(digest, 16) % 100 / 100 * (schema.get("maximum", low + 1) - low),
        "boolean": lambda: int(digest, 16) % 2 == 0,
    }
    return made.get(schema.get("type", ""), lambda: f"echo {digest[:12]}")()


def whole_reply(body: dict[str, Any]) -> dict[str, Any]:
    """Return the completion, cut at max_tokens; a word counts as one token."""
    scripted = _scripted(body)
    words = re.findall(r"\s*\S+", scripted if isinstance(scripted, str) else reply_text(body))
    limit = body.get("max_tokens") or body.get("max_completion_tokens") or len(words)
    kept = words[:limit]
    sent = sum(len(_text_of(message).split()) for message in body["messages"])
    calls = tool_calls(body)
    message: dict[str, Any] = {"role": "assistant", "content": "".join(kept)}
    if calls:
        message = {"role": "assistant", "content": None, "tool_calls": calls}
    finish_reason = "tool_calls" if calls else "stop" if len(kept) == len(words) else "length"
    return {
        "id": "chatcmpl-test",
        "object": "chat.completion",
        "created": 1,
        "model": body.get("model", "only-model"),
        "system_fingerprint": "fp_test",
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": sent, "completion_tokens": len(kept), "total_tokens": sent + len(kept)},
    }


def streamed_reply(reply: dict[str, Any], *, with_usage: bool) -> list[bytes]:
    """Return the events of a completion: the role, words or pieces of calls, how it finished, the usage, the end."""
    head = {key: reply[key] for key in ("id", "created", "model", "system_fingerprint")}
    choice = reply["choices"][0]
    said = choice["message"]["content"]
    words = [{"content": word} for word in re.findall(r"\s*\S+", said or "")]
    words += [{"refusal": word} for word in re.findall(r"\s*\S+", choice["message"].get("refusal") or "")]
    calls = list(_call_pieces(choice["message"].get("tool_calls", [])))
    deltas: list[dict[str, Any]] = [
        {"role": "assistant", "content": None if calls or said is None else ""},
        *words,
        *calls,
        {},
    ]
    pieces = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    pieces[-1]["finish_reason"] = choice["finish_reason"]
    chunks: list[dict[str, Any]] = [{**head, "choices": [piece]} for piece in pieces]
    if with_usage:
        chunks.append({**head, "choices": [], "usage": reply["usage"]})
    return [*(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks), b"data: [DONE]\n\n"]


def _call_pieces(calls: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield calls as OpenAI streams them: the name with an id, then the arguments a few characters at a time."""
    for index, call in enumerate(calls):
        function = {"name": call["function"]["name"], "arguments": ""}
        yield {"tool_calls": [{**call, "index": index, "function": function}]}
        for piece in re.findall(r".{1,5}", call["function"]["arguments"]):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def vectors_reply(body: dict[str, Any]) -> dict[str, Any]:
    """Return a vector for each input, by its hash alone, the last first: the order is that of `index`."""
    size = body.get("dimensions") or 8
    data = [
        {"object": "embedding", "index": index, "embedding": _vector(json.dumps(each), size)}
        for index, each in enumerate(body["input"])
    ]
    n_words = sum(len(str(each).split()) for each in body["input"])
    return {
        "id": "embd-test",
        "object": "list",
        "model": body.get("model", "only-model"),
        "data": data[::-1],
        "usage": {"prompt_tokens": n_words, "total_tokens": n_words},
    }


def _vector(text: str, size: int) -> list[float]:
    digest = hashlib.shake_256(text.encode()).digest(2 * size)
    return [int.from_bytes(digest[at : at + 2], "big") / 2**15 - 1 for at in range(0, 2 * size, 2)]


# --- how it fails -----------------------------------------------------------------------------------------

Edit = Callable[[dict[str, Any]], Any]
Spoil = Callable[[bytes], tuple[bytes, dict[str, str]]]
Disturb = Callable[[list[bytes]], list[bytes]]


def _untouched(good: Any) -> Any:
    return good


def _plain(good: bytes) -> tuple[bytes, dict[str, str]]:
    return good, {}


def _message(**fields: Any) -> Edit:
    def edit(reply: dict[str, Any]) -> dict[str, Any]:
        reply["choices"][0]["message"] |= fields
        return reply

    return edit


def _choice(**fields: Any) -> Edit:
    def edit(reply: dict[str, Any]) -> dict[str, Any]:
        reply["choices"][0] |= fields
        return reply

    return edit


def _with(**fields: Any) -> Edit:
    return lambda reply: {**reply, **fields}


def _filtered(reply: dict[str, Any]) -> dict[str, Any]:
    return dict(_message(content=None)(_choice(finish_reason="content_filter")(reply)))


def _each_call(reply: dict[str, Any], change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    for call in reply["choices"][0]["message"].get("tool_calls", []):
        change(call)
    return reply


def _vectors(change: Callable[[list[dict[str, Any]]], object]) -> Edit:
    def edit(reply: dict[str, Any]) -> dict[str, Any]:
        change(reply["data"])
        return reply

    return edit


# Vectors that are not one for each input, all of one length and finite, from good ones; the last input comes first.
VECTOR_EDITS: dict[str, Edit] = {
    "too-few-vectors": _vectors(lambda data: data.pop()),
    "too-many-vectors": _vectors(lambda data: data.append(data[0])),
    "no-vectors": lambda reply: {**reply, "data": None},
    "doubled-index": _vectors(lambda data: data[0].update(index=0)),
    "index-beyond": _vectors(lambda data: data[0].update(index=len(data))),
    "no-index": _vectors(lambda data: data[0].pop("index")),
    "ragged-vectors": _vectors(lambda data: data[0]["embedding"].pop()),
    "empty-vector": _vectors(lambda data: data[0].update(embedding=[])),
    "nan-vector": _vectors(lambda data: data[0].update(embedding=[float("nan")] * 8)),
    "huge-vector": _vectors(lambda data: data[0].update(embedding=[10**400] * 8)),
    "text-vector": _vectors(lambda data: data[0].update(embedding="AAAAAA==")),
    "texts-vector": _vectors(lambda data: data[0].update(embedding=["0.5"] * 8)),
    "vectors-error": lambda _: {"error": {"message": "made to fail", "code": "server_error"}},
    "vectors-usage-missing": lambda reply: {**reply, "usage": None},
}

BIDI = "safe \u202egnp.exe\u202c \u2066end\u2069"

# A reply that is JSON but not what was asked for, from the good one.
EDITS: dict[str, Edit] = {
    "array": lambda reply: [reply],
    "error-object": lambda _: {"error": {"message": "made to fail", "code": "server_error"}},
    "no-choices": lambda reply: {key: value for key, value in reply.items() if key != "choices"},
    "empty-choices": _with(choices=[]),
    "mistyped-choices": _with(choices="none"),
    "mistyped-message": _choice(message="hello"),
    "mistyped-content": _message(content=["hello"]),
    "null-content": _message(content=None),
    "tool-calls": _message(content=None, tool_calls=[{"id": "1", "type": "function"}]),
    "tool-no-ids": lambda reply: _each_call(reply, lambda call: call.pop("id")),
    "tool-same-ids": lambda reply: _each_call(reply, lambda call: call.update(id="same")),
    "tool-no-names": lambda reply: _each_call(reply, lambda call: call["function"].pop("name")),
    "tool-objects": lambda reply: _each_call(reply, lambda call: call["function"].update(arguments={})),
    "refusal": _message(content=None, refusal="I cannot help with that."),
    "finish_filter": _filtered,
    "length": _choice(finish_reason="length"),
    "usage-missing": _with(usage=None),
    "usage-strings": _with(usage={"prompt_tokens": "12", "completion_tokens": "3"}),
    "usage-negative": _with(usage={"prompt_tokens": -1, "completion_tokens": 3}),
    "usage-huge": _with(usage={"prompt_tokens": 10**30, "completion_tokens": 3}),
    "unfiltered": _choice(content_filter_results={"error": {"code": "content_filter_error"}}),
    "unfiltered-prompt": _with(
        prompt_filter_results=[{"content_filter_results": {"error": {"code": "content_filter_error"}}}]
    ),
    "filter-ran": _choice(content_filter_results={"hate": {"filtered": False, "severity": "safe"}}),
    "other-model": _with(model="another-model"),
    "surrogate": _message(content="a\ud800b\0c"),
    "bidi": _message(content=BIDI),
    "marks": _message(content="e" + "\u0301" * 1_000_000),
}
EITHER = (
    "array",
    "error-object",
    "other-model",
    "usage-missing",
    "usage-strings",
    "usage-negative",
    "usage-huge",
)
"""Edits that mean the same for vectors."""
STREAMED = ("bidi", "finish_filter", "length", "marks", "null-content", "refusal", "surrogate", *EITHER[2:])
"""Edits that leave a reply that can be streamed; after any other a stream is answered whole."""

# A body that is not even that: bytes and their content type, from the good one's bytes.
BODIES: dict[str, Spoil] = {
    "html": lambda _: (b"<html><body>Welcome to the proxy</body></html>", {"Content-Type": "text/html"}),
    "empty": lambda _: (b"", {}),
    "truncated-json": lambda good: (good[: len(good) // 2], {}),
    "deep-json": lambda _: (b"[" * 200_000, {}),
    "invalid-utf8": lambda good: (good.replace(b"echo", b"\xff\xfe"), {}),
    "bom": lambda good: (b"\xef\xbb\xbf" + good, {}),
    "gzip": lambda good: (gzip.compress(good), {"Content-Encoding": "gzip"}),
    "gzip-broken": lambda good: (good, {"Content-Encoding": "gzip"}),
    "brotli": lambda good: (good, {"Content-Encoding": "br"}),
}


def _bomb() -> Iterator[bytes]:
    """Yield a gzip stream of a gigabyte, a megabyte of body: what is flushed can be sent again and again."""
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS + 16)
    yield packer.compress(MEGABYTE) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(MEGABYTE) + packer.flush(zlib.Z_FULL_FLUSH)
    yield from [again] * 999


# A body that is too large, piece by piece.
HUGE: dict[str, tuple[Callable[[], Iterator[bytes]], dict[str, str]]] = {
    "gzip-bomb": (_bomb, {"Content-Encoding": "gzip"}),
    "big-body": (lambda: iter([MEGABYTE] * 200), {}),
}

_FILTERED = {
    "code": "content_filter",
    "message": "The prompt was filtered.",
    "innererror": {
        "code": "ResponsibleAIPolicyViolation",
        "content_filter_result": {
            "hate": {"filtered": False},
            "violence": {"filtered": True, "severity": "high"},
        },
    },
}
_LONG = {
    "code": "context_length_exceeded",
    "message": "This model's maximum context length is 4096 tokens, and the messages have 5000.",
}
_DATES = {"Date": "Wed, 21 Oct 2015 07:28:00 GMT", "Retry-After": "Wed, 21 Oct 2015 07:28:03 GMT"}


def _dates(off_h: int) -> dict[str, str]:
    """Return the headers of a clock that is so many hours off and asks to wait for a second."""
    now = time.time() + off_h * 3600
    return {"Date": formatdate(now, usegmt=True), "Retry-After": formatdate(now + 1, usegmt=True)}


NONSENSE = ("soon", "nan", "inf", "-5", "1e400", "9" * 5000)
"""What is no number of seconds to wait, each the fault `nonsense-N`."""
QUOTA_CODES = (
    "insufficient_quota",
    "credit_balance_exhausted",
    "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded",
    "organization_usage_limit_exceeded",
)

# An answer that is no success: status, error and headers. Any three digits do as well.
STATUSES: dict[str, tuple[int, dict[str, Any], dict[str, str]]] = {
    "content_filter": (400, _FILTERED, {"Retry-After": "1"}),
    "context_length": (400, _LONG, {}),
    "unknown-model": (400, {"code": "unknown_model", "message": "Unknown model"}, {}),
    "quota": (
        429,
        {"code": None, "type": "insufficient_quota", "message": "no credit"},
        {"Retry-After": "1"},
    ),
    **{code: (429, {"code": code, "message": "no credit"}, {}) for code in QUOTA_CODES},
    "retry-after": (429, {"code": "rate_limit_exceeded"}, {"Retry-After": "2", "retry-after-ms": "50"}),
    "retry-after-ms": (429, {"code": "rate_limit_exceeded"}, {"x-ms-retry-after-ms": "50"}),
    "retry-after-date": (429, {"code": "rate_limit_exceeded"}, _DATES),
    "retry-after-fast": (429, {"code": "rate_limit_exceeded"}, _dates(1)),
    "retry-after-slow": (429, {"code": "rate_limit_exceeded"}, _dates(-1)),
    "retry-after-brief": (429, {"code": "rate_limit_exceeded"}, {"Retry-After": "0.2"}),
    "retry-after-own": (429, {"code": "slow_down"}, {"retry-after-ms": "250", "x-ms-retry-after-ms": "20"}),
    "retry-after-azure": (429, {"code": "slow_down"}, {"x-ms-retry-after-ms": "250", "Retry-After": "0.02"}),
    **{
        f"nonsense-{place}": (429, {"code": "slow_down"}, {"Retry-After": text})
        for place, text in enumerate(NONSENSE)
    },
    "retry-after-soon": (429, {"code": "rate_limit_exceeded"}, {"Retry-After": "soon"}),
    "503-retry-after": (503, {"message": "busy"}, {"Retry-After": "3"}),
    "400-should-retry": (400, {"message": "no"}, {"x-should-retry": "true"}),
    "503-should-not-retry": (503, {"message": "busy"}, {"x-should-retry": "false"}),
    "401-retry-after": (401, {"message": "no"}, {"Retry-After": "3"}),
    **{
        f"{status}-retry-after": (status, {"message": f"no {status}"}, {"Retry-After": "3"})
        for status in (400, 413, 422)
    },
}


def _sse_error(events: list[bytes]) -> list[bytes]:
    return [*events[:2], b'data: {"error": {"message": "made to fail", "code": "server_error"}}\n\n']


def _sse_split(events: list[bytes]) -> list[bytes]:
    joined = b"".join(events).replace(b"\n", b"\r\n")
    return [joined[at : at + 1] for at in range(len(joined))]


# A stream that goes wrong, from the events of the good one; how it ends is in ENDINGS.
STREAMS: dict[str, Disturb] = {
    "sse-bad-json": lambda events: [*events[:2], b"data: {half\n\n", *events[2:]],
    "sse-array": lambda events: [*events[:2], b"data: []\n\n", *events[2:]],
    "sse-comment": lambda events: [b": ping\n\n", *events[:2], b": ping\n", *events[2:]],
    "sse-event-only": lambda events: [*events[:2], b"event: ping\n\n", b"id: 7\n\n", *events[2:]],
    "sse-no-done": lambda events: events[:2],
    "sse-finish-no-done": lambda events: events[:-1],
    "sse-nothing": lambda _: [],
    "sse-error": _sse_error,
    "sse-error-event": lambda events: [*events[:2], b'event: error\ndata: {"message": "overloaded"}\n\n'],
    "sse-quota": lambda events: [*events[:2], b'data: {"error": {"code": "insufficient_quota"}}\n\n'],
    "sse-crlf": _sse_split,
    "sse-cut": lambda events: events[:2],
    "sse-reset": lambda events: events[:2],
    "sse-stall": lambda events: events[:2],
    "sse-open": lambda events: events,
    "bom": lambda events: [b"\xef\xbb\xbf" + events[0], *events[1:]],
    "invalid-utf8": lambda events: [event.replace(b"echo", b"\xff\xfe") for event in events],
    "sse-huge": lambda _: [b"data: ", *[MEGABYTE] * 50],
}
ENDINGS = {"sse-cut": "cut", "sse-reset": "reset", "sse-stall": "stall", "sse-open": "stall"}

WIRES = (
    "reset",
    "close",
    "stall",
    "stall-body",
    "drip",
    "short-body",
    "redirect",
    "redirect-308",
    "redirect-loop",
    "401-echo",
)
BILLED_WIRES = frozenset({"close", "stall", "stall-body", "drip", "short-body"})
"""Broken after the work was done; a `reset` comes before it."""
LATE_S = 0.8
"""After so long an answer is `late`; a test waits for less."""
FAULTS = tuple(dict.fromkeys([*EDITS, *BODIES, *HUGE, *STATUSES, *STREAMS, *WIRES, "late", "echo-key"]))


@dataclass
class RateLimit:
    """A limiter of `per_s` requests a second with room for `burst`; in windows of `window_s`, if that is given.

    hint: whether a refusal asks to wait, in whole seconds and in milliseconds. tells: whether each answer says what
    is left.
    """

    per_s: float
    burst: float = 20.0
    window_s: float | None = None
    hint: bool = True
    tells: bool = False
    _left: float | None = None
    _at: float = 0.0

    def take(self) -> bool:
        """Return whether one more request may be answered now."""
        now = time.monotonic()
        most = self.per_s * self.window_s if self.window_s else self.burst
        if self._left is None:
            self._left = most
        elif self.window_s is None:
            self._left = min(most, self._left + self.per_s * (now - self._at))
        elif now // self.window_s > self._at // self.window_s:
            self._left = most
        self._at = now
        is_taken = self._left >= 1
        self._left -= is_taken
        return is_taken

    def headers(self, *, is_taken: bool) -> dict[str, str]:
        """Return what goes with the answer that `take` was just asked for."""
        left = self._left or 0.0
        most = self.per_s * self.window_s if self.window_s else self.burst
        rest_s = self.window_s - self._at % self.window_s if self.window_s else 0.0
        reset_s = rest_s or (most - left) / self.per_s
        wait_s = rest_s or max(0.0, 1 - left) / self.per_s
        told = {
            "x-ratelimit-limit-requests": str(int(most)),
            "x-ratelimit-remaining-requests": str(int(left)),
            "x-ratelimit-reset-requests": f"{1000 * reset_s:.0f}ms",
        }
        asked = {"Retry-After": str(math.ceil(wait_s)), "retry-after-ms": f"{1000 * wait_s:.0f}"}
        return {**(told if self.tells else {}), **(asked if self.hint and not is_taken else {})}


# --- the server -------------------------------------------------------------------------------------------


class ModelServer:
    """What the server is set to, and what it has received. limit: None takes all.

    fails_after: a status that it answers after so many requests, as when a key is revoked; None for never.
    elsewhere: where the fault `redirect` points.
    stored: completions that were to be kept. lists: whether it tells of them.
    token_life_s: how long a token of its identity endpoint is good; below 0 none comes.
    script: faults of the next requests, one each, "" for none. outage: that of all others. revoked: keys that it
    knows no more.
    """

    def __init__(self, *, delay_ms: float = 0.0, ledger: Path | None = None) -> None:
        self.base_url = ""
        self.delay_s = delay_ms / 1000
        self.elsewhere = ""
        self.token_life_s = 3600
        self.script: list[str] = []
        self.outage = ""
        self.revoked: set[str] = set()
        self.tokens: list[dict[str, str]] = []
        self.received: list[Received] = []
        self.stored: list[dict[str, Any]] = []
        self.lists = True
        self.limit: RateLimit | None = None
        self.fails_after: tuple[int, int] | None = None
        self._ledger = ledger
        self._failed: Counter[tuple[str, str]] = Counter()

    @property
    def openai_url(self) -> str:
        """The endpoint for OpenAI clients."""
        return f"{self.base_url}/v1"

    @property
    def azure_url(self) -> str:
        """The endpoint for Azure inference clients."""
        return f"{self.base_url}/models"

    def url_of(self, provider: str) -> str:
        """Return the endpoint for a provider's clients; Azure OpenAI's is the resource itself."""
        own = {"azure_inference": self.azure_url, "azure_openai": self.base_url}
        return own.get(provider, self.openai_url)

    def application(self) -> web.Application:
        """Return the routes: OpenAI's, Azure OpenAI's by deployment, and those of Azure inference."""
        app = web.Application(client_max_size=2**30)
        deployment = "/openai/deployments/{deployment}"
        for root in ("/v1", deployment, "", "/models"):
            app.router.add_post(f"{root}/chat/completions", self._chat)
            app.router.add_post(f"{root}/embeddings", self._embeddings)
        for root in ("", "/models"):
            app.router.add_post(f"{root}/images/embeddings", self._embeddings)
            app.router.add_get(f"{root}/info", self._info)
        app.router.add_get("/v1/models/{model}", self._info)
        for root in ("/v1", "/openai"):
            app.router.add_get(f"{root}/chat/completions", self._list)
        app.router.add_get("/identity", self._token)
        app.router.add_route("*", "/api/{tail:.*}", self._operation)
        return app

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._serve(request, "messages", whole_reply, EDITS)

    async def _embeddings(self, request: web.Request) -> web.StreamResponse:
        return await self._serve(
            request, "input", vectors_reply, VECTOR_EDITS | {name: EDITS[name] for name in EITHER}
        )

    async def _serve(
        self,
        request: web.Request,
        marked: str,
        made: Callable[[dict[str, Any]], dict[str, Any]],
        edits: dict[str, Edit],
    ) -> web.StreamResponse:
        """Answer with what is made of the body, spoilt as the field `marked` asks for."""
        arrived_at = time.time()
        body = json.loads(await request.read())
        call_id = request.headers.get("Idempotency-Key", "")
        text = json.dumps(body[marked])
        fault = self._due(text, call_id, _key_of(request))
        if self.fails_after and len(self.received) >= self.fails_after[1]:
            fault = str(self.fails_after[0])
        noted = self._noted(request, call_id, body, fault, arrived_at)
        is_taken = self.limit is None or self.limit.take()
        told = self.limit.headers(is_taken=is_taken) if self.limit else {}
        if not is_taken:
            noted.status, noted.answered_at = 429, time.time()
            self._write(noted)
            return web.json_response({"error": {"code": "rate_limit_exceeded"}}, status=429, headers=told)
        if not fault or fault in BILLED_WIRES or (fault not in (*STATUSES, *WIRES) and not fault.isdigit()):
            noted.usage = self._carried_out(body, made(body))
        try:
            if "deployment" in request.match_info and "api-version" not in request.query:
                response: web.StreamResponse = web.json_response({"error": {"code": "404"}}, status=404)
            else:
                await asyncio.sleep(sum(map(int, WAIT.findall(text))) / 1000)
                response = await self._answer(request, body, fault, made, edits)
            if not response.prepared:
                response.headers.update(told)
            noted.status = response.status
            return response
        finally:
            noted.answered_at = time.time()
            self._write(noted)

    def _carried_out(self, body: dict[str, Any], reply: dict[str, Any]) -> dict[str, int]:
        """Keep a completion where that was asked for; return what is billed for it."""
        if body.get("store"):
            self.stored.append({**reply, "metadata": body.get("metadata", {})})
        return dict(reply["usage"])

    async def _operation(self, request: web.Request) -> web.StreamResponse:
        """Answer as an API that tells what it was asked, spoilt as its query or body asks for."""
        arrived_at = time.time()
        text = (await request.read()).decode()
        call_id = request.headers.get("Idempotency-Key", "")
        fault = self._due(f"{request.query_string and dict(request.query)} {text}", call_id, _key_of(request))
        asked = {"method": request.method, "path": request.raw_path.partition("?")[0], "text": text}
        noted = self._noted(request, call_id, asked, fault, arrived_at)
        told = {**asked, "query": [list(pair) for pair in request.query.items()]}
        try:
            made: dict[str, Edit] = {}
            response = await self._answer(request, {}, fault, lambda _: told, made)
            noted.status = response.status
            return response
        finally:
            noted.answered_at = time.time()
            self._write(noted)

    async def _list(self, request: web.Request) -> web.StreamResponse:
        """List the completions kept, by the metadata asked for."""
        noted = self._noted(request, "", {}, "", time.time())
        noted.status = 200 if self.lists else 503
        if not self.lists:
            return web.json_response({"error": {"message": "made to fail"}}, status=503)
        wanted = {
            name[1]: value
            for key, value in request.query.items()
            if (name := re.fullmatch(r"metadata\[(\w+)\]", key))
        }
        found = [kept for kept in self.stored if wanted.items() <= kept["metadata"].items()]
        limited = found[: int(request.query.get("limit", "20"))]
        return web.json_response({"object": "list", "data": limited, "has_more": len(found) > len(limited)})

    async def _info(self, request: web.Request) -> web.StreamResponse:
        """Say what the model is; of `missing` nobody knows."""
        noted = self._noted(request, "", {}, "", time.time())
        model = request.match_info.get("model")
        known = {"id": model, "object": "model", "created": 1, "owned_by": "test"}
        if model is None:
            known = {
                "model_name": "only-model",
                "model_type": "chat-completion",
                "model_provider_name": "test",
            }
        noted.status = 404 if model == "missing" else 200
        return web.json_response(known if noted.status == 200 else {"error": {}}, status=noted.status)

    async def _token(self, request: web.Request) -> web.StreamResponse:
        """Give a token as App Service gives one to the identity of an application."""
        if request.headers.get("X-IDENTITY-HEADER") != IDENTITY:
            return web.json_response({"statusCode": 400}, status=400)
        if self.token_life_s < 0:
            await _end(request, "stall")
        token = f"eyJ.canary/{len(self.tokens)}+0123456789="
        self.tokens.append({**request.query, "token": token})
        expires_on = str(int(time.time()) + self.token_life_s)
        given = {"access_token": token, "expires_on": expires_on, "token_type": "Bearer"}
        return web.json_response({**given, "resource": request.query["resource"]})

    def _noted(
        self, request: web.Request, call_id: str, body: dict[str, Any], fault: str, arrived_at: float
    ) -> Received:
        headers = {name.lower(): value for name, value in request.headers.items()}
        noted = Received(call_id, request.path, dict(request.query), headers, body, fault, arrived_at)
        self.received.append(noted)
        return noted

    def _due(self, text: str, call_id: str, key: str) -> str:
        """Return the fault that is due for a request, empty for none."""
        if self.script:
            return self.script.pop(0)
        if key in self.revoked:
            return "401"
        found = MARKER.search(text)
        if found is None or self.outage:
            return self.outage
        name, times = found.groups()
        self._failed[call_id, name] += 1
        return "" if times and self._failed[call_id, name] > int(times) else name

    def _write(self, noted: Received) -> None:
        if self._ledger is not None:
            shown = {key: value for key, value in asdict(noted).items() if key != "headers"}
            with self._ledger.open("a", encoding="utf-8") as file:
                file.write(json.dumps(shown) + "\n")

    async def _answer(
        self,
        request: web.Request,
        body: dict[str, Any],
        fault: str,
        made: Callable[[dict[str, Any]], dict[str, Any]],
        edits: dict[str, Edit],
    ) -> web.StreamResponse:
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if fault in WIRES:
            return await self._break(request, fault)
        if fault in HUGE:
            return await self._pour(request, *HUGE[fault])
        if fault == "late":
            await asyncio.sleep(LATE_S)
        if fault in STATUSES or fault.isdigit():
            plain = int(fault) if fault.isdigit() else 0
            status, error, headers = STATUSES.get(fault, (plain, {"message": "made to fail"}, {}))
            return web.json_response({"error": error}, status=status, headers=headers)
        reply = made(body)
        if fault == "echo-key":
            reply["choices"][0]["message"]["content"] = _key_of(request)
        edit: Edit = edits.get(fault, _untouched)
        if body.get("stream") and (fault in ("", "echo-key", "late", *STREAMED) or fault in STREAMS):
            return await self._stream(request, edit(reply), fault, with_usage=_wants_usage(request, body))
        spoil: Spoil = BODIES.get(fault, _plain)
        content, headers = spoil(json.dumps(edit(reply)).encode())
        return web.Response(body=content, headers={"Content-Type": "application/json", **headers})

    async def _pour(
        self, request: web.Request, pieces: Callable[[], Iterator[bytes]], headers: dict[str, str]
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json", **headers})
        await response.prepare(request)
        for piece in pieces():
            await response.write(piece)
        return response

    async def _stream(
        self, request: web.Request, reply: dict[str, Any], fault: str, *, with_usage: bool
    ) -> web.StreamResponse:
        events = streamed_reply(reply, with_usage=with_usage)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        disturb: Disturb = STREAMS.get(fault, _untouched)
        for event in disturb(events):
            await response.write(event)
        await _end(request, ENDINGS.get(fault, "end"))
        return response

    async def _break(self, request: web.Request, fault: str) -> web.StreamResponse:
        if fault == "401-echo":
            said = f"no such key: {_key_of(request)}"
            return web.json_response({"error": {"message": said}}, status=401)
        if fault.startswith("redirect"):
            to = str(request.url) if fault == "redirect-loop" else self.elsewhere
            return web.Response(status=308 if fault == "redirect-308" else 307, headers={"Location": to})
        if fault in ("reset", "close", "stall"):
            await _end(request, "cut" if fault == "close" else fault)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.content_length = 1000
        await response.prepare(request)
        await response.write(b'{"id": "chatcmpl-test", ')
        while fault == "drip":
            await asyncio.sleep(0.02)
            await response.write(b" ")
        await _end(request, "stall" if fault == "stall-body" else "cut")
        return response


def _key_of(request: web.Request) -> str:
    """Return the key or token that came along, in whichever header."""
    return request.headers.get("api-key") or request.headers.get("Authorization", "").removeprefix("Bearer ")


def _wants_usage(request: web.Request, body: dict[str, Any]) -> bool:
    """Return whether a stream tells its usage: Azure inference's always, the others' when asked to."""
    always = "api-version" in request.query and "deployment" not in request.match_info
    return bool(body.get("stream_options", {}).get("include_usage", always))


async def _end(request: web.Request, ending: str) -> None:
    """End an answer as asked: `stall` for ever, `cut` or `reset` the connection, or let it `end` as usual."""
    if ending == "end" or request.transport is None:
        return
    if ending == "reset":
        sock = request.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
    if ending == "cut":
        request.transport.close()
    await asyncio.Event().wait()  # cancelled when the connection is gone, or the server stops


async def serve(
    server: ModelServer, ready: Callable[[], None], *, port: int = 0, tls: ssl.SSLContext | None = None
) -> None:
    """Serve until cancelled; `ready` is called once the base URL is known."""
    runner = web.AppRunner(
        server.application(), handler_cancellation=True, shutdown_timeout=0.1, access_log=None
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls, backlog=1024).start()
        server.base_url = f"http{'s' if tls else ''}://127.0.0.1:{runner.addresses[0][1]}"
        ready()
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


@contextlib.contextmanager
def running_model_server(
    *, delay_ms: float = 0.0, ledger: Path | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[ModelServer]:
    """Give a server that runs in a thread of its own until the block ends."""
    server = ModelServer(delay_ms=delay_ms, ledger=ledger)
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    serving = loop.create_task(serve(server, ready.set, tls=tls))
    thread = threading.Thread(target=_run, args=(loop, serving), daemon=True)
    thread.start()
    try:
        if not ready.wait(timeout=10):
            raise RuntimeError("the model server did not start")
        yield server
    finally:
        loop.call_soon_threadsafe(serving.cancel)
        thread.join(timeout=10)


def _run(loop: asyncio.AbstractEventLoop, serving: asyncio.Task[None]) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        loop.run_until_complete(serving)
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


async def _serve_process(
    port: int, delay_ms: float, ledger: Path | None, limit: dict[str, Any] | None
) -> None:
    server = ModelServer(delay_ms=delay_ms, ledger=ledger)
    server.limit = RateLimit(**limit) if limit else None
    task = asyncio.current_task()
    if task is not None:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    await serve(server, lambda: print(server.base_url, flush=True), port=port)


def main() -> None:
    """Run as a process; the first line on stdout is the base URL."""
    parser = argparse.ArgumentParser(description="A model server for tests.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay-ms", type=float, default=0.0)
    parser.add_argument("--ledger", type=Path)
    parser.add_argument("--limit", type=json.loads, help="a RateLimit as JSON")
    options = parser.parse_args()
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_serve_process(options.port, options.delay_ms, options.ledger, options.limit))


if __name__ == "__main__":
    main()
