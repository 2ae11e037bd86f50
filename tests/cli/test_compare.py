"""`llmops compare`: two variants of runs, by name, and what cannot be compared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llmops.records import Comparison
from tests.cli.inside import Done, llmops_inside
from tests.model_server import ModelServer, running_model_server
from tests.workplace import FILES, Workplace

EXPERIMENT = "experiments/sort.experiment.yaml"


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with running_model_server() as server:
        yield server


@pytest.fixture
def place(tmp_path: Path, server: ModelServer) -> Workplace:
    place = Workplace(tmp_path, server)
    place.write("prompts/kind.prompt.yaml", FILES["prompts/sort.prompt.yaml"].replace("one word", "a word"))
    place.edit(EXPERIMENT, "{prompt: sort}", "{prompt: sort}\n  kind: {prompt: kind}")
    return place


def compare(place: Workplace, *arguments: str) -> Done:
    return llmops_inside("compare", *arguments, cwd=place.root)


def test_two_variants_are_compared_case_by_case(place: Workplace) -> None:
    run = place.run().run
    done = compare(place, "sort:plain", f"{run.id}:kind", "--json")
    assert done.returncode == 0, done.stderr
    found = Comparison.model_validate_json(done.stdout)
    assert (found.baseline.variant, found.candidate.variant, found.n_cases) == ("plain", "kind", 6)
    assert {"exact_match", "latency_s", "cost_usd"} <= {effect.metric for effect in found.effects}
    text = compare(place, "sort:plain", "sort:kind").stdout
    assert "kind" in text and "exact_match" in text


def test_runs_of_two_versions_are_compared_too(place: Workplace) -> None:
    first = place.run().run
    place.edit("prompts/kind.prompt.yaml", "Answer", "Reply")
    second = place.run().run
    done = compare(place, f"{first.id}:kind", f"{second.id}:kind", "--json")
    found = Comparison.model_validate_json(done.stdout)
    assert (found.baseline.run_id, found.candidate.run_id) == (first.id, second.id)


@pytest.mark.parametrize(
    ("baseline", "says"),
    [
        ("sort", "write RUN:VARIANT"),
        ("srt:plain", "did you mean 'sort'"),
        ("sort:plane", "did you mean 'plain'"),
    ],
)
def test_a_side_that_does_not_exist_is_refused(place: Workplace, baseline: str, says: str) -> None:
    place.run()
    done = compare(place, baseline, "sort:kind")
    assert done.returncode == 2
    assert says in done.stderr


def test_other_evaluators_on_either_side_are_refused_F72(place: Workplace) -> None:
    first = place.run().run
    place.edit(EXPERIMENT, "[exact_match]", "[exact_match: {normalise: true}]")
    second = place.run().run
    done = compare(place, f"{first.id}:plain", f"{second.id}:plain")
    assert done.returncode == 2
    assert "exact_match is not the same on both sides" in done.stderr
