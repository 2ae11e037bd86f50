"""`python -m benchmarks.kills [N]`: a run killed N times at random moments loses nothing and pays for little twice.

The run is a process of its own against a model server that keeps a ledger of every request. After the kills it is
carried out to its end, and compared with one that nobody disturbed.
"""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.measure import line, model_server, start_llmops
from benchmarks.projects import write_project

GRACE_S = 0.25
"""What was answered so shortly before a kill may not be on disk yet."""
PATIENCE_S = 120.0


@dataclass(frozen=True)
class Entry:
    """One request as the server saw it. answered_at: None while it is under way."""

    call_id: str
    arrived_at: float
    answered_at: float
    is_answered: bool


@dataclass(frozen=True)
class Outcome:
    """What kills did. n_lost: answers older than GRACE_S at a kill that were asked for again.

    n_forgotten: answers that the store held at a kill and that were asked for again, however busy the machine is.
    n_repeated: other requests sent twice, because they were in flight or just answered.
    accounts: what the run's record says beside what the server's ledger says.
    """

    n_kills: int
    n_cells: int
    n_lost: int
    n_forgotten: int
    n_repeated: int
    differing: tuple[str, ...]
    accounts: str


def kill_and_compare(scratch: Path, *, kills: int, cells: int, delay_ms: int = 20, seed: int = 0) -> Outcome:
    """Return what became of a run that was killed so often, beside one that was left alone."""
    draw = random.Random(seed)
    ledger = scratch / "ledger.jsonl"
    with model_server(delay_ms) as url:
        undisturbed = _summary(_project(scratch / "undisturbed", cells), f"{url}/v1")
    with model_server(delay_ms, "--ledger", str(ledger)) as base:
        url, root = f"{base}/v1", _project(scratch / "killed", cells)
        moments = sorted(draw.uniform(0.02, 0.9) for _ in range(kills))
        held: list[frozenset[str]] = []
        killed_at = []
        for moment in moments:
            killed_at.append(_kill_at(root, url, ledger, round(moment * cells)))
            held.append(_held(root))
        run = _finished(root, url)
        disturbed = _figures(run)
    entries = list(_entries(ledger))
    return Outcome(
        n_kills=len(killed_at),
        n_cells=cells,
        n_lost=_count(entries, killed_at, lambda entry, at: _is_lost(entry, at - GRACE_S)),
        n_forgotten=sum(
            entry.call_id in calls and entry.arrived_at > at
            for at, calls in zip(killed_at, held, strict=True)
            for entry in entries
        ),
        n_repeated=_count(entries, killed_at, lambda entry, at: not _is_lost(entry, at - GRACE_S)),
        differing=tuple(_differing(undisturbed, disturbed)),
        accounts=_accounts(run, entries),
    )


def _accounts(run: Mapping[str, Any], entries: Sequence[Entry]) -> str:
    """Return requests, repeats and hidden charges as the run knows them, each beside what really came."""
    n_repeated = len(entries) - len({entry.call_id for entry in entries})
    return (
        f"{run['n_calls']} to {run['n_calls'] + run['n_unknown']} sent ({len(entries)} came), "
        f"{run['n_repeated']} repeated at most ({n_repeated} came), hidden at most {run['hidden_usd']} USD"
    )


def _is_lost(entry: Entry, since: float) -> bool:
    return entry.is_answered and entry.answered_at < since


def _count(
    entries: Sequence[Entry], killed_at: Sequence[float], counts: Callable[[Entry, float], bool]
) -> int:
    """Return how many requests that were sent before a kill, and again after it, count."""
    by_call: dict[str, list[Entry]] = defaultdict(list)
    for entry in sorted(entries, key=lambda entry: entry.arrived_at):
        by_call[entry.call_id].append(entry)
    n = 0
    for sent in by_call.values():
        for earlier, later in pairwise(sent):
            between = [at for at in killed_at if earlier.arrived_at <= at <= later.arrived_at]
            n += counts(earlier, between[0] if between else later.arrived_at)
    return n


def _project(root: Path, cells: int) -> Path:
    return write_project(root, cases=cells, concurrency=16)


def _kill_at(root: Path, url: str, ledger: Path, n_answered: int) -> float:
    """Kill a run once so many requests have been answered; return when."""
    process = start_llmops(root, url, "run", "bench", "--no-sync")
    deadline = time.monotonic() + PATIENCE_S
    while sum(1 for _ in _entries(ledger)) < n_answered:
        if process.poll() is not None or time.monotonic() > deadline:
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    at = time.time()
    process.communicate()
    return at


def _held(root: Path) -> frozenset[str]:
    """Return the calls whose answers are in the store."""
    store = root / ".llmops/store.db"
    if not store.exists():
        return frozenset()
    with closing(sqlite3.connect(store)) as connection:
        found = connection.execute("SELECT id FROM calls WHERE state = 'answered'")
        return frozenset(call_id for (call_id,) in found)


def _summary(root: Path, url: str) -> dict[str, dict[str, Any]]:
    return _figures(_finished(root, url))


def _finished(root: Path, url: str) -> dict[str, Any]:
    """Carry the run out to its end and return its record."""
    process = start_llmops(root, url, "run", "bench", "--no-sync", "--json")
    printed, said = process.communicate(timeout=PATIENCE_S)
    if process.returncode:
        raise SystemExit(f"the run exited {process.returncode}:\n{said}")
    run: dict[str, Any] = json.loads(printed)
    return run


def _figures(run: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the figures of a run by name, those of time aside."""
    summary: dict[str, dict[str, Any]] = run["summary"]["only"]
    return {name: figure for name, figure in summary.items() if not name.startswith(("latency_s", "ttft_s"))}


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))


def _entries(ledger: Path) -> Iterator[Entry]:
    if not ledger.exists():
        return
    for text in ledger.read_text(encoding="utf-8").split("\n"):
        if text.endswith("}"):
            noted = json.loads(text)
            yield Entry(noted["call_id"], noted["arrived_at"], noted["answered_at"], noted["status"] == 200)


def main() -> None:
    """Kill runs as often as asked, ten kills to a run, and say what was lost and what was paid for twice."""
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    line(
        "kills",
        "lost; repeated; differing figures; as the run accounts for it",
        "0 lost, only what was in flight repeated, none differing",
    )
    total = lost = 0
    while total < wanted:
        with tempfile.TemporaryDirectory() as scratch:
            found = kill_and_compare(Path(scratch), kills=min(10, wanted - total), cells=1000, seed=total)
        total += found.n_kills
        lost += found.n_lost + len(found.differing)
        line(
            f"{found.n_kills} at {found.n_cells} cells",
            f"{found.n_lost}; {found.n_repeated}; {found.differing}; {found.accounts}",
            "",
        )
    raise SystemExit(1 if lost else 0)


if __name__ == "__main__":
    main()
