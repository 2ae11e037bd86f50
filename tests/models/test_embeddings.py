from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.errors import ReplyError, RequestError
from llmops.models.embeddings import decode_embeddings, encode_embeddings
from llmops.models.wire import written
from llmops.records import EmbeddingRequest, Embeddings, ImagePart, Usage
from tests.model_server import VECTOR_EDITS, vectors_reply
from tests.models.samples import IMAGE, JSON

TEXTS = EmbeddingRequest(inputs=("one", "two words", "three"))
BODY = {"model": "m", "input": list(TEXTS.inputs)}
PICTURE = ImagePart(image=IMAGE)


# --- out --------------------------------------------------------------------------------------------------


def test_texts_are_sent_in_their_order_and_floats_asked_for() -> None:
    assert encode_embeddings(TEXTS, "m") == {**BODY, "encoding_format": "float"}
    shorter = EmbeddingRequest(inputs=("one",), dimensions=4, purpose="query")
    assert encode_embeddings(shorter, None) == {"input": ["one"], "dimensions": 4, "encoding_format": "float"}


def test_images_are_sent_as_data_urls() -> None:
    body = encode_embeddings(EmbeddingRequest(inputs=(PICTURE,)), "m")
    assert body["input"] == [{"image": IMAGE}]


@pytest.mark.parametrize("inputs", [("text", PICTURE), ("half a pair \ud83d",), (ImagePart(image="/etc/x"),)])
def test_what_no_service_takes_is_an_error_before_anything_is_sent(inputs: tuple[Any, ...]) -> None:
    with pytest.raises(RequestError) as caught:
        written(encode_embeddings(EmbeddingRequest(inputs=inputs), "m"))
    assert caught.value.sent is False


# --- in ---------------------------------------------------------------------------------------------------


def test_vectors_come_in_the_order_of_the_inputs_whatever_the_order_of_the_reply() -> None:
    body = vectors_reply(BODY)
    found = decode_embeddings(body, TEXTS)
    alone = [vectors_reply({"input": [text]})["data"][0]["embedding"] for text in TEXTS.inputs]
    assert [list(vector) for vector in found.vectors] == alone
    assert (found.model, found.request_id) == ("m", "embd-test")
    assert found.usage == Usage(input_tokens=4, output_tokens=0)


@given(st.randoms(use_true_random=False))
def test_the_order_of_the_reply_changes_nothing(shuffled: random.Random) -> None:
    body = vectors_reply(BODY)
    expected = decode_embeddings(body, TEXTS)
    shuffled.shuffle(body["data"])
    assert decode_embeddings(body, TEXTS) == expected


@pytest.mark.parametrize("fault", sorted(set(VECTOR_EDITS) - {"vectors-usage-missing"}))
def test_anything_but_one_finite_vector_an_input_is_no_reply(fault: str) -> None:
    with pytest.raises(ReplyError):
        decode_embeddings(VECTOR_EDITS[fault](vectors_reply(BODY)), TEXTS)


@pytest.mark.parametrize("number", [True, None, "1", [1], float("inf"), float("-inf")])
def test_a_component_that_is_no_finite_number_is_no_reply(number: object) -> None:
    body = {"data": [{"index": 0, "embedding": [0.5, number]}]}
    with pytest.raises(ReplyError, match="no finite number"):
        decode_embeddings(body, EmbeddingRequest(inputs=("one",)))


def test_whole_numbers_are_numbers() -> None:
    found = decode_embeddings(
        {"data": [{"index": 0, "embedding": [1, -2]}]}, EmbeddingRequest(inputs=("one",))
    )
    assert found.vectors == ((1.0, -2.0),)
    assert found.usage is None


def test_other_dimensions_than_asked_for_are_no_reply() -> None:
    request = TEXTS.model_copy(update={"dimensions": 4})
    with pytest.raises(ReplyError, match="8 dimensions instead of 4"):
        decode_embeddings(vectors_reply(BODY), request)
    assert len(decode_embeddings(vectors_reply({**BODY, "dimensions": 4}), request).vectors[0]) == 4


def test_an_error_in_place_of_vectors_says_what_the_service_said() -> None:
    with pytest.raises(ReplyError, match="made to fail"):
        decode_embeddings({"error": {"message": "made to fail"}}, TEXTS)


@given(JSON)
def test_any_json_is_vectors_or_a_reply_error(found: object) -> None:
    one = EmbeddingRequest(inputs=("one",))
    spoilt: list[Callable[[], object]] = [
        lambda: found,
        lambda: {"data": found},
        lambda: {"data": [found]},
        lambda: {"data": [{"index": 0, "embedding": found}]},
        lambda: {"data": [{"index": found, "embedding": [1.0]}]},
        lambda: {**vectors_reply({"input": ["one"]}), "usage": found, "model": "m"},
    ]
    for body in spoilt:
        try:
            assert isinstance(decode_embeddings(body(), one), Embeddings)
        except ReplyError as error:
            assert str(error)
