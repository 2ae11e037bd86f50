"""The limiter in virtual time: what a service takes and refuses, who waits how long, and that nobody is early."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmops.call.breaker import HOPELESS_AFTER, LONGEST_OPEN_S, OPEN_AFTER
from llmops.call.limits import FIRST_PAUSE_S, LONGEST_PAUSE_S, MOST_ABOVE_S, Limiter
from llmops.call.pace import SLACK_S
from llmops.definitions.project import Limits
from tests.simulated_service import Service, storm
from tests.virtual_time import run_virtually

T = TypeVar("T")

BUCKET = {"burst": 20}
SMALL_BUCKET = {"burst": 10}
WINDOW = {"window_s": 1.0}


def virtually(limits: Limits, work: Callable[[Limiter], Coroutine[Any, Any, T]], draw: float = 0.5) -> T:
    """Return what `work` makes of a limiter in virtual time; `draw` is what jitter is drawn from."""

    async def go() -> T:
        return await work(Limiter(limits, asyncio.get_running_loop().time, draw=lambda: draw))

    return run_virtually(go())


async def sent_at(limiter: Limiter, tokens: int = 0) -> float:
    """Return when a request may go that is answered at once."""
    async with limiter.slot(tokens) as turn:
        limiter.note_answer(turn)
        return asyncio.get_running_loop().time()


# --- a limit of 20 a second against 100 in flight -------------------------------------------------------------


@pytest.mark.parametrize("tells", [False, True])
@pytest.mark.parametrize("hint_s", [None, 0.001, 1.0])
@pytest.mark.parametrize("kind", [BUCKET, SMALL_BUCKET, WINDOW], ids=["bucket", "small", "window"])
def test_a_limit_is_used_and_few_are_refused_F07(
    kind: dict[str, Any], hint_s: float | None, tells: bool
) -> None:
    found = storm(Service(hint_s=hint_s, tells=tells, **kind), n_requests=1000, seed=50)
    asks_too_much = (
        kind is WINDOW and hint_s == 1.0 and not tells
    )  # to wait for a second, whatever is left of it
    assert found.requests_per_success <= 1.10
    assert found.share_used >= (0.85 if asks_too_much else 0.92)


@pytest.mark.parametrize("latency_s", [0.05, 1.0])
@pytest.mark.parametrize("hint_s", [None, 0.001, 1.0])
@pytest.mark.parametrize("n_processes", [2, 4])
def test_processes_that_share_a_limit_use_it_and_none_starves_F07(
    n_processes: int, hint_s: float | None, latency_s: float
) -> None:
    service = Service(hint_s=hint_s, latency_s=latency_s)
    found = storm(service, n_requests=1500, n_processes=n_processes, seed=1)
    assert found.requests_per_success <= 1.10
    assert found.share_used >= 0.92


@pytest.mark.parametrize("n_processes", [2, 4])
def test_processes_that_are_told_what_is_left_share_it_F07(n_processes: int) -> None:
    found = storm(Service(tells=True), n_requests=1000, n_processes=n_processes)
    assert found.requests_per_success <= 1.02
    assert found.share_used >= 0.98


def test_a_service_that_bears_few_at_a_time_is_not_stormed_F07() -> None:
    service = Service(per_s=1e6, burst=1e6, places=10, latency_s=0.5)
    found = storm(service, n_requests=1000)
    assert found.requests_per_success <= 1.10
    assert len(service.taken_at) / (service.taken_at[-1] - service.taken_at[0]) >= 0.7 * 10 / 0.5


def test_no_more_are_in_flight_than_declared() -> None:
    service = Service(per_s=1e6, burst=1e6)
    storm(service, n_requests=200, limits=Limits(concurrency=7))
    assert service.most_in_flight == 7


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 3), st.lists(st.booleans(), min_size=1, max_size=12), st.integers(0, 3))
def test_who_is_cancelled_in_line_or_when_called_holds_up_nobody(
    concurrency: int, is_cancelled: list[bool], n_turns: int
) -> None:
    """n_turns: of the loop, between a place becoming free and the cancelling."""

    async def go(limiter: Limiter) -> list[int]:
        served: list[int] = []

        async def one(number: int) -> None:
            async with limiter.slot(1):
                served.append(number)

        held = [await limiter.enter(1, lambda: None) for _ in range(concurrency)]
        waiting = [asyncio.ensure_future(one(number)) for number in range(len(is_cancelled))]
        await asyncio.sleep(1)
        assert not served
        limiter.leave(held[0])
        for _ in range(n_turns):
            await asyncio.sleep(0)
        for task, is_out in zip(waiting, is_cancelled, strict=True):
            if is_out:
                task.cancel()
        await asyncio.wait(waiting)
        return served

    served = virtually(Limits(concurrency=concurrency), go)
    assert {number for number, is_out in enumerate(is_cancelled) if not is_out} <= set(served)
    assert served == sorted(served)


# --- declared rates ---------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6000), st.integers(1, 4), st.lists(st.floats(0, 2), min_size=2, max_size=30))
def test_declared_requests_a_minute_are_kept_over_any_stretch(
    rpm: int, n_processes: int, gaps: list[float]
) -> None:
    async def go(limiter: Limiter) -> list[float]:
        limiter.share(n_processes)
        times = []
        for gap in gaps:
            await asyncio.sleep(gap)
            times.append(await sent_at(limiter))
        return times

    times = virtually(Limits(rpm=rpm, concurrency=1), go)
    per_s = rpm / 60 / n_processes
    for first, begin in enumerate(times):
        for last, end in enumerate(times[first:], first):
            assert last - first <= (end - begin + SLACK_S) * per_s + 1e-6


def test_tokens_that_a_reply_did_not_need_are_given_back() -> None:
    async def go(limiter: Limiter) -> float:
        async with limiter.slot(600) as turn:
            limiter.note_answer(turn, tokens=60)
        return await sent_at(limiter, 60)

    assert virtually(Limits(tpm=600), go) == pytest.approx(6.0, abs=0.1)


# --- refusals ---------------------------------------------------------------------------------------------------


def refused(limiter: Limiter, retry_after_s: float | None) -> Awaitable[float]:
    """Send a request that is refused; return for how long the service has done nothing else."""

    async def go() -> float:
        async with limiter.slot(1) as turn:
            return limiter.note_refusal(turn, retry_after_s)

    return go()


@settings(deadline=None, max_examples=20)
@given(st.floats(0, 60), st.floats(0, 1))
def test_all_wait_as_long_as_told_and_a_little_longer_F01(told_s: float, draw: float) -> None:
    async def go(limiter: Limiter) -> list[float]:
        begun = asyncio.get_running_loop().time()
        await refused(limiter, told_s)
        return [each - begun for each in await asyncio.gather(*(sent_at(limiter) for _ in range(3)))]

    waits = virtually(Limits(), go, draw)
    assert min(waits) >= told_s
    assert min(waits) <= told_s + MOST_ABOVE_S + 0.2


def test_refusals_without_a_hint_wait_longer_each_time_up_to_a_cap_F04() -> None:
    async def go(limiter: Limiter) -> list[float]:
        pauses = []
        for _ in range(10):
            begun = asyncio.get_running_loop().time()
            await refused(limiter, None)
            async with limiter.slot(1) as turn:
                pauses.append(asyncio.get_running_loop().time() - begun)
                limiter.note_refusal(turn, None)
        return pauses

    longest = virtually(Limits(), go, draw=0.999)
    assert longest[0] <= FIRST_PAUSE_S + 0.2
    assert max(longest) > 10 * longest[0]
    assert max(longest) <= 2 * (LONGEST_PAUSE_S + MOST_ABOVE_S) + 0.2
    assert max(virtually(Limits(), go, draw=0.0)) < 1.0  # full jitter: from nothing up


def test_a_service_that_does_nothing_but_refuse_is_noticed_F04() -> None:
    async def go(limiter: Limiter) -> float:
        for _ in range(9):
            await refused(limiter, 1.0)
        return await refused(limiter, 1.0)

    assert 9.0 <= virtually(Limits(), go) <= 20.0


def test_whoever_waits_is_let_go_when_there_is_no_more_use_in_it() -> None:
    class Ended(Exception):
        pass

    async def go(limiter: Limiter) -> float:
        await refused(limiter, 100.0)

        def check() -> None:
            if asyncio.get_running_loop().time() > 5:
                raise Ended

        with pytest.raises(Ended):
            async with limiter.slot(1, check):
                pass
        return asyncio.get_running_loop().time()

    assert virtually(Limits(), go) < 6


# --- failures -----------------------------------------------------------------------------------------------------


def test_a_service_that_fails_each_time_is_left_alone_but_for_one_probe_at_a_time_F10() -> None:
    class Hopeless(Exception):
        pass

    async def go(limiter: Limiter) -> list[float]:
        times: list[float] = []

        def check() -> None:
            if limiter.breaker.is_hopeless:
                raise Hopeless

        async def fail() -> None:
            while True:
                async with limiter.slot(1, check) as turn:
                    times.append(asyncio.get_running_loop().time())
                    await asyncio.sleep(0.01)
                    limiter.note_failure(turn, None)

        failing = (fail() for _ in range(8))
        assert {type(each) for each in await asyncio.gather(*failing, return_exceptions=True)} == {Hopeless}
        return times

    times = virtually(Limits(concurrency=8), go)
    assert OPEN_AFTER <= len(times) - HOPELESS_AFTER <= OPEN_AFTER + 2 * 8
    assert times[-1] < HOPELESS_AFTER * LONGEST_OPEN_S


def test_one_answer_closes_the_breaker_F10() -> None:
    async def go(limiter: Limiter) -> float:
        for _ in range(OPEN_AFTER):
            async with limiter.slot(1) as turn:
                limiter.note_failure(turn, None)
        begun = await sent_at(limiter)
        return max([await sent_at(limiter) for _ in range(5)]) - begun

    assert virtually(Limits(), go) < 0.1


def test_a_probe_that_is_cancelled_makes_room_for_another_F10() -> None:
    async def go(limiter: Limiter) -> float:
        for _ in range(OPEN_AFTER):
            async with limiter.slot(1) as turn:
                limiter.note_failure(turn, None)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5), limiter.slot(1):
                await asyncio.sleep(100)
        return await sent_at(limiter)

    assert virtually(Limits(), go) < 7
