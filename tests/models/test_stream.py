from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.errors import ReplyError
from llmops.models.chat import decode_chat
from llmops.models.live import watching
from llmops.models.stream import StreamedChat
from llmops.models.wire import EventReader
from llmops.records import Reply, Status, ToolCall
from tests.model_server import streamed_reply, whole_reply
from tests.models.samples import ASKED, JSON, events_of


def test_a_streamed_reply_is_the_whole_reply_in_pieces() -> None:
    whole = whole_reply(ASKED)
    chat = StreamedChat()
    for at, (name, data) in enumerate(events_of(EventReader(), streamed_reply(whole, with_usage=True))):
        chat.add(name, data, float(at))
    assert chat.done
    reply = chat.reply()
    assert reply.model_copy(update={"ttft_s": None, "tpot_s": None}) == decode_chat(whole)
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
    assert decode_chat(whole_reply(ASKED)).text.startswith(reply.text)


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


# --- tool calls -------------------------------------------------------------------------------------------


def put_together(pieces: list[dict[str, Any]], finish_reason: str | None = "tool_calls") -> Reply:
    chat = StreamedChat(tools=True)
    for piece in pieces:
        chat.add("", json.dumps({"choices": [{"delta": {"tool_calls": [piece]}}]}), 0.0)
    if finish_reason:
        chat.add("", json.dumps({"choices": [{"delta": {}, "finish_reason": finish_reason}]}), 0.0)
    return chat.reply()


def piece(arguments: str, name: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"function": {"arguments": arguments} | ({"name": name} if name else {}), **fields}


@given(st.lists(st.text("{}ab:", max_size=12), min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_calls_are_put_together_by_index_however_they_are_mixed(whole: list[str], random: Any) -> None:
    queues = [[piece(letter, index=index) for letter in said] for index, said in enumerate(whole)]
    pieces = [piece("", name=f"f{index}", id=f"id{index}", index=index) for index in range(len(whole))]
    while any(queues):
        pieces.append(random.choice([queue for queue in queues if queue]).pop(0))
    expected = [ToolCall(id=f"id{n}", name=f"f{n}", arguments=said) for n, said in enumerate(whole)]
    assert list(put_together(pieces).tool_calls) == expected


@pytest.mark.parametrize(
    "places",
    [
        [{"index": 0, "id": "a"}, {"index": 0}, {"index": 1, "id": "b"}, {"index": 1}],
        [{"index": 0, "id": "a"}, {"index": 0, "id": "a"}, {"index": 0, "id": "b"}, {"index": 0, "id": "b"}],
        [{"id": "a"}, {}, {"id": "b"}, {}],
        [{"id": "a"}, {"id": "a"}, {"id": "b"}, {"id": "b"}],
    ],
    ids=["by index", "one index for all", "by order", "by id"],
)
def test_calls_are_told_apart_in_every_way_that_services_cut_them(places: list[dict[str, Any]]) -> None:
    said = ['{"n"', ": 1}", '{"n"', ": 2}"]
    names = ["one", None, "two", None]
    pieces = [piece(text, name, **place) for text, name, place in zip(said, names, places, strict=True)]
    assert put_together(pieces).tool_calls == (
        ToolCall(id="a", name="one", arguments='{"n": 1}'),
        ToolCall(id="b", name="two", arguments='{"n": 2}'),
    )


def test_a_name_that_each_piece_repeats_is_one_name() -> None:
    assert put_together([piece("{", "f", index=0), piece("}", "f", index=0)]).tool_calls[0].name == "f"


def test_a_stream_that_breaks_off_within_a_call_is_truncated_f30() -> None:
    reply = put_together([piece('{"n', "f", index=0, id="a"), piece("", index=1, id="b")], None)
    assert reply.status is Status.TRUNCATED
    assert reply.tool_calls == (ToolCall(id="a", name="f", arguments='{"n'),)


def test_streamed_calls_that_were_not_asked_for_are_no_reply_f23() -> None:
    chat = StreamedChat()
    chat.add("", json.dumps({"choices": [{"delta": {"tool_calls": [piece("", "f", index=0)]}}]}), 0.0)
    chat.add("", "[DONE]", 0.0)
    with pytest.raises(ReplyError, match="which it was not given"):
        chat.reply()


@given(JSON)
def test_any_piece_of_a_call_is_taken_or_is_a_reply_error(found: object) -> None:
    try:
        put_together([{"index": 0, "function": found}, {"index": found}, {"id": found}])
    except ReplyError as error:
        assert str(error)


def test_whoever_watches_hears_each_piece_as_it_comes_and_nobody_else_does() -> None:
    heard: list[str] = []
    pieces = StreamedChat()
    with watching(heard.append):
        for word in ("Hello", " there"):
            pieces.add("", json.dumps({"choices": [{"delta": {"content": word}}]}), 0.1)
    pieces.add("", json.dumps({"choices": [{"delta": {"content": "!"}, "finish_reason": "stop"}]}), 0.2)
    assert heard == ["Hello", " there"]
    assert pieces.reply().text == "Hello there!"
