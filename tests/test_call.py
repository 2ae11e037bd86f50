"""The one path of every model call, against a real server and a real journal."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.call import (
    Answer,
    Budget,
    Caller,
    Deployment,
    Limiter,
    Stopping,
    call_identity,
    cost_of,
    upper_cost,
)
from llmops.definitions.project import Limits, ModelDefinition, Price
from llmops.errors import AccessError, BudgetError, ModelError, ReplyError, RequestError, UnavailableError
from llmops.models import model_version, open_model
from llmops.records import CallState, EmbeddingRequest, Message, Reply, Request, Usage
from llmops.stores.journal import Journal, open_journal
from llmops.stores.writer import Writer
from tests.model_server import ModelServer, running_model_server
from tests.workplace import calls_in

PRICE = Price(input_per_mtok=1.0, output_per_mtok=2.0)


def utc_now() -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC)


def saying(text: str, **parameters: Any) -> Request:
    return Request(messages=(Message(role="user", content=text),), parameters=parameters)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = open_journal("sqlite:///store.db", root=tmp_path)
    yield journal
    journal.close()


class Sleeps:
    """Waits that do not wait, and remember."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(0)


@asynccontextmanager
async def calling(
    server: ModelServer,
    journal: Journal,
    *,
    budget: Budget | None = None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    **fields: Any,
) -> Any:
    """Give a caller of one model on the server, and close everything behind it."""
    definition = ModelDefinition(
        provider="openai", model="m", endpoint_env="URL", api_key_env="KEY", price=PRICE, **fields
    )
    environment = {"URL": server.openai_url, "KEY": "sk-test-0123456789"}
    model = open_model("m", definition, environment)
    limiter = Limiter(definition.limits, asyncio.get_running_loop().time)
    deployment = Deployment(model_version("m", definition), definition, model, limiter)
    async with Writer(journal) as writer:
        try:
            yield Caller({"m": deployment}, writer, budget or Budget(), utc_now, sleep)
        finally:
            await model.close()


def ask(
    open_caller: Callable[[], AbstractAsyncContextManager[Caller]], *requests: Request, **how: Any
) -> list[Answer[Reply]]:
    """Ask side by side and return the answers in order."""

    async def go() -> list[Answer[Reply]]:
        async with open_caller() as caller:
            return list(await asyncio.gather(*(caller.ask("m", request, **how) for request in requests)))

    return asyncio.run(go())


def test_an_answered_call_is_reused_and_never_sent_again(server: ModelServer, journal: Journal) -> None:
    first = ask(lambda: calling(server, journal), saying("hello"))[0]
    again = ask(lambda: calling(server, journal), saying("hello"))[0]
    assert (first.reused, again.reused) == (False, True)
    assert again.reply == first.reply
    assert again.cost_usd == first.cost_usd
    assert len(server.received) == 1


def test_the_raw_reply_is_kept_as_it_came(server: ModelServer, journal: Journal) -> None:
    answer = ask(lambda: calling(server, journal), saying("hello"))[0]
    call = journal.find_call(answer.call_id)
    assert call is not None and call.reply is not None
    assert call.state is CallState.ANSWERED
    assert answer.reply.text.encode() in call.reply.raw


def test_equal_calls_under_way_are_one_call(server: ModelServer, journal: Journal) -> None:
    answers = ask(lambda: calling(server, journal), *[saying("the same")] * 20)
    assert len({answer.call_id for answer in answers}) == 1
    assert len(server.received) == 1


def test_repeats_and_fresh_runs_are_calls_of_their_own(server: ModelServer, journal: Journal) -> None:
    for how in ({"repeat": 0}, {"repeat": 1}, {"fresh": 1}):
        ask(lambda: calling(server, journal), saying("hello"), **how)
    assert len({received.call_id for received in server.received}) == 3


def test_the_call_id_goes_out_as_idempotency_key(server: ModelServer, journal: Journal) -> None:
    answer = ask(lambda: calling(server, journal), saying("hello"))[0]
    headers = {name.lower(): value for name, value in server.received[0].headers.items()}
    assert headers["idempotency-key"] == headers["x-client-request-id"] == answer.call_id


@pytest.mark.parametrize("fault", ["429", "408", "409", "500", "502", "503", "504", "529"])
def test_what_is_worth_another_try_is_tried_again_F09(
    server: ModelServer, journal: Journal, fault: str
) -> None:
    sleeps = Sleeps()
    answer = ask(lambda: calling(server, journal, sleep=sleeps), saying(f"[[fault:{fault}:2]]"))[0]
    call = journal.find_call(answer.call_id)
    assert call is not None and call.attempts == 3 == len(server.received)
    assert len(sleeps.seconds) == (0 if fault == "429" else 2)  # who is refused waits with all others


@pytest.mark.parametrize(
    ("fault", "kind"), [("400", RequestError), ("422", RequestError), ("big-body", ReplyError)]
)
def test_what_would_fail_again_is_sent_once(
    server: ModelServer, journal: Journal, fault: str, kind: type[ModelError]
) -> None:
    with pytest.raises(kind):
        ask(lambda: calling(server, journal, sleep=Sleeps()), saying(f"[[fault:{fault}]]"))
    assert len(server.received) == 1


def test_a_service_that_stays_down_is_left_after_the_declared_attempts_F10(
    server: ModelServer, journal: Journal
) -> None:
    with pytest.raises(UnavailableError):
        ask(
            lambda: calling(server, journal, sleep=Sleeps(), limits=Limits(attempts=3)),
            saying("[[fault:500]]"),
        )
    assert len(server.received) == 3


def test_a_failed_call_is_not_remembered_as_an_answer(server: ModelServer, journal: Journal) -> None:
    limits = Limits(attempts=1)
    with pytest.raises(UnavailableError):
        ask(lambda: calling(server, journal, limits=limits), saying("[[fault:500:1]]"))
    assert not ask(lambda: calling(server, journal, limits=limits), saying("[[fault:500:1]]"))[0].reused


def test_a_refused_key_stops_the_model_after_one_request_F17_F76(
    server: ModelServer, journal: Journal
) -> None:
    async def go() -> list[Any]:
        async with calling(server, journal) as caller:
            requests = [saying(f"[[fault:401]] {n}") for n in range(50)]
            asked = (caller.ask("m", request) for request in requests)
            return list(await asyncio.gather(*asked, return_exceptions=True))

    assert {type(error) for error in asyncio.run(go())} == {AccessError}
    assert len(server.received) == 1


def test_no_more_than_the_declared_number_are_in_flight(journal: Journal) -> None:
    with running_model_server(delay_ms=20) as server:
        limits = Limits(concurrency=3)
        ask(lambda: calling(server, journal, limits=limits), *(saying(str(n)) for n in range(20)))
        moments = [(r.arrived_at, 1) for r in server.received] + [
            (r.answered_at or 0, -1) for r in server.received
        ]
        in_flight = most = 0
        for _, change in sorted(moments):
            in_flight += change
            most = max(most, in_flight)
        assert most <= 3


def test_the_same_refusal_of_the_first_requests_stops_the_model_F11(
    server: ModelServer, journal: Journal
) -> None:
    async def go() -> list[Any]:
        async with calling(server, journal, limits=Limits(concurrency=1)) as caller:
            requests = [saying(f"[[fault:400]] {n}") for n in range(10)]
            return list(await asyncio.gather(*map(ask_of(caller), requests), return_exceptions=True))

    found = asyncio.run(go())
    assert len(server.received) == 3
    assert [type(error) for error in found] == [RequestError] * 3 + [AccessError] * 7
    assert "said of the first 3" in str(found[-1])


def test_a_refusal_that_names_the_length_of_its_case_stops_nothing_F15(
    server: ModelServer, journal: Journal
) -> None:
    async def go() -> list[Any]:
        async with calling(server, journal) as caller:
            requests = [saying(f"[[fault:context_length]] {n}") for n in range(6)]
            return list(await asyncio.gather(*map(ask_of(caller), requests), return_exceptions=True))

    assert [type(error) for error in asyncio.run(go())] == [RequestError] * 6


def ask_of(caller: Caller) -> Callable[[Request], Awaitable[Answer[Reply]]]:
    return lambda request: caller.ask("m", request)


def test_a_caller_that_stops_lets_what_was_sent_come_home_and_sends_nothing_more(journal: Journal) -> None:
    async def go(server: ModelServer) -> list[Any]:
        async with calling(server, journal, limits=Limits(concurrency=2)) as caller:
            await caller.ask("m", saying("first"))
            asked = asyncio.gather(*map(ask_of(caller), map(saying, "abcdef")), return_exceptions=True)
            await received(server, 2)
            caller.stop()
            await caller.idle.wait()
            return list(await asked)

    with running_model_server(delay_ms=50) as server:
        found = asyncio.run(go(server))
        sent = [answer for answer in found if isinstance(answer, Answer)]
        assert len(server.received) == 1 + len(sent) and 1 <= len(sent) <= 2
    assert {type(one) for one in found} == {Answer, Stopping}
    planned = {CallState.PLANNED, CallState.ANSWERED}
    assert {call.state for call in calls_in(journal)} == planned


def test_whoever_shares_a_call_asks_anew_when_the_first_to_ask_is_cancelled(journal: Journal) -> None:
    async def go(server: ModelServer) -> str:
        async with calling(server, journal) as caller:
            await caller.ask("m", saying("first"))
            first, second = (asyncio.ensure_future(caller.ask("m", saying("shared"))) for _ in range(2))
            await received(server, 2)
            first.cancel()
            return str((await second).reply.text)

    with running_model_server(delay_ms=100) as server:
        assert asyncio.run(go(server)).startswith("echo")
        assert len(server.received) == 3


def test_a_call_cancelled_in_flight_is_noted_as_unknown_F24(journal: Journal) -> None:
    async def go(server: ModelServer) -> None:
        async with calling(server, journal) as caller:
            asked = asyncio.ensure_future(caller.ask("m", saying("long")))
            await received(server, 1)
            asked.cancel()
            await asyncio.wait({asked})

    with running_model_server(delay_ms=5_000) as server:
        asyncio.run(go(server))
    (call,) = calls_in(journal)
    assert (call.state, call.attempts) == (CallState.UNKNOWN, 1)


def test_whoever_waits_for_a_place_sends_before_the_answer_that_freed_it_goes_on(journal: Journal) -> None:
    async def go(server: ModelServer) -> list[int]:
        async with calling(server, journal, limits=Limits(concurrency=1)) as caller:
            n_sent: list[int] = []

            async def one(text: str) -> None:
                await caller.ask("m", saying(text))
                n_sent.append(caller.budget.n_calls)

            await one("first")
            await asyncio.gather(one("a"), one("b"))
            return n_sent

    with running_model_server() as server:
        assert asyncio.run(go(server)) == [1, 3, 3]


def test_a_call_cancelled_while_it_lets_others_send_has_its_answer_F24(journal: Journal) -> None:
    async def go(server: ModelServer) -> bool:
        async with calling(server, journal) as caller:
            asked = asyncio.ensure_future(caller.ask("m", saying("paid for")))
            await received(server, 1)
            await caller.idle.wait()
            asked.cancel()
            await asyncio.wait({asked})
            return bool(asked.cancelled())

    with running_model_server(delay_ms=50) as server:
        assert asyncio.run(go(server))
    (call,) = calls_in(journal)
    assert (call.state, call.attempts) == (CallState.ANSWERED, 1)


async def received(server: ModelServer, n: int) -> None:
    """Wait until so many requests have come."""
    async with asyncio.timeout(20):
        while len(server.received) < n:  # noqa: ASYNC110 - the server is in another thread
            await asyncio.sleep(0.005)


class Clock:
    """A clock that only sleeping moves on."""

    def __init__(self) -> None:
        self.at = 0.0

    def now(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += seconds


def entered_at(limits: Limits, tokens: list[int], *, pause_s: float = 0.0) -> list[float]:
    """Return when requests of so many tokens may go, one after another."""
    clock = Clock()

    async def go() -> list[float]:
        limiter = Limiter(limits, clock.now, clock.sleep)
        if pause_s:
            limiter.pause(pause_s)
        times = []
        for n in tokens:
            async with limiter.slot(n):
                times.append(clock.at)
        return times

    return asyncio.run(go())


def test_requests_and_tokens_a_minute_are_kept() -> None:
    assert entered_at(Limits(rpm=60), [1, 1, 1]) == pytest.approx([0, 1, 2], abs=0.06)
    assert entered_at(Limits(tpm=600), [20, 10, 1]) == pytest.approx([0, 2, 3], abs=0.06)
    assert max(entered_at(Limits(), [1, 1, 1])) < 0.01


def test_a_pause_that_a_service_asks_for_holds_everyone_f01() -> None:
    first, second = entered_at(Limits(), [1, 1], pause_s=7.5)
    assert 7.5 <= first <= second <= 8.6


def test_the_budget_of_calls_is_never_passed_S29(server: ModelServer, journal: Journal) -> None:
    async def go() -> list[Any]:
        async with calling(server, journal, budget=Budget(calls=7)) as caller:
            asked = (caller.ask("m", saying(str(n))) for n in range(30))
            return list(await asyncio.gather(*asked, return_exceptions=True))

    found = asyncio.run(go())
    assert len(server.received) == 7
    assert sum(isinstance(one, BudgetError) for one in found) == 23


def test_the_budget_in_usd_counts_what_is_in_flight_at_its_upper_estimate_S29(journal: Journal) -> None:
    request = saying("x", max_tokens=100)
    budget = Budget(usd=3.5 * upper_cost(request, 5, PRICE))

    async def go(server: ModelServer) -> list[Any]:
        async with calling(server, journal, budget=budget) as caller:
            asked = (caller.ask("m", request, repeat=n) for n in range(10))
            return list(await asyncio.gather(*asked, return_exceptions=True))

    with running_model_server(delay_ms=200) as server:
        found = asyncio.run(go(server))
    assert budget.usd is not None and budget.spent_usd <= budget.usd
    assert any(isinstance(one, BudgetError) for one in found)
    assert budget.reserved_usd == pytest.approx(0)


@pytest.mark.parametrize(
    ("usage", "price", "cost"),
    [
        (Usage(input_tokens=10, output_tokens=5), PRICE, 20e-6),
        (Usage(input_tokens=10, output_tokens=5), None, None),
        (Usage(input_tokens=10, output_tokens=5, estimated=True), PRICE, None),
        (None, PRICE, None),
        (None, Price(input_per_mtok=0, output_per_mtok=0), 0.0),
    ],
)
def test_an_unknown_cost_is_unknown_and_never_zero_F26(
    usage: Usage | None, price: Price | None, cost: float | None
) -> None:
    assert cost_of(usage, price) == (None if cost is None else pytest.approx(cost))


def test_missing_usage_is_estimated_and_says_so_F26(server: ModelServer, journal: Journal) -> None:
    answer = ask(lambda: calling(server, journal), saying("[[fault:usage-missing]] hello"))[0]
    assert answer.reply.usage is not None and answer.reply.usage.estimated
    assert answer.cost_usd is None


# --- embeddings -------------------------------------------------------------------------------------------


def embed(
    open_caller: Callable[[], AbstractAsyncContextManager[Caller]], *requests: EmbeddingRequest
) -> list[Any]:
    """Ask for vectors side by side and return the answers, or errors, in order."""

    async def go() -> list[Any]:
        async with open_caller() as caller:
            asked = (caller.embed("m", request) for request in requests)
            return list(await asyncio.gather(*asked, return_exceptions=True))

    return asyncio.run(go())


def test_vectors_are_paid_for_once_and_come_back_from_the_journal_bit_by_bit(
    server: ModelServer, journal: Journal
) -> None:
    request = EmbeddingRequest(inputs=("one", "two words"))
    first, shared = embed(lambda: calling(server, journal), request, request)
    (again,) = embed(lambda: calling(server, journal), request)
    assert (first.reused, again.reused) == (False, True)
    assert first.reply == shared.reply == again.reply
    assert len(server.received) == 1
    call = journal.find_call(first.call_id)
    assert call is not None
    assert (call.state, call.request, call.reply) == (CallState.ANSWERED, request, first.reply)


def test_vectors_cost_what_goes_in_and_nothing_for_what_comes_out(
    server: ModelServer, journal: Journal
) -> None:
    (answer,) = embed(lambda: calling(server, journal), EmbeddingRequest(inputs=("one", "two words")))
    assert answer.reply.usage == Usage(input_tokens=3, output_tokens=0)
    assert answer.cost_usd == pytest.approx(3e-6)


def test_vectors_without_usage_have_an_estimated_one_and_no_known_cost_F26(
    server: ModelServer, journal: Journal
) -> None:
    request = EmbeddingRequest(inputs=("[[fault:vectors-usage-missing]]",))
    (answer,) = embed(lambda: calling(server, journal), request)
    assert answer.reply.usage is not None and answer.reply.usage.estimated
    assert answer.reply.usage.input_tokens > 0
    assert answer.cost_usd is None


def test_vectors_are_tried_again_where_that_is_worth_it_F09(server: ModelServer, journal: Journal) -> None:
    sleeps = Sleeps()
    good = EmbeddingRequest(inputs=("[[fault:503:2]]",))
    bad = EmbeddingRequest(inputs=("[[fault:ragged-vectors]]", "b"))
    found = embed(lambda: calling(server, journal, sleep=sleeps), good, bad)
    assert isinstance(found[0], Answer) and type(found[1]) is ReplyError
    assert len(server.received) == 3 + 2  # what is no reply is paid for twice at most


def test_the_budget_holds_for_vectors_too_S29(server: ModelServer, journal: Journal) -> None:
    requests = [EmbeddingRequest(inputs=(f"text {n}",)) for n in range(9)]
    found = embed(lambda: calling(server, journal, budget=Budget(calls=4)), *requests)
    assert len(server.received) == 4
    assert sum(isinstance(one, BudgetError) for one in found) == 5
    upper = upper_cost(requests[0], 2, PRICE)
    assert upper == pytest.approx(2 * 2 * 1e-6)
    found = embed(lambda: calling(server, journal, budget=Budget(usd=upper / 2)), *requests[5:])
    assert {type(one) for one in found} <= {Answer, BudgetError}
    assert len(server.received) == 4


@given(
    st.lists(st.text(max_size=8), min_size=1, max_size=3),
    st.lists(st.text(max_size=8), min_size=1, max_size=3),
)
def test_requests_for_vectors_differ_when_anything_in_them_differs(one: list[str], other: list[str]) -> None:
    def identity(inputs: list[str], **fields: Any) -> str:
        return call_identity("m", EmbeddingRequest(inputs=tuple(inputs), **fields), 0, 0)

    assert (identity(one) == identity(other)) == (one == other)
    assert len({identity(one), identity(one, dimensions=4), identity(one, purpose="query")}) == 3
    assert identity(one) != call_identity("m", saying(one[0]), 0, 0)


# --- identity ---------------------------------------------------------------------------------------------

texts = st.text(max_size=20)


@given(texts, texts, st.integers(0, 3), st.integers(0, 3))
def test_calls_differ_when_anything_that_decides_the_reply_differs(a: str, b: str, r: int, f: int) -> None:
    same = call_identity("m", saying(a), r, f) == call_identity("m", saying(b), r, f)
    assert same == (a == b)
    assert call_identity("m", saying(a), r, f) != call_identity("m", saying(a), r + 1, f)
    assert call_identity("m", saying(a), r, f) != call_identity("m", saying(a), r, f + 1)
    assert call_identity("m", saying(a), r, f) != call_identity("n", saying(a), r, f)
    assert call_identity("m", saying(a), r, f) != call_identity("m", saying(a, temperature=1), r, f)
