"""What is missing is named with its fix, and looking changes nothing."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from llmops.cli.doctor import diagnose_sqlite
from tests.cli.command import llmops

MODEL = "models: {judge: {provider: openai, model: m, endpoint_env: JUDGE_URL, api_key_env: JUDGE_KEY}}\n"
AZURE = "{provider: azure_inference, model: m, endpoint_env: AZURE_URL, api_key_env: AZURE_KEY}"
AZURE_SET = {"AZURE_URL": "https://r.services.ai.azure.com/models", "AZURE_KEY": "k-0123456789"}


def diagnoses(root: Path, **more: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Return the exit code, and each diagnosis by what was looked at."""
    done = llmops("doctor", "--json", cwd=root, more=more)
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert len({one["what"] for one in found}) == len(found)
    return done.returncode, {one["what"]: one for one in found}


def test_a_new_project_lacks_nothing_and_nothing_is_made(tmp_path: Path, git: Callable[..., str]) -> None:
    llmops("init", cwd=tmp_path)
    git("init", "-q")
    before = set(tmp_path.rglob("*"))
    done = llmops("doctor", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert set(tmp_path.rglob("*")) == before
    lines = done.stdout.splitlines()
    assert f"ok       project: {tmp_path}" in lines
    assert "ok       model default: embedded" in lines
    assert "ok       store: sqlite:///.llmops/store.db, made by the first run" in lines
    assert f"ok       tracking: sqlite:///{tmp_path}/mlflow.db" in lines
    assert not [line for line in lines if line.startswith("missing")]
    assert [line for line in lines if line.startswith(("ok       sqlite", "warning  sqlite"))]


def test_json_gives_every_diagnosis_with_its_state(project: Callable[..., Path]) -> None:
    code, found = diagnoses(project())
    assert code == 0
    assert {
        "python",
        "sqlite",
        "git",
        "mlflow",
        "project",
        "llmops.yaml",
        "store",
        "tracking",
    } <= found.keys()
    assert {one["state"] for one in found.values()} <= {"ok", "warning"}
    assert all(set(one) == {"what", "state", "detail", "fix"} for one in found.values())
    assert found["history"]["fix"] == "git init"


def test_outside_a_project_the_fix_is_to_start_one(tmp_path: Path) -> None:
    done = llmops("doctor", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout.endswith("missing  project: no llmops.yaml here or above\n         fix: llmops init\n")


@pytest.mark.parametrize("empty", ["", "  "])
def test_variables_that_are_missing_or_empty_are_named(empty: str, project: Callable[..., Path]) -> None:
    code, found = diagnoses(project({"llmops.yaml": MODEL}), JUDGE_KEY=empty)
    assert code == 2
    assert found["model judge"] == {
        "what": "model judge",
        "state": "missing",
        "detail": "JUDGE_URL and JUDGE_KEY not set",
        "fix": "export JUDGE_URL=... JUDGE_KEY=...",
    }


def test_a_variable_in_dotenv_is_there_and_never_shown(project: Callable[..., Path]) -> None:
    root = project(
        {"llmops.yaml": MODEL, ".env": "JUDGE_URL=https://judge.example/v1\nJUDGE_KEY=k-0123456789\n"}
    )
    done = llmops("doctor", cwd=root)
    assert done.returncode == 0
    assert "ok       model judge: openai\n" in done.stdout
    assert "0123456789" not in done.stdout


def test_a_model_that_cannot_be_opened_is_told_with_what_to_do(project: Callable[..., Path]) -> None:
    root = project(
        {
            "llmops.yaml": "models:\n"
            "  far: {provider: openai, model: m, endpoint: 'https://far.example/v1', api_key_env: FAR_KEY}\n"
            "  odd: {provider: opnai, model: m}\n"
        }
    )
    code, found = diagnoses(root, FAR_KEY="k-0123456789")
    assert code == 2
    assert "a host that only files name" in found["model far"]["detail"]
    assert "LLMOPS_SECRET_HOSTS=far.example" in found["model far"]["fix"]
    assert found["model odd"]["fix"] == "did you mean 'openai'?"


def test_a_broken_project_file_is_told_with_its_line(project: Callable[..., Path]) -> None:
    root = project({"llmops.yaml": 'modles: {}\n"\\e]0;owned\\a\\e[2J": 1\n'})
    done = llmops("doctor", cwd=root)
    assert done.returncode == 2
    assert "missing  llmops.yaml: llmops.yaml:1:1: " in done.stdout
    assert "'models'" in done.stdout
    assert "llmops check" in done.stdout
    assert "\x1b" not in done.stdout


def test_a_server_that_is_not_there_is_a_warning(project: Callable[..., Path]) -> None:
    code, found = diagnoses(project(), MLFLOW_TRACKING_URI="http://lead:s3cret-word@127.0.0.1:1")
    assert code == 0
    assert found["tracking"]["state"] == "warning"
    assert "http://127.0.0.1:1 cannot be reached" in found["tracking"]["detail"]
    assert found["tracking"]["fix"] == "start it, then llmops sync"
    assert "s3cret" not in str(found)


def test_a_tracking_address_that_is_none_is_missing(project: Callable[..., Path]) -> None:
    code, found = diagnoses(project({"llmops.yaml": "tracking: {uri: mlruns}\n"}))
    assert code == 2
    assert found["tracking"]["state"] == "missing"
    assert found["tracking"]["fix"] == "write sqlite:///mlflow.db or the address of a server"


def test_the_retired_sdk_is_told_once_with_where_to_move(project: Callable[..., Path]) -> None:
    root = project({"llmops.yaml": f"models:\n  nemo: {AZURE}\n  large: {AZURE}\n"})
    done = llmops("doctor", cwd=root, more=AZURE_SET)
    assert done.returncode == 0
    assert done.stdout.count("2026-08-26") == 1
    assert "services.ai.azure.com/openai/v1" in done.stdout
    assert "2026-08-26" not in llmops("doctor", cwd=project({"llmops.yaml": ""})).stdout


def test_a_damaged_store_and_a_newer_one_are_told_and_left_alone(project: Callable[..., Path]) -> None:
    root = project({".llmops/store.db": b"no database at all" * 100})
    code, found = diagnoses(root)
    assert code == 2
    assert "nothing was overwritten" in found["store"]["fix"]
    assert (root / ".llmops" / "store.db").read_bytes() == b"no database at all" * 100

    (root / ".llmops" / "store.db").unlink()
    with closing(sqlite3.connect(root / ".llmops" / "store.db")) as connection, connection:
        for table in ("alembic_version (version_num)", "cells (x)", "calls (x)"):
            connection.execute(f"CREATE TABLE {table}")
        connection.execute("INSERT INTO alembic_version VALUES ('v9999')")
    before = (root / ".llmops" / "store.db").read_bytes()
    code, found = diagnoses(root)
    assert code == 2
    assert "v9999" in found["store"]["detail"]
    assert found["store"]["fix"].startswith("update llmops")
    assert (root / ".llmops" / "store.db").read_bytes() == before


def test_a_machine_without_git_is_told_what_does_not_work(project: Callable[..., Path]) -> None:
    code, found = diagnoses(project(), PATH="/nowhere")
    assert code == 0
    assert (found["git"]["state"], found["git"]["fix"]) == ("warning", "install git")


@pytest.mark.parametrize(
    ("version", "state"),
    [
        ((3, 6, 23), "ok"),
        ((3, 7, 0), "warning"),
        ((3, 44, 5), "warning"),
        ((3, 44, 6), "ok"),
        ((3, 45, 0), "warning"),
        ((3, 50, 6), "warning"),
        ((3, 50, 7), "ok"),
        ((3, 51, 2), "warning"),
        ((3, 51, 3), "ok"),
        ((3, 52, 0), "ok"),
        ((4, 0, 0), "ok"),
    ],
)
def test_versions_of_sqlite_that_can_lose_a_write_are_warned_of(version: tuple[int, ...], state: str) -> None:
    found = diagnose_sqlite(version)
    assert found.state == state
    assert (found.fix is None) == (state == "ok")
