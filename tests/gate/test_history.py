"""A baseline's stored runs: which of them count, when they are stale, and what they change."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Engine, event

from llmops.cli.exits import Exit
from llmops.definitions.workspace import load_workspace
from llmops.gate.affected import why_refresh
from llmops.gate.history import Shelf, released_at
from llmops.plan import plan_experiment
from llmops.records import Outcome, Run, Variant
from llmops.stats.noninferiority import judge_pairs
from llmops.stats.outcome import Rule
from llmops.stats.runs import Runs
from tests.cli.inside import llmops_inside
from tests.gate.test_watch import CASES
from tests.gated import EXPERIMENT, NEUTRAL, Repository
from tests.workplace import jsonl

BASELINE = "plain@git:main"
BOB = {
    "GIT_COMMITTER_NAME": "Bob",
    "GIT_COMMITTER_EMAIL": "bob@example.invalid",
    "MLFLOW_TRACKING_URI": "http://127.0.0.1:1",  # nobody is there
}


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    repository = Repository(tmp_path)
    repository.edit("{prompt: sort}", "{prompt: sort, parameters: {temperature: 2}}", EXPERIMENT)
    repository.edit(
        "{metric: error_rate",
        "{metric: output_tokens, not_worse_than: baseline}\n  - {metric: error_rate",
        EXPERIMENT,
    )
    repository.edit(*NEUTRAL)
    return repository


def collect(repository: Repository, n: int, variant: str = BASELINE) -> None:
    """Pay for the baseline so many times."""
    for _ in range(n):
        done = llmops_inside(
            "run", EXPERIMENT, "--fresh", "--variant", variant, "--no-sync", cwd=repository.root
        )
        assert done.returncode == 0, done.stderr


def newest(repository: Repository) -> tuple[Run, Variant]:
    with repository.journal() as journal:
        run = journal.runs("sort")[0]
    return run, next(variant for variant in run.variants if variant.is_baseline)


def n_earlier(repository: Repository) -> int:
    run, baseline = newest(repository)
    with repository.journal() as journal:
        return Shelf(load_workspace(repository.root), journal, run).history(baseline).n


def change(repository: Repository, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(repository.root / ".llmops" / "store.db")) as store, store:
        assert store.execute(statement, values).rowcount > 0


# --- what it changes ----------------------------------------------------------------------------------------


def test_a_candidate_is_compared_with_the_mean_of_all_stored_runs(repository: Repository) -> None:
    collect(repository, 4)
    verdict, done = repository.verdict()
    (candidate,) = verdict.candidates
    score, tokens, fact = candidate.gates
    assert (candidate.n_history, candidate.n_stale) == (4, 0)
    assert score.repeats == (4, 1)
    assert (tokens.repeats, fact.repeats) == ((1, 1), (1, 1)), "no ratio and no fact is taken over runs"
    with repository.journal() as journal:
        runs = journal.runs("sort")
        values = [
            [
                row.scores[0].value
                for row in sorted(journal.rows(run.id, variant=BASELINE), key=lambda r: r.case.id)
            ]
            for run in runs
        ]
        own = [
            row.scores[0].value
            for row in sorted(journal.rows(runs[0].id, variant="plain"), key=lambda r: r.case.id)
        ]
    table = np.array(values, dtype=np.float64)
    assert table.std(axis=0).any(), "some cases are flaky"
    sides = Runs.of(list(table.T)), Runs.of([[value] for value in own if value is not None])
    given = np.array(own, dtype=np.float64)
    expected = judge_pairs(table.mean(axis=0), given, Rule(0.05, 0.0, 1.0, seed=0), runs=sides)
    assert score.baseline == pytest.approx(table.mean()) and score.candidate == pytest.approx(given.mean())
    assert score.p_pass == pytest.approx(expected.p_pass)
    assert done.returncode in (0, 1)
    assert "scores are compared with the mean of 4 runs of the" in repository.gate("sort").stdout


def test_two_runs_are_no_history(repository: Repository) -> None:
    collect(repository, 2)
    verdict, _ = repository.verdict()
    assert verdict.candidates[0].n_history == 0 and verdict.candidates[0].gates[0].repeats == (1, 1)
    assert "the mean of" not in repository.gate("sort").stdout


def test_a_history_is_the_newest_eight(repository: Repository) -> None:
    collect(repository, 10)
    assert n_earlier(repository) == 7
    assert repository.verdict()[0].candidates[0].n_history == 8


def test_repeats_are_runs_too(repository: Repository) -> None:
    repository.edit("dataset: tickets", "dataset: tickets\nrepeats: 2", EXPERIMENT)
    collect(repository, 2)
    assert n_earlier(repository) == 2
    assert repository.verdict()[0].candidates[0].gates[0].repeats == (4, 2)


def test_a_sequential_gate_uses_it_at_every_look(tmp_path: Path) -> None:
    repository = Repository(tmp_path, **{"datasets/tickets.jsonl": jsonl(CASES)})
    repository.edit("margin: 0.05", "margin: 0.10", EXPERIMENT)
    repository.edit(*NEUTRAL)
    collect(repository, 3)
    verdict, _ = repository.verdict("--sequential")
    gate = verdict.candidates[0].gates[0]
    assert (gate.outcome, gate.look, gate.repeats) == (Outcome.PASS, 2, (3, 1))
    assert verdict.n_calls == 96, "the baseline was there"


# --- which runs count ---------------------------------------------------------------------------------------


def test_runs_in_part_do_not_count(repository: Repository) -> None:
    collect(repository, 3)
    run, _ = newest(repository)
    change(
        repository,
        "DELETE FROM outputs WHERE cell_id IN (SELECT cell_id FROM cells WHERE run_id = ? AND variant = ? LIMIT 1)",
        f"{run.id.rpartition('.')[0]}.1",
        BASELINE,
    )
    assert n_earlier(repository) == 0


def test_another_dataset_or_evaluator_is_another_history(repository: Repository) -> None:
    collect(repository, 3)
    repository.edit('"lamp 1 is green"', '"lamp 1 is quite green"', "datasets/tickets.jsonl")
    collect(repository, 1)
    assert n_earlier(repository) == 0
    repository.edit('"lamp 1 is quite green"', '"lamp 1 is green"', "datasets/tickets.jsonl")
    collect(repository, 1)
    assert n_earlier(repository) == 3
    repository.edit("[exact_match]", "[exact_match, classification]", EXPERIMENT)
    collect(repository, 1)
    assert n_earlier(repository) == 0


def test_outputs_it_won_with_do_not_count(repository: Repository) -> None:
    collect(repository, 2, "plain")  # as a candidate, twice
    repository.commit()
    repository.git("branch", "-f", "main")
    repository.edit("Reply with", "Respond with")
    collect(repository, 3)
    assert n_earlier(repository) == 2


def test_only_what_came_after_its_release_counts(tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    repository.edit(*NEUTRAL)
    repository.verdict()
    repository.commit()
    done = llmops_inside("promote", "sort", "--to", "production", "--reason", "short", cwd=tmp_path, more=BOB)
    assert done.returncode == Exit.INCOMPLETE and "not in MLflow yet" in done.stderr
    repository.edit("baseline: git:main", "baseline: alias:production", EXPERIMENT)
    workspace = load_workspace(tmp_path)
    with repository.journal() as journal:
        plan = plan_experiment(workspace, "sort", journal, now=datetime.now(UTC))
        baseline = next(each for each in plan.run.variants if each.is_baseline)
        assert why_refresh(workspace, journal, plan, now=datetime.now(UTC)) is None, (
            "it is the candidate itself"
        )
    released = released_at(workspace, baseline)
    assert released is not None and datetime.now(UTC) - released < timedelta(minutes=10)

    repository.edit("Reply with", "Respond with")
    verdict, done = repository.verdict()
    assert "released on the replies there are, by luck too: both sides are asked again" in done.stderr
    assert verdict.n_calls == 180 and verdict.run_id.endswith(".1")
    collect(repository, 2, "plain@production")
    assert n_earlier(repository) == 2, "but for the one that won"


# --- stale --------------------------------------------------------------------------------------------------


def test_a_baseline_that_is_not_what_it_was_makes_its_history_stale_and_says_so(
    repository: Repository,
) -> None:
    collect(repository, 4)
    run, _ = newest(repository)
    change(
        repository,
        "UPDATE scores SET value = 1 - value WHERE cell_id IN "
        "(SELECT cell_id FROM cells WHERE variant = ? AND run_id != ?)",
        BASELINE,
        run.id,
    )
    verdict, _ = repository.verdict()
    (candidate,) = verdict.candidates
    assert (candidate.n_history, candidate.n_stale) == (0, 3)
    assert candidate.gates[0].repeats == (1, 1)
    markdown = repository.left("v.md")
    told = repository.gate("sort", "--markdown", str(markdown)).stdout
    assert "history is stale" in told and "history is stale" in markdown.read_text(encoding="utf-8")


def test_a_history_changes_which_verdict_it_is(repository: Repository) -> None:
    collect(repository, 1)
    alone, _ = repository.verdict()
    collect(repository, 2)
    beside, _ = repository.verdict()
    assert alone.id != beside.id
    assert json.loads(beside.model_dump_json())["candidates"][0]["n_history"] == 3


# --- flaky cases are run more often -------------------------------------------------------------------------


def with_repeats(repository: Repository) -> None:
    repository.edit("dataset: tickets", "dataset: tickets\nflaky_repeats: 4", EXPERIMENT)


def outputs_of(repository: Repository, variant: str) -> dict[str, list[float]]:
    """Return the scores of a variant by case, over all runs of the newest number."""
    with repository.journal() as journal:
        runs = journal.runs("sort")
        latest = max(run.fresh for run in runs)
        found: dict[str, dict[int, float]] = {}
        for run in runs:
            for row in journal.rows(run.id, variant=variant) if run.fresh == latest else ():
                if row.output is not None and row.scores[0].value is not None:
                    found.setdefault(row.case.id, {})[row.repeat] = row.scores[0].value
    return {case_id: list(values.values()) for case_id, values in found.items()}


def test_cases_that_the_history_shows_to_be_flaky_run_four_times_and_no_others(
    repository: Repository,
) -> None:
    with_repeats(repository)
    collect(repository, 5)
    run, baseline = newest(repository)
    with repository.journal() as journal:
        values = Shelf(load_workspace(repository.root), journal, run).history(baseline).values
    means = values.means("exact_match", list(values.cases))
    flaky = {case_id for case_id, mean in zip(values.cases, means, strict=True) if 0 < mean < 1}
    assert 0 < len(flaky) < 90

    verdict, done = repository.verdict()
    assert f"plain: {len(flaky)} of 90 cases are flaky and run 4 times" in done.stderr
    scores = outputs_of(repository, "plain")
    assert {case_id for case_id, found in scores.items() if len(found) == 4} == flaky
    assert {len(found) for case_id, found in scores.items() if case_id not in flaky} == {1}
    assert verdict.n_calls == 90 + 3 * len(flaky), "the first of the four is the one there is"

    (candidate,) = verdict.candidates
    assert (candidate.n_history, candidate.n_flaky, candidate.flaky_repeats) == (5, len(flaky), 4)
    expected = np.mean([np.mean(found) for found in scores.values()])
    assert candidate.gates[0].candidate == pytest.approx(expected)
    with repository.journal() as journal:
        latest = journal.latest_run("sort")
    assert latest is not None and latest.id == verdict.run_id and latest.repeats == 1
    again, _ = repository.verdict()
    assert (again.id, again.n_calls) == (verdict.id, 0)


def test_facts_and_seconds_stand_on_one_run_of_each_case(repository: Repository) -> None:
    with_repeats(repository)
    collect(repository, 5)
    verdict, _ = repository.verdict()
    _, tokens, errors = verdict.candidates[0].gates
    with repository.journal() as journal:
        run = journal.find_run(verdict.run_id)
    assert run is not None and run.n_cells == 180
    assert tokens.repeats == (1, 1) and errors.n == 90


def test_without_a_history_nothing_is_run_more_often(repository: Repository) -> None:
    with_repeats(repository)
    verdict, done = repository.verdict()
    assert "flaky" not in done.stderr
    assert (verdict.n_calls, verdict.candidates[0].n_flaky) == (180, 0)


def test_a_sequential_gate_repeats_the_flaky_cases_of_each_look(tmp_path: Path) -> None:
    repository = Repository(tmp_path, **{"datasets/tickets.jsonl": jsonl(CASES)})
    repository.edit("{prompt: sort}", "{prompt: sort, parameters: {temperature: 2}}", EXPERIMENT)
    repository.edit("margin: 0.05", "margin: 0.30", EXPERIMENT)
    repository.edit(*NEUTRAL)
    with_repeats(repository)
    collect(repository, 5)
    verdict, _ = repository.verdict("--sequential")
    gate = verdict.candidates[0].gates[0]
    scores = outputs_of(repository, "plain")
    assert gate.look is not None and len(scores) == gate.n < len(CASES)
    assert {len(found) for found in scores.values()} == {1, 4}
    assert verdict.n_calls == sum(map(len, scores.values()))


# --- read once ----------------------------------------------------------------------------------------------


@contextmanager
def counting_reads(*runs: Run) -> Iterator[Counter[str]]:
    """Give how often the scores of each run are selected, by its id, in whatever journal this process opens."""
    found: Counter[str] = Counter()
    ids = {run.id for run in runs}

    def count(connection: object, cursor: object, statement: str, parameters: object, *more: object) -> None:
        if statement.startswith("SELECT") and "FROM cells JOIN scores" in statement:
            assert isinstance(parameters, tuple)
            found.update(ids.intersection(parameters))

    event.listen(Engine, "before_cursor_execute", count)
    try:
        yield found
    finally:
        event.remove(Engine, "before_cursor_execute", count)


@pytest.mark.parametrize("more", [(), ("--sequential",)])
def test_a_gate_reads_each_stored_run_of_a_baseline_once(tmp_path: Path, more: tuple[str, ...]) -> None:
    repository = Repository(tmp_path, **{"datasets/tickets.jsonl": jsonl(CASES)})
    repository.edit("margin: 0.05", "margin: 0.10", EXPERIMENT)
    repository.edit(*NEUTRAL)
    with_repeats(repository)
    collect(repository, 4)
    with repository.journal() as journal:
        _, *earlier = journal.runs("sort", with_comparisons=False)
    with counting_reads(*earlier) as n_reads:
        verdict, done = repository.verdict(*more)
    assert "beside 4 runs of the baseline" in done.stderr and verdict.candidates[0].n_history == 4
    assert n_reads == {run.id: 1 for run in earlier}
