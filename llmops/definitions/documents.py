"""What every reader of people's files shares: a plain value with the place of each of its parts, and findings.

Reading belongs to `yaml_reader` and the readers behind `flat_files`, checked models to `build`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

from llmops.errors import DefinitionError, Finding, RowsError

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


def refusal(findings: Iterable[Finding]) -> DefinitionError:
    """Return the error that lists the first findings in the order of the file and counts the others."""
    return DefinitionError(_shortened(findings, 0)[0])


class RowFindings:
    """What is wrong with the rows of one data file: listed up to MAX_FINDINGS, counted beyond."""

    def __init__(self) -> None:
        self._listed: list[Finding] = []
        self._n_unlisted = 0
        self._last: int | None = None
        self.n_rows = 0

    def __len__(self) -> int:
        return len(self._listed) + self._n_unlisted

    @property
    def is_full(self) -> bool:
        """Whether what is added now is only counted, so that nobody need work out its words."""
        return len(self._listed) >= MAX_FINDINGS

    def add(self, *findings: Finding) -> None:
        """Take in what is wrong with one row; what one row has comes one after the other."""
        for finding in findings:
            self._count_row(finding.line)
            if self.is_full:
                self._n_unlisted += 1
            else:
                self._listed.append(finding)

    def count(self, line: int) -> None:
        """Count a row that is wrong, where nobody would read why."""
        self._count_row(line)
        self._n_unlisted += 1

    def _count_row(self, line: int | None) -> None:
        self.n_rows += line != self._last
        self._last = line

    def join(self, error: RowsError) -> None:
        """Take in what the reader of the file has found beside."""
        self._listed += [finding for finding in error.findings if finding.line is not None]
        self._n_unlisted += error.n_unlisted
        self.n_rows += error.n_rows

    def refusal(self) -> DefinitionError:
        """Return the error of a file that is of no use with what is wrong in it."""
        return DefinitionError(_shortened(self._listed, self._n_unlisted)[0])

    def raise_any(self) -> None:
        """Raise RowsError when there is anything, in the order of the file."""
        if self._listed:
            shown, n_more = _shortened(self._listed, self._n_unlisted)
            raise RowsError(shown, n_rows=self.n_rows, n_unlisted=n_more)


def _shortened(findings: Iterable[Finding], n_unlisted: int) -> tuple[list[Finding], int]:
    ordered = sorted(set(findings), key=lambda f: (f.line or 0, f.column or 0, f.message))
    n_more = max(len(ordered) - MAX_FINDINGS, 0) + n_unlisted
    shown = ordered[:MAX_FINDINGS]
    if n_more:
        shown.append(Finding(shown[0].path, None, None, f"and {n_more} more like these"))
    return shown, n_more


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


def start_of(stream: BinaryIO, path: str) -> bytes:
    """Return the first bytes of a file that is read from its start on.

    Raises DefinitionError for a file in UTF-16 or UTF-32.
    """
    sample = stream.read(200)
    if foreign := other_encoding(sample, path):
        raise DefinitionError(foreign)
    return sample


def undecodable(error: UnicodeDecodeError, path: str, line: int, column: int, offset: int) -> Finding:
    """Return the finding of a byte that is not UTF-8. offset: of the byte in the file."""
    byte = error.object[error.start]
    hint = "save the file as UTF-8"
    if byte >= 0xA0:
        hint += f"; in Latin-1 this byte is {chr(byte)!r}"
    return Finding(path, line, column, f"byte {offset} (0x{byte:02X}) is not UTF-8", hint)


def name_findings(names: Sequence[str], path: str, line: int | None) -> list[Finding]:
    """Return what is wrong with the names of a file's columns: one that is empty, or stands twice."""
    found = []
    seen: dict[str, int] = {}
    for place, name in enumerate(names, 1):
        if not name.strip():
            hint = "name it; an index that pandas wrote goes with index=False"
            found.append(Finding(path, line, None, f"column {place} has no name", hint))
        elif seen.setdefault(name, place) != place:
            message = f"columns {seen[name]} and {place} are both called {brief(name)}"
            found.append(Finding(path, line, None, message, "give each a name of its own"))
    return found


def kind_of(value: object) -> str:
    """Return what a value is, in the words of a message."""
    if value is None:
        return "null"
    if isinstance(value, bool | int | float):
        return brief(json.dumps(value)).strip("'")
    if isinstance(value, str):
        return f"the text {brief(value)}"
    return "a list" if isinstance(value, list) else "a mapping"
