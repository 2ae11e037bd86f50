"""The chat protocol that OpenAI began and others speak: requests into JSON, whole replies out of it.

Pure. Strict on the way in, because the SDKs pass on anything that is JSON. Replies in pieces are put together
by `stream.py` and then read here too; sending and waiting is left to `exchange.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmops.definitions.base import without_none
from llmops.errors import ReplyError, RequestError
from llmops.models.wire import (
    clean,
    image_url,
    lacking,
    objects_only,
    text_of,
    typed,
    usage_of,
)
from llmops.records import Reply, Status, TextPart, ToolCall

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmops.records import Message, Part, Request, Tool, Usage

_CUT_SHORT = frozenset({"length", "max_tokens", "model_length"})


# --- out --------------------------------------------------------------------------------------------------


def encode_chat(
    request: Request, model: str | None, parameters: frozenset[str], *, strict_tools: bool
) -> dict[str, Any]:
    """Return the body of a chat request, parameters by llmops' own names.

    parameters: those the provider takes. strict_tools: whether its protocol knows `strict` of a tool.

    Raises RequestError for any other parameter, before anything is sent.
    """
    unknown = sorted(set(request.parameters) - parameters)
    if unknown:
        raise RequestError(
            f"the model does not take {', '.join(unknown)}; it takes {', '.join(sorted(parameters))}",
            sent=False,
        )
    schema = request.response_format
    return without_none(
        {
            "model": model,
            "messages": [_message(message) for message in request.messages],
            **request.parameters,
            "tools": [_tool(tool, strict=strict_tools) for tool in request.tools] or None,
            "response_format": _structured(schema) if schema and schema.get("type") == "object" else None,
        }
    )


def _message(message: Message) -> dict[str, Any]:
    content = (
        message.content if isinstance(message.content, str) else [_part(part) for part in message.content]
    )
    fields: dict[str, Any] = {"role": message.role, "content": content}
    if message.tool_calls:
        fields["content"] = content or None  # a message of calls alone has no content, which "" is to some
        fields["tool_calls"] = [_asked_before(call) for call in message.tool_calls]
    if message.tool_call_id is not None:
        fields["tool_call_id"] = message.tool_call_id
    return fields


def _part(part: Part) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    return {"type": "image_url", "image_url": {"url": image_url(part)}}


def _asked_before(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _tool(tool: Tool, *, strict: bool) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "name": tool.name,
        "description": tool.description,
        "parameters": dict(tool.parameters),
    }
    if strict and _is_strict(fields["parameters"]):
        fields["strict"] = True
    return {"type": "function", "function": fields}


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


# --- in ---------------------------------------------------------------------------------------------------


def decode_chat(body: object, *, tools: bool = False) -> Reply:
    """Return the reply that a whole body holds. tools: whether the model was given any to call.

    Raises ReplyError when it holds none.
    """
    fields = objects_only(body)
    choice = _first_choice(fields)
    message = typed(choice, "message", dict) or {}
    finish_reason = text_of(choice, "finish_reason") or None
    calls = _tool_calls(message) if tools else ()
    status, text = _outcome(message, finish_reason, is_call=bool(calls))
    return Reply(
        text=clean(text),
        status=status,
        finish_reason=finish_reason,
        tool_calls=calls,
        model=text_of(fields, "model"),
        system_fingerprint=text_of(fields, "system_fingerprint") or None,
        request_id=text_of(fields, "id") or None,
        usage=_usage(fields.get("usage")),
        unfiltered=_is_unfiltered(fields, choice),
    )


def _first_choice(body: Mapping[str, Any]) -> Mapping[str, Any]:
    choices = body.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return choices[0]
    raise lacking(body, "choices")


def _outcome(message: Mapping[str, Any], finish_reason: str | None, *, is_call: bool) -> tuple[Status, str]:
    content = typed(message, "content", str)
    refusal = typed(message, "refusal", str)
    if finish_reason == "content_filter":
        return Status.FILTERED, content or ""
    if refusal:
        return Status.REFUSED, content or refusal
    if finish_reason in _CUT_SHORT:
        return Status.TRUNCATED, content or ""
    if content is None and not is_call:
        asked = "calls tools, which it was not given" if message.get("tool_calls") else "holds no text"
        raise ReplyError(f"the reply {asked}")
    return Status.OK, content or ""


def _is_unfiltered(body: Mapping[str, Any], choice: Mapping[str, Any]) -> bool:
    """Say whether Azure's filter reports an error of its own, for the prompt or the reply: then it did not run."""
    prompts = body.get("prompt_filter_results")
    filtered = [choice, *(prompts if isinstance(prompts, list) else ())]
    results = [part.get("content_filter_results") for part in filtered if isinstance(part, dict)]
    return any(isinstance(found, dict) and bool(found.get("error")) for found in results)


def _tool_calls(message: Mapping[str, Any]) -> tuple[ToolCall, ...]:
    """Return the calls asked for, each under an id of its own: an answer must be told from another's."""
    calls: list[ToolCall] = []
    taken: set[str] = set()
    for place, asked in enumerate(typed(message, "tool_calls", list) or ()):
        function = asked.get("function") if isinstance(asked, dict) else None
        if not isinstance(function, dict) or not text_of(function, "name"):
            raise ReplyError(f"tool call {place} of the reply names no function")
        call_id = text_of(asked, "id")
        if not call_id or call_id in taken:
            call_id = f"{call_id or 'call'}_{place}"
        while call_id in taken:
            call_id += "_"
        taken.add(call_id)
        arguments = text_of(function, "arguments")
        calls.append(ToolCall(id=call_id, name=text_of(function, "name"), arguments=arguments))
    return tuple(calls)


def _usage(found: object) -> Usage | None:
    if not isinstance(found, dict):
        return None
    return usage_of(found.get("prompt_tokens"), found.get("completion_tokens"))
