"""Stores: records go in and come back. The journal is the truth of a run; MLflow is its mirror.

The journal lies in a database: one file a kind, imported when first used.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from llmops.definitions.kinds import Kinds
from llmops.errors import StoreError

if TYPE_CHECKING:
    from llmops.stores.base import Database

DATABASES: Mapping[str, str] = {
    "postgresql": "llmops.stores.postgresql:PostgreSQL",
    "sqlite": "llmops.stores.sqlite:SQLite",
}
_ALIASES: Mapping[str, str] = {"postgres": "postgresql"}
_KINDS = Kinds("database", "llmops.databases", DATABASES)


def open_database(url: str, *, root: Path, environment: Mapping[str, str] | None = None) -> Database:
    """Return the database of a URL; nothing is connected to or made yet.

    root: where a relative path starts. environment: where a password may stand; nothing else is read from it.

    Raises StoreError when the URL is malformed, UsageError when its database is of no known kind.
    """
    scheme, found, _ = url.partition("://")
    if not found:
        raise StoreError(f"store: {url!r} is no database URL; write sqlite:///PATH or postgresql://HOST/NAME")
    name = scheme.partition("+")[0]
    database: Database = _KINDS.load(_ALIASES.get(name, name))(url, root=root, environment=environment or {})
    return database


def has_store(url: str, *, root: Path, environment: Mapping[str, str] | None = None) -> bool:
    """Say whether there is a store behind a URL; nothing is made or changed.

    Raises StoreError when the database cannot be used or holds something else.
    """
    database = open_database(url, root=root, environment=environment)
    try:
        return database.found_revision() is not None
    finally:
        database.close()
