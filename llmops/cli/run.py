"""`llmops run`: carry out an experiment, or one prompt or chain."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import click

from llmops.cli.exits import STOPPED_BY_SIGNAL, Exit
from llmops.cli.recordings import open_replay, record_replies, tell_misses
from llmops.cli.render import given_inputs, read_paths
from llmops.cli.session import (
    Session,
    complete_names,
    json_option,
    open_session,
    print_record,
    say,
    steady_clock,
    take_sources,
    utc_now,
)
from llmops.errors import AccessError, BudgetError, DefinitionError, ParkedError, RecordingError, UsageError
from llmops.records import Output, Run, RunStatus, Status

if TYPE_CHECKING:
    from llmops.call.carrying import Result
    from llmops.call.replay import Replay
    from llmops.definitions.reference import Kind
    from llmops.definitions.workspace import Resolved
    from llmops.plan import Plan, Selection
    from llmops.steps.overrides import Overrides
    from llmops.stores.journal import Journal

MOST_UNDONE = 0.05


@click.command("run")
@click.argument("target", shell_complete=complete_names("experiment", "prompt", "chain"))
@click.option("--limit", type=click.IntRange(1), help="Only the first N cases, in the run's own order.")
@click.option("--case", "cases", multiple=True, metavar="ID", help="Only this case; repeatable.")
@click.option("--variant", "variants", multiple=True, metavar="NAME", help="Only this variant; repeatable.")
@click.option("--model", "models", multiple=True, metavar="NAME", help="Only variants on this model.")
@click.option("--concurrency", type=click.IntRange(1, 4096), help="Calls in flight for each model.")
@click.option("--fresh", is_flag=True, help="Pay again, as a new run of the same identity.")
@click.option("--why", is_flag=True, help="Say why there is work, and what it takes.")
@click.option("--dry-run", is_flag=True, help="Stop after the plan: nothing is called or written.")
@click.option("--skip-bad", is_flag=True, help="Leave out cases that are wrong, and count them.")
@click.option("--allow-empty", is_flag=True, help="Go on with a dataset or split of no cases.")
@click.option("--input", "inputs", multiple=True, metavar="K=V", help="An input of a prompt or chain.")
@click.option(
    "--set", "paths", multiple=True, metavar="PATH=V", help="As in a variant, for a prompt or chain."
)
@click.option("--chat", is_flag=True, help="Talk to a prompt or chain, line by line.")
@click.option("--record", is_flag=True, help="Write the replies down beside the experiment, for --replay.")
@click.option("--replay", type=click.Choice(["only"]), help="Ask no model: recordings answer, without a key.")
@click.option("--no-sync", is_flag=True, help="Leave MLflow for a later `llmops sync`.")
@json_option
def command(target: str, inputs: tuple[str, ...], paths: tuple[str, ...], **given: Any) -> int:
    """Carry out TARGET: an experiment, or one prompt or chain with --input or in a --chat.

    Works like make: what has been answered is not called again, and an interrupted run goes on where it stopped.
    """
    session, options = open_session(), Options(**given)
    kind, reference = session.target(target, ("experiment", "prompt", "chain"))
    if kind == "experiment":
        if inputs or paths:
            raise UsageError("--input and --set belong to a prompt or chain; an experiment has a dataset")
        if options.chat:
            raise UsageError(f"{target} is an experiment: a --chat is with a prompt or chain")
        return _run_experiment(session, reference, options)
    return _run_one(session, kind, reference, read_paths(paths), inputs, options)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What was asked for, by the names of the options."""

    limit: int | None
    cases: Sequence[str]
    variants: Sequence[str]
    models: Sequence[str]
    concurrency: int | None
    fresh: bool
    why: bool
    dry_run: bool
    skip_bad: bool
    allow_empty: bool
    record: bool
    replay: str | None
    no_sync: bool
    as_json: bool
    chat: bool


OF_EXPERIMENTS = [
    "allow_empty",
    "cases",
    "dry_run",
    "limit",
    "record",
    "replay",
    "skip_bad",
    "variants",
    "why",
]


def _run_experiment(session: Session, name: str, options: Options) -> int:
    if options.replay and (options.record or options.fresh):
        other = "--record" if options.record else "--fresh"
        raise UsageError(f"--replay reads recordings: it goes without {other}")
    session.workspace.skip_bad, session.workspace.allow_empty = options.skip_bad, options.allow_empty
    replaying = open_replay(session, name) if options.replay else None
    with open_run_journal(session, create=not options.dry_run, local=replaying is not None) as journal:
        if not options.dry_run and replaying is None:
            take_sources(session, "experiment", name)
        plan, selection = _planned(session, name, journal, options, replaying)
        if options.dry_run or journal is None:
            return _tell_plan(explain(session, plan, journal, selection), as_json=options.as_json)
        code = _finish(session, plan, journal, selection, options, replaying)
        if options.record:
            record_replies(session, journal, plan.run)
    if not options.no_sync and replaying is None and code not in STOPPED_BY_SIGNAL:
        from llmops.cli.sync import sync_after_run

        sync_after_run(session, plan.run.id)
    return code


def _planned(
    session: Session, name: str, journal: Journal | None, options: Options, replaying: Replay | None
) -> tuple[Plan, Selection]:
    from llmops.plan import plan_experiment, select

    replayed = replaying.identity if replaying else None
    plan = plan_experiment(
        session.workspace, name, journal, fresh=options.fresh, replayed=replayed, now=utc_now()
    )
    _tell_skipped(session)
    return plan, select(
        plan,
        variants=options.variants,
        models=options.models,
        cases=options.cases,
        limit=options.limit,
    )


def _finish(
    session: Session,
    plan: Plan,
    journal: Journal,
    selection: Selection,
    options: Options,
    replaying: Replay | None,
) -> int:
    """Carry out what is missing, if anything is, and show the run."""
    from llmops.run import find_finished

    finished = find_finished(plan, journal, selection)
    if options.why:
        tell_why(explain(session, plan, journal, selection))
    if finished is not None:
        return _nothing_to_do(finished, journal, as_json=options.as_json)
    run, result = carry_out(session, plan, journal, selection, options.concurrency, replaying)
    return _tell_run(run, result, journal, replaying, as_json=options.as_json)


def _tell_skipped(session: Session) -> None:
    for dataset in session.workspace.read_datasets():
        if dataset.n_skipped:
            what = "1 wrong case is" if dataset.n_skipped == 1 else f"{dataset.n_skipped:,} wrong cases are"
            say(f"{dataset.path}: {what} left out; `llmops check` says why")


@contextmanager
def open_run_journal(session: Session, *, create: bool, local: bool = False) -> Iterator[Journal | None]:
    """Give the journal; None when nothing has run here and no store may be made. local: one on this disk."""
    if not create and (local or not session.has_journal()):
        yield None
        return
    with closing(session.local_journal() if local else session.journal()) as journal:
        yield journal


def _nothing_to_do(run: Run, journal: Journal, *, as_json: bool) -> int:
    from llmops.cli.report import print_run

    newest = journal.latest_run(run.experiment)
    if newest is not None and newest.id != run.id:  # the files are again what they were then
        with journal.hold(run.id):
            journal.begin_run(run, ())
    part = "" if run.status is RunStatus.COMPLETE else "this part of "
    say(f"nothing to do: {part}{run.id} is complete, 0 calls")
    print_run(run, journal, as_json=as_json)
    return Exit.DONE


def carry_out(
    session: Session,
    plan: Plan,
    journal: Journal,
    selection: Selection,
    concurrency: int | None,
    replay: Replay | None,
) -> tuple[Run, Result]:
    """Return the run, carried out and compared with its baseline, and what it came to; progress is shown.

    Raises DefinitionError when `check` finds anything, BudgetError when the prompts alone would cost more.
    """
    from llmops.call.carrying import Settings
    from llmops.check import check_workspace
    from llmops.cli.progress import showing_progress
    from llmops.compare import compare_run  # before anything is paid for: later there may be no memory for it
    from llmops.evaluators.bound import ahead
    from llmops.run import run_experiment

    findings = check_workspace(session.workspace, [("experiment", plan.run.experiment)])
    if findings:
        raise DefinitionError(findings)
    for note in (*plan.notes, *_notices(plan)):
        say(f"note: {note}")
    with ahead(plan.evaluators), journal.hold(plan.run.id):
        if (budget := plan.experiment.budget.usd) is not None and replay is None:
            _refuse_over_budget(explain(session, plan, journal, selection), budget)
        with showing_progress(plan.run.id) as progress:
            settings = Settings(session.environment, steady_clock(), concurrency, progress, give_up, replay)
            result = asyncio.run(run_experiment(session.workspace, plan, journal, selection, settings))
        compared = tuple(compare_run(journal, result.run, now=utc_now())) if plan.cases else ()
        run = result.run.model_copy(update={"comparisons": compared})
        journal.save_run(run)
    return run, result


def _tell_run(run: Run, result: Result, journal: Journal, replay: Replay | None, *, as_json: bool) -> int:
    from llmops.cli.report import print_run

    print_run(run, journal, as_json=as_json)
    code = tell_result(result)
    if replay is not None:
        tell_misses(replay, result)
    return code


def _notices(plan: Plan) -> Iterator[str]:
    """Yield what users of a model should know before it is gone."""
    models = [model for variant in plan.run.variants for model in variant.models]
    models += [model for evaluator in plan.run.evaluators for model in evaluator.models]
    if any(model.provider == "azure_inference" for model in models):
        from llmops.cli.doctor import AZURE_NOTICE

        yield "; move to ".join(AZURE_NOTICE)


def give_up(number: int) -> None:
    """End at once, as a kill would: what was answered is in the journal, and no thread is waited for."""
    if sys.stderr.isatty():
        sys.stderr.write("\x1b[?25h")  # the cursor, which the bar hides
    say("interrupted")
    os._exit(128 + number)


# --- what it takes --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Explanation:
    """What a run would do, and why. n_cells: at most, less what the journal has of their calls already.

    n_judge_calls: of the calls, those of evaluators. spent_usd: by this run before.
    """

    run_id: str
    reasons: Sequence[str]
    n_cells: int
    n_calls: int
    n_judge_calls: int
    input_tokens: int | None
    input_usd: float | None
    spent_usd: float


def explain(session: Session, plan: Plan, journal: Journal | None, selection: Selection) -> Explanation:
    """Return what carrying out a part of a plan would take, and why."""
    from llmops.plan import estimate, reasons
    from llmops.run import missing_outputs
    from llmops.score import unjudged

    known = None if journal is None else journal.find_run(plan.run.id)
    if journal is None or known is None:
        n_cases = len(selection.cases or plan.cases)
        n_cases = min(n_cases, selection.limit or n_cases)
        names = [variant.name for variant in plan.run.variants]
        chosen = [name for name in names if selection.variants is None or name in selection.variants]
        missing = dict.fromkeys(chosen, n_cases * plan.run.repeats)
        waiting = dict.fromkeys((each.name for each in plan.evaluators), sum(missing.values()))
    else:
        missing = missing_outputs(plan, journal, selection)
        waiting = unjudged(journal, plan.run.id, plan.evaluators, selection.filters())
    needed = estimate(session.workspace, plan, missing, waiting)
    n_cells = sum(missing.values())
    before = None if journal is None else journal.latest_run(plan.run.experiment)
    return Explanation(
        run_id=plan.run.id,
        reasons=reasons(plan.run, before) if needed.n_calls or n_cells or known is None else [],
        n_cells=n_cells,
        n_calls=needed.n_calls,
        n_judge_calls=needed.n_judge_calls,
        input_tokens=needed.input_tokens,
        input_usd=needed.input_usd,
        spent_usd=(known.cost_usd or 0.0) if known is not None else 0.0,
    )


def _tell_plan(explained: Explanation, *, as_json: bool) -> int:
    if as_json:
        print_record(asdict(explained))
    else:
        tell_why(explained, click.echo)
    return Exit.DONE


def tell_why(explained: Explanation, tell: Callable[[str], None] = say) -> None:
    """Say what a run would do, and why."""
    if not explained.n_cells and not explained.n_calls and not explained.reasons:
        tell(f"{explained.run_id}: every output is there")
        return
    for reason in explained.reasons:
        tell(f"because {reason}")
    tokens = explained.input_tokens
    usd = explained.input_usd
    judges = f" ({explained.n_judge_calls:,} of them to score)" if explained.n_judge_calls else ""
    tell(
        f"{explained.run_id}: at most {explained.n_cells:,} cells to carry out, {explained.n_calls:,} calls{judges}, "
        f"{'an unknown number of' if tokens is None else f'about {tokens:,}'} input tokens (cost of input: "
        f"{'unknown' if usd is None else f'{usd:.4f} USD'}), less what the journal has already"
    )


def _refuse_over_budget(explained: Explanation, budget: float) -> None:
    left = budget - explained.spent_usd
    if explained.input_usd is not None and explained.input_usd > left:
        raise BudgetError(
            f"the prompts alone would cost {explained.input_usd:.2f} USD of a budget of {budget:.2f}, "
            f"{explained.spent_usd:.2f} of it spent: raise the budget, or run a part with --limit"
        )


def tell_result(result: Result) -> int:
    """Say what went wrong on the way, and return the exit code."""
    from llmops.report.texts import one_line

    for kind, (n, message) in result.errors.items():
        say(f"{n} x {kind}: {one_line(message)}")
    if result.signal is not None:
        say("interrupted; run the same command again to go on")
        return 128 + result.signal
    if isinstance(result.stopped, ParkedError):
        say(f"stopped: {one_line(str(result.stopped))}; run the same command again, later, to go on")
        return Exit.INCOMPLETE
    if isinstance(result.stopped, AccessError | BudgetError):
        fix = "raise it, then" if isinstance(result.stopped, BudgetError) else "mend that, then"
        say(f"stopped: {one_line(str(result.stopped))}; {fix} run the same command again to go on")
        return Exit.STOPPED
    if RecordingError.kind in result.errors:
        return Exit.INCOMPLETE
    if result.n_without_output + result.n_without_score > MOST_UNDONE * result.n_selected:
        lacking = {"output": result.n_without_output, "score of some evaluator": result.n_without_score}
        for what, n in lacking.items():
            if n:
                say(
                    f"{n} of {result.n_selected} cells have no {what}; run the same command again to try them again"
                )
        return Exit.INCOMPLETE
    return Exit.DONE


# --- one prompt or chain --------------------------------------------------------------------------------------


def _run_one(
    session: Session,
    kind: Kind,
    reference: str,
    paths: dict[str, object],
    inputs: tuple[str, ...],
    options: Options,
) -> int:
    from llmops.steps.overrides import Overrides

    _refuse_others(kind, options)
    overrides = Overrides(model=options.models[0] if options.models else None, paths=paths)
    take_sources(session, kind, reference)
    resolved = session.workspace.resolve(kind, reference)
    if not options.chat:
        return _ask_once(session, resolved, overrides, inputs, options)
    from llmops.cli.chat import chat as talk

    return talk(session, resolved, paths, inputs, model=overrides.model, is_fresh=options.fresh)


def _refuse_others(kind: str, options: Options) -> None:
    if given := [name for name in OF_EXPERIMENTS if getattr(options, name)]:
        option = given[0].rstrip("s").replace("_", "-")
        raise UsageError(f"--{option} belongs to an experiment, not to a {kind}")
    if len(options.models) > 1:
        raise UsageError(f"a {kind} is run on one model")
    if options.chat and options.as_json:
        raise UsageError("--json goes without --chat: a chat is many answers")


def _ask_once(
    session: Session, resolved: Resolved, overrides: Overrides, inputs: tuple[str, ...], options: Options
) -> int:
    from llmops.call.carrying import Settings
    from llmops.run import run_once
    from llmops.steps import open_program

    program = open_program(resolved, overrides, seed=0)
    declared = getattr(resolved.workspace, resolved.kind)(resolved.name).inputs
    values = given_inputs(session, inputs, declared)
    if missing := [name for name in declared if name not in values]:
        raise UsageError(f"{resolved.name} needs --input {missing[0]}=...")
    settings = Settings(session.environment, steady_clock(), options.concurrency)
    number = int(utc_now().timestamp() * 1e6) if options.fresh else 0  # paid again each time
    with closing(session.journal()) as journal, journal.hold(f"once-{uuid4().hex}"):
        output = asyncio.run(run_once(session.workspace, program, values, journal, settings, fresh=number))
    return _print_output(output, as_json=options.as_json)


def _print_output(output: Output, *, as_json: bool) -> int:
    from llmops.report.texts import printable

    if as_json:
        print_record(output)
    elif output.error is not None:
        say(printable(f"error: {output.error.kind}: {output.error.message}"))
    else:
        value = output.value
        text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
        click.echo(printable(text))
    if output.status is Status.CRASHED:
        return Exit.WRONG
    return Exit.DONE if output.error is None else Exit.INCOMPLETE
