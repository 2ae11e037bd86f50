"""A project that runs at once, wherever it is started, and never at the cost of what is there."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.cli.command import environment, llmops

ROOT = Path(__file__).parent.parent.parent
STARTER = {
    ".github/workflows/gate.yml",
    ".gitignore",
    "chains/review_card.chain.yaml",
    "chains/review_card.py",
    "datasets/reviews.dataset.yaml",
    "datasets/reviews.jsonl",
    "experiments/review_mood.experiment.yaml",
    "llmops.yaml",
    "prompts/guest_mood.prompt.yaml",
}


def files_of(folder: Path) -> dict[str, bytes]:
    """Return everything below a folder; where a link leads nowhere, where it leads."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else bytes(path.readlink())
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a project as `llmops init` leaves it in the folder where one stands."""
    root = tmp_path_factory.mktemp("started")
    done = llmops("init", cwd=root)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "now: llmops run review_mood"
    assert {line.strip() for line in done.stdout.splitlines()[:-1]} == STARTER
    return root


def test_the_starter_is_written_and_checks(started: Path) -> None:
    assert set(files_of(started)) == STARTER
    done = llmops("check", cwd=started)
    assert (done.returncode, done.stdout) == (0, "ok: 1 prompt, 1 chain, 1 dataset, 1 experiment\n")


def test_the_starter_runs_offline_and_examples_help(started: Path) -> None:
    done = llmops("run", "review_mood", "--no-sync", "--json", cwd=started)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stderr, "no bar and no colour without a terminal"
    run = json.loads(done.stdout)
    assert (run["status"], run["n_cells"], run["n_errors"]) == ("complete", 48, 0)
    right = {variant: figures["exact_match"]["value"] for variant, figures in run["summary"].items()}
    assert right["few-shot"] >= right["zero-shot"] > 1 / 3
    assert run["summary"]["few-shot"]["invalid_rate"]["value"] == 0


def test_the_chain_of_the_starter_runs_on_an_input(started: Path) -> None:
    done = llmops("run", "review_card", "--input", "review=We loved the garden", "--json", cwd=started)
    assert done.returncode == 0, done.stderr
    output = json.loads(done.stdout)["value"]
    assert output["words"] == 4
    assert output["mood"] in {"happy", "unhappy", "mixed"}


def test_a_new_folder_is_made_and_the_next_command_is_one_to_paste(tmp_path: Path) -> None:
    done = llmops("init", "my project/here", cwd=tmp_path)
    assert done.returncode == 0
    assert set(files_of(tmp_path / "my project" / "here")) == STARTER
    assert done.stdout.splitlines()[-1] == "now: cd 'my project/here' && llmops run review_mood"


def test_json_names_what_was_written(tmp_path: Path) -> None:
    done = llmops("init", "new", "--json", cwd=tmp_path)
    assert done.returncode == 0
    record = json.loads(done.stdout)
    assert record["directory"] == "new"
    assert set(record["written"]) == STARTER == set(files_of(tmp_path / "new"))


@pytest.mark.parametrize("name", ["llmops.yaml", "chains/review_card.py", "prompts"])
def test_nothing_is_written_where_one_of_the_files_is_there(name: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine", encoding="utf-8")
    done = llmops("init", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {name} is already there; llmops init overwrites nothing\n"
    assert files_of(tmp_path) == {name: b"mine"}


def test_a_link_that_leads_nowhere_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "llmops.yaml").symlink_to("elsewhere")
    assert llmops("init", cwd=tmp_path).returncode == 2
    assert files_of(tmp_path) == {"llmops.yaml": b"elsewhere"}


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    done = llmops("init", "file/below", cwd=tmp_path)
    assert done.returncode == 2
    assert "Not a directory" in done.stderr
    assert files_of(tmp_path) == {"file": b"mine"}


def test_a_gitignore_that_is_there_stays_and_what_it_lacks_is_told(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("/.llmops\n*.pyc\n", encoding="utf-8")
    done = llmops("init", cwd=tmp_path)
    assert done.returncode == 0
    assert (tmp_path / ".gitignore").read_text(encoding="utf-8") == "/.llmops\n*.pyc\n"
    assert ".gitignore" not in done.stdout
    assert "note: add .env to .gitignore\n" in done.stderr
    assert ".llmops" not in done.stderr
    assert set(files_of(tmp_path)) == STARTER


def test_a_wheel_has_all_that_init_and_a_first_run_need(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    command = [*build, "--disable-pip-version-check", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(command, env=environment(), cwd=tmp_path, check=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "installed")
    starter = {f"llmops/cli/starter/{name.replace('.gitignore', 'gitignore')}" for name in STARTER}
    assert starter | {"llmops/py.typed", "llmops/stores/migrations/env.py"} <= names
    assert not [name for name in names if name.startswith("tests/") or "__pycache__" in name]
    project = tmp_path / "project"
    installed = {"PYTHONPATH": str(tmp_path / "installed")}
    assert llmops("init", "project", cwd=tmp_path, more=installed).returncode == 0
    assert set(files_of(project)) == STARTER
    done = llmops("run", "review_card", "--input", "review=Lovely", cwd=project, more=installed)
    assert done.returncode == 0, done.stderr  # a new journal: its migrations are there too
