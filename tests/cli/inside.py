"""llmops inside the test's own process, for tests of what commands say: no second start-up, no second import."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import click

from llmops.cli import _told, root


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


def llmops_inside(*arguments: str, cwd: Path, more: Mapping[str, str] | None = None) -> Done:
    """Carry out a command as `llmops.cli.main` does, with variables beside those of this process."""
    said, told = StringIO(), StringIO()
    before = dict(os.environ)
    os.environ.update(more or {})
    try:
        with chdir(cwd), redirect_stdout(said), redirect_stderr(told):
            code = _code(arguments)
    finally:
        os.environ.clear()
        os.environ.update(before)
    return Done(code, said.getvalue(), told.getvalue())


def _code(arguments: tuple[str, ...]) -> int:
    try:
        code = root.main(list(arguments), prog_name="llmops", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return 2
    except Exception as error:  # noqa: BLE001 - as `main` does
        return _told(error)
    return code if isinstance(code, int) else 0
