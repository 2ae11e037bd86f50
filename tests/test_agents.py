"""Agents as variants of a run: paid for once, replayed, stopped by a budget and gone on with, and mirrored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmops.records import Run, RunStatus, Status
from tests.cli.inside import llmops_inside
from tests.model_server import ModelServer, turns
from tests.workplace import Workplace, jsonl

CHAIN = """
inputs: {ticket: string}
steps:
  - id: solve
    agent: {prompt: sort, with: {ticket: "{{ ticket }}"}, tools: [{python: "code:count"}], max_steps: 4}
"""
CODE = '''
from pathlib import Path


def count(word: str) -> int:
    """Count the letters of a word."""
    with (Path(__file__).parent / "counted.log").open("a") as log:
        log.write(word + "\\n")
    return len(word)
'''


@pytest.fixture
def place(tmp_path: Path, server: ModelServer) -> Workplace:
    """Give a project whose one variant is an agent that takes three turns for each of two cases."""
    place = Workplace(tmp_path, server)
    place.write("chains/agent.chain.yaml", CHAIN)
    place.write("chains/code.py", CODE)
    place.edit("experiments/sort.experiment.yaml", "plain: {prompt: sort}", "plain: {chain: agent}")
    words = (("c1", "red"), ("c2", "green"))
    scripts = {
        name: turns([("count", {"word": word})], [("count", {"word": word * 2})], word)
        for name, word in words
    }
    place.write(
        "datasets/tickets.jsonl",
        jsonl([{"id": name, "inputs": {"ticket": scripts[name]}, "expected": word} for name, word in words]),
    )
    return place


def counted(place: Workplace) -> int:
    return len((place.root / "chains/counted.log").read_text(encoding="utf-8").split())


def test_every_turn_is_paid_for_once_whatever_is_scored_later(place: Workplace) -> None:
    run = place.run().run
    assert (run.status, run.n_calls, run.n_errors) == (RunStatus.COMPLETE, 6, 0)
    assert run.summary["plain"]["exact_match"].value == 1.0
    place.new_requests()
    place.edit("experiments/sort.experiment.yaml", "[exact_match]", "[exact_match, {contains: {any: [e]}}]")
    again = place.run().run
    assert (place.new_requests(), again.n_calls, counted(place)) == ([], 0, 4)


def test_another_description_of_a_tool_asks_anew(place: Workplace) -> None:
    place.run()
    place.new_requests()
    place.edit("chains/code.py", "Count the letters", "Return the number of letters")
    assert place.run().run.n_calls == 6


def test_a_case_cut_short_goes_on_with_the_turns_it_has_and_acts_again(place: Workplace) -> None:
    place.edit("experiments/sort.experiment.yaml", "seed: 3", "seed: 3\nbudget: {calls: 4}")
    first = place.run().run
    assert (first.status, first.n_calls) == (RunStatus.STOPPED, 4)
    before = counted(place)
    place.edit("experiments/sort.experiment.yaml", "calls: 4", "calls: 6")
    again = place.run().run
    assert (again.status, again.summary["plain"]["exact_match"].value) == (RunStatus.COMPLETE, 1.0)
    assert len(place.new_requests()) == 6
    assert counted(place) > before


def test_a_replay_gives_the_same_without_a_server(place: Workplace) -> None:
    asked = ("run", "experiments/sort", "--no-sync", "--json")
    live = Run.model_validate_json(
        llmops_inside(*asked, "--record", cwd=place.root, more=place.environment).stdout
    )
    place.new_requests()
    done = llmops_inside("run", "experiments/sort", "--replay", "only", "--json", cwd=place.root)
    replayed = Run.model_validate_json(done.stdout)
    assert (done.returncode, replayed.status, replayed.n_calls) == (0, RunStatus.COMPLETE, 0)
    assert place.new_requests() == []
    values = [
        {row.case.id: row.output.value for row in place.rows(run) if row.output} for run in (live, replayed)
    ]
    assert values[0] == values[1] == {"c1": "red", "c2": "green"}


def test_a_limit_is_a_crash_that_says_which_and_is_not_tried_again(place: Workplace) -> None:
    place.edit("chains/agent.chain.yaml", "max_steps: 4", "max_steps: 2")
    run = place.run().run
    assert (run.n_errors, run.status) == (2, RunStatus.COMPLETE)
    for row in place.rows(run):
        assert row.output is not None and row.output.error is not None
        assert (row.output.status, row.output.error.kind) == (Status.CRASHED, "max_steps")
    place.new_requests()
    place.run()
    assert place.new_requests() == []


@pytest.mark.filterwarnings("ignore")  # MLflow's own, of libraries newer than it knows
def test_mlflow_shows_agent_turns_and_tools(place: Workplace) -> None:
    done = llmops_inside("run", "experiments/sort", cwd=place.root, more=place.environment)
    assert done.returncode == 0, done.stderr
    assert llmops_inside("sync", cwd=place.root).returncode == 0
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{place.root}/mlflow.db")
    experiment = mlflow.get_experiment_by_name("sort")
    traces = mlflow.search_traces(locations=[experiment.experiment_id], return_type="list")
    kinds = [
        (span.name, span.span_type)
        for span in traces[0].data.spans
        if span.span_type in ("AGENT", "TOOL", "CHAT_MODEL")
    ]
    assert kinds == [
        ("solve", "AGENT"),
        ("solve[0]", "CHAT_MODEL"),
        ("count", "TOOL"),
        ("count", "TOOL"),
        ("solve[1]", "CHAT_MODEL"),
        ("count", "TOOL"),
        ("count", "TOOL"),
        ("solve[2]", "CHAT_MODEL"),
    ]
    agent = next(span for span in traces[0].data.spans if span.span_type == "AGENT")
    assert json.dumps(agent.outputs) in ('"red"', '"green"')
