"""Answers that a store does not take, kept in a file beside it whose room was taken while there was some.

It is written in place, so that neither a full disk nor a store that somebody else keeps locked costs an answer.
Whoever holds the store next brings them in.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from typing import TYPE_CHECKING

from llmops.errors import StoreError
from llmops.records import Call

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

ROOM_BYTES = 4 * 2**20
_NOTHING = b"\0"
_DIGEST = 16  # letters of the hash in front of each line: a write that was cut short is no answer


class Aside:
    """A file of answers; the constructor only says which."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def take_room(self) -> None:
        """Take the room on the disk; what the file holds stays.

        Raises StoreError when there is none.
        """
        try:
            if not self.path.exists() or self.path.stat().st_size < ROOM_BYTES:
                with self.path.open("ab") as file:
                    file.write(bytes(ROOM_BYTES - file.tell()))
        except OSError as error:
            raise StoreError(f"{self.path}: {error.strerror}; make room for the store first") from error

    def put(self, calls: Iterable[Call]) -> None:
        """Let the file hold these calls and no others; what does not fit on the disk is left out."""
        try:
            with self.path.open("r+b", buffering=0) as file:
                for line in map(_line, calls):
                    file.write(line)
                file.write(_NOTHING)
                os.fsync(file.fileno())
        except OSError:
            return  # as many as went in; the store's own failure is the one that is told

    def calls(self) -> list[Call]:
        """Return what the file holds, as far as it is whole."""
        try:
            with self.path.open("rb") as file:
                if file.read(1) in {_NOTHING, b""}:
                    return []
                file.seek(0)
                return list(_read(file.read()))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreError(f"{self.path}: {error.strerror}; make it readable and writable") from error


def _line(call: Call) -> bytes:
    raw = call.reply.raw if call.reply is not None else b""
    fields = {
        "call": call.model_dump_json(exclude={"reply": {"raw"}}),
        "raw": base64.b64encode(raw).decode(),
    }
    text = json.dumps(fields).encode()
    return _digest(text) + text + b"\n"


def _read(content: bytes) -> Iterator[Call]:
    for line in content.partition(_NOTHING)[0].split(b"\n"):
        digest, text = line[:_DIGEST], line[_DIGEST:]
        if not text or digest != _digest(text):
            return
        told = json.loads(text)
        fields = json.loads(told["call"])
        if fields["reply"] is not None:
            fields["reply"]["raw"] = base64.b64decode(told["raw"])
        yield Call.model_validate(fields)


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest()[:_DIGEST].encode()
