"""S07: no secret leaves by any surface, whatever a provider echoes, and the scanner that says so does find some."""

from __future__ import annotations

import gzip
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llmops import secrets
from tests.faults.canary import ENCODINGS, ENDING, KEYS, STREAMED, WAYS, Scan, scan, scan_team
from tests.postgres_server import GUEST, PostgresServer

SURFACES = {
    "run: stdout",
    "run: stderr",
    "tracebacks",
    "sync: stderr",
    "doctor: stdout",
    "check: stdout",
    "render: stdout",
    "report: stdout",
    "compare: stdout",
    "journal",
    "experiments",
    ".html",
    ".jsonl",
    ".csv",
    ".parquet",
    "MLflow database",
    "MLflow artifacts",
}


def test_no_canary_gets_out_on_any_surface_in_any_encoding_S07(tmp_path: Path) -> None:
    found = scan(tmp_path)
    assert found.hits == []
    assert found.surfaces.keys() >= SURFACES
    assert len(found.encodings) >= 6
    assert [way for way in (*WAYS, *STREAMED) if found.echoes[way] < len(ENCODINGS)] == []
    assert [way for way in ENDING if found.echoes[way] < 3] == []
    assert found.echoes["mlflow"] > 0
    assert found.n_cut > 1_000


def test_no_canary_gets_into_the_database_of_a_team_S07(tmp_path: Path, postgres: PostgresServer) -> None:
    database = postgres.new_database().rpartition("/")[2]
    postgres.execute(f"GRANT CREATE ON SCHEMA public TO {GUEST}", database=database)

    def dump() -> bytes:
        command = [str(postgres.programs / "pg_dump"), "--inserts", postgres.url(database)]
        return subprocess.run(command, capture_output=True, check=True).stdout

    found = scan_team(tmp_path, postgres.url(database, GUEST), dump)
    assert found.hits == []
    assert found.surfaces["PostgreSQL"] > 10_000


def test_without_the_scrub_the_scanner_finds_the_canary_everywhere_S07(tmp_path: Path) -> None:
    found = scan(tmp_path, blind=True)
    told = {"run: stdout", "run: stderr", "journal", "experiments", ".html", ".jsonl", ".csv", ".parquet"}
    assert {hit.surface for hit in found.hits} >= told | {"MLflow database", "MLflow artifacts"}
    assert {hit.encoding for hit in found.hits} == set(ENCODINGS)


@pytest.mark.parametrize("secret", KEYS)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_scanner_reads_what_it_is_given_S07(tmp_path: Path, secret: str, encoding: str) -> None:
    planted = f"before {ENCODINGS[encoding](KEYS[secret])} after"
    (tmp_path / "plain.log").write_text(planted)
    (tmp_path / "packed.gz").write_bytes(gzip.compress(planted.encode()))
    pq.write_table(pa.table({"a": ["x", planted]}), tmp_path / "rows.parquet", compression="zstd")
    with closing(sqlite3.connect(tmp_path / "store.db")) as connection:
        connection.execute("CREATE TABLE t (a TEXT, b BLOB)")
        connection.execute("INSERT INTO t VALUES (?, ?)", ("x" * 4_070 + planted, planted.encode()))
        connection.commit()
    for path in tmp_path.iterdir():
        found = Scan()
        found.look_into(path.name, path)
        assert (secret, encoding) in {(hit.secret, hit.encoding) for hit in found.hits}, path.name


def test_the_product_and_the_scanner_know_the_same_spellings_S07() -> None:
    for key in KEYS.values():
        secrets.register(key)
        for encode in ENCODINGS.values():
            found = Scan()
            found.look("x", secrets.scrub_bytes(encode(key).encode()))
            assert found.hits == []
