"""JSONL in, one object a line out: strict, so that what is stored later is exactly what stands in the file.

What an object means is left to whoever reads it.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Iterator
from typing import BinaryIO

from llmops.definitions.documents import BOM, RowFindings, brief, start_of, undecodable
from llmops.errors import Finding

_MAX_DEPTH = 100  # far below the interpreter's recursion limit, which depends on who calls
_MAX_DIGITS = 4_300  # where int() itself gives up


def read_jsonl(data: bytes | BinaryIO, path: str) -> Iterator[tuple[int, dict[str, object]]]:
    """Yield line number and object of each line that is right; blank lines are passed over.

    Raises RowsError after the last line when any line was wrong, and DefinitionError at once for another encoding:
    a caller who spends something on what is read waits for the end.
    """
    stream = io.BytesIO(data) if isinstance(data, bytes) else data
    start = len(BOM) if start_of(stream, path).startswith(BOM) else 0
    stream.seek(start)
    problems = RowFindings()
    for number, line in enumerate(_lines(stream), 1):
        if not line.isspace():
            row = _parse_line(line)
            if row is not None:
                yield number, row
            elif not problems.is_full:
                problems.add(*_line_findings(line, path, number, start))
            else:
                problems.count(number)
        start += len(line)
    problems.raise_any()


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    """Yield lines that end at b"\\n" alone: U+2028 may stand inside a text, and a CR is just a space.

    Only a file without any b"\\n" has the line ends of a Macintosh of the last century.
    """
    first = stream.readline()
    if first.endswith(b"\n"):
        yield first
        yield from stream
    elif first:
        yield from io.BytesIO(first.replace(b"\r", b"\n"))


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("a key stands twice")
    return entries


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("not a finite number")
    return number


_parse_json = json.JSONDecoder(object_pairs_hook=_once, parse_float=_finite, parse_constant=_finite).decode
_parse_syntax = json.JSONDecoder(parse_int=str, parse_float=str).decode


def parse_value(text: str) -> object:
    """Return the value of a piece of JSON that may stand in a data file.

    Raises ValueError, in words where the JSON is valid and yet refused here.
    """
    try:
        value: object = _parse_json(text)
    except RecursionError as error:
        raise ValueError(f"nested more than {_MAX_DEPTH} levels deep") from error
    may_be_deep = text.count("{") + text.count("[") > _MAX_DEPTH
    if may_be_deep or ("\\u" in text and any(escape.lastgroup for escape in _ESCAPE.finditer(text))):
        for _, message, _ in _refusals(text):
            raise ValueError(message)
    return value


def _parse_line(line: bytes) -> dict[str, object] | None:
    """Return the line's object, or None when anything is wrong with it: this way is the fast one."""
    try:
        row = parse_value(line.decode())
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _line_findings(line: bytes, path: str, number: int, start: int) -> list[Finding]:
    """Return what is wrong with a line that could not be taken; start: its first byte in the file."""
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        column = len(line[: error.start].decode()) + 1
        return [undecodable(error, path, number, column, start + error.start)]
    try:
        value = _parse_syntax(text)
    except json.JSONDecodeError as error:
        offset = start + len(text[: error.pos].encode())
        message, hint = _json_words(error, offset)
        return [Finding(path, number, error.pos + 1, message, hint)]
    except RecursionError:
        value = {}
    if not isinstance(value, dict):
        column = len(text) - len(text.lstrip()) + 1
        return [Finding(path, number, column, "this line is no JSON object", 'write {"id": …}')]
    found = [Finding(path, number, at + 1, message, hint) for at, message, hint in _refusals(text)]
    # Never pass over a line in silence: int() may have been told to give up earlier than we do.
    return found or [Finding(path, number, 1, "a number too long, or too many levels, for this Python")]


_JSON_PROBLEMS = {
    "Expecting value": "a value was expected here",
    "Expecting property name": "a key in double quotes was expected here",
    "Expecting ':'": "a ':' was expected here",
    "Expecting ','": "a ',' was expected here",
    "Unterminated string": "this text is never closed",
    "Invalid control character": "a line break, tab or other control character inside a text",
    "Invalid \\": "an unknown escape",
    "Extra data": "more than one value on a line",
    "Illegal trailing comma": "a comma with nothing after it",
}


def _json_words(error: json.JSONDecodeError, offset: int) -> tuple[str, str]:
    words = (words for start, words in _JSON_PROBLEMS.items() if error.msg.startswith(start))
    message = next(words, error.msg)
    if error.doc[error.pos : error.pos + 1] == "\0":
        return f"a NUL byte (byte {offset})", "remove it, or save the file as UTF-8"
    stopped_at_end = not error.doc[error.pos :].strip() or error.msg.startswith("Unterminated")
    if stopped_at_end and not error.doc.endswith("\n"):
        return f"half a line: {message}", "the file ends here; was writing it cut off?"
    return message, "one JSON object a line"


_JSON_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[{}\[\]]|[^\s"{}\[\],:]+')
_JSON_COLON = re.compile(r"[ \t\n\r]*:")
_ESCAPE = re.compile(
    r"\\(?:\\|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F]|(?P<half>u[dD][89a-fA-F])|(?P<nul>u0000))"
)

Refusal = tuple[int, str, str]


def _refusals(text: str) -> Iterator[Refusal]:
    """Yield place, message and hint for what a line of valid JSON may not hold here."""
    keys: list[set[str]] = []
    for token in _JSON_TOKEN.finditer(text):
        word, at = token[0], token.start()
        if word in "{[":
            keys.append(set())
            if len(keys) > _MAX_DEPTH:
                yield at, f"nested more than {_MAX_DEPTH} levels deep", "flatten it, or keep it as text"
                return
        elif word in "}]":
            keys.pop()
        elif word[0] != '"':
            yield from _refused_number(word, at)
        else:
            yield from _refused_escapes(word, at)
            if _JSON_COLON.match(text, token.end()):
                name = json.loads(word)
                if name in keys[-1]:
                    yield at, f"the key {brief(name)} stands twice in one object", "keep one"
                keys[-1].add(name)


def _refused_number(word: str, at: int) -> Iterator[Refusal]:
    digits = word.lstrip("-")
    if word in ("true", "false", "null"):
        return
    if digits.isdigit():
        if len(digits) > _MAX_DIGITS:
            message = f"a whole number of {len(digits):,} digits; at most {_MAX_DIGITS:,}"
            yield at, message, "for text, use quotes"
    elif not math.isfinite(float(word)):
        yield at, f"{brief(word)}: infinity and NaN are refused", "write null for a value that is absent"


def _refused_escapes(word: str, at: int) -> Iterator[Refusal]:
    if "\\u" not in word:
        return
    for escape in _ESCAPE.finditer(word):
        place = at + escape.start()
        if escape["half"]:
            yield place, "half a surrogate pair is no character", "write the character itself, or remove it"
        elif escape["nul"]:
            yield place, "text with a NUL character", "remove \\u0000: databases cannot store it"
