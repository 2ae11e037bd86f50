"""The secrets of this process, and the one scrub that keeps them out of whatever it writes.

A value is registered where it is read: keys and passwords with the environment, tokens as they are fetched. Every
sink calls `scrub`. The registry belongs to the process, as the environment and the standard streams do: whoever
prints or stores need not be handed it, so nobody can forget to pass it on.
"""

from __future__ import annotations

import base64
import html
import json
import re
import traceback
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus, unquote, urlsplit

from llmops.errors import causes

MASK = "***"
SHORTEST_SECRET = 8  # a stand-in key such as "test" is no secret, and masking it would spoil replies
SHORTEST_WORD = 16  # of letters or digits alone: all guess "password", and texts and numbers hold it

VARIABLES = (
    "ACTIONS_RUNTIME_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_CLIENT_CERTIFICATE_PASSWORD",
    "AZURE_CLIENT_SECRET",
    "AZURE_PASSWORD",
    "AZURE_STORAGE_ACCESS_KEY",
    "DATABRICKS_CLIENT_SECRET",
    "DATABRICKS_TOKEN",
    "GITHUB_TOKEN",
    "GH_TOKEN",
    "IDENTITY_HEADER",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "OPENAI_API_KEY",
    "PGPASSWORD",
)
"""Whose values are secret by their names alone. Those that llmops.yaml names are registered beside them."""

_CREDENTIALS = re.compile(r"://[^/?#\s]*:[^/?#\s]*@")
_IN_A_URL = re.compile(r"://[^/?#@\s]+@")
_UNRESERVED = re.compile(r"[A-Za-z0-9_.~-]+")


class Secret:
    """A key or token that never shows itself: `repr` says where it comes from. Making one registers it."""

    __slots__ = ("origin", "value")

    def __init__(self, origin: str, value: str) -> None:
        self.origin = origin
        self.value = value
        register(value)

    def __repr__(self) -> str:
        return f"Secret({self.origin})"


# By value: what each spelling has in common, and the spellings that hold it, the longest first.
_known: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {}


def register(*values: str | None) -> None:
    """Let `scrub` mask values from now on; one that is no secret, because anybody would guess it, is left out."""
    for value in values:
        if value and value not in _known and _is_secret(value):
            _known[value] = _by_core(value)


def register_environment(environment: Mapping[str, str], names: Iterable[str | None] = ()) -> None:
    """Register what an environment holds: the well-known variables, those named, and passwords in addresses."""
    register(*(environment.get(name) for name in (*VARIABLES, *filter(None, names))))
    for value in environment.values():
        if _CREDENTIALS.search(value):
            register_address(value)


def register_address(url: str) -> None:
    """Register the password of an address, and what it becomes in a header."""
    try:
        parts = urlsplit(url)
        user, password = parts.username or "", parts.password
    except ValueError:
        return
    if password:
        password = unquote(password)
        if _is_secret(password):  # what a header has of it first: it holds the other
            register(f"{unquote(user)}:{password}", password)


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment for a child process that needs none of the secrets registered so far."""
    return {name: value for name, value in environment.items() if scrub(value) == value}


def scrub(text: str) -> str:
    """Return text with every secret masked, as it is and as URLs, JSON, HTML, base64 and hex spell it."""
    if not _known:  # called a score of times a cell
        return text
    for spelled in tuple(_known.values()):
        for core, spellings in spelled:
            if core in text:
                for spelling in spellings:
                    text = text.replace(spelling, MASK)
    return text


def scrub_bytes(data: bytes) -> bytes:
    """Return bytes with every secret masked, in every spelling that `scrub` knows."""
    for spelled in tuple(_known.values()):
        for core, spellings in spelled:
            if core.encode() in data:
                for spelling in spellings:
                    data = data.replace(spelling.encode(), MASK.encode())
    return data


def scrub_data(value: Any) -> Any:
    """Return plain data with every text in it scrubbed, names of fields too."""
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, dict):
        return {scrub_data(key): scrub_data(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [scrub_data(item) for item in value]
    return value


def scrub_json(text: str) -> str:
    """Return JSON scrubbed value by value: within its text, a secret with a quote in it might reach over two."""
    return text if scrub(text) == text else json.dumps(scrub_data(json.loads(text)))


def scrub_told(text: str) -> str:
    """Return what an error says, scrubbed, and no address in it with its user: weak passwords go there too."""
    return _IN_A_URL.sub(f"://{MASK}@", scrub(text))


def clean_cause(error: BaseException) -> BaseException | None:
    """Return an error as the cause of another, None when it or any behind it tells a secret, its `repr` included."""
    told = "".join((*traceback.format_exception(error), *map(repr, causes(error))))
    return error if scrub(told) == told else None


def _is_secret(value: str) -> bool:
    is_mixed = len({character.isalpha() for character in value}) == 2
    return len(value) >= (SHORTEST_SECRET if is_mixed else SHORTEST_WORD)


def _by_core(value: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return the spellings by a part that they share, so that text without it is looked through only once."""
    core = max(_UNRESERVED.findall(value), key=len, default=value)
    groups: dict[str, set[str]] = {}
    for spelling in set(_spellings(value)):
        groups.setdefault(core if core in spelling else spelling, set()).add(spelling)
    return tuple((core, tuple(sorted(found, key=len, reverse=True))) for core, found in groups.items())


def _spellings(value: str) -> Iterator[str]:
    in_json = json.dumps(value)[1:-1]
    texts = [value, html.escape(value), in_json, in_json.replace("/", "\\/")]
    for quoted in (quote(value), quote(value, safe=""), quote_plus(value)):
        texts += [quoted, re.sub("%..", lambda match: match[0].lower(), quoted)]
    for text in texts:
        yield from (text, json.dumps(text)[1:-1])  # as it is, and within JSON that is text in JSON
    yield from (value.encode().hex(), value.encode().hex().upper())
    for offset in range(3):
        yield from _inside_base64(value.encode(), offset)


def _inside_base64(value: bytes, offset: int) -> Iterator[str]:
    """Yield what base64 makes of the value when it starts `offset` bytes into a group of three."""
    padded = b"\0" * offset + value
    first = (offset * 8 + 5) // 6
    last = len(padded) * 8 // 6
    yield base64.b64encode(padded).decode()[first:last]
    yield base64.urlsafe_b64encode(padded).decode()[first:last]
