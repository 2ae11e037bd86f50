"""What processes make of one limit together: each its part, and the mean of what they have learnt."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.call.limits import Limiter
from llmops.call.sharing import Shares
from llmops.definitions.project import Limits
from tests.stores.conftest import place_of

rates = st.floats(0.01, 1e4)


def limiter_at(rate: float | None) -> Limiter:
    limiter = Limiter(Limits(), lambda: 0.0)
    if rate is not None:
        limiter.share(1, rate)
    return limiter


@given(st.lists(rates, min_size=2, max_size=8))
def test_parts_add_up_to_the_mean_of_what_is_known(totals: list[float]) -> None:
    limiters = [limiter_at(None) for _ in totals]
    for limiter in limiters:
        Shares({"it": limiter}).take({"it": [*totals, None]})
    parts = [limiter.rate_per_s for limiter in limiters]
    assert sum(parts) == pytest.approx(sum(totals) / len(totals) * len(totals) / (len(totals) + 1))


@given(rates)
def test_a_process_alone_goes_by_itself(total: float) -> None:
    limiter = limiter_at(total)
    Shares({"it": limiter}).take({"it": [total / 7]})
    assert limiter.rate_per_s == pytest.approx(total)


def test_a_guess_is_told_to_nobody() -> None:
    assert Shares({"it": limiter_at(5.0), "that": limiter_at(None)}).learnt() == {"it": None, "that": None}


def test_runners_of_one_store_hear_of_one_another_until_they_leave(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    place = place_of("postgresql", tmp_path, request)
    with place.another() as one, place.another() as two:
        assert one.is_shared
        with one.hold("r1"):
            assert one.share_limits({"a": 3.0, "b": None}) == {"a": [3.0], "b": [None]}
            with two.hold("r2"):
                assert two.share_limits({"a": None, "c": 1.0}) == {"a": [None, 3.0], "c": [1.0]}
                assert one.share_limits({"a": 4.0}) == {"a": [4.0, None]}
                assert two.share_limits({}) == {}
            assert one.share_limits({"a": 4.0}) == {"a": [4.0]}
            with two.hold("r2"):
                two.share_limits({"a": 9.0})
        assert place.execute("SELECT owner FROM shares ORDER BY owner") == [("r1",), ("r2",)]
        with one.hold("r3"):  # those before are gone and left something behind
            assert one.share_limits({"a": None}) == {"a": [None]}
        assert place.execute("SELECT owner FROM shares") == [("r3",)]


def test_a_store_for_one_runner_shares_nothing(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    with place_of("sqlite", tmp_path, request).another() as journal:
        assert not journal.is_shared
