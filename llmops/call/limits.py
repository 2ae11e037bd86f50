"""What may be asked of one deployment at a time and in a minute, kept for all who ask it.

Waiting is here, for one reason or another; `pace` knows the rates that were declared or told, `learning` those that
a service taught us by refusing, `breaker` when to leave it alone.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable
from random import SystemRandom
from typing import TYPE_CHECKING, NamedTuple

from llmops.call.breaker import Breaker
from llmops.call.learning import Learner
from llmops.call.pace import Pace, Quota
from llmops.definitions.project import Limits

if TYPE_CHECKING:
    from llmops.models.hints import RateHint

SLICE_S = 0.1
"""Whoever waits looks up so often: a reply may have given tokens back, or the run may be ending."""

LAUNCH_S, LAUNCH_STEP_S, AT_ONCE = 0.2, 0.002, 4
"""The first requests, as many as may be in flight, leave one by one in so much time, after a few: a service that
refuses is heard after a few milliseconds, before all are sent; a model hardly ever replies within that time."""

FIRST_PAUSE_S, LEAST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 0.1, 20.0
"""After a refusal that does not say how long to wait; doubled for each that follows with nothing taken between."""

ABOVE, MOST_ABOVE_S = 0.1, 1.0
"""Jitter on top of what a service asks for, as a share of it: processes that were told the same come back apart."""


class Turn(NamedTuple):
    """One request on its way. spent_requests, spent_tokens: of all up to it, as what a service tells is counted.

    tokens: set aside for it. epoch: how often the service had refused when it left.
    """

    sent_at: float
    epoch: int
    tokens: int
    spent_requests: float
    spent_tokens: float
    is_probe: bool


class Slot:
    """A place in flight, held by `async with`; a generator for it would take longer than all the limiter does."""

    __slots__ = ("_check", "_limiter", "_tokens", "_turn")

    def __init__(self, limiter: Limiter, tokens: int, check: Callable[[], None]) -> None:
        self._limiter, self._tokens, self._check = limiter, tokens, check

    async def __aenter__(self) -> Turn:
        self._turn = await self._limiter.enter(self._tokens, self._check)
        return self._turn

    async def __aexit__(self, *_: object) -> None:
        self._limiter.leave(self._turn)


class Limiter:
    """Keeps one deployment's limits for all who ask it, first come, first served.

    now, sleep: the clock and its waiting. draw: gives a number from 0 to 1, for jitter.
    """

    def __init__(
        self,
        limits: Limits,
        now: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        draw: Callable[[], float] | None = None,
    ) -> None:
        self._limits = limits
        self._now = now
        self._sleep = sleep
        self._draw = draw or SystemRandom().random
        self._line: deque[asyncio.Future[None]] = deque()
        self._is_served = False
        self._n_in_flight = self._n_sent = 0
        self._requests, self._tokens, self._learnt = Pace(), Pace(), Pace()
        self._launch = Pace(1 / min(LAUNCH_STEP_S, LAUNCH_S / limits.concurrency), slack_s=0.0)
        self._told_requests, self._told_tokens = Quota(), Quota()
        self._learner = Learner(now())
        self._open_at = -math.inf
        self._n_unhinted = 0
        self._refused_since: float | None = None
        self.breaker = Breaker()
        self.share(1)

    @property
    def rate_per_s(self) -> float:
        """Requests a second that may go as far as refusals have taught; infinite as long as there were none."""
        return self._learner.rate_per_s

    @property
    def learnt_per_s(self) -> float | None:
        """Requests a second that the service bears of us, None as long as its refusals do not tell."""
        return self._learner.rate_per_s if self._learner.is_sure else None

    def share(self, n_processes: int, learnt_per_s: float | None = None) -> None:
        """Go on as one of several processes that ask this deployment. learnt_per_s: our part, if one is known."""
        rpm, tpm = self._limits.rpm, self._limits.tpm
        self._requests.per_s = rpm / 60 / n_processes if rpm else math.inf
        self._tokens.per_s = tpm / 60 / n_processes if tpm else math.inf
        for sharing in (self._learner, self._told_requests, self._told_tokens):
            sharing.n_sharing = n_processes
        if learnt_per_s is not None:
            self._learner.adopt(learnt_per_s)

    def slot(self, tokens: int, check: Callable[[], None] = lambda: None) -> Slot:
        """Return one of the places in flight, entered when the limits allow a request of so many tokens at most.

        check: raises when there is no more use in waiting.
        """
        return Slot(self, tokens, check)

    async def enter(self, tokens: int, check: Callable[[], None]) -> Turn:
        """Wait for a place; `leave` gives it back."""
        if self._is_served or self._is_full:
            await self._stand_in_line()
        self._is_served = True
        try:
            while (wait := self._wait_s(tokens, check)) > 0:
                await self._sleep(min(wait, SLICE_S))
            return self._take(tokens)
        finally:
            self._serve_next()

    def leave(self, turn: Turn) -> None:
        """Give a place back."""
        self._n_in_flight -= 1
        if turn.is_probe:
            self.breaker.let_go()
        if not self._is_served:
            self._serve_next()

    @property
    def is_left_alone(self) -> bool:
        """Whether the service has failed so often that nobody asks it now."""
        return self.breaker.wait_s(self._now()) > 0

    def pause(self, seconds: float) -> None:
        """Let nobody send to this deployment for so long, and a little longer; the longest of several counts."""
        above = self._draw() * min(MOST_ABOVE_S, ABOVE * seconds)
        self._open_at = max(self._open_at, self._now() + max(LEAST_PAUSE_S, seconds + above))

    def note_answer(self, turn: Turn, tokens: int | None = None) -> None:
        """The service answered. tokens: what it counted, None when it does not say; the rest is given back."""
        self.breaker.note_answer()
        self._refused_since = None
        if tokens is not None:
            self._tokens.give_back(turn.tokens - tokens)
            self._told_tokens.give_back(turn.tokens - tokens)

    def note_refusal(self, turn: Turn, retry_after_s: float | None) -> float:
        """The service asks us to slow down; returns for how long it has done nothing else.

        All who wait, wait as long as it says and a little longer; where it does not say, longer each time.
        """
        now = self._now()
        self.breaker.note_answer()
        is_lesson = not self._told_requests.explains_refusal(now)
        is_first = self._learner.note_refused(turn.epoch, now, is_lesson=is_lesson)
        if retry_after_s is not None:
            self.pause(retry_after_s)
        elif is_first:
            if self._learner.has_taken:
                self._n_unhinted = 0
            longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self._n_unhinted, 20))
            self._n_unhinted += 1
            self.pause(self._draw() * longest)
        self._tokens.give_back(turn.tokens)
        if self._refused_since is None:
            self._refused_since = now
        if self._learner.rate_per_s == math.inf:
            self._n_sent = 0  # all who wait are not to leave at once when the pause ends
        return now - self._refused_since

    def note_failure(self, turn: Turn, retry_after_s: float | None) -> None:
        """The service failed or was silent; where it says how long to wait, all wait."""
        self.breaker.note_failure(self._now(), was_probe=turn.is_probe)
        if retry_after_s is not None:
            self.pause(retry_after_s)

    def hear(self, turn: Turn, hint: RateHint) -> None:
        """Take note of what an answer says of limits."""
        now = self._now()
        if hint.requests is not None:
            self._told_requests.hear(hint.requests, spent=turn.spent_requests, sent_at=turn.sent_at, now=now)
        if hint.tokens is not None:
            self._told_tokens.hear(hint.tokens, spent=turn.spent_tokens, sent_at=turn.sent_at, now=now)

    @property
    def _is_full(self) -> bool:
        return self._n_in_flight >= self._limits.concurrency

    async def _stand_in_line(self) -> None:
        """Wait until there is room and nobody else is served."""
        called = asyncio.get_running_loop().create_future()
        self._line.append(called)
        try:
            await called
        except asyncio.CancelledError:
            if not called.cancelled():  # it was our turn
                self._serve_next()
            raise

    def _serve_next(self) -> None:
        """Let the first in line go on, where there is room."""
        self._is_served = False
        while self._line and not self._is_served and not self._is_full:
            called = self._line.popleft()
            if not called.done():  # else whoever waited was cancelled
                called.set_result(None)
                self._is_served = True

    def _wait_s(self, tokens: int, check: Callable[[], None]) -> float:
        """Return how long whoever is served still has to wait."""
        check()
        now = self._now()
        return max(
            self._open_at - now,
            self._launch.wait_s(now),
            self._learnt.wait_s(now),
            self._requests.wait_s(now),
            self._tokens.wait_s(now),
            self._told_requests.wait_s(now, 1.0),
            self._told_tokens.wait_s(now, tokens),
            self.breaker.wait_s(now),
        )

    def _take(self, tokens: int) -> Turn:
        now = self._now()
        self._n_in_flight += 1
        self._n_sent += 1
        if AT_ONCE <= self._n_sent < self._limits.concurrency:
            self._launch.take(now)
        self._requests.take(now)
        self._tokens.take(now, tokens)
        self._learner.note_sent(self._n_in_flight, now)
        self._learnt.per_s = self._learner.rate_per_s
        self._learnt.take(now)
        return Turn(
            sent_at=now,
            epoch=self._learner.epoch,
            tokens=tokens,
            spent_requests=self._told_requests.take(now, 1.0),
            spent_tokens=self._told_tokens.take(now, tokens),
            is_probe=self.breaker.take(),
        )
