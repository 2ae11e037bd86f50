"""Recorded variants from file to figures: scored like any other, never called, nothing made up."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from llmops.check import check_workspace, find_workspace_notes
from llmops.compare import compare_run
from llmops.errors import DefinitionError, UsageError
from llmops.plan import Plan, estimate, reasons, select
from llmops.records import ErrorInfo, RunStatus, Status, Usage
from llmops.steps.recorded import RecordedProgram
from llmops.stores.mlflow import open_mlflow
from llmops.sync import sync_runs
from tests.model_server import ModelServer
from tests.workplace import Workplace, figure, utc_now

EXPERIMENT = """
dataset: tickets
variants:
  first: {recorded: outputs/first.jsonl}
  second: {recorded: outputs/second.csv}
evaluators: [exact_match]
baseline: first
budget: {calls: 0}
"""
FIRST = [
    {
        "id": f"c{n}",
        "output": ("red", "green", "blue")[n % 3],
        "latency_s": 0.5,
        "input_tokens": 7,
        "model": "sys",
    }
    for n in range(6)
]
SECOND = "id,output,output_tokens,cost_usd,error\nc0,red,1,0.5,\nc1,red,2,0.5,\nc2,,,,timeout\nc3,red,1,,\nc5,blue,,,\n"


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    """Give a project whose model must not be asked: its server does not run."""
    place = Workplace(tmp_path, ModelServer())
    place.write("experiments/sort.experiment.yaml", EXPERIMENT)
    write_first(place, FIRST)
    place.write("outputs/second.csv", SECOND)
    return place


def write_first(place: Workplace, rows: list[dict[str, Any]]) -> None:
    place.write("outputs/first.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


def only_first(place: Workplace) -> None:
    place.edit("experiments/sort.experiment.yaml", "  second: {recorded: outputs/second.csv}\n", "")


def told(place: Workplace) -> list[str]:
    return [str(finding) for finding in check_workspace(place.workspace())]


def notes(place: Workplace) -> list[str]:
    return list(find_workspace_notes(place.workspace(), today=date(2026, 1, 1)))


# --- a run ------------------------------------------------------------------------------------------------


def test_recorded_outputs_are_scored_and_nothing_is_called(place: Workplace) -> None:
    run = place.run().run
    assert run.n_calls == 0
    assert run.cost_usd == 0
    first, second = figure(run, "exact_match", "first"), figure(run, "exact_match", "second")
    assert (first.value, first.n, first.n_missing) == (1.0, 6, 0)
    assert (second.value, second.n, second.n_missing) == (0.75, 4, 2)
    with place.journal() as journal:
        (comparison,) = compare_run(journal, run, now=utc_now())
    assert comparison.n_cases == 6
    assert comparison.effects[0].n == 4


def test_what_the_other_system_said_of_itself_is_measured_and_the_rest_stays_unknown(
    place: Workplace,
) -> None:
    run = place.run().run
    latency = figure(run, "latency_s", "first")
    assert (latency.value, latency.n, latency.n_missing) == (0.5, 6, 0)
    assert figure(run, "input_tokens.sum", "first").value == 42
    assert figure(run, "cost_usd", "first").value is None
    assert "latency_s" not in run.summary["second"]
    tokens = figure(run, "output_tokens", "second")
    assert (tokens.n, tokens.n_missing) == (3, 3)


def test_an_output_holds_its_figures_and_one_span(place: Workplace) -> None:
    write_first(
        place, [{**FIRST[0], "output": {"a": [1]}, "output_tokens": 2, "cost_usd": 0.25, "ttft_s": 0.125}]
    )
    only_first(place)
    output = next(row.output for row in place.rows(place.run(cases=["c0"]).run) if row.case.id == "c0")
    assert output is not None
    assert (output.value, output.status, output.returned_model) == ({"a": [1]}, Status.OK, "sys")
    assert (output.latency_s, output.ttft_s, output.cost_usd) == (0.5, 0.125, 0.25)
    assert (output.input_tokens, output.output_tokens, output.usage_estimated) == (7, 2, False)
    (span,) = output.spans
    assert (span.kind, span.name, span.model, span.call_id) == ("recorded", "first.jsonl", "sys", None)
    assert (span.duration_s, span.usage) == (0.5, Usage(input_tokens=7, output_tokens=2))
    assert span.inputs == {"ticket": "ticket 0 "}


def test_errors_and_gaps_are_errors_of_the_run_with_no_score(place: Workplace) -> None:
    result = place.run()
    outputs = {row.case.id: row.output for row in place.rows(result.run) if row.variant == "second"}
    failed, missing = outputs["c2"], outputs["c4"]
    assert failed is not None and missing is not None
    assert failed.error == ErrorInfo(kind="recorded", message="timeout", step="second.csv")
    assert missing.error == ErrorInfo(
        kind="unrecorded", message="outputs/second.csv has no output for case 'c4'", step="second.csv"
    )
    assert {failed.status, missing.status} == {Status.ERROR}
    assert figure(result.run, "error_rate", "second").value == pytest.approx(2 / 6)
    assert {kind: n for kind, (n, _) in result.errors.items()} == {"recorded": 1, "unrecorded": 1}
    assert result.n_without_output == 2
    assert result.run.status is RunStatus.PARTIAL


def test_half_an_answer_stays_beside_its_error(place: Workplace) -> None:
    write_first(place, [{"id": "c0", "output": "re", "error": "cut off", "latency_s": 9}])
    only_first(place)
    output = next(row.output for row in place.rows(place.run(cases=["c0"]).run) if row.case.id == "c0")
    assert output is not None
    assert (output.value, output.status, output.latency_s) == ("re", Status.ERROR, 9.0)


def test_a_repeat_has_its_own_output_or_none(place: Workplace) -> None:
    only_first(place)
    place.edit("experiments/sort.experiment.yaml", "baseline: first", "repeats: 2")
    write_first(place, [*FIRST, {"id": "c1", "output": "second try", "repeat": 1}])
    result = place.run()
    values = {(row.case.id, row.repeat): row.output for row in place.rows(result.run)}
    again = values["c1", 1]
    assert again is not None and again.value == "second try"
    assert result.errors["unrecorded"][0] == 5
    assert "(repeat 1)" in result.errors["unrecorded"][1]


def test_a_complete_file_makes_a_complete_run_that_is_not_done_again(place: Workplace) -> None:
    only_first(place)
    first = place.run()
    assert first.run.status is RunStatus.COMPLETE
    again = place.run()
    assert again.run.id == first.run.id
    assert again.n_selected == 6
    assert [row.output for row in place.rows(again.run)] == [row.output for row in place.rows(first.run)]


def test_a_changed_row_makes_the_variant_anew_and_a_new_format_does_not(place: Workplace) -> None:
    only_first(place)
    before = place.plan().run
    write_first(place, list(reversed([{"x-seen": 1, **row} for row in FIRST])))
    assert place.plan().run.identity == before.identity
    write_first(place, [{**FIRST[0], "output": "other"}, *FIRST[1:]])
    after = place.plan().run
    assert after.identity != before.identity
    (reason,) = reasons(after, before)
    assert reason.startswith("variant first changed: outputs/first.jsonl ")


# --- a plan -----------------------------------------------------------------------------------------------


def test_a_plan_of_recorded_variants_asks_no_model_and_takes_nothing(place: Workplace) -> None:
    plan = place.plan()
    first = plan.run.variants[0]
    assert (first.kind, first.definition, first.reference) == (
        "recorded",
        "outputs/first.jsonl",
        "outputs/first.jsonl",
    )
    assert (first.models, first.prompts, first.parameters) == ((), {}, {})
    needed = estimate(place.workspace(), plan, {"first": 6, "second": 6})
    assert (needed.n_calls, needed.input_tokens, needed.input_usd) == (0, 0, 0.0)
    with pytest.raises(UsageError, match="there are: none"):
        select(plan, models=["default"])


def test_the_matrix_does_not_multiply_recorded_outputs(place: Workplace) -> None:
    text = (
        "dataset: tickets\nvariants: {a: {prompt: sort}, r: {recorded: outputs/first.jsonl}}\nbaseline: r\n"
    )
    place.write("experiments/sort.experiment.yaml", text + "matrix: {model: [default, other]}\n")
    variants = place.plan().run.variants
    assert {variant.name: variant.kind for variant in variants} == {
        "a/default": "prompt",
        "a/other": "prompt",
        "r": "recorded",
    }
    assert told(place) == []


def test_a_plan_notes_what_is_missing_and_what_is_of_no_case(place: Workplace) -> None:
    place.write("outputs/second.csv", SECOND + "C4,green,,,\nsomething,x,,,\n")
    shown = [
        "variant second: outputs/second.csv has no output for 1 of 6 cases: 'c4'; each is an error",
        "variant second: 2 of 7 outputs in outputs/second.csv are of no case of tickets: 'C4', 'something'",
    ]
    assert list(place.plan().notes) == shown
    assert notes(place) == [f"sort: {note}" for note in shown]
    assert told(place) == []


def test_outputs_for_another_split_are_no_strangers(place: Workplace) -> None:
    only_first(place)
    place.write("datasets/tickets.dataset.yaml", "splits: {train: 0.5, test: 0.5}\n")
    place.edit("experiments/sort.experiment.yaml", "dataset: tickets", "dataset: tickets/test")
    assert place.plan().notes == ()
    assert place.run().run.status is RunStatus.COMPLETE


def test_repeats_that_nobody_asks_for_are_noted(place: Workplace) -> None:
    only_first(place)
    write_first(place, [*FIRST, {"id": "c1", "output": "x", "repeat": 1}])
    assert notes(place) == [
        "sort: variant first: 1 outputs in outputs/first.jsonl are of repeats that are not asked for"
    ]


# --- elsewhere in time ------------------------------------------------------------------------------------


@pytest.fixture
def committed(place: Workplace, git: Callable[..., str]) -> Workplace:
    only_first(place)
    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "first")
    place.edit("experiments/sort.experiment.yaml", "baseline: first", "baseline: git:main")
    return place


def test_a_git_baseline_is_the_file_of_that_revision(committed: Workplace) -> None:
    write_first(committed, [{**row, "output": "red"} for row in FIRST])
    run = committed.run().run
    assert [(v.name, v.reference, v.is_baseline) for v in run.variants] == [
        ("first@git:main", "outputs/first.jsonl@git:main", True),
        ("first", "outputs/first.jsonl", False),
    ]
    assert figure(run, "exact_match", "first@git:main").value == 1
    assert figure(run, "exact_match", "first").value == pytest.approx(1 / 3)
    assert told(committed) == []


@pytest.mark.parametrize(
    ("baseline", "said"),
    [
        ("git:main", "no file outputs/late.jsonl in git:"),
        ("alias:production", "recorded outputs are never released"),
    ],
)
def test_outputs_that_did_not_stand_there_are_no_baseline(
    committed: Workplace, baseline: str, said: str
) -> None:
    committed.write("outputs/late.jsonl", json.dumps(FIRST[0]) + "\n")
    text = committed.root / "experiments/sort.experiment.yaml"
    changed = text.read_text().replace("git:main", baseline).replace("first.jsonl", "late.jsonl")
    committed.write("experiments/sort.experiment.yaml", changed)
    with pytest.raises(DefinitionError, match=said):
        committed.plan()
    assert said in "\n".join(told(committed))
    committed.edit("experiments/sort.experiment.yaml", "evaluators", "missing_baseline: create\nevaluators")
    assert [variant.name for variant in committed.plan().run.variants] == ["first"]


# --- what check says --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            '{"id": "c1", "outptu": 1}',
            "outputs/first.jsonl:1: unknown column 'outptu'\n    did you mean 'output'?",
        ),
        ('{"id": "c1", "output": "x"', "outputs/first.jsonl:1:27: "),
        ('{"id": "x1", "output": "x"}', "variants:"),
    ],
)
def test_check_tells_what_is_wrong_with_a_file_and_where(place: Workplace, row: str, said: str) -> None:
    only_first(place)
    place.write("outputs/first.jsonl", row)
    findings = told(place)
    assert len(findings) == 1
    if said == "variants:":
        said = (
            "experiments/sort.experiment.yaml:4:11: variant first: outputs/first.jsonl has no output for any case "
            "of tickets\n    its ids are like 'x1'"
        )
    assert findings[0].startswith(said)


def test_check_tells_of_a_file_that_is_not_there_with_the_nearest_name(place: Workplace) -> None:
    place.edit("experiments/sort.experiment.yaml", "outputs/first.jsonl", "outputs/frist.jsonl")
    assert told(place) == [
        "experiments/sort.experiment.yaml:4:3: variant first: no file outputs/frist.jsonl in the work tree; "
        "did you mean 'first.jsonl'?"
    ]
    with pytest.raises(DefinitionError, match=r"did you mean 'first\.jsonl'"):
        place.plan()


def test_a_link_out_of_the_project_is_not_followed(
    place: Workplace, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside") / "first.jsonl"
    outside.write_text(json.dumps(FIRST[0]))
    (place.root / "outputs/first.jsonl").unlink()
    (place.root / "outputs/first.jsonl").symlink_to(outside)
    assert "leads out of the project" in "\n".join(told(place))


def test_a_judged_expression_sees_a_recorded_output_like_any_other(place: Workplace) -> None:
    only_first(place)
    write_first(place, [{**row, "output": {"answer": row["output"]}} for row in FIRST])
    judged = 'evaluators: [{exact_match: {output: "{{ output.answer }}"}}]'
    place.edit("experiments/sort.experiment.yaml", "evaluators: [exact_match]", judged)
    assert figure(place.run().run, "exact_match", "first").value == 1


# --- MLflow -----------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow")
@pytest.mark.filterwarnings("ignore::FutureWarning:mlflow")
def test_mlflow_shows_inputs_and_recorded_outputs_without_a_prompt(place: Workplace) -> None:
    run = place.run().run
    uri = f"sqlite:///{place.root}/mlflow.db"
    with place.journal() as journal:
        journal.save_run(run)
        (delivered,) = sync_runs(journal, place.workspace(), uri, now=utc_now, progress=lambda _: None)
    assert delivered.error is None
    with closing(open_mlflow(uri, environment={})) as store:
        client = store.connection.client
        found = client.get_run(delivered.ids["variants"]["first"])
        assert found.data.params == {
            "variant": "first",
            "recorded": "outputs/first.jsonl",
            "dataset": "tickets",
            "dataset_version": run.dataset.version[:12],
        }
        traces = client.search_traces(locations=[delivered.ids["experiment_id"]], run_id=found.info.run_id)
        spans = {span.name: span for trace in traces for span in trace.data.spans}
        assert spans["c1"].inputs["ticket"].startswith("ticket 1")
        assert spans["c1"].outputs == "green"
        assert spans["first.jsonl"].outputs in {"red", "green", "blue"}
        assert not client.search_prompts()


def test_programs_are_found_by_the_name_of_their_file(place: Workplace) -> None:
    plan: Plan = place.plan()
    programs: Iterator[Any] = iter(plan.programs.values())
    names = [program.name for program in programs if isinstance(program, RecordedProgram)]
    assert names == ["first.jsonl", "second.csv"]
