"""Plain values out as YAML 1.2 that people like to read; `read_yaml` of what is written gives the values back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llmops.definitions.yaml_reader import plain_value

_WIDTH = 100
_LONGEST_KEY = 1_000  # YAML lets a key without a `?` have 1,024 characters
_PLAIN = re.compile(r"[A-Za-z_](?:[A-Za-z0-9_./@()+ -]*[A-Za-z0-9_./@()+])?")
_NOT_SHOWN = re.compile("[\x7f-\xa0\u2028\u2029\ufeff\ufffe\uffff]")
_BLOCK = re.compile("[^ \\t\\n\\r\x00-\x08\x0b-\x1f\x7f-\xa0\u2028\u2029\ufeff\ufffe\uffff]"
                    "[^\\t\\r\x00-\x08\x0b-\x1f\x7f-\xa0\u2028\u2029\ufeff\ufffe\uffff]*")  # fmt: skip


def write_yaml(value: Mapping[str, Any], heading: str = "") -> str:
    """Return a mapping as a YAML file. heading: a comment on its first line."""
    lines = list(_entries(value, 0))
    return "\n".join([*([f"# {heading}"] if heading else []), *(lines or ["{}"])]) + "\n"


def _entries(value: Mapping[str, Any], indent: int) -> Iterator[str]:
    for key, item in value.items():
        name = _scalar(key)
        if len(name) < _LONGEST_KEY:
            yield from _led(f"{' ' * indent}{name}:", item, indent + 2)
        else:
            yield f"{' ' * indent}? {name}"
            yield from _led(f"{' ' * indent}:", item, indent + 2)


def _items(value: Sequence[Any], indent: int) -> Iterator[str]:
    for item in value:
        head = f"{' ' * indent}-"
        if isinstance(item, Mapping) and item and not _inline(item, len(head)):
            first, *rest = _entries(item, indent + 2)
            yield f"{head} {first.lstrip(' ')}"
            yield from rest
        else:
            yield from _led(head, item, indent + 2)


def _led(head: str, value: Any, indent: int) -> Iterator[str]:
    """Yield a value after the head of its line, or below it."""
    if isinstance(value, str) and (block := _block(value, indent)):
        yield f"{head} {block[0]}"
        yield from block[1:]
    elif short := _inline(value, len(head)):
        yield f"{head} {short}"
    else:
        yield head
        yield from (_entries if isinstance(value, Mapping) else _items)(value, indent)


def _block(text: str, indent: int) -> list[str]:
    """Return a text of several lines as a literal block; nothing where it is none."""
    if "\n" not in text.rstrip("\n") or text.endswith("\n\n") or not _BLOCK.fullmatch(text):
        return []
    sign = "|" if text.endswith("\n") else "|-"
    lines = text.removesuffix("\n").split("\n")
    return [sign, *(f"{' ' * indent}{line}" if line else "" for line in lines)]


def _inline(value: Any, before: int) -> str:
    """Return a value on one line; nothing where it does not fit on it."""
    if not isinstance(value, Mapping | list | tuple):
        return _scalar(value)
    text = _flow(value)
    return text if not value or before + len(text) < _WIDTH else ""


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        is_text = _PLAIN.fullmatch(value) and len(value) < _WIDTH and plain_value(value) is value
        return value if is_text else _quoted(value)
    return repr(value) if isinstance(value, float) else json.dumps(value)


def _quoted(text: str) -> str:
    quoted = json.dumps(text, ensure_ascii=False)
    return _NOT_SHOWN.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted)
