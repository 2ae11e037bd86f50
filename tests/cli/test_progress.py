"""A bar on a terminal, a line now and then everywhere else, and never on standard output."""

from __future__ import annotations

import errno
import io
import json
import os
import pty
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.call.carrying import Progress
from llmops.cli.progress import LINE_EVERY_S, showing_progress
from tests.cli.command import PATIENCE_S, command_line, environment, llmops

STARTED_AT = 100.0


def shown(progress: list[tuple[float, Progress]]) -> list[str]:
    """Return the lines shown when progress comes at given seconds after the start, and nothing is a terminal."""
    now = STARTED_AT
    printed, said = io.StringIO(), io.StringIO()
    with redirect_stdout(printed), redirect_stderr(said), showing_progress("run-1", lambda: now) as show:
        for at, one in progress:
            now = STARTED_AT + at
            show(one)
    assert printed.getvalue() == ""
    return said.getvalue().splitlines()


def progress_at(n_done: int, *, n_errors: int = 0, n_calls: int = 0, cost_usd: float = 0.0) -> Progress:
    return Progress(n_done=n_done, n_total=48, n_errors=n_errors, n_calls=n_calls, cost_usd=cost_usd)


def test_a_line_says_how_far_what_for_and_what_failed() -> None:
    assert shown([(30.0, progress_at(12))]) == ["run-1: 12 of 48 cells"]
    full = progress_at(24, n_errors=2, n_calls=30, cost_usd=0.01234)
    assert shown([(30.0, full)]) == ["run-1: 24 of 48 cells, 30 calls, 0.0123 USD, 2 errors"]


@given(st.lists(st.floats(0, 100), max_size=60).map(sorted))
def test_lines_are_ten_seconds_apart_and_none_is_held_back(times: list[float]) -> None:
    lines = shown([(at, progress_at(place)) for place, at in enumerate(times)])
    due: list[int] = []
    last = 0.0
    for place, at in enumerate(times):
        if (STARTED_AT + at) - (STARTED_AT + last) >= LINE_EVERY_S:
            due.append(place)
            last = at
    assert lines == [f"run-1: {place} of 48 cells" for place in due]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("started")
    assert llmops("init", cwd=root).returncode == 0
    return root


def on_terminal(root: Path, term: str) -> tuple[str, str]:
    """Run afresh with standard error on a terminal; return what was printed and what the terminal got."""
    terminal, end = pty.openpty()
    line = command_line("run", "review_mood", "--fresh", "--no-sync", "--json")
    more = environment(TERM=term)
    with ThreadPoolExecutor() as pool:
        with subprocess.Popen(
            line, cwd=root, env=more, stdin=end, stdout=subprocess.PIPE, stderr=end, text=True
        ) as process:
            os.close(end)
            seen = pool.submit(read_terminal, terminal)
            printed, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0
        return printed, seen.result().decode()


def read_terminal(terminal: int) -> bytes:
    """Return all that is written to a terminal until nobody has its other end open any more."""
    seen = b""
    try:
        while piece := os.read(terminal, 65536):
            seen += piece
    except OSError as error:  # how Linux says so
        assert error.errno == errno.EIO
    os.close(terminal)
    return seen


def test_a_terminal_gets_a_bar_and_standard_output_the_record_alone(started: Path) -> None:
    printed, seen = on_terminal(started, "xterm")
    run = json.loads(printed)
    assert run["id"] in seen
    assert re.search(r"\d+/48", seen)
    assert "\x1b[?25h" in seen, "the cursor is back"


def test_a_dumb_terminal_gets_no_bar(started: Path) -> None:
    printed, seen = on_terminal(started, "dumb")
    assert json.loads(printed)["status"] == "complete"
    assert "\x1b" not in seen
