"""A run works like make: what is there is not done again, and what stands in its way is said and left for later."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from llmops.call import Budget, spent_budget
from llmops.call.carrying import Progress, Settings
from llmops.errors import AccessError, BudgetError, StoreError, UsageError
from llmops.plan import Plan, Selection, plan_experiment
from llmops.records import CallState, Run, RunStatus, Status
from llmops.run import find_finished, run_experiment, run_once
from llmops.steps import open_program
from llmops.steps.overrides import Overrides
from llmops.stores.journal import Journal
from tests.model_server import ModelServer, running_model_server
from tests.stores.samples import Batch, apply
from tests.workplace import FILES, KEY, Workplace, calls_in, case_of, figure, said, utc_now


def faulty(number: int, fault: str) -> dict[str, Any]:
    return case_of(number, f"[[fault:{fault}]]")


def spent_of(place: Workplace, plan: Plan, journal: Journal) -> Budget:
    return spent_budget(plan.experiment.budget, plan.run.id, journal)


# --- like make --------------------------------------------------------------------------------------------


def test_a_run_calls_and_scores_every_cell_once(place: Workplace) -> None:
    run = place.run().run
    assert len(place.new_requests()) == 6 == run.n_calls == run.n_done == run.n_cells
    assert (run.status, run.n_errors, run.n_reused) == (RunStatus.COMPLETE, 0, 0)
    assert all(row.output is not None and len(row.scores) == 1 for row in place.rows(run))
    assert figure(run, "exact_match").n == 6
    assert run.cost_usd == pytest.approx(
        sum(row.output.cost_usd or 0 for row in place.rows(run) if row.output)
    )


def test_nothing_is_called_again_when_nothing_changed(place: Workplace) -> None:
    first = place.run().run
    place.new_requests()
    again = place.run()
    assert place.new_requests() == []
    assert (again.run.id, again.run.n_calls, again.run.summary) == (first.id, first.n_calls, first.summary)
    with place.journal() as journal:
        assert find_finished(place.plan(), journal, Selection()) is not None


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("prompts/sort.prompt.yaml", "description: A label for a ticket.", "# said otherwise"),
        ("experiments/sort.experiment.yaml", "seed: 3", "seed: 3\nbudget: {usd: 5.0}\ndescription: x"),
        (
            "experiments/sort.experiment.yaml",
            "seed: 3",
            "seed: 3\ngates: [{metric: exact_match, at_least: 0.5}]",
        ),
        ("llmops.yaml", "output_per_mtok: 2", "output_per_mtok: 3"),
        ("llmops.yaml", "concurrency: 4", "concurrency: 7"),
        ("datasets/tickets.jsonl", '"id": "c1", ', '"id" : "c1" , '),
    ],
)
def test_what_has_no_meaning_for_an_output_changes_no_run(
    place: Workplace, file: str, old: str, new: str
) -> None:
    before = place.plan().run.id
    place.edit(file, old, new)
    assert place.plan().run.id == before


def test_a_changed_prompt_calls_the_variants_that_use_it_and_no_other(place: Workplace) -> None:
    place.write("prompts/kind.prompt.yaml", FILES["prompts/sort.prompt.yaml"].replace("one word", "a word"))
    place.edit("experiments/sort.experiment.yaml", "{prompt: sort}", "{prompt: sort}\n  kind: {prompt: kind}")
    assert place.run().run.n_calls == 12
    place.new_requests()
    place.edit("prompts/kind.prompt.yaml", "Answer", "Reply")
    run = place.run().run
    asked = place.new_requests()
    assert len(asked) == 6 == run.n_calls
    assert all("Reply" in received.body["messages"][0]["content"] for received in asked)


def test_one_more_case_is_one_more_call(place: Workplace) -> None:
    place.run()
    place.new_requests()
    place.write_cases(*(case_of(number) for number in range(7)))
    run = place.run().run
    assert [said(received) for received in place.new_requests()] == [case_of(6)["inputs"]["ticket"]]
    assert (run.n_cells, run.n_done, run.n_calls) == (7, 7, 1)


def test_a_changed_gold_answer_changes_scores_and_calls_nothing_F69(place: Workplace) -> None:
    before = place.run().run
    place.new_requests()
    place.write_cases(*({**case_of(number), "expected": "none of them"} for number in range(6)))
    after = place.run().run
    assert place.new_requests() == []
    assert figure(before, "exact_match").value == pytest.approx(1.0, abs=0.4)
    assert figure(after, "exact_match").value == 0.0
    assert after.id != before.id


def test_a_changed_evaluator_scores_again_and_calls_nothing(place: Workplace) -> None:
    before = place.run().run
    place.new_requests()
    place.edit("experiments/sort.experiment.yaml", "[exact_match]", "[exact_match, contains: {text: e}]")
    plan = place.plan()
    after = place.run().run
    assert place.new_requests() == []
    assert after.id != before.id
    assert [cell.cell_id for cell, _ in plan.cells()] == [
        row.output.cell_id for row in place.rows(before) if row.output
    ]
    assert figure(after, "contains").n == 6
    assert (after.n_calls, after.n_reused, after.cost_usd) == (0, 0, 0.0)


def test_fresh_pays_again_as_a_run_of_its_own_and_stays_the_one_that_is_built_on(place: Workplace) -> None:
    first = place.run().run
    again = place.run(fresh=True).run
    assert len(place.new_requests()) == 12
    assert (again.fresh, again.identity) == (1, first.identity)
    assert again.id == f"{first.id}.1"
    assert place.run().run.id == again.id
    assert place.new_requests() == []


def test_a_run_begun_in_part_is_the_same_run_completed_later(place: Workplace) -> None:
    part = place.run(limit=2)
    assert (part.run.status, part.run.n_done, part.n_selected, part.n_without_output) == (
        RunStatus.PARTIAL,
        2,
        2,
        0,
    )
    assert len(place.new_requests()) == 2
    same = place.run(limit=2)
    assert (same.run.id, place.new_requests()) == (part.run.id, [])
    whole = place.run().run
    assert (whole.id, whole.status, whole.n_calls) == (part.run.id, RunStatus.COMPLETE, 6)
    assert len(place.new_requests()) == 4


def test_a_finished_part_leaves_nothing_to_do_until_more_is_asked(place: Workplace) -> None:
    place.run(limit=2)
    plan = place.plan()
    with place.journal() as journal:
        assert find_finished(plan, journal, Selection(limit=2)) is not None
        assert find_finished(plan, journal, Selection(limit=3)) is None
        assert find_finished(plan, journal, Selection()) is None


def test_a_run_killed_before_it_was_summed_up_is_not_finished_F37(place: Workplace) -> None:
    place.run(limit=2)
    plan = place.plan()
    with place.journal() as journal:
        run = journal.find_run(plan.run.id)
        assert run is not None
        journal.save_run(run.model_copy(update={"n_done": 1, "summary": {}}))
        assert find_finished(plan, journal, Selection(limit=2)) is None
    assert figure(place.run(limit=2).run, "exact_match").n == 2
    assert len(place.new_requests()) == 2


def test_equal_calls_of_two_variants_are_paid_for_once(place: Workplace) -> None:
    place.edit(
        "experiments/sort.experiment.yaml",
        "{prompt: sort}",
        "{prompt: sort}\n  twin: {prompt: sort, set: {parameters.max_tokens: 8}}",
    )
    run = place.run().run
    assert len(place.new_requests()) == 6 == run.n_calls
    assert run.n_done == 12
    assert run.summary["plain"]["exact_match"] == run.summary["twin"]["exact_match"]


# --- chains -----------------------------------------------------------------------------------------------

CHAIN = """
inputs: {ticket: string}
steps:
  - id: colour
    prompt: sort
    with: {ticket: "{{ ticket }}"}
  - id: shade
    python: shades:darken
    with: {colour: "{{ colour.output }}"}
  - id: verdict
    prompt: judge
    with: {text: "{{ shade.output }}"}
outputs: {colour: "{{ colour.output }}", verdict: "{{ verdict.output }}"}
"""
JUDGE = """
inputs: {text: string}
messages:
  - {role: system, content: "Answer with one word only: good, bad."}
  - {role: user, content: "{{ text }}"}
"""


@pytest.fixture
def chained(place: Workplace) -> Workplace:
    place.write("chains/verdict.chain.yaml", CHAIN)
    place.write("chains/shades.py", "def darken(colour):\n    return 'dark ' + colour\n")
    place.write("prompts/judge.prompt.yaml", JUDGE)
    place.edit("experiments/sort.experiment.yaml", "{prompt: sort}", "{chain: verdict}")
    place.edit(
        "experiments/sort.experiment.yaml", "[exact_match]", '[exact_match: {output: "{{ output.colour }}"}]'
    )
    return place


def test_a_chain_asks_once_for_what_is_equal_and_leaves_a_span_for_every_step(chained: Workplace) -> None:
    run = chained.run().run
    assert len(chained.new_requests()) == 6 + 3  # three colours, judged once each
    output = chained.rows(run)[0].output
    assert output is not None
    assert [(span.name, span.parent) for span in output.spans] == [
        ("verdict", None),
        ("colour", 0),
        ("shade", 0),
        ("verdict", 0),
    ]


def test_a_changed_step_calls_that_step_and_what_follows_from_it(chained: Workplace) -> None:
    chained.run()
    chained.new_requests()
    chained.write("chains/shades.py", "def darken(colour):\n    return 'light ' + colour\n")
    chained.run()
    assert {said(received) for received in chained.new_requests()} == {
        "light red",
        "light green",
        "light blue",
    }


def test_a_changed_step_whose_output_is_the_same_stops_the_rest_early(chained: Workplace) -> None:
    before = chained.run().run
    chained.new_requests()
    chained.write("chains/shades.py", "def darken(colour):\n    return f'dark {colour}'\n")
    after = chained.run().run
    assert after.id != before.id
    assert chained.new_requests() == []
    chained.edit("prompts/sort.prompt.yaml", "Answer with one word only", "Reply with one word only")
    chained.write_cases(*({**case_of(n), "inputs": {"ticket": f"it is red {n}"}} for n in range(6)))
    chained.run()
    asked = chained.new_requests()
    assert len(asked) == 6
    assert all("Reply" in received.body["messages"][0]["content"] for received in asked)


def test_the_last_step_alone_is_called_when_it_alone_changed(chained: Workplace) -> None:
    chained.run()
    chained.new_requests()
    chained.edit("prompts/judge.prompt.yaml", "good, bad", "fine, poor")
    chained.run()
    assert [said(received) for received in chained.new_requests()] != []
    assert all(
        "fine, poor" in received.body["messages"][0]["content"] for received in chained.server.received[-3:]
    )
    assert len(chained.server.received) == 9 + 3


def test_a_step_that_crashes_scores_worst_and_is_not_tried_again_until_it_changes(chained: Workplace) -> None:
    chained.write(
        "chains/shades.py", "def darken(colour):\n    return {'red': 1}[colour] and 'dark ' + colour\n"
    )
    run = chained.run().run
    asked = len(chained.new_requests())
    crashed = [row for row in chained.rows(run) if row.output and row.output.status is Status.CRASHED]
    assert crashed and all(row.scores[0].value == 0.0 for row in crashed)
    assert all(row.output and row.output.error and row.output.error.step == "shade" for row in crashed)
    assert all("KeyError" in str(row.output and row.output.error) for row in crashed)
    assert run.status is RunStatus.COMPLETE
    assert run.n_errors == len(crashed)
    assert asked < 9
    chained.run()
    assert chained.new_requests() == []


def test_a_module_that_cannot_be_imported_is_said_before_anything_is_paid_for_F78(chained: Workplace) -> None:
    chained.write("chains/shades.py", "import no_such_package\n\ndef darken(colour):\n    return colour\n")
    with pytest.raises(UsageError, match="no_such_package"):
        chained.run()
    assert chained.new_requests() == []


# --- what goes wrong --------------------------------------------------------------------------------------


def test_an_error_is_data_and_the_next_run_tries_it_again(place: Workplace) -> None:
    place.write_cases(*(case_of(n) for n in range(5)), faulty(5, "500:1"))
    first = place.run()
    assert (first.n_without_output, first.run.status, first.run.n_errors) == (1, RunStatus.PARTIAL, 1)
    assert first.errors["unavailable"][0] == 1
    assert figure(first.run, "exact_match").n_missing == 1
    place.new_requests()
    second = place.run()
    assert len(place.new_requests()) == 1
    assert (second.n_without_output, second.run.status, second.errors) == (0, RunStatus.COMPLETE, {})
    assert figure(second.run, "exact_match").n == 6


@pytest.mark.parametrize(
    ("fault", "status", "value"),
    [
        ("length", Status.TRUNCATED, None),
        ("refusal", Status.REFUSED, None),
        ("finish_filter", Status.FILTERED, None),
        ("content_filter", Status.FILTERED, None),
        ("null-content", Status.ERROR, None),
        ("tool-calls", Status.ERROR, None),
        ("html", Status.ERROR, None),
    ],
)
def test_every_odd_reply_has_an_outcome_of_its_own_F12_F13_F16_F23(
    place: Workplace, fault: str, status: Status, value: float | None
) -> None:
    place.write_cases(faulty(1, fault))
    row = place.rows(place.run().run)[0]
    assert row.output is not None
    assert row.output.status is status
    assert row.output.value != "None"
    if status in {Status.REFUSED, Status.FILTERED}:
        assert [score.value for score in row.scores] == [value]
        assert row.output.valid is None


@pytest.mark.parametrize("fault", ["usage-missing", "usage-strings", "usage-negative", "usage-huge"])
def test_a_reply_without_usage_has_an_unknown_cost_and_never_none_at_all_F26(
    place: Workplace, fault: str
) -> None:
    place.write_cases(case_of(0), faulty(1, fault))
    run = place.run().run
    by_id = {row.case.id: row.output for row in place.rows(run)}
    odd, plain = by_id["c1"], by_id["c0"]
    assert odd is not None and plain is not None
    assert (odd.status, odd.cost_usd, odd.usage_estimated) == (Status.OK, None, True)
    assert plain.cost_usd is not None and plain.cost_usd > 0
    assert figure(run, "cost_usd").value is None
    assert run.cost_usd is None


@pytest.mark.parametrize("text", ["NaN", '{"a": NaN}', "[1e999]", '{"a": -Infinity}'])
def test_a_number_that_is_none_breaks_no_store(place: Workplace, text: str) -> None:
    place.write("chains/say.py", f"def say(ticket):\n    return {text!r}\n")
    place.write(
        "chains/verdict.chain.yaml",
        CHAIN.replace("shades:darken", "say:say").replace(
            'colour: "{{ colour.output }}"}\n  - id: v', 'ticket: "{{ ticket }}"}\n  - id: v'
        ),
    )
    place.write("prompts/judge.prompt.yaml", JUDGE)
    place.edit("experiments/sort.experiment.yaml", "{prompt: sort}", "{chain: verdict}")
    assert place.run().run.n_done == 6


def test_a_model_that_is_not_there_costs_one_request_and_the_other_goes_on_F17_F18_F76(
    place: Workplace,
) -> None:
    place.edit("experiments/sort.experiment.yaml", "seed: 3", "seed: 3\nmatrix: {model: [default, other]}")
    place.other = f"{place.server.base_url}/nowhere"
    result = place.run()
    assert len(place.new_requests()) == 6
    assert isinstance(result.stopped, AccessError)
    assert "OTHER_URL" in str(result.stopped)
    assert result.run.status is RunStatus.STOPPED
    assert figure(result.run, "exact_match", "plain/default").n == 6
    assert (result.n_without_output, result.errors["access"][0]) == (6, 6)


def test_a_refused_key_costs_one_request_and_names_its_variable_F17(place: Workplace) -> None:
    place.edit("prompts/sort.prompt.yaml", "Answer", "[[fault:401]] Answer")
    result = place.run()
    assert len(place.new_requests()) == 1
    assert "MODEL_KEY" in str(result.stopped) and KEY not in str(result.stopped)
    place.edit("prompts/sort.prompt.yaml", "[[fault:401]] Answer", "Answer")
    assert place.run().run.status is RunStatus.COMPLETE


def test_a_request_that_is_wrong_for_every_case_stops_after_a_few_F11(place: Workplace) -> None:
    place.write_cases(*(faulty(n, "400") for n in range(40)))
    result = place.run()
    assert isinstance(result.stopped, AccessError)
    assert "made to fail" in str(result.stopped)
    assert 3 <= len(place.new_requests()) <= 3 + 4
    assert result.run.status is RunStatus.STOPPED


def test_wrong_requests_stop_nothing_once_one_was_answered_F11(place: Workplace) -> None:
    place.write_cases(*(case_of(n) for n in range(12)))
    place.edit("llmops.yaml", "concurrency: 4", "concurrency: 1")
    order = place.plan().order
    place.write_cases(*(faulty(n, "400") if n in order[1:6] else case_of(n) for n in range(12)))
    result = place.run()
    assert (result.stopped, result.n_without_output) == (None, 5)


def test_a_missing_variable_is_named_before_anything_is_called_F75(place: Workplace) -> None:
    settings = Settings({"MODEL_URL": place.server.openai_url, "MODEL_KEY": " "}, utc_now)
    workspace = place.workspace()
    with place.journal() as journal:
        plan = plan_experiment(workspace, "sort", journal, now=utc_now())
        with pytest.raises(UsageError, match="MODEL_KEY"):
            asyncio.run(run_experiment(workspace, plan, journal, Selection(), settings))
    assert place.new_requests() == []


def test_outputs_that_are_there_need_no_key(place: Workplace) -> None:
    place.run()
    place.edit("experiments/sort.experiment.yaml", "[exact_match]", "[contains: {text: e}]")
    workspace = place.workspace()
    with place.journal() as journal:
        plan = plan_experiment(workspace, "sort", journal, now=utc_now())
        result = asyncio.run(run_experiment(workspace, plan, journal, Selection(), Settings({}, utc_now)))
    assert figure(result.run, "contains").n == 6


# --- budgets ----------------------------------------------------------------------------------------------


def test_a_budget_of_calls_is_never_passed_and_the_run_goes_on_with_a_larger_one_S29(
    place: Workplace,
) -> None:
    place.write_cases(*(case_of(n) for n in range(20)))
    place.edit("experiments/sort.experiment.yaml", "seed: 3", "seed: 3\nbudget: {calls: 7}")
    first = place.run()
    assert isinstance(first.stopped, BudgetError)
    assert (len(place.new_requests()), first.run.n_calls, first.run.status) == (7, 7, RunStatus.STOPPED)
    assert first.n_without_output == 13
    again = place.run()
    assert isinstance(again.stopped, BudgetError)
    assert place.new_requests() == []
    place.edit("experiments/sort.experiment.yaml", "calls: 7", "calls: 20")
    whole = place.run()
    assert (whole.stopped, whole.run.status, whole.run.n_calls) == (None, RunStatus.COMPLETE, 20)
    assert whole.run.id == first.run.id
    assert len(place.new_requests()) == 13


def test_a_budget_in_usd_is_kept_over_interruptions_S29(place: Workplace) -> None:
    place.write_cases(*(case_of(n) for n in range(20)))  # about 15 millionths a call, at most 80
    place.edit("experiments/sort.experiment.yaml", "seed: 3", "seed: 3\nbudget: {usd: 0.0002}")
    result = place.run()
    assert isinstance(result.stopped, BudgetError)
    assert result.run.cost_usd is not None and 0 < result.run.cost_usd <= 0.0002
    again = place.run()
    assert isinstance(again.stopped, BudgetError)
    assert again.run.cost_usd is not None and again.run.cost_usd <= 0.0002
    spent = [row.output.cost_usd or 0.0 for row in place.rows(again.run) if row.output is not None]
    assert sum(spent) == pytest.approx(again.run.cost_usd)


def test_calls_of_a_carrying_out_that_was_killed_count_against_the_budget_S29_F37(place: Workplace) -> None:
    place.run()
    plan = place.plan()
    with place.journal() as journal:
        run = journal.find_run(plan.run.id)
        assert run is not None
        # As a kill leaves it: begun, calls in the journal, and no record of what they were.
        journal.save_run(run.model_copy(update={"n_calls": 0, "cost_usd": 0.0, "finished_at": None}))
        budget = spent_of(place, plan, journal)
        assert (budget.n_calls, budget.n_unpriced) == (6, 0)
        assert budget.spent_usd == pytest.approx(run.cost_usd)
        call = calls_in(journal)[0]
        unsent = {"attempts": 0, "reply": None, "cost_usd": None, "answered_at": None}
        for state in (CallState.SENT, CallState.PLANNED):
            lost = call.model_copy(update={**unsent, "id": state * 8, "state": state})
            with journal.hold(run.id):
                apply(journal, Batch(calls=[lost]))
            with journal.hold("another run"):  # whose calls are no business of ours
                apply(journal, Batch(calls=[lost.model_copy(update={"id": f"another {state}"})]))
        with journal.hold(run.id):
            more = spent_of(place, plan, journal).total
        assert (more.n_calls, more.n_unknown, more.n_adrift) == (6, 1, 1)  # what was only planned never left
        assert more.hidden_usd == call.upper_usd and more.usd == budget.spent_usd


def test_the_time_budget_stops_the_run_and_it_goes_on_later(tmp_path: Path) -> None:
    with running_model_server(delay_ms=100) as slow:
        place = Workplace(tmp_path, slow)
        place.write_cases(*(case_of(n) for n in range(40)))
        place.edit("experiments/sort.experiment.yaml", "seed: 3", "seed: 3\nbudget: {wall_s: 0.3}")
        first = place.run()
        assert isinstance(first.stopped, BudgetError)
        assert 0 < first.run.n_done < 40
        answered = {row.case.id for row in place.rows(first.run) if row.output is not None}
        place.edit("experiments/sort.experiment.yaml", "wall_s: 0.3", "wall_s: 60")
        place.new_requests()
        whole = place.run()
        assert whole.run.status is RunStatus.COMPLETE
        asked = {f"c{said(received).split()[1]}" for received in place.new_requests()}
    assert not asked & answered


# --- repeats, models, details -----------------------------------------------------------------------------


def test_repeats_differ_at_a_temperature_and_collapse_to_case_means(place: Workplace) -> None:
    place.write("llmops.yaml", "")
    place.edit("prompts/sort.prompt.yaml", "{max_tokens: 8}", "{temperature: 1.5}")
    place.edit("experiments/sort.experiment.yaml", "seed: 3", "seed: 3\nrepeats: 3")
    place.write_cases(*({**case_of(n), "inputs": {"ticket": f"number {n}"}} for n in range(30)))
    run = place.run().run
    by_case: dict[str, list[Any]] = {}
    for row in place.rows(run):
        assert row.output is not None
        by_case.setdefault(row.case.id, []).append(row.output.value)
    assert run.n_cells == 90
    assert any(len(set(values)) > 1 for values in by_case.values())
    assert figure(run, "exact_match").n == 30
    assert figure(run, "error_rate").n == 90


def test_the_embedded_model_gives_the_same_run_twice(tmp_path: Path, server: ModelServer) -> None:
    values = []
    for name in ("one", "two"):
        place = Workplace(tmp_path / name, server)
        place.write("llmops.yaml", "")
        run = place.run().run
        values.append([row.output.value for row in place.rows(run) if row.output])
    assert values[0] == values[1]


def test_progress_is_told_cell_by_cell(place: Workplace) -> None:
    told: list[Progress] = []
    workspace = place.workspace()
    settings = Settings(place.environment, utc_now, concurrency=2, progress=told.append)
    with place.journal() as journal:
        plan = plan_experiment(workspace, "sort", journal, now=utc_now())
        asyncio.run(run_experiment(workspace, plan, journal, Selection(), settings))
    assert [one.n_done for one in told] == list(range(1, 7))
    assert {one.n_total for one in told} == {6}
    assert told[-1].n_calls == 6


def test_the_key_is_in_no_record_and_no_file_S07(place: Workplace) -> None:
    place.write_cases(case_of(0), faulty(1, "echo-key"), faulty(2, "500"), faulty(3, "401-echo"))
    place.edit("llmops.yaml", "concurrency: 4", "concurrency: 1")
    result = place.run()
    assert "MODEL_KEY" in str(result.errors)
    texts = [json.dumps(row.model_dump(mode="json")) for row in place.rows(result.run)]
    assert KEY not in "".join([*texts, str(result)])
    for path in place.root.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path


def test_one_prompt_is_run_once_and_paid_for_once(place: Workplace) -> None:
    workspace = place.workspace()
    program = open_program(workspace.resolve("prompt", "sort"), Overrides(), seed=0)
    settings = Settings(place.environment, utc_now)

    def once(fresh: int) -> Any:
        with place.journal() as journal:
            ticket = {"ticket": "it is green"}
            return asyncio.run(run_once(workspace, program, ticket, journal, settings, fresh=fresh)).value

    assert [once(0), once(0)] == ["green", "green"]
    assert len(place.new_requests()) == 1
    assert once(1) == "green"
    assert len(place.new_requests()) == 1


def test_a_store_that_cannot_be_written_ends_the_run_and_keeps_what_came_home_F45(place: Workplace) -> None:
    place.write_cases(*(case_of(n) for n in range(120)))
    workspace = place.workspace()
    settings = Settings(place.environment, utc_now)
    with place.journal() as journal:
        plan = plan_experiment(workspace, "sort", journal, now=utc_now())
        journal.begin_run(plan.run, plan.cells())
        with (
            journal._database.engine.begin() as connection
        ):  # what a failing disk amounts to, at a known moment
            connection.exec_driver_sql(
                "CREATE TRIGGER full BEFORE INSERT ON outputs BEGIN SELECT RAISE(ABORT, 'disk full'); END"
            )
        with pytest.raises(StoreError, match="disk full"):
            asyncio.run(run_experiment(workspace, plan, journal, Selection(), settings))
        sent = {received.call_id for received in place.new_requests()}
        calls = [journal.find_call(call_id) for call_id in sent]
        assert 0 < len(sent) < 120
        assert all(call and call.state is CallState.ANSWERED for call in calls)
        with journal._database.engine.begin() as connection:
            connection.exec_driver_sql("DROP TRIGGER full")
    place.run()
    assert not sent & {received.call_id for received in place.new_requests()}


def test_a_budget_without_a_run_before_is_whole(place: Workplace) -> None:
    with place.journal() as journal:
        assert spent_of(place, place.plan(), journal) == Budget()


def test_the_record_of_a_run_survives_the_journal(place: Workplace) -> None:
    run = place.run().run
    with place.journal() as journal:
        found = journal.find_run(run.id)
    assert found == run
    assert Run.model_validate_json(run.model_dump_json()) == run
