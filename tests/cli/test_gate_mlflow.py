"""`llmops gate` with a real MLflow server: its faces lead to the cases side by side there, and its run says it all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from llmops.records import Verdict
from tests.cli.inside import llmops_inside
from tests.faults.mlflow_server import MlflowServer, mlflow_server
from tests.gated import HARM, Repository

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow"),
    pytest.mark.filterwarnings("ignore::FutureWarning:mlflow"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


def client(server: MlflowServer) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(server.uri)


def test_every_face_leads_to_both_sides_case_by_case_in_mlflow(tmp_path: Path, server: MlflowServer) -> None:
    repository = Repository(tmp_path)
    repository.edit(*HARM)
    names = ("markdown", "html", "junit")
    files = {name: repository.left(f"verdict.{name}") for name in names}
    more = {"MLFLOW_TRACKING_URI": server.uri}
    options = [word for name, path in files.items() for word in (f"--{name}", str(path))]
    done = llmops_inside("gate", "sort", "--json", *options, cwd=repository.root, more=more)
    verdict = Verdict.model_validate(json.loads(done.stdout))
    assert verdict.link is not None, done.stderr
    head, _, ids = verdict.link.partition("selectedRunUuid=")
    candidate, baseline = ids.split("&compareToRunUuid=")
    assert head.startswith(f"{server.uri}/#/experiments/") and head.endswith("/evaluation-runs?")
    variants = {key: client(server).get_run(key).data.tags["llmops.variant"] for key in (candidate, baseline)}
    assert variants == {candidate: "plain", baseline: "plain@git:main"}
    for name in names:
        assert verdict.link in unescape(files[name].read_text(encoding="utf-8")), name

    run = client(server).get_run(client(server).get_run(candidate).data.tags["mlflow.parentRunId"])
    assert run.data.tags["llmops.gate"] == "fail"
    note = run.data.tags["mlflow.note.content"]
    assert "### sort: fail" in note and "exact\\_match not\\_worse\\_than baseline" in note
    assert f"selectedRunUuid={candidate}&compareToRunUuid={baseline}" in note

    again = llmops_inside("gate", "sort", "--no-sync", cwd=repository.root, more=more)
    assert "case by case in MLflow:" in again.stdout
    assert verdict.link in "".join(line.strip() for line in again.stdout.splitlines())
    with repository.journal() as journal:
        (known, first) = journal.verdicts.of("sort")
    assert known.id == first.id == verdict.id, "where it is seen is no part of what it is"


def test_a_database_without_a_server_is_no_link(tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    done = llmops_inside("gate", "sort", "--json", cwd=repository.root)
    assert json.loads(done.stdout)["link"] is None
    assert "in MLflow: http://127.0.0.1:5000/" in done.stderr
