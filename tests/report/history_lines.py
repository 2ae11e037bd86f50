"""Lines of a history for tests: a variant of a run with one thing or another changed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from llmops.report.history import History, merge, tell_history
from llmops.stores.entries import JOURNAL, MLFLOW, Entry, Reading

BEGAN = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
HOSTILE = "a\tb|c\x1b]0;owned\x07\x1b[31m\u202e<script>alert(1)</script>\n::error::"

PLAIN = Entry(
    run_id="sort-00000000",
    place=0,
    experiment="sort",
    variant="plain",
    identity="1" * 12,
    began_at=BEGAN,
    status="complete",
    definition="prompts/sort",
    definition_identity="a" * 12,
    prompts={"sort": "a" * 12},
    models={"default": "b" * 12},
    dataset="tickets/test",
    dataset_version="c" * 12,
    n_cases=6,
    readings=(Reading("exact_match", "e" * 12, 0.5, 0.25, 0.75, 6),),
    cost_usd=0.0012,
    commit="d" * 40,
    dirty=False,
    sources=frozenset({JOURNAL}),
)


def entry(day: int = 0, **changes: Any) -> Entry:
    """Return a line of the run that began on that day."""
    run: dict[str, Any] = {"run_id": f"sort-{day:08}", "began_at": BEGAN + timedelta(days=day)}
    return replace(PLAIN, **(run | changes))


def told(found: Entry, **changes: Any) -> Entry:
    """Return what MLflow says of a line that the journal has too."""
    mlflow: dict[str, Any] = {
        "sources": frozenset({MLFLOW}),
        "revision": 1,
        "user": "anna",
        "link": "http://mlflow/1",
    }
    return replace(found, **(mlflow | {"numbers": {"sort": "7"}} | changes))


def reading(value: float | None, *, evaluator: str = "exact_match", identity: str = "e" * 12) -> Reading:
    low, high = (None, None) if value is None else (value - 0.1, value + 0.1)
    return Reading(evaluator, identity, value, low, high, 6)


def history(*entries: Entry, limit: int = 50, **about: Any) -> History:
    """Return the history of experiment `sort`, unless another is named."""
    return of_entries(entries, limit=limit, **about)


def of_entries(
    entries: Iterable[Entry], *, limit: int, kind: Any = "experiment", name: str = "sort"
) -> History:
    return tell_history(kind, name, merge(entries), limit=limit)
