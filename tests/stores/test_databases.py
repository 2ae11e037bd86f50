"""A whole run is the same on every database, to the last bit; and a team of runners pays for nothing twice."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import pytest

from llmops.records import Call, CallState, Run
from llmops.stores.journal import open_journal
from tests.cli.command import llmops, start
from tests.cli.inside import llmops_inside
from tests.model_server import ModelServer, running_model_server
from tests.postgres_server import PostgresServer
from tests.stores.conftest import DATABASES, Place, place_of
from tests.stores.samples import Batch, apply
from tests.workplace import FILES, Workplace, calls_in

NAMES = ("b", "A", "c", "D", "é", "E", "_", "-", "10", "9", "Z-1", "y1", "'); --", "\U0001f600", "ss", "Ö")
COLOURS = ("red", "green", "blue")
PROJECT = {
    "llmops.yaml": "models: {default: {provider: embedded}}\nstore: {url: '%s'}\n",
    "prompts/sort.prompt.yaml": FILES["prompts/sort.prompt.yaml"].replace(
        "max_tokens: 8", "temperature: 0.8"
    ),
    "prompts/terse.prompt.yaml": FILES["prompts/sort.prompt.yaml"].replace("with one word only", "tersely"),
    "datasets/tickets.dataset.yaml": (
        "inputs: {ticket: string}\nexpected: {type: string}\ncluster: metadata.customer\n"
        "slices: {by: metadata.slice}\n"
    ),
    "datasets/tickets.jsonl": "".join(
        json.dumps(
            {
                "id": name,
                "inputs": {"ticket": f"{name}: {COLOURS[number % 3] if number % 4 else 'who knows'}"},
                "expected": COLOURS[number % 3],
                "metadata": {"customer": NAMES[number // 2], "slice": NAMES[number % 3]},
            }
        )
        + "\n"
        for number, name in enumerate(NAMES)
    ),
    "experiments/sort.experiment.yaml": (
        "dataset: tickets\nvariants:\n  b: {prompt: sort}\n  A: {prompt: terse}\n  _a: {prompt: terse,"
        " parameters: {temperature: 0.3}}\nbaseline: A\nrepeats: 2\nseed: 3\n"
        "evaluators: [exact_match, classification, contains: {text: e}]\n"
    ),
}


def write_project(root: Path, url: str) -> None:
    for name, text in PROJECT.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("%s", url))


@pytest.fixture
def paid(tmp_path_factory: pytest.TempPathFactory) -> list[Call]:
    """Give the calls of the run, as some runner had them answered: with them goes the time they took."""
    root = tmp_path_factory.mktemp("paid")
    write_project(root, "sqlite:///store.db")
    assert llmops_inside("run", "experiments/sort", "--no-sync", cwd=root).returncode == 0
    with closing(open_journal("sqlite:///store.db", root=root)) as journal:
        return calls_in(journal)


def carried_out(place: Place, paid: list[Call]) -> tuple[dict[str, Any], Run]:
    """Run the project on a database, replies at hand; return what is printed and what is stored."""
    write_project(place.root, place.url)
    with place.another() as journal:
        apply(journal, Batch(calls=paid))
    done = llmops_inside("run", "experiments/sort", "--no-sync", "--json", cwd=place.root)
    assert done.returncode == 0, done.stderr
    with place.another() as journal:
        run = journal.latest_run("sort")
    assert run is not None
    return json.loads(done.stdout), run


def test_a_run_has_the_same_figures_on_every_database_to_the_last_bit(
    request: pytest.FixtureRequest, tmp_path: Path, paid: list[Call]
) -> None:
    printed, stored = [], []
    for kind in DATABASES:
        (tmp_path / kind).mkdir()
        record, run = carried_out(place_of(kind, tmp_path / kind, request), paid)
        printed.append(timeless(record))
        stored.append(run)
    assert printed[0] == printed[1]
    first, second = stored
    assert first.n_reused == len(paid) == 3 * 2 * len(NAMES)
    for field in ("summary", "slices", "comparisons"):
        assert exact(first, field) == exact(second, field)
    assert first.slices and first.comparisons and any(c.effects[0].improved for c in first.comparisons)


def timeless(record: Any) -> Any:
    """Return what was printed without when and for how long it was done."""
    if isinstance(record, dict):
        left_out = {"created_at", "finished_at", "wall_s", "source"}
        return {key: timeless(value) for key, value in record.items() if key not in left_out}
    return [timeless(item) for item in record] if isinstance(record, list) else record


def exact(run: Run, field: str) -> str:
    """Return a field as JSON, its keys in the order they have."""
    return json.dumps(timeless(run.model_dump(mode="json")[field]))


# --- a team -----------------------------------------------------------------------------------------------


@pytest.fixture
def slow_server() -> Iterator[ModelServer]:
    with running_model_server(delay_ms=150) as server:
        yield server


@pytest.fixture
def team(request: pytest.FixtureRequest, tmp_path: Path, slow_server: ModelServer) -> tuple[Workplace, Place]:
    """Give a project on PostgreSQL with two experiments on the same prompt and cases."""
    place = place_of("postgresql", tmp_path, request)
    work = Workplace(tmp_path, slow_server)
    work.write("llmops.yaml", FILES["llmops.yaml"] + f"store: {{url: '{place.url}'}}\n")
    work.write_cases(
        *({"id": f"c{n}", "inputs": {"ticket": f"t{n} red"}, "expected": "red"} for n in range(40))
    )
    work.write("experiments/other.experiment.yaml", FILES["experiments/sort.experiment.yaml"])
    return work, place


def test_two_runners_of_two_runs_that_need_the_same_calls_pay_once(team: tuple[Workplace, Place]) -> None:
    work, place = team
    runners = [
        start("run", f"experiments/{name}", "--no-sync", cwd=work.root, more=work.environment)
        for name in ("sort", "other")
    ]
    said = [runner.communicate()[1] for runner in runners]
    assert [runner.returncode for runner in runners] == [0, 0], said
    assert sorted(sent.call_id for sent in work.new_requests()) == sorted(
        {call.id for call in calls_of(place)}
    )
    assert len(calls_of(place)) == 40
    with place.another() as journal:
        runs = journal.runs()
    assert [run.n_done for run in runs] == [40, 40]
    assert sum(run.n_calls for run in runs) == 40  # what one has paid, the other has reused
    assert runs[0].summary["plain"]["exact_match"] == runs[1].summary["plain"]["exact_match"]


def test_the_second_of_two_runners_of_one_run_exits_5_and_names_the_first_f49(
    team: tuple[Workplace, Place],
) -> None:
    work, place = team
    with start("run", "experiments/sort", "--no-sync", cwd=work.root, more=work.environment) as first:
        while not calls_of(place):
            pass
        first.send_signal(signal.SIGSTOP)  # it must not be done before the second has looked
        try:
            second = llmops("run", "experiments/sort", "--no-sync", cwd=work.root, more=work.environment)
        finally:
            first.send_signal(signal.SIGCONT)
        first.communicate()
    assert second.returncode == 5
    assert re.search(rf"pid {first.pid}\) works on sort-", second.stderr)
    assert first.returncode == 0
    assert len(work.new_requests()) == 40


def test_a_killed_run_goes_on_and_repeats_only_what_was_in_flight_f37(team: tuple[Workplace, Place]) -> None:
    work, place = team
    first = start("run", "experiments/sort", "--no-sync", cwd=work.root, more=work.environment)
    while sum(call.state is CallState.ANSWERED for call in calls_of(place)) < 8:
        pass
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    answered = {call.id for call in calls_of(place) if call.state is CallState.ANSWERED}
    before = {sent.call_id for sent in work.new_requests()}
    again = llmops("run", "experiments/sort", "--no-sync", cwd=work.root, more=work.environment)
    assert again.returncode == 0, again.stderr
    repeated = {sent.call_id for sent in work.new_requests()} & before
    assert not repeated & answered
    assert len(repeated) <= 4
    with place.another() as journal:
        run = journal.latest_run()
    assert run is not None and (run.n_done, run.summary["plain"]["exact_match"].n) == (40, 40)
    assert run.n_calls >= 40  # those of the killed one are counted


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_run_goes_on_over_a_restart_of_the_server_and_pays_for_nothing_twice_f55(
    team: tuple[Workplace, Place], postgres: PostgresServer, mode: Literal["fast", "immediate"]
) -> None:
    work, place = team
    runner = start("run", "experiments/sort", "--no-sync", cwd=work.root, more=work.environment)
    while not calls_of(place):
        pass
    postgres.restart(mode)
    said = runner.communicate()[1]
    assert runner.returncode == 0, said
    sent = [received.call_id for received in work.new_requests()]
    assert len(sent) == len(set(sent)) == 40
    with place.another() as journal:
        run = journal.latest_run()
        assert run is not None and (run.n_done, run.n_calls) == (40, 40)
    assert {(call.state, call.attempts) for call in calls_of(place)} == {(CallState.ANSWERED, 1)}


def calls_of(place: Place) -> list[Call]:
    with place.another() as journal:
        return calls_in(journal)


# --- the commands around it -------------------------------------------------------------------------------


def test_doctor_tells_how_the_store_stands_and_makes_nothing(
    team: tuple[Workplace, Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    work, place = team

    def store() -> dict[str, str]:
        done = llmops_inside("doctor", "--json", cwd=work.root, more=work.environment)
        return next(found for found in json.loads(done.stdout) if found["what"] == "store")

    assert (store()["state"], store()["detail"]) == ("ok", f"{place.url}, made by the first run")
    assert place.execute("SELECT 1 FROM pg_class WHERE relname = 'calls'") == []
    place.open().close()
    assert store()["detail"] == f"{place.url}, runs: 0"
    work.edit("llmops.yaml", place.url, place.url + "_not_there")
    assert store() == {
        "what": "store",
        "state": "missing",
        "detail": f"{place.url}_not_there: there is no such database",
        "fix": store()["fix"],
    }
    assert store()["fix"].startswith("make it with createdb")


def test_a_command_that_only_reads_makes_no_store(team: tuple[Workplace, Place]) -> None:
    work, place = team
    done = llmops_inside("report", "sort", cwd=work.root, more=work.environment)
    assert done.returncode == 2
    assert "nothing has run here yet" in done.stderr
    assert place.execute("SELECT 1 FROM pg_class WHERE relname = 'calls'") == []
