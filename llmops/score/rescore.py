"""A run scored again: today's evaluators over the outputs it has, nothing called.

Reads outputs from the journal and writes scores there; saving the run's record is left to whoever asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

from llmops.definitions.workspace import Workspace
from llmops.evaluators.bound import bind_evaluators
from llmops.plan import find_status, run_id, run_identity
from llmops.records import EvaluatorVersion, Run
from llmops.score import score_output
from llmops.score.summary import summarise_run
from llmops.stores.journal import Journal
from llmops.stores.writer import Writer


async def rescore_run(
    workspace: Workspace, before: Run, journal: Journal, utc_now: Callable[[], datetime]
) -> tuple[Run, int]:
    """Return the run with today's evaluators of its experiment, and how many outputs were scored.

    The same run comes back when the evaluators are those it was scored with.
    """
    started = time.monotonic()
    evaluators = bind_evaluators(workspace, before.experiment)
    run = _judged_by(before, tuple(evaluator.version() for evaluator in evaluators), utc_now())
    run = journal.find_run(run.id) or run
    journal.begin_run(run, journal.cells(before.id))
    n_scored = 0
    async with Writer(journal) as writer:
        for cell, case, output in journal.pending(run.id, [evaluator.identity for evaluator in evaluators]):
            if output is not None:
                await writer.record_scores(cell, await score_output(evaluators, case, output))
                n_scored += 1
    if run.id == before.id and not n_scored:
        return before, 0
    changes = {
        "status": find_status(journal, run),
        "finished_at": utc_now(),
        "wall_s": run.wall_s + time.monotonic() - started,
    }
    return summarise_run(journal, run.model_copy(update=changes), evaluators), n_scored


def _judged_by(before: Run, evaluators: tuple[EvaluatorVersion, ...], now: datetime) -> Run:
    """The run as other evaluators see it: the same outputs, paid for elsewhere."""
    identity = run_identity(before.variants, before.dataset.version, evaluators, before.repeats, before.seed)
    changes = {
        "id": run_id(before.experiment, identity, before.fresh),
        "identity": identity,
        "evaluators": evaluators,
        "created_at": now,
        "n_calls": 0,
        "n_reused": 0,
        "cost_usd": 0.0,
        "wall_s": 0.0,
        "comparisons": (),
    }
    return before.model_copy(update=changes)
