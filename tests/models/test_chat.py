from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.errors import ReplyError, RequestError
from llmops.models.chat import decode_chat, encode_chat
from llmops.models.wire import written
from llmops.records import ImagePart, Message, Request, Status, TextPart, ToolCall
from tests.model_server import whole_reply
from tests.models.samples import ASKED, IMAGE, JSON, PARAMETERS, WEATHER, request

# --- out --------------------------------------------------------------------------------------------------


def test_a_parameter_that_the_model_does_not_take_is_an_error_before_anything_is_sent() -> None:
    with pytest.raises(RequestError, match=r"does not take top_k; it takes stop, temperature") as caught:
        encode_chat(request(parameters={"temperature": 0, "top_k": 1}), "m", PARAMETERS, strict_tools=True)
    assert caught.value.sent is False


@pytest.mark.parametrize(
    "asked",
    [
        request("half a pair \ud83d"),
        request(parameters={"stop": ["\udc00"]}),
        request(parameters={"temperature": float("nan")}),
        request(parameters={"temperature": float("inf")}),
        request(parameters={"stop": {1, 2}}),
    ],
)
def test_what_json_cannot_hold_is_an_error_before_anything_is_sent(asked: Request) -> None:
    with pytest.raises(RequestError, match="cannot be written as JSON") as caught:
        written(encode_chat(asked, "m", PARAMETERS, strict_tools=True))
    assert caught.value.sent is False


def test_only_an_object_schema_is_asked_of_the_model_as_structured_output() -> None:
    closed = {
        "type": "object",
        "properties": {"score": {"type": "integer"}},
        "required": ["score"],
        "additionalProperties": False,
    }
    body = encode_chat(request(response_format=closed), None, PARAMETERS, strict_tools=True)
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "reply", "schema": closed, "strict": True},
    }
    assert "model" not in body
    plain = encode_chat(
        request(response_format={"type": "string", "enum": ["a"]}), "m", PARAMETERS, strict_tools=True
    )
    assert "response_format" not in plain


@pytest.mark.parametrize(
    "change",
    [
        {"additionalProperties": True},
        {"required": []},
        {"properties": {"score": {"type": "object"}}},
        {"properties": {"score": {"anyOf": [{"type": "object"}, {"type": "null"}]}}},
    ],
)
def test_a_schema_that_services_do_not_take_as_strict_is_not_called_strict(change: dict[str, Any]) -> None:
    schema = {
        "type": "object",
        "properties": {"score": {}},
        "required": ["score"],
        "additionalProperties": False,
    }
    body = encode_chat(request(response_format={**schema, **change}), "m", PARAMETERS, strict_tools=True)
    assert body["response_format"]["json_schema"]["strict"] is False


def encoded(message: Message, **fields: Any) -> dict[str, Any]:
    asked = Request(messages=(message,), **fields)
    return encode_chat(asked, None, PARAMETERS, strict_tools=True)


def test_a_message_of_parts_is_sent_as_parts() -> None:
    message = Message(role="user", content=(TextPart(text="What is it?"), ImagePart(image=IMAGE)))
    assert encoded(message)["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is it?"},
                {"type": "image_url", "image_url": {"url": IMAGE}},
            ],
        }
    ]


def test_calls_of_before_and_their_answers_are_sent_back_as_they_were() -> None:
    call = ToolCall(id="call_1", name="weather", arguments='{"town": "Bonn"}')
    asked = encoded(Message(role="assistant", content="", tool_calls=(call,)))["messages"]
    assert asked == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"town": "Bonn"}'},
                }
            ],
        }
    ]
    answered = encoded(Message(role="tool", content="rain", tool_call_id="call_1"))["messages"]
    assert answered == [{"role": "tool", "content": "rain", "tool_call_id": "call_1"}]


def test_a_tool_is_sent_as_a_function_and_strict_only_where_schema_and_protocol_allow() -> None:
    open_tool = WEATHER.model_copy(update={"parameters": {**WEATHER.parameters, "required": []}})
    described = {
        "name": "weather",
        "description": "The weather in a town.",
        "parameters": dict(WEATHER.parameters),
    }
    user = Message(role="user", content="hello")
    strict, loose = encoded(user, tools=(WEATHER, open_tool))["tools"]
    assert strict == {"type": "function", "function": {**described, "strict": True}}
    assert "strict" not in loose["function"]
    body = encode_chat(Request(messages=(user,), tools=(WEATHER,)), None, PARAMETERS, strict_tools=False)
    assert body["tools"] == [{"type": "function", "function": described}]
    assert "tools" not in encoded(user)


# --- in ---------------------------------------------------------------------------------------------------


def test_a_whole_reply_is_decoded_field_by_field() -> None:
    reply = decode_chat(whole_reply(ASKED))
    assert reply.text.startswith("echo ")
    assert reply.status is Status.OK
    assert reply.finish_reason == "stop"
    assert reply.model == "m"
    assert reply.system_fingerprint == "fp_test"
    assert reply.request_id == "chatcmpl-test"
    assert reply.usage is not None
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (2, 2)
    assert not reply.usage.estimated


@given(JSON)
def test_any_json_is_a_reply_or_a_reply_error(body: object) -> None:
    try:
        decode_chat(body)
    except ReplyError as error:
        assert str(error)


@given(JSON, st.sampled_from(["usage", "model", "system_fingerprint", "id"]))
def test_a_reply_with_any_field_spoilt_has_a_text_or_is_a_reply_error(value: object, field: str) -> None:
    try:
        assert decode_chat({**whole_reply(ASKED), field: value}).text.startswith("echo ")
    except ReplyError as error:
        assert field in str(error)


def calling(*calls: object, finish_reason: str = "tool_calls", **message: Any) -> dict[str, Any]:
    said = {"role": "assistant", "content": None, "tool_calls": list(calls), **message}
    return {"choices": [{"message": said, "finish_reason": finish_reason}]}


def function(name: object = "weather", arguments: object = "{}", **fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **fields}


def test_a_reply_of_tool_calls_alone_is_whole_and_has_no_text_f23() -> None:
    reply = decode_chat(calling(function(arguments='{"town": "Bonn"}', id="a")), tools=True)
    assert (reply.text, reply.status) == ("", Status.OK)
    assert reply.tool_calls == (ToolCall(id="a", name="weather", arguments='{"town": "Bonn"}'),)


def test_arguments_stay_the_text_that_the_model_wrote_json_or_not() -> None:
    reply = decode_chat(calling(function(arguments='{"town": ', id="a")), tools=True)
    assert reply.tool_calls[0].arguments == '{"town": '


def test_calls_that_were_not_asked_for_are_no_reply_f23() -> None:
    with pytest.raises(ReplyError, match="which it was not given"):
        decode_chat(calling(function(id="a")))


def test_calls_beside_a_text_are_kept_with_it() -> None:
    reply = decode_chat(calling(function(id="a"), content="Let me look."), tools=True)
    assert reply.text == "Let me look."
    assert len(reply.tool_calls) == 1


def test_a_reply_cut_within_its_calls_is_truncated_f16() -> None:
    reply = decode_chat(calling(function(id="a"), finish_reason="length"), tools=True)
    assert reply.status is Status.TRUNCATED


@given(st.lists(st.sampled_from([None, "", "a", "a_1", "a_2", "call_0", "call_1"]), max_size=6))
def test_every_call_has_an_id_of_its_own_and_keeps_the_first_of_its_name(ids: list[str | None]) -> None:
    reply = decode_chat(calling(*(function(id=one) for one in ids), content=""), tools=True)
    found = [call.id for call in reply.tool_calls]
    assert len(set(found)) == len(found) == len(ids)
    assert all(found)


@pytest.mark.parametrize(
    "call",
    [
        "weather",
        {},
        {"function": None},
        {"function": "weather"},
        function(name=""),
        function(name=None),
        function(name=3),
        function(arguments={"town": "Bonn"}),
        function(id=3),
    ],
)
def test_a_call_that_names_no_function_or_holds_no_text_is_no_reply(call: object) -> None:
    with pytest.raises(ReplyError):
        decode_chat(calling(call), tools=True)


@given(JSON)
def test_any_tool_calls_are_calls_or_a_reply_error(calls: object) -> None:
    body = calling(content="text")
    body["choices"][0]["message"]["tool_calls"] = calls
    try:
        reply = decode_chat(body, tools=True)
    except ReplyError as error:
        assert str(error)
    else:
        assert all(call.name for call in reply.tool_calls)
