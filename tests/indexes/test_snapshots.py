"""What stands outside the project: taken by a run alone, kept whole, and counted by its hash."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from llmops.check import check_workspace, find_workspace_notes
from llmops.definitions.workspace import Workspace, load_workspace
from llmops.errors import StoreError, UsageError
from llmops.indexes import Query, index_version, open_index, queries
from llmops.indexes.snapshots import FOLDER, find_snapshot, indexes_used, take

Project = Callable[..., Path]

SQL = 'sources: [{sql: "SELECT nr AS id, body AS text, lang FROM pages ORDER BY nr", database: data/pages.db}]\n'


def utc_now() -> datetime:
    return datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def root(project: Project) -> Path:
    """Give a project whose index reads a database of two pages."""
    root = project({"chains/indexes/docs.index.yaml": SQL, "data/x": ""})
    fill(root, [(1, "the robin sings", "en"), (2, "der Hecht jagt", "de")])
    return root


def fill(root: Path, rows: list[tuple[object, ...]]) -> None:
    with closing(sqlite3.connect(root / "data/pages.db")) as connection, connection:
        connection.execute("DROP TABLE IF EXISTS pages")
        connection.execute("CREATE TABLE pages (nr, body, lang)")
        connection.executemany("INSERT INTO pages VALUES (?, ?, ?)", rows)


def taken(workspace: Workspace, **environment: str) -> list[str]:
    return list(take(workspace, "docs", environment, utc_now))


def test_before_a_run_nothing_is_taken_and_check_says_so(root: Path) -> None:
    workspace = load_workspace(root)
    assert check_workspace(workspace) == []
    (note,) = find_workspace_notes(workspace, today=date(2026, 1, 1))
    assert (
        note == "docs: nothing has been taken from the query to data/pages.db yet; `llmops run` does so first"
    )
    with pytest.raises(UsageError, match="`llmops run` does so first"):
        open_index(workspace, "docs")
    assert not (root / ".llmops").exists()


def test_what_a_query_gives_is_found_and_said_to_be_of_that_time(root: Path) -> None:
    assert taken(load_workspace(root)) == []
    index = open_index(load_workspace(root), "docs")
    ((passage, _),) = index.find(Query("robin"), 1, {"lang": "en"})
    assert (passage.id, passage.source) == ("1#1", "1")
    (source,) = index.about["sources"]
    assert (source["n_documents"], source["taken_at"]) == (2, "2026-01-02T03:04:05+00:00")
    assert len(source["hash"]) == 64


def test_the_version_changes_with_what_stands_there_and_not_with_the_time(root: Path) -> None:
    taken(load_workspace(root))
    before = index_version(load_workspace(root), "docs")
    list(take(load_workspace(root), "docs", {}, lambda: datetime(2030, 1, 1, tzinfo=UTC)))
    assert index_version(load_workspace(root), "docs") == before
    fill(root, [(1, "the robin sleeps", "en")])
    taken(load_workspace(root))
    assert index_version(load_workspace(root), "docs") != before


def test_what_was_taken_stays_when_it_cannot_be_read_now(root: Path) -> None:
    taken(load_workspace(root))
    (root / "data/pages.db").unlink()
    (note,) = taken(load_workspace(root))
    assert "there is no file data/pages.db; as of 2026-01-02T03:04:05+00:00 it stays" in note
    assert open_index(load_workspace(root), "docs").about["n_documents"] == 2


def test_a_file_that_is_not_what_was_taken_is_refused(root: Path) -> None:
    taken(load_workspace(root))
    (path,) = (root / FOLDER).iterdir()
    path.write_text(path.read_text().replace("robin", "raven"))
    with pytest.raises(StoreError, match="is not what was taken"):
        open_index(load_workspace(root), "docs")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT nope FROM pages", "no such column: nope"),
        ("WITH x AS (SELECT 1) INSERT INTO pages SELECT 1, 2, 3 FROM x", "not authorized"),
        ("SELECT load_extension('x')", "not authorized"),
        ("SELECT 1; DROP TABLE pages", "execute one statement at a time"),
        ("SELECT * FROM pragma_database_list", "not authorized"),
        (
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
            "interrupted",
        ),
    ],
)
def test_a_query_reads_and_does_no_more_and_has_an_end_S16_S18(
    root: Path, monkeypatch: pytest.MonkeyPatch, query: str, said: str
) -> None:
    monkeypatch.setattr(queries, "TIMEOUT_S", 0.5)
    with pytest.raises(UsageError) as caught:
        list(queries.ask_file(root / "data/pages.db", query))
    assert said in str(caught.value)


def test_more_than_memory_bears_is_refused_S18(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "MAX_BYTES", 1000)
    with pytest.raises(UsageError, match="more than 1,000 characters"):
        list(queries.ask_file(root / "data/pages.db", "SELECT printf('%600c', 'x') AS text FROM pages"))


@pytest.mark.parametrize("path", ["/etc/passwd", "../x.db", "data/link.db"])
def test_a_database_outside_the_project_is_not_opened_S06(
    root: Path, tmp_path_factory: pytest.TempPathFactory, path: str
) -> None:
    (root / "data/link.db").symlink_to(tmp_path_factory.mktemp("out") / "x.db")
    text = SQL.replace("data/pages.db", path)
    (root / "chains/indexes/docs.index.yaml").write_text(text)
    (note,) = taken(load_workspace(root))
    assert "is no path inside the project" in note or "leads out of the project" in note


def test_a_url_comes_from_the_environment_and_is_never_told(root: Path) -> None:
    text = SQL.replace("database: data/pages.db", "url_env: DOCS_DB")
    (root / "chains/indexes/docs.index.yaml").write_text(text)
    assert "DOCS_DB is not set" in taken(load_workspace(root))[0]
    for url in ("nonsense", "nosuchdb://user:secretsecret@host/x", f"sqlite:///{root}/no/secretsecret.db"):
        (note,) = taken(load_workspace(root), DOCS_DB=url)
        assert "DOCS_DB" in note and "secretsecret" not in note
    assert taken(load_workspace(root), DOCS_DB=f"sqlite:///{root}/data/pages.db") == []
    assert open_index(load_workspace(root), "docs").about["n_documents"] == 2


def test_values_of_a_database_become_plain(root: Path) -> None:
    fill(root, [(b"x", "text", float("inf")), ("2", "more", 1.5)])
    rows = [row for _, row in queries.ask_file(root / "data/pages.db", "SELECT * FROM pages")]
    assert rows == [{"body": "text", "lang": None}, {"nr": "2", "body": "more", "lang": 1.5}]


def test_a_run_takes_what_its_chains_ask_and_no_more(project: Project) -> None:
    ask = 'inputs: {q: string}\nsteps: [{id: find, retrieve: {index: %s, query: "{{ q }}"}}]\n'
    chain = "inputs: {q: string}\nsteps: [{id: a, chain: inner, with: {q: '{{ q }}'}}]\n"
    experiment = "dataset: d\nvariants: {x: {chain: outer}, y: {chain: outer, set: {a.find.index: three}}}\n"
    indexes = {f"chains/indexes/{name}.index.yaml": SQL for name in ("one", "two", "three", "four")}
    files = {"chains/inner.chain.yaml": ask % "one", "chains/outer.chain.yaml": chain, **indexes}
    workspace = load_workspace(project({**files, "experiments/e.experiment.yaml": experiment}))
    assert indexes_used(workspace, "experiment", "e") == {"one", "three"}
    assert indexes_used(workspace, "chain", "inner") == {"one"}


def test_a_snapshot_says_where_it_came_from(root: Path) -> None:
    workspace = load_workspace(root)
    taken(workspace)
    found = find_snapshot(root, workspace.index("docs").sources[0])
    assert found is not None and found.place == "the query to data/pages.db"
    (path,) = (root / FOLDER).iterdir()
    assert json.loads(path.read_text().splitlines()[0])["hash"] == found.hash
