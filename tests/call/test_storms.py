"""Real runs against a server on this machine that refuses, fails, or takes no key: who stops when, and what goes on."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import llmops, start
from tests.model_server import ModelServer, RateLimit, running_model_server
from tests.stores.conftest import place_of
from tests.workplace import FILES, KEY, Workplace, case_of

EXPERIMENT = "experiments/sort.experiment.yaml"
PER_S = 50


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with running_model_server(delay_ms=20) as server:
        yield server


@pytest.fixture
def place(tmp_path: Path, server: ModelServer) -> Workplace:
    place = Workplace(tmp_path, server)
    place.edit("llmops.yaml", "concurrency: 4", "concurrency: 60")
    return place


def run(place: Workplace, target: str = EXPERIMENT) -> Any:
    return llmops("run", target, "--no-sync", cwd=place.root, more=place.environment)


def answered(server: ModelServer) -> Counter[str]:
    """Return how often each call was answered."""
    return Counter(each.call_id for each in server.received if each.status == 200)


# --- limits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "limit",
    [
        RateLimit(PER_S, burst=50),
        RateLimit(PER_S, burst=50, hint=False),
        RateLimit(PER_S, burst=50, tells=True),
        RateLimit(PER_S, window_s=0.5),
    ],
    ids=["asks", "silent", "tells", "window"],
)
def test_a_run_over_the_limit_fails_nowhere_and_asks_little_more_than_once_F07(
    place: Workplace, server: ModelServer, limit: RateLimit
) -> None:
    server.limit = limit
    place.write_cases(*(case_of(n) for n in range(200)))
    done = run(place)
    assert done.returncode == 0, done.stderr
    assert set(answered(server).values()) == {1} and len(answered(server)) == 200
    assert len(server.received) <= 1.15 * 200  # in so few requests, the first refusals weigh more


def test_two_runs_that_share_a_limit_through_their_store_ask_little_more_than_once_F07(
    request: pytest.FixtureRequest, tmp_path: Path, place: Workplace, server: ModelServer
) -> None:
    server.limit = RateLimit(PER_S, burst=50)
    store = place_of("postgresql", tmp_path, request)
    place.edit("llmops.yaml", "models:", f"store: {{url: '{store.url}'}}\nmodels:")
    place.write_cases(*(case_of(n) for n in range(200)))
    place.write("datasets/more.dataset.yaml", FILES["datasets/tickets.dataset.yaml"])
    place.write(
        "datasets/more.jsonl", (place.root / "datasets/tickets.jsonl").read_text().replace("ticket ", "task ")
    )
    place.write("experiments/other.experiment.yaml", FILES[EXPERIMENT].replace("tickets", "more"))
    runners = [
        start("run", name, "--no-sync", cwd=place.root, more=place.environment)
        for name in (EXPERIMENT, "other")
    ]
    said = [runner.communicate()[1] for runner in runners]
    assert [runner.returncode for runner in runners] == [0, 0], said
    assert set(answered(server).values()) == {1} and len(answered(server)) == 400
    assert len(server.received) <= 1.15 * 400
    assert store.execute("SELECT count(*) FROM shares") == [(0,)]


@pytest.mark.parametrize(("wait_s", "budget"), [(2000, ""), (100, "\nbudget: {wall_s: 50}")])
def test_a_service_that_asks_for_more_than_the_run_has_is_parked_and_others_finish_F05(
    place: Workplace, server: ModelServer, wait_s: int, budget: str
) -> None:
    place.edit(EXPERIMENT, "seed: 3", f"seed: 3\nmatrix: {{model: [default, other]}}{budget}")
    with running_model_server() as busy:
        busy.limit = RateLimit(1 / wait_s, burst=0.5)
        place.other = busy.openai_url
        done = run(place)
        assert done.returncode == 3, done.stderr
        assert re.search(r"'other' asks us to wait until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", done.stderr)
        assert (len(busy.received), len(answered(server))) == (1, 6)
        busy.limit = None
        assert run(place).returncode == 0
        assert (len(answered(busy)), len(server.received)) == (6, 6)


# --- failures ---------------------------------------------------------------------------------------------------


def test_a_service_that_is_down_costs_no_more_than_the_attempts_and_is_asked_again_later_F10(
    place: Workplace, server: ModelServer
) -> None:
    server.fails_after = (503, 0)
    done = run(place)
    assert done.returncode == 3, done.stderr
    assert len(server.received) <= 6  # one attempt each
    server.fails_after = None
    assert run(place).returncode == 0
    assert set(answered(server).values()) == {1} and len(answered(server)) == 6


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_revoked_in_mid_run_stops_within_what_is_in_flight_F34(
    place: Workplace, server: ModelServer, status: int
) -> None:
    place.edit("llmops.yaml", "concurrency: 60", "concurrency: 4")
    place.write_cases(*(case_of(n) for n in range(40)))
    server.fails_after = (status, 10)
    done = run(place)
    assert done.returncode == 4
    assert "MODEL_KEY" in done.stderr and KEY not in done.stdout + done.stderr
    assert len(server.received) <= 10 + 4
    server.fails_after = None
    assert run(place).returncode == 0
    assert set(answered(server).values()) == {1} and len(answered(server)) == 40


def test_a_key_revoked_for_one_model_leaves_the_other_to_finish_F18_F34(
    place: Workplace, server: ModelServer
) -> None:
    place.edit(EXPERIMENT, "seed: 3", "seed: 3\nmatrix: {model: [default, other]}")
    with running_model_server() as closed:
        closed.fails_after = (401, 2)
        place.other = closed.openai_url
        assert run(place).returncode == 4
        assert (len(answered(server)), len(answered(closed))) == (6, 2)
