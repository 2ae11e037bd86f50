"""YAML in, plain values with positions out: YAML 1.2 core, and of that only what a definition needs.

Whatever a file can do wrong ends here as a `DefinitionError` whose findings a person can act on. What the
values mean is left to the models.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import yaml

from llmops.definitions.documents import (
    BOM,
    Document,
    Mark,
    brief,
    kind_of,
    other_encoding,
    refusal,
    undecodable,
)
from llmops.errors import DefinitionError, Finding

_MAX_BYTES = 8_000_000
_MAX_DEPTH = 50
_MAX_ALIASES = 100
_MAX_VALUES = 500_000  # what a walk would meet: keys too, and an alias as often as it stands
_MAX_DIGITS = 4_000

_ONE_DEFINITION = "one file holds one definition"
_QUOTE_TEMPLATES = 'text with {{ }} stands in quotes: "{{ ticket }}"'


def read_yaml(text: bytes, path: str) -> Document:
    """Return the one document of a YAML 1.2 file, core schema, with the position of each part.

    Only plain trees pass: keys are text and stand once, no tags, no merge keys, no NaN or infinity, few
    aliases. Raises DefinitionError with all that could be seen to be wrong.
    """
    source = _decoded(text, path)
    restore, shielded = _shield_breaks(source)
    assembly = _Assembly(path, restore)
    # Events rather than nodes: nothing recursive stands between a hostile file and the caps, the stop comes
    # at once, and no resolver of YAML 1.1 runs (20,000 items: 0.15 s of parsing, against 1.5 s for compose).
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        for event in yaml.parse(shielded, loader):
            assembly.take(event)
    except yaml.MarkedYAMLError as error:
        assembly.findings.append(_yaml_finding(error, source, path))
    except _StopReading:
        pass
    if assembly.findings:
        raise refusal(assembly.findings)
    if assembly.root is None:
        message, hint = "the file is empty", "write a definition, or remove the file"
        raise DefinitionError(Finding(path, 1, 1, message, hint))
    return Document(path, assembly.root.value, assembly.root.mark)


def _shield_breaks(text: str) -> tuple[dict[int, str], str]:
    """Return the text with stand-ins for three characters that break lines in YAML 1.1 and not in 1.2."""
    breaks = [c for c in "\x85\u2028\u2029" if c in text]
    if not breaks:
        return {}, text
    used = set(text)
    free = (chr(code) for code in range(0xF0000, 0x10FFFE) if chr(code) not in used)
    pairs = dict(zip(breaks, free, strict=False))
    restore = {ord(stand_in): original for original, stand_in in pairs.items()}
    return restore, text.translate({ord(original): stand_in for original, stand_in in pairs.items()})


class _StopReading(Exception):
    """A cap was passed: nothing after this place is read."""


class _Node(NamedTuple):
    """A finished value. height: levels inside it. size: values in it, itself included."""

    value: object
    mark: Mark
    height: int = 0
    size: int = 1


@dataclass(slots=True)
class _Open:
    """A list or mapping whose end has not come yet; `key` waits for its value."""

    value: Any
    marks: Any
    start: tuple[int, int]
    anchor: str | None
    n_before: int
    height: int = 0
    key: tuple[str, Mark] | None = None

    def awaits_key(self) -> bool:
        return self.key is None and isinstance(self.value, dict)


def _start(event: yaml.Event) -> tuple[int, int]:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)


class _Assembly:
    """The value of one document, put together event by event."""

    def __init__(self, path: str, restore: dict[int, str]) -> None:
        self.path = path
        self.restore = restore
        self.findings: list[Finding] = []
        self.root: _Node | None = None
        self._open: list[_Open] = []
        self._anchors: dict[str, _Node | None] = {}  # None while the value is still open
        self._n_documents = self._n_values = self._n_aliases = 0

    def take(self, event: yaml.Event) -> None:
        match event:
            case yaml.ScalarEvent():
                self._take_scalar(event)
            case yaml.CollectionStartEvent():
                self._take_start(event)
            case yaml.CollectionEndEvent():
                self._take_end()
            case yaml.AliasEvent():
                self._take_alias(event)
            case yaml.DocumentStartEvent():
                self._n_documents += 1
                if self._n_documents > 1:
                    self._stop(event, "a second document starts here", _ONE_DEFINITION)

    def _say(self, at: tuple[int, int], message: str, hint: str) -> None:
        self.findings.append(Finding(self.path, *at, message, hint))

    def _stop(self, event: yaml.Event, message: str, hint: str) -> NoReturn:
        self._say(_start(event), message, hint)
        raise _StopReading

    def _count(self, event: yaml.Event, size: int, depth: int) -> None:
        self._n_values += size
        if self._n_values > _MAX_VALUES:
            what = f"more than {_MAX_VALUES:,} values, aliases counted as often as they stand"
            self._stop(event, what, "keep cases in datasets/NAME.jsonl, and write repeated parts once")
        if depth > _MAX_DEPTH:
            self._stop(event, f"nested more than {_MAX_DEPTH} levels deep", "split or flatten the file")

    def _refuse_tag(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent) -> None:
        if event.tag is not None:
            tag = brief(event.tag.replace("tag:yaml.org,2002:", "!!"))
            self._say(_start(event), f"the tag {tag} is not allowed", "remove it; for text, use quotes")

    def _take_start(self, event: yaml.CollectionStartEvent) -> None:
        self._refuse_tag(event)
        n_before = self._n_values
        self._count(event, 1, len(self._open) + 1)
        if event.anchor:
            self._anchors[event.anchor] = None
        kind = list if isinstance(event, yaml.SequenceStartEvent) else dict
        self._open.append(_Open(kind(), kind(), _start(event), event.anchor, n_before))

    def _take_end(self) -> None:
        closed = self._open.pop()
        mark = Mark(*closed.start, closed.marks)
        node = _Node(closed.value, mark, closed.height + 1, self._n_values - closed.n_before)
        self._attach(node, closed.anchor)

    def _take_alias(self, event: yaml.AliasEvent) -> None:
        name = f"*{event.anchor}"
        self._n_aliases += 1
        if self._n_aliases > _MAX_ALIASES:
            self._stop(event, f"more than {_MAX_ALIASES} aliases", "write the values out")
        if event.anchor not in self._anchors:
            self._stop(event, f"{name} refers to nothing above it", f'for text, use quotes: "{name}"')
        node = self._anchors[event.anchor]
        if node is None:
            self._stop(event, f"{name} refers to a value that it is itself a part of", "write the value out")
        self._count(event, node.size, len(self._open) + node.height)
        self._attach(node._replace(mark=Mark(*_start(event), node.mark.inside)), None)

    def _take_scalar(self, event: yaml.ScalarEvent) -> None:
        self._refuse_tag(event)
        self._count(event, 1, 0)
        at = _start(event)
        text = event.value.translate(self.restore) if self.restore else event.value
        value = text if event.style else self._plain(text, at)
        if "\0" in text:
            self._say(at, "text with a NUL character", "remove \\0: databases cannot store it")
        if value is not None or text or self._open:  # else nothing but comments
            self._attach(_Node(value, Mark(*at)), event.anchor)

    def _plain(self, text: str, at: tuple[int, int]) -> object:
        """Return what a scalar without quotes means where it stands."""
        try:
            value = plain_value(text)
        except ValueError as error:
            self._say(at, str(error), "for text, use quotes")
            return text
        if not self._open or not self._open[-1].awaits_key():
            return value
        if text == "<<":
            self._say(at, "merge keys (<<) are not part of YAML 1.2", "write the keys out")
        elif not isinstance(value, str):
            self._say(at, f"the key {brief(text)} is not text", f'write it in quotes: "{text}"')
        return text

    def _attach(self, node: _Node, anchor: str | None) -> None:
        if anchor:
            self._anchors[anchor] = node
        if not self._open:
            self.root = node
            return
        top = self._open[-1]
        top.height = max(top.height, node.height)
        if top.awaits_key():
            top.key = self._key(top, node)
        elif top.key is None:
            top.value.append(node.value)
            top.marks.append(node.mark)
        else:
            name, mark = top.key
            top.key = None
            top.value[name] = node.value
            top.marks[name] = mark._replace(inside=node.mark.inside)

    def _key(self, top: _Open, node: _Node) -> tuple[str, Mark]:
        at, key = (node.mark.line, node.mark.column), node.value
        if not isinstance(key, str):
            hint = _QUOTE_TEMPLATES if isinstance(key, dict) else "write the key as text"
            self._say(at, f"a key is text, not {kind_of(key)}", hint)
            return "", node.mark
        if key in top.marks:
            first: Mark = top.marks[key]
            hint = f"the first is on line {first.line}, column {first.column}; keep one"
            self._say(at, f"the key {brief(key)} stands twice", hint)
        return key, node.mark


_CONSTANTS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INT = re.compile(r"[-+]?[0-9]+")
_OCTAL_OR_HEX = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")


def plain_value(text: str) -> object:
    """Return what a scalar without quotes means: YAML 1.2.2, section 10.3.2.

    Raises ValueError for a number that cannot be kept exactly or is none.
    """
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if text[0] not in "0123456789+-.":
        return text
    is_int = _INT.fullmatch(text)
    if is_int or _OCTAL_OR_HEX.fullmatch(text):
        limit = _MAX_DIGITS if is_int else _MAX_DIGITS // 2  # a hex digit says more
        if len(text) > limit:
            raise ValueError(f"a whole number of {len(text):,} digits; at most {limit:,}")
        return int(text) if is_int else int(text, 0)
    if _NOT_FINITE.fullmatch(text):
        raise ValueError(f"{text} is no number to work with: infinity and NaN are refused")
    if not _FLOAT.fullmatch(text):
        return text
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{brief(text)} is too large for a number")
    return number


_TAB = ("a tab is used as indentation", "indent with spaces")
_KEY = ("a key was expected here", "check the indentation and the quotes here and above")
_COLON = ("a ':' where no key can stand", "put text with ': ' in quotes, or check the indentation")
_AT_START = ("found unexpected end of stream", "did not find expected ',' or")
_YAML_PROBLEMS = {
    "found a tab character": _TAB,
    "mapping values are not allowed": _COLON,
    "expected node content": ("a value was expected here", "is a bracket open above? quote text like ] } ,"),
    "did not find expected key": _KEY,
    "expected <block end>": _KEY,
    "did not find expected '-'": ("an item starting with '- ' was expected here", "check the indentation"),
    "did not find expected ',' or": ("this bracket is not closed, or lacks a comma", "look inside it"),
    "found unexpected end of stream": ("this quote is never closed", "close it, or double quotes in text"),
    "found unknown escape": ("an unknown escape", "use single quotes for text with backslashes"),
    "found invalid Unicode": ("an escape that names no character", "write the character itself"),
    "<document start>": ("text after the end of the definition", _ONE_DEFINITION),
    "block sequence entries": ("a list cannot start here", "start it on a line of its own"),
    "could not find expected ':'": ("a key without its ':'", "write 'key: value'"),
}


def _yaml_finding(error: yaml.MarkedYAMLError, source: str, path: str) -> Finding:
    """Return the parser's complaint in words that tell what to do."""
    problem = error.problem or str(error)
    at = error.context_mark if problem.startswith(_AT_START) and error.context_mark else error.problem_mark
    if at is None:
        return Finding(path, None, None, problem)
    words = (words for part, words in _YAML_PROBLEMS.items() if part in problem)
    message, hint = next(words, (problem, None))
    if "cannot start any token" in problem:
        first = source[at.index : at.index + 1]
        message, hint = _TAB if first == "\t" else (f"text cannot start with {first!r}", "put it in quotes")
    line = re.split(r"\r\n?|\n", source)[at.line : at.line + 1]
    if line and "{{" in line[0]:
        hint = _QUOTE_TEMPLATES
    return Finding(path, at.line + 1, at.column + 1, message, hint)


def _place(before: str) -> tuple[int, int]:
    """Return the line and column that follow a piece of text."""
    lines = re.split(r"\r\n?|\n", before)
    return len(lines), len(lines[-1]) + 1


_NOT_TEXT = re.compile("[^\t\n\r -~\x85\xa0-\ufffd\U00010000-\U0010ffff]")  # YAML 1.2, production c-printable


def _decoded(data: bytes, path: str) -> str:
    if len(data) > _MAX_BYTES:
        message = f"the file has {len(data):,} bytes; a definition has at most {_MAX_BYTES:,}"
        raise DefinitionError(Finding(path, None, None, message, "keep cases in datasets/NAME.jsonl"))
    foreign = other_encoding(data, path)
    if foreign:
        raise DefinitionError(foreign)
    start = len(BOM) if data.startswith(BOM) else 0
    try:
        text = data[start:].decode()
    except UnicodeDecodeError as error:
        at = _place(error.object[: error.start].decode())
        raise DefinitionError(undecodable(error, path, *at, start + error.start)) from error
    control = _NOT_TEXT.search(text)
    if control:
        before = text[: control.start()]
        offset = start + len(before.encode())
        message = f"the control character U+{ord(control[0]):04X} (byte {offset}) is not text"
        raise DefinitionError(Finding(path, *_place(before), message, "remove it"))
    return text
