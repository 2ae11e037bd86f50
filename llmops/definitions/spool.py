"""What does not stay in memory: bytes in a temporary file that has no name and that nobody else sees.

Written from start to end, then read anywhere. What the bytes mean is left to whoever lays them aside.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterator
from typing import IO

from llmops.errors import StoreError


class Spool:
    """The file; gone with the last object that refers to it. May be read from several threads."""

    def __init__(self) -> None:
        """Raise StoreError where no file can be made."""
        try:
            self._file: IO[bytes] = tempfile.TemporaryFile(prefix="llmops-")  # noqa: SIM115 - closed below
        except OSError as error:
            raise _no_room(error) from error
        weakref.finalize(self, self._file.close)
        self._end = 0

    def write(self, data: bytes) -> int:
        """Write at the end and return where the data begins; StoreError when the disk cannot take it."""
        start = self._end
        try:
            self._end += self._file.write(data)
        except OSError as error:
            raise _no_room(error) from error
        return start

    def flush(self) -> None:
        """Let what was written be read; StoreError when the disk cannot take it."""
        try:
            self._file.flush()
        except OSError as error:
            raise _no_room(error) from error

    def read(self, start: int, size: int) -> bytes:
        """Return the bytes that begin at a place."""
        return os.pread(self._file.fileno(), size, start)

    def lines(self) -> Iterator[bytes]:
        """Yield all that was written, line by line."""
        self.flush()
        self._file.seek(0)
        yield from self._file


def _no_room(error: OSError) -> StoreError:
    folder = tempfile.gettempdir()
    return StoreError(f"there is no room in {folder}: {error.strerror}; point TMPDIR to a folder with room")
