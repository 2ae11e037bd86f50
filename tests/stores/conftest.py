"""A journal on a real file, and other processes at work on it."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pytest

from tests.stores.samples import opened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from llmops.stores.journal import Journal

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """Give a new, empty journal at `tmp_path`."""
    journal = opened(tmp_path)
    yield journal
    journal.close()


Child = subprocess.Popen[str]


@pytest.fixture
def child(tmp_path: Path) -> Callable[[str], AbstractContextManager[Child]]:
    """Start `tests.stores.child` on the store at `tmp_path`; it is killed at the latest when the test ends."""

    @contextmanager
    def start(mode: str) -> Iterator[Child]:
        command = [sys.executable, "-m", "tests.stores.child", mode, str(tmp_path)]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as process:
            try:
                yield process
            finally:
                process.kill()

    return start


def lines(process: Child) -> IO[str]:
    """Return what the child says, a line at a time."""
    assert process.stdout is not None
    return process.stdout
