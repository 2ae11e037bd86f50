"""A service with limits, simulated in virtual time, and processes that ask it through our limiter."""

from __future__ import annotations

import asyncio
import math
import random
from dataclasses import dataclass, field

from llmops.call.limits import Limiter
from llmops.call.sharing import SHARE_S, Shares
from llmops.definitions.project import Limits
from llmops.models.hints import NO_HINT, Allowance, RateHint
from tests.virtual_time import run_virtually


@dataclass
class Service:
    """A limiter of `per_s` requests a second with room for `burst`, as a bucket or in windows of `window_s`.

    hint_s: what it says when it refuses: None, or seconds to be rounded up to a multiple of it. tells: whether it
    says with each answer what is left. latency_s: of a reply; refusals take refusal_s. places: it refuses beyond.
    """

    per_s: float = 20.0
    burst: float = 20.0
    window_s: float | None = None
    hint_s: float | None = None
    tells: bool = False
    latency_s: float = 0.05
    refusal_s: float = 0.003
    places: float = math.inf
    sent_at: list[float] = field(default_factory=list)
    taken_at: list[float] = field(default_factory=list)
    n_in_flight: int = 0
    most_in_flight: int = 0
    _level: float | None = None
    _at: float = 0.0

    async def answer(self) -> tuple[bool, float | None, RateHint]:
        """Return whether it answers, how long it asks to wait otherwise, and what it tells of its limits."""
        now = asyncio.get_running_loop().time()
        self.sent_at.append(now)
        level = self._refilled(now)
        is_taken = level >= 1 and self.n_in_flight < self.places
        wait_s = self._until_one(now, level)
        if is_taken:
            self._level = level - 1
            self.taken_at.append(now)
        told = self._told(now) if self.tells else NO_HINT
        self.n_in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.n_in_flight)
        await asyncio.sleep(self.latency_s if is_taken else self.refusal_s)
        self.n_in_flight -= 1
        after = None if is_taken or self.hint_s is None else math.ceil(wait_s / self.hint_s) * self.hint_s
        return is_taken, after, told

    @property
    def _most(self) -> float:
        return self.per_s * self.window_s if self.window_s else self.burst

    def _refilled(self, now: float) -> float:
        if self._level is None:
            self._level = self._most
        elif self.window_s is None:
            self._level = min(self.burst, self._level + self.per_s * (now - self._at))
        elif now // self.window_s > self._at // self.window_s:
            self._level = self._most
        self._at = now
        return self._level

    def _until_one(self, now: float, level: float) -> float:
        if self.window_s is not None:
            return self.window_s - now % self.window_s
        return max(0.0, 1 - level) / self.per_s

    def _told(self, now: float) -> RateHint:
        level = self._level or 0.0
        reset_s = (self._most - level) / self.per_s
        if self.window_s is not None:
            reset_s = self.window_s - now % self.window_s
        return RateHint(requests=Allowance(int(self._most), int(level), reset_s))


@dataclass(frozen=True)
class Figures:
    """What became of a storm. share_used: of the limit, from the first request taken to the last."""

    requests_per_success: float
    share_used: float


def storm(
    service: Service,
    *,
    n_requests: int,
    n_processes: int = 1,
    limits: Limits = Limits(concurrency=100),  # noqa: B008 - a value
    seed: int = 0,
) -> Figures:
    """Return what it took to get so many requests through, of several processes an equal part each."""
    draw = random.Random(seed)
    said: dict[int, float | None] = {}

    async def share(number: int, limiter: Limiter) -> None:
        """Do as `sharing` does, by way of a dictionary."""
        shares = Shares({"it": limiter})
        while True:
            said[number] = shares.learnt()["it"]
            shares.take({"it": list(said.values())})
            await asyncio.sleep(SHARE_S)

    async def process(number: int) -> None:
        await asyncio.sleep(draw.random() * 0.3)
        limiter = Limiter(limits, asyncio.get_running_loop().time, draw=random.Random(seed + number).random)
        sharing = asyncio.create_task(share(number, limiter))
        waiting = iter(range(n_requests // n_processes))

        async def work() -> None:
            for _ in waiting:
                while not await ask(limiter, service):
                    pass

        while not await ask(limiter, service):  # the first goes alone, as it does for a caller
            pass
        next(waiting)
        await asyncio.gather(*(work() for _ in range(limits.concurrency)))
        sharing.cancel()
        del said[number]

    async def go() -> None:
        await asyncio.gather(*(process(number) for number in range(n_processes)))

    run_virtually(go())
    took_s = max(service.taken_at) - min(service.taken_at)
    n_taken = len(service.taken_at)
    return Figures(len(service.sent_at) / n_taken, n_taken / (service.per_s * took_s))


async def ask(limiter: Limiter, service: Service) -> bool:
    """Send one request and let the limiter learn from what comes; return whether it was answered."""
    async with limiter.slot(1) as turn:
        is_taken, retry_after_s, hint = await service.answer()
        limiter.hear(turn, hint)
        if is_taken:
            limiter.note_answer(turn)
        else:
            limiter.note_refusal(turn, retry_after_s)
    return is_taken
