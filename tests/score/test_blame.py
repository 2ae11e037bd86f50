"""Which step is to blame: the first in the chain's order whose own score failed, by each wrong case."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.definitions.dataset import Case
from llmops.definitions.experiment import EvaluatorUse
from llmops.evaluators import open_evaluator
from llmops.evaluators.bound import BoundEvaluator
from llmops.records import Blame, Output, Row, Score
from llmops.score.summary import summarise_variant

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STEPS = ("rewrite", "find", "answer")


def evaluator(name: str, kind: str = "token_f1", **use: Any) -> BoundEvaluator:
    return BoundEvaluator(EvaluatorUse(kind=kind, name=name, **use), open_evaluator(kind, {}), name)


FINAL = evaluator("final", pass_at=0.5)
FIND = evaluator("found", "retrieval", step="find")
ANSWER = evaluator("said", step="answer", pass_at=0.5)


def rows_of(case_id: str, *repeats: Mapping[str, float | None]) -> list[Row]:
    return [
        Row(
            variant="v",
            repeat=repeat,
            case=Case(id=case_id, inputs={}),
            output=Output(cell_id=f"{case_id}.{repeat}", created_at=NOW, cost_usd=0.0),
            scores=tuple(
                Score(evaluator=name, evaluator_identity=name, value=value) for name, value in scores.items()
            ),
        )
        for repeat, scores in enumerate(repeats)
    ]


def blame_of(
    cases: Mapping[str, Mapping[str, float | None]], *evaluators: BoundEvaluator, steps: Any = STEPS
) -> Blame | None:
    rows = [row for case_id, scores in cases.items() for row in rows_of(case_id, scores)]
    return summarise_variant(rows, evaluators, seed=1, steps=steps).blame


def by_step(blame: Blame | None) -> dict[str | None, tuple[str, ...]]:
    assert blame is not None
    return {found.step: found.case_ids for found in blame.steps}


def test_the_first_step_that_failed_is_to_blame_whatever_the_order_of_evaluators() -> None:
    cases = {
        "right": {"final": 1.0, "found": 0.0, "said": 0.0},
        "lost": {"final": 0.4, "found": 0.9, "said": 0.0},
        "misread": {"final": 0.0, "found": 1.0, "said": 0.1},
        "odd": {"final": 0.0, "found": 1.0, "said": 0.5},
    }
    for evaluators in ((FINAL, FIND, ANSWER), (FIND, FINAL, ANSWER), (FINAL, ANSWER, FIND)):
        blame = blame_of(cases, *evaluators)
        assert blame is not None and (blame.metric, blame.n, blame.n_wrong) == ("final", 4, 3)
        assert by_step(blame) == {"find": ("lost",), "answer": ("misread",), None: ("odd",)}


def test_the_first_evaluator_of_the_output_or_of_the_last_step_has_the_final_score() -> None:
    cases = {
        "a": {"found": 0.0, "said": 0.2},
        "b": {"found": 1.0, "said": 0.2},
        "c": {"found": 0.0, "said": 1.0},
    }
    blame = blame_of(cases, FIND, ANSWER)
    assert blame is not None and (blame.metric, blame.pass_at, blame.n_wrong) == ("said", 0.5, 2)
    assert by_step(blame) == {"find": ("a",), "answer": ("b",)}
    assert [found.share for found in blame.steps] == [0.5, 0.5]


def test_a_score_that_is_absent_blames_nobody_and_a_case_without_a_final_one_is_not_wrong() -> None:
    cases = {"nothing to find": {"final": 0.0, "found": None}, "not judged": {"final": None, "found": 0.0}}
    blame = blame_of(cases, FINAL, FIND)
    assert blame is not None and blame.n == 1
    assert by_step(blame) == {"find": (), None: ("nothing to find",)}


def test_repeats_count_by_their_mean() -> None:
    rows = rows_of("a", {"final": 0.0, "found": 1.0}, {"final": 1.0, "found": 1.0})
    rows += rows_of("b", {"final": 0.0, "found": 1.0}, {"final": 0.5, "found": 0.5})
    blame = summarise_variant(rows, (FINAL, FIND), seed=1, steps=STEPS).blame
    assert blame is not None and (blame.n, blame.n_wrong) == (2, 1)
    assert by_step(blame) == {"find": ("b",)}


def test_less_is_better_where_the_score_says_so() -> None:
    edits = evaluator("edits", "ter", pass_at=30)
    cases = {"a": {"edits": 40.0, "found": 0.0}, "b": {"edits": 20.0, "found": 0.0}}
    blame = blame_of(cases, edits, FIND)
    assert blame is not None and blame.lower_is_better
    assert by_step(blame) == {"find": ("a",)}


@pytest.mark.parametrize(
    ("evaluators", "steps"),
    [
        ((FINAL, FIND), ()),
        ((FINAL,), STEPS),
        ((FIND,), STEPS),
        ((FINAL, evaluator("other", step="elsewhere")), STEPS),
        ((), STEPS),
    ],
    ids=["no chain", "no step scored", "no final score", "a step of another chain", "nothing scored"],
)
def test_without_steps_that_are_scored_or_a_final_score_there_is_no_blame(
    evaluators: tuple[BoundEvaluator, ...], steps: tuple[str, ...]
) -> None:
    cases = {"a": {"final": 0.0, "found": 0.0}}
    assert blame_of(cases, *evaluators, steps=steps) is None


def test_a_score_passes_at_its_best_unless_the_experiment_says_otherwise() -> None:
    assert (FIND.pass_at, FINAL.pass_at, evaluator("t", "ter").pass_at) == (1.0, 0.5, 0.0)


VALUES = st.sampled_from([None, 0.0, 0.3, 0.5, 1.0])


@given(st.lists(st.tuples(VALUES, VALUES, VALUES), min_size=1, max_size=12))
def test_every_wrong_case_is_counted_once(values: list[tuple[float | None, ...]]) -> None:
    cases = {f"c{n}": dict(zip(("final", "found", "said"), row, strict=True)) for n, row in enumerate(values)}
    blame = blame_of(cases, FINAL, FIND, ANSWER)
    assert blame is not None
    blamed = [case_id for found in blame.steps for case_id in found.case_ids]
    wrong = {
        case_id for case_id, found in cases.items() if found["final"] is not None and found["final"] < 0.5
    }
    assert sorted(blamed) == sorted(wrong)
    assert blame.n_wrong == len(wrong)
    assert sum(found.share for found in blame.steps) == pytest.approx(1.0 if wrong else 0.0)
    assert set(blame.by_case()) <= wrong
    assert Blame.model_validate_json(blame.model_dump_json()) == blame
