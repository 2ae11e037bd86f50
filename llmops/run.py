"""Experiment -> run: plan, carry out, score as outputs arrive.

Reads a plan and what the journal has of it; calls models through the one path of `call`; writes calls, outputs,
spans and scores to the journal as they come, and the run's record at the end. Works like make: what is there is
not done again, and what was interrupted goes on where it stopped.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from llmops.call import Budget, Deployment, Stopping, open_caller, open_deployments, spent_budget
from llmops.call.carrying import Carrying, Result, Settings, Tally
from llmops.definitions.dataset import Case
from llmops.definitions.workspace import Workspace
from llmops.errors import (
    AccessError,
    BudgetError,
    LlmopsError,
    ModelError,
    OutcomeUnknownError,
    StoreError,
    first_error,
)
from llmops.evaluators.bound import BoundEvaluator
from llmops.plan import Plan, Selection
from llmops.records import ErrorInfo, Output, Run, RunStatus, Status
from llmops.score import result_of, score_cell, sum_up_run, unjudged
from llmops.steps import load_functions
from llmops.steps.base import THREADS, Context, Halted, Place, Program, Trace
from llmops.steps.http import refuse_secrets
from llmops.stores.journal import Cell, Journal

if TYPE_CHECKING:
    from collections.abc import Sequence

COLLECT_AFTER = 20_000
"""Objects more than before, when Python looks for cycles among the new ones; its own choice is 700."""

Pending = tuple[Cell, Case, Output | None]


def find_finished(plan: Plan, journal: Journal, selection: Selection) -> Run | None:
    """Return the run if all that is asked for has been done: then there is nothing to call, score or sum up."""
    known = journal.find_run(plan.run.id)
    if known is None or known.status is RunStatus.COMPLETE:
        return known
    if journal.n_pending(known.id, plan.evaluator_identities, **selection.filters()):
        return None
    n_without_output = journal.n_pending(known.id, ())
    n_unscored = journal.n_pending(known.id, plan.evaluator_identities) - n_without_output
    is_summed_up = (known.n_cells - known.n_done, known.n_unscored) == (n_without_output, n_unscored)
    return known if is_summed_up else None


def missing_outputs(plan: Plan, journal: Journal, selection: Selection) -> dict[str, int]:
    """Return how many cells of each selected variant have no output yet."""
    names = [variant.name for variant in plan.run.variants]
    chosen = names if selection.variants is None else [name for name in names if name in selection.variants]
    return {
        name: journal.n_pending(
            plan.run.id, (), variants={name}, cases=selection.cases, limit=selection.limit
        )
        for name in chosen
    }


# --- an experiment ----------------------------------------------------------------------------------------------


async def run_experiment(
    workspace: Workspace, plan: Plan, journal: Journal, selection: Selection, settings: Settings
) -> Result:
    """Return the run, carried out as far as selection, budget and the world allow.

    The budget is that of the run, however often it is interrupted; `wall_s` counts this time alone.

    Raises UsageError before anything is sent when a model cannot be opened or a function not be imported, and
    StoreError when the journal fails.
    """
    started = time.monotonic()
    journal.begin_run(plan.run, plan.cells())
    filters = selection.filters()
    waiting = unjudged(journal, plan.run.id, plan.evaluators, filters)
    evaluators = [evaluator for evaluator in plan.evaluators if waiting.get(evaluator.name) != 0]
    deployments = _open_needed(
        workspace, plan, missing_outputs(plan, journal, selection), evaluators, settings
    )
    replay = settings.replay  # costs nothing, whatever was paid for what it gives
    budget = Budget() if replay else spent_budget(plan.experiment.budget, plan.run.id, journal)
    tally = Tally(journal.n_pending(plan.run.id, plan.evaluator_identities, **filters))
    with _collecting_seldom():
        async with open_caller(deployments, journal, budget, settings.utc_now, replay) as (caller, writer):
            carrying = Carrying(caller, writer, settings, tally, plan.experiment.budget.wall_s)
            pending = journal.pending(plan.run.id, plan.evaluator_identities, **filters)
            await carrying.carry_out(pending, Cells(plan, evaluators, carrying).finish)
        run = sum_up_run(journal, plan.run, carrying, plan.evaluators, time.monotonic() - started)
    journal.save_run(run)
    return result_of(journal, run, carrying, filters)


@contextmanager
def _collecting_seldom() -> Iterator[None]:
    """Let Python look for cycles less often: few records are in any, and the search took a quarter of our CPU."""
    before = gc.get_threshold()
    gc.set_threshold(COLLECT_AFTER, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _open_needed(
    workspace: Workspace,
    plan: Plan,
    missing: Mapping[str, int],
    evaluators: Sequence[BoundEvaluator],
    settings: Settings,
) -> dict[str, Deployment]:
    """Open the models of variants that lack an output, and those of evaluators that ask some."""
    needed = [plan.programs[name] for name, n in missing.items() if n]
    for program in needed:
        load_functions(program)
    if settings.replay is None:
        refuse_secrets(needed, settings.environment)
    asking: list[Program | BoundEvaluator] = [*needed, *evaluators]
    models = {name: version for each in asking for name, version in each.models.items()}
    return open_deployments(
        workspace,
        models,
        settings.environment,
        concurrency=settings.concurrency,
        replaying=settings.replay is not None,
    )


@dataclass
class Cells:
    """The work of a run: each cell gets its output, and the scores of the evaluators that lack one."""

    plan: Plan
    evaluators: Sequence[BoundEvaluator]
    carrying: Carrying
    threads: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(THREADS))

    async def finish(self, pending: Pending) -> None:
        """Carry out and score one cell. Whatever goes wrong belongs to this case alone."""
        cell, case, output = pending
        carrying = self.carrying
        if output is None:
            output = await self._output(cell, case)
            if output is None:
                return
            carrying.tally.note_output(output)
            await carrying.writer.record_output(cell, output)
        await score_cell(carrying, self.evaluators, cell, case, output, fresh=self.plan.run.fresh)

    async def _output(self, cell: Cell, case: Case) -> Output | None:
        """Return the output of a cell; None when it has to wait for a later run."""
        context = Context(
            caller=self.carrying.caller,
            trace=Trace(),
            case_id=case.id,
            cluster=case.cluster,
            repeat=cell.repeat,
            fresh=self.plan.run.fresh,
            threads=self.threads,
        )
        program = self.plan.programs[cell.variant]
        utc_now = self.carrying.settings.utc_now
        try:
            return await carry_out_case(program, case.inputs, context, cell.cell_id, utc_now)
        except StoreError:
            raise
        except (AccessError, BudgetError, Stopping) as error:
            self.carrying.meet(error)
        except Exception as raised:  # noqa: BLE001 - one case's unforeseen fault is data; the run goes on
            found = first_error(raised)
            info = ErrorInfo(kind="internal", message=f"{type(found).__name__}: {found}")
            return _summed(cell.cell_id, context.trace, utc_now(), status=Status.ERROR, error=info)
        return None


# --- one case ---------------------------------------------------------------------------------------------------


async def carry_out_case(
    program: Program,
    inputs: Mapping[str, Any],
    context: Context,
    cell_id: str,
    utc_now: Callable[[], datetime],
) -> Output:
    """Return the output of one program for one set of inputs, or the error it met as data.

    Raises AccessError, BudgetError, StoreError and Stopping, which end more than one case.
    """
    trace = context.trace
    try:
        top = await program.carry_out(inputs, context, Place(getattr(program, "name", "run")))
    except (AccessError, BudgetError, StoreError, Stopping):
        raise
    except Halted as error:
        return _failed(cell_id, trace, utc_now(), error.status, error)
    except ModelError as error:
        status = Status.UNKNOWN if isinstance(error, OutcomeUnknownError) else Status.ERROR
        return _failed(cell_id, trace, utc_now(), status, error)
    except LlmopsError as error:
        return _failed(cell_id, trace, utc_now(), Status.CRASHED, error)
    return _summed(
        cell_id,
        trace,
        utc_now(),
        status=Status.TRUNCATED if trace.truncated else Status.OK,
        value=top.output,
        latency_s=top.duration_s,
        ttft_s=top.ttft_s,
    )


def _failed(cell_id: str, trace: Trace, now: datetime, status: Status, error: LlmopsError) -> Output:
    failed = [(span.name, span.error.message) for span in trace.finished() if span.error is not None]
    # What failed and was lived with, such as an agent's tool, is not to blame.
    steps = [name for name, message in failed if message == str(error)] or [name for name, _ in failed]
    info = ErrorInfo(
        kind=getattr(error, "kind", "step"), message=str(error), step=steps[-1] if steps else None
    )
    return _summed(cell_id, trace, now, status=status, error=info)


def _summed(cell_id: str, trace: Trace, now: datetime, **known: Any) -> Output:
    """Add up what the spans say of tokens, cost and models; figures of the trace's own stand above that."""
    spans = trace.finished()
    calls = [span for span in spans if span.call_id is not None]
    used = [span.usage for span in calls if span.usage is not None]
    costs = [span.cost_usd for span in calls if span.cost_usd is not None]
    summed = {
        "valid": trace.valid,
        "input_tokens": sum(usage.input_tokens for usage in used) if used else None,
        "output_tokens": sum(usage.output_tokens for usage in used) if used else None,
        "usage_estimated": any(usage.estimated for usage in used),
        "cost_usd": sum(costs) if len(costs) == len(calls) else None,
        "returned_model": trace.returned_model,
        "unfiltered": trace.unfiltered,
    }
    return Output(cell_id=cell_id, spans=spans, created_at=now, **{**summed, **known, **trace.figures})


async def run_once(
    workspace: Workspace,
    program: Program,
    inputs: Mapping[str, Any],
    journal: Journal,
    settings: Settings,
    *,
    fresh: int,
) -> Output:
    """Return the output of one prompt or chain for the given inputs, its calls paid for once like any other.

    Raises AccessError and UsageError as `run_experiment` does.
    """
    load_functions(program)
    refuse_secrets([program], settings.environment)
    deployments = open_deployments(
        workspace, program.models, settings.environment, concurrency=settings.concurrency
    )
    async with open_caller(deployments, journal, Budget(), settings.utc_now) as (caller, _):
        context = Context(caller=caller, trace=Trace(), fresh=fresh)
        return await carry_out_case(program, inputs, context, program.identity, settings.utc_now)
