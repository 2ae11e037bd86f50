"""Outputs -> scores. Reads a case and its output; writes what each evaluator says of it; calls no model under test.

What `run` does as outputs arrive and `rescore` later stands here: one output judged, and a run summed up again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmops.call import Stopping
from llmops.call.carrying import Carrying, Result
from llmops.definitions.dataset import Case
from llmops.errors import BudgetError, LlmopsError, ModelError
from llmops.evaluators.base import Asking
from llmops.evaluators.bound import BoundEvaluator
from llmops.plan import Filters, find_status
from llmops.records import Output, Run, RunStatus, Score
from llmops.score.summary import summarise_run

if TYPE_CHECKING:
    from llmops.stores.journal import Cell, Journal


@dataclass(frozen=True, slots=True)
class Scored:
    """The scores of one output. unasked: by evaluator, why there is none yet: a later run asks again."""

    scores: tuple[Score, ...]
    unasked: Mapping[str, LlmopsError]


async def score_output(
    evaluators: Sequence[BoundEvaluator], case: Case, output: Output, asking: Asking | None = None
) -> Scored:
    """Return the scores of one output by each evaluator that has something to say.

    asking: the way to the models, for evaluators that ask some.

    Raises StoreError when the journal fails.
    """
    scores: list[Score] = []
    unasked: dict[str, LlmopsError] = {}
    for evaluator in evaluators:
        try:
            score = await evaluator.score(case, output, asking)
        except (ModelError, BudgetError, Stopping) as error:
            unasked[evaluator.name] = error
            continue
        if score is not None:
            scores.append(score)
    return Scored(tuple(scores), unasked)


async def score_cell(
    carrying: Carrying,
    evaluators: Sequence[BoundEvaluator],
    cell: Cell,
    case: Case,
    output: Output,
    *,
    fresh: int,
) -> None:
    """Score the output of one cell and write the scores down; what kept a judge from answering is counted."""
    asking = Asking(carrying.caller, cell.repeat, fresh)
    scored = await score_output(evaluators, case, output, asking)
    await carrying.writer.record_scores(cell, scored.scores)
    for name, error in scored.unasked.items():
        carrying.meet(error, of=name)
    carrying.count_done()


def unjudged(
    journal: Journal, run_id: str, evaluators: Sequence[BoundEvaluator], filters: Filters
) -> dict[str, int]:
    """Return by evaluator that asks models how many cells lack its score, those without an output included."""
    return {
        evaluator.name: journal.n_pending(run_id, [evaluator.identity], **filters)
        for evaluator in evaluators
        if evaluator.asking is not None
    }


def sum_up_run(
    journal: Journal, planned: Run, carrying: Carrying, evaluators: Sequence[BoundEvaluator], wall_s: float
) -> Run:
    """Return the run as the journal has it after a carrying out: how far it came, what it cost, its figures."""
    before = journal.find_run(planned.id) or planned
    caller = carrying.caller
    total = caller.budget.total
    status = find_status(journal, before)
    if carrying.stopped is not None and status is not RunStatus.COMPLETE:
        status = RunStatus.STOPPED
    n_without_output = journal.n_pending(before.id, ())
    n_pending = journal.n_pending(before.id, [evaluator.identity for evaluator in evaluators])
    run = before.model_copy(
        update={
            "status": status,
            "finished_at": carrying.settings.utc_now(),
            "n_done": before.n_cells - n_without_output,
            "n_unscored": n_pending - n_without_output,
            "n_calls": total.n_calls,
            "n_retried": total.n_retried,
            "n_repeated": total.n_repeated,
            "n_unknown": total.n_unknown,
            "n_reused": before.n_reused + caller.n_reused,
            "cost_usd": None if total.n_unpriced else total.usd,
            "hidden_usd": None if total.n_unbounded else max(total.hidden_usd, 0.0),
            "wall_s": before.wall_s + wall_s,
        }
    )
    return summarise_run(journal, run, evaluators)


def result_of(journal: Journal, run: Run, carrying: Carrying, filters: Filters) -> Result:
    """Return what a carrying out came to, for the part of the run that was asked for."""
    n_without_output = journal.n_pending(run.id, (), **filters)
    identities = [evaluator.identity for evaluator in run.evaluators]
    return Result(
        run=run,
        n_selected=journal.n_cells(run.id, **filters),
        n_without_output=n_without_output,
        n_without_score=journal.n_pending(run.id, identities, **filters) - n_without_output,
        errors=carrying.tally.errors(),
        stopped=carrying.stopped,
        signal=carrying.signal,
    )
