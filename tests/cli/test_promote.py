"""`llmops promote` on a real MLflow server: the file first, the alias after it, and any drift between them told."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from llmops.records import Outcome
from tests.cli.inside import Done, llmops_inside
from tests.faults.mlflow_server import MlflowServer, mlflow_server
from tests.promoted import CHAIN, Scene

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow"),
    pytest.mark.filterwarnings("ignore::FutureWarning:mlflow"),
]
NOBODY = "http://127.0.0.1:1"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def promoted(scene: Scene, *arguments: str, uri: str = NOBODY, name: str = "sort") -> Done:
    more = {
        "MLFLOW_TRACKING_URI": uri,
        "GIT_COMMITTER_NAME": "Bob",
        "GIT_COMMITTER_EMAIL": "bob@example.invalid",
    }
    return llmops_inside("promote", name, "--to", "production", *arguments, cwd=scene.root, more=more)


def diagnosed(scene: Scene, uri: str) -> dict[str, Any]:
    done = llmops_inside("doctor", "--json", cwd=scene.root, more={"MLFLOW_TRACKING_URI": uri})
    return {one["what"]: one for one in json.loads(done.stdout)}


def client(server: MlflowServer) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(server.uri)


def changed_in(server: MlflowServer, old: str, new: str) -> int:
    """Change the text of prompts behind MLflow's back and return how many tags that were."""
    with closing(sqlite3.connect(server.database)) as database, database:
        query = "UPDATE model_version_tags SET value = replace(value, ?, ?) WHERE key = 'mlflow.prompt.text'"
        return database.execute(f"{query} AND value LIKE ?", (old, new, f"%{old}%")).rowcount


def test_promotion_rollback_and_repair_on_a_real_server(scene: Scene, server: MlflowServer) -> None:
    scene.pass_gate()
    done = promoted(scene, "--stage", "staff", "--reason", "short answers", uri=server.uri)
    assert (done.returncode, done.stderr) == (0, "")
    assert "stage: staff (only our own people get its outputs)" in done.stdout
    assert "approved by Bob <bob@example.invalid>" in done.stdout
    assert "in MLflow: version 1" in done.stdout
    first = client(server).get_prompt_version_by_alias("sort", "production")
    line = json.loads(scene.releases.read_bytes())
    assert first.tags["llmops.sha256"] == line["identity"]
    assert first.tags["llmops.release.production"] == line["hash"]

    scene.edit("one word only", "a single word")
    scene.pass_gate()
    assert promoted(scene, uri=server.uri).returncode == 0
    assert str(client(server).get_prompt_version_by_alias("sort", "production").version) == "2"
    assert diagnosed(scene, server.uri)["alias prompts/sort@production"]["state"] == "ok"

    back = promoted(scene, "--rollback", "--reason", "too terse", "--json", uri=server.uri)
    record = json.loads(back.stdout)
    assert (record["release"]["action"], record["release"]["reason"]) == ("rollback", "too terse")
    assert record["mlflow"] == {"where": "version 1", "drift": None, "error": None}

    client(server).set_prompt_alias("sort", "production", 2)
    told = diagnosed(scene, server.uri)["alias prompts/sort@production"]
    assert told["state"] == "warning"
    assert "production points at version 2" in told["detail"]
    assert told["fix"] == "llmops promote prompts/sort --to production --repair"
    n_lines = len(scene.releases.read_bytes().splitlines())
    repaired = promoted(scene, "--repair", uri=server.uri)
    assert repaired.returncode == 0
    assert "note: MLflow had drifted from experiments/releases.jsonl" in repaired.stderr
    assert str(client(server).get_prompt_version_by_alias("sort", "production").version) == "1"
    assert len(scene.releases.read_bytes().splitlines()) == n_lines


def test_a_published_prompt_with_another_text_is_drift(scene: Scene, server: MlflowServer) -> None:
    prompt = (scene.root / "prompts/sort.prompt.yaml").read_text(encoding="utf-8")
    prompt = prompt.replace(
        "one word only", "one last word{# a note #}{% if not ticket %} or none{% endif %}"
    )
    scene.write("prompts/edited.prompt.yaml", prompt)
    scene.edit("prompt: sort", "prompt: edited", "experiments/sort.experiment.yaml")
    scene.pass_gate()
    assert promoted(scene, uri=server.uri, name="edited").returncode == 0
    for old, new, told in (
        ("last", "lost", "for case c0 it becomes something else"),
        ("or none", "or more", "message 1 differs"),
        ("{# a note #}", "{# a n\u00f6te #}", "message 1 differs"),
        ("{% if", "{% iff", "for case c0 it becomes something else"),
    ):
        assert changed_in(server, old, new) == 1
        done = promoted(scene, "--repair", uri=server.uri, name="edited")
        assert done.returncode == 1
        assert "MLflow is not what experiments/releases.jsonl says: version 1 has another text" in done.stderr
        assert told in done.stderr
        found = diagnosed(scene, server.uri)["alias prompts/edited@production"]
        assert (found["state"], "another text" in found["detail"]) == ("warning", True)
        assert changed_in(server, new, old) == 1
    assert promoted(scene, "--repair", uri=server.uri, name="edited").returncode == 0


def test_a_chain_is_pointed_at_by_a_tag_of_its_model(scene: Scene, server: MlflowServer) -> None:
    scene.write("chains/label.chain.yaml", CHAIN)
    scene.edit("plain: {prompt: sort}", "plain: {chain: label}", "experiments/sort.experiment.yaml")
    scene.pass_gate()
    early = promoted(scene, uri=server.uri, name="label")
    assert early.returncode == 3
    assert "not in MLflow yet" in early.stderr and "llmops sync" in early.stderr
    assert llmops_inside("sync", cwd=scene.root, more={"MLFLOW_TRACKING_URI": server.uri}).returncode == 0
    done = promoted(scene, "--repair", uri=server.uri, name="label")
    assert (done.returncode, done.stderr) == (0, "")
    assert "in MLflow: model m-" in done.stdout

    first = scene.releases.read_bytes()
    scene.write(
        "chains/label.chain.yaml",
        CHAIN.replace("id: label", "id: word").replace("label.output", "word.output"),
    )
    scene.pass_gate()
    assert llmops_inside("sync", cwd=scene.root, more={"MLFLOW_TRACKING_URI": server.uri}).returncode == 0
    assert promoted(scene, uri=server.uri, name="label").returncode == 0
    assert scene.releases.read_bytes().startswith(first)
    assert promoted(scene, "--rollback", "--reason", "worse", uri=server.uri, name="label").returncode == 0
    assert diagnosed(scene, server.uri)["alias chains/label@production"]["state"] == "ok"


def test_without_mlflow_the_release_stands_and_its_alias_comes_later(scene: Scene) -> None:
    scene.pass_gate()
    done = promoted(scene)
    assert done.returncode == 3
    assert done.stdout.startswith("prompts/sort@production is ")
    assert "written to experiments/releases.jsonl: commit it" in done.stdout
    assert "not in MLflow yet" in done.stderr
    assert "`llmops promote prompts/sort --to production --repair` does it later" in done.stderr
    assert diagnosed(scene, NOBODY)["aliases"]["state"] == "warning"
    again = promoted(scene, "--json")
    assert (again.returncode, json.loads(again.stdout)["is_new"]) == (3, False)
    assert len(scene.releases.read_bytes().splitlines()) == 1


@pytest.mark.parametrize(("outcome", "code"), [(Outcome.FAIL, 1), (Outcome.INCONCLUSIVE, 6)])
def test_the_exit_code_says_what_the_verdict_said(scene: Scene, outcome: Outcome, code: int) -> None:
    scene.judge(scene.run(), outcome)
    done = promoted(scene)
    assert (done.returncode, done.stdout) == (code, "")
    assert not scene.releases.exists()


def test_wrong_usage_is_told(scene: Scene) -> None:
    for arguments, told in (
        (("--rollback", "--stage", "staff", "--reason", "x"), "--rollback takes what was released before"),
        (("--stage", "nobody"), "'nobody' is not one of"),
        (("--repair",), "no such alias"),
        (("--rollback",), "--reason"),
    ):
        done = promoted(scene, *arguments)
        assert done.returncode == 2
        assert told in done.stderr


def test_a_file_that_was_tampered_with_is_told_by_check_and_doctor(scene: Scene) -> None:
    scene.pass_gate()
    promoted(scene)
    data = scene.releases.read_bytes()
    scene.releases.write_bytes(data.replace(b"Bob", b"Bib"))
    checked = llmops_inside("check", cwd=scene.root)
    assert checked.returncode == 2
    assert "experiments/releases.jsonl:1: this line was changed after it was written" in checked.stdout
    found = diagnosed(scene, NOBODY)["releases"]
    assert (found["state"], found["detail"].startswith("experiments/releases.jsonl:1:")) == ("missing", True)
