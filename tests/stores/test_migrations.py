"""The migrations make what the tables say, and no version goes unnoticed."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from llmops.stores import migrations
from llmops.stores.journal import open_journal
from llmops.stores.sqlite import found_revision, open_engine
from llmops.stores.tables import METADATA, REVISIONS
from tests.stores.samples import opened, run_of, store_of


@pytest.mark.parametrize("made", ["created", "migrated"])
def test_a_store_is_what_the_tables_say_however_it_was_made(tmp_path: Path, made: str) -> None:
    if made == "created":
        opened(tmp_path).close()
    else:
        store_of(tmp_path).parent.mkdir()
    engine = open_engine(store_of(tmp_path))
    with engine.connect() as connection, connection.begin():
        if made == "migrated":
            migrations.upgrade(connection)
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []
        assert context.get_current_revision() == REVISIONS[-1]
    engine.dispose()


def test_a_created_store_is_made_of_the_same_statements_as_a_migrated_one(tmp_path: Path) -> None:
    created = open_journal("sqlite:///created.db", root=tmp_path)
    created.close()
    engine = open_engine(tmp_path / "migrated.db")
    with engine.connect() as connection, connection.begin():
        migrations.upgrade(connection)
    engine.dispose()
    assert columns_of(tmp_path / "created.db") == columns_of(tmp_path / "migrated.db")


def columns_of(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Return what SQLite says of each table's columns and indexes."""
    with closing(sqlite3.connect(path)) as bare:
        tables = [row[0] for row in bare.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            table: bare.execute(f"PRAGMA table_info({table})").fetchall()
            + sorted(row[1:4] for row in bare.execute(f"PRAGMA index_list({table})"))
            for table in sorted(tables)
        }


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
