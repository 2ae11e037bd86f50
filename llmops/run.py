"""Experiment -> run: plan, carry out, score as outputs arrive.

Reads a plan and what the journal has of it; calls models through the one path of `call`; writes calls, outputs,
spans and scores to the journal as they come, and the run's record at the end. Works like make: what is there is
not done again, and what was interrupted goes on where it stopped.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from llmops.call import Budget, Caller, Deployment, Stopping, open_caller, open_deployments, upper_cost
from llmops.definitions.dataset import Case
from llmops.definitions.project import Price
from llmops.definitions.workspace import Workspace
from llmops.errors import (
    AccessError,
    BudgetError,
    LlmopsError,
    ModelError,
    StoreError,
    first_error,
)
from llmops.evaluators.bound import BoundEvaluator
from llmops.models.tokens import estimate_request_tokens
from llmops.plan import Plan, Selection, find_status
from llmops.records import (
    FAILED,
    Call,
    CallState,
    ErrorInfo,
    Output,
    Run,
    RunStatus,
    Span,
    Status,
)
from llmops.score import score_output
from llmops.score.summary import summarise_run
from llmops.steps import load_functions
from llmops.steps.base import THREADS, Context, Halted, Place, Program, Trace
from llmops.stores.journal import Cell, Journal
from llmops.stores.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Sequence

LOOKAHEAD = 64
"""Cells under way beyond those in flight, so that their intents are on disk before a place is free."""

COLLECT_AFTER = 20_000
"""Objects more than before, when Python looks for cycles among the new ones; its own choice is 700."""

DRAIN_S = 9.0
"""What is in flight when a run is stopped may take so long to come home."""

SETTLE_S = 0.5
"""What came home is scored and written down in so much time, or by the next run."""


Pending = tuple[Cell, Case, Output | None]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come, for whoever shows it."""

    n_done: int
    n_total: int
    n_errors: int
    n_calls: int
    cost_usd: float


@dataclass
class Tally:
    """What one carrying out did, whatever the journal had before. examples: one message for each kind of error."""

    n_total: int
    n_done: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def note_output(self, output: Output) -> None:
        """Count an output that is an error."""
        if output.error is not None and output.status in FAILED:
            self.note_error(output.error.kind, output.error.message)

    def note_error(self, kind: str, message: str) -> None:
        """Count an error."""
        self.kinds[kind] += 1
        self.examples.setdefault(kind, message)


@dataclass(frozen=True)
class Result:
    """A run after being carried out. stopped: why it ended early, None when all of it was done.

    n_selected: cells asked for. n_without_output: of those, how many have none. signal: that interrupted it.
    errors: by kind, how often it was met and one message.
    """

    run: Run
    n_selected: int
    n_without_output: int
    errors: Mapping[str, tuple[int, str]]
    stopped: LlmopsError | None = None
    signal: int | None = None


def _interrupt(_: int) -> None:
    raise KeyboardInterrupt


@dataclass(frozen=True)
class Settings:
    """What the command line says about carrying out. concurrency: in flight for each model, None as declared.

    give_up: called with the number of the second signal.
    """

    environment: Mapping[str, str]
    utc_now: Callable[[], datetime]
    concurrency: int | None = None
    progress: Callable[[Progress], None] = lambda _: None
    give_up: Callable[[int], None] = _interrupt


def find_finished(plan: Plan, journal: Journal, selection: Selection) -> Run | None:
    """Return the run if all that is asked for has been done: then there is nothing to call, score or sum up."""
    known = journal.find_run(plan.run.id)
    if known is None or known.status is RunStatus.COMPLETE:
        return known
    is_summed_up = known.n_done == known.n_cells - journal.n_pending(known.id, ())
    n_pending = journal.n_pending(known.id, plan.evaluator_identities, **selection.filters())
    return known if is_summed_up and not n_pending else None


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
    newest = journal.latest_run()
    journal.begin_run(plan.run, plan.cells())
    deployments = _open_needed(workspace, plan, missing_outputs(plan, journal, selection), settings)
    lost = newest is not None and newest.id == plan.run.id
    budget = spent_budget(workspace, plan, journal, with_lost=lost)
    filters = selection.filters()
    tally = Tally(journal.n_pending(plan.run.id, plan.evaluator_identities, **filters))
    with _collecting_seldom():
        async with open_caller(deployments, journal, budget, settings.utc_now) as (caller, writer):
            carrying = Carrying(plan, caller, writer, settings, tally)
            await carrying.carry_out(journal.pending(plan.run.id, plan.evaluator_identities, **filters))
        run = _finished(journal, plan.run, carrying, plan.evaluators, time.monotonic() - started)
    journal.save_run(run)
    return Result(
        run=run,
        n_selected=journal.n_cells(plan.run.id, **filters),
        n_without_output=sum(missing_outputs(plan, journal, selection).values()),
        errors={kind: (n, tally.examples[kind]) for kind, n in tally.kinds.most_common()},
        stopped=carrying.stopped,
        signal=carrying.signal,
    )


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
    workspace: Workspace, plan: Plan, missing: Mapping[str, int], settings: Settings
) -> dict[str, Deployment]:
    needed = [plan.programs[name] for name, n in missing.items() if n]
    for program in needed:
        load_functions(program)
    models = {name: version for program in needed for name, version in program.models.items()}
    return open_deployments(workspace, models, settings.environment, concurrency=settings.concurrency)


def spent_budget(workspace: Workspace, plan: Plan, journal: Journal, *, with_lost: bool) -> Budget:
    """Return the budget of a run, less what it has spent before.

    with_lost: nothing else has run since the run's record was written, so that calls newer than it were made by a
    carrying out that was killed before it could say what it spent. Those without an answer may or may not have
    left: each counts as one request at its upper estimate.
    """
    asked = plan.experiment.budget
    budget = Budget(usd=asked.usd, calls=asked.calls)
    known = journal.find_run(plan.run.id)
    if known is None:
        return budget
    budget.n_calls = known.n_calls
    budget.spent_usd = known.cost_usd or 0.0
    budget.n_unpriced = int(known.cost_usd is None)
    models = workspace.project.models
    for call in journal.calls_since(known.finished_at or known.created_at) if with_lost else ():
        price = models[call.model].pricing() if call.model in models else None
        if call.state is not CallState.PLANNED:
            _add_lost(budget, call, price)
    return budget


def _add_lost(budget: Budget, call: Call, price: Price | None) -> None:
    upper = upper_cost(call.request, estimate_request_tokens(call.request), price)
    is_free = price is not None and upper == 0
    cost = 0.0 if call.cost_usd is None and is_free else call.cost_usd
    budget.n_calls += max(call.attempts, 1)
    budget.spent_usd += upper if cost is None else cost
    budget.n_unpriced += cost is None


def _finished(
    journal: Journal, planned: Run, carrying: Carrying, evaluators: Sequence[BoundEvaluator], wall_s: float
) -> Run:
    """Sum up what the journal has of the run now."""
    before = journal.find_run(planned.id) or planned
    caller = carrying.caller
    status = find_status(journal, before)
    if carrying.stopped is not None and status is not RunStatus.COMPLETE:
        status = RunStatus.STOPPED
    run = before.model_copy(
        update={
            "status": status,
            "finished_at": carrying.settings.utc_now(),
            "n_done": before.n_cells - journal.n_pending(before.id, ()),
            "n_calls": caller.budget.n_calls,
            "n_reused": before.n_reused + caller.n_reused,
            "cost_usd": None if caller.budget.n_unpriced else caller.budget.spent_usd,
            "wall_s": before.wall_s + wall_s,
        }
    )
    return summarise_run(journal, run, evaluators)


@dataclass
class Carrying:
    """One carrying out: workers that take cells in order until there are none, or something stops them.

    stopped: the first thing that keeps it from doing all. broken: the journal failed.
    """

    plan: Plan
    caller: Caller
    writer: Writer
    settings: Settings
    tally: Tally
    stopped: LlmopsError | None = None
    broken: StoreError | None = None
    signal: int | None = None
    threads: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(THREADS))
    _stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def carry_out(self, pending: Iterator[Pending]) -> None:
        """Work off the cells; the first signal stops taking new ones, the second ends at once.

        Raises StoreError when the journal fails; what is in flight then has still come home.
        """
        n_workers = LOOKAHEAD + 2 * sum(
            deployment.definition.limits.concurrency for deployment in self.caller.deployments.values()
        )
        with _Signals(self._note_signal):
            work = asyncio.ensure_future(self._all(pending, min(n_workers, max(self.tally.n_total, 1))))
            try:
                await self._until_done_or_stopped(work)
                if not work.done():
                    self.caller.stop()
                    await self._drain(work)
            finally:
                work.cancel()
                await asyncio.wait({work})
            if not work.cancelled() and (error := work.exception()) is not None:
                raise first_error(error)
        if self.broken is not None:
            raise self.broken
        await self.writer.flush()

    async def _until_done_or_stopped(self, work: asyncio.Future[None]) -> None:
        budget = self.plan.experiment.budget.wall_s
        if not await _first_of(work, self._stop, budget):
            self._stop_because(BudgetError(f"the budget of {budget:g} s is used up"))

    async def _drain(self, work: asyncio.Future[None]) -> None:
        """Let requests in flight come home; whoever only waits for a turn is let go."""
        await _first_of(work, self.caller.idle, DRAIN_S)
        await asyncio.wait({work}, timeout=SETTLE_S)

    async def _all(self, cells: Iterator[Pending], n_workers: int) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(n_workers):
                group.create_task(self._work(cells))

    async def _work(self, cells: Iterator[Pending]) -> None:
        while not self._stop.is_set():
            try:
                found = next(cells, None)
                if found is None:
                    return
                await self._one(*found)
            except StoreError as error:
                self.broken = self.broken or error
                self._stop_because(error)

    async def _one(self, cell: Cell, case: Case, output: Output | None) -> None:
        """Carry out and score one cell. Whatever goes wrong belongs to this case alone."""
        if output is None:
            output = await self._output(cell, case)
            if output is None:
                return
            self.tally.note_output(output)
            await self.writer.record_output(cell, output)
        scores = await score_output(self.plan.evaluators, case, output)
        await self.writer.record_scores(cell, scores)
        self.tally.n_done += 1
        self._tell()

    async def _output(self, cell: Cell, case: Case) -> Output | None:
        """Return the output of a cell; None when it has to wait for a later run."""
        context = Context(
            caller=self.caller,
            trace=Trace(),
            case_id=case.id,
            cluster=case.cluster,
            repeat=cell.repeat,
            fresh=self.plan.run.fresh,
            threads=self.threads,
        )
        program = self.plan.programs[cell.variant]
        try:
            return await carry_out_case(program, case.inputs, context, cell.cell_id, self.settings.utc_now)
        except (StoreError, Stopping) as error:
            if isinstance(error, StoreError):
                raise
        except BudgetError as error:
            self._stop_because(error)
        except AccessError as error:
            self._note_access(error)
        except Exception as raised:  # noqa: BLE001 - one case's unforeseen fault is data; the run goes on
            found = first_error(raised)
            info = ErrorInfo(kind="internal", message=f"{type(found).__name__}: {found}")
            return _summed(
                cell.cell_id, context.trace, self.settings.utc_now(), status=Status.ERROR, error=info
            )
        return None

    def _note_access(self, error: AccessError) -> None:
        """Other models go on; when none is left to ask, the run stops."""
        self.tally.note_error(error.kind, str(error))
        self.stopped = self.stopped or error
        if all(deployment.stopped is not None for deployment in self.caller.deployments.values()):
            self._stop_because(error)

    def _stop_because(self, error: LlmopsError) -> None:
        self.stopped = self.stopped or error
        self._stop.set()

    def _tell(self) -> None:
        budget, tally = self.caller.budget, self.tally
        n_errors = tally.kinds.total()
        self.settings.progress(
            Progress(tally.n_done, tally.n_total, n_errors, budget.n_calls, budget.spent_usd)
        )

    def _note_signal(self, number: int) -> None:
        if self.signal is not None:
            self.settings.give_up(number)
        self.signal = number
        self._stop.set()


async def _first_of(work: asyncio.Future[None], event: asyncio.Event, timeout_s: float | None) -> bool:
    """Wait for either; return whether one of them came in time."""
    other = asyncio.ensure_future(event.wait())
    both: set[asyncio.Future[Any]] = {work, other}
    done, _ = await asyncio.wait(both, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    other.cancel()
    return bool(done)


class _Signals:
    """Turns SIGINT and SIGTERM into a call, where the main thread lets us."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        self._tell = tell
        self._before: dict[int, Any] = {}

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.getsignal(number)
                loop.add_signal_handler(number, self._tell, number)
            except (ValueError, RuntimeError, NotImplementedError):
                self._before.pop(number, None)

    def __exit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for number, handler in self._before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


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
        return _failed(cell_id, trace, utc_now(), Status.ERROR, error)
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
    steps = [span.name for span in trace.finished() if span.error is not None]
    info = ErrorInfo(
        kind=getattr(error, "kind", "step"), message=str(error), step=steps[-1] if steps else None
    )
    return _summed(cell_id, trace, now, status=status, error=info)


def _summed(cell_id: str, trace: Trace, now: datetime, **known: Any) -> Output:
    """Add up what the spans say of tokens, cost and models."""
    spans = trace.finished()
    calls: list[Span] = [span for span in spans if span.call_id is not None]
    used = [span.usage for span in calls if span.usage is not None]
    costs = [span.cost_usd for span in calls]
    return Output(
        cell_id=cell_id,
        valid=trace.valid,
        input_tokens=sum(usage.input_tokens for usage in used) if used else None,
        output_tokens=sum(usage.output_tokens for usage in used) if used else None,
        usage_estimated=any(usage.estimated for usage in used),
        cost_usd=None if any(cost is None for cost in costs) else sum(cost or 0.0 for cost in costs),
        returned_model=trace.returned_model,
        spans=spans,
        created_at=now,
        **known,
    )


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
    deployments = open_deployments(
        workspace, program.models, settings.environment, concurrency=settings.concurrency
    )
    async with open_caller(deployments, journal, Budget(), settings.utc_now) as (caller, _):
        context = Context(caller=caller, trace=Trace(), fresh=fresh)
        return await carry_out_case(program, inputs, context, program.identity, settings.utc_now)
