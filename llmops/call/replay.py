"""Replies from recordings in place of models: `--replay only`, which opens no socket and reads no key.

A replayed reply goes the way of any other, into journal, scores and figures, with the latency it was recorded with.
What it must never do is pass for a reply that was paid for: anybody may commit a recording, and a fork's own word is
no evidence. So in the journal it stands under an id of its own, which names the recordings it came from, and cells
and runs made of it have ids of their own too. A live run finds none of them and asks its models; a replay finds
nothing that a live run paid for, and so a maintainer sees what a fork would see.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

from llmops.call.deployments import Deployment, is_replayed
from llmops.call.money import cost_of
from llmops.call.nearest import Nearest
from llmops.definitions.base import short
from llmops.errors import RecordingError
from llmops.records import REPLAYED, Call, CallState, Spent

if TYPE_CHECKING:
    from llmops.call.caller import Log, Said
    from llmops.stores.recordings import Recordings

MOST_DESCRIBED = 3
"""Misses told with their nearest recording; a changed prompt misses every case in the same way."""


@dataclass
class Replay:
    """The recordings of one experiment. misses: what was told of the first calls they lack, by call id."""

    recordings: Recordings
    misses: dict[str, str] = field(default_factory=dict)
    _nearest: Nearest | None = None

    @cached_property
    def identity(self) -> str:
        """That of the recordings."""
        return self.recordings.identity

    def reply_to(self, call: Call) -> Said:
        """Return the reply that was recorded for a call.

        Raises RecordingError with what is nearest when there is none, StoreError when it is broken.
        """
        reply = self.recordings.find(call.id)
        if reply is None:
            raise RecordingError(self._told(call), model=call.model, sent=False)
        return reply

    def _told(self, call: Call) -> str:
        said = f"no recording for model {call.model!r}"
        if call.id not in self.misses:
            if len(self.misses) == MOST_DESCRIBED:
                return said
            self._nearest = self._nearest or Nearest(self.recordings.asked())
            difference = self._nearest.difference(call)
            self.misses[call.id] = f"{said}; {difference or f'{self.recordings.shown} has none'}"
        return self.misses[call.id]


@dataclass(frozen=True)
class ReplayLog:
    """The journal's writer under a replay: what it says was answered before is what the recordings say.

    `embedded` answers for itself, under the ids it always has: its replies are nobody's word but our own code's.
    """

    log: Log
    replay: Replay
    deployments: Mapping[str, Deployment]
    utc_now: Callable[[], datetime]

    async def intend(self, call: Call) -> Call | None:
        """Return the call as it was recorded; RecordingError when it was not: nothing is ever sent."""
        deployment = self.deployments[call.model]
        if not is_replayed(deployment.version):
            return await self.log.intend(call)
        reply = self.replay.reply_to(call)
        changes = {
            "id": f"{call.id}{REPLAYED}{short(self.replay.identity)}",
            "state": CallState.ANSWERED,
            "reply": reply,
            "cost_usd": cost_of(reply.usage, deployment.price),
            "answered_at": self.utc_now(),
        }
        known = call.model_copy(update=changes)
        self.log.record_call(known)
        return known

    async def still_ours(self, call: Call) -> Call | None:
        """Return None: only `embedded` is ever asked."""
        return await self.log.still_ours(call)

    def record_call(self, call: Call, spent: Spent | None = None) -> None:
        """Note what came of a call of `embedded`."""
        self.log.record_call(call, spent)

    async def record_try(self, call: Call, spent: Spent) -> None:
        """Note what came of one try of a call of `embedded`."""
        await self.log.record_try(call, spent)
