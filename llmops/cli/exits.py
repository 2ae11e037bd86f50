"""The exit codes of every command, in one enumeration, and which error leads to which."""

from __future__ import annotations

import signal
from enum import IntEnum
from typing import TYPE_CHECKING

from llmops.errors import (
    AccessError,
    BudgetError,
    DefinitionError,
    EvidenceError,
    InconclusiveError,
    LlmopsError,
    ModelError,
    ParkedError,
    StoreError,
    StoreHeldError,
    UsageError,
)

if TYPE_CHECKING:
    from llmops.records import Verdict


class Exit(IntEnum):
    """What a command's exit code says to a script."""

    DONE = 0
    FAILED = 1
    """A gate failed, or drift was found."""
    WRONG = 2
    """Wrong usage, a broken definition or data file, a missing variable."""
    INCOMPLETE = 3
    """Incomplete but resumable: run it again."""
    STOPPED = 4
    """Stopped on authentication, quota or budget."""
    HELD = 5
    """The store is held by another runner."""
    INCONCLUSIVE = 6
    HUNG_UP = 128 + signal.SIGHUP
    INTERRUPTED = 128 + signal.SIGINT
    TERMINATED = 128 + signal.SIGTERM


STOPPED_BY_SIGNAL = frozenset({Exit.HUNG_UP, Exit.INTERRUPTED, Exit.TERMINATED})


def exit_of(error: LlmopsError) -> Exit:
    """Return the exit code of an error that ended a command."""
    table: tuple[tuple[type[LlmopsError], Exit], ...] = (
        (DefinitionError, Exit.WRONG),
        (UsageError, Exit.WRONG),
        (InconclusiveError, Exit.INCONCLUSIVE),
        (EvidenceError, Exit.FAILED),
        (StoreHeldError, Exit.HELD),
        (StoreError, Exit.INCOMPLETE),
        (BudgetError, Exit.STOPPED),
        (ParkedError, Exit.INCOMPLETE),
        (AccessError, Exit.STOPPED),
        (ModelError, Exit.INCOMPLETE),
    )
    return next((code for kind, code in table if isinstance(error, kind)), Exit.WRONG)


def verdict_exit(verdict: Verdict) -> Exit:
    """Return the exit code of a verdict: what cannot say stops a merge only where the policy asks it to."""
    if verdict.outcome == "fail":
        return Exit.FAILED
    return Exit.INCONCLUSIVE if verdict.outcome == "inconclusive" and verdict.blocks else Exit.DONE
