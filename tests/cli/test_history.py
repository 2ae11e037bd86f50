"""`llmops report NAME --history`: what ran under a name, from this journal and from an MLflow that several share."""

from __future__ import annotations

import json
import shutil
import socket
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import llmops
from tests.cli.inside import Done, llmops_inside
from tests.mirrored_run import empty_database

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow"),
    pytest.mark.filterwarnings("ignore::FutureWarning:mlflow"),
]
PROMPT = "prompts/guest_mood.prompt.yaml"
ALONE = ": the journal's history alone\n"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a project in which one experiment has run, and which MLflow knows nothing of. Not to be changed: copy it."""
    root = tmp_path_factory.mktemp("ran")
    assert llmops_inside("init", cwd=root).returncode == 0
    run(root)
    return root


@pytest.fixture
def root(ran: Path, tmp_path: Path) -> Path:
    return shutil.copytree(ran, tmp_path / "project")


def run(root: Path, *arguments: str, more: dict[str, str] | None = None) -> None:
    done = llmops_inside("run", "review_mood", "--no-sync", *arguments, cwd=root, more=more)
    assert done.returncode == 0, done.stderr


def edit(root: Path, path: str, old: str, new: str) -> None:
    text = (root / path).read_text(encoding="utf-8")
    assert old in text
    (root / path).write_text(text.replace(old, new), encoding="utf-8")


def sync(root: Path, more: dict[str, str]) -> None:
    done = llmops_inside("sync", cwd=root, more=more)
    assert done.returncode == 0, done.stderr


def history(root: Path, *arguments: str, more: dict[str, str] | None = None) -> Done:
    return llmops_inside("report", "--history", *arguments, cwd=root, more=more)


def lines(done: Done) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["lines"]
    return found


def files_of(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


# --- two people -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Two:
    """The projects of two people, each of whom ran something and delivered it to the same MLflow."""

    anna: Path
    ben: Path
    database: Path

    @property
    def mlflow(self) -> dict[str, str]:
        return {"MLFLOW_TRACKING_URI": f"sqlite:///{self.database}"}


@pytest.fixture(scope="module")
def delivered(ran: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of two people. Not to be changed: copy it."""
    folder = tmp_path_factory.mktemp("two")
    two = Two(folder / "anna", folder / "ben", folder / "shared.db")
    two.database.write_bytes(empty_database())
    shutil.copytree(ran, two.anna)
    shutil.copytree(ran, two.ben, ignore=shutil.ignore_patterns(".llmops"))
    sync(two.anna, two.mlflow | {"LOGNAME": "anna"})
    edit(two.ben, PROMPT, "Answer", "Reply")
    run(two.ben)
    sync(two.ben, two.mlflow | {"LOGNAME": "ben"})
    return folder


@pytest.fixture
def two(delivered: Path, tmp_path: Path) -> Two:
    folder = shutil.copytree(delivered, tmp_path / "two", ignore=shutil.ignore_patterns("mlartifacts"))
    return Two(folder / "anna", folder / "ben", folder / "shared.db")


def test_each_of_two_people_sees_the_runs_of_both(two: Two) -> None:
    seen = [lines(history(root, "review_mood", "--json", more=two.mlflow)) for root in (two.anna, two.ben)]
    for found in seen:
        assert [line["user"] for line in found] == ["ben", "ben", "anna", "anna"]
        assert [line["changed"] for line in found] == [["prompt"], ["prompt"], ["first"], ["first"]]
        assert [line["numbers"]["guest_mood"] for line in found] == ["2", "2", "1", "1"]
    both, other = ["MLflow", "journal"], ["MLflow"]
    assert [[line["sources"] for line in found] for found in seen] == [
        [other, other, both, both],
        [both, both, other, other],
    ]
    alike = (
        "run_id",
        "variant",
        "identity",
        "definition_identity",
        "readings",
        "dataset_version",
        "cost_usd",
        "status",
    )
    assert [[line[key] for key in alike] for line in seen[0]] == [
        [line[key] for key in alike] for line in seen[1]
    ]


def test_the_table_names_who_ran_it_and_where_it_is_found(two: Two) -> None:
    done = history(two.anna, "review_mood", more=two.mlflow)
    assert (done.returncode, done.stderr) == (0, "")
    assert "experiments/review_mood: 4 lines of 2 runs, newest first" in done.stdout
    assert "anna  both" in done.stdout and "ben   MLflow" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_without_a_journal_mlflow_tells_it_alone_and_nothing_is_made(two: Two, tmp_path: Path) -> None:
    ci = shutil.copytree(two.anna, tmp_path / "ci", ignore=shutil.ignore_patterns(".llmops"))
    before = files_of(ci)
    done = history(ci, "prompts/guest_mood", "--json", more=two.mlflow)
    assert [line["sources"] for line in lines(done)] == [["MLflow"]] * 4
    assert files_of(ci) == before


def test_hostile_tags_of_another_are_inert_in_table_and_page(two: Two) -> None:
    hostile = "a|b\t\x1b]0;owned\x07\x1b[31m\u202e<script>alert(1)</script>"
    with closing(sqlite3.connect(two.database)) as database:
        keys = "('llmops.status', 'mlflow.user', 'mlflow.source.git.commit', 'llmops.variant')"
        database.execute(f"UPDATE tags SET value = ? WHERE key IN {keys}", [hostile])  # noqa: S608
        database.commit()
    done = history(two.ben, "review_mood", "--html", "page.html", more=two.mlflow)
    assert done.returncode == 0, done.stderr
    page = (two.ben / "page.html").read_text(encoding="utf-8")
    assert not {"\x1b", "\x07", "\t", "\u202e"} & set(done.stdout)
    assert not {"\x1b", "\x07", "\u202e"} & set(page)
    assert "<script" not in page
    assert "&lt;script&gt;" in page


# --- MLflow that does not help ----------------------------------------------------------------------------


def test_an_mlflow_that_nobody_has_made_is_said_and_not_made(root: Path) -> None:
    before = files_of(root)
    done = history(root, "review_mood")
    assert done.returncode == 0
    assert done.stderr == f"MLflow at sqlite:///{root}/mlflow.db has no run of experiments/review_mood{ALONE}"
    assert "few-shot" in done.stdout
    assert files_of(root) == before


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("http://127.0.0.1:9", "MLflow at http://127.0.0.1:9 cannot be reached ("),
        ("http://lead:hunter2@127.0.0.1:9/", "MLflow at http://127.0.0.1:9/ cannot be reached ("),
        ("mlruns", "tracking: 'mlruns' is a folder"),
        ("sqlite:///broken.db", "MLflow at sqlite:///"),
        ("sqlite:///shared.db", "has no run of experiments/review_mood"),
    ],
)
def test_an_mlflow_that_is_down_or_empty_is_one_line_and_the_journal_is_shown(
    root: Path, address: str, says: str
) -> None:
    (root / "broken.db").write_bytes(b"no database at all" * 1000)
    (root / "shared.db").write_bytes(empty_database())
    done = history(root, "review_mood", more={"MLFLOW_TRACKING_URI": address})
    assert done.returncode == 0
    assert says in done.stderr and done.stderr.endswith(ALONE)
    assert done.stderr.count("\n") == 1
    assert "hunter2" not in done.stderr
    assert "few-shot" in done.stdout


def test_a_deaf_server_is_waited_for_a_few_seconds(root: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        address = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        done = llmops("report", "review_mood", "--history", cwd=root, more={"MLFLOW_TRACKING_URI": address})
    assert (done.returncode, done.stderr) == (0, f"MLflow has said nothing for 5 s{ALONE}")
    assert "few-shot" in done.stdout


# --- names ------------------------------------------------------------------------------------------------


def test_a_prompt_is_named_with_its_folder_by_its_file_or_bare_where_it_is_clear(root: Path) -> None:
    for name in ("prompts/guest_mood", "guest_mood", PROMPT):
        assert history(root, name).stdout.startswith("prompts/guest_mood: 2 lines of 1 run, newest first")


def test_what_has_no_file_any_more_still_has_a_history(root: Path) -> None:
    (root / "experiments/review_mood.experiment.yaml").unlink()
    (root / PROMPT).unlink()
    assert history(root, "review_mood").stdout.startswith("experiments/review_mood: 2 lines")
    assert history(root, "guest_mood").stdout.startswith("prompts/guest_mood: 2 lines")


def test_a_name_that_several_share_is_asked_for_with_its_folder(root: Path) -> None:
    shutil.copy(root / PROMPT, root / "prompts/review_mood.prompt.yaml")
    done = history(root, "review_mood")
    assert (done.returncode, done.stdout) == (2, "")
    assert "write experiments/review_mood or prompts/review_mood" in done.stderr


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("review_mod", "did you mean 'review_mood'?"),
        ("experiments/nothing-like-it", "there are: prompts/guest_mood, review_mood"),
        ("prompts/guest_mood@production", "a history is that of a name"),
        ("prompts/a' OR '1'='1", "a history is that of a name"),
        ("datasets/reviews", "expected one of experiments, prompts, chains"),
        ("prompts/..", "a history is that of a name"),
    ],
)
def test_a_name_that_is_none_is_told_with_the_nearest(root: Path, name: str, says: str) -> None:
    done = history(root, name)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr


def test_before_anything_has_run_nothing_is_made(tmp_path: Path) -> None:
    llmops_inside("init", cwd=tmp_path)
    before = files_of(tmp_path)
    done = history(tmp_path, "review_mood")
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        "experiments/review_mood has not run, as far as is known here; `llmops run review_mood`"
        in done.stderr
    )
    assert files_of(tmp_path) == before


# --- what is shown and written ----------------------------------------------------------------------------


def test_a_limit_is_obeyed_and_said(root: Path) -> None:
    run(root, "--fresh")
    done = history(root, "review_mood", "--limit", "1")
    assert "1 line of 1 run" in done.stdout
    assert "3 older lines left out: --limit 4 shows them" in done.stdout
    assert len(lines(history(root, "review_mood", "--limit", "3", "--json"))) == 3


def test_a_page_is_written_beside_the_table_or_the_record(root: Path) -> None:
    done = history(root, "review_mood", "--html", "page.html", "--json")
    assert done.stderr.startswith("MLflow at ") and done.stderr.endswith("page written to page.html\n")
    assert len(lines(done)) == 2
    page = (root / "page.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 4 and page.count("</html>") == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--history"], "a history of what?"),
        (["review_mood", "--history", "--rows", "rows.csv"], "name it, without --history"),
        (["review_mood", "--limit", "3"], "add --history"),
        (["review_mood", "--history", "--limit", "0"], "--limit"),
        (["review_mood", "--history", "--html", "nowhere/page.html"], "nowhere/page.html cannot be written"),
    ],
)
def test_what_does_not_fit_together_is_said(root: Path, arguments: list[str], says: str) -> None:
    done = llmops_inside("report", *arguments, cwd=root)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr


def test_only_a_history_pays_for_mlflow(root: Path) -> None:
    done = llmops("report", "review_mood", cwd=root, options=("-X", "importtime"))
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "llmops.report.terminal" in imported
    assert not {"mlflow", "llmops.stores.mlflow", "llmops.cli.history", "llmops.report.html"} & imported
