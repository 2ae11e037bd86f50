"""Recordings: replies committed beside the experiments, so that a run needs neither key nor network.

One file an experiment, `experiments/recordings/NAME.jsonl.gz`: one reply a line, found by the hash of all that
determines it, sorted, and the same bytes for the same replies, so that git sees a change only where there is one.
What is asked, and what is missing, is decided by whoever calls.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from llmops.errors import StoreError
from llmops.records import AnyReply, AnyRequest, Repeat, reply_kind
from llmops.secrets import scrub_data

FOLDER = "experiments/recordings"
MOST_BYTES = 512 * 1024 * 1024
"""Of one file, inflated: what more would be is a bomb, or belongs into a dataset of recorded outputs."""

_VERSION = 1
_UNRECORDED = {
    "raw",
    "request_id",
}  # the body may hold what we do not know how to redact; the id is an account's
_LONGEST_DATA_URL = 256  # beyond that its hash stands for it: images belong into files, and not twice


@dataclass(frozen=True, slots=True)
class Recording:
    """A request and its reply. key: hash of model, request and repeat; it is the same in every store."""

    key: str
    model: str
    model_identity: str
    repeat: Repeat
    request: AnyRequest
    reply: AnyReply


@dataclass(frozen=True, slots=True)
class Asked:
    """What a reply was recorded for. request: its fields as they stand in the file."""

    model: str
    model_identity: str
    request: Mapping[str, Any]


def recording_path(root: Path, experiment: str) -> Path:
    """Return where the recordings of an experiment stand.

    Raises StoreError when a link leads that folder out of the project, where nothing of ours is read or written.
    """
    path = root / FOLDER / f"{experiment}.jsonl.gz"
    if not path.resolve().is_relative_to(root.resolve()):
        raise StoreError(f"{FOLDER}/{path.name}: a link leads out of the project; put the file itself there")
    return path


def request_fields(request: AnyRequest) -> dict[str, Any]:
    """Return the fields of a request as a recording has them: no defaults, and the hash of each image."""
    fields: dict[str, Any] = _each_text(
        request.model_dump(mode="json", exclude_defaults=True), _without_image
    )
    return fields


class Recordings:
    """The recordings of one file, by key. They are kept as text until they are asked for.

    shown: how messages call the file.
    """

    def __init__(self, shown: str, lines: Mapping[str, str] | None = None) -> None:
        self.shown = shown
        self._lines = dict(lines or {})

    def __len__(self) -> int:
        return len(self._lines)

    @property
    def identity(self) -> str:
        """The hash of all recordings; how they are packed does not count."""
        return hashlib.sha256(self._text()).hexdigest()

    def find(self, key: str) -> AnyReply | None:
        """Return the reply that was recorded under a key, None when there is none.

        Raises StoreError naming file and line when what stands there is no reply.
        """
        line = self._lines.get(key)
        if line is None:
            return None
        fields = json.loads(line)["reply"]
        try:
            return reply_kind(fields).model_validate(fields)
        except (ValidationError, TypeError) as error:
            number = sorted(self._lines).index(key) + 1
            raise StoreError(f"{self.shown}:{number}: no reply; restore the file from git") from error

    def asked(self) -> Iterator[Asked]:
        """Yield what all replies were recorded for, in the order of their keys."""
        for key in sorted(self._lines):
            fields = json.loads(self._lines[key])
            yield Asked(fields["model"], fields["identity"], fields["request"])

    def add(self, recording: Recording) -> None:
        """Take in a reply, without secrets, in place of one that has its key."""
        self._lines[recording.key] = _line_of(recording)

    def write(self, path: Path) -> bool:
        """Write the file, whole or not at all; return whether it changed.

        Raises StoreError when it cannot be written.
        """
        text = self._text()
        if len(text) > MOST_BYTES:
            raise StoreError(f"{self.shown}: {_too_much()}; split the experiment")
        if _holds(path, text):
            return False  # versions of zlib differ in what they make of the same text: git need not know
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_bytes(_packed(text))
            beside.replace(path)
        except OSError as error:
            with suppress(OSError):
                beside.unlink()
            raise StoreError(f"{self.shown}: {error.strerror}; the recordings were not written") from error
        return True

    def _text(self) -> bytes:
        return "".join(f"{self._lines[key]}\n" for key in sorted(self._lines)).encode("ascii")


def read_recordings(path: Path, *, shown: str) -> Recordings:
    """Return the recordings in a file; none where there is no file.

    Raises StoreError naming file and line when it is not what `write` makes.
    """
    if not path.exists():
        return Recordings(shown)
    try:
        lines = _inflated(path, shown).decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise StoreError(f"{shown}: not written by llmops; restore it from git") from error
    found: dict[str, str] = {}
    last = ""
    for number, line in enumerate(lines, 1):
        if not line and number == len(lines):
            break
        last = _key_after(last, line, f"{shown}:{number}")
        found[last] = line
    return Recordings(shown, found)


def _key_after(last: str, line: str, place: str) -> str:
    """Return the key of a line; StoreError for what is no recording, or stands where it does not belong."""
    try:
        fields = json.loads(line)
        version, key = fields["v"], fields["key"]
        texts = (key, fields["model"], fields["identity"])
        is_one = all(isinstance(text, str) for text in texts) and isinstance(fields["reply"], dict)
        is_one = is_one and isinstance(fields["request"], dict)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreError(f"{place}: no recording; restore the file from git") from error
    if version != _VERSION:
        raise StoreError(f"{place}: recorded by another version of llmops; record it again with --record")
    if not is_one or key <= last:
        raise StoreError(f"{place}: no recording, or out of order; restore the file from git")
    return str(key)


def _inflated(path: Path, shown: str) -> bytes:
    inflater = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        if not path.is_file() or path.stat().st_size > MOST_BYTES:
            raise StoreError(f"{shown}: no file that recordings could be in; restore it from git")
        text = inflater.decompress(path.read_bytes(), MOST_BYTES + 1)
    except (OSError, zlib.error) as error:
        raise StoreError(f"{shown}: it cannot be read ({error}); restore it from git") from error
    if len(text) > MOST_BYTES:
        raise StoreError(f"{shown}: {_too_much()}; it is refused")
    if not inflater.eof or inflater.unused_data:
        raise StoreError(f"{shown}: cut short or joined with something else; restore it from git")
    return text


def _too_much() -> str:
    return f"more than {MOST_BYTES >> 20} MB of recordings"


def _holds(path: Path, text: bytes) -> bool:
    """Say whether a file holds the text already; what cannot be read holds something else."""
    try:
        return path.exists() and _inflated(path, "") == text
    except StoreError:
        return False


def _packed(text: bytes) -> bytes:
    """Return the text as gzip with a header that names no time, file or system, in every version of Python."""
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=packed, mtime=0) as file:
        file.write(text)
    return packed.getvalue()


def _line_of(recording: Recording) -> str:
    reply = recording.reply.model_dump(mode="json", exclude_defaults=True, exclude=_UNRECORDED)
    fields = {
        "v": _VERSION,
        "key": recording.key,
        "model": recording.model,
        "identity": recording.model_identity,
        "repeat": recording.repeat,
        "request": scrub_data(request_fields(recording.request)),
        "reply": scrub_data(reply),
    }
    return json.dumps(fields, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False)


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    """Return plain data with every text in it changed, names of fields too: they may be a schema's own."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): _each_text(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_each_text(item, change) for item in value]
    return value


def _without_image(text: str) -> str:
    if len(text) <= _LONGEST_DATA_URL or not text.startswith("data:"):
        return text
    return (
        f"{text.partition(',')[0]},sha256:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"
    )
