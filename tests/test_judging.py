"""Runs whose outputs a model judges: each judgement is paid for once, and one that is missing is asked for again."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest

from llmops.call.carrying import Settings
from llmops.errors import AccessError, BudgetError, UsageError
from llmops.plan import Selection, estimate, plan_experiment
from llmops.records import CallState, Reply, Run, RunStatus, Status
from llmops.run import find_finished, missing_outputs, run_experiment
from llmops.score import unjudged
from tests.cli.command import start
from tests.cli.inside import llmops_inside
from tests.judged import EXPERIMENT, JUDGE_PROMPT, judge_everything, noted, of_judge, of_sorter
from tests.model_server import ModelServer, running_model_server
from tests.workplace import Workplace, figure, utc_now


@pytest.fixture
def place(tmp_path: Path, server: ModelServer) -> Workplace:
    return judge_everything(Workplace(tmp_path, server))


# --- like make --------------------------------------------------------------------------------------------


def test_each_output_is_judged_once_with_a_reason_and_the_call_that_gave_it(place: Workplace) -> None:
    run = place.run().run
    asked = place.new_requests()
    assert (len(of_sorter(asked)), len(of_judge(asked)), run.n_calls) == (6, 6, 12)
    assert run.status is RunStatus.COMPLETE
    with place.journal() as journal:
        for row in journal.rows(run.id):
            score = row.scores[1]
            call = journal.find_call(score.call_ids[0])
            assert score.value in {1.0, 2.0, 3.0, 4.0, 5.0}
            assert call is not None and isinstance(call.reply, Reply)
            assert str(score.rationale) in call.reply.text
    assert figure(run, "fit").n == 6


def test_nothing_is_judged_again_when_nothing_changed(place: Workplace) -> None:
    first = place.run().run
    place.new_requests()
    again = place.run().run
    assert place.new_requests() == []
    assert (again.id, again.n_calls, again.summary) == (first.id, 12, first.summary)


def test_a_run_knows_which_model_and_prompt_judged(place: Workplace) -> None:
    version = place.run().run.evaluators[1]
    assert [model.name for model in version.models] == ["other"]
    assert dict(version.prompts) == {"fit": place.workspace().identity("prompt", "fit")}
    assert (version.low, version.high) == (1.0, 5.0)


def test_the_run_costs_what_judges_cost_and_the_outputs_do_not(place: Workplace) -> None:
    run = place.run().run
    rows = place.rows(run)
    of_outputs = sum(row.output.cost_usd or 0 for row in rows if row.output)
    with place.journal() as journal:
        calls = [journal.find_call(row.scores[1].call_ids[0]) for row in rows]
    of_judges = sum(call.cost_usd or 0 for call in calls if call)
    assert figure(run, "cost_usd").value == pytest.approx(of_outputs)
    assert run.cost_usd == pytest.approx(of_outputs + of_judges)
    assert of_judges > 0


def test_a_changed_rubric_asks_the_judge_and_nobody_else(place: Workplace) -> None:
    before = place.run().run
    place.new_requests()
    place.edit(JUDGE_PROMPT, "How well", "How closely")
    after = place.run().run
    asked = place.new_requests()
    assert (len(of_judge(asked)), len(of_sorter(asked))) == (6, 0)
    assert (after.n_calls, after.id != before.id) == (6, True)


def test_two_variants_of_one_output_are_one_judgement(place: Workplace) -> None:
    place.edit(
        EXPERIMENT,
        "{prompt: sort}",
        "{prompt: sort}\n  twin: {prompt: sort, set: {parameters.max_tokens: 9}}",
    )
    run = place.run().run
    asked = place.new_requests()
    assert (len(of_sorter(asked)), len(of_judge(asked))) == (12, 6)
    assert run.summary["plain"]["fit"].value == run.summary["twin"]["fit"].value


def test_each_repeat_is_judged_anew_and_so_is_a_fresh_run(place: Workplace) -> None:
    place.edit(EXPERIMENT, "seed: 3", "seed: 3\nrepeats: 2")
    place.run()
    assert len(of_judge(place.new_requests())) == 12
    place.run(fresh=True)
    assert len(of_judge(place.new_requests())) == 12


def test_another_evaluator_beside_a_judge_needs_neither_its_key_nor_a_call(place: Workplace) -> None:
    place.run()
    place.new_requests()
    place.edit(EXPERIMENT, "[exact_match", "[contains: {text: e}, exact_match")
    workspace = place.workspace()
    with place.journal() as journal:
        plan = plan_experiment(workspace, "sort", journal, now=utc_now())
        with journal.hold(plan.run.id):
            result = asyncio.run(run_experiment(workspace, plan, journal, Selection(), Settings({}, utc_now)))
    assert (result.run.status, place.new_requests()) == (RunStatus.COMPLETE, [])
    assert {figure(result.run, name).n for name in ("contains", "fit")} == {6}


# --- what goes wrong --------------------------------------------------------------------------------------


def test_a_judge_that_is_away_for_a_moment_leaves_no_score_and_the_next_run_asks_for_it_alone(
    place: Workplace,
) -> None:
    place.write_cases(*(noted(n) for n in range(5)), noted(5, "[[fault:503:1]]"))
    first = place.run()
    assert (first.n_without_output, first.n_without_score) == (0, 1)
    assert (first.run.status, first.run.n_unscored) == (RunStatus.PARTIAL, 1)
    n, message = first.errors["unavailable"]
    assert n == 1 and message.startswith("fit: ")
    assert (figure(first.run, "fit").n, figure(first.run, "exact_match").n) == (5, 6)
    with place.journal() as journal:
        assert find_finished(place.plan(), journal, Selection()) is None
    place.new_requests()
    second = place.run()
    (asked,) = place.new_requests()
    assert asked.body["model"] == "n"
    assert (second.run.status, second.run.n_unscored, second.errors) == (RunStatus.COMPLETE, 0, {})
    assert figure(second.run, "fit").n == 6


@pytest.mark.parametrize("fault", ["500", "html", "null-content", "truncated-json"])
def test_a_judge_that_gives_no_reply_gives_no_score(place: Workplace, fault: str) -> None:
    place.write_cases(noted(0, f"[[fault:{fault}]]"))
    result = place.run()
    assert (result.n_without_score, len(result.errors)) == (1, 1)
    assert [score.evaluator for score in place.rows(result.run)[0].scores] == ["exact_match"]


@pytest.mark.parametrize(
    ("note", "why"),
    [
        ("[[say:I would say 4.]]", "no JSON object"),
        ('[[say:{"rationale": "good", "score": 9}]]', "whole numbers from 1 to 5"),
        ("[[fault:content_filter]]", "did not take it"),
        ("[[fault:finish_filter]]", "content filter stopped"),
        ("[[fault:refusal]]", "refused to answer"),
    ],
)
def test_what_came_and_is_no_score_is_absent_with_its_reason_and_not_paid_again(
    place: Workplace, note: str, why: str
) -> None:
    place.write_cases(noted(0, note), noted(1))
    run = place.run().run
    scores = {row.case.id: row.scores[1] for row in place.rows(run)}
    assert (scores["c0"].value, scores["c1"].error) == (None, None)
    assert why in str(scores["c0"].error)
    assert (figure(run, "fit").n, figure(run, "fit").n_missing) == (1, 1)
    assert run.status is RunStatus.COMPLETE
    place.new_requests()
    place.run()
    assert place.new_requests() == []


def test_more_than_5_percent_without_a_score_is_incomplete(place: Workplace) -> None:
    place.write_cases(*(noted(n) for n in range(5)), noted(5, "[[fault:500:1]]"))
    done = llmops_inside("run", EXPERIMENT, "--no-sync", cwd=place.root, more=place.environment)
    assert done.returncode == 3
    assert "1 x unavailable: fit: " in done.stderr
    assert "1 of 6 cells have no score of some evaluator" in done.stderr
    assert "partial: 1 output still to be scored" in done.stdout
    again = llmops_inside("run", EXPERIMENT, "--no-sync", cwd=place.root, more=place.environment)
    assert again.returncode == 0, again.stderr


def test_a_judge_whose_key_is_refused_is_asked_once_while_outputs_go_on_F17(place: Workplace) -> None:
    place.edit(JUDGE_PROMPT, "How well", "[[fault:401]] How well")
    result = place.run()
    asked = place.new_requests()
    assert (len(of_sorter(asked)), len(of_judge(asked))) == (6, 1)
    assert isinstance(result.stopped, AccessError)
    assert (result.run.status, result.n_without_output, result.n_without_score) == (RunStatus.STOPPED, 0, 6)
    assert figure(result.run, "exact_match").n == 6


def test_a_judges_missing_variable_is_named_before_anything_is_paid_F75(place: Workplace) -> None:
    settings = Settings({**place.environment, "OTHER_URL": ""}, utc_now)
    workspace = place.workspace()
    with place.journal() as journal:
        plan = plan_experiment(workspace, "sort", journal, now=utc_now())
        with pytest.raises(UsageError, match="OTHER_URL"):
            asyncio.run(run_experiment(workspace, plan, journal, Selection(), settings))
    assert place.new_requests() == []


def test_a_budget_that_ends_in_mid_judging_leaves_a_run_that_goes_on(place: Workplace) -> None:
    place.write_cases(*(noted(n) for n in range(20)))
    place.edit(EXPERIMENT, "seed: 3", "seed: 3\nbudget: {calls: 25}")
    first = place.run()
    assert isinstance(first.stopped, BudgetError)
    asked = place.new_requests()
    assert (len(asked), first.run.n_calls, first.run.status) == (25, 25, RunStatus.STOPPED)
    assert first.n_without_output + first.n_without_score == 20 - len(of_judge(asked))
    assert figure(first.run, "exact_match").n == first.run.n_done
    place.edit(EXPERIMENT, "calls: 25", "calls: 40")
    whole = place.run()
    assert (whole.run.id, whole.run.status, whole.run.n_calls) == (first.run.id, RunStatus.COMPLETE, 40)
    again = place.new_requests()
    assert not {each.call_id for each in asked} & {each.call_id for each in again}
    assert len(again) == 15


def test_a_crashed_chain_scores_lowest_without_a_call(place: Workplace) -> None:
    place.write("chains/code.py", "def burst(ticket):\n    raise ValueError('no')\n")
    place.write(
        "chains/burst.chain.yaml",
        'inputs: {ticket: string}\nsteps:\n  - {id: s, python: "code:burst", with: {ticket: "{{ ticket }}"}}\n',
    )
    place.edit(EXPERIMENT, "{prompt: sort}", "{chain: burst}")
    run = place.run().run
    assert place.new_requests() == []
    row = place.rows(run)[0]
    assert row.output is not None and row.output.status is Status.CRASHED
    assert (row.scores[1].value, row.scores[1].call_ids) == (1.0, ())


# --- what it takes ----------------------------------------------------------------------------------------


def test_the_estimate_counts_judgements(place: Workplace) -> None:
    plan = place.plan()
    workspace = place.workspace()
    alone = estimate(workspace, plan, {"plain": 6})
    judged = estimate(workspace, plan, {"plain": 6}, {"fit": 6, "exact_match": 6})
    assert (alone.n_calls, judged.n_calls, judged.n_judge_calls) == (6, 12, 6)
    assert alone.input_tokens is not None and judged.input_tokens is not None
    assert alone.input_usd is not None and judged.input_usd is not None
    assert judged.input_tokens > alone.input_tokens
    assert judged.input_usd == pytest.approx(judged.input_tokens / 1e6, rel=0.1)


def test_why_tells_of_judgements_alone_when_the_outputs_are_there(place: Workplace) -> None:
    place.run()
    place.edit(JUDGE_PROMPT, "How well", "How closely")
    with place.journal() as journal:
        plan = place.plan()
        journal.begin_run(plan.run, plan.cells())
        assert missing_outputs(plan, journal, Selection()) == {"plain": 0}
        assert unjudged(journal, plan.run.id, plan.evaluators, Selection().filters()) == {"fit": 6}
    told = llmops_inside("run", EXPERIMENT, "--dry-run", cwd=place.root, more=place.environment)
    assert "0 cells to carry out, 6 calls (6 of them to score)" in told.stdout


def test_prompts_of_judges_count_against_the_budget_before_any_call(place: Workplace) -> None:
    place.edit(EXPERIMENT, "seed: 3", "seed: 3\nbudget: {usd: 0.0003}")
    fits = llmops_inside("run", EXPERIMENT, "--dry-run", "--json", cwd=place.root, more=place.environment)
    place.edit(EXPERIMENT, "usd: 0.0003", "usd: 0.0002")
    assert '"n_judge_calls": 6' in fits.stdout
    done = llmops_inside("run", EXPERIMENT, "--no-sync", cwd=place.root, more=place.environment)
    assert done.returncode == 4
    assert "the prompts alone would cost" in done.stderr
    assert place.new_requests() == []


# --- signals and kills ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_judgement_that_came_home_is_paid_again_after_a_stop_F37_F40(
    tmp_path: Path, number: signal.Signals
) -> None:
    with running_model_server(delay_ms=60) as server:
        place = judge_everything(Workplace(tmp_path, server), n=90)
        with start("run", EXPERIMENT, "--no-sync", cwd=place.root, more=place.environment) as process:
            deadline = time.monotonic() + 60
            while len(of_judge(server.received)) < 40:
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.01)
            process.send_signal(number)
            stopped_at = time.time()
            process.wait(timeout=60)
        first = place.new_requests()
        # The journal commits in groups at most 50 ms old; a signal that can be caught loses nothing.
        safe_s = 0.0 if number is signal.SIGINT else 0.25
        answered = {
            each.call_id
            for each in first
            if each.status == 200 and (not safe_s or (each.answered_at or 0) < stopped_at - safe_s)
        }
        run = place.run().run
        again = place.new_requests()
    assert answered and not answered & {each.call_id for each in again}
    assert (run.status, figure(run, "fit").n) == (RunStatus.COMPLETE, 90)
    assert {each.call_id for each in first} | {each.call_id for each in again} == call_ids(place, run)


def call_ids(place: Workplace, run: Run) -> set[str]:
    """Return the ids of every answered call behind a run."""
    found = set()
    with place.journal() as journal:
        for row in journal.rows(run.id):
            assert row.output is not None
            found |= {span.call_id for span in row.output.spans if span.call_id}
            found |= set(row.scores[1].call_ids)
        calls = [journal.find_call(call_id) for call_id in found]
    assert all(call and call.state is CallState.ANSWERED for call in calls)
    return found


# --- offline ----------------------------------------------------------------------------------------------


def test_embedded_judges_offline_and_the_report_says_that_it_is_none(place: Workplace) -> None:
    place.write("llmops.yaml", "")
    place.edit(JUDGE_PROMPT, "model: other", "model: default")
    done = llmops_inside("run", EXPERIMENT, "--no-sync", cwd=place.root)
    assert done.returncode == 0, done.stderr
    assert "fit: asked of embedded, which is no judge" in " ".join(done.stdout.split())
