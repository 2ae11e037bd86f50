"""How often a call is tried again: failures by count, refusals by time, or when others are answered all the while."""

from __future__ import annotations

from llmops.call.patience import LONGEST_WAIT_S, MOST_REFUSALS, Patience
from llmops.errors import RateLimitError, UnavailableError

REFUSED, FAILED = RateLimitError("no"), UnavailableError("down")


def test_failures_are_borne_as_often_as_declared_however_many_refusals_are_between_F10() -> None:
    patience = Patience(attempts=3)
    said = [
        patience.is_over(error, n_answered=0, now=0.0)
        for error in (FAILED, REFUSED, REFUSED, FAILED, REFUSED, FAILED)
    ]
    assert said == [False] * 5 + [True]


def test_refusals_are_borne_for_a_time_F04() -> None:
    patience = Patience(attempts=1)
    assert not any(
        patience.is_over(REFUSED, n_answered=0, now=float(n)) for n in range(int(LONGEST_WAIT_S) + 1)
    )
    assert patience.is_over(REFUSED, n_answered=0, now=LONGEST_WAIT_S + 1)


def test_a_call_that_alone_is_refused_is_given_up_F04() -> None:
    patience = Patience(attempts=1)
    n_tries = 1
    while not patience.is_over(REFUSED, n_answered=n_tries, now=0.0):
        n_tries += 1
    assert n_tries == MOST_REFUSALS + 1
