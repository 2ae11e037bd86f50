"""Experiment -> run: plan, carry out, score as outputs arrive.

Reads a plan and what the journal has of it; calls models through the one path of `call`; writes calls, outputs,
spans and scores to the journal as they come, and the run's record at the end. Works like make: what is there is
not done again, and what was interrupted goes on where it stopped.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from llmops.call import Budget, Caller, Deployment, Limiter
from llmops.definitions.dataset import Case
from llmops.definitions.project import ModelDefinition
from llmops.definitions.workspace import Workspace
from llmops.errors import (
    AccessError,
    BudgetError,
    LlmopsError,
    ModelError,
    StoreError,
    UsageError,
    first_error,
)
from llmops.evaluators.bound import bind_evaluators
from llmops.models import open_model
from llmops.plan import Plan, Selection, run_id, run_identity
from llmops.records import ErrorInfo, ModelVersion, Output, Run, RunStatus, Span, Status
from llmops.score import score_output
from llmops.score.summary import summarise_run
from llmops.steps import project_model
from llmops.steps.base import Context, Halted, Place, Program, Trace
from llmops.stores.journal import Cell, Journal
from llmops.stores.writer import Writer

LOOKAHEAD = 64
"""Cells under way beyond those in flight, so that their intents are on disk before a place is free."""

DRAIN_S = 10.0
FAILED = frozenset({Status.ERROR, Status.UNKNOWN, Status.CRASHED})


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
    """What one carrying out did, whatever the journal had before."""

    n_total: int
    n_done: int = 0
    n_errors: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def note(self, output: Output) -> None:
        """Count one output, and remember one message for each class of error."""
        if output.error is not None and output.status in FAILED:
            self.n_errors += 1
            self.kinds[output.error.kind] += 1
            self.examples.setdefault(output.error.kind, output.error.message)


@dataclass(frozen=True)
class Result:
    """A run after being carried out. stopped: why it ended early, None when all of it was done.

    n_selected: cells asked for. n_without_output: of those, how many have none. signal: that interrupted it.
    """

    run: Run
    n_selected: int
    n_without_output: int
    errors: Mapping[str, tuple[int, str]]
    stopped: LlmopsError | None = None
    signal: int | None = None


@dataclass(frozen=True)
class Settings:
    """What the command line says about carrying out. concurrency: in flight for each model, None as declared."""

    environment: Mapping[str, str]
    utc_now: Callable[[], datetime]
    concurrency: int | None = None
    progress: Callable[[Progress], None] = lambda _: None


def find_finished(plan: Plan, journal: Journal) -> Run | None:
    """Return the run if all of it has been done: then there is nothing to call, score or write."""
    known = journal.find_run(plan.run.id)
    return known if known is not None and known.status is RunStatus.COMPLETE else None


def missing_outputs(plan: Plan, journal: Journal, selection: Selection) -> dict[str, int]:
    """Return how many cells of each selected variant have no output yet."""
    chosen = selection.variants or {variant.name for variant in plan.run.variants}
    return {
        name: journal.n_pending(
            plan.run.id, (), variants={name}, cases=selection.cases, limit=selection.limit
        )
        for name in sorted(chosen)
    }


def open_deployments(
    workspace: Workspace, versions: Mapping[str, ModelVersion], settings: Settings
) -> dict[str, Deployment]:
    """Return the models a run will ask, ready to be asked.

    Raises UsageError naming every variable that is missing and every parameter a model does not take.
    """
    deployments: dict[str, Deployment] = {}
    problems: list[str] = []
    for name, version in versions.items():
        definition = _with_concurrency(project_model(workspace, name), settings.concurrency)
        try:
            model = open_model(name, definition, settings.environment)
        except UsageError as error:
            problems.append(str(error))
            continue
        limiter = Limiter(definition.limits, time.monotonic)
        deployments[name] = Deployment(version, definition, model, limiter)
    if problems:
        raise UsageError("\n".join(problems))
    return deployments


def _with_concurrency(definition: ModelDefinition, concurrency: int | None) -> ModelDefinition:
    if concurrency is None:
        return definition
    limits = definition.limits.model_copy(update={"concurrency": concurrency})
    return definition.model_copy(update={"limits": limits})


async def run_experiment(
    workspace: Workspace, plan: Plan, journal: Journal, selection: Selection, settings: Settings
) -> Result:
    """Return the run, carried out as far as selection, budget and the world allow.

    Raises UsageError before anything is sent when a model cannot be opened; StoreError when the journal fails.
    """
    started = time.monotonic()
    journal.begin_run(plan.run, plan.cells())
    missing = missing_outputs(plan, journal, selection)
    needed = {
        name: version
        for variant, n in missing.items()
        if n
        for name, version in plan.programs[variant].models.items()
    }
    deployments = open_deployments(workspace, needed, settings)
    budget = Budget(usd=plan.experiment.budget.usd, calls=plan.experiment.budget.calls)
    filters = selection.filters()
    n_todo = journal.n_pending(plan.run.id, plan.evaluator_identities, **filters)
    async with Writer(journal) as writer:
        caller = Caller(deployments, writer, budget, settings.utc_now)
        carrying = Carrying(plan, caller, writer, settings, Tally(n_todo))
        try:
            pending = journal.pending(plan.run.id, plan.evaluator_identities, **filters)
            await carrying.carry_out(pending)
        finally:
            for deployment in deployments.values():
                await deployment.model.close()
    run = _finished(plan, journal, carrying, caller, wall_s=time.monotonic() - started)
    journal.save_run(run)
    without = sum(missing_outputs(plan, journal, selection).values())
    tally = carrying.tally
    return Result(
        run=run,
        n_selected=journal.n_cells(plan.run.id, **filters),
        n_without_output=without,
        errors={kind: (n, tally.examples[kind]) for kind, n in tally.kinds.most_common()},
        stopped=carrying.stopped,
        signal=carrying.signal,
    )


def _finished(plan: Plan, journal: Journal, carrying: Carrying, caller: Caller, *, wall_s: float) -> Run:
    """Sum up what the journal has of the run now."""
    before = journal.find_run(plan.run.id) or plan.run
    n_pending = journal.n_pending(plan.run.id, plan.evaluator_identities)
    n_open = journal.n_pending(plan.run.id, ())
    status = RunStatus.COMPLETE if n_pending == 0 else RunStatus.PARTIAL
    if carrying.stopped is not None:
        status = RunStatus.STOPPED
    spent = caller.budget.spent_usd if _all_priced(caller) else None
    cost = None if before.cost_usd is None or spent is None else before.cost_usd + spent
    run = before.model_copy(
        update={
            "status": status,
            "finished_at": carrying.settings.utc_now(),
            "n_done": plan.run.n_cells - n_open,
            "n_calls": before.n_calls + caller.budget.n_calls,
            "n_reused": before.n_reused + caller.n_reused,
            "cost_usd": cost,
            "wall_s": before.wall_s + wall_s,
        }
    )
    run = summarise_run(journal, run, plan.evaluators)
    rates = [figures["error_rate"] for figures in run.summary.values()]
    return run.model_copy(update={"n_errors": round(sum((rate.value or 0) * rate.n for rate in rates))})


def _all_priced(caller: Caller) -> bool:
    return all(deployment.price is not None for deployment in caller.deployments.values())


@dataclass
class Carrying:
    """One carrying out: workers that take cells in order until there are none, or something stops them."""

    plan: Plan
    caller: Caller
    writer: Writer
    settings: Settings
    tally: Tally
    stopped: LlmopsError | None = None
    signal: int | None = None
    _stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def carry_out(self, pending: Iterator[tuple[Cell, Case, Output | None]]) -> None:
        """Work off the cells; the first signal stops taking new ones, the second ends at once."""
        n_workers = LOOKAHEAD + 2 * sum(
            deployment.definition.limits.concurrency for deployment in self.caller.deployments.values()
        )
        cells = iter(pending)
        with self._signals():
            work = asyncio.ensure_future(self._all(cells, min(n_workers, max(self.tally.n_total, 1))))
            stop = asyncio.ensure_future(self._stop.wait())
            budget = self.plan.experiment.budget.wall_s
            done, _ = await asyncio.wait({work, stop}, timeout=budget, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                self._stop_because(BudgetError(f"the budget of {budget:g} s is used up"))
            if work not in done:
                await asyncio.wait({work}, timeout=DRAIN_S)
            stop.cancel()
            if not work.done():
                work.cancel()
            try:
                await work
            except asyncio.CancelledError:
                if not self._stop.is_set():
                    raise
            except ExceptionGroup as group:
                raise first_error(group) from None
        await self.writer.flush()

    async def _all(self, cells: Iterator[tuple[Cell, Case, Output | None]], n_workers: int) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(n_workers):
                group.create_task(self._work(cells))

    async def _work(self, cells: Iterator[tuple[Cell, Case, Output | None]]) -> None:
        while not self._stop.is_set():
            found = next(cells, None)
            if found is None:
                return
            await self._one(*found)

    async def _one(self, cell: Cell, case: Case, output: Output | None) -> None:
        """Carry out and score one cell. Whatever goes wrong belongs to this case alone."""
        if output is None:
            output = await self._output(cell, case)
            if output is None:
                return
            self.tally.note(output)
            await self.writer.record_output(cell, output)
        scores = await score_output(self.plan.evaluators, case, output)
        await self.writer.record_scores(cell, scores)
        self.tally.n_done += 1
        self._tell()

    async def _output(self, cell: Cell, case: Case) -> Output | None:
        program = self.plan.programs[cell.variant]
        trace = Trace()
        context = Context(
            caller=self.caller,
            trace=trace,
            case_id=case.id,
            cluster=case.cluster,
            repeat=cell.repeat,
            fresh=self.plan.run.fresh,
        )
        try:
            return await carry_out_case(program, case.inputs, context, cell.cell_id, self.settings.utc_now)
        except StoreError:
            raise
        except BudgetError as error:
            self._stop_because(error)
        except AccessError as error:
            self._note_access(error)
        except Exception as error:  # noqa: BLE001 - one case's unforeseen fault is data; the run goes on
            info = ErrorInfo(kind="internal", message=f"{type(error).__name__}: {error}")
            now = self.settings.utc_now()
            return _summed(cell.cell_id, trace, now, status=Status.ERROR, error=info)
        return None

    def _note_access(self, error: AccessError) -> None:
        """Other models go on; when none is left to ask, the run stops."""
        self.tally.n_errors += 1
        self.tally.kinds[error.kind] += 1
        self.tally.examples.setdefault(error.kind, str(error))
        self.stopped = self.stopped or error
        if all(deployment.stopped is not None for deployment in self.caller.deployments.values()):
            self._stop_because(error)

    def _stop_because(self, error: LlmopsError) -> None:
        self.stopped = self.stopped or error
        self._stop.set()

    def _tell(self) -> None:
        budget = self.caller.budget
        tally = self.tally
        self.settings.progress(
            Progress(tally.n_done, tally.n_total, tally.n_errors, budget.n_calls, budget.spent_usd)
        )

    def _signals(self) -> _Signals:
        return _Signals(self._interrupt)

    def _interrupt(self, number: int) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number
        self._stop.set()


class _Signals:
    """Turns the first SIGINT or SIGTERM into a call, where the main thread lets us."""

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


async def carry_out_case(
    program: Program,
    inputs: Mapping[str, Any],
    context: Context,
    cell_id: str,
    utc_now: Callable[[], datetime],
) -> Output:
    """Return the output of one program for one set of inputs, or the error it met as data.

    Raises AccessError, BudgetError and StoreError, which end more than one case.
    """
    trace = context.trace
    try:
        top = await program.carry_out(inputs, context, Place(getattr(program, "name", "run")))
    except (AccessError, BudgetError, StoreError):
        raise
    except Halted as error:
        info = ErrorInfo(kind=str(error.status), message=str(error), step=_where(trace))
        return _summed(cell_id, trace, utc_now(), status=error.status, error=info)
    except ModelError as error:
        info = ErrorInfo(kind=error.kind, message=str(error), step=_where(trace))
        return _summed(cell_id, trace, utc_now(), status=Status.ERROR, error=info)
    except LlmopsError as error:
        info = ErrorInfo(kind="step", message=str(error), step=_where(trace))
        return _summed(cell_id, trace, utc_now(), status=Status.CRASHED, error=info)
    status = Status.TRUNCATED if trace.truncated else Status.OK
    output = _summed(cell_id, trace, utc_now(), status=status, value=top.output)
    return output.model_copy(update={"latency_s": top.duration_s, "ttft_s": top.ttft_s})


def _where(trace: Trace) -> str | None:
    failed = [span.name for span in trace.finished() if span.error is not None]
    return failed[-1] if failed else None


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
    deployments = open_deployments(workspace, program.models, settings)
    async with Writer(journal) as writer:
        caller = Caller(deployments, writer, Budget(), settings.utc_now)
        context = Context(caller=caller, trace=Trace(), fresh=fresh)
        try:
            return await carry_out_case(program, inputs, context, program.identity, settings.utc_now)
        finally:
            for deployment in deployments.values():
                await deployment.model.close()


async def rescore_run(workspace: Workspace, before: Run, journal: Journal, settings: Settings) -> Run:
    """Return the run with today's evaluators over the outputs it has; nothing is called.

    The same run comes back when the evaluators are those it was scored with.
    """
    started = time.monotonic()
    evaluators = bind_evaluators(workspace, before.experiment)
    judged_by = tuple(evaluator.version() for evaluator in evaluators)
    identity = run_identity(before.variants, before.dataset.version, judged_by, before.repeats, before.seed)
    if identity == before.identity:
        return before
    run = before.model_copy(
        update={
            "id": run_id(before.experiment, identity, before.fresh),
            "identity": identity,
            "evaluators": judged_by,
            "created_at": settings.utc_now(),
            "n_calls": 0,
            "n_reused": 0,
            "cost_usd": 0.0,
            "comparisons": (),
        }
    )
    journal.begin_run(run, journal.cells(before.id))
    async with Writer(journal) as writer:
        for cell, case, output in journal.pending(run.id, [evaluator.identity for evaluator in evaluators]):
            if output is not None:
                await writer.record_scores(cell, await score_output(evaluators, case, output))
    run = run.model_copy(update={"finished_at": settings.utc_now(), "wall_s": time.monotonic() - started})
    return summarise_run(journal, run, evaluators)
