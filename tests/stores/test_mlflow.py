"""What stands in MLflow after a run was delivered, read back from a real store through MLflow's own client."""

from __future__ import annotations

import json
import math
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from llmops.definitions.base import identity_of
from llmops.records import Comparison, Row, Run, RunStatus
from llmops.sync import Delivered
from tests.mirrored_run import HOSTILE, NOW, PROMPT, Mirror

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow"),
    pytest.mark.filterwarnings("ignore::FutureWarning:mlflow"),
]
CANDIDATE = "few-shot"
BASELINE = "zero-shot"


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirror]:
    with closing(Mirror(tmp_path_factory.mktemp("project"))) as made:
        yield made


@pytest.fixture(scope="module")
def delivered(mirror: Mirror) -> Delivered:
    mirror.whole_run()
    (found,) = mirror.sync()
    assert found.error is None
    return found


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Mirror]:
    with closing(Mirror(tmp_path)) as made:
        yield made


def run_of(mirror: Mirror, delivered: Delivered, variant: str | None = None) -> Any:
    ids = delivered.ids
    return mirror.client.get_run(ids["run_id"] if variant is None else ids["variants"][variant])


def scores(trace: Any) -> Mapping[str, Any]:
    return {mark.name: mark for mark in trace.info.assessments}


# --- runs -------------------------------------------------------------------------------------------------


def test_a_run_is_a_parent_with_one_run_for_each_variant(mirror: Mirror, delivered: Delivered) -> None:
    experiment = mirror.client.get_experiment_by_name("triage")
    parent = run_of(mirror, delivered)
    assert experiment.tags["mlflow.experimentKind"] == "genai_development"
    assert experiment.tags["mlflow.note.content"] == "Do examples help?"
    assert parent.info.run_name == parent.data.tags["llmops.run_id"] == delivered.run_id
    assert parent.data.tags["mlflow.source.git.commit"] == "b" * 40
    assert parent.data.tags["llmops.git_dirty"] == "true"
    assert parent.data.params["seed"] == "7"
    for name in (BASELINE, CANDIDATE):
        child = run_of(mirror, delivered, name)
        assert child.info.run_name == child.data.tags["llmops.variant"] == name
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.data.tags["mlflow.runType"] == "genai_evaluate"
        assert child.data.tags["llmops.variant_identity"] == identity_of(name)
        assert child.data.tags["llmops.returned_models"] == "embedded-1-0611"
        assert child.info.status == parent.info.status == "FINISHED"
    assert (
        run_of(mirror, delivered, CANDIDATE).data.tags["llmops.baseline_run"]
        == delivered.ids["variants"][BASELINE]
    )


def test_the_note_is_the_report_with_a_link_to_the_cases_side_by_side(
    mirror: Mirror, delivered: Delivered
) -> None:
    note = run_of(mirror, delivered).data.tags["mlflow.note.content"]
    ids = delivered.ids["variants"]
    page = f"evaluation-runs?selectedRunUuid={ids[CANDIDATE]}&compareToRunUuid={ids[BASELINE]}"
    assert page in note
    assert "exact" in note
    assert len(note) <= 8_000


def test_parameters_say_what_was_tried_and_a_long_one_says_that_it_was_shortened(
    mirror: Mirror, delivered: Delivered
) -> None:
    params = run_of(mirror, delivered, CANDIDATE).data.params
    assert params["prompt"] == "triage"
    assert (params["model"], params["provider"]) == ("default", "embedded")
    assert params["parameters.max_tokens"] == "8"
    assert params["dataset"] == "tickets/test"
    assert run_of(mirror, delivered, BASELINE).data.params["set.examples.k"] == "0"
    long = params["set.note:3a: é"]
    assert len(long) == 6_000
    assert long.endswith("[shortened from 7000 characters; whole in run.json]")


def test_metrics_carry_mean_count_missing_and_interval(mirror: Mirror, delivered: Delivered) -> None:
    metrics = run_of(mirror, delivered, CANDIDATE).data.metrics
    assert metrics["exact_match/mean"] == 0.85
    assert metrics["exact_match/n"] == 12
    assert metrics["exact_match/ci_low"] == 0.75
    assert (metrics["closeness/n"], metrics["closeness/missing"]) == (10, 2)
    assert metrics["class.v2/macro_f1"] == 0.7
    assert metrics["class.v2/macro_f1/ci_high"] == 0.9
    assert metrics["class.v2/f1.not:2f:found :40: é"] == 0.5
    assert metrics["closeness/:6e:"] == 0.5
    assert metrics["latency_s/p95"] == 0.3
    assert metrics["error_rate"] == 1 / 12
    assert metrics["slice/edge/exact_match/mean"] == 0.5


def test_what_nobody_knows_is_absent_and_never_0(mirror: Mirror, delivered: Delivered) -> None:
    known = run_of(mirror, delivered, BASELINE).data.metrics
    unknown = run_of(mirror, delivered, CANDIDATE).data.metrics
    assert known["cost_usd/total"] == 0.0012
    assert "cost_usd/total" not in unknown
    assert "cost_usd/total" not in run_of(mirror, delivered).data.metrics


def test_the_dataset_is_an_input_known_by_its_content(mirror: Mirror, delivered: Delivered) -> None:
    (entry,) = run_of(mirror, delivered, CANDIDATE).inputs.dataset_inputs
    assert (entry.dataset.name, entry.dataset.digest) == ("tickets/test", "d" * 36)
    assert json.loads(entry.dataset.source) == {
        "path": "datasets/tickets.jsonl",
        "split": "test",
        "commit": "b" * 40,
    }
    assert [(tag.key, tag.value) for tag in entry.tags] == [("mlflow.data.context", "eval")]


def test_files_hold_every_row_the_run_and_its_comparisons(
    mirror: Mirror, delivered: Delivered, tmp_path: Path
) -> None:
    def text(run_id: str, name: str) -> str:
        return Path(mirror.client.download_artifacts(run_id, name, str(tmp_path))).read_text(encoding="utf-8")

    parent = delivered.ids["run_id"]
    for name in (BASELINE, CANDIDATE):
        lines = text(delivered.ids["variants"][name], "rows.jsonl").splitlines()
        rows = [Row.model_validate(json.loads(line)) for line in lines]
        assert rows == list(mirror.journal.rows(delivered.run_id, variant=name))
    assert rows[-1].case.inputs["ticket"] == HOSTILE
    assert Run.model_validate_json(text(parent, "run.json")) == mirror.journal.find_run(delivered.run_id)
    (comparison,) = json.loads(text(parent, "comparisons.json"))
    assert Comparison.model_validate(comparison).candidate.variant == CANDIDATE
    assert "exact" in text(parent, "report.md")


# --- prompts and models -----------------------------------------------------------------------------------


def test_a_prompt_is_mirrored_with_its_examples_visible(mirror: Mirror, delivered: Delivered) -> None:
    (version,) = mirror.client.search_prompt_versions("triage")
    roles = [message["role"] for message in version.template]
    assert roles == ["system", "examples", "user"]
    assert (
        version.template[1]["content"]
        == "2 of tickets, first; each as\nuser: {{ ticket }}\nassistant: {{ expected }}"
    )
    assert version.template[2]["content"] == "{{ ticket }}"
    assert version.tags["llmops.sha256"] == mirror.workspace.identity("prompt", "triage")
    assert version.tags["llmops.path"] == "prompts/triage.prompt.yaml"
    assert version.response_format == {"type": "string", "enum": ["billing", "shipping", "other"]}
    assert version.model_config["max_tokens"] == 8
    assert version.model_config["stop_sequences"] == ["END"]


def test_runs_models_and_traces_are_linked_with_the_prompt(mirror: Mirror, delivered: Delivered) -> None:
    child = run_of(mirror, delivered, CANDIDATE)
    model = mirror.client.get_logged_model(child.inputs.model_inputs[0].model_id)
    trace = mirror.traces(delivered, CANDIDATE)["t-00001"]
    linked = [{"name": "triage", "version": "1"}]
    for tags in (child.data.tags, model.tags, trace.info.tags):
        assert json.loads(tags["mlflow.linkedPrompts"]) == linked
    assert trace.info.trace_metadata["mlflow.modelId"] == model.model_id
    prompts = mirror.client.search_prompts(f'experiment_id = "{delivered.ids["experiment_id"]}"')
    assert [prompt.name for prompt in prompts] == ["triage"]


def test_a_variant_is_one_model_however_often_it_runs(fresh: Mirror) -> None:
    fresh.whole_run(n_cases=3)
    fresh.whole_run(n_cases=3, fresh=1)
    first, second = fresh.sync()
    assert (first.error, second.error) == (None, None)
    models = fresh.client.search_logged_models([first.ids["experiment_id"]])
    assert {model.tags["llmops.variant_identity"] for model in models} == {
        identity_of(BASELINE),
        identity_of(CANDIDATE),
    }
    assert len(models) == 2
    assert {model.params["prompt"] for model in models} == {"triage"}
    assert len(fresh.client.search_prompt_versions("triage")) == 1
    assert first.ids["run_id"] != second.ids["run_id"]


def test_a_changed_prompt_is_a_new_version_and_one_nobody_has_is_named(fresh: Mirror) -> None:
    fresh.whole_run(n_cases=2, hostile=False)
    fresh.edit_prompt(PROMPT.replace("of the team", "of one team"))
    fresh.whole_run(n_cases=2, hostile=False, fresh=1)
    first, second = fresh.sync()
    tags = run_of(fresh, first, CANDIDATE).data.tags
    assert "neither in today's files nor in git's history" in tags["llmops.prompts_missing"]
    assert "mlflow.linkedPrompts" not in tags
    assert "llmops.prompts_missing" not in run_of(fresh, second, CANDIDATE).data.tags
    fresh.edit_prompt(PROMPT)
    fresh.whole_run(n_cases=2, hostile=False, fresh=2)
    (third,) = fresh.sync()
    assert json.loads(run_of(fresh, third, CANDIDATE).data.tags["mlflow.linkedPrompts"])[0]["version"] == "2"
    assert sorted(int(version.version) for version in fresh.client.search_prompt_versions("triage")) == [1, 2]
    fresh.mirrored_run(n_cases=2, hostile=False).save()
    (found,) = fresh.sync()
    assert found.run_id == first.run_id
    assert "llmops.prompts_missing" not in run_of(fresh, found, CANDIDATE).data.tags


def test_a_prompt_whose_name_belongs_to_a_model_does_not_hold_up_its_run(fresh: Mirror) -> None:
    fresh.client.create_registered_model("triage")
    fresh.whole_run(n_cases=2, hostile=False)
    (found,) = fresh.sync()
    assert found.error is None
    assert "model" in run_of(fresh, found, CANDIDATE).data.tags["llmops.prompts_missing"]


# --- cases ------------------------------------------------------------------------------------------------


def test_every_case_is_a_trace_with_its_steps_on_their_timeline(mirror: Mirror, delivered: Delivered) -> None:
    traces = mirror.traces(delivered, CANDIDATE)
    assert len(traces) == 12
    trace = traces["t-00001"]
    case, prompt, parse = trace.data.spans
    assert case.parent_id is None
    assert (prompt.parent_id, parse.parent_id) == (case.span_id, prompt.span_id)
    assert case.inputs == {"case_id": "t-00001", "ticket": "Ticket 1: where is it?"}
    assert case.outputs == prompt.outputs == "shipping"
    assert prompt.inputs["messages"][1] == {"role": "user", "content": "Ticket 1: where is it?"}
    assert prompt.get_attribute("mlflow.chat.tokenUsage") == {
        "input_tokens": 121,
        "output_tokens": 3,
        "total_tokens": 124,
    }
    assert prompt.get_attribute("mlflow.llm.cost") == {"total_cost": 0.0001}
    assert prompt.get_attribute("mlflow.llm.model") == "default"
    assert parse.start_time_ns - prompt.start_time_ns == 200_000_000
    assert trace.info.execution_duration == 210
    assert trace.info.token_usage["input_tokens"] == 121
    assert "t-00001" in trace.info.request_preview


def test_scores_stand_with_reason_and_source_and_errors_are_errors(
    mirror: Mirror, delivered: Delivered
) -> None:
    traces = mirror.traces(delivered, BASELINE)
    right, wrong, absent = (scores(traces[key]) for key in ("t-00000", "t-00001", "t-00007"))
    assert right["exact_match"].value is True
    assert wrong["exact_match"].value is False
    assert right["exact_match"].source.source_id == "exact_match@" + "e" * 12
    assert right["closeness"].value == 0.75
    assert right["closeness.width"].value == 1.5
    assert right["expected"].value == "billing"
    assert "other is not shipping" in wrong["class.v2"].rationale
    assert "label: other · expected: shipping" in wrong["class.v2"].rationale
    assert absent["closeness"].value is None
    assert absent["closeness"].error.error_message == "the judge \\u0000 did not answer"


def test_a_case_that_failed_is_an_error_and_says_why(mirror: Mirror, delivered: Delivered) -> None:
    trace = mirror.traces(delivered, CANDIDATE)["t-00005"]
    assert str(trace.info.state) == "ERROR"
    assert "no reply in 60 s" in trace.info.response_preview
    step = trace.data.spans[1]
    assert step.status.status_code == "ERROR"
    assert (
        "timeout" in step.events[0].attributes["exception.message"] or "no reply" in step.status.description
    )


def test_hostile_text_arrives_shortened_and_visibly_so(mirror: Mirror, delivered: Delivered) -> None:
    trace = mirror.traces(delivered, CANDIDATE)["t-00011"]
    shown = trace.data.spans[0].inputs["ticket"]
    assert shown.startswith("half \\ud800 a pair, \\u0000 nothing, </script>")
    assert f"[shortened from {len(HOSTILE) + 10} characters; whole in rows.jsonl]" in shown
    assert len(trace.info.request_preview) <= 1_000


# --- again ------------------------------------------------------------------------------------------------


def test_an_unchanged_run_delivers_nothing(mirror: Mirror, delivered: Delivered) -> None:
    mirror.stages.clear()
    assert mirror.sync() == []
    assert mirror.stages == []


def test_delivering_again_adds_nothing(fresh: Mirror) -> None:
    fresh.whole_run(n_cases=4)
    (first,) = fresh.sync()
    before = {name: fresh.traces(first, name) for name in (BASELINE, CANDIDATE)}
    fresh.mirrored_run(n_cases=4).save()
    (second,) = fresh.sync()
    assert second.ids == first.ids
    assert len(fresh.client.search_runs([first.ids["experiment_id"]])) == 3
    for name, traces in before.items():
        again = fresh.traces(second, name)
        assert {key: trace.info.trace_id for key, trace in again.items()} == {
            key: trace.info.trace_id for key, trace in traces.items()
        }
        for key, trace in again.items():
            assert {mark.assessment_id for mark in trace.info.assessments} == {
                mark.assessment_id for mark in traces[key].info.assessments
            }
            assert len(trace.data.spans) == len(traces[key].data.spans)
    assert len(run_of(fresh, second, CANDIDATE).inputs.dataset_inputs) == 1


def test_a_run_that_grew_keeps_what_holds_and_replaces_what_does_not(fresh: Mirror) -> None:
    run = fresh.mirrored_run(n_cases=8, hostile=False)
    run.begin()
    run.carry_out(range(6))
    part = run.save(RunStatus.PARTIAL, n_done=12)
    figures = {
        **part.summary,
        CANDIDATE: {**part.summary[CANDIDATE], "ttft_s": part.summary[CANDIDATE]["latency_s"]},
    }
    run.save(RunStatus.PARTIAL, n_done=12, summary=figures)
    (first,) = fresh.sync()
    assert run_of(fresh, first).info.status == "KILLED"
    assert run_of(fresh, first).data.tags["llmops.status"] == "partial"
    before = fresh.traces(first, CANDIDATE)
    assert len(before) == 6

    run.carry_out([5, 6, 7], failing=())
    run.save()
    (second,) = fresh.sync()
    after = fresh.traces(second, CANDIDATE)
    assert second.ids["variants"] == first.ids["variants"]
    assert len(after) == 8
    kept = {key for key in before if after[key].info.trace_id == before[key].info.trace_id}
    assert kept == {f"t-0000{number}" for number in range(5)}
    assert after["t-00005"].info.response_preview == "other"
    child = run_of(fresh, second, CANDIDATE)
    assert run_of(fresh, second).info.status == child.info.status == "FINISHED"
    assert run_of(fresh, second).data.metrics["cells_done"] == 16
    assert math.isnan(child.data.metrics["ttft_s/mean"])


class Killed(BaseException):
    """What no code catches."""


@pytest.mark.parametrize("stage", ["zero-shot: figures", "cases", "few-shot: figures", "file report.md"])
def test_killed_half_way_it_goes_on_and_leaves_nothing_twice(fresh: Mirror, stage: str) -> None:
    fresh.whole_run(n_cases=4, hostile=False)

    def kill(now: str) -> None:
        if now == stage:
            raise Killed

    with pytest.raises(Killed):
        fresh.sync(progress=kill)
    assert fresh.journal.deliveries.waiting(fresh.address) != []
    (found,) = fresh.sync()
    assert found.error is None
    assert len(fresh.client.search_runs([found.ids["experiment_id"]])) == 3
    assert len(fresh.client.search_logged_models([found.ids["experiment_id"]])) == 2
    for name in (BASELINE, CANDIDATE):
        traces = fresh.traces(found, name)
        assert len(traces) == 4
        assert all(len(trace.data.spans) == 3 for trace in traces.values())
        assert all(len(trace.info.assessments) == 6 for trace in traces.values())


def test_what_people_said_of_a_case_is_not_deleted_with_it(fresh: Mirror) -> None:
    from mlflow.entities import AssessmentSource, Feedback

    run = fresh.mirrored_run(n_cases=6, hostile=False)
    run.begin()
    run.carry_out(range(6))
    run.save(RunStatus.PARTIAL)
    (first,) = fresh.sync()
    old = fresh.traces(first, CANDIDATE)["t-00005"].info.trace_id
    remark = Feedback(name="remark", value="the server was down", source=AssessmentSource("HUMAN", "lead"))
    fresh.client._tracing_client.log_assessment(old, remark)
    run.carry_out([5], failing=())
    run.save()
    (second,) = fresh.sync()
    assert second.error is None
    assert "remark" in {mark.name for mark in fresh.client.get_trace(old).info.assessments}
    run_id = second.ids["variants"][CANDIDATE]
    found = fresh.client.search_traces(locations=[second.ids["experiment_id"]], run_id=run_id)
    assert len(found) == 7


@pytest.mark.parametrize("lost", ["trace", "score"])
def test_what_does_not_come_back_leaves_the_run_waiting(fresh: Mirror, lost: str) -> None:
    fresh.whole_run(n_cases=3, hostile=False)

    def tamper(now: str) -> None:
        if now != "few-shot: reading back":
            return
        (child,) = fresh.client.search_runs(["1"], f"tags.`llmops.variant` = '{CANDIDATE}'")
        trace = fresh.client.search_traces(locations=["1"], run_id=child.info.run_id)[0].info
        if lost == "trace":
            fresh.client.delete_traces("1", trace_ids=[trace.trace_id])
        else:
            mark = trace.assessments[0].assessment_id
            fresh.client._tracing_client.delete_assessment(trace.trace_id, mark)

    (found,) = fresh.sync(progress=tamper)
    assert found.error is not None
    assert "gave back other" in found.error
    assert fresh.journal.deliveries.waiting(fresh.address) == [found.run_id]
    statuses = {
        run.data.tags.get("llmops.variant"): run.info.status for run in fresh.client.search_runs(["1"])
    }
    assert statuses[CANDIDATE] == statuses[None] == "RUNNING"
    (again,) = fresh.sync()
    assert again.error is None
    traces = fresh.traces(again, CANDIDATE)
    assert [len(trace.info.assessments) for trace in traces.values()] == [6, 6, 6]


def test_an_experiment_deleted_in_mlflow_says_how_to_take_it_back(fresh: Mirror) -> None:
    fresh.whole_run(n_cases=2, hostile=False)
    experiment = fresh.client.create_experiment("triage")
    fresh.client.delete_experiment(experiment)
    (found,) = fresh.sync()
    assert found.error is not None
    assert "mlflow experiments restore" in found.error


def test_no_time_of_delivery_reaches_mlflow(mirror: Mirror, delivered: Delivered) -> None:
    started = run_of(mirror, delivered).info.start_time
    assert started == int(NOW.timestamp() * 1000)
    first = min(trace.info.request_time for trace in mirror.traces(delivered, CANDIDATE).values())
    assert abs(first - started) < 60_000
