"""CSV in, one row of text cells by column out: RFC 4180 with commas, strict, and with the place of every fault.

Python's own `csv` is not used: its limit on the size of a cell is one number for the whole process, which a library
must not change under others, and it says neither where a row went wrong nor that a quote was never closed.
What the text of a cell stands for is left to whoever reads it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from llmops.definitions.documents import BOM, RowFindings, name_findings, refusal, start_of, undecodable
from llmops.errors import DefinitionError, Finding

_MAX_QUOTED = 1 << 26
"""Characters between two quotes: one that is never closed would take a file of any size into memory."""

_CELL = re.compile(r'(?:"((?:[^"]++|"")*+)"|([^",\r\n]*+))(,|\r\n?|\n)')
_REST = re.compile(r'((?:[^"]++|"")*+)"()(,|\r\n?|\n)')
_INSIDE = re.compile(r'(?:[^"]++|"")*+')
_END = re.compile(r"\r\n?|\n")

_CUT_OFF = "the file ends here; was writing it cut off?"
_DOUBLED = 'a cell with a quote in it goes into quotes, and its own quote is doubled: "1"" wide"'


def read_csv(data: BinaryIO, path: str) -> Iterator[tuple[int, dict[str, object]]]:
    """Yield the line number and the cells by column of each row that is right; empty lines are passed over.

    Rows end with LF, CRLF or CR; a line end inside quotes belongs to the cell as it is.

    Raises RowsError after the last row when any was wrong, and DefinitionError at once for another encoding, for a
    header that does not name the columns, and for a quote that is never closed.
    """
    problems = RowFindings()
    scanner = _Scanner(path, problems)
    names: list[str] = []
    for line, cells in _records(data, scanner, path):
        if not names:
            if problems:  # what stands here is then no header
                raise problems.refusal()
            _check_header(cells, line, path)
            names = cells
        elif len(cells) == len(names):
            yield line, dict(zip(names, cells, strict=True))
        else:
            problems.add(_ragged(path, line, len(cells), len(names), is_half=scanner.is_half))
    problems.raise_any()


def _records(data: BinaryIO, scanner: _Scanner, path: str) -> Iterator[tuple[int, list[str]]]:
    offset = len(BOM) if start_of(data, path).startswith(BOM) else 0
    data.seek(offset)
    for raw in data:
        yield from scanner.feed(raw, offset)
        offset += len(raw)
    scanner.finish()


def _check_header(names: list[str], line: int, path: str) -> None:
    for sign, shown in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")) if len(names) == 1 else ():
        if sign in names[0]:
            message = f"the columns are separated by {shown}, not by commas"
            raise DefinitionError(Finding(path, line, 1, message, "save the file with commas"))
    if found := name_findings(names, path, line):
        raise refusal(found)


def _ragged(path: str, line: int, n_cells: int, n_names: int, *, is_half: bool) -> Finding:
    message = f"{n_cells} {'cell' if n_cells == 1 else 'cells'}, and the header names {n_names} columns"
    if is_half and n_cells < n_names:
        return Finding(path, line, None, f"half a line: {message}", _CUT_OFF)
    hint = (
        "a cell with a comma in it goes into quotes"
        if n_cells > n_names
        else "an empty cell has its comma too"
    )
    return Finding(path, line, None, message, hint)


class _Scanner:
    """Takes a file's lines in and gives its records out; a quoted cell may go over many lines.

    is_half: whether the file ends with the record given out last, without a line end.
    """

    def __init__(self, path: str, problems: RowFindings) -> None:
        self._path = path
        self._problems = problems
        self._line = 1
        self._begun = 1
        self._cells: list[str] = []
        self._open: list[str] = []
        self._opened = (1, 1)
        self._n_open = 0
        self._is_spoilt = False
        self.is_half = False

    def feed(self, raw: bytes, offset: int) -> Iterator[tuple[int, list[str]]]:
        """Yield the line and the cells of each record that ends in a line. offset: of the line in the file."""
        self._is_spoilt = self._is_spoilt and bool(self._open)
        is_cut = not raw.endswith((b"\n", b"\r"))
        text = self._decoded(raw + b"\n" if is_cut else raw, offset)
        if self._open or '"' in text or "\r" in text[:-2]:
            yield from self._slowly(text, is_cut=is_cut)
            return
        self.is_half = is_cut
        self._line += 1
        if text.strip() and not self._is_spoilt:
            yield self._line - 1, text.rstrip("\r\n").split(",")

    def finish(self) -> None:
        """Say what is wrong with a file that ends here."""
        if not self._open:
            return
        line, column = self._opened
        if self._line > line + 1:  # what it swallowed may be most of the file
            raise DefinitionError(Finding(self._path, line, column, "this quote is never closed", _DOUBLED))
        message = "half a line: this quote is never closed"
        self._problems.add(Finding(self._path, line, column, message, _CUT_OFF))

    def _decoded(self, raw: bytes, offset: int) -> str:
        """Return the text of a line; where it is none, the records in it are found all the same, and left out."""
        if (at := raw.find(b"\0")) >= 0:
            column = len(raw[:at].decode(errors="replace")) + 1
            message = f"a NUL byte (byte {offset + at})"
            hint = "remove it, or save the file as UTF-8"
            self._spoil(Finding(self._path, self._line, column, message, hint))
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            column = len(raw[: error.start].decode()) + 1
            self._spoil(undecodable(error, self._path, self._line, column, offset + error.start))
            return raw.decode(errors="replace")

    def _spoil(self, finding: Finding) -> None:
        if not self._is_spoilt:
            self._problems.add(finding)
        self._is_spoilt = True

    def _slowly(self, text: str, *, is_cut: bool) -> Iterator[tuple[int, list[str]]]:
        at = 0
        while at < len(text):
            if not self._cells and not self._open:
                self._begun = self._line
            found = (_REST if self._open else _CELL).match(text, at)
            if found is None:
                at = self._holds_or_fails(text, at)
                continue
            at = found.end()
            if not self._adds(*found.groups()):
                continue
            cells, self._cells = self._cells, []
            self.is_half = is_cut and at == len(text)
            if cells and not self._is_spoilt:
                yield self._begun, cells

    def _adds(self, quoted: str | None, plain: str, end: str) -> bool:
        """Take in a cell, and say whether the record ends with it; an empty line is a record of no cells."""
        if quoted is not None:
            self._line += _n_ends(quoted)
            self._cells.append("".join([*self._open, quoted]).replace('""', '"'))
            self._open = []
        elif self._cells or end == "," or plain.strip():
            self._cells.append(plain)
        self._line += end != ","
        return end != ","

    def _holds_or_fails(self, text: str, at: int) -> int:
        """Return where the scan goes on where no whole cell stands: one is open still, or wrong."""
        if not self._open and text[at] != '"':
            stray = text.index('"', at)
            return self._fails(text, stray, "a quote inside a cell that begins without one", _DOUBLED)
        begin = at if self._open else at + 1
        inside = _INSIDE.match(text, begin)
        end = inside.end() if inside else begin
        if end < len(text):
            return self._fails(text, end + 1, "text between a closing quote and the next comma", _DOUBLED)
        if not self._open:
            self._opened = (self._line, _column(text, at))
            self._n_open = 0
        self._hold(text[begin:])
        return end

    def _hold(self, text: str) -> None:
        self._open.append(text)
        self._n_open += len(text)
        self._line += _n_ends(text)
        if self._n_open > _MAX_QUOTED:
            message = f"this quote is not closed within {_MAX_QUOTED >> 20} million characters"
            raise DefinitionError(Finding(self._path, *self._opened, message, _DOUBLED))

    def _fails(self, text: str, at: int, message: str, hint: str) -> int:
        """Note a record that is wrong, and return where the next begins."""
        if not self._is_spoilt:
            self._problems.add(Finding(self._path, self._line, _column(text, at), message, hint))
        self._cells, self._open = [], []
        self._line += 1
        end = _END.search(text, at)
        return end.end() if end else len(text)


def _n_ends(text: str) -> int:
    return len(_END.findall(text)) if "\n" in text or "\r" in text else 0


def _column(text: str, at: int) -> int:
    return at - max(text.rfind("\n", 0, at), text.rfind("\r", 0, at))
