"""`llmops compare`: two variants or runs, case by case."""

from __future__ import annotations

import click

from llmops.cli.exits import Exit
from llmops.cli.session import json_option, look, open_session, print_record, utc_now


@click.command("compare")
@click.argument("baseline")
@click.argument("candidate")
@json_option
def command(baseline: str, candidate: str, as_json: bool) -> int:
    """Compare CANDIDATE with BASELINE, paired by case.

    Each side is RUN:VARIANT, where RUN is a run's id or an experiment's name for its latest.
    """
    from llmops.compare import compare_variants, find_side
    from llmops.report.terminal import comparison_text

    session = open_session()
    journal = session.journal(create=False)
    try:
        sides = find_side(journal, baseline), find_side(journal, candidate)
        comparison = compare_variants(journal, sides[0], sides[1], now=utc_now())
        if as_json:
            print_record(comparison)
            return Exit.DONE
        how = look()
        text = comparison_text(
            comparison, journal, width=how.width, colour=how.colour, ascii_only=how.ascii_only
        )
        click.echo(text, color=how.colour)
    finally:
        journal.close()
    return Exit.DONE
