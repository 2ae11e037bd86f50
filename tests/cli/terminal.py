"""A command in a terminal of its own, as a person sees and types it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

from tests.cli.command import PATIENCE_S, start


@dataclass
class Terminal:
    """Our end of it. shown: all that the command has written so far; what was waited for is behind `_at`."""

    process: Popen[str]
    ours: int
    shown: str = ""
    _at: int = 0

    def wait_for(self, text: str) -> str:
        """Return what the terminal shows up to a text that it has not shown before."""
        deadline = time.monotonic() + PATIENCE_S
        while (found := self.shown.find(text, self._at)) < 0:
            assert time.monotonic() < deadline and self._read(), f"no {text!r} in {self.shown[self._at :]!r}"
        before, self._at = self.shown[self._at : found], found + len(text)
        return before

    def type(self, text: str) -> None:
        """Type, Enter included."""
        os.write(self.ours, f"{text}\n".encode())

    def press(self, key: str) -> None:
        """Press Ctrl and a key."""
        os.write(self.ours, bytes([ord(key.upper()) - 64]))

    def interrupt_until(self, text: str) -> None:
        """Press Ctrl-C until a text is shown, or the command has gone.

        Python loses one that comes between its prompt and its wait for a key, until the next key.
        """
        while self.shown.find(text, self._at) < 0 and self.process.poll() is None:
            self.press("c")
            while self._read(within_s=2):
                pass

    def ended(self) -> int:
        """Return the exit code, with all that was shown read."""
        while self._read():
            pass
        return self.process.wait(PATIENCE_S)

    def _read(self, within_s: float = PATIENCE_S) -> bool:
        """Take what there is; False once the command has gone, or says nothing for so long."""
        with suppress(OSError):
            if not select.select([self.ours], [], [], within_s)[0]:
                return False
            data = os.read(self.ours, 65_536)
            self.shown += data.decode("utf-8", "replace")
            return bool(data)
        return False


@contextmanager
def in_terminal(*arguments: str, cwd: Path, more: dict[str, str] | None = None) -> Iterator[Terminal]:
    """Give a command that was started in a terminal; it is gone after the block."""
    ours, theirs = pty.openpty()

    def own_terminal() -> None:
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    process = start(
        *arguments, cwd=cwd, more=more, start_new_session=True, preexec_fn=own_terminal, **streams
    )
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE_S)
        os.close(ours)
