"""Files that a command writes where it is told to: whole or not at all, and said on standard error."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llmops.errors import UsageError
from llmops.secrets import scrub

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a file beside `path` that takes its place once it is written, and goes when that fails.

    It has the same suffix. What is no file but a device or a pipe is written as it is.

    Raises UsageError when it cannot be written there; a full disk is left to whoever runs the command.
    """
    try:
        if path.exists() and not path.is_file():
            yield path
            return
        with _beside(path.resolve()) as temporary:
            yield temporary
    except OSError as error:
        if error.errno in _FULL:
            raise
        raise UsageError(f"{path} cannot be written: {error.strerror or error}") from error


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".llmops-", suffix=path.suffix)
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(_mode(path))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _mode(path: Path) -> int:
    """Return the rights a file has, or would be given here."""
    if path.exists():
        return path.stat().st_mode & 0o7777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8, without secrets (UsageError when that cannot be done there)."""
    with replacing(path) as file:
        file.write_text(scrub(text), encoding="utf-8", newline="\n")
