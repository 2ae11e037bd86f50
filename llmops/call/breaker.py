"""Leaves a service alone that fails every time, looks in on it now and then, and says when that is hopeless."""

from __future__ import annotations

import math

OPEN_AFTER = 10
"""So many failures in a row, with no answer between them, are no accident of single requests."""

FIRST_OPEN_S, LONGEST_OPEN_S = 1.0, 60.0
HOPELESS_AFTER = 9
"""Probes that failed in a row: 1, 2, 4 ... 60 s apart, four minutes; a later run then goes on."""


class Breaker:
    """Open: nothing is sent. Half open: one request is, the probe, and decides whether it closes or stays open."""

    def __init__(self) -> None:
        self._n_failed = 0
        self._n_probes = 0
        self._probe_at: float | None = None
        self._is_probing = False

    @property
    def is_hopeless(self) -> bool:
        """Whether so many probes have failed that this run should end without the service."""
        return self._n_probes >= HOPELESS_AFTER

    def wait_s(self, now: float) -> float:
        """Return how long it is until a request may go; infinite while a probe is under way."""
        if self._probe_at is None:
            return 0.0
        return math.inf if self._is_probing else self._probe_at - now

    def take(self) -> bool:
        """Let a request go; returns whether it is a probe."""
        self._is_probing = self._probe_at is not None
        return self._is_probing

    def let_go(self) -> None:
        """A probe ended without telling anything."""
        self._is_probing = False

    def note_answer(self) -> None:
        """The service answers, whatever it says."""
        self._n_failed = self._n_probes = 0
        self._probe_at = None
        self._is_probing = False

    def note_failure(self, now: float, *, was_probe: bool) -> None:
        """The service failed or was silent. Of what was sent before it opened, failures say nothing new."""
        self._n_failed += 1
        if was_probe:
            self._n_probes += 1
            self._is_probing = False
        if was_probe or (self._probe_at is None and self._n_failed >= OPEN_AFTER):
            self._probe_at = now + min(LONGEST_OPEN_S, FIRST_OPEN_S * 2.0**self._n_probes)
