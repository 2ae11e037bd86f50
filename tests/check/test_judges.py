"""What `check` says of evaluators that ask models, before anything is asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from llmops.check import check_workspace
from llmops.definitions.workspace import load_workspace

Project = Callable[..., Path]

MODELS = """\
models:
  default: {provider: embedded}
  judge: {provider: openai, model: n, api_key_env: KEY}
  priced: {provider: openai, model: n, api_key_env: KEY, price: {input_per_mtok: 1, output_per_mtok: 1}}
"""
ANSWER = """\
inputs: {q: string}
messages:
  - {role: user, content: "{{ q }}"}
"""
RUBRIC = """\
inputs: {q: string, output: string, expected: string, metadata: any}
model: judge
messages:
  - {role: user, content: "{{ q }} {{ output }} {{ expected }} {{ metadata }}"}
"""
EXPERIMENT = """\
dataset: cases
variants:
  a: {prompt: answer}
evaluators:
  - judge: {name: tone, prompt: rubric, scale: [1, 5]}
  - cosine: {model: default}
"""
FILES = {
    "llmops.yaml": MODELS,
    "prompts/answer.prompt.yaml": ANSWER,
    "prompts/rubric.prompt.yaml": RUBRIC,
    "datasets/cases.dataset.yaml": "inputs: {q: string}\n",
    "datasets/cases.jsonl": '{"id": "c1", "inputs": {"q": "why?"}, "expected": "so"}\n',
    "experiments/try.experiment.yaml": EXPERIMENT,
}
TRY, RUBRIC_FILE = "experiments/try.experiment.yaml", "prompts/rubric.prompt.yaml"


def told(project: Project, **edits: tuple[str, str]) -> list[str]:
    """What is found when a piece of text in the experiment, rubric or cases is replaced."""
    paths = {"experiment": TRY, "rubric": RUBRIC_FILE, "cases": "datasets/cases.jsonl"}
    files = dict(FILES)
    for name, (old, new) in edits.items():
        assert old in files[paths[name]]
        files[paths[name]] = files[paths[name]].replace(old, new)
    return [str(finding) for finding in check_workspace(load_workspace(project(files)))]


def only(found: list[str]) -> str:
    assert len(found) == 1, found
    return found[0]


def test_a_right_judge_has_no_findings_and_needs_no_key(project: Project) -> None:
    assert told(project) == []


@pytest.mark.parametrize(
    ("old", "new", "place", "says"),
    [
        ("prompt: rubric", "prompt: rubrik", f"{TRY}:5", "did you mean 'rubric'"),
        ("scale: [1, 5]", "scale: [1, 5], model: juge", f"{TRY}:5", "did you mean 'judge'"),
        ("scale: [1, 5]", "scale: [5, 1]", f"{TRY}:5", "lowest score must be below"),
        (", scale: [1, 5]", "", f"{TRY}:5", "give a scale such as [1, 5], or choices"),
        ("scale: [1, 5]", "scale: [1, 5], scal: 1", f"{TRY}:5", "did you mean 'scale'"),
        ("model: default", "model: defualt", f"{TRY}:6", "did you mean 'default'"),
    ],
)
def test_what_does_not_resolve_is_told_with_its_line(
    project: Project, old: str, new: str, place: str, says: str
) -> None:
    found = only(told(project, experiment=(old, new)))
    assert found.startswith(place)
    assert says in found


def test_an_input_that_nothing_gives_is_told_with_the_nearest(project: Project) -> None:
    found = only(told(project, rubric=("{q: string,", "{q: string, outputs: string,")))
    assert found.startswith(f"{TRY}:5")
    assert "needs an input 'outputs' that no case and no judge has" in found
    assert "did you mean 'output'" in found


def test_an_input_of_another_type_is_told_with_its_case(project: Project) -> None:
    found = only(told(project, rubric=("{q: string", "{q: integer")))
    assert found.startswith(f"{TRY}:5")
    assert "input 'q' of case 'c1'" in found


def test_a_rubric_that_reads_what_is_expected_needs_it(project: Project) -> None:
    found = told(project, cases=(', "expected": "so"', ""))
    assert len(found) == 2  # the judge's and the cosine's
    assert all("expect" in each and "c1" in each for each in found)
    reads = ("expected: string", "expected: any")
    assert len(told(project, cases=(', "expected": "so"', ""), rubric=reads)) == 1


def test_a_format_without_a_score_is_told(project: Project) -> None:
    found = only(told(project, rubric=("messages:", "response_format: {type: string}\nmessages:")))
    assert found.startswith(f"{TRY}:5")
    assert "no object with a 'score'" in found


def test_a_broken_rubric_is_told_once_in_its_own_file(project: Project) -> None:
    found = only(told(project, rubric=("{{ output }}", "{{ outptu }}")))
    assert found.startswith(f"{RUBRIC_FILE}:4")
    assert "did you mean 'output'" in found


def test_a_parameter_the_model_does_not_take_is_told(project: Project) -> None:
    more = ("scale: [1, 5]", "scale: [1, 5], parameters: {temprature: 1}")
    found = only(told(project, experiment=more))
    assert found.startswith(f"{TRY}:5")
    assert "did you mean 'temperature'" in found


def test_a_budget_in_usd_needs_the_judges_price(project: Project) -> None:
    budget = ("dataset: cases", "dataset: cases\nbudget: {usd: 1}")
    found = only(told(project, experiment=budget))
    assert found.startswith(f"{TRY}:2")
    assert "model judge has no price" in found
    files = {**FILES, TRY: EXPERIMENT.replace(*budget).replace("scale", "model: priced, scale")}
    assert check_workspace(load_workspace(project(files))) == []


GATE = ("dataset: cases", "dataset: cases\ngates: [{metric: tone, at_least: 4}]")


def test_no_gate_stands_on_what_embedded_judges(project: Project) -> None:
    assert told(project, experiment=GATE) == []
    found = only(told(project, experiment=GATE, rubric=("model: judge", "model: default")))
    assert found.startswith(f"{TRY}:2")
    assert "tone is judged by embedded, which is no judge" in found


def test_a_limit_outside_the_scale_says_nothing(project: Project) -> None:
    found = only(told(project, experiment=(GATE[0], GATE[1].replace("4}", "0.8}"))))
    assert "tone goes from 1 to 5, so 0.8 says nothing" in found


def test_a_judge_may_be_pinned_to_a_revision(project: Project, git: Callable[..., str]) -> None:
    root = project(FILES)
    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "first")
    project({**FILES, TRY: EXPERIMENT.replace("prompt: rubric", "prompt: rubric@git:HEAD")})
    (root / RUBRIC_FILE).write_text("inputs: {}\nmessages: []\n", encoding="utf-8")
    found = [str(finding) for finding in check_workspace(load_workspace(root), [("experiment", "try")])]
    assert found == []
