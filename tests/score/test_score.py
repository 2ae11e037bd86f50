"""Outputs -> scores, and a run scored again without calling the models under test."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from llmops.call.carrying import Result, Settings
from llmops.definitions.dataset import Case
from llmops.errors import BudgetError
from llmops.evaluators.bound import bind_evaluators
from llmops.records import Output, Run, RunStatus, Status
from llmops.score import score_output
from llmops.score.rescore import plan_scoring, rescore_run
from tests.judged import JUDGE_PROMPT, judge_everything, of_judge, of_sorter
from tests.workplace import Workplace, case_of, figure, utc_now

EXPERIMENT = "experiments/sort.experiment.yaml"


def carry_out(place: Workplace, run: Run) -> tuple[Result, int]:
    workspace = place.workspace()
    settings = Settings(place.environment, utc_now)
    with place.journal() as journal:
        planned = plan_scoring(workspace, run, journal, utc_now())
        with journal.hold(planned.run.id):
            result, n_scored = asyncio.run(rescore_run(workspace, planned, journal, settings))
            journal.save_run(result.run)
        return result, n_scored


def rescore(place: Workplace, run: Run) -> tuple[Run, int]:
    result, n_scored = carry_out(place, run)
    return result.run, n_scored


def test_every_evaluator_says_what_it_has_to_say(place: Workplace) -> None:
    place.edit(EXPERIMENT, "[exact_match]", "[exact_match, contains: {text: re}]")
    evaluators = bind_evaluators(place.workspace(), "sort")
    case = Case(id="1", inputs={}, expected="red")
    output = Output(cell_id="x", value="green", created_at=datetime(2026, 1, 1, tzinfo=UTC))
    scores = asyncio.run(score_output(evaluators, case, output)).scores
    assert [(score.evaluator, score.value) for score in scores] == [("exact_match", 0.0), ("contains", 1.0)]
    failed = output.model_copy(update={"status": Status.ERROR})
    assert asyncio.run(score_output(evaluators, case, failed)).scores == ()


def test_a_run_scored_again_is_a_new_run_of_the_same_outputs(place: Workplace) -> None:
    before = place.run().run
    place.new_requests()
    place.edit(EXPERIMENT, "[exact_match]", "[contains: {text: re}]")
    after, n_scored = rescore(place, before)
    assert place.new_requests() == []
    assert (n_scored, after.n_calls, after.cost_usd, after.status) == (6, 0, 0.0, RunStatus.COMPLETE)
    assert after.id == place.plan().run.id != before.id
    assert figure(after, "contains").n == 6
    outputs = [[row.output for row in place.rows(run)] for run in (before, after)]
    assert outputs[0] == outputs[1]


def test_a_run_scored_with_the_evaluators_it_has_stays_as_it_is(place: Workplace) -> None:
    before = place.run().run
    assert rescore(place, before) == (before, 0)


def test_a_run_that_scoring_finds_again_keeps_what_it_spent(place: Workplace) -> None:
    first = place.run().run
    place.edit(EXPERIMENT, "[exact_match]", "[contains: {text: re}]")
    second = place.run().run
    place.edit(EXPERIMENT, "[contains: {text: re}]", "[exact_match]")
    again, n_scored = rescore(place, second)
    assert (again.id, n_scored, again.n_calls) == (first.id, 0, 6)
    assert again.summary == first.summary


def test_a_part_of_a_run_is_scored_as_far_as_it_goes(place: Workplace) -> None:
    before = place.run(limit=2).run
    place.edit(EXPERIMENT, "[exact_match]", "[contains: {text: re}]")
    after, n_scored = rescore(place, before)
    assert (n_scored, after.status, figure(after, "contains").n) == (2, RunStatus.PARTIAL, 2)


def test_scores_look_at_the_cases_the_run_was_made_on(place: Workplace) -> None:
    before = place.run().run
    place.write_cases(*({**case_of(n), "expected": "other"} for n in range(6)))
    place.edit(EXPERIMENT, "[exact_match]", "[exact_match: {normalise: true}]")
    after, _ = rescore(place, before)
    assert figure(after, "exact_match").value == figure(before, "exact_match").value


# --- judges -----------------------------------------------------------------------------------------------


def test_a_changed_rubric_pays_for_judgements_alone(place: Workplace) -> None:
    before = judge_everything(place).run().run
    place.new_requests()
    place.edit(JUDGE_PROMPT, "How well", "How closely")
    after, n_scored = rescore(place, before)
    asked = place.new_requests()
    assert (len(of_judge(asked)), len(of_sorter(asked)), n_scored) == (6, 0, 6)
    assert (after.n_calls, after.status, figure(after, "fit").n) == (6, RunStatus.COMPLETE, 6)
    assert after.cost_usd is not None and after.cost_usd > 0
    assert after.id == place.plan().run.id != before.id
    assert rescore(place, after) == (after, 0)
    assert place.run().run.id == after.id
    assert place.new_requests() == []


def test_scoring_a_part_asks_no_model_under_test_for_the_rest(place: Workplace) -> None:
    before = judge_everything(place).run(limit=2).run
    place.new_requests()
    place.edit(JUDGE_PROMPT, "How well", "How closely")
    after, n_scored = rescore(place, before)
    asked = place.new_requests()
    assert (len(of_judge(asked)), len(of_sorter(asked)), n_scored) == (2, 0, 2)
    assert (after.status, after.n_unscored, after.n_done) == (RunStatus.PARTIAL, 0, 2)


def test_a_budget_holds_for_judgements_and_scoring_goes_on_with_a_larger_one(place: Workplace) -> None:
    before = judge_everything(place).run().run
    place.new_requests()
    place.edit(JUDGE_PROMPT, "How well", "How closely")
    place.edit(EXPERIMENT, "seed: 3", "seed: 3\nbudget: {calls: 4}")
    first, _ = carry_out(place, before)
    assert isinstance(first.stopped, BudgetError)
    assert (len(place.new_requests()), first.n_without_score, first.run.status) == (4, 2, RunStatus.STOPPED)
    place.edit(EXPERIMENT, "calls: 4", "calls: 6")
    second, _ = carry_out(place, before)
    assert (len(place.new_requests()), second.stopped, second.run.n_calls) == (2, None, 6)
    assert second.run.status is RunStatus.COMPLETE
