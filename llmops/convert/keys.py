"""Keys and passwords in other tools' files: found, registered with the scrub, and never written anywhere."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from llmops.convert.account import leaves
from llmops.secrets import register, register_address

_NAMES = re.compile(
    r"(?:key|secret|token|password|passwd|authorization|credentials?|connection[-_]?string)$",
    re.IGNORECASE,
)
_SHAPES = re.compile(
    r"\b(?:sk|pk|rk)-[A-Za-z0-9_-]{16,}|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_[A-Za-z0-9_]{20,}"
    r"|\bAKIA[0-9A-Z]{16}\b|\bxox[abprs]-[A-Za-z0-9-]{10,}|\bhf_[A-Za-z0-9]{20,}|\bAIza[A-Za-z0-9_-]{30,}"
    r"|\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"
)
_BEARER = re.compile(r"(?:bearer|basic)\s+(\S{8,})", re.IGNORECASE)
_VARIABLES = (
    re.compile(r"\$\{\{?\s*(?:env[:.]|secrets\.)?([A-Za-z_][A-Za-z0-9_]*)(?::[^}]*)?\s*\}\}?"),
    re.compile(r"\{\{\s*env(?:\.|\[['\"])([A-Za-z_][A-Za-z0-9_]*)(?:['\"]\])?\s*\}\}"),
    re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)"),
)


def variable_of(value: object) -> str | None:
    """Return the environment variable that a value stands for, as `${env:NAME}` and its like; None for any other."""
    if not isinstance(value, str):
        return None
    found = (pattern.fullmatch(value.strip()) for pattern in _VARIABLES)
    return next((match[1] for match in found if match), None)


def is_secret_name(name: str) -> bool:
    """Say whether what stands under a name in a configuration is a secret."""
    return _NAMES.search(name) is not None


def register_secrets(value: Any, *, within: Sequence[str] = ()) -> None:
    """Register every text that is a key by its shape, and those under names of keys.

    within: keys of mappings that configure a service; elsewhere `token` may be a word of a case.
    """
    for location in leaves(value):
        leaf = value
        for item in location:
            leaf = leaf[item]
        if not isinstance(leaf, str):
            continue
        register(*_SHAPES.findall(leaf), *_BEARER.findall(leaf))
        if "://" in leaf:
            register_address(leaf)
        names = [str(item) for item in location]
        if names and is_secret_name(names[-1]) and variable_of(leaf) is None and {*names} & {*within}:
            register(leaf)
