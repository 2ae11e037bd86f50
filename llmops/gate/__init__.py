"""A finished run -> verdict: each gate on each candidate, all of them taken together, and what the policy makes of it.

Reads the rows of the run from the journal and writes nothing; carrying out what is missing belongs to `run`, and how
a verdict looks to `report`. A `court` is opened for a gate before anything is paid for; a `hearing` is one look at the
run; `judging` asks one gate, and `outcomes` says what several come to.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime

from llmops.definitions.base import identity_of
from llmops.gate.court import Court
from llmops.gate.hearing import Hearing
from llmops.gate.judging import Judged
from llmops.gate.outcomes import gravest, outcome_of, together
from llmops.gate.watch import Watch
from llmops.records import Outcome, Run, Verdict

__all__ = [
    "Carried",
    "Court",
    "gravest",
    "judge_run",
    "look_at",
    "outcome_of",
    "together",
    "verdict_identity",
]


@dataclass(frozen=True)
class Carried:
    """What it took to be able to judge. n_calls: requests sent now; usd: their price, None when that is unknown.

    n_not_recorded: replies that a replay lacked; then nothing can be said.
    begun: when; outputs of the baseline older than that were used again.
    """

    n_calls: int = 0
    usd: float | None = 0.0
    n_not_recorded: int = 0
    begun: datetime | None = None


def judge_run(
    court: Court, run: Run, *, now: datetime, carried: Carried = Carried(), watch: Watch | None = None
) -> Verdict:
    """Return the verdict on a run of the court's experiment.

    watch: what was seen on the way, of a sequential gate.

    Raises UsageError when the outputs of the two sides cannot be compared, BudgetError when a held-out split has been
    looked at too often.
    """
    hearing = Hearing(court, run, now, is_sequential=watch is not None)
    looks, alpha = hearing.looks()
    judged = hearing.judged(alpha) if watch is None else watch.judged
    n_not_recorded = carried.n_not_recorded
    if n_not_recorded:
        judged = {key: _not_recorded(found, n_not_recorded) for key, found in judged.items()}
    results = together(judged, alpha) if watch is None or n_not_recorded else watch.results()
    written = hearing.written(results, looks, alpha, carried.begun)
    changes: dict[str, object] = {"n_calls": carried.n_calls, "cost_usd": carried.usd}
    if n_not_recorded:
        changes["reason"] = _lacking(n_not_recorded)
    if watch is not None:
        changes["n_calls_saved"] = run.n_cells - run.n_done
    verdict = written.model_copy(update=changes)
    return verdict.model_copy(update={"id": verdict_identity(verdict)})


def look_at(court: Court, run: Run, watch: Watch, *, now: datetime, asked: Collection[str]) -> bool:
    """Take a look at a run that is under way, and return whether to stop. asked: the cases that have had their turn."""
    hearing = Hearing(court, run, now, is_sequential=True)
    alpha = hearing.looks()[1]
    judgings = hearing.judgings(alpha)
    for (name, at), place in hearing.places().items():
        watch.look((name, at), judgings[name], hearing.gates[at], place, asked)
    return watch.is_over(alpha)


def verdict_identity(verdict: Verdict) -> str:
    """Return the hash of what determines a verdict: not when it was reached, what it cost, or how often."""
    apart = {"id", "created_at", "looks", "n_calls", "n_calls_saved", "cost_usd", "link", "source"}
    record = verdict.model_dump(mode="json", exclude=apart)
    for candidate in record["candidates"]:
        del candidate["baseline_age_s"]
    return identity_of(record)


def _not_recorded(judged: Judged, n: int) -> Judged:
    if not judged.result.blocks:
        return judged
    changes = {"outcome": Outcome.INCONCLUSIVE, "reason": _lacking(n)}
    return replace(judged, result=judged.result.model_copy(update=changes), tested=None)


def _lacking(n: int) -> str:
    what = "1 reply is" if n == 1 else f"{n:,} replies are"
    return f"{what} not in the recordings, and nothing else may answer here"
