"""A chat reply that comes in pieces, put together as the whole body that they are pieces of.

Pure; what the whole means is for `chat.py`. Services differ in how they cut tool calls, so those are put
together by index, by id, or by order, whichever they say.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmops.errors import ReplyError
from llmops.models.chat import decode_chat
from llmops.models.live import tell_text
from llmops.models.wire import parse_json, typed
from llmops.records import Status

if TYPE_CHECKING:
    from llmops.records import Reply, Usage


class StreamedChat:
    """The pieces of a streamed reply.

    tools: whether the model was given any to call.
    first_s, last_s: when the first and the last text came, None before. error: what the service reported.
    """

    def __init__(self, *, tools: bool = False) -> None:
        self.first_s: float | None = None
        self.last_s: float | None = None
        self.done = False
        self.error: object = None
        self._tools = tools
        self._head: dict[str, Any] = {}
        self._message: dict[str, Any] = {}
        self._calls = _StreamedCalls()
        self._finish_reason: str | None = None
        self._filter_results: dict[str, Any] = {}

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
        kept = ("id", "model", "system_fingerprint", "usage", "prompt_filter_results")
        self._head |= {key: piece[key] for key in kept if piece.get(key) is not None}
        for choice in piece["choices"]:
            self._add_choice(choice, at_s)

    def _add_choice(self, choice: object, at_s: float) -> None:
        if not isinstance(choice, dict):
            raise ReplyError(f"a choice of the stream is a {type(choice).__name__} instead of an object")
        results = choice.get("content_filter_results")
        if isinstance(results, dict) and results.get("error"):
            self._filter_results = results
        self._finish_reason = typed(choice, "finish_reason", str) or self._finish_reason
        delta = typed(choice, "delta", dict) or {}
        for key in ("content", "refusal"):
            text = typed(delta, key, str)
            if text is not None:
                self._message[key] = self._message.get(key, "") + text
        for call in typed(delta, "tool_calls", list) or ():
            self._calls.add(call)
        if delta.get("content"):
            tell_text(delta["content"])
            self.first_s = at_s if self.first_s is None else self.first_s
            self.last_s = at_s

    def reply(self) -> Reply:
        """Return the reply so far; one that broke off is truncated, whatever it holds."""
        calls = self._calls.whole()
        if not self._message and not calls and not self.is_whole:
            raise ReplyError("the stream ended before the reply began")
        message = {**self._message, "tool_calls": calls}
        if not self.is_whole:
            message.setdefault("content", "")
            message["tool_calls"] = [call for call in calls if call["function"]["name"]]
        choice = {"message": message, "finish_reason": self._finish_reason}
        choice["content_filter_results"] = self._filter_results
        reply = decode_chat({**self._head, "choices": [choice]}, tools=self._tools)
        if not self.is_whole:
            reply = reply.model_copy(update={"status": Status.TRUNCATED})
        return reply.model_copy(update={"ttft_s": self.first_s, "tpot_s": self._tpot_s(reply.usage)})

    def _tpot_s(self, usage: Usage | None) -> float | None:
        if usage is None or usage.output_tokens < 2 or self.first_s is None or self.last_s is None:
            return None
        return (self.last_s - self.first_s) / (usage.output_tokens - 1)


class _StreamedCalls:
    """Tool calls in pieces. One belongs to the last call of its index, unless it brings another id."""

    def __init__(self) -> None:
        self._calls: list[_StreamedCall] = []
        self._open: dict[int, _StreamedCall] = {}

    def add(self, piece: object) -> None:
        """Take a piece. Raises ReplyError for one that is no piece of a call."""
        if not isinstance(piece, dict):
            raise ReplyError(f"a tool call of the stream is a {type(piece).__name__} instead of an object")
        call = self._call_of(typed(piece, "index", int), typed(piece, "id", str) or "")
        function = typed(piece, "function", dict) or {}
        call.name = call.name or typed(function, "name", str) or ""
        call.arguments.append(typed(function, "arguments", str) or "")

    def whole(self) -> list[dict[str, Any]]:
        """Return the calls as a whole body holds them, in the order in which they began."""
        return [
            {"id": call.id, "function": {"name": call.name, "arguments": "".join(call.arguments)}}
            for call in self._calls
        ]

    def _call_of(self, index: int | None, call_id: str) -> _StreamedCall:
        call = next(iter(self._calls[-1:]), None) if index is None else self._open.get(index)
        if call is None or (call_id and call.id and call_id != call.id):
            call = _StreamedCall()
            self._calls.append(call)
        if index is not None:
            self._open[index] = call
        call.id = call.id or call_id
        return call


@dataclass
class _StreamedCall:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)
