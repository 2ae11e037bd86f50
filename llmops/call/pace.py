"""How fast requests may follow one another: declared by the project, learnt, or told by a service.

Arithmetic over times that are handed in; waiting is for `limits` to do.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmops.models.hints import Allowance

SLACK_S = 0.05
"""So much time that passed unused may be made up for: what a timer that fires late, or a reply, has cost."""

LONGEST_CLOSED_S = 10.0
"""What a service tells beside its answers closes it for no longer: only a refusal says that it means it."""


class Pace:
    """A rate, kept by a time before which nothing more may go (the generic cell rate algorithm, ITU-T I.371).

    In any stretch of T seconds at most `per_s` * (T + slack_s) and one request go.
    """

    def __init__(self, per_s: float = math.inf, slack_s: float = SLACK_S) -> None:
        self.per_s = per_s
        self._slack_s = slack_s
        self._next = -math.inf

    def wait_s(self, now: float) -> float:
        """Return how long it is until the next request may go; 0 or less: now."""
        return self._next - now

    def take(self, now: float, amount: float = 1.0) -> None:
        """Let one request of so much go; one larger than what is left delays those after it."""
        self._next = max(self._next, now - self._slack_s) + amount / self.per_s

    def give_back(self, amount: float) -> None:
        """Take back a part of what was taken, or take more where it was too little."""
        self._next -= amount / self.per_s


class Quota:
    """What is left of an allowance that a service tells with its answers.

    Two kinds of service write the same headers. With a bucket that fills all the time `reset` is the time until it
    is full; with a window it is the time until that ends, whatever was used. One rule does for both: as fast as what
    was used would come back, or faster where what is left would last until the reset. A bucket then settles half
    full, with nothing refused, and a window is used up evenly, or a little too early and then waited for.

    n_sharing: processes that are told of the same allowance, each with a part of the rate.
    """

    def __init__(self) -> None:
        self.n_sharing = 1
        self._pace = Pace()
        self._spent = self._spent_then = 0.0
        self._limit = self._remaining = 0.0
        self._refill_per_s = math.inf
        self._longest_s = 0.0
        self._full_at: float | None = None
        self._told_until = -math.inf

    def wait_s(self, now: float, amount: float) -> float:
        """Return how long it is until so much may go, as far as is known."""
        if self._full_at is None:
            return 0.0
        if now >= self._full_at:
            self._remaining, self._spent_then = self._limit, self._spent
            self._full_at = now + self._longest_s
        if self._left < min(amount, self._limit) / self.n_sharing:
            return min(self._full_at - now, LONGEST_CLOSED_S)
        return min(self._pace.wait_s(now), self._full_at - now)

    def explains_refusal(self, now: float) -> bool:
        """Whether what was told last still holds and left so little that others may have used it up."""
        return now < self._told_until and self._left * self.n_sharing <= self._limit / 2

    def take(self, now: float, amount: float) -> float:
        """Count what a request uses; returns what all have used so far."""
        if self._full_at is not None:
            refill_per_s = self._refill_per_s / self.n_sharing
            self._pace.per_s = max(refill_per_s, self._left / max(self._full_at - now, 1e-3))
            self._pace.take(now, amount)
        self._spent += amount
        return self._spent

    def give_back(self, amount: float) -> None:
        """Count less, or more, than was taken."""
        self._spent -= amount
        self._pace.give_back(amount)

    def hear(self, told: Allowance, *, spent: float, sent_at: float, now: float) -> None:
        """Take note of an answer to a request at which so much had been spent; what came later is not in it."""
        if spent < self._spent_then or sent_at + told.reset_s < now:
            return  # overtaken by the answer to a later request, or by the reset
        self._limit, self._remaining, self._spent_then = told.limit, told.remaining, spent
        self._full_at = self._told_until = sent_at + told.reset_s
        self._longest_s = max(self._longest_s, told.reset_s, 1e-3)
        if told.remaining < told.limit:
            used = told.limit - told.remaining
            self._refill_per_s = min(used / max(told.reset_s, 1e-3), told.limit / self._longest_s)

    @property
    def _left(self) -> float:
        return self._remaining / self.n_sharing - (self._spent - self._spent_then)
