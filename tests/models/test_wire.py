from __future__ import annotations

import json
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.errors import ReplyError, RequestError
from llmops.models.wire import Body, EventReader, StreamedChat, clean, decode, encode_chat, parse_json
from llmops.records import Message, Request, Status
from tests.model_server import streamed_reply, whole_reply

PARAMETERS = frozenset({"temperature", "stop"})
ASKED = {"model": "m", "messages": [{"role": "user", "content": "hello there"}]}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def request(content: str = "hello", **fields: Any) -> Request:
    return Request(messages=(Message(role="user", content=content),), **fields)


def events_of(reader: EventReader, chunks: list[bytes]) -> list[tuple[str, str]]:
    return [event for chunk in chunks for event in reader.feed(chunk)]


# --- out --------------------------------------------------------------------------------------------------


def test_a_parameter_that_the_model_does_not_take_is_an_error_before_anything_is_sent() -> None:
    with pytest.raises(RequestError, match=r"does not take top_k; it takes stop, temperature") as caught:
        encode_chat(request(parameters={"temperature": 0, "top_k": 1}), "m", PARAMETERS)
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
        encode_chat(asked, "m", PARAMETERS)
    assert caught.value.sent is False


def test_only_an_object_schema_is_asked_of_the_model_as_structured_output() -> None:
    closed = {
        "type": "object",
        "properties": {"score": {"type": "integer"}},
        "required": ["score"],
        "additionalProperties": False,
    }
    body = encode_chat(request(response_format=closed), None, PARAMETERS)
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "reply", "schema": closed, "strict": True},
    }
    assert "model" not in body
    plain = encode_chat(request(response_format={"type": "string", "enum": ["a"]}), "m", PARAMETERS)
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
    body = encode_chat(request(response_format={**schema, **change}), "m", PARAMETERS)
    assert body["response_format"]["json_schema"]["strict"] is False


# --- in, whole --------------------------------------------------------------------------------------------


def test_a_whole_reply_is_decoded_field_by_field() -> None:
    reply = decode(whole_reply(ASKED))
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
        decode(body)
    except ReplyError as error:
        assert str(error)


@given(JSON, st.sampled_from(["usage", "model", "system_fingerprint", "id"]))
def test_a_reply_with_any_field_spoilt_has_a_text_or_is_a_reply_error(value: object, field: str) -> None:
    try:
        assert decode({**whole_reply(ASKED), field: value}).text.startswith("echo ")
    except ReplyError as error:
        assert field in str(error)


@given(st.text(st.characters(codec=None)))
def test_any_content_becomes_text_that_utf8_and_databases_hold_f27(content: str) -> None:
    cleaned = clean(content)
    assert cleaned.encode().decode() == cleaned
    assert "\0" not in cleaned
    if content.isprintable():
        assert cleaned == content


def test_surrogates_that_belong_together_become_their_character() -> None:
    assert clean("\ud83d\ude00 \ude00") == "\U0001f600 \N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("body", [b"", b" \n", b"<html>", b'{"a": ', b"[" * 200_000, b"9" * 5000, b"\xff"])
def test_a_body_that_is_no_json_is_a_reply_error_f21(body: bytes) -> None:
    with pytest.raises(ReplyError):
        parse_json(body)


@pytest.mark.parametrize("encoding", ["", "identity", "gzip", "deflate"])
def test_a_body_is_kept_up_to_its_limit_and_refused_past_it_f28(encoding: str) -> None:
    def packed(data: bytes) -> bytes:
        return data if encoding in ("", "identity") else zlib.compress(data)

    body = Body(encoding, limit=1000)
    body.add(packed(b"x" * 1000))
    assert bytes(body) == b"x" * 1000
    body = Body(encoding, limit=1000)
    with pytest.raises(ReplyError, match="larger than 1000 bytes") as caught:
        body.add(packed(b"x" * 50_000_000))
    assert caught.value.kind == "too_large"
    assert len(bytes(body)) == 1000


# --- in, as a stream --------------------------------------------------------------------------------------


@given(st.data(), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_events_are_the_same_however_the_bytes_are_cut(data: st.DataObject, end: bytes) -> None:
    lines = [
        b": ping",
        b"",
        b"event: note",
        b"data:one",
        b"data: two",
        b"",
        b"id: 7",
        b"",
        b"data",
        b"",
        b"data: cut",
    ]
    whole = end.join(lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    chunks = [whole[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert events_of(EventReader(), chunks) == [("note", "one\ntwo"), ("", "")]


def test_a_streamed_reply_is_the_whole_reply_in_pieces() -> None:
    whole = whole_reply(ASKED)
    chat = StreamedChat()
    for at, (name, data) in enumerate(events_of(EventReader(), streamed_reply(whole, with_usage=True))):
        chat.add(name, data, float(at))
    assert chat.done
    reply = chat.reply()
    assert reply.model_copy(update={"ttft_s": None, "tpot_s": None}) == decode(whole)
    assert (reply.ttft_s, reply.tpot_s) == (1.0, 1.0)  # two words, one after the other, after the role


def test_a_character_that_two_pieces_share_is_whole() -> None:
    chat = StreamedChat()
    for half in ("\\ud83d", "\\ude00"):
        chat.add("", f'{{"choices": [{{"delta": {{"content": "{half}"}}}}]}}', 1.0)
    chat.add("", "[DONE]", 1.0)
    assert chat.reply().text == "\U0001f600"


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_a_stream_that_breaks_off_is_truncated_whatever_it_holds_f30(kept: int) -> None:
    chat = StreamedChat()
    for name, data in events_of(EventReader(), streamed_reply(whole_reply(ASKED), with_usage=True)[:kept]):
        chat.add(name, data, 0.0)
    reply = chat.reply()
    assert reply.status is Status.TRUNCATED
    assert decode(whole_reply(ASKED)).text.startswith(reply.text)


def test_pieces_that_azure_sends_for_its_filters_are_no_fault() -> None:
    chat = StreamedChat()
    chat.add("", json.dumps({"choices": [], "prompt_filter_results": []}), 0.0)
    chat.add("", json.dumps({"choices": [{"index": 0, "content_filter_results": {}}]}), 0.0)
    chat.add("", json.dumps({"choices": [{"delta": {"content": "hi"}, "finish_reason": "stop"}]}), 0.0)
    assert chat.reply().text == "hi"


@given(JSON)
def test_any_piece_is_taken_or_is_a_reply_error(piece: object) -> None:
    chat = StreamedChat()
    try:
        chat.add("", json.dumps(piece), 0.0)
        chat.add("", json.dumps({"choices": [{"delta": piece, "finish_reason": "stop"}]}), 0.0)
    except ReplyError as error:
        assert str(error)
