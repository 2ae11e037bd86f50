"""What MLflow is told of judges: who judged, why, and with which prompt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from llmops.definitions.base import short
from llmops.records import Row, Run
from llmops.stores.traces import Teller
from tests.judged import JUDGE_PROMPT, judge_everything, noted
from tests.mirrored_run import Mirror
from tests.model_server import running_model_server
from tests.workplace import Workplace

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow"),
    pytest.mark.filterwarnings("ignore::FutureWarning:mlflow"),
]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[Workplace, Mirror]]:
    """Give a project with a judge, and an MLflow of its own beside it."""
    with running_model_server() as server, closing(Mirror(tmp_path)) as mirror:
        place = judge_everything(Workplace(tmp_path, server), n=3)
        yield place, mirror


def marks(run: Run, row: Row) -> dict[str, Any]:
    trace = Teller(run, call_of=lambda _: None).tell(row)
    assert trace is not None
    return {mark.name: mark for mark in trace.marks}


def test_a_judges_score_names_its_model_and_version_with_the_reason(place: tuple[Workplace, Mirror]) -> None:
    workplace, mirror = place
    workplace.write_cases(*(noted(n) for n in range(2)), noted(2, '[[say:{"score": 7}]]'))
    run = workplace.run().run
    mirror.workspace = workplace.workspace()
    (delivered,) = mirror.sync()
    assert delivered.error is None
    rows = {row.case.id: row for row in workplace.rows(run)}
    for case_id, trace in mirror.traces(delivered, "plain").items():
        said = {mark.name: mark for mark in trace.info.assessments}
        source = f"n/fit@{short(run.evaluators[1].identity)}"
        assert (said["fit"].source.source_type, said["fit"].source.source_id) == ("LLM_JUDGE", source)
        assert said["exact_match"].source.source_type == "CODE"
        score = rows[case_id].scores[1]
        assert said["fit"].value == score.value
        if score.value is None:
            assert "none of the whole numbers" in said["fit"].error.error_message
        else:
            assert said["fit"].rationale == score.rationale


def test_a_judges_prompt_is_registered_like_any_other(place: tuple[Workplace, Mirror]) -> None:
    workplace, mirror = place
    run = workplace.run().run
    mirror.workspace = workplace.workspace()
    mirror.sync()
    found = mirror.client.get_prompt_version("fit", 1)
    assert found.tags["llmops.sha256"] == run.evaluators[1].prompts["fit"]
    assert found.template[0]["content"] == "How well does the answer fit the ticket?"


def test_a_judges_own_scores_keep_no_outdated_trace_alive(place: tuple[Workplace, Mirror]) -> None:
    workplace, mirror = place
    workplace.write_cases(*(noted(n) for n in range(2)), noted(2, "[[fault:500:1]]"))
    first = workplace.run().run
    mirror.workspace = workplace.workspace()
    (delivered,) = mirror.sync()
    assert first.n_unscored == 1
    assert "fit" not in {mark.name for mark in mirror.traces(delivered, "plain")["c2"].info.assessments}
    second = workplace.run().run
    assert second.id == first.id
    (delivered,) = mirror.sync()
    assert delivered.error is None
    run_id = delivered.ids["variants"]["plain"]
    found = mirror.client.search_traces(locations=[delivered.ids["experiment_id"]], run_id=run_id)
    assert len(found) == 3
    assert all("fit" in {mark.name for mark in trace.info.assessments} for trace in found)


def test_what_embedded_says_is_no_judgement(place: tuple[Workplace, Mirror]) -> None:
    workplace, _ = place
    workplace.write("llmops.yaml", "")
    workplace.edit(JUDGE_PROMPT, "model: other", "model: default")
    run = workplace.run().run
    mark = marks(run, workplace.rows(run)[0])["fit"]
    assert not mark.by_judge
    assert mark.source == f"fit@{short(run.evaluators[1].identity)}"
