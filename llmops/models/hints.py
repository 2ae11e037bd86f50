"""What a service says of its limits beside an answer, in `x-ratelimit-*`, whether or not it answered as wished.

Read where answers are read and heard by whoever keeps the limits: a reply is what a model said, and has no room
for it. What to make of a hint is for `call/` to say.
"""

from __future__ import annotations

import re
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

LONGEST_RESET_S = 7 * 86_400.0
"""A time of day or a stamp since the epoch is no duration; the longest limits are those of a week."""
MOST = 10**12

_COUNT = re.compile(r"[0-9]{1,15}")
_SECONDS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")
_PART = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|us|µs|d|h|m|s)")
_UNITS = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}


@dataclass(frozen=True, slots=True)
class Allowance:
    """How many requests or tokens a service allows, how many are left, and when all are there again."""

    limit: int
    remaining: int
    reset_s: float


@dataclass(frozen=True, slots=True)
class RateHint:
    """What one answer says of its service's limits; None where it says nothing that can be read."""

    requests: Allowance | None = None
    tokens: Allowance | None = None


NO_HINT = RateHint()


def read_hint(headers: Mapping[str, str]) -> RateHint:
    """Return what headers say of limits. headers: names in lower case; whatever cannot be read is ignored."""
    if "x-ratelimit-remaining-requests" not in headers and "x-ratelimit-remaining-tokens" not in headers:
        return NO_HINT
    return RateHint(_allowance(headers, "requests"), _allowance(headers, "tokens"))


def duration_s(text: str) -> float | None:
    """Return seconds of `1s`, `6m0s`, `120ms` or a bare number of seconds; None for anything else."""
    text = text.strip()
    if _SECONDS.fullmatch(text):
        seconds = float(text)
    else:
        parts = _PART.findall(text) if len(text) <= 64 else []
        if not parts or "".join(number + unit for number, unit in parts) != text:
            return None
        seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    return seconds if seconds <= LONGEST_RESET_S else None


def _allowance(headers: Mapping[str, str], of: str) -> Allowance | None:
    limit = _count(headers.get(f"x-ratelimit-limit-{of}"))
    remaining = _count(headers.get(f"x-ratelimit-remaining-{of}"))
    reset_s = duration_s(headers.get(f"x-ratelimit-reset-{of}", ""))
    if not limit or remaining is None or reset_s is None:
        return None
    return Allowance(limit, min(remaining, limit), reset_s)


def _count(text: str | None) -> int | None:
    """Return a whole number, None when there is none to be trusted; -1 and the like mean no limit."""
    if text is None or not _COUNT.fullmatch(text.strip()):
        return None
    count = int(text)
    return count if count <= MOST else None


class Listening:
    """What `tell_hint` tells while a `with` block waits for an answer."""

    __slots__ = ("_token", "hint")

    def __init__(self) -> None:
        self.hint = NO_HINT

    def __enter__(self) -> Self:
        self._token = _LISTENING.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _LISTENING.reset(self._token)


_LISTENING: ContextVar[Listening | None] = ContextVar("listening", default=None)
"""Who asks and who reads an answer stand four calls apart, in code of providers of which some are not ours."""


def tell_hint(headers: Mapping[str, str]) -> None:
    """Tell whoever listens what an answer says of limits. headers: names in lower case."""
    heard = _LISTENING.get()
    if heard is not None:
        heard.hint = read_hint(headers)
