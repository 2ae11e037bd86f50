"""`llmops gate`: run what is missing on both sides, judge, and exit with the verdict."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmops.cli.exits import STOPPED_BY_SIGNAL, Exit, exit_of, verdict_exit
from llmops.cli.faces import Faces, close_verdicts, show_verdict
from llmops.cli.session import Session, complete_names, json_option, open_session, say, take_sources, utc_now
from llmops.errors import LlmopsError, UsageError

if TYPE_CHECKING:
    from llmops.gate import Court
    from llmops.plan import Plan
    from llmops.records import Verdict
    from llmops.stores.journal import Journal

PRECEDENCE = (Exit.WRONG, Exit.HELD, Exit.STOPPED, Exit.INCOMPLETE, Exit.FAILED, Exit.INCONCLUSIVE, Exit.DONE)

_file = click.Path(dir_okay=False, path_type=Path)


@dataclass(frozen=True)
class _Asked:
    """What the command line asks for, beside which experiments."""

    faces: Faces
    replay: bool
    concurrency: int | None
    is_sequential: bool
    is_text: bool


@click.command("gate")
@click.argument("names", metavar="[EXPERIMENT]...", nargs=-1, shell_complete=complete_names("experiment"))
@click.option(
    "--changed-since", "revision", metavar="REV", help="Only experiments that are not what they were at REV."
)
@click.option("--replay", type=click.Choice(["only"]), help="Ask no model: recordings answer, without a key.")
@click.option(
    "--sequential", is_flag=True, help="Look on the way from 150 cases on, and stop when it is sure."
)
@click.option("--concurrency", type=click.IntRange(1, 4096), help="Calls in flight for each model.")
@click.option("--allow-empty", is_flag=True, help="Go on with a dataset of no cases, which never passes.")
@click.option("--junit", type=_file, metavar="FILE", help="Write all verdicts to FILE as JUnit XML.")
@click.option("--markdown", type=_file, metavar="FILE", help="Write the verdict to FILE as a comment.")
@click.option("--html", type=_file, metavar="FILE", help="Write it to FILE as one self-contained page.")
@click.option(
    "--annotations/--no-annotations",
    default=None,
    help="Remarks on changed lines, as GitHub's runner reads them; where it runs unless said.",
)
@click.option("--no-sync", is_flag=True, help="Leave MLflow for a later `llmops sync`.")
@json_option
def command(
    names: tuple[str, ...],
    junit: Path | None,
    markdown: Path | None,
    html: Path | None,
    annotations: bool | None,
    no_sync: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Judge each EXPERIMENT by its gates; without a name, all that have gates.

    Says first what its gates can see and what that takes, then runs what is missing on both sides and says
    pass, fail or inconclusive. Of several experiments, --markdown and --html write one file each, named after it,
    and --json is a list.
    """
    session = open_session()
    session.workspace.allow_empty = options["allow_empty"]
    chosen = _chosen(session, names)
    if (revision := options["revision"]) is not None:
        chosen = _changed_since(session, revision, chosen)
    is_annotated = os.environ.get("GITHUB_ACTIONS") == "true" if annotations is None else annotations
    faces = Faces(junit, markdown, html, is_annotated, is_several=len(names) != 1)
    asked = _Asked(
        faces,
        options["replay"] is not None,
        options["concurrency"],
        options["sequential"],
        is_text=not as_json,
    )
    verdicts, codes = _judge_all(session, chosen, asked)
    code = next((each for each in codes if each in STOPPED_BY_SIGNAL), None) or worst_exit(codes)
    if not no_sync and not asked.replay and code not in STOPPED_BY_SIGNAL:
        verdicts = [_delivered(session, verdict, faces) for verdict in verdicts]
    close_verdicts(verdicts, code, faces, os.environ, as_json=as_json)
    return code


def _delivered(session: Session, verdict: Verdict, faces: Faces) -> Verdict:
    """Tell MLflow of a verdict, and return it with where its cases stand side by side there, in its files too."""
    from llmops.cli.faces import write_faces
    from llmops.cli.sync import find_link, sync_after_run

    sync_after_run(session, verdict.run_id)
    link = find_link(session, verdict)
    if link is None or link == verdict.link:
        return verdict
    linked = verdict.model_copy(update={"link": link})
    if faces.markdown is not None or faces.html is not None:
        with closing(session.journal()) as journal:
            if (run := journal.find_run(verdict.run_id)) is not None:
                write_faces(journal, run, linked, faces)
    return linked


def worst_exit(codes: Sequence[int]) -> int:
    """Return the one exit code of several: what kept gates from being judged stands before what they say."""
    return next((code for code in PRECEDENCE if code in codes), Exit.DONE)


def _chosen(session: Session, names: Sequence[str]) -> list[str]:
    """Return the experiments to judge (UsageError where one of them has no gates, or there is none that has)."""
    workspace = session.workspace
    if names:
        found = [session.target(name, ("experiment",))[1] for name in names]
        for name in found:
            if not workspace.experiment(name).gates:
                raise UsageError(
                    f"{name} has no gates: write some under `gates:` in {workspace.path('experiment', name)}"
                )
        return list(dict.fromkeys(found))
    found = [name for name in workspace.names("experiment") if workspace.experiment(name).gates]
    if not found:
        raise UsageError("no experiment has gates: write some under `gates:`")
    return found


def _changed_since(session: Session, revision: str, names: list[str]) -> list[str]:
    from llmops.gate.affected import affected_since

    affected = affected_since(session.workspace, revision, names, now=utc_now())
    for name in names:
        if name not in affected:
            say(f"{name}: means what it did at {revision}, so nothing is asked")
    return affected


def _judge_all(session: Session, names: Sequence[str], asked: _Asked) -> tuple[list[Verdict], list[int]]:
    """Return the verdicts, and the exit code of each experiment; what keeps one from being judged keeps no other."""
    from llmops.report.texts import printable

    verdicts, codes = [], []
    for name in names:
        try:
            verdict, code = _judge(session, name, asked)
        except LlmopsError as error:
            if len(names) == 1:
                raise
            say(printable(f"{name}: {error}"))
            verdict, code = None, exit_of(error)
        if verdict is not None:
            verdicts.append(verdict)
        codes.append(code)
        if code in STOPPED_BY_SIGNAL:
            break
    return verdicts, codes


def _judge(session: Session, name: str, asked: _Asked) -> tuple[Verdict | None, int]:
    from llmops.cli.gate_work import Work
    from llmops.cli.recordings import open_replay
    from llmops.cli.run import open_run_journal
    from llmops.cli.sync import find_link
    from llmops.gate import Court, judge_run
    from llmops.gate.looks import held_out_looks
    from llmops.plan import plan_experiment

    replaying = open_replay(session, name) if asked.replay else None
    with open_run_journal(session, create=True, local=asked.replay) as journal:
        assert journal is not None  # noqa: S101 - one that may be made
        replayed = replaying.identity if replaying else None
        if replaying is None:
            take_sources(session, "experiment", name)
        plan = plan_experiment(session.workspace, name, journal, replayed=replayed, now=utc_now())
        if replaying is None:
            plan = _refreshed(session, plan, journal)
        held_out_looks(session.workspace, journal, plan.run)  # before anything is paid for
        court = Court(session.workspace, journal, plan, _quarantined(session, plan))
        _tell_forecast(session, court)
        _tell_flaky(court)
        work = Work(session, court, replaying, asked.concurrency)
        run, carried, watch = work.finish(is_sequential=asked.is_sequential)
        if work.code != Exit.DONE:
            return None, work.code
        verdict = judge_run(court, run, now=utc_now(), carried=carried, watch=watch)
        is_new = verdict.id not in {known.id for known in journal.verdicts.of(name)}
        journal.verdicts.save(verdict)
        verdict = verdict.model_copy(update={"link": find_link(session, verdict)})  # delivered before
        if is_new:
            with journal.hold(run.id):
                journal.save_run(run)  # so that MLflow hears of it
        show_verdict(session, journal, run, verdict, asked.faces, is_text=asked.is_text)
        return verdict, verdict_exit(verdict)


def _refreshed(session: Session, plan: Plan, journal: Journal) -> Plan:
    """Return the plan, or that of a run paid for anew where the baseline's replies may not be used again."""
    from llmops.gate.affected import why_refresh
    from llmops.plan import plan_experiment

    why = why_refresh(session.workspace, journal, plan, now=utc_now())
    if why is None:
        return plan
    say(f"{why}: both sides are asked again")
    return plan_experiment(session.workspace, plan.run.experiment, journal, fresh=True, now=utc_now())


def _quarantined(session: Session, plan: Plan) -> set[str]:
    """Return the cases that do not count; DefinitionError when they are too many."""
    from llmops.definitions.quarantine import PATH, read_quarantine, refuse_many

    named, over = read_quarantine(session.workspace).of(plan.run.experiment, utc_now().date())
    if over:
        say(f"{PATH}: the time of {len(over)} is over, and they count again: {', '.join(sorted(over)[:5])}")
    found = {case.id for case in plan.cases if case.id in named} if named else set()
    refuse_many(len(found), len(plan.cases))
    return found


def _tell_forecast(session: Session, court: Court) -> None:
    """Say what the gates can see, and what it takes to ask them."""
    from llmops.cli.run import explain, tell_why
    from llmops.gate.forecast import forecast
    from llmops.plan import Selection

    plan = court.plan
    document = session.workspace.document("experiment", plan.run.experiment)
    for line in forecast(plan, document, court.expected_noise()):
        say(line)
    tell_why(explain(session, plan, court.journal, Selection()))


def _tell_flaky(court: Court) -> None:
    """Say how many cases run more often."""
    plan = court.plan
    for name, cases in court.again.cases.items() if court.again is not None else ():
        times = plan.experiment.flaky_repeats
        say(f"{name}: {len(cases):,} of {len(plan.cases):,} cases are flaky and run {times} times")
