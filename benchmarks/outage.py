"""`python -m benchmarks.outage [PAIRS]`: MLflow that is down costs a run nothing, and gets all of it later, once.

The same run with a healthy MLflow, with one that refuses and with one that takes connections and never answers, in
turn. All three ask a model server on this machine; what was not delivered is delivered in the end.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Ratio, alternating, line, model_server, ratio_of
from benchmarks.projects import write_project
from tests.faults.mlflow_server import MlflowServer, mlflow_server
from tests.faults.proxy import proxy

MOST_SLOWER = 1.02
EXIT_WITHIN_S = 10.0


@dataclass(frozen=True)
class Took:
    """One run. result_s: from its start until its result was on the screen; exit_s: from then until its end."""

    result_s: float
    exit_s: float
    code: int


@dataclass(frozen=True)
class Outcome:
    """What an MLflow that is down did to a run.

    refused, stalled: time until the result, over that with a healthy MLflow. exit_s: the longest from result to exit.
    n_later: runs that were delivered only in the end. n_missing: of all runs and rows, those that MLflow then lacks;
    n_twice: those that it has more than once.
    """

    refused: Ratio
    stalled: Ratio
    exit_s: float
    n_failed: int
    n_later: int
    n_missing: int
    n_twice: int

    @property
    def is_kept(self) -> bool:
        """Whether the promise was kept, as far as the intervals can tell."""
        slower = max(self.refused.low, self.stalled.low)
        amiss = self.n_failed + self.n_missing + self.n_twice
        return slower <= MOST_SLOWER and self.exit_s <= EXIT_WITHIN_S and not amiss


def run_without_mlflow(scratch: Path, *, pairs: int, cells: int, delay_ms: int = 50) -> Outcome:
    """Return what became of runs while MLflow was healthy, refused and stalled, in alternating pairs."""
    up, down = (write_project(scratch / name, cases=cells, concurrency=16) for name in ("up", "down"))
    with (down / "experiments" / "bench.experiment.yaml").open("a", encoding="utf-8") as file:
        file.write("seed: 1\n")  # MLflow knows a run by its identity and number: these are others
    (scratch / "server").mkdir()
    with (
        mlflow_server(scratch / "server") as server,
        proxy(None, "refuse") as refusing,
        proxy(None, "stall") as stalling,
        model_server(delay_ms) as models,
    ):

        def took(root: Path, uri: str) -> Took:
            return _run(root, {"BENCH_URL": f"{models}/v1", "MLFLOW_TRACKING_URI": uri})

        took(up, server.uri)  # the first makes the store
        took(down, refusing.uri)
        healthy, refused, stalled = alternating(
            pairs,
            lambda: took(up, server.uri),
            lambda: took(down, refusing.uri),
            lambda: took(down, stalling.uri),
        )
        n_before = len(server.held("bench").runs)
        _llmops(down, {"MLFLOW_TRACKING_URI": server.uri}, "sync")
        found = _delivered(server, n_runs=2 + 3 * pairs, cells=cells)
        return Outcome(
            refused=_ratio(refused, healthy),
            stalled=_ratio(stalled, healthy),
            exit_s=max(each.exit_s for each in (*refused, *stalled)),
            n_failed=sum(each.code != 0 for each in (*healthy, *refused, *stalled)),
            n_later=(len(server.held("bench").runs) - n_before) // 2,  # each is a parent and its one variant
            n_missing=found[0],
            n_twice=found[1],
        )


def _ratio(above: list[Took], below: list[Took]) -> Ratio:
    return ratio_of([each.result_s for each in above], [each.result_s for each in below])


def _delivered(server: MlflowServer, *, n_runs: int, cells: int) -> tuple[int, int]:
    """Return how many runs, traces and rows are missing in MLflow, and how many are there too often."""
    held = server.held("bench")
    found = (
        (len(held.runs), 2 * n_runs),
        (len(held.traced), n_runs * cells),
        (len(held.rows), n_runs * cells),
    )
    missing = sum(max(0, wanted - there) for there, wanted in found)
    return missing, sum(max(0, there - wanted) for there, wanted in found)


def _run(root: Path, environment: dict[str, str]) -> Took:
    started = seen = time.perf_counter()
    process = _llmops_process(root, environment, "run", "bench", "--fresh")
    assert process.stdout is not None
    with process:
        for _ in process.stdout:
            seen = time.perf_counter()
        code = process.wait()
    return Took(seen - started, time.perf_counter() - seen, code)


def _llmops(root: Path, environment: dict[str, str], *arguments: str) -> None:
    process = _llmops_process(root, environment, *arguments)
    printed, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"llmops {' '.join(arguments)} exited {process.returncode}:\n{printed}")


def _llmops_process(root: Path, environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "llmops", *arguments],
        cwd=root,
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def main() -> None:
    """Measure as many pairs as asked for, and say whether the promise was kept."""
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as scratch:
        found = run_without_mlflow(Path(scratch), pairs=pairs, cells=200)
    line("MLflow refuses: time to the result over healthy", str(found.refused), "at most 1.02")
    line("MLflow stalls: time to the result over healthy", str(found.stalled), "at most 1.02")
    line("longest from the result to the exit", f"{found.exit_s:.1f} s", "at most 10 s")
    line(
        "delivered later; missing; twice",
        f"{found.n_later}; {found.n_missing}; {found.n_twice}",
        f"{1 + 2 * pairs}; 0; 0",
    )
    raise SystemExit(0 if found.is_kept else 1)


if __name__ == "__main__":
    main()
