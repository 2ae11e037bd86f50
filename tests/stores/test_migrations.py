"""The migrations make what the tables say, and no version goes unnoticed."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from llmops.stores import migrations
from llmops.stores.sqlite import found_revision, open_engine
from llmops.stores.tables import METADATA, REVISIONS
from tests.stores.samples import opened, run_of, store_of


def test_a_migrated_store_is_what_the_tables_say(tmp_path: Path) -> None:
    opened(tmp_path).close()
    engine = open_engine(store_of(tmp_path))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []
    engine.dispose()


def test_the_known_revisions_are_those_of_the_scripts_oldest_first() -> None:
    scripts = ScriptDirectory(str(Path(migrations.__file__).parent))
    assert tuple(script.revision for script in scripts.walk_revisions())[::-1] == REVISIONS


def test_a_new_store_stands_at_the_newest_revision(tmp_path: Path) -> None:
    opened(tmp_path).close()
    assert found_revision(store_of(tmp_path)) == REVISIONS[-1]


def test_migrating_again_changes_nothing(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as journal:
        journal.save_run(run_of())
        journal.migrate()
        assert journal.find_run("r1") == run_of()


def test_a_migration_that_breaks_off_leaves_no_half_of_a_store(tmp_path: Path) -> None:
    path = store_of(tmp_path)
    path.parent.mkdir()
    engine = open_engine(path)
    with engine.connect() as connection, connection.begin() as transaction:
        migrations.upgrade(connection)
        transaction.rollback()
    engine.dispose()
    assert found_revision(path) is None
    with closing(sqlite3.connect(path)) as bare:
        assert bare.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    with closing(opened(tmp_path)) as journal:
        assert journal.runs() == []


def test_the_tables_can_be_made_in_postgresql() -> None:
    dialect: Any = postgresql.psycopg.dialect
    made = [str(CreateTable(table).compile(dialect=dialect())) for table in METADATA.sorted_tables]
    assert len(made) == len(METADATA.tables) == 8
    assert not any("ROWID" in text for text in made)
