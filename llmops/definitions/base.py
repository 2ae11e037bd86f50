"""What all definitions share: frozen values, and an identity that changes with meaning only."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, Strict

# YAML says what is a number and what is text; nothing is turned into the other behind the writer's back.
Int = Annotated[int, Strict()]
Float = Annotated[float, Strict()]
Bool = Annotated[bool, Strict()]

NAME_PATTERN = r"^[A-Za-z0-9_.-]+$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
IDENTITY_DIGITS = 12

_encode = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
_NAME = re.compile(r"[A-Za-z0-9_.-]+")


class Definition(BaseModel):
    """Base of all definitions: frozen, unknown keys refused, no NaN or infinity."""

    # Built on first use: most commands never meet most kinds.
    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True, defer_build=True
    )


def is_name(text: str) -> bool:
    """Return whether a text can be the name of a file or of a part of one."""
    return _NAME.fullmatch(text) is not None and text not in {".", ".."}


def canonical(value: object) -> str:
    """Return the canonical JSON of plain data: sorted keys, no spaces, text as it is."""
    return _encode(value)


def identity_of(value: object) -> str:
    """Return the SHA-256 of the canonical JSON of plain data, as 64 hex digits."""
    return hashlib.sha256(canonical(value).encode("utf-8", "surrogatepass")).hexdigest()


def short(identity: str) -> str:
    """Return the twelve digits by which people see an identity."""
    return identity[:IDENTITY_DIGITS]


def without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries that are set, so that an unset key and an absent one mean the same."""
    return {key: value for key, value in values.items() if value is not None}


def meaning_of(definition: Definition, *, without: Collection[str] = ()) -> dict[str, Any]:
    """Return a definition's fields as plain data, by the keys people write; unset ones left out.

    Unlike pydantic's `exclude_none`, a null that somebody wrote inside free data stays: `{const: null}` is
    not `{}`.
    """
    return {
        about.alias or name: _plain(value)
        for name, about in type(definition).model_fields.items()
        if name not in without and (value := getattr(definition, name)) is not None
    }


def _plain(value: object) -> object:
    if isinstance(value, Definition):
        return meaning_of(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
