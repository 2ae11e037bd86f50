"""What the workflows may do: rights, pins, triggers, and that no text of others reaches a shell as code."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmops import __version__
from tests.ci.files import ACTION, ALL, ROOT, STARTED, WORKFLOWS, read, step, steps_of, workflow

EACH = pytest.mark.parametrize("path", ALL, ids=lambda path: path.relative_to(ROOT).as_posix())
EACH_WORKFLOW = pytest.mark.parametrize("path", ALL[:-1], ids=lambda path: path.relative_to(ROOT).as_posix())
SOURCE = "github.event.pull_request.head.repo.full_name"
FORK = f"${{{{ github.event_name == 'pull_request' && {SOURCE} != github.repository }}}}"


def uses_of(path: Path) -> list[str]:
    return [found["uses"] for found in steps_of(read(path)) if "uses" in found]


@EACH
def test_every_action_is_pinned_to_a_commit_and_says_its_version(path: Path) -> None:
    for name in uses_of(path):
        if not name.startswith("./"):
            assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}", name), name
            assert re.search(rf"{re.escape(name)} # v\d+\.\d+\.\d+$", path.read_text(), re.MULTILINE), name


def test_an_action_has_one_pin_everywhere() -> None:
    pins: dict[str, set[str]] = {}
    for name in (name for path in ALL for name in uses_of(path) if "@" in name):
        action, _, commit = name.partition("@")
        pins.setdefault("/".join(action.split("/")[:2]), set()).add(commit)
    assert {action: len(commits) for action, commits in pins.items() if len(commits) > 1} == {}


@EACH_WORKFLOW
def test_a_workflow_has_no_rights_but_those_its_jobs_ask_for(path: Path) -> None:
    document = read(path)
    assert document["permissions"] == {}
    for job in document["jobs"].values():
        assert isinstance(job["permissions"], dict)
        assert job["timeout-minutes"] <= 30


def rights(name: str) -> dict[str, dict[str, str]]:
    return {job: told["permissions"] for job, told in workflow(name)["jobs"].items()}


def test_only_the_comment_and_the_release_may_write_and_nothing_else() -> None:
    assert rights("gate") == {"gate": {"contents": "read"}}
    assert rights("gate-comment") == {
        "comment": {"actions": "read", "contents": "read", "pull-requests": "write"}
    }
    assert rights("promote") == {
        "promote": {"actions": "read", "contents": "read"},
        "publish": {"contents": "write"},
    }
    assert {job["permissions"]["contents"] for job in read(STARTED)["jobs"].values()} == {"read"}


@EACH
def test_no_checkout_leaves_a_token_behind(path: Path) -> None:
    for found in steps_of(read(path)):
        if found.get("uses", "").startswith("actions/checkout@"):
            assert found["with"]["persist-credentials"] is False


@EACH
def test_no_expression_is_pasted_into_a_shell(path: Path) -> None:
    for found in steps_of(read(path)):
        assert "${{" not in found.get("run", "")


@EACH
def test_no_secret_where_code_of_a_pull_request_runs(path: Path) -> None:
    text = re.sub(r"^\s*#.*", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    if path.name == "promote.yml":
        assert re.findall(r"secrets\.\w+", text) == ["secrets.MLFLOW_TRACKING_TOKEN"]
        return
    assert "secrets." not in text
    assert ("github.token" in text) is (path.name == "gate-comment.yml")


def test_the_job_that_may_push_runs_no_code_of_the_repository() -> None:
    published = workflow("promote")["jobs"]["publish"]["steps"]
    assert [found.get("uses", "").partition("@")[0] for found in published] == [
        "actions/checkout",
        "actions/download-artifact",
        "",
    ]
    assert not re.search(r"llmops|python|bash ", published[-1]["run"])


def test_code_of_a_pull_request_runs_only_where_nothing_may_be_written() -> None:
    triggers = {path.stem: set(read(path)["on"]) for path in WORKFLOWS.glob("*.yml")}
    assert triggers == {
        "ci": {"push", "pull_request"},
        "gate": {"push", "pull_request"},
        "gate-comment": {"workflow_run"},
        "promote": {"workflow_dispatch"},
    }
    told = workflow("gate-comment")
    assert told["on"]["workflow_run"] == {"workflows": ["gate"], "types": ["completed"]}
    (checkout, comment) = steps_of(told)
    assert checkout["with"]["ref"] == "${{ github.event.repository.default_branch }}"
    assert comment["run"] == "python3 -I .github/actions/llmops-gate/comment.py"
    assert (ACTION / "comment.py").is_file()


def test_runs_of_one_pull_request_comment_one_after_the_other_F86() -> None:
    group = workflow("gate-comment")["concurrency"]
    assert "head_repository.full_name" in group["group"]
    assert "head_branch" in group["group"]
    assert group["cancel-in-progress"] is False


def test_the_comment_looks_for_the_artifact_that_the_gate_leaves() -> None:
    names = {
        found["with"]["name"]
        for found in steps_of(read(ACTION / "action.yml"))
        if "upload" in found.get("uses", "")
    }
    assert 'ARTIFACT = "llmops-gate-comment"' in (ACTION / "comment.py").read_text()
    assert names == {"llmops-gate-comment", "llmops-gate-report"}


# --- the store ----------------------------------------------------------------------------------------------


def caches(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the steps that restore and that save the store."""
    return {
        kind: found
        for found in steps_of(document)
        for kind in ("restore", "save")
        if found.get("uses", "").startswith(f"actions/cache/{kind}@")
    }


@pytest.mark.parametrize("path", [ACTION / "action.yml", STARTED], ids=["action", "starter"])
def test_the_store_travels_as_a_cache_that_each_run_writes_anew_F85_F87(path: Path) -> None:
    found = caches(read(path))
    restored, saved = found["restore"]["with"], found["save"]["with"]
    assert (restored["path"], restored["key"]) == (saved["path"], saved["key"])
    assert "github.run_id" in saved["key"]
    assert "github.run_attempt" in saved["key"], "a second attempt goes on where the first was cut off"
    assert restored["key"].startswith(restored["restore-keys"])
    assert "always()" in found["save"]["if"], "also after a run that was cancelled"


def test_only_the_default_branch_writes_the_store_that_others_see_F87() -> None:
    """GitHub gives a pull request a scope of its own; what may not happen is a trigger that runs it in main's."""
    for path in [*WORKFLOWS.glob("*.yml"), STARTED]:
        document = read(path)
        writes = "save" in caches(document) or any("llmops-gate" in name for name in uses_of(path))
        if writes:
            assert set(document["on"]) == {"push", "pull_request"}
            assert document["on"]["push"] == {"branches": ["main"]}


def test_a_promotion_reads_the_store_of_the_default_branch_and_writes_none() -> None:
    told = workflow("promote")
    found = caches(told)
    assert set(found) == {"restore"}
    saved = caches(read(ACTION / "action.yml"))["save"]["with"]
    assert found["restore"]["with"]["path"] == saved["path"].replace("${{ inputs.working-directory }}", ".")
    assert found["restore"]["with"]["key"] == saved["key"].replace("${{ inputs.working-directory }}", ".")
    job = told["jobs"]["promote"]
    assert job["environment"] == "production"
    assert job["if"] == "github.ref_name == github.event.repository.default_branch"


# --- forks --------------------------------------------------------------------------------------------------


def test_a_fork_is_told_by_where_it_comes_from_F80() -> None:
    assert step(read(ACTION / "action.yml"), "Judge")["env"]["FORK"] == FORK
    assert step(read(STARTED), "Judge")["env"]["FORK"] == FORK


def test_history_is_there_for_baselines_of_git_F84() -> None:
    for path in (WORKFLOWS / "gate.yml", STARTED, WORKFLOWS / "promote.yml"):
        assert steps_of(read(path))[0]["with"]["fetch-depth"] == 0


def test_the_starter_installs_the_version_that_wrote_it() -> None:
    assert f'"llmops-workbench=={__version__}"' in STARTED.read_text(encoding="utf-8")


# --- other faces --------------------------------------------------------------------------------------------


def test_the_hooks_of_pre_commit_run_commands_and_see_the_files_of_a_project() -> None:
    hooks = read_hooks()
    assert hooks["llmops-check"]["entry"] == "llmops check"
    assert hooks["llmops-gate"]["entry"].startswith("llmops gate --replay only ")
    assert hooks["llmops-gate"]["stages"] == ["pre-push"]
    for hook in hooks.values():
        assert hook["language"] == "python"
        assert hook["pass_filenames"] is False
        for name in (
            "llmops.yaml",
            "sub/llmops.yaml",
            "prompts/a.prompt.yaml",
            "x/experiments/recordings/a.jsonl.gz",
        ):
            assert re.search(hook["files"], name), name
        for name in ("README.md", "src/llmops.yaml.py", "myprompts/a.txt"):
            assert not re.search(hook["files"], name), name


def read_hooks() -> dict[str, dict[str, Any]]:
    found = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    return {hook["id"]: hook for hook in found}


def test_the_check_of_the_hooks_passes_on_the_example() -> None:
    arguments = read_hooks()["llmops-check"]["entry"].split()[1:]
    done = subprocess.run(
        [sys.executable, "-m", "llmops", *arguments], cwd=ROOT, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def program(name: str) -> str:
    """Return where a program is, beside this Python or on the path; the test is skipped where it is not."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def test_zizmor_finds_nothing() -> None:
    command = [program("zizmor"), "--offline", "--no-progress", "--quiet", "--strict-collection"]
    done = subprocess.run([*command, *map(str, ALL)], capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_actionlint_finds_nothing() -> None:
    command = [program("actionlint"), "-no-color", *map(str, ALL[:-1])]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
