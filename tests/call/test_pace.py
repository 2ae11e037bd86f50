"""What a service tells is kept to: nothing that is not there is sent, and nothing waits for ever."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from llmops.call.pace import LONGEST_CLOSED_S, Pace, Quota
from llmops.models.hints import Allowance


def allowance(limit: int, remaining: int, reset_s: float) -> Allowance:
    return Allowance(limit, min(limit, remaining), reset_s)


allowances = st.builds(allowance, st.integers(1, 10_000), st.integers(0, 10_000), st.floats(0, 1e5))


@given(st.lists(st.tuples(allowances, st.floats(0, 100), st.integers(0, 5)), max_size=20), st.integers(1, 4))
def test_no_more_goes_than_was_told_until_the_reset_and_no_wait_is_longer_than_it(
    steps: list[tuple[Allowance, float, int]], n_sharing: int
) -> None:
    quota = Quota()
    quota.n_sharing = n_sharing
    now = spent = longest_s = 0.0
    for told, passing_s, n in steps:
        quota.hear(told, spent=spent, sent_at=now, now=now)
        longest_s = max(longest_s, told.reset_s)
        n_gone = 0
        while n_gone < n and quota.wait_s(now, 1.0) <= 0:
            spent = quota.take(now, 1.0)
            n_gone += 1
        is_reset = now + told.reset_s == now  # at once, or sooner than a clock can tell
        assert n_gone <= max(told.remaining, told.limit if is_reset else 0)
        assert quota.wait_s(now, 1.0) <= max(LONGEST_CLOSED_S, longest_s)
        now += passing_s


def test_a_service_that_tells_nothing_holds_nobody_up() -> None:
    quota = Quota()
    assert quota.wait_s(0.0, 1e9) == 0.0
    quota.take(0.0, 1e9)
    assert quota.wait_s(0.0, 1e9) == 0.0


def test_an_answer_that_was_overtaken_is_not_believed() -> None:
    quota = Quota()
    for _ in range(3):
        quota.take(0.0, 1.0)
    quota.hear(Allowance(10, 0, 60.0), spent=3.0, sent_at=0.0, now=1.0)
    quota.hear(Allowance(10, 9, 60.0), spent=1.0, sent_at=0.0, now=1.1)
    assert quota.wait_s(1.2, 1.0) > 5


def test_what_is_given_back_may_go_again() -> None:
    quota = Quota()
    quota.hear(Allowance(100, 50, 60.0), spent=0.0, sent_at=0.0, now=0.0)
    quota.take(0.0, 50.0)
    assert quota.wait_s(30.0, 20.0) == LONGEST_CLOSED_S
    quota.give_back(40.0)
    assert quota.wait_s(40.0, 20.0) <= 0


@given(st.floats(0.01, 1e4), st.lists(st.floats(0, 10), max_size=20))
def test_what_is_given_back_whole_was_never_taken(per_s: float, amounts: list[float]) -> None:
    pace = Pace(per_s)
    pace.take(0.0, 1.0)
    before = pace.wait_s(0.0)
    for amount in amounts:
        pace.take(0.0, amount)
    pace.give_back(sum(amounts))
    assert math.isclose(pace.wait_s(0.0), before, rel_tol=1e-6, abs_tol=1e-6)
