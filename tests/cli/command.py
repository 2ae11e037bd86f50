"""llmops as people and scripts start it: a process of its own, in a project, with an environment that is fixed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

PATIENCE_S = 120  # so that a command that hangs fails its test; a busy machine may take long over MLflow
NOT_OURS = ("MLFLOW_", "OPENAI_", "AZURE_", "LLMOPS_", "GIT_", "GITHUB_")
FIXED = {
    "COLUMNS": "80",
    "LANG": "C.UTF-8",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "NO_COLOR": "1",
    "TERM": "xterm",
    "TZ": "UTC",
}


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a command: nothing of whoever runs the tests but where programs are."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith((*NOT_OURS, "LC_", "PYTHON")) and not name.lower().endswith("_proxy")
    }
    paths = {"PYTHONPATH": os.environ["PYTHONPATH"]} if "PYTHONPATH" in os.environ else {}
    return kept | FIXED | paths | more


def command_line(*arguments: str, options: tuple[str, ...] = ()) -> list[str]:
    """Return what starts llmops in this Python. options: the interpreter's own."""
    return [sys.executable, "-P", *options, "-m", "llmops", *arguments]


def llmops(
    *arguments: str,
    cwd: Path,
    options: tuple[str, ...] = (),
    more: dict[str, str] | None = None,
    **streams: Any,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end. more: variables beside the fixed ones; streams: as for `subprocess.run`."""
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
    return subprocess.run(
        command_line(*arguments, options=options),
        cwd=cwd,
        env=environment(**(more or {})),
        encoding="utf-8",
        timeout=PATIENCE_S,
        check=False,
        **streams,
    )


def start(
    *arguments: str, cwd: Path, more: dict[str, str] | None = None, **streams: Any
) -> subprocess.Popen[str]:
    """Start a command; whoever started it ends it."""
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
    return subprocess.Popen(
        command_line(*arguments),
        cwd=cwd,
        env=environment(**(more or {})),
        encoding="utf-8",
        **streams,
    )


def closed_pipe() -> int:
    """Return the writing end of a pipe that nobody reads; whoever asked closes it."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing
