"""`llmops gate --sequential`: stopping on the way, and what it costs to go on afterwards."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from llmops.definitions.workspace import load_workspace
from llmops.gate.looks import portions
from llmops.plan import plan_experiment
from llmops.records import Outcome, RunStatus
from tests.gated import EXPERIMENT, FILES, HARM, NEUTRAL, Repository
from tests.workplace import COLOURS, jsonl

N = 240
CASES = [
    {
        "id": f"c{number:03}",
        "inputs": {"ticket": f"lamp {number} is {COLOURS[number % 3]}"},
        "expected": COLOURS[number % 3],
        "metadata": {"slice": "edge" if number % 40 == 0 else "plain"},
    }
    for number in range(N)
]


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    margin = FILES[EXPERIMENT].replace("margin: 0.05", "margin: 0.10")
    return Repository(tmp_path, **{"datasets/tickets.jsonl": jsonl(CASES), EXPERIMENT: margin})


def test_an_unchanged_quality_passes_before_all_is_paid_for(repository: Repository) -> None:
    repository.edit(*NEUTRAL)
    verdict, done = repository.verdict("--sequential")
    assert (done.returncode, verdict.outcome) == (0, Outcome.PASS)
    gate = verdict.candidates[0].gates[0]
    assert (gate.look, gate.n_looks, gate.n) == (2, 5, 96), (
        "48 cases cannot exclude 10 points at 0.0039, 96 can"
    )
    assert gate.alpha == pytest.approx(0.00694, abs=1e-5)
    assert verdict.n_calls == 192 and verdict.n_calls_saved == 2 * N - 192
    assert "saved by stopping early" in repository.gate("sort", "--sequential").stdout


def test_a_collapse_fails_at_the_first_look(repository: Repository) -> None:
    repository.edit(*HARM)
    verdict, done = repository.verdict("--sequential")
    assert (done.returncode, verdict.outcome) == (1, Outcome.FAIL)
    assert (verdict.candidates[0].gates[0].look, verdict.n_calls) == (1, 96)


def test_limits_are_looked_at_too_and_all_gates_have_to_be_sure(repository: Repository) -> None:
    repository.edit(
        "  - {metric: error_rate",
        "  - {metric: exact_match, at_least: 0.97}\n  - {metric: error_rate",
        EXPERIMENT,
    )
    repository.edit(*NEUTRAL)
    verdict, _ = repository.verdict("--sequential")
    margin, floor, fact = verdict.candidates[0].gates
    assert verdict.outcome is Outcome.PASS
    assert (margin.look, floor.look, fact.look) == (2, 4, None), "what has passed has passed"
    assert floor.n == 192 and fact.n == 192


def test_pressing_again_is_free_and_says_the_same(repository: Repository) -> None:
    repository.edit(*NEUTRAL)
    first, _ = repository.verdict("--sequential")
    second, _ = repository.verdict("--sequential")
    assert (second.id, second.n_calls, second.looks.n_fresh) == (first.id, 0, 0)


def test_judging_the_whole_afterwards_is_a_further_try(repository: Repository) -> None:
    repository.edit(*NEUTRAL)
    repository.verdict("--sequential")
    whole, _ = repository.verdict()
    assert (whole.looks.n_fresh, whole.policy["alpha"]) == (1, "0.025")
    assert whole.n_calls == 2 * N - 192
    with repository.journal() as journal:
        run = journal.find_run(whole.run_id)
    assert run is not None and run.status is RunStatus.COMPLETE


def test_a_slice_that_comes_late_is_waited_for(repository: Repository) -> None:
    repository.edit(
        "  - {metric: error_rate",
        "  - {metric: exact_match, at_least: 0.01, slice: edge}\n  - {metric: error_rate",
        EXPERIMENT,
    )
    repository.edit(*NEUTRAL)
    verdict, _ = repository.verdict("--sequential")
    edge = verdict.candidates[0].gates[1]
    assert edge.n >= 2 and edge.outcome is Outcome.PASS


def test_small_datasets_are_judged_at_once(tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    repository.edit(*NEUTRAL)
    verdict, _ = repository.verdict("--sequential")
    assert verdict.n_calls_saved is None and verdict.candidates[0].gates[0].look is None
    assert verdict.n_calls == 180


def test_the_text_says_which_look_it_was(repository: Repository) -> None:
    repository.edit(*HARM)
    done = repository.gate("sort", "--sequential", "--markdown", str(repository.left("v.md")))
    assert done.returncode == 1
    text = repository.left("v.md").read_text(encoding="utf-8")
    assert re.search(r"look: 1 of 5", text)


# --- which cases come first -----------------------------------------------------------------------------------


def planned(repository: Repository) -> list[frozenset[str]]:
    plan = plan_experiment(load_workspace(repository.root), "sort", None, now=datetime.now(UTC))
    return portions(plan)


def test_every_look_is_a_miniature_of_the_whole(repository: Repository) -> None:
    parts = planned(repository)
    assert [len(part) for part in parts] == [48] * 5
    assert frozenset().union(*parts) == {case["id"] for case in CASES}
    edge = {case["id"] for case in CASES if case["metadata"]["slice"] == "edge"}  # type: ignore[index]
    for k in range(1, 6):
        assert abs(len(edge.intersection(frozenset().union(*parts[:k]))) - len(edge) * k / 5) <= 1


def test_what_comes_first_follows_from_what_is_tried_and_from_nothing_else(repository: Repository) -> None:
    first = planned(repository)
    repository.edit("A label", "One label")
    repository.edit("baseline: git:main", "baseline: git:main\nseed: 8\nrepeats: 2", EXPERIMENT)
    repository.commit()
    assert planned(repository) == first
    repository.edit(*NEUTRAL)
    assert planned(repository) != first


def test_a_cluster_comes_whole(tmp_path: Path) -> None:
    clustered = [case | {"metadata": {"customer": f"k{place // 7}"}} for place, case in enumerate(CASES)]
    definition = "inputs: {ticket: string}\nexpected: {type: string}\ncluster: metadata.customer\n"
    files = {"datasets/tickets.jsonl": jsonl(clustered), "datasets/tickets.dataset.yaml": definition}
    parts = planned(Repository(tmp_path, **files))
    assert len(parts) == 5
    for part in parts:
        customers = {int(case_id[1:]) // 7 for case_id in part}
        assert part == {case["id"] for place, case in enumerate(CASES) if place // 7 in customers}


def test_the_first_look_pays_for_its_own_cases_only(repository: Repository) -> None:
    repository.edit(*HARM)
    repository.verdict("--sequential")
    with repository.journal() as journal:
        (run,) = journal.runs("sort")
        done = {row.case.id for row in journal.rows(run.id) if row.output is not None}
    assert done == planned(repository)[0]
