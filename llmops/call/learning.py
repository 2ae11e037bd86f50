"""The rate that a service bears, learnt from what it refuses.

A few requests are refused at a time, and each time that happens is one lesson: what the service took since the last,
pauses counted, is a rate it bears, and the rate at which it refused is one it does not. The next lies between, and
grows until it is refused again, the slower the more is known, so that refusals and pauses are a small share of all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

GROWTH = 150
"""Requests taken until the rate is back where it was refused, once there have been several lessons."""

GROWTH_PER_KNOWN, QUICKEST = 4, 20
"""At first it is so many for each that has been taken by then, and so many at least: a lesson of few says little."""

GROWTH_PAUSES = 40
"""And then it takes so many pauses at least, which then are a small part of the time."""

SURE = 50
"""From so many requests taken on, a rate is told to others who share the limit."""

MOST = 6.0
"""At first, what was refused counts as so many times what was taken at most: a burst is let through before a limit."""

NEARNESS, FALL, STEEPEST = 0.4, 0.92, 0.4
"""Later, how far from what was taken to what was refused the next rate lies, as a power; and which part of what was
refused it is at most and at least: much that was not taken was lost in pauses."""


@dataclass(frozen=True, slots=True)
class _Refused:
    """The end of an epoch: at which rate it came, since when, and how many requests had been taken."""

    per_s: float
    began_at: float
    at: float
    n_taken: int = 0


class Learner:
    """Counts what one service takes and refuses.

    epoch: how often it has refused; of requests that left in an earlier one, refusals are no new lesson.
    n_sharing: processes that share the limit, each with a part of the rate.
    """

    def __init__(self, now: float) -> None:
        self.epoch = 0
        self.n_sharing = 1
        self._low = self._high = math.inf
        self._growth = 1.0
        self._n_lessons = self._n_known = 0
        self._refused: _Refused | None = None
        self._lesson: _Refused | None = None
        self._begin(now)

    @property
    def is_sure(self) -> bool:
        """Whether the rate is one that others may go by; after one lesson, or few requests, it is a guess."""
        return self._n_lessons > 1 and self._n_known >= SURE

    @property
    def has_taken(self) -> bool:
        """Whether anything was taken since the last pause ended, or may still be."""
        return self._n_taken > 0

    @property
    def rate_per_s(self) -> float:
        """Requests a second that may go now; infinite when nothing was ever refused."""
        if self._low == math.inf:
            return math.inf
        grown = min(self._n_taken / self._growth, 40.0)  # far enough, and no overflow
        return float(self._low * (self._high / self._low) ** grown)

    def note_sent(self, n_in_flight: int, now: float) -> None:
        """Count a request that goes, the so-manieth in flight; a lesson is drawn when its pause has ended."""
        if self._refused is not None:
            self._draw(self._refused, now)
        elif n_in_flight == 1 and self._low == math.inf:  # idle time before the first lesson is no measure
            self._begin(now)
        self._n_taken += 1

    def note_refused(self, epoch: int, now: float, *, is_lesson: bool = True) -> bool:
        """Count a refused request that left in that epoch; returns whether it is the first, which ends it.

        is_lesson: nothing but the rate explains it.
        """
        if epoch == self.epoch or self._refused is not None:
            self._n_taken -= 1
        if epoch != self.epoch:
            return False
        self.epoch += 1
        if is_lesson:
            rate = self.rate_per_s
            if rate == math.inf:
                rate = max(self._n_taken, 1) / max(now - self._began_at, 1e-3)
            self._refused = _Refused(rate, self._began_at, now)
        return True

    def adopt(self, rate_per_s: float) -> None:
        """Go on with another rate than our own: our part of what all have learnt who share the limit."""
        if self._low == math.inf:
            self._low, self._high = FALL * rate_per_s, rate_per_s
            self._growth = GROWTH / self.n_sharing
        scale = rate_per_s / self.rate_per_s
        self._low *= scale
        self._high *= scale

    def _draw(self, refused: _Refused, now: float) -> None:
        """Draw the lesson of a refusal at the end of its pause: by then, late refusals have been counted too."""
        self._refused = None
        if self._n_taken > 0:  # else the pause before has gone on until now
            self._lesson = replace(refused, n_taken=self._n_taken)
            self._n_lessons += 1
            self._n_known += self._n_taken
        self._begin(now)
        if (lesson := self._lesson) is None:
            return
        high = lesson.per_s
        taken = min(high, lesson.n_taken / max(now - lesson.began_at, 1e-3))
        if self._n_lessons == 1:
            high = min(high, MOST * taken)
            self._low = min(taken, FALL * high)
        else:
            self._low = min(max(taken ** (1 - NEARNESS) * high**NEARNESS, STEEPEST * high), FALL * high)
        self._high = high
        slowest = max(GROWTH, GROWTH_PAUSES * (now - lesson.at) * high)
        self._growth = min(max(QUICKEST, GROWTH_PER_KNOWN * self._n_known), slowest / self.n_sharing)

    def _begin(self, now: float) -> None:
        self._n_taken = 0
        self._began_at = now
