"""A run scored again: today's evaluators over the outputs it has; judges are asked, models under test never.

Reads outputs from the journal and writes scores there; saving the run's record is left to whoever asked.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from llmops.call import open_caller, open_deployments, spent_budget
from llmops.call.carrying import Carrying, Result, Settings, Tally
from llmops.definitions.dataset import Case
from llmops.definitions.workspace import Workspace
from llmops.errors import UsageError
from llmops.evaluators.bound import BoundEvaluator, bind_evaluators
from llmops.plan import Selection, run_id, run_identity
from llmops.records import EvaluatorVersion, Output, Run
from llmops.score import result_of, score_cell, sum_up_run, unjudged
from llmops.stores.journal import Cell, Journal


@dataclass(frozen=True)
class Scoring:
    """A run to be scored again. before: the run that has the outputs; run: as today's evaluators see it."""

    before: Run
    run: Run
    evaluators: tuple[BoundEvaluator, ...]


def plan_scoring(workspace: Workspace, before: Run, journal: Journal, now: datetime) -> Scoring:
    """Return what scoring a run with today's evaluators of its experiment would do.

    The same run comes back when the evaluators are those it was scored with.

    Raises UsageError for a run that recordings answered: judges asked now would not belong to it.
    """
    if before.replayed:
        raise UsageError(
            f"{before.id} was replayed: `llmops run {before.experiment} --replay only` scores it again, from recordings"
        )
    evaluators = bind_evaluators(workspace, before.experiment)
    run = _judged_by(before, tuple(evaluator.version() for evaluator in evaluators), now)
    return Scoring(before, journal.find_run(run.id) or run, evaluators)


async def rescore_run(
    workspace: Workspace, planned: Scoring, journal: Journal, settings: Settings
) -> tuple[Result, int]:
    """Return the run scored again, and how many of its outputs were. The experiment's budget holds for judges too.

    Raises UsageError before anything is sent when a judge's model cannot be opened.
    """
    started = time.monotonic()
    before, run, evaluators = planned.before, planned.run, planned.evaluators
    journal.begin_run(run, journal.cells(before.id))
    filters = Selection().filters()
    waiting = unjudged(journal, run.id, evaluators, filters)
    n_without_output = journal.n_pending(run.id, ())
    at_work = [each for each in evaluators if waiting.get(each.name) != n_without_output]
    identities = [evaluator.identity for evaluator in evaluators]
    models = {name: version for each in at_work for name, version in each.models.items()}
    deployments = open_deployments(workspace, models, settings.environment, concurrency=settings.concurrency)
    asked = workspace.experiment(before.experiment).budget
    budget = spent_budget(asked, run.id, journal)
    tally = Tally(journal.n_pending(run.id, identities) - n_without_output)
    async with open_caller(deployments, journal, budget, settings.utc_now) as (caller, writer):
        carrying = Carrying(caller, writer, settings, tally, asked.wall_s)
        found = journal.pending(run.id, identities)
        outputs = ((cell, case, output) for cell, case, output in found if output is not None)
        await carrying.carry_out(outputs, Outputs(carrying, at_work, run.fresh).finish)
    if run.id == before.id and not tally.n_done:
        return result_of(journal, before, carrying, filters), 0
    run = sum_up_run(journal, run, carrying, evaluators, time.monotonic() - started)
    return result_of(journal, run, carrying, filters), tally.n_done


@dataclass(frozen=True)
class Outputs:
    """The work of scoring again: each output gets the scores it lacks."""

    carrying: Carrying
    evaluators: Sequence[BoundEvaluator]
    fresh: int

    async def finish(self, found: tuple[Cell, Case, Output]) -> None:
        """Score one output."""
        await score_cell(self.carrying, self.evaluators, *found, fresh=self.fresh)


def _judged_by(before: Run, evaluators: tuple[EvaluatorVersion, ...], now: datetime) -> Run:
    """The run as other evaluators see it: the same outputs, paid for elsewhere."""
    identity = run_identity(before.variants, before.dataset.version, evaluators, before.repeats, before.seed)
    changes = {
        "id": run_id(before.experiment, identity, before.fresh),
        "identity": identity,
        "evaluators": evaluators,
        "created_at": now,
        "finished_at": None,
        "n_unscored": 0,
        "n_calls": 0,
        "n_retried": 0,
        "n_repeated": 0,
        "n_unknown": 0,
        "n_reused": 0,
        "cost_usd": 0.0,
        "hidden_usd": 0.0,
        "wall_s": 0.0,
        "comparisons": (),
    }
    return before.model_copy(update=changes)
