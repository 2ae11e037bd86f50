"""`llmops sync`: deliver to MLflow what is still waiting. `run` starts it in a process of its own.

`llmops.sync` delivers; here it is started, watched and, when MLflow stalls, left to a later time.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

import click

from llmops.cli.exits import Exit
from llmops.cli.session import Session, json_option, open_session, print_record, say, utc_now
from llmops.errors import LlmopsError
from llmops.secrets import scrub_bytes

if TYPE_CHECKING:
    from llmops.records import CandidateVerdict, Side, Verdict
    from llmops.stores.journal import Journal
    from llmops.sync import Delivered

STALL_S = 5.0
"""A server that lets a delivery say nothing for so long is left to a later `llmops sync`."""
OWN_WORK_S = 60.0
"""Importing MLflow and writing its database is our own machine's work, and slow on a busy one."""
STAGE = "sync: "
OPENING = "open MLflow"


@click.command("sync")
@click.option("--run", "names", multiple=True, metavar="RUN", help="Only this run; repeatable.")
@json_option
def command(names: tuple[str, ...], as_json: bool) -> int:
    """Deliver to MLflow what is still waiting, each run exactly once.

    With --json each stage is a line on standard error, so that whoever waits can tell a busy delivery from a
    stalled one.
    """
    from llmops.sync import sync_runs

    session = open_session()
    os.environ.update(session.environment)  # where MLflow looks for credentials, those of .env included
    with _open_outbox(session) as outbox:
        delivered = sync_runs(
            outbox.journal,
            session.workspace,
            session.tracking_uri,
            now=utc_now,
            progress=_tell_stage if as_json else lambda _: None,
            run_ids=[outbox.journal.named_run(name).id for name in names] or None,
        )
        if as_json:
            print_record([vars(one) for one in delivered])
        else:
            _print(delivered, outbox)
    return Exit.INCOMPLETE if any(one.error for one in delivered) else Exit.DONE


def _tell_stage(stage: str) -> None:
    """Tell whoever waits what is being done, and end when nobody does any more.

    So a delivery outlives a `run` that was killed by no more than one stage.
    """
    try:
        os.write(2, scrub_bytes(f"{STAGE}{stage}\n".encode(errors="replace")))
    except OSError:
        raise SystemExit(Exit.INTERRUPTED) from None


def _print(delivered: Sequence[Delivered], outbox: Outbox) -> None:
    from llmops.report.texts import printable

    if not delivered:
        click.echo("nothing is waiting")
        return
    for one in delivered:
        said = f"not delivered: {one.error}" if one.error else str(outbox.place(one.run_id))
        click.echo(f"{one.run_id}: {printable(said)}")
    if outbox.server and not all(one.error for one in delivered):
        click.echo(f"once this runs: {outbox.server}")


@dataclass(frozen=True)
class Outbox:
    """The journal as one MLflow sees it. target: the address without credentials, as deliveries are noted."""

    journal: Journal
    uri: str
    target: str

    @property
    def server(self) -> str | None:
        """The command that shows a database, None where a server is running already."""
        from llmops.stores.tracking import ui_command

        return ui_command(self.uri)

    def place(self, run_id: str) -> str | None:
        """Return where a run is seen: candidate beside baseline, else the run alone; None before it arrived."""
        from llmops.stores import tracking

        run = self.journal.find_run(run_id)
        delivery = self.journal.deliveries.find(run_id, self.target)
        if run is None or delivery is None or not delivery.mlflow_ids:
            return None
        ids = delivery.mlflow_ids
        if run.comparisons:
            return self.beside(run.comparisons[0].candidate, run.comparisons[0].baseline)
        return tracking.page_url(self.uri, tracking.run_page(ids["experiment_id"], ids["run_id"]))

    def beside(self, candidate: Side, baseline: Side) -> str | None:
        """Return where two variants of a run are seen case by case; None before they arrived."""
        from llmops.stores import tracking

        delivery = self.journal.deliveries.find(candidate.run_id, self.target)
        ids = {} if delivery is None else delivery.mlflow_ids
        found = [ids.get("variants", {}).get(side.variant) for side in (candidate, baseline)]
        if None in found:
            return None
        page = tracking.compare_page(ids["experiment_id"], candidate=found[0], baseline=found[1])
        return tracking.page_url(self.uri, page)


@contextmanager
def _open_outbox(session: Session) -> Iterator[Outbox]:
    """Give the outbox of a project (UsageError when its tracking address is none)."""
    from llmops.stores import tracking

    uri = tracking.resolve_uri(session.tracking_uri, root=session.root, environment=session.environment)
    with closing(session.journal()) as journal:
        yield Outbox(journal, uri, tracking.shown(uri))


def find_link(session: Session, verdict: Verdict) -> str | None:
    """Return where a server shows the sides of a verdict case by case; None where it has not both, or none runs."""
    sides = next(((each.candidate, each.baseline) for each in _gravest(verdict) if each.baseline), None)
    if sides is None or verdict.replayed is not None:
        return None
    with suppress(LlmopsError), _open_outbox(session) as outbox:
        return None if outbox.server else outbox.beside(*sides)
    return None


def _gravest(verdict: Verdict) -> Sequence[CandidateVerdict]:
    from llmops.report.verdict_texts import gravest_first

    return gravest_first(verdict)


# --- after a run ------------------------------------------------------------------------------------------


def sync_after_run(session: Session, run_id: str) -> None:
    """Deliver what is waiting in a process of its own, and say where to look.

    The run is done whatever comes of it: what cannot be delivered now waits, and people are told.
    """
    try:
        with _open_outbox(session) as outbox:
            said = _deliver(session, outbox) if outbox.journal.deliveries.waiting(outbox.target) else ""
            waiting = outbox.journal.deliveries.waiting(outbox.target)
            if run_id not in waiting:
                _say_where(outbox, run_id, n_waiting=len(waiting))
                return
            delivery = outbox.journal.deliveries.find(run_id, outbox.target)
            said = said or (delivery.error if delivery else None) or "the delivery ended early"
    except LlmopsError as error:
        said = str(error)
    except KeyboardInterrupt:
        said = "interrupted"
    _say_later(said)


def _say_where(outbox: Outbox, run_id: str, *, n_waiting: int) -> None:
    from llmops.report.texts import count

    say(f"in MLflow: {outbox.place(run_id)}")
    if outbox.server:
        say(f"    once this runs: {outbox.server}")
    if n_waiting:
        say(f"not there yet: {count(n_waiting, 'earlier run')}; `llmops sync` says why")


def _say_later(reason: str) -> None:
    from llmops.report.texts import printable

    say(f"not in MLflow yet: {printable(reason)}")
    if "`llmops sync`" not in reason:
        say("    `llmops sync` delivers it later")


def _deliver(session: Session, outbox: Outbox) -> str:
    """Start a delivery, wait while it shows signs of life, and return what went wrong, empty for nothing."""
    from llmops.stores import tracking

    try:
        tracking.check_answers(outbox.uri, STALL_S)  # before seconds go into importing MLflow
    except LlmopsError as error:
        return str(error)
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "llmops", "sync", "--json"],  # -P: files of the project are no modules
        cwd=session.root,
        env={**session.environment, "GITHUB_ACTIONS": ""},  # what it says is read here, and told then
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # what came of it stands in the journal
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    try:
        lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=_read, args=(process.stderr, lines), daemon=True).start()
        return _listen(lines, STALL_S if outbox.server is None else OWN_WORK_S)
    finally:
        process.kill()
        process.wait()


def _read(stream: IO[str], lines: queue.SimpleQueue[str | None]) -> None:
    with stream:
        for line in stream:
            lines.put(line)
    lines.put(None)


def _listen(lines: queue.SimpleQueue[str | None], stall_s: float) -> str:
    """Return what a delivery says went wrong, once it has ended or shows no sign of life any more.

    stall_s: how long a stage may take that is not our own machine's work.
    """
    patience_s = OWN_WORK_S
    error = ""
    while True:
        try:
            line = lines.get(timeout=patience_s)
        except queue.Empty:
            return f"MLflow has said nothing for {patience_s:.0f} s"
        if line is None:
            return error.removeprefix("error: ").strip()
        if line.startswith(STAGE):
            patience_s = OWN_WORK_S if OPENING in line else stall_s
        elif error or line.startswith("error: "):
            error += line
