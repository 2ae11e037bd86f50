"""Standard output and error that a command can print to, whatever stands behind them.

A reader that leaves (`| head -1`), a terminal that is closed, a letter that the encoding lacks: none of them ends
a run or changes its exit code. A full disk does, and is left to whoever prints.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from secrets import token_hex
from typing import TYPE_CHECKING, TextIO

from llmops.secrets import scrub_bytes

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_stopped: list[str] = []
"""The token by which the runner would listen again, while it does not."""
_GONE = frozenset({errno.EPIPE, errno.EIO})


class _Printed(io.FileIO):
    """A file descriptor that turns to the null device once it cannot be written any more."""

    def write(self, data: ReadableBuffer, /) -> int | None:  # type: ignore[override]  # None: it would block
        try:
            return super().write(data)
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            if error.errno not in _GONE:
                raise
            return memoryview(data).nbytes


class _Scrubbed(io.BufferedWriter):
    """What a command prints, without secrets. The text layer above hands over whole pieces, never part of one."""

    def write(self, data: ReadableBuffer, /) -> int:
        super().write(scrub_bytes(bytes(data)))
        return memoryview(data).nbytes


def open_streams() -> None:
    """Replace `sys.stdout` and `sys.stderr`. One that was closed is the null device from now on.

    Otherwise the next file to be opened, the journal for example, would get its number and what is printed.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = _open(1, sys.stdout)
    sys.stderr = _open(2, sys.stderr)


@contextmanager
def commands_stopped(environment: Mapping[str, str]) -> Iterator[None]:
    """Let GitHub's runner obey nothing that is printed until the block ends, model text above all.

    Said on standard error, so that output stays what it is where a script reads it. The runner reads the two side
    by side, and may be late for a line: so no text is printed but through `printable` in the first place.
    """
    if environment.get("GITHUB_ACTIONS") != "true":
        yield
        return
    token = token_hex(16)
    print(f"::stop-commands::{token}", file=sys.stderr, flush=True)
    _stopped.append(token)
    try:
        yield
    finally:
        _stopped.remove(token)
        sys.stdout.flush()
        print(f"::{token}::", file=sys.stderr, flush=True)


def print_commands(lines: Iterable[str]) -> None:
    """Print workflow commands of ours on standard error, for which the runner listens again meanwhile."""
    sys.stdout.flush()
    around = ((f"::{token}::", f"::stop-commands::{token}") for token in _stopped[-1:])
    before, after = next(around, (None, None))
    for line in (before, *lines, after):
        if line is not None:
            print(line, file=sys.stderr, flush=True)


def _open(descriptor: int, given: TextIO | None) -> TextIO:
    return io.TextIOWrapper(
        _Scrubbed(_Printed(descriptor, "w", closefd=False)),
        encoding=given.encoding if given is not None else "utf-8",
        errors="backslashreplace",
        line_buffering=True,
    )
