"""References between files: `name`, `name/split`, and which version of it by `@`."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import AfterValidator

from llmops.definitions.base import IDENTITY_DIGITS, is_name, short

Kind = Literal["prompt", "chain", "index", "dataset", "experiment"]

FOLDERS: dict[Kind, str] = {
    "prompt": "prompts",
    "index": "chains/indexes",  # before the folder it stands in
    "chain": "chains",
    "dataset": "datasets",
    "experiment": "experiments",
}

_IDENTITY = re.compile(r"[0-9a-f]{12,64}")
_ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_REVISION = re.compile(
    r"[^\s\x00-\x1f\x7f-][^\s\x00-\x1f\x7f]*"
)  # git would take a leading dash for an option


@dataclass(frozen=True, slots=True)
class Reference:
    """A name with its split and the version asked for; at most one of alias, identity, revision is set."""

    name: str
    split: str | None = None
    alias: str | None = None
    identity: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        text = self.name + (f"/{self.split}" if self.split else "")
        if self.revision:
            return f"{text}@git:{self.revision}"
        if self.identity:
            return f"{text}@{short(self.identity)}"
        return f"{text}@{self.alias}" if self.alias else text


def parse_reference(text: str) -> Reference:
    """Return the parts of a reference.

    Raises ValueError saying what a reference looks like.
    """
    path, at, version = text.partition("@")
    name, slash, split = path.partition("/")
    if not all(is_name(part) for part in ((name, split) if slash else (name,))):
        raise ValueError(f"{text!r} is no reference: write name, name/split, name@alias or name@git:REV")
    plain = Reference(name, split or None)
    return _with_version(text, plain, version) if at else plain


def _check_reference(text: str) -> str:
    parse_reference(text)
    return text


ReferenceText = Annotated[str, AfterValidator(_check_reference)]
"""A reference as files hold it."""


def _with_version(text: str, plain: Reference, version: str) -> Reference:
    kind, colon, revision = version.partition(":")
    if colon and kind == "git" and _REVISION.fullmatch(revision):
        return replace(plain, revision=revision)
    if version.isdigit() and len(version) < IDENTITY_DIGITS:
        raise ValueError(
            f"{text!r}: numbers differ between MLflow servers; name an alias, an identity or git:REV"
        )
    if _IDENTITY.fullmatch(version):
        return replace(plain, identity=version)
    if _ALIAS.fullmatch(version):
        return replace(plain, alias=version)
    raise ValueError(f"{text!r}: after @ stands an alias, at least 12 hex digits of an identity, or git:REV")
