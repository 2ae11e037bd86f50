"""After an edit, what it changed and what really depends on that is asked again, and nothing else; `--why` says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.edits import DRAFT, FLOW, TONE, Bench, outcomes, write_bench
from llmops.plan import reasons
from tests.model_server import ModelServer


def test_every_edit_of_the_suite_costs_the_least_that_it_must(tmp_path: Path, server: ModelServer) -> None:
    found = list(outcomes(tmp_path, server))
    assert [each.name for each in found if each.issued != each.least] == []
    assert [each.name for each in found if each.least_by_ledger != each.least] == []
    assert sum(each.least > 0 for each in found) > 10
    assert sum(each.least == 0 for each in found) > 10


@pytest.fixture
def bench(tmp_path: Path, server: ModelServer) -> Bench:
    place = Bench(tmp_path, server)
    write_bench(place)
    place.run("flow")
    return place


def changed(bench: Bench, path: str, old: str, new: str) -> list[str]:
    before = bench.plan("flow").run
    bench.edit(path, old, new)
    return [line.removeprefix("variant only: ") for line in reasons(bench.plan("flow").run, before)[1:]]


def test_why_names_the_step_that_changed_and_what_follows(bench: Bench) -> None:
    assert changed(bench, DRAFT, "Write an answer", "Write a letter") == [
        "step draft changed: words",
        "best, final: asked again only where what is read there really changed",
        "clean, topic, facts: nothing is asked again",
    ]


@pytest.mark.parametrize(
    ("path", "old", "new", "said"),
    [
        (DRAFT, "max_tokens: 8", "max_tokens: 9", "step draft changed: parameters"),
        (FLOW, "prompt: final\n", "prompt: final\n    model: other\n", "step final changed: model"),
        ("chains/texts.py", ".split())", ".split()) + '!'", "step clean changed: function"),
        (FLOW, "n: 3", "n: 5", "step best changed: vote"),
        ("prompts/review.prompt.yaml", "better", "good", "step best changed: words"),
        (FLOW, "{{ best.value }}", "so {{ best.value }}", "step final changed: inputs"),
        (FLOW, "/api/facts", "/api/more", "step facts changed: http"),
        (FLOW, "outputs:", f"{TONE}outputs:", "step tone is new"),
        (FLOW, "id: facts", "id: known", "step known is new"),
        (FLOW, "id: facts", "id: known", "step facts is gone"),
    ],
)
def test_why_says_what_of_a_step_changed(bench: Bench, path: str, old: str, new: str, said: str) -> None:
    if "known" in new:
        bench.edit(FLOW, "{{ facts.body.path }}", "{{ topic.output }}")
        bench.run("flow")
    assert said in changed(bench, path, old, new)


def test_why_says_nothing_of_steps_where_only_the_outputs_changed(bench: Bench) -> None:
    assert changed(bench, FLOW, "{{ final.output }}", "{{ best.value }}") == [
        "clean, topic, facts, draft, best, final: nothing is asked again"
    ]
