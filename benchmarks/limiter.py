"""`python -m benchmarks.limiter [REQUESTS]`: a limit of 20 a second against runs with 100 in flight each.

The service is a real server on loopback in a process of its own, with a ledger; the runs are real `llmops run`, side
by side on PostgreSQL where there is more than one. What counts is the ledger, not what the runs say.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import line, model_server, start_llmops
from benchmarks.projects import EXACT, write_project
from tests.postgres_server import find_programs, running_postgres

PER_S = 20
IN_FLIGHT = 100
PATIENCE_S = 600.0
LIMITS: Mapping[str, Mapping[str, Any]] = {
    "bucket": {"burst": 20},
    "bucket, silent": {"burst": 20, "hint": False},
    "bucket, tells": {"burst": 20, "tells": True},
    "window of 1 s": {"window_s": 1.0},
    "window of 1 s, tells": {"window_s": 1.0, "tells": True},
}
"""What kinds of limiter there are: whether refusals ask to wait, and whether answers tell what is left."""
PROMISED = ("bucket", "bucket, silent", "bucket, tells")
"""A window of a second that has us wait for whole seconds cannot be used up; it is measured all the same."""


@dataclass(frozen=True)
class Storm:
    """What became of the runs. share_used: of the limit, from the first request taken to the last."""

    kind: str
    n_processes: int
    n_cells: int
    n_failed: int
    requests_per_success: float
    share_used: float

    @property
    def is_kept(self) -> bool:
        """Whether it is as promised."""
        return self.n_failed == 0 and self.requests_per_success <= 1.10 and self.share_used >= 0.92


def storm(
    scratch: Path, *, n_processes: int, n_cells: int, kind: str = "bucket", delay_ms: int = 50
) -> Storm:
    """Return what it took to carry out so many cells, of several runs an equal part each."""
    ledger = scratch / "ledger.jsonl"
    each = n_cells // n_processes
    limit = json.dumps({"per_s": PER_S, **LIMITS[kind]})
    options = ("--ledger", str(ledger), "--limit", limit)
    with model_server(delay_ms, *options) as url, _stores(n_processes) as store:
        roots = [
            write_project(
                scratch / f"run{number}",
                cases=each,
                concurrency=IN_FLIGHT,
                evaluators=EXACT,
                store=store,
                first=number * each,
            )
            for number in range(n_processes)
        ]
        for root in roots[1:]:  # of an experiment of its own, or it would be the same run
            (root / "experiments/bench.experiment.yaml").rename(
                root / f"experiments/{root.name}.experiment.yaml"
            )
        names = ["bench", *(root.name for root in roots[1:])]
        running = [
            start_llmops(root, f"{url}/v1", "run", name, "--no-sync")
            for root, name in zip(roots, names, strict=True)
        ]
        said = [process.communicate(timeout=PATIENCE_S) for process in running]
    wrong = [text for process, (_, text) in zip(running, said, strict=True) if process.returncode]
    if wrong:
        raise SystemExit(f"a run failed:\n{wrong[0]}")
    entries = [json.loads(text) for text in ledger.read_text(encoding="utf-8").splitlines()]
    taken_at = sorted(entry["arrived_at"] for entry in entries if entry["status"] == 200)
    return Storm(
        kind=kind,
        n_processes=n_processes,
        n_cells=each * n_processes,
        n_failed=each * n_processes - len(taken_at),
        requests_per_success=len(entries) / len(taken_at),
        share_used=len(taken_at) / (PER_S * (taken_at[-1] - taken_at[0])),
    )


@contextmanager
def _stores(n_processes: int) -> Iterator[str | None]:
    """Give the URL of a store for several runs; one alone keeps its own."""
    programs = find_programs()
    if n_processes > 1 and programs is None:
        raise SystemExit("runs side by side need PostgreSQL on this machine")
    with running_postgres(programs) if programs and n_processes > 1 else nullcontext() as server:
        yield server.new_database() if server else None


def main() -> None:
    """Storm each kind of limiter with 1, 2 and 4 runs and print the figures."""
    n_cells = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    line(
        f"{PER_S}/s against {IN_FLIGHT} in flight a run, {n_cells} requests",
        "failed; requests per success; used",
        "0; at most 1.10; at least 0.92",
    )
    kept = True
    for kind in LIMITS:
        for n_processes in (1, 2, 4):
            with tempfile.TemporaryDirectory() as scratch:
                found = storm(Path(scratch), n_processes=n_processes, n_cells=n_cells, kind=kind)
            kept = kept and (found.is_kept or kind not in PROMISED)
            line(
                f"{kind}, {n_processes} process{'es' if n_processes > 1 else ''}",
                f"{found.n_failed}; {found.requests_per_success:.3f}; {found.share_used:.3f}",
                "" if found.is_kept else "not kept",
            )
    raise SystemExit(0 if kept else 1)


if __name__ == "__main__":
    main()
