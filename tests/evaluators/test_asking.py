"""What holds for every kind of evaluator that asks models, over the whole table."""

from __future__ import annotations

import asyncio
import copy
import json
import random
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from llmops.call import Budget, open_caller, open_deployments
from llmops.definitions.dataset import Case
from llmops.definitions.workspace import Workspace, load_workspace
from llmops.errors import EvaluatorError
from llmops.evaluators import EVALUATORS, asks_models, evaluator_class, open_asking_evaluator
from llmops.evaluators.base import Asking, AskingEvaluator, Judgement, Subject
from llmops.evaluators.bound import bind_evaluators
from llmops.records import Output, Score, Status
from llmops.stores.journal import open_journal
from tests.workplace import utc_now

RUBRIC = """
inputs: {text: string, output: any, expected: any}
messages:
  - {role: system, content: "Is the answer right? Answer with a score."}
  - {role: user, content: "{{ text }}: {{ output }}, {{ expected }} wanted"}
"""


@dataclass(frozen=True)
class Example:
    """One way to set up a kind, on the model that needs no network."""

    kind: str
    options: dict[str, Any]

    def open(self, workspace: Workspace) -> AskingEvaluator:
        found = open_asking_evaluator(self.kind, self.options, workspace)
        assert isinstance(found, AskingEvaluator)
        return found


EXAMPLES = [
    Example("cosine", {"model": "default"}),
    Example("judge", {"prompt": "rubric", "scale": [1, 5]}),
    Example("judge", {"prompt": "rubric", "scale": [0.0, 1.0], "parameters": {"max_tokens": 100}}),
    Example("judge", {"prompt": "rubric", "choices": {"right": 1, "wrong": 0}}),
]
SUBJECTS = [
    Subject(f"case-{number}", {"text": "a text"}, output, expected)
    for number, (output, expected) in enumerate(
        [("billing", "billing"), ("4 of 5", "shipping"), ("no idea", ["other", "none"]), ("x y z", "x y")]
    )
]
HOSTILE = ["a\0b", "x" * 100_000, "[" * 50_000, "9" * 100_000, "\u202egnillib\u2066", "NaN", '{"score": 5}']

every_example = pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.kind)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts/rubric.prompt.yaml").write_text(RUBRIC, encoding="utf-8")
    (tmp_path / "llmops.yaml").write_text("", encoding="utf-8")
    return load_workspace(tmp_path)


def judgements(
    example: Example, workspace: Workspace, subjects: Sequence[Subject], *, repeat: int = 0
) -> list[Judgement]:
    async def ask() -> list[Judgement]:
        evaluator = example.open(workspace)
        with (
            closing(open_journal("sqlite:///store.db", root=workspace.root)) as journal,
            journal.hold("test"),
        ):
            deployments = open_deployments(workspace, evaluator.models, {})
            async with open_caller(deployments, journal, Budget(), utc_now) as (caller, _):
                return [await evaluator.judge(each, Asking(caller, repeat)) for each in subjects]

    return asyncio.run(ask())


def test_every_kind_that_asks_models_has_an_example() -> None:
    assert {example.kind for example in EXAMPLES} == {kind for kind in EVALUATORS if asks_models(kind)}


@every_example
def test_an_unknown_option_is_refused(example: Example, workspace: Workspace) -> None:
    with pytest.raises(ValidationError, match="scael"):
        open_asking_evaluator(example.kind, {**example.options, "scael": 1}, workspace)


@every_example
def test_options_survive_json(example: Example) -> None:
    options = evaluator_class(example.kind).Options.model_validate(example.options)
    dumped = json.loads(options.model_dump_json(by_alias=True))
    assert evaluator_class(example.kind).Options.model_validate(dumped) == options


@every_example
def test_models_prompts_and_meaning_are_declared_as_plain_data(
    example: Example, workspace: Workspace
) -> None:
    evaluator = example.open(workspace)
    assert [version.name for version in evaluator.models.values()] == ["default"]
    assert all(workspace.identity("prompt", name) == said for name, said in evaluator.prompts.items())
    meaning = json.loads(json.dumps(evaluator.meaning))
    assert evaluator.models["default"].identity in meaning.values()
    assert evaluator.low is not None and evaluator.high is not None and evaluator.low < evaluator.high


@every_example
def test_scores_stay_in_range_and_name_their_calls(example: Example, workspace: Workspace) -> None:
    evaluator = example.open(workspace)
    for found in judgements(example, workspace, SUBJECTS):
        assert found.value is None or (evaluator.low or 0) <= found.value <= (evaluator.high or 0)
        assert (found.value is not None or found.rationale) and len(found.call_ids) == 1


@every_example
def test_the_order_of_cases_changes_no_score_and_asking_again_costs_no_call(
    example: Example, workspace: Workspace
) -> None:
    forwards = judgements(example, workspace, SUBJECTS)
    order = random.Random(1).sample(range(len(SUBJECTS)), len(SUBJECTS))
    again = judgements(example, workspace, [SUBJECTS[place] for place in order])
    assert again == [forwards[place] for place in order]


@every_example
def test_another_repeat_is_another_call(example: Example, workspace: Workspace) -> None:
    one = judgements(example, workspace, SUBJECTS[:1])
    other = judgements(example, workspace, SUBJECTS[:1], repeat=1)
    assert one[0].call_ids != other[0].call_ids


@every_example
def test_a_subject_is_left_as_it_was(example: Example, workspace: Workspace) -> None:
    before = copy.deepcopy(SUBJECTS)
    judgements(example, workspace, SUBJECTS)
    assert before == SUBJECTS


@every_example
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_output_is_judged(example: Example, workspace: Workspace, text: str) -> None:
    (found,) = judgements(example, workspace, [replace(SUBJECTS[0], output=text)])
    score = Score(evaluator="e", evaluator_identity="0", value=found.value, rationale=found.rationale)
    assert Score.model_validate_json(score.model_dump_json()) == score
    assert len(found.rationale or "") <= 4_000


@every_example
def test_half_a_character_is_no_score_in_words(example: Example, workspace: Workspace) -> None:
    with pytest.raises(EvaluatorError, match="lone surrogate"):
        judgements(example, workspace, [replace(SUBJECTS[0], output="\ud800")])


@every_example
def test_at_least_so_many_tokens_are_known_of_a_case(example: Example, workspace: Workspace) -> None:
    case = Case(id="c", inputs={"text": "a text"}, expected="billing")
    least = example.open(workspace).least_tokens(case)
    assert least is not None and least > 0


@every_example
def test_without_a_way_to_ask_there_is_no_score_and_it_says_so(
    example: Example, workspace: Workspace
) -> None:
    root = workspace.root
    (root / "experiments").mkdir()
    experiment = {
        "dataset": "d",
        "variants": {"a": {"prompt": "rubric"}},
        "evaluators": [{example.kind: example.options}],
    }
    (root / "experiments/e.experiment.yaml").write_text(json.dumps(experiment), encoding="utf-8")
    (bound,) = bind_evaluators(workspace, "e")
    case = Case(id="c", inputs={"text": "a"}, expected="b")
    output = Output(cell_id="c", value="b", created_at=utc_now())
    found = asyncio.run(bound.score(case, output))
    assert found is not None and found.value is None
    assert "no model can be asked here" in str(found.error)
    crashed = asyncio.run(bound.score(case, output.model_copy(update={"status": Status.CRASHED})))
    assert crashed is not None and crashed.value == bound.evaluator.low
