"""`llmops report`: show a run, or the history of a name; as a page or as rows too."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llmops.cli.exits import Exit
from llmops.cli.files import replacing, write_text
from llmops.cli.session import Session, json_option, look, open_session, print_record, say, utc_now
from llmops.errors import UsageError

if TYPE_CHECKING:
    from llmops.records import Run
    from llmops.stores.journal import Journal

LIMIT = 50

_file = click.Path(dir_okay=False, path_type=Path)


@click.command("report")
@click.argument("name", metavar="[RUN]", required=False)
@click.option(
    "--history", "is_history", is_flag=True, help="Show what ran under a name, and what came of it."
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help=f"The newest N lines of a history; {LIMIT} unless given.",
)
@click.option("--html", type=_file, metavar="FILE", help="Write it to FILE as one self-contained page too.")
@click.option(
    "--rows", type=_file, metavar="FILE", help="Write every case to FILE: .jsonl, .csv or .parquet."
)
@json_option
def command(
    name: str | None, is_history: bool, limit: int | None, html: Path | None, rows: Path | None, as_json: bool
) -> int:
    """Show RUN: its id, or its experiment's name for the latest; without it, the latest of all.

    With --history, the argument is the NAME of an experiment, a prompt or a chain (prompts/NAME, chains/NAME):
    every run in which it was tried, from the journal and from MLflow, the newest first.
    """
    session = open_session()
    if is_history:
        if rows is not None:
            raise UsageError("--rows writes the cases of one run: name it, without --history")
        _report_history(session, name, limit or LIMIT, html, as_json=as_json)
    else:
        if limit is not None:
            raise UsageError("--limit counts the lines of a history: add --history")
        _report_run(session, name, html, rows, as_json=as_json)
    return Exit.DONE


# --- a run ------------------------------------------------------------------------------------------------


def _report_run(
    session: Session, name: str | None, html: Path | None, rows: Path | None, *, as_json: bool
) -> None:
    with closing(session.journal(create=False)) as journal:
        found = journal.named_run(name)
        if rows is not None:
            _write_rows(journal, found, rows)
        if html is not None:
            from llmops.report.html import run_page

            write_text(html, run_page(found, found.comparisons, journal, now=utc_now()))
            say(f"page written to {html}")
        print_run(found, journal, as_json=as_json)


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
    from llmops.report.rows import check_suffix, write_rows

    check_suffix(path)
    with replacing(path) as file:
        n = write_rows(journal.rows(run.id), file, run=run)
    say(f"{n} rows written to {path}")


# --- a history --------------------------------------------------------------------------------------------


def _report_history(
    session: Session, name: str | None, limit: int, html: Path | None, *, as_json: bool
) -> None:
    from llmops.cli.history import find_history
    from llmops.report.history import history_record, history_text

    if name is None:
        raise UsageError("a history of what? `llmops report NAME --history`")
    history = find_history(session, name, limit=limit)
    if html is not None:
        from llmops.report.history_page import history_page

        write_text(html, history_page(history, now=utc_now()))
        say(f"page written to {html}")
    if as_json:
        print_record(history_record(history))
        return
    how = look()
    text = history_text(history, width=how.width, colour=how.colour, ascii_only=how.ascii_only)
    click.echo(text, color=how.colour)
