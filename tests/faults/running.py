"""Real runs that something happens to: what the tests of processes and disks start, watch and stop."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from llmops.records import Call, CallState, Figure, RunStatus
from tests.cli.command import PATIENCE_S, start
from tests.workplace import Workplace, calls_in, case_of

EXPERIMENT = "experiments/sort.experiment.yaml"
COMMAND = ("run", EXPERIMENT, "--no-sync")
IN_FLIGHT = 4
SHIM = Path(__file__).with_name("shim.c")

Process = subprocess.Popen[str]


def fill(place: Workplace, n_cases: int) -> Workplace:
    """Give a project so many cases."""
    place.write_cases(*(case_of(number) for number in range(n_cases)))
    return place


@contextmanager
def running(place: Workplace, more: Mapping[str, str] | None = None, **streams: Any) -> Iterator[Process]:
    """Start a run; it is killed at the latest when the block ends."""
    with start(*COMMAND, cwd=place.root, more={**place.environment, **(more or {})}, **streams) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(happened: Callable[[], bool], process: Process) -> None:
    """Wait until something has happened, as long as the process lives."""
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def ended(process: Process) -> tuple[int, str]:
    """Return the exit code of a run that ends by itself, and what it said."""
    _, said = process.communicate(timeout=PATIENCE_S)
    return process.returncode, said or ""


def stop(process: Process) -> None:
    """Let a process stand still, and return once it does."""
    process.send_signal(signal.SIGSTOP)
    while state_of(process.pid) != "T":
        time.sleep(0.005)


def state_of(pid: int) -> str:
    """Return the letter that the kernel has for what a process does."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def calls(place: Workplace) -> list[Call]:
    """Return what the journal of a project has of calls."""
    with place.journal() as journal:
        return calls_in(journal)


def answered(place: Workplace) -> set[str]:
    """Return the ids of calls whose answer is committed."""
    return {call.id for call in calls(place) if call.state is CallState.ANSWERED}


def asked(place: Workplace) -> list[str]:
    """Return the ids of calls that the server received since this was last asked."""
    return [received.call_id for received in place.new_requests()]


def figures(place: Workplace) -> dict[str, Figure]:
    """Return the figures of the latest run, which is complete; those of time aside."""
    with place.journal() as journal:
        run = journal.latest_run()
    assert run is not None and run.status is RunStatus.COMPLETE
    return {
        name: figure
        for name, figure in run.summary["plain"].items()
        if not name.startswith(("latency_s", "ttft_s"))
    }


@cache
def shim() -> str:
    """Return the library of `shim.c`, compiled; whoever asks for it is skipped where there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler is installed")
    library = Path(mkdtemp(prefix="llmops-shim-")) / "shim.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SHIM), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"the C compiler cannot make a library here: {done.stderr[:200]}")
    return str(library)


def without_rights(command: list[str]) -> list[str]:
    """Return the command as somebody whom the rights of files bind: root is bound once it has no capability."""
    if os.geteuid() != 0:
        return command
    if shutil.which("setpriv") is None:
        pytest.skip("root may write everywhere, and setpriv is not installed")
    return ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--", *command]
