"""How things are measured here: whole processes, in alternating pairs, as ratios with an interval.

The machine is shared, so a ratio of two things done in turn in one run says more than a time; CPU seconds say
more than wall seconds where only our own work counts.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
ROOT = Path(__file__).parent.parent
T_90 = {2: 6.314, 3: 2.920, 4: 2.353, 5: 2.132, 6: 2.015, 7: 1.943, 8: 1.895}
"""Student's t at 0.95 one-sided by number of pairs, for the interval of a mean log ratio."""


@dataclass(frozen=True)
class Ratio:
    """The geometric mean of ratios of pairs, with its 90 % t interval on the log scale."""

    value: float
    low: float
    high: float
    pairs: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] ({self.pairs} pairs)"


def ratio_of(above: Sequence[float], below: Sequence[float]) -> Ratio:
    """Return the ratio of paired figures, above over below; at least two pairs."""
    logs = [math.log(a / b) for a, b in zip(above, below, strict=True)]
    mean = statistics.fmean(logs)
    reach = T_90[len(logs)] * statistics.stdev(logs) / math.sqrt(len(logs))
    return Ratio(math.exp(mean), math.exp(mean - reach), math.exp(mean + reach), len(logs))


@dataclass(frozen=True)
class Spent:
    """What a child process took. cpu_s: user and system, its children included. peak_mb: of the largest process."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    code: int
    output: str


def spend(command: Sequence[str], *, cwd: Path = ROOT, environment: Mapping[str, str] | None = None) -> Spent:
    """Run a command to its end and return what it took."""
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    return Spent(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, process.returncode, text)


def llmops(*arguments: str, cwd: Path) -> Spent:
    """Run a command of ours to its end; anything but exit 0 is an error here."""
    spent = spend([sys.executable, "-m", "llmops", *arguments], cwd=cwd)
    if spent.code != 0:
        raise SystemExit(f"llmops {' '.join(arguments)} exited {spent.code}:\n{spent.output}")
    return spent


def worker(*arguments: str) -> dict[str, Any]:
    """Run one mode of `benchmarks.work` in a process of its own and return what it printed.

    process_s: besides, the time from its start to its end.
    """
    spent = spend([sys.executable, "-m", "benchmarks.work", *arguments])
    if spent.code != 0:
        raise SystemExit(f"benchmarks.work {' '.join(arguments)} exited {spent.code}:\n{spent.output}")
    found: dict[str, Any] = json.loads(spent.output.strip().splitlines()[-1])
    return {**found, "process_s": spent.wall_s}


def alternating(times: int, *figures: Callable[[], T]) -> list[list[T]]:
    """Return each figure's values, taken in turn, the order turned round each time."""
    values: list[list[T]] = [[] for _ in figures]
    for turn in range(times):
        order = range(len(figures)) if turn % 2 == 0 else reversed(range(len(figures)))
        for place in order:
            values[place].append(figures[place]())
    return values


@contextmanager
def model_server(delay_ms: int, *options: str) -> Iterator[str]:
    """Start the loopback model server in a process of its own and give its base URL."""
    command = [sys.executable, "-m", "tests.model_server", "--delay-ms", str(delay_ms), *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def start_llmops(root: Path, url: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a command in a project whose model is at a URL."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "llmops", *arguments],
        cwd=root,
        env={**os.environ, "BENCH_URL": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def line(what: str, found: str, promise: str) -> None:
    """Print one figure beside what was promised."""
    print(f"{what:<58} {found:<38} {promise}", flush=True)
