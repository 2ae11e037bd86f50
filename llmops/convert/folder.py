"""The folder in which a file to be converted lies: what the file refers to is read there, and nowhere else."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from pathlib import Path

from llmops.errors import UsageError

MAX_BYTES = 64_000_000
MAX_FILES = 500


@dataclass(frozen=True)
class Folder:
    """Reads files below `root`. shown: how people typed it, for messages; "" for the working directory."""

    root: Path
    shown: str = ""

    def path(self, relative: str) -> str:
        """Return how a file is called in messages."""
        return f"{self.shown}/{relative}" if self.shown else relative

    def read(self, relative: str) -> bytes:
        """Return a file's bytes.

        Raises UsageError for one that is not there, lies outside, or is larger than anybody would write.
        """
        full = self._inside(relative)
        try:
            if not full.is_file():
                raise UsageError(f"{self.path(relative)} is not there")
            if full.stat().st_size > MAX_BYTES:
                raise UsageError(f"{self.path(relative)} has more than {MAX_BYTES:,} bytes")
            return full.read_bytes()
        except OSError as error:
            raise UsageError(f"{self.path(relative)} cannot be read: {error.strerror}") from error

    def text(self, relative: str) -> str:
        """Return a file's text; raises as `read`, and for what is not UTF-8."""
        try:
            return self.read(relative).decode("utf-8-sig").replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            raise UsageError(f"{self.path(relative)}: byte {error.start} is not UTF-8") from error

    def has(self, relative: str) -> bool:
        """Say whether there is such a file inside."""
        try:
            return self._inside(relative).is_file()
        except (UsageError, OSError):
            return False

    def matching(self, pattern: str) -> list[str]:
        """Return the files that a pattern of names means, sorted; a plain name means itself."""
        if not any(sign in pattern for sign in "*?["):
            return [pattern]
        parent, _, last = pattern.rpartition("/")
        if any(sign in parent for sign in "*?["):
            raise UsageError(f"{pattern!r}: a pattern may stand for the names in one folder")
        folder = self._inside(parent or ".")
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_file()) if folder.is_dir() else []
        found = [name for name in names if fnmatch.fnmatchcase(name, last)][:MAX_FILES]
        return [f"{parent}/{name}" if parent else name for name in found]

    def _inside(self, relative: str) -> Path:
        if "\0" in relative or relative.startswith(("/", "~")) or ":" in relative or "\\" in relative:
            raise UsageError(f"{relative[:80]!r} leads out of the folder of the file that is converted")
        try:
            full = (self.root / relative).resolve()
        except (OSError, RuntimeError) as error:
            raise UsageError(f"{relative[:80]!r} cannot be followed: {error}") from error
        if not full.is_relative_to(self.root.resolve()):
            raise UsageError(f"{relative[:80]!r} leads out of the folder of the file that is converted")
        return full
