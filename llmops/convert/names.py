"""Names made of other people's words: files and inputs, safe whatever the words are."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Container

from llmops.definitions.schemas import check_name

_LONGEST = 60
_DEVICES = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?")


def file_name(words: str, *, taken: Container[str] = (), fallback: str = "converted") -> str:
    """Return a name for a file made of words: ASCII letters, digits and `_`, never one that is taken."""
    flat = unicodedata.normalize("NFKD", words).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9]+", "_", flat).strip("_")[:_LONGEST].strip("_") or fallback
    if _DEVICES.fullmatch(name):
        name = f"{name}_"
    return _free(name, taken)


def identifier(words: str, *, taken: Container[str] = ()) -> str:
    """Return a name that templates can look up: the words as they are where they are one."""
    try:
        if words not in taken:
            return check_name(words)
    except ValueError:
        pass
    name = file_name(words, fallback="value")
    if not name[0].isalpha():
        name = f"v_{name}"
    try:
        check_name(name)
    except ValueError:
        name = f"{name}_value"
    return _free(name, taken)


def _free(name: str, taken: Container[str]) -> str:
    number, free = 2, name
    while free in taken:
        free, number = f"{name}_{number}", number + 1
    return free
