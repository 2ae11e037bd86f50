"""The migrations make what the tables say, keep what old stores hold, and no version goes unnoticed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from llmops.errors import StoreError
from llmops.records import CallState
from llmops.stores import migrations, open_database
from llmops.stores.base import Area
from llmops.stores.rows import call_row, score_row, to_json
from llmops.stores.tables import CALLS, METADATA, REVISIONS, RUNS, SCORES
from tests.stores.conftest import Place, place_of
from tests.stores.samples import NOW, answered, call_of, cells_of, run_of, score_of
from tests.stores.test_journal import comparison_of

SCRIPTS = Path(migrations.__file__).parent


@contextmanager
def writing(place: Place) -> Iterator[Connection]:
    """Give a connection within a transaction, to a store that need not be there yet."""
    database = open_database(place.url, root=place.root)
    database.prepare()
    try:
        with database.engine.begin() as connection:
            yield connection
    finally:
        database.close()


def found_revision(place: Place) -> str | None:
    database = open_database(place.url, root=place.root)
    try:
        return database.found_revision()
    finally:
        database.close()


def migrate_to(connection: Connection, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def make(place: Place, how: str) -> None:
    if how == "created":
        place.open().close()
    else:
        with writing(place) as connection:
            migrations.upgrade(connection)


@pytest.mark.parametrize("how", ["created", "migrated"])
def test_a_store_is_what_the_tables_say_however_it_was_made(place: Place, how: str) -> None:
    make(place, how)
    with writing(place) as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, METADATA) == []
        assert context.get_current_revision() == REVISIONS[-1]


def test_a_created_store_has_the_same_columns_keys_and_indexes_as_a_migrated_one(
    place: Place, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> None:
    other = place_of(place.kind, tmp_path_factory.mktemp("migrated"), request)
    make(place, "created")
    make(other, "migrated")
    assert shape_of(place) == shape_of(other)


def shape_of(place: Place) -> dict[str, Any]:
    """Return what the database says of each table, in the order of its columns."""
    with writing(place) as connection:
        found = inspect(connection)
        return {
            table: (
                [{**column, "type": repr(column["type"])} for column in found.get_columns(table)],
                found.get_pk_constraint(table)["constrained_columns"],
                sorted(map(index_text, found.get_indexes(table))),
                sorted(map(str, found.get_foreign_keys(table))),
                sorted(map(str, found.get_unique_constraints(table))),
            )
            for table in sorted(METADATA.tables)
        }


def index_text(index: Mapping[str, Any]) -> str:
    """Return what the database says of an index, its condition in words."""
    options = {name: str(value) for name, value in index.get("dialect_options", {}).items()}
    return str({**index, "dialect_options": options})


def test_the_known_revisions_are_those_of_the_scripts_oldest_first() -> None:
    scripts = ScriptDirectory(str(SCRIPTS))
    assert tuple(script.revision for script in scripts.walk_revisions())[::-1] == REVISIONS


def test_a_new_store_stands_at_the_newest_revision(place: Place) -> None:
    place.open().close()
    assert found_revision(place) == REVISIONS[-1]


def test_migrating_again_changes_nothing(place: Place) -> None:
    with place.another() as journal:
        journal.save_run(run_of())
        journal._database.write(migrations.upgrade, Area.RUNS)
        assert journal.find_run("r1") == run_of()


def test_an_old_store_is_migrated_with_all_it_holds(place: Place) -> None:
    ((cell, case),) = cells_of(1, variants="a")
    run = run_of(comparisons=(comparison_of(), comparison_of()), n_cells=1)
    call = answered(call_of("one"))
    with writing(place) as connection:
        migrate_to(connection, "0001")
        values = {"sequence": 1, "experiment": "triage", "identity": run.identity, "fresh": 0, "revision": 1}
        values |= {"id": "r1", "status": "running", "created_at": NOW.isoformat(), "record": to_json(run)}
        insert(connection, "runs", values)
        insert(connection, "calls", dict(zip(CALLS.c.keys(), call_row(call)[:12], strict=False)))
        score = score_row(cell.cell_id, cell.case_key, score_of())[:10]
        insert(connection, "scores", dict(zip(SCORES.c.keys(), score, strict=False)))
    assert found_revision(place) == "0001"
    with place.another() as journal:
        assert journal.find_run("r1") == run
        assert journal.runs(with_comparisons=False) == [run.model_copy(update={"comparisons": ()})]
        assert journal.find_call(call.id) == call
        journal.begin_run(run_of("r2", n_cells=1), [(cell, case)])
        (row,) = journal.rows("r2")
        assert row.scores == (score_of(),)
    (texts,) = place.execute("SELECT record, comparisons FROM runs WHERE id = 'r1'")
    assert "comparisons" not in json.loads(texts[0])
    assert len(json.loads(texts[1])) == 2
    assert found_revision(place) == REVISIONS[-1]


def insert(connection: Connection, table: str, values: dict[str, Any]) -> None:
    connection.execute(METADATA.tables[table].insert().values(values))


def test_calls_as_they_were_stored_before_there_were_tools_still_read(place: Place) -> None:
    call = answered(call_of("one"))
    with place.another() as journal:
        row = dict(zip(CALLS.c.keys(), call_row(call)[:12], strict=False))
        row["request"] = '{"messages":[{"role":"user","content":"one"}],"parameters":{"temperature":0}}'
        row["reply"] = '{"text":"billing","model":"m-1"}'
        with writing(place) as connection:
            insert(connection, "calls", row)
        found = journal.find_call(call.id)
        assert found == call and found.state is CallState.ANSWERED


def test_a_migration_that_breaks_off_leaves_no_half_of_a_store(place: Place) -> None:
    with pytest.raises(KeyboardInterrupt), writing(place) as connection:
        migrations.upgrade(connection)
        raise KeyboardInterrupt
    assert found_revision(place) is None
    with place.another() as journal:
        assert journal.runs() == []


def test_a_newer_store_is_refused_and_left_as_it_is(place: Place) -> None:
    with place.another() as journal:
        journal.save_run(run_of())
    place.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(
        StoreError, match=rf"'9999' is newer than '{REVISIONS[-1]}'.*; update llmops, nothing was changed"
    ):
        place.open()
    assert place.execute("SELECT count(*) FROM runs")[0][0] == 1


def test_what_is_written_at_once_when_a_store_is_made_is_all_or_nothing(place: Place) -> None:
    database = open_database(place.url, root=place.root)
    database.prepare()

    def half(connection: Connection) -> None:
        RUNS.create(connection)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        database.write(half, Area.RUNS)
    assert database.found_revision() is None
    database.close()
