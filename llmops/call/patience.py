"""How often one call is tried again, and how long its refusals are borne."""

from __future__ import annotations

from dataclasses import dataclass

from llmops.errors import ModelError, RateLimitError

LONGEST_WAIT_S = 300.0
"""A service that asks for more, or refuses for longer, is left for a later run; a run with `wall_s` knows better."""

MOST_REFUSALS = 20
"""A call that was refused so often while others were answered is not refused for want of room."""


@dataclass
class Patience:
    """What became of one call's tries. attempts: failures that are borne.

    A refusal is no attempt: it costs nothing and says nothing of the call, unless others are answered meanwhile.
    """

    attempts: int
    n_failed: int = 0
    n_refused: int = 0
    refused_at: float | None = None
    n_answered: int = 0

    def is_over(self, error: ModelError, *, n_answered: int, now: float) -> bool:
        """Take note of what a try brought, and say whether it was the last. n_answered: by the service, to all."""
        if not isinstance(error, RateLimitError):
            self.n_failed += 1
            return self.n_failed >= self.attempts
        if self.refused_at is None:
            self.refused_at = now
        else:
            self.n_refused += n_answered > self.n_answered
        self.n_answered = n_answered
        return self.n_refused >= MOST_REFUSALS or now - self.refused_at > LONGEST_WAIT_S
