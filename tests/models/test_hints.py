"""What is read of `x-ratelimit-*`, and that it reaches whoever asked and nobody else."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.models.hints import NO_HINT, Allowance, Listening, RateHint, duration_s, read_hint, tell_hint


def headers(**fields: str) -> dict[str, str]:
    return {f"x-ratelimit-{name.replace('_', '-')}": value for name, value in fields.items()}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("120ms", 0.12),
        ("1h2m3.5s", 3723.5),
        ("2m59.56s", 179.56),
        ("1d2h", 93_600.0),
        ("0s", 0.0),
        ("20", 20.0),
        (" 0.5 ", 0.5),
    ],
)
def test_durations_are_read_as_services_write_them_f07(text: str, seconds: float) -> None:
    assert duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", "soon", "s", "-1s", "nan", "inf", "1e3", "1 s", "1s2", "9" * 5000, "1732166400", "1s" * 1000, "٣s"],
)
def test_what_is_no_duration_is_ignored_f06(text: str) -> None:
    assert duration_s(text) is None


def test_requests_and_tokens_are_read_each_for_itself_f07() -> None:
    requests = headers(limit_requests="60", remaining_requests="59", reset_requests="1s")
    tokens = headers(limit_tokens="150000", remaining_tokens="149984", reset_tokens="6m0s")
    assert read_hint(requests) == RateHint(requests=Allowance(60, 59, 1.0))
    assert read_hint(requests | tokens) == RateHint(
        Allowance(60, 59, 1.0), Allowance(150_000, 149_984, 360.0)
    )
    assert read_hint({}) is NO_HINT


@pytest.mark.parametrize("name", ["limit_requests", "remaining_requests", "reset_requests"])
@pytest.mark.parametrize("value", ["", "-1", "nan", "1e400", "9" * 5000, "a"])
def test_an_allowance_that_cannot_be_read_whole_is_none_f06(name: str, value: str) -> None:
    whole = {"limit_requests": "60", "remaining_requests": "59", "reset_requests": "1s"}
    assert read_hint(headers(**whole | {name: value})) == NO_HINT


@given(st.text(), st.text(), st.text())
def test_no_header_raises_f06(limit: str, remaining: str, reset: str) -> None:
    hint = read_hint(headers(limit_requests=limit, remaining_requests=remaining, reset_requests=reset))
    assert hint.requests is None or 0 <= hint.requests.remaining <= hint.requests.limit


def test_a_hint_reaches_who_asked_from_a_task_of_its_own_and_nobody_else() -> None:
    async def ask(remaining: str) -> int | None:
        with Listening() as heard:
            told = headers(limit_requests="9", remaining_requests=remaining, reset_requests="1s")

            async def answer() -> None:
                await asyncio.sleep(0)
                tell_hint(told)

            await asyncio.create_task(answer())
            return heard.hint.requests.remaining if heard.hint.requests else None

    async def go() -> list[int | None]:
        tell_hint({})
        return list(await asyncio.gather(*map(ask, ("1", "2", "3"))))

    assert asyncio.run(go()) == [1, 2, 3]
