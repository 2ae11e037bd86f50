"""What `check` says of `experiments/quarantine.yaml`: entries that are about nothing, and those that are over."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from llmops.check import check_workspace, find_workspace_notes
from llmops.definitions.workspace import load_workspace
from tests.cli.inside import llmops_inside
from tests.gated import Repository

PATH = "experiments/quarantine.yaml"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def entry(**changes: str) -> str:
    fields = {
        "experiment": "sort",
        "case": "c001",
        "owner": "ann",
        "reason": "two are right",
        "until": "2999-01-01",
    }
    return (
        "  - {" + ", ".join(f"{key}: {value}" for key, value in (fields | changes).items() if value) + "}\n"
    )


def told(repository: Repository, *entries: str) -> list[str]:
    repository.write(PATH, "cases:\n" + "".join(entries))
    return [str(finding) for finding in check_workspace(load_workspace(repository.root))]


def test_a_right_file_is_no_stray_and_has_no_finding(repository: Repository) -> None:
    assert told(repository, entry(), entry(case="c002")) == []


def test_what_is_about_nothing_is_told_with_its_line(repository: Repository) -> None:
    found = told(repository, entry(), entry(experiment="sotr"), entry(case="lamp"))
    assert found == [
        f"{PATH}:3:6: no experiment is called 'sotr'\n    did you mean 'sort'?",
        f"{PATH}:4:24: sort has no case 'lamp'",
    ]


@pytest.mark.parametrize("field", ["owner", "reason", "until"])
def test_what_each_entry_needs_is_told_with_its_line(repository: Repository, field: str) -> None:
    (found,) = told(repository, entry(), entry(**{field: ""}))
    assert found.startswith(f"{PATH}:3:") and field in found


def test_a_broken_experiment_is_told_once(repository: Repository) -> None:
    repository.write("datasets/tickets.jsonl", "{")
    found = told(repository, entry())
    assert found and not [line for line in found if line.startswith(PATH)]


def test_what_is_over_is_a_note_and_no_fault(repository: Repository) -> None:
    assert told(repository, entry(), entry(case="c002", until="2026-01-31")) == []
    workspace = load_workspace(repository.root)
    assert list(find_workspace_notes(workspace, today=date(2026, 1, 31))) == []
    (note,) = find_workspace_notes(workspace, today=date(2026, 2, 1))
    assert note == (
        f"{PATH}:3: the quarantine of c002 in sort ended on 2026-01-31, and it counts again; ann may remove the line"
    )


def test_the_command_takes_the_file_by_its_path(repository: Repository) -> None:
    repository.write(PATH, "cases:\n" + entry(experiment="gone"))
    done = llmops_inside("check", PATH, cwd=repository.root)
    assert (done.returncode, done.stdout.splitlines()[0]) == (
        2,
        f"{PATH}:2:6: no experiment is called 'gone'",
    )
