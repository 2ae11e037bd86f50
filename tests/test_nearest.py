"""What is told of a missing recording: the one most like it, the field that differs, and the words."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.call.nearest import MOST_CHARACTERS, Nearest
from llmops.records import Call, CallState, EmbeddingRequest, Message, Request
from llmops.stores.recordings import Asked, request_fields

SYSTEM = "Answer with the team's name only: billing, shipping, returns, account, technical, other."


def request_of(user: str, system: str = SYSTEM, **parameters: Any) -> Request:
    messages = (Message(role="system", content=system), Message(role="user", content=user))
    return Request(messages=messages, parameters=parameters)


def asked(request: Request | EmbeddingRequest, model: str = "nemo", identity: str = "1" * 64) -> Asked:
    return Asked(model, identity, request_fields(request))


def call_of(request: Request | EmbeddingRequest) -> Call:
    return Call(
        id="1",
        model="nemo",
        model_identity="1" * 64,
        request=request,
        state=CallState.SENT,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def told(recorded: Iterable[Asked], now: Request | EmbeddingRequest) -> str | None:
    return Nearest(recorded).difference(call_of(now))


def test_a_word_that_is_gone_is_shown_with_those_around_it() -> None:
    now = request_of("where is it?", SYSTEM.replace("billing, ", ""))
    assert told([asked(request_of("where is it?"))], now) == (
        'the nearest differs in messages[0].content: "...name only: billing, shipping, returns,..." recorded, '
        '"...name only: shipping, returns,..." now'
    )


@pytest.mark.parametrize(
    ("then", "now", "said"),
    [
        (
            request_of("x", temperature=0),
            request_of("x", temperature=1),
            "parameters.temperature: 0 recorded, 1 now",
        ),
        (request_of("x"), request_of("x", top_p=0.5), "parameters.top_p: nothing recorded, 0.5 now"),
        (request_of("x", stop=["a"]), request_of("x"), 'parameters.stop[0]: "a" recorded, nothing now'),
        (
            request_of("a  b"),
            request_of("a b"),
            'messages[1].content: "a  b" recorded, "a b" now',
        ),
        (
            request_of("x", "Be kind.", seed=1),
            request_of("x", "Be brief.", seed=2),
            'messages[0].content: "Be kind." recorded, "Be brief." now; and in parameters.seed',
        ),
        (
            EmbeddingRequest(inputs=("a", "b")),
            EmbeddingRequest(inputs=("a", "c")),
            'inputs[1]: "b" recorded, "c" now',
        ),
    ],
)
def test_the_first_field_that_differs_is_told_with_both_values(
    then: Request | EmbeddingRequest, now: Request | EmbeddingRequest, said: str
) -> None:
    assert told([asked(then)], now) == f"the nearest differs in {said}"


def test_the_same_model_counts_first_then_fewer_fields_then_more_words() -> None:
    now = request_of("my parcel is late", temperature=0)
    elsewhere = asked(now, model="other", identity="2" * 64)
    two_fields = asked(request_of("my parcel was late", temperature=1))
    unlike = asked(request_of("I was charged twice", temperature=0))
    like = asked(request_of("my parcel is here", temperature=0))
    assert '"...parcel is here" recorded' in str(told([elsewhere, two_fields, unlike, like], now))
    assert "charged" in str(told([elsewhere, two_fields, unlike], now))
    assert "temperature" in str(told([elsewhere, two_fields], now))
    assert "the nearest differs in model" in str(told([elsewhere], now))


def test_another_definition_of_the_model_is_told() -> None:
    said = told([asked(request_of("x"), identity="2" * 64)], request_of("x"))
    assert said == ('the nearest differs in model: "nemo (222222222222)" recorded, "nemo (111111111111)" now')


def test_the_same_request_was_recorded_for_fewer_repeats() -> None:
    assert told([asked(request_of("x"))], request_of("x")) == "it was recorded for fewer repeats"


def test_nothing_recorded_is_nearest_to_nothing() -> None:
    assert told([], request_of("x")) is None


@given(st.text(max_size=300), st.text(max_size=300))
def test_whatever_the_texts_are_the_message_stays_short(then: str, now: str) -> None:
    said = told([asked(request_of(then))], request_of(now))
    assert said is not None
    assert len(said) < 2 * 6 * MOST_CHARACTERS + 200
    assert (then == now) == (said == "it was recorded for fewer repeats")


def test_among_ten_thousand_the_one_most_like_it_is_found() -> None:
    kept = [asked(request_of(f"ticket {n} about thing {n % 97} of customer {n % 61}")) for n in range(10_000)]
    nearest = Nearest(kept)
    for n in (7, 5_000, 9_999):
        now = request_of(f"ticket {n} about thing {n % 97} of the customer {n % 61}")
        assert f'"...{n % 97} of customer {n % 61}" recorded' in str(nearest.difference(call_of(now)))
