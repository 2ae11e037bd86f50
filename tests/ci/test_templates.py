"""The pipelines that docs/ci.md shows for GitLab and Azure DevOps: they parse, hold no secret, and their shell does."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmops import __version__
from tests.ci.files import ACTION, ROOT, read

PAGE = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
STAND_IN = '#!/usr/bin/env bash\necho "$*" >>"$TOLD"\n[ "$1" != gate ] || exit "${CODE:-0}"\n'


def shown(name: str) -> Any:
    (text,) = re.findall(rf"^```yaml\n# {re.escape(name)}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return yaml.safe_load(text)


def gitlab() -> str:
    return "\n".join(shown(".gitlab-ci.yml")["llmops-gate"]["script"])


def azure() -> str:
    return str(next(step["bash"] for step in shown("azure-pipelines.yml")["steps"] if "displayName" in step))


def judge(root: Path, script: str, **variables: str) -> tuple[int, list[str]]:
    """Run a script where main is known as origin/main alone, and return how it ended and what llmops was told."""
    (root / "bin").mkdir()
    (root / "bin" / "llmops").write_text(STAND_IN)
    (root / "bin" / "llmops").chmod(0o755)
    variables = {
        "PATH": f"{root / 'bin'}:{os.environ['PATH']}",
        "HOME": str(root),
        "TOLD": str(root / "told.txt"),
        **variables,
    }
    prepare = (
        "git init -q -b topic && git -c user.name=T -c user.email=t@example.invalid commit -q --allow-empty -m first"
        " && git update-ref refs/remotes/origin/main HEAD\n"
    )
    command = ["bash", "-e", "-c", prepare + script]
    done = subprocess.run(command, cwd=root, env=variables, capture_output=True, check=False)
    branch = subprocess.run(["git", "-C", str(root), "rev-parse", "main"], capture_output=True, check=False)
    assert branch.returncode == 0, "baseline: git:main is found"
    return done.returncode, (root / "told.txt").read_text().splitlines()


GITLAB = {
    "CI_DEFAULT_BRANCH": "main",
    "CI_MERGE_REQUEST_PROJECT_ID": "1",
    "CI_MERGE_REQUEST_SOURCE_PROJECT_ID": "1",
}


@pytest.mark.parametrize("code", [0, 1, 6])
@pytest.mark.parametrize(
    ("script", "variables"), [(gitlab(), GITLAB), (azure(), {})], ids=["gitlab", "azure"]
)
def test_the_job_ends_as_the_gate_did(
    tmp_path: Path, script: str, variables: dict[str, str], code: int
) -> None:
    ended, told = judge(tmp_path, script, **variables, CODE=str(code))
    assert ended == code
    reports = "--junit llmops-gate/junit.xml --markdown llmops-gate/comment.md --html llmops-gate/report.html"
    assert told == ["check", f"gate {reports}"]


@pytest.mark.parametrize(
    ("script", "variables"),
    [
        (
            gitlab(),
            GITLAB | {"CI_MERGE_REQUEST_SOURCE_PROJECT_ID": "2", "CI_MERGE_REQUEST_DIFF_BASE_SHA": "HEAD"},
        ),
        (azure(), {"SYSTEM_PULLREQUEST_ISFORK": "True", "SYSTEM_PULLREQUEST_TARGETBRANCHNAME": "main"}),
    ],
    ids=["gitlab", "azure"],
)
def test_a_fork_is_judged_by_recordings_and_only_what_it_changed_F80(
    tmp_path: Path, script: str, variables: dict[str, str]
) -> None:
    ended, told = judge(tmp_path, script, **variables)
    assert ended == 0
    assert re.search(r" --changed-since \w+ --replay only$", told[-1])


@pytest.mark.parametrize(
    ("script", "variables"),
    [
        (gitlab(), GITLAB | {"CI_MERGE_REQUEST_DIFF_BASE_SHA": "f" * 40}),
        (azure(), {"SYSTEM_PULLREQUEST_TARGETBRANCHNAME": "gone"}),
    ],
    ids=["gitlab", "azure"],
)
def test_a_base_that_is_gone_means_that_all_is_judged_F83(
    tmp_path: Path, script: str, variables: dict[str, str]
) -> None:
    ended, told = judge(tmp_path, script, **variables)
    assert ended == 0
    assert "--changed-since" not in told[-1]


def test_the_junit_file_is_published_also_when_the_gate_fails() -> None:
    artifacts = shown(".gitlab-ci.yml")["llmops-gate"]["artifacts"]
    assert (artifacts["when"], artifacts["reports"]) == ("always", {"junit": "llmops-gate/junit.xml"})
    published = next(
        step for step in shown("azure-pipelines.yml")["steps"] if step.get("task") == "PublishTestResults@2"
    )
    assert published["condition"] == "succeededOrFailed()"
    assert published["inputs"]["testResultsFiles"] == "llmops-gate/junit.xml"


def test_the_store_travels_in_both_and_a_branch_falls_back_to_the_default_one_F85() -> None:
    cache = shown(".gitlab-ci.yml")["llmops-gate"]["cache"]
    assert (cache["paths"], cache["when"]) == ([".llmops/"], "always")
    assert cache["fallback_keys"] == ["llmops-store-$CI_DEFAULT_BRANCH"]
    task = next(step for step in shown("azure-pipelines.yml")["steps"] if step.get("task") == "Cache@2")
    assert task["inputs"]["path"] == ".llmops"


def test_the_page_names_every_input_of_the_action_and_the_version_that_is() -> None:
    for name in read(ACTION / "action.yml")["inputs"]:
        assert f"`{name}`" in PAGE
    assert set(re.findall(r"llmops-workbench==([\w.]+)", PAGE)) == {__version__}


def test_the_hooks_shown_are_the_hooks_there_are() -> None:
    offered = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    (repo,) = shown(".pre-commit-config.yaml")["repos"]
    assert [hook["id"] for hook in repo["hooks"]] == [hook["id"] for hook in offered]
