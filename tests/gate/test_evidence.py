"""Verdicts that a gate reached, as evidence for a promotion: which count, and which never do."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from llmops.definitions.workspace import load_workspace
from llmops.errors import EvidenceError, InconclusiveError
from llmops.promote.evidence import Candidate, find_candidate
from tests.gate.test_watch import CASES
from tests.gated import EXPERIMENT, HARM, NEUTRAL, Repository
from tests.workplace import jsonl


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def evidence(repository: Repository) -> Candidate:
    with repository.journal() as journal:
        workspace = load_workspace(repository.root)
        return find_candidate(workspace, journal, "prompt", "sort", None, now=datetime.now(UTC))


def test_what_passed_may_be_released(repository: Repository) -> None:
    repository.edit(*NEUTRAL)
    verdict, _ = repository.verdict()
    found = evidence(repository)
    assert found.verdict is not None and found.verdict.id == verdict.id


def test_a_gate_with_a_default_or_relative_margin_is_known_again(repository: Repository) -> None:
    repository.edit(
        "margin: 0.05}",
        "margin: 0.08, relative: true}\n"
        "  - {metric: output_tokens, not_worse_than: baseline}\n"
        "  - {metric: exact_match, at_least: 0.5, slice: edge}",
        EXPERIMENT,
    )
    repository.edit(*NEUTRAL)
    repository.verdict()
    assert evidence(repository).problem is None


def test_an_edit_after_the_verdict_takes_the_evidence_away(repository: Repository) -> None:
    repository.edit(*NEUTRAL)
    repository.verdict()
    repository.edit("margin: 0.05", "margin: 0.06", EXPERIMENT)
    with pytest.raises(EvidenceError, match="a gate changed since the verdict"):
        evidence(repository)


def test_what_failed_or_was_replayed_may_not(repository: Repository) -> None:
    repository.edit(*NEUTRAL)
    repository.verdict("--replay", "only")
    with pytest.raises(EvidenceError, match="a replay never promotes"):
        evidence(repository)
    repository.edit(NEUTRAL[1], NEUTRAL[0])
    repository.edit(*HARM)
    repository.verdict()
    with pytest.raises(EvidenceError, match="is fail"):
        evidence(repository)


def test_what_only_warned_is_no_evidence(repository: Repository) -> None:
    repository.edit("margin: 0.05", "margin: 0.01", EXPERIMENT)
    repository.edit(*NEUTRAL)
    assert repository.verdict()[1].returncode == 0
    with pytest.raises(InconclusiveError, match="is inconclusive"):
        evidence(repository)


def test_a_verdict_on_a_part_is_no_evidence(tmp_path: Path) -> None:
    repository = Repository(tmp_path, **{"datasets/tickets.jsonl": jsonl(CASES)})
    repository.edit("margin: 0.05", "margin: 0.10", EXPERIMENT)
    repository.edit(*NEUTRAL)
    repository.verdict("--sequential")
    with pytest.raises(EvidenceError, match="is partial, not complete"):
        evidence(repository)
