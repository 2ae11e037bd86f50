"""Outputs that another system gave, in a file of rows: read once, checked, and laid aside until a case asks for one.

What a format looks like belongs to `flat_files`. They wait on disk.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from llmops.definitions.base import canonical, identity_of, without_none
from llmops.definitions.documents import RowFindings, brief, kind_of
from llmops.definitions.flat_files import SUFFIXES, read_rows
from llmops.definitions.jsonl_reader import parse_value
from llmops.definitions.spool import Spool
from llmops.definitions.trees import check_relative
from llmops.errors import DefinitionError, Finding, RowsError, UsageError, nearest

COLUMNS = (
    "id",
    "output",
    "repeat",
    "latency_s",
    "ttft_s",
    "input_tokens",
    "output_tokens",
    "cost_usd",
    "model",
    "error",
)
FOLDERS_OF_OTHERS = ("prompts", "chains")
MAX_SHOWN = 3
_MAX_NEAR = 1_000  # ids among which the nearest spelling is looked for: the search is slow
_MOST = 10**12  # more seconds, tokens or dollars than anybody has seen, and less than any database holds


@dataclass(frozen=True, slots=True)
class RecordedOutput:
    """What another system gave for one case; figures that it did not say are None. error: it gave none, and why."""

    id: str
    repeat: int = 0
    output: Any = None
    latency_s: float | None = None
    ttft_s: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    model: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Coverage:
    """How a file of outputs fits the cases it is tried on. without, unknown: the first few ids, for messages.

    n_without: cells that have no output here. n_unknown: rows whose id no case of the dataset has.
    n_beyond: rows of repeats that are not asked for. unknown: with the nearest id that has no output, if any.
    """

    n_rows: int
    n_cells: int
    n_without: int
    n_unknown: int
    n_beyond: int
    without: tuple[str, ...] = ()
    unknown: tuple[tuple[str, str | None], ...] = ()


def check_path(path: str) -> str:
    """Return the path of a file of outputs (ValueError when it leads out of the project or none reads it)."""
    try:
        check_relative(path)
    except UsageError as error:
        raise ValueError(str(error)) from error
    if PurePosixPath(path).suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path!r}: outputs are read from {', '.join(SUFFIXES)}")
    if path.partition("/")[0] in FOLDERS_OF_OTHERS:
        raise ValueError(
            f"{path!r}: outputs are no {path.partition('/')[0]}; keep them in a folder of their own"
        )
    return path


def read_recorded(data: BinaryIO, path: str) -> RecordedFile:
    """Return the outputs in a file. path: as people type it; its suffix says what it is.

    Raises DefinitionError with what is wrong, line by line, and StoreError when there is no room for a copy.
    """
    problems = RowFindings()
    index = _Index()
    reader = _RowReader(path, problems)
    try:
        for line, row in read_rows(data, path):
            found = reader.read(line, row)
            if found is not None:
                index.add(line, found)
    except RowsError as error:
        problems.join(error)
    index.sort()
    for earlier, line, found in index.twins():
        again = f" (repeat {found.repeat})" if found.repeat else ""
        message = f"id {brief(found.id)}{again} stands already on line {earlier}"
        problems.add(
            Finding(path, line, None, message, "one output a case; further ones have a `repeat` from 1")
        )
    if not len(index) and not len(problems):
        problems.add(Finding(path, 1, None, "the file has no outputs", "write one a row, with its case's id"))
    problems.raise_any()
    return RecordedFile(path, index)


class RecordedFile:
    """The outputs of one file, found by case and repeat. path: relative to the project.

    identity: hash of what the outputs are, whatever their order and whichever format they stand in.
    """

    def __init__(self, path: str, index: _Index) -> None:
        self.path = path
        self.identity = identity_of({"recorded": index.digest})
        self._index = index

    def __len__(self) -> int:
        return len(self._index)

    def find(self, case_id: str, repeat: int) -> RecordedOutput | None:
        """Return the output of a case, None where the file has none."""
        for place in self._index.places(case_id):
            if self._index.repeats[place] == repeat:
                found = self._index.read(place)
                if found.id == case_id:
                    return found
        return None

    def coverage(self, cases: Iterable[tuple[str, bool]], repeats: int) -> Coverage:
        """Return how the file fits a dataset. cases: the id of every case there, and whether it is tried."""
        is_known = bytearray(len(self))
        n_cells = n_without = n_beyond = 0
        without: list[str] = []
        for case_id, is_tried in cases:
            places = self._index.places(case_id)
            for place in places:
                is_known[place] = True
            if not is_tried:
                continue
            given = {self._index.repeats[place] for place in places}
            n_here = sum(repeat < repeats for repeat in given)
            n_cells += repeats
            n_without += repeats - n_here
            n_beyond += len(given) - n_here
            if not n_here and len(without) < _MAX_NEAR:
                without.append(case_id)
        return Coverage(
            n_rows=len(self),
            n_cells=n_cells,
            n_without=n_without,
            n_unknown=len(self) - sum(is_known),
            n_beyond=n_beyond,
            without=tuple(without[:MAX_SHOWN]),
            unknown=tuple(self._unknown(is_known, without)),
        )

    def _unknown(self, is_known: bytearray, without: list[str]) -> Iterator[tuple[str, str | None]]:
        places = (place for place in self._index.in_file_order() if not is_known[place])
        for place in islice(places, MAX_SHOWN):
            found = self._index.read(place).id
            yield found, nearest(found, without)


# --- rows -------------------------------------------------------------------------------------------------


class _RowReader:
    """Turns rows into outputs, or says what is wrong with them."""

    def __init__(self, path: str, problems: RowFindings) -> None:
        self._path = path
        self._problems = problems
        self._is_jsonl = path.lower().endswith(".jsonl")
        self._is_csv = path.lower().endswith(".csv")
        self._strange: set[str] = set()

    def read(self, line: int, row: Mapping[str, object]) -> RecordedOutput | None:
        """Return the output of a row, None where it has none that can be taken."""
        if self._has_strange_columns(line, row):
            return None
        values = self._said(row) if self._is_csv else row
        try:
            fields: dict[str, Any] = {name: read(name, values.get(name)) for name, read in _READ.items()}
            found = RecordedOutput(**without_none(fields))
            _check_output(found)
        except _RowError as error:
            self._problems.add(Finding(self._path, line, None, str(error), error.hint))
            return None
        return found

    def _said(self, row: Mapping[str, object]) -> Mapping[str, object]:
        """Leave out the empty cells of a CSV; an empty output is one, of no text, unless there was an error."""
        return {
            name: value for name, value in row.items() if value or (name == "output" and not row.get("error"))
        }

    def _has_strange_columns(self, line: int, row: Mapping[str, object]) -> bool:
        """Say once of each column that nobody knows it, and at once what a flat file has not."""
        strange = [name for name in row if name not in _READ and not name.startswith("x-")]
        for name in strange:
            if name not in self._strange:
                self._strange.add(name)
                hint = (
                    nearest(name, COLUMNS) or f"columns: {', '.join(COLUMNS)}; what starts with x- is yours"
                )
                self._problems.add(Finding(self._path, line, None, f"unknown column {brief(name)}", hint))
        lacking = [] if self._is_jsonl else [name for name in ("id", "output") if name not in row]
        if lacking:
            header = 1 if self._is_csv else None
            has = f"it has: {', '.join(map(brief, row))}"
            raise DefinitionError(
                [Finding(self._path, header, None, f"there is no column {name!r}", has) for name in lacking]
            )
        return bool(strange)


class _RowError(Exception):
    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def _read_id(_: str, value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and value.strip():
        return value
    if value is None or isinstance(value, str):
        raise _RowError("the row has no id", "the id of the case that it is the output for")
    raise _RowError(f"an id is text or a whole number, not {kind_of(value)}")


def _read_output(_: str, value: object) -> object:
    if isinstance(value, str):
        return value
    try:
        canonical(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise _RowError(f"output: {error}", "an output is text or any value of JSON") from error
    return value


def _read_text(name: str, value: object) -> str | None:
    if value is None or (isinstance(value, str) and value.strip()):
        return value
    raise _RowError(f"{name} is text, not {kind_of(value)}")


def _read_number(name: str, value: object) -> float | None:
    if isinstance(value, str):
        try:
            value = parse_value(value)
        except ValueError:
            raise _RowError(f"{name} is a number, not {kind_of(value)}") from None
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _RowError(f"{name} is a number, not {kind_of(value)}")
    if not 0 <= value <= _MOST:
        raise _RowError(f"{name} is {kind_of(value)}: it lies between 0 and {_MOST:,}")
    return float(value)


def _read_count(name: str, value: object) -> int | None:
    number = _read_number(name, value)
    if number is not None and not number.is_integer():
        raise _RowError(f"{name} is a whole number, not {number:g}")
    return None if number is None else int(number)


_READ: Mapping[str, Callable[[str, object], object]] = {
    "id": _read_id,
    "output": _read_output,
    "repeat": _read_count,
    "latency_s": _read_number,
    "ttft_s": _read_number,
    "input_tokens": _read_count,
    "output_tokens": _read_count,
    "cost_usd": _read_number,
    "model": _read_text,
    "error": _read_text,
}


def _check_output(found: RecordedOutput) -> None:
    if found.output is None and found.error is None:
        hint = "leave the row out, or say in `error` why there is none"
        raise _RowError(f"{brief(found.id)} has neither an output nor an error", hint)


# --- where they wait --------------------------------------------------------------------------------------


class _Index:
    """Outputs as lines of JSON on disk, and where the line of each case begins: 44 bytes of memory each.

    After `sort`, places go by the hash of the id and the repeat; equal hashes of different ids stand side by side.
    digest: hash of all outputs, in an order that the file's does not change.
    """

    def __init__(self) -> None:
        self._spool = Spool()
        self._keys = array("Q")
        self._starts = array("Q")
        self._sizes = array("L")
        self.repeats = array("Q")
        self._lines = array("Q")
        self._digests = bytearray()
        self.digest = ""

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, line: int, found: RecordedOutput) -> None:
        """Take in an output, from a line of its file."""
        fields = without_none({name: getattr(found, name) for name in COLUMNS})
        text = canonical(fields).encode("utf-8", "surrogatepass") + b"\n"
        self._starts.append(self._spool.write(text))
        self._sizes.append(len(text))
        self._keys.append(_hash(found.id))
        self.repeats.append(found.repeat)
        self._lines.append(line)
        self._digests += hashlib.sha256(text).digest()

    def sort(self) -> None:
        """Put the index in the order in which it is searched; nothing is added after that."""
        self._spool.flush()
        order = list(range(len(self)))
        order.sort(key=self.repeats.__getitem__)
        order.sort(key=self._keys.__getitem__)
        for name in ("_keys", "_starts", "_sizes", "repeats", "_lines"):
            old: array[int] = getattr(self, name)
            setattr(self, name, array(old.typecode, (old[place] for place in order)))
        whole = hashlib.sha256()
        for place in order:
            whole.update(self._digests[32 * place : 32 * place + 32])
        self._digests.clear()
        self.digest = whole.hexdigest()

    def places(self, case_id: str) -> range:
        """Return where the outputs of a case stand, and of any other whose id has the same hash."""
        key = _hash(case_id)
        return range(bisect_left(self._keys, key), bisect_right(self._keys, key))

    def read(self, place: int) -> RecordedOutput:
        """Return the output at a place."""
        text = self._spool.read(self._starts[place], self._sizes[place])
        return RecordedOutput(**json.loads(text.decode("utf-8", "surrogatepass")))

    def in_file_order(self) -> list[int]:
        """Return the places in the order of the lines of the file."""
        return sorted(range(len(self)), key=self._lines.__getitem__)

    def twins(self) -> Iterator[tuple[int, int, RecordedOutput]]:
        """Yield each output that repeats an earlier one: the earlier line, its own line, and it."""
        for place in range(1, len(self)):
            before = place - 1
            if (self._keys[before], self.repeats[before]) == (self._keys[place], self.repeats[place]):
                one, other = self.read(before), self.read(place)
                if one.id == other.id:
                    yield self._lines[before], self._lines[place], other


def _hash(case_id: str) -> int:
    digest = hashlib.blake2b(case_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")
