"""Comparisons as one page that holds all it needs: effects, what was changed, and the cases that flipped side by side.

The words and drawings are those of a run's page, and so are its shell and its looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from llmops.records import Comparison, Run
from llmops.report.cases import Source
from llmops.report.drawn import comparison_views
from llmops.report.html import case_view, fragment, page, time_text
from llmops.report.pairs import flipped_and_worst
from llmops.report.sentences import comparison_caveats, comparison_headline, run_caveats, run_facts

if TYPE_CHECKING:
    from llmops.compare.changes import Changes


def comparison_page(found: Sequence[tuple[Comparison, Changes]], rows: Source, *, now: datetime) -> str:
    """Return all there is to say of comparisons between the same two runs, as one page.

    rows: read for the cases that are shown. now: when the page is made.
    """
    first = found[0][0]
    ids = dict.fromkeys((first.baseline.run_id, first.candidate.run_id))
    runs = [run for run_id in ids if (run := rows.find_run(run_id)) is not None]
    body = fragment(
        "comparison.html.jinja",
        title=" against ".join(reversed(ids)),
        all=[_view(comparison, changes, runs, rows) for comparison, changes in found],
        facts=list(map(run_facts, runs)),
        now=time_text(now),
    )
    return page(" against ".join(reversed(ids)), body)


def _view(comparison: Comparison, changes: Changes, runs: Sequence[Run], rows: Source) -> dict[str, Any]:
    run = runs[-1]
    evaluators = list(dict.fromkeys(judge.name for each in runs for judge in each.evaluators))
    caveats = [sentence for each in runs for sentence in run_caveats(each)]
    return {
        "headline": comparison_headline(comparison, evaluators),
        "caveats": list(dict.fromkeys([*caveats, *comparison_caveats(comparison, runs)])),
        "views": comparison_views(run, comparison),
        "changes": changes,
        "galleries": [
            {
                "title": gallery.title,
                "n_more": gallery.n_more,
                "cases": [case_view(run, pair) for pair in gallery.pairs],
            }
            for gallery in flipped_and_worst(run, [comparison], rows, ())
        ],
    }
