"""`llmops score`: today's evaluators over the outputs of a run, with nothing called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.inside import llmops_inside
from tests.judged import JUDGE_PROMPT, judge_everything, of_sorter
from tests.model_server import ModelServer
from tests.workplace import FILES, Workplace

EXPERIMENT = "experiments/sort.experiment.yaml"


@pytest.fixture
def place(tmp_path: Path, server: ModelServer) -> Workplace:
    place = Workplace(tmp_path, server)
    place.write("prompts/kind.prompt.yaml", FILES["prompts/sort.prompt.yaml"].replace("one word", "a word"))
    place.edit(EXPERIMENT, "{prompt: sort}", "{prompt: sort}\n  kind: {prompt: kind}")
    place.edit(EXPERIMENT, "seed: 3", "seed: 3\nbaseline: plain")
    return place


def test_a_changed_evaluator_gives_a_new_run_with_its_comparisons_and_needs_no_key(place: Workplace) -> None:
    before = place.run().run
    place.new_requests()
    place.edit(EXPERIMENT, "[exact_match]", "[contains: {text: re}]")
    done = llmops_inside("score", "sort", "--json", cwd=place.root)
    assert done.returncode == 0, done.stderr
    assert "12 outputs scored, nothing called" in done.stderr
    after = json.loads(done.stdout)
    assert after["id"] != before.id
    assert after["summary"]["kind"]["contains"]["n"] == 6
    assert [found["candidate"]["variant"] for found in after["comparisons"]] == ["kind"]
    assert place.new_requests() == []
    assert json.loads(llmops_inside("report", "--json", cwd=place.root).stdout) == after
    assert place.run().run.id == after["id"]
    assert place.new_requests() == []


def test_unchanged_evaluators_leave_nothing_to_do(place: Workplace) -> None:
    run = place.run().run
    with place.journal() as journal:
        before = journal.revision(run.id)
    done = llmops_inside("score", run.id, cwd=place.root)
    assert done.returncode == 0
    assert "nothing to do: the evaluators are those the run was scored with" in done.stderr
    with place.journal() as journal:
        assert journal.revision(run.id) == before


def test_a_run_that_another_holds_is_not_scored_F49(place: Workplace) -> None:
    place.run()
    with place.journal() as journal, journal.hold("another"):
        assert llmops_inside("score", "sort", cwd=place.root).returncode == 5


def test_an_evaluator_that_does_not_fit_is_found_in_its_file(place: Workplace) -> None:
    place.run()
    place.edit(EXPERIMENT, "[exact_match]", "[exact_mach]")
    done = llmops_inside("score", "sort", cwd=place.root)
    assert done.returncode == 2
    assert f"{EXPERIMENT}:" in done.stderr and "did you mean 'exact_match'" in done.stderr


def test_a_judge_that_fails_is_told_and_asked_again(place: Workplace) -> None:
    judge_everything(place).run()
    place.new_requests()
    place.edit(JUDGE_PROMPT, "How well", "[[fault:503:1]] How well")
    first = llmops_inside("score", "sort", cwd=place.root, more=place.environment)
    assert first.returncode == 3
    assert "unavailable: fit: " in first.stderr
    assert "cells have no score of some evaluator" in first.stderr
    again = llmops_inside("score", "sort", cwd=place.root, more=place.environment)
    assert again.returncode == 0, again.stderr
    assert "calls to score, none to a model under test" in again.stderr
    assert of_sorter(place.new_requests()) == []


def test_a_judge_without_its_key_is_told_before_anything_is_asked_F75(place: Workplace) -> None:
    judge_everything(place).run()
    place.new_requests()
    place.edit(JUDGE_PROMPT, "How well", "How closely")
    done = llmops_inside("score", "sort", cwd=place.root, more={**place.environment, "OTHER_URL": ""})
    assert done.returncode == 2
    assert "OTHER_URL" in done.stderr
    assert place.new_requests() == []
