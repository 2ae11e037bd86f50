"""`llmops report`: show a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from llmops.cli.exits import Exit
from llmops.cli.session import json_option, look, open_session, print_record, say
from llmops.errors import UsageError, nearest

if TYPE_CHECKING:
    from llmops.records import Run
    from llmops.stores.journal import Journal


@click.command("report")
@click.argument("run", required=False)
@click.option(
    "--rows", type=click.Path(dir_okay=False, path_type=Path), help="Write every case to FILE, as JSONL."
)
@json_option
def command(run: str | None, rows: Path | None, as_json: bool) -> int:
    """Show RUN: its id, or its experiment's name for the latest; without it, the latest of all."""
    session = open_session()
    journal = session.journal(create=False)
    try:
        found = find_run(journal, run)
        if rows is not None:
            _write_rows(journal, found, rows)
        print_run(found, journal, as_json=as_json)
    finally:
        journal.close()
    return Exit.DONE


def find_run(journal: Journal, text: str | None) -> Run:
    """Return the run a command names (UsageError with the nearest name when there is none)."""
    if text is None:
        latest = journal.latest_run()
        if latest is None:
            raise UsageError("nothing has run here yet: `llmops run EXPERIMENT`")
        return latest
    found = journal.find_run(text) or journal.latest_run(text)
    if found is None:
        known = [name for run in journal.runs() for name in (run.id, run.experiment)]
        there = f"there are: {', '.join(dict.fromkeys(known))}" if known else "nothing has run here yet"
        raise UsageError(f"no run is called {text!r}; {nearest(text, known) or there}")
    return found


def print_run(run: Run, journal: Journal, *, as_json: bool) -> None:
    """Print a run: its record, or what a person wants to know first."""
    if as_json:
        print_record(run)
        return
    from llmops.report.terminal import run_text

    how = look()
    text = run_text(
        run, run.comparisons, journal, width=how.width, colour=how.colour, ascii_only=how.ascii_only
    )
    click.echo(text, color=how.colour)


def _write_rows(journal: Journal, run: Run, path: Path) -> None:
    from llmops.report.rows import write_rows

    if path.suffix != ".jsonl":
        raise UsageError(f"{path}: rows are written as JSONL, so name the file .jsonl")
    try:
        with path.open("w", encoding="utf-8", newline="\n") as file:
            n = write_rows(journal.rows(run.id), file)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error
    say(f"{n} rows written to {path}")
