"""What every reader of people's files shares: a plain value with the place of each of its parts, and findings.

Reading belongs to `yaml_reader` and `jsonl_reader`, checked models to `build`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from llmops.errors import DefinitionError, Finding

Location = Sequence[str | int]

BOM = b"\xef\xbb\xbf"
MAX_FINDINGS = 20


class Mark(NamedTuple):
    """Where a value stands, from 1, and where the values inside it stand; an entry stands at its key."""

    line: int
    column: int
    inside: Mapping[str, Mark] | Sequence[Mark] | None = None


@dataclass(frozen=True)
class Document:
    """One file's plain value, and where each part of it was written.

    path: as the user would type it, relative to the project.
    marks: None for a value that was not read from text; it then has no positions.
    """

    path: str
    value: object
    marks: Mark | None = field(default=None, repr=False, compare=False)

    def position(self, location: Location) -> tuple[int, int] | None:
        """Return line and column, from 1, of the key or item at a location, or of what stands around it."""
        mark = self.marks
        if mark is None:
            return None
        for item in location:
            inner = _mark_inside(mark, item)
            if inner is None:
                break
            mark = inner
        return mark.line, mark.column

    def finding(self, location: Location, message: str, hint: str | None = None) -> Finding:
        """Return a finding that points at a location of this file."""
        line, column = self.position(location) or (None, None)
        return Finding(self.path, line, column, message, hint)


def _mark_inside(mark: Mark, item: str | int) -> Mark | None:
    match mark.inside, item:
        case Mapping() as entries, str():
            return entries.get(item)
        case list() as items, int() if 0 <= item < len(items):
            found: Mark = items[item]
            return found
    return None


def refusal(findings: Iterable[Finding], n_unlisted: int = 0) -> DefinitionError:
    """Return the error that lists the first findings in the order of the file and counts the others."""
    ordered = sorted(set(findings), key=lambda f: (f.line or 0, f.column or 0, f.message))
    n_more = max(len(ordered) - MAX_FINDINGS, 0) + n_unlisted
    shown = ordered[:MAX_FINDINGS]
    if n_more:
        shown.append(Finding(shown[0].path, None, None, f"and {n_more} more like these"))
    return DefinitionError(shown)


def brief(text: str) -> str:
    """Return the beginning of a text in quotes, with what cannot be seen as escapes."""
    return repr(text if len(text) <= 40 else text[:39] + "…")


def other_encoding(data: bytes, path: str) -> Finding | None:
    """Return what to say about a file in UTF-16 or UTF-32, which starts with a mark or has NULs all over."""
    sample = data[:200]
    marked = sample.startswith((b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff"))
    if not marked and 3 * sample.count(0) <= len(sample):
        return None
    at = 0 if marked else data.index(0)
    return Finding(path, 1, 1, f"the file is UTF-16 or UTF-32, not UTF-8 (byte {at})", "save it as UTF-8")


def undecodable(error: UnicodeDecodeError, path: str, line: int, column: int, offset: int) -> Finding:
    """Return the finding of a byte that is not UTF-8. offset: of the byte in the file."""
    byte = error.object[error.start]
    hint = "save the file as UTF-8"
    if byte >= 0xA0:
        hint += f"; in Latin-1 this byte is {chr(byte)!r}"
    return Finding(path, line, column, f"byte {offset} (0x{byte:02X}) is not UTF-8", hint)


def kind_of(value: object) -> str:
    """Return what a value is, in the words of a message."""
    if value is None:
        return "null"
    if isinstance(value, bool | int | float):
        return brief(json.dumps(value)).strip("'")
    if isinstance(value, str):
        return f"the text {brief(value)}"
    return "a list" if isinstance(value, list) else "a mapping"
