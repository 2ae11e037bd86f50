"""`llmops compare`: two variants, runs or versions, case by case."""

from __future__ import annotations

from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llmops.cli.exits import Exit
from llmops.cli.files import write_text
from llmops.cli.session import (
    Session,
    complete_names,
    json_option,
    look,
    open_session,
    print_record,
    say,
    utc_now,
)
from llmops.errors import LlmopsError, UsageError

if TYPE_CHECKING:
    from llmops.records import Comparison
    from llmops.stores.journal import Journal


@click.command("compare")
@click.argument("baseline")
@click.argument("candidate")
@click.option(
    "--in",
    "experiment",
    metavar="EXPERIMENT",
    shell_complete=complete_names("experiment"),
    help="A side may be a reference: the version of a prompt or chain that EXPERIMENT tried.",
)
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write it to FILE as one self-contained page too.",
)
@json_option
def command(baseline: str, candidate: str, experiment: str | None, html: Path | None, as_json: bool) -> int:
    """Compare CANDIDATE with BASELINE, paired by case.

    A side is RUN:VARIANT, where RUN is a run's id or an experiment's name for its latest. RUN alone is its one
    variant, or the one the other side names. Where neither side names one, the variants of one name are compared,
    one after the other, and --json is a list.

    With --in EXPERIMENT a side is a reference too: NAME (as it stands now), NAME@ALIAS, NAME@IDENTITY,
    NAME@git:REV or NAME@7 (MLflow's number), in the newest run that tried it.
    """
    session = open_session()
    with closing(session.journal(create=False)) as journal:
        found = _compare(session, journal, baseline, candidate, experiment)
        if html is not None or not as_json:
            _show(session, journal, found, html, is_text=not as_json)
        if as_json:
            print_record(found[0] if len(found) == 1 else [each.model_dump(mode="json") for each in found])
    return Exit.DONE


def _compare(
    session: Session, journal: Journal, baseline: str, candidate: str, experiment: str | None
) -> list[Comparison]:
    from llmops.compare import compare_variants
    from llmops.compare.sides import Finder, pair_sides

    finder = Finder(
        journal, session.workspace, experiment, lambda name, number: _numbered(session, name, number)
    )
    before, after = finder.find(baseline), finder.find(candidate)
    return [
        compare_variants(journal, (before.run, old), (after.run, new), now=utc_now())
        for old, new in pair_sides(before, after)
    ]


def _numbered(session: Session, name: str, number: int) -> str:
    """Return the identity of the prompt that MLflow has under a number (UsageError when it has none)."""
    from llmops.cli.history import mlflow_entries

    found, problem = mlflow_entries(session, "prompt", name)
    for entry in found:
        if entry.numbers.get(name) == str(number):
            return entry.prompts[name]
    known = sorted({int(entry.numbers[name]) for entry in found if name in entry.numbers})
    there = f"it has {', '.join(map(str, known))}" if known else "it has none of that name"
    raise UsageError(f"MLflow has no {name}@{number} that ran; {problem or there}")


def _show(
    session: Session, journal: Journal, found: list[Comparison], html: Path | None, *, is_text: bool
) -> None:
    from llmops.compare.changes import find_changes

    pairs = [(each, find_changes(journal, session.workspace, each)) for each in found]
    if html is not None:
        from llmops.report.comparison_page import comparison_page

        write_text(html, comparison_page(pairs, journal, now=utc_now()))
        say(f"page written to {html}")
    if not is_text:
        return
    from llmops.report.terminal import comparison_text

    how = look()
    for place, (comparison, changes) in enumerate(pairs):
        text = comparison_text(
            comparison, journal, changes, width=how.width, colour=how.colour, ascii_only=how.ascii_only
        )
        click.echo(("\n\n" if place else "") + text, color=how.colour)
        _say_where(session, journal, comparison)


def _say_where(session: Session, journal: Journal, comparison: Comparison) -> None:
    """Say where MLflow shows both sides row by row; nothing where it has not both, in one experiment."""
    from llmops.stores import tracking

    with suppress(LlmopsError):  # an address that is none is told by whoever delivers
        uri = tracking.resolve_uri(session.tracking_uri, root=session.root, environment=session.environment)
        page = _mlflow_page(journal, comparison, tracking.shown(uri))
        if page is not None:
            say(f"in MLflow: {tracking.page_url(uri, page)}")
            if (server := tracking.ui_command(uri)) is not None:
                say(f"    once this runs: {server}")


def _mlflow_page(journal: Journal, comparison: Comparison, target: str) -> str | None:
    from llmops.stores import tracking

    found = []
    for side in (comparison.baseline, comparison.candidate):
        delivery = journal.deliveries.find(side.run_id, target)
        ids = {} if delivery is None else delivery.mlflow_ids
        if side.variant not in ids.get("variants", {}):
            return None
        found.append((ids["experiment_id"], ids["variants"][side.variant]))
    (experiment_id, baseline), (other_id, candidate) = found
    if experiment_id != other_id:
        return None
    return tracking.compare_page(experiment_id, candidate=candidate, baseline=baseline)
