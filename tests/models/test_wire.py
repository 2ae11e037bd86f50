from __future__ import annotations

import zlib
from codecs import BOM_UTF8

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.errors import ReplyError, RequestError
from llmops.models.wire import Body, EventReader, clean, image_url, parse_json, usage_of
from llmops.records import ImagePart
from tests.models.samples import events_of


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
    assert b"".join(body.add(packed(b"x" * 1000))) == b"x" * 1000
    assert bytes(body) == b"x" * 1000
    body = Body(encoding, limit=1000)
    with pytest.raises(ReplyError, match="larger than 1000 bytes") as caught:
        list(body.add(packed(b"x" * 50_000_000)))
    assert caught.value.kind == "too_large"
    assert len(bytes(body)) == 1000


@given(st.data(), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_events_are_the_same_however_the_bytes_are_cut(data: st.DataObject, end: bytes) -> None:
    lines = [
        b"event: note",
        b": ping",
        b"data:one",
        b"data: two",
        b"",
        b"id: 7",
        b"",
        b"data",
        b"",
        b"data: cut",
    ]
    whole = data.draw(st.sampled_from([b"", BOM_UTF8])) + end.join(lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    chunks = [whole[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert events_of(EventReader(), chunks) == [("note", "one\ntwo"), ("", "")]


def test_an_image_leaves_as_the_data_url_that_it_is_and_never_as_an_address_s14() -> None:
    assert image_url(ImagePart(image="data:image/png;base64,AA==")) == "data:image/png;base64,AA=="
    for other in ("https://169.254.169.254/latest", "file:///etc/passwd", "data:text/html,<script>", ""):
        with pytest.raises(RequestError, match="data URL") as caught:
            image_url(ImagePart(image=other))
        assert caught.value.sent is False


@pytest.mark.parametrize("count", [None, True, "3", -1, 1.0, 10**9])
def test_a_count_that_is_none_makes_the_usage_unknown_f26(count: object) -> None:
    assert usage_of(count, 1) is usage_of(1, count) is None
    assert usage_of(1, 1) is not None
