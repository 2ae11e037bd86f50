"""The shell of the steps, run as a runner does: real bash, real git, and stand-ins for programs that are not there."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.ci.files import ACTION, ROOT, STARTED, read, step, workflow

STAND_IN = """#!/usr/bin/env bash
echo "$(basename "$0") $*" >>"$TOLD"
[ "$1" = gate ] && echo "::error::text that a model wrote" >/dev/null
[ "$1" = gate ] && [ -n "${WRITES:-}" ] && mkdir -p .llmops && echo more >>.llmops/store.db
[ "$(basename "$0")" = gh ] && echo "$APPROVED"
case $1 in gate | promote) exit "${CODE:-0}" ;; check) exit "${CHECK:-0}" ;; esac
"""
"""Writes down how it was called, and ends as it is told."""


@dataclass
class Runner:
    """A runner in a folder of its own. told: how the stand-ins were called."""

    root: Path
    variables: dict[str, str]

    @property
    def told(self) -> list[str]:
        path = self.root / "told.txt"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def gated(self) -> str:
        """How `llmops gate` was called."""
        (line,) = (line for line in self.told if line.startswith("llmops gate"))
        return line

    def outputs(self) -> dict[str, str]:
        lines = (self.root / "output.txt").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def run(self, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.root / "project",
            env={**self.variables, **more},
            capture_output=True,
            encoding="utf-8",
            check=False,
        )

    def gate(self, **more: str) -> subprocess.CompletedProcess[str]:
        """Run the action's own step, with its inputs at rest unless given."""
        inputs = dict.fromkeys(("EXPERIMENTS", "CHANGED_SINCE", "REPLAY", "BASE_BRANCH"), "")
        inputs |= {"SEQUENTIAL": "false", "FORK": "false", "REPORTS": str(self.root / "reports")}
        return self.run("bash", str(ACTION / "gate.sh"), **(inputs | more))

    def script(self, found: Mapping[str, Any], **more: str) -> subprocess.CompletedProcess[str]:
        """Run the `run` of a step as GitHub does."""
        return self.run("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", found["run"], **more)


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    """Give a runner whose project is a git repository of one commit."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "project").mkdir()
    for name in ("llmops", "gh"):
        (tmp_path / "bin" / name).write_text(STAND_IN)
        (tmp_path / "bin" / name).chmod(0o755)
    variables = {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "RUNNER_TEMP": str(tmp_path / "temp"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "TOLD": str(tmp_path / "told.txt"),
        "APPROVED": "",
        **{f"GITHUB_{name}": str(tmp_path / f"{name.lower()}.txt") for name in ("OUTPUT", "STEP_SUMMARY")},
        "GITHUB_REPOSITORY": "owner/project",
        "GITHUB_RUN_ID": "99",
        "GITHUB_RUN_ATTEMPT": "1",
    }
    found = Runner(tmp_path, variables)
    for command in (
        ("init", "-q", "-b", "topic"),
        ("config", "user.name", "T"),
        ("config", "user.email", "t@example.invalid"),
        ("commit", "-q", "--allow-empty", "-m", "first"),
    ):
        assert found.run("git", *command).returncode == 0
    return found


# --- gate.sh ------------------------------------------------------------------------------------------------


def test_the_files_are_checked_and_then_everything_is_judged(runner: Runner) -> None:
    done = runner.gate()
    reports = runner.root / "reports"
    assert runner.told == [
        "llmops check",
        f"llmops gate --annotations --junit {reports}/junit.xml --markdown {reports}/comment.md"
        f" --html {reports}/report.html --",
    ]
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert runner.outputs() == {"exit-code": "0", "merge": "0", "store": "unchanged"}


def test_inputs_become_options_and_a_name_is_never_one(runner: Runner) -> None:
    runner.gate(
        EXPERIMENTS="triage\n  --json $(id) *", CHANGED_SINCE="HEAD", SEQUENTIAL="true", REPLAY="only"
    )
    options = runner.gated
    assert options.endswith(" --changed-since HEAD --sequential --replay only -- triage --json $(id) *")


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 5, 6])
def test_the_job_ends_as_llmops_did(runner: Runner, code: int) -> None:
    runner.gate(CODE=str(code))
    assert (runner.outputs()["exit-code"], runner.outputs()["merge"]) == (str(code), str(code))


def test_broken_files_are_judged_by_no_gate(runner: Runner) -> None:
    runner.gate(CHECK="2")
    assert runner.told == ["llmops check"]
    assert runner.outputs()["merge"] == "2"


@pytest.mark.parametrize(
    ("code", "merge", "says"),
    [
        (0, 0, "::notice"),
        (1, 1, ""),
        (2, 2, ""),
        (3, 0, "NOT JUDGED"),
        (4, 0, "NOT JUDGED"),
        (5, 5, ""),
        (6, 0, "NOT JUDGED"),
    ],
)
def test_a_fork_gates_by_recordings_and_is_not_held_for_what_they_lack_F80(
    runner: Runner, code: int, merge: int, says: str
) -> None:
    done = runner.gate(FORK="true", CODE=str(code))
    assert " --replay only --" in runner.gated
    assert runner.outputs() | {"store": ""} == {"exit-code": str(code), "merge": str(merge), "store": ""}
    assert says in done.stdout
    assert bool(says) == bool(done.stdout), "never a silent pass"


def test_a_base_that_is_gone_or_not_in_the_clone_means_that_all_is_judged_F83_F84(runner: Runner) -> None:
    done = runner.gate(CHANGED_SINCE="f" * 40)
    assert "--changed-since" not in runner.gated
    assert "every experiment is judged" in done.stdout


@pytest.mark.parametrize("revision", ["--upload-pack=touch here", "-h", "HEAD; touch here"])
def test_a_revision_that_is_none_is_no_option_of_git(runner: Runner, revision: str) -> None:
    assert runner.gate(CHANGED_SINCE=revision).returncode == 0
    assert "--changed-since" not in runner.gated
    assert not (runner.root / "project" / "here").exists()


def test_without_git_at_all_the_gate_still_runs_F84(runner: Runner) -> None:
    subprocess.run(["rm", "-r", str(runner.root / "project" / ".git")], check=True)
    runner.gate(CHANGED_SINCE="HEAD", BASE_BRANCH="main", GIT_CEILING_DIRECTORIES=str(runner.root))
    assert runner.outputs()["merge"] == "0"
    assert "--changed-since" not in runner.gated


def test_the_base_branch_is_found_by_its_own_name_as_baselines_ask_for_it_F84(runner: Runner) -> None:
    runner.run("git", "update-ref", "refs/remotes/origin/main", "HEAD")
    runner.run("git", "checkout", "-q", "--detach")
    runner.gate(BASE_BRANCH="main")
    assert runner.run("git", "rev-parse", "main").stdout == runner.run("git", "rev-parse", "HEAD").stdout


def test_a_branch_that_is_there_is_left_where_it_is(runner: Runner) -> None:
    runner.run("git", "branch", "main")
    before = runner.run("git", "rev-parse", "main").stdout
    runner.run("git", "commit", "-q", "--allow-empty", "-m", "second")
    runner.run("git", "update-ref", "refs/remotes/origin/main", "HEAD")
    runner.gate(BASE_BRANCH="main")
    assert runner.run("git", "rev-parse", "main").stdout == before


def test_a_damaged_store_is_left_out_and_a_whole_one_is_kept_F87(runner: Runner) -> None:
    store = runner.root / "project" / ".llmops" / "store.db"
    store.parent.mkdir()
    with sqlite3.connect(store) as connection:
        connection.execute("create table kept (x)")
        connection.executemany("insert into kept values (?)", [("x" * 100,)] * 1_000)
    connection.close()
    assert runner.gate().stdout == ""
    whole = store.read_bytes()
    store.write_bytes(whole[:8192] + b"\xff" * 8192 + whole[16384:])
    assert "damaged" in runner.gate().stdout
    assert not store.exists()


def test_a_store_that_did_not_change_is_not_written_again(runner: Runner) -> None:
    runner.gate()
    assert runner.outputs()["store"] == "unchanged"
    runner.gate(WRITES="yes")
    assert runner.outputs()["store"] == "changed"


def test_the_last_step_blocks_also_when_the_gate_was_cut_off_F85(runner: Runner) -> None:
    last = step(read(ACTION / "action.yml"), "Pass or block")
    assert [runner.script(last, CODE=code).returncode for code in ("0", "1", "6", "")] == [0, 1, 6, 3]


# --- install.sh ---------------------------------------------------------------------------------------------

PYTHON = """#!/usr/bin/env bash
echo "$*" >>"$TOLD"
if [ "$2" = venv ]; then mkdir -p "$3/bin" && cp "$0" "$3/bin/python"; fi
"""


def test_every_library_is_installed_by_its_hash_and_llmops_from_beside_the_action(runner: Runner) -> None:
    python = runner.root / "bin" / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    done = runner.run("bash", str(ACTION / "install.sh"), GITHUB_PATH=str(runner.root / "path.txt"))
    assert done.returncode == 0, done.stderr
    made, libraries, own = runner.told
    venv = f"{runner.variables['RUNNER_TEMP']}/llmops-venv"
    assert made == f"-m venv {venv}"
    assert libraries.endswith(f"--require-hashes -r {ROOT}/requirements.lock")
    assert own.endswith(f"--no-deps --no-build-isolation {ROOT}")
    assert (runner.root / "path.txt").read_text() == f"{venv}/bin\n"


# --- what `llmops init` writes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fork", "code", "merge"),
    [("false", 0, 0), ("false", 3, 3), ("true", 1, 1), ("true", 3, 0), ("true", 6, 0)],
)
def test_the_gate_of_a_new_project_blocks_as_the_action_does_F80(
    runner: Runner, fork: str, code: int, merge: int
) -> None:
    done = runner.script(step(read(STARTED), "Judge"), FORK=fork, SINCE="HEAD", CODE=str(code))
    assert done.returncode == merge
    assert "--changed-since HEAD" in runner.gated
    assert ("--replay only" in runner.gated) is (fork == "true")
    assert ("NOT JUDGED" in done.stdout) is (code != merge)


# --- promote.yml --------------------------------------------------------------------------------------------

ASKED = {
    "NAME": "triage",
    "ALIAS": "production",
    "VARIANT": "",
    "STAGE": "staff",
    "REASON": "--why $(id)",
    "ROLLBACK": "false",
    "APPROVER": "ann",
}


def test_who_approved_is_asked_of_github_and_nobody_is_refused(runner: Runner) -> None:
    approval = step(workflow("promote"), "Ask who approved")
    assert runner.script(approval).returncode == 1
    assert runner.script(approval, APPROVED="ann").returncode == 0
    assert runner.outputs() == {"who": "ann"}
    assert "repos/owner/project/actions/runs/99/approvals" in runner.told[-1]


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({}, "--stage=staff"),
        ({"VARIANT": "long"}, "--stage=staff --variant=long"),
        ({"ROLLBACK": "true", "VARIANT": "long"}, "--rollback"),
    ],
    ids=["promotion", "one variant", "rollback"],
)
def test_what_was_asked_is_what_promote_is_told(
    runner: Runner, changes: dict[str, str], options: str
) -> None:
    assert runner.script(step(workflow("promote"), "Promote"), **(ASKED | changes)).returncode == 0
    assert runner.told == [
        f"llmops promote --to=production --reason=--why $(id) --approver=ann {options} -- triage"
    ]


@pytest.mark.parametrize(("code", "ends"), [(0, 0), (1, 1), (2, 2), (3, 0), (6, 6)])
def test_a_release_stands_when_mlflow_is_down_and_falls_when_it_is_refused(
    runner: Runner, code: int, ends: int
) -> None:
    assert runner.script(step(workflow("promote"), "Promote"), **ASKED, CODE=str(code)).returncode == ends


@pytest.fixture
def released(runner: Runner) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the last step on a file of releases that was handed over, beside the one of the default branch."""
    project = runner.root / "project"
    runner.run("git", "init", "-q", "--bare", str(runner.root / "origin"))
    runner.run("git", "remote", "add", "origin", str(runner.root / "origin"))

    def publish(before: str, after: str) -> subprocess.CompletedProcess[str]:
        (project / "experiments").mkdir(exist_ok=True)
        (project / "experiments" / "releases.jsonl").write_text(before)
        runner.run("git", "add", "-A")
        runner.run("git", "commit", "-qm", "before")
        handed = Path(runner.variables["RUNNER_TEMP"]) / "releases"
        handed.mkdir(parents=True)
        (handed / "releases.jsonl").write_text(after)
        return runner.script(
            step(workflow("promote"), "Push the new line as a branch"), **ASKED, GH_TOKEN="t"
        )

    return publish


LINE = json.dumps({"line": 1}) + "\n"


def pushed(runner: Runner) -> str:
    return runner.run(
        "git", "-C", str(runner.root / "origin"), "show", "releases/99-1:experiments/releases.jsonl"
    ).stdout


@pytest.mark.parametrize("before", ["", LINE])
def test_a_new_line_is_pushed_as_a_branch_of_its_own(
    runner: Runner, released: Callable[..., subprocess.CompletedProcess[str]], before: str
) -> None:
    done = released(before, before + '{"line": 2}\n')
    assert done.returncode == 0, done.stderr
    assert pushed(runner) == before + '{"line": 2}\n'
    assert "releases/99-1" in (runner.root / "step_summary.txt").read_text()


@pytest.mark.parametrize("after", ["", '{"line": 9}\n{"line": 2}\n', LINE[:-1]])
def test_lines_that_were_changed_or_lost_are_never_pushed(
    runner: Runner, released: Callable[..., subprocess.CompletedProcess[str]], after: str
) -> None:
    done = released(LINE, after)
    assert done.returncode == 1
    assert "lines were changed" in done.stdout
    assert pushed(runner) == ""


def test_a_release_that_is_there_already_pushes_nothing(
    runner: Runner, released: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    assert released(LINE, LINE).returncode == 0
    assert pushed(runner) == ""
