"""One of two deployments of a model is down: who answers, what is sent to which, and what the rows say of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llmops.call.breaker import OPEN_AFTER
from llmops.records import Run, RunStatus, Status
from tests.cli.inside import llmops_inside
from tests.faults.running import answered
from tests.model_server import ModelServer, running_model_server
from tests.workplace import Workplace, case_of

N_CASES = 24
ATTEMPTS = 2
WITH_FALLBACK = "provider: openai\n    model: m\n    fallback: other\n"


@pytest.fixture
def other() -> Iterator[ModelServer]:
    with running_model_server() as server:
        yield server


@pytest.fixture
def place(tmp_path: Path, server: ModelServer, other: ModelServer, quick_retries: None) -> Workplace:
    made = Workplace(tmp_path, server, other.openai_url)
    made.write_cases(*(case_of(number) for number in range(N_CASES)))
    made.edit("llmops.yaml", "attempts: 1", f"attempts: {ATTEMPTS}")
    return made


def fall_back(place: Workplace) -> None:
    place.edit(
        "llmops.yaml", "default: \n    provider: openai\n    model: m\n", f"default:\n    {WITH_FALLBACK}"
    )


def who_answered(place: Workplace, run: Run) -> dict[str, str | None]:
    return {row.case.id: row.output.spans[0].model for row in place.rows(run) if row.output is not None}


@pytest.mark.parametrize("fault", ["503", "401", "quota"])
def test_the_other_deployment_answers_while_one_is_down_and_each_row_says_so_F35(
    place: Workplace, other: ModelServer, fault: str
) -> None:
    fall_back(place)
    place.server.outage = fault
    run = place.run().run
    assert run.status is RunStatus.COMPLETE
    assert set(who_answered(place, run).values()) == {"other"}
    assert {row.output.status for row in place.rows(run) if row.output} == {Status.OK}
    assert len(other.received) == N_CASES
    # The first goes alone; then those in flight, until it is known to be down.
    assert len(place.new_requests()) <= (OPEN_AFTER + 4) * ATTEMPTS
    assert place.run().run.n_calls == run.n_calls and len(other.received) == N_CASES


def test_nothing_falls_back_that_is_not_told_to_F35(place: Workplace, other: ModelServer) -> None:
    place.server.outage = "401"
    result = place.run()
    assert result.stopped is not None and result.run.status is RunStatus.STOPPED
    assert other.received == []


def test_what_one_deployment_answered_before_it_went_down_is_kept_F35(
    place: Workplace, other: ModelServer
) -> None:
    fall_back(place)
    place.run(limit=8)
    first = answered(place)
    place.server.outage = "503"
    run = place.run().run
    found = who_answered(place, run)
    assert sorted(found.values(), key=str) == ["default"] * 8 + ["other"] * (N_CASES - 8)
    assert first <= answered(place) and len(other.received) == N_CASES - 8


def test_a_request_that_is_wrong_is_not_asked_of_another_F35(place: Workplace, other: ModelServer) -> None:
    fall_back(place)
    place.write_cases(case_of(0), case_of(1, "[[fault:context_length]]"))
    run = place.run().run
    assert run.n_errors == 1 and other.received == []


def test_replies_of_both_deployments_are_recorded_and_replayed_F35(place: Workplace) -> None:
    fall_back(place)
    place.run(limit=8)
    place.server.outage = "503"
    asked = ("run", "experiments/sort", "--no-sync")
    done = llmops_inside(*asked, "--record", cwd=place.root, more=place.environment)
    assert done.returncode == 0, done.stderr
    replayed = llmops_inside(*asked, "--replay", "only", "--json", cwd=place.root)
    assert replayed.returncode == 0, replayed.stderr
    run = Run.model_validate_json(replayed.stdout)
    assert sorted(who_answered(place, run).values(), key=str) == ["default"] * 8 + ["other"] * (N_CASES - 8)


@pytest.mark.parametrize(
    ("fallback", "told"),
    [("othr", "did you mean 'other'"), ("default", "default -> default"), ("other", None)],
)
def test_a_fallback_that_is_none_is_told_by_check_F35(
    place: Workplace, fallback: str, told: str | None
) -> None:
    fall_back(place)
    place.edit("llmops.yaml", "fallback: other", f"fallback: {fallback}")
    done = llmops_inside("check", cwd=place.root, more=place.environment)
    assert done.returncode == (2 if told else 0)
    assert told is None or told in done.stdout + done.stderr
