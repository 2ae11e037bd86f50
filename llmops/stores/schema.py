"""The schema of a store: made as it is now, or brought there from an older one, before anything is read or written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Connection, insert

from llmops.errors import StoreError
from llmops.stores.base import Area
from llmops.stores.tables import METADATA, REVISIONS, STAMP

if TYPE_CHECKING:
    from llmops.stores.base import Database


def bring_up_to_date(database: Database, *, create: bool) -> None:
    """Make a new store where there is none and `create` says so, migrate an older one; raises as `open_journal`."""
    found = _known_revision(database)
    if found is None and not create:
        raise StoreError(f"{database.name}: there is no store here yet; `llmops run` makes one")
    database.prepare()
    if found != REVISIONS[-1]:
        with database.making():
            found = _known_revision(database)  # another process may have been quicker
            _create(database) if found is None else _migrate(database)


def _known_revision(database: Database) -> str | None:
    found = database.found_revision()
    if found is not None and found not in REVISIONS:
        raise StoreError(
            f"{database.name}: its schema {found!r} is newer than {REVISIONS[-1]!r}, the newest this llmops knows; "
            "update llmops, nothing was changed"
        )
    return found


def _create(database: Database) -> None:
    """Make a new store at the newest version, as the migrations would; without them it is there at once."""

    def make(connection: Connection) -> None:
        METADATA.create_all(connection)
        STAMP.create(connection, checkfirst=True)
        connection.execute(insert(STAMP).values(version_num=REVISIONS[-1]))

    database.write(make, Area.RUNS)


def _migrate(database: Database) -> None:
    """Bring the schema to the newest version, by alembic."""
    from llmops.stores.migrations import upgrade

    database.write(upgrade, Area.RUNS)
