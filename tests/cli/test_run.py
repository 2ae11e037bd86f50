"""`llmops run` as people and CI start it: what it prints, its exit codes, signals and kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.kills import kill_and_compare
from llmops.records import Run, RunStatus
from tests.cli.command import llmops, start
from tests.cli.inside import Done, llmops_inside
from tests.model_server import ModelServer, running_model_server
from tests.workplace import KEY, Workplace, case_of, jsonl, said

EXPERIMENT = "experiments/sort.experiment.yaml"
PATIENCE_S = 60


def run(place: Workplace, *arguments: str, **more: str) -> Done:
    return llmops_inside("run", *arguments, "--no-sync", cwd=place.root, more={**place.environment, **more})


def faulty(number: int, fault: str) -> dict[str, Any]:
    return case_of(number, f"[[fault:{fault}]]")


def revision(place: Workplace, run_id: str) -> int:
    with place.journal() as journal:
        return journal.revision(run_id)


# --- what it prints ---------------------------------------------------------------------------------------


def test_a_run_is_shown_and_an_unchanged_one_calls_and_delivers_nothing(place: Workplace) -> None:
    asked = ("run", EXPERIMENT, "--no-sync")
    first = llmops(*asked, cwd=place.root, more=place.environment)
    assert first.returncode == 0
    assert [line for line in first.stderr.splitlines() if not line.startswith("note: SQLite")] == []
    assert "exact_match" in first.stdout
    assert len(place.new_requests()) == 6
    before = revision(place, place.plan().run.id)
    again = llmops(*asked, cwd=place.root, more=place.environment)
    assert again.returncode == 0
    assert "nothing to do" in again.stderr and "0 calls" in again.stderr
    assert again.stdout == first.stdout
    assert place.new_requests() == []
    assert revision(place, place.plan().run.id) == before


def test_json_is_the_record_and_nothing_else(place: Workplace) -> None:
    done = run(place, EXPERIMENT, "--json", "--why")
    record = Run.model_validate_json(done.stdout)
    assert (record.status, record.n_calls, record.experiment) == (RunStatus.COMPLETE, 6, "sort")
    assert "because sort has not run here before" in done.stderr
    with place.journal() as journal:
        assert journal.find_run(record.id) == record


def test_a_dry_run_calls_and_writes_nothing(place: Workplace) -> None:
    text = run(place, EXPERIMENT, "--dry-run")
    assert text.returncode == 0
    assert "because sort has not run here before" in text.stdout
    assert "at most 6 cells to carry out, 6 calls" in text.stdout
    found = json.loads(run(place, EXPERIMENT, "--dry-run", "--json", "--limit", "2").stdout)
    assert (found["n_cells"], found["n_calls"]) == (2, 2)
    assert not (place.root / ".llmops").exists()
    assert place.new_requests() == []


def test_a_part_is_run_and_completed_later(place: Workplace) -> None:
    part = run(place, EXPERIMENT, "--case", "c1", "--case", "c2", "--json")
    assert json.loads(part.stdout)["status"] == "partial"
    assert {said(received).split()[1] for received in place.new_requests()} == {"1", "2"}
    same = run(place, EXPERIMENT, "--case", "c2")
    assert (same.returncode, place.new_requests()) == (0, [])
    assert "nothing to do: this part of" in same.stderr
    whole = place.run().run
    assert (whole.id, whole.status, whole.n_calls) == (
        json.loads(part.stdout)["id"],
        RunStatus.COMPLETE,
        6,
    )


def test_files_that_are_again_what_they_were_make_their_run_the_latest(place: Workplace) -> None:
    first = place.run().run.id
    place.edit("prompts/sort.prompt.yaml", "Answer", "Reply")
    second = place.run().run.id
    place.edit("prompts/sort.prompt.yaml", "Reply", "Answer")
    place.new_requests()
    again = run(place, EXPERIMENT)
    assert first != second and f"nothing to do: {first}" in again.stderr
    assert place.new_requests() == []
    with place.journal() as journal:
        latest = journal.latest_run("sort")
    assert latest is not None and latest.id == first


def test_wrong_cases_stop_a_run_unless_they_are_left_out_counted_and_said(place: Workplace) -> None:  # F58
    place.write("datasets/tickets.jsonl", jsonl([case_of(1), case_of(2)]) + "no JSON\n" + jsonl([case_of(2)]))
    refused = run(place, EXPERIMENT)
    assert (refused.returncode, place.new_requests()) == (2, [])
    assert "datasets/tickets.jsonl:3:1: a value was expected here" in refused.stderr
    done = run(place, EXPERIMENT, "--skip-bad", "--json")
    assert done.returncode == 0
    assert "datasets/tickets.jsonl: 2 wrong cases are left out" in done.stderr
    record = Run.model_validate_json(done.stdout)
    assert (record.dataset.n_cases, record.dataset.n_skipped) == (2, 2)
    place.write_cases(case_of(1), case_of(2))
    assert record.dataset.version == place.plan().run.dataset.version
    assert len(place.new_requests()) == 2


@pytest.mark.parametrize(("cases", "dataset"), [("", "tickets"), (jsonl([case_of(1)]), "tickets/none")])
def test_no_cases_are_wrong_usage_unless_they_are_allowed(
    place: Workplace, cases: str, dataset: str
) -> None:  # F64
    place.write("datasets/tickets.jsonl", cases)
    place.edit(EXPERIMENT, "dataset: tickets", f"dataset: {dataset}")
    place.edit(
        EXPERIMENT, "plain: {prompt: sort}", "plain: {prompt: sort}\n  loud: {prompt: sort, model: other}"
    )
    place.edit(EXPERIMENT, "seed: 3", "seed: 3\nbaseline: plain")
    assert run(place, EXPERIMENT).returncode == 2
    for _ in range(2):
        done = run(place, EXPERIMENT, "--allow-empty", "--json")
        assert (done.returncode, done.stderr.count("error")) == (0, 0), done.stderr
        assert Run.model_validate_json(done.stdout).n_cells == 0
    assert place.new_requests() == []


# --- exit codes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_errors", "code"), [(1, 0), (2, 3)])
def test_more_than_5_percent_without_output_is_incomplete(place: Workplace, n_errors: int, code: int) -> None:
    place.write_cases(*(faulty(n, "500:1") if n < n_errors else case_of(n) for n in range(20)))
    done = run(place, EXPERIMENT)
    assert done.returncode == code, done.stderr
    assert f"{n_errors} x unavailable" in done.stderr
    place.new_requests()
    assert place.run().n_without_output == 0
    assert len(place.new_requests()) == n_errors


def test_a_refused_key_exits_4_and_shows_itself_nowhere_F17_S07(place: Workplace) -> None:
    place.edit("prompts/sort.prompt.yaml", "Answer", "[[fault:401-echo]] Answer")
    done = llmops("--debug", "run", EXPERIMENT, "--no-sync", cwd=place.root, more=place.environment)
    assert done.returncode == 4
    assert "MODEL_KEY" in done.stderr and "run the same command again" in done.stderr
    one = llmops(
        "--debug", "run", "prompts/sort", "--input", "ticket=x", cwd=place.root, more=place.environment
    )
    assert one.returncode == 4
    assert "Traceback" in one.stderr
    assert len(place.new_requests()) == 2
    assert KEY not in done.stdout + done.stderr + one.stdout + one.stderr
    assert not [
        path for path in place.root.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()
    ]


def test_a_budget_of_calls_exits_4_and_is_never_passed(place: Workplace) -> None:
    place.edit(EXPERIMENT, "seed: 3", "seed: 3\nbudget: {calls: 4}")
    done = run(place, EXPERIMENT)
    assert (done.returncode, len(place.new_requests())) == (4, 4)
    assert "the budget of 4 calls is used up; raise it" in done.stderr


def test_an_estimate_over_the_budget_is_refused_before_any_call(place: Workplace) -> None:
    place.edit(EXPERIMENT, "seed: 3", "seed: 3\nbudget: {usd: 0.00001}")
    done = run(place, EXPERIMENT)
    assert done.returncode == 4
    assert "the prompts alone would cost" in done.stderr
    assert place.new_requests() == []


def test_every_missing_variable_is_named_before_any_call_F75(place: Workplace) -> None:
    place.edit(EXPERIMENT, "seed: 3", "seed: 3\nmatrix: {model: [default, other]}")
    done = run(place, EXPERIMENT, MODEL_KEY="", OTHER_URL="")
    assert done.returncode == 2
    assert "MODEL_KEY" in done.stderr and "OTHER_URL" in done.stderr
    assert "Traceback" not in done.stderr
    assert place.new_requests() == []


def test_users_of_a_retired_sdk_are_told_where_to_move(place: Workplace, server: ModelServer) -> None:
    place.edit("llmops.yaml", "provider: openai\n    model: m", "provider: azure_inference\n    model: m")
    done = run(place, EXPERIMENT, MODEL_URL=server.azure_url)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("retired the azure-ai-inference SDK") == 1
    assert run(place, EXPERIMENT, MODEL_URL=server.azure_url).stderr.count("retired") == 0


def test_a_definition_that_check_refuses_is_not_run(place: Workplace) -> None:
    place.edit(EXPERIMENT, "seed: 3", "seed: 3\ngates: [{metric: exact_mach, at_least: 0.5}]")
    done = run(place, EXPERIMENT)
    assert done.returncode == 2
    assert f"{EXPERIMENT}:7" in done.stderr and "did you mean 'exact_match'" in done.stderr
    assert place.new_requests() == []


def test_a_second_runner_exits_5_and_names_the_first_F49(place: Workplace) -> None:
    with place.journal() as journal, journal.hold("another"):
        done = run(place, EXPERIMENT)
    assert done.returncode == 5
    assert str(os.getpid()) in done.stderr
    assert place.new_requests() == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["experiments/sort", "--variant", "plane"], "no variant is called 'plane'; there are: plain"),
        (["prompts/sort", "--limit", "3"], "--limit belongs to an experiment"),
        (["prompts/sort"], "needs --input ticket=..."),
        (["prompts/sort", "--input", "tikcet=x"], "did you mean 'ticket'"),
    ],
)
def test_wrong_usage_exits_2_and_says_what_is_right(
    place: Workplace, arguments: list[str], says: str
) -> None:
    done = run(place, *arguments)
    assert done.returncode == 2
    assert says in done.stderr


# --- one prompt or chain ----------------------------------------------------------------------------------


def test_one_prompt_is_answered_and_paid_for_once(place: Workplace) -> None:
    asked = ("prompts/sort", "--input", "ticket=it is green")
    assert [run(place, *asked).stdout for _ in range(2)] == ["green\n", "green\n"]
    assert len(place.new_requests()) == 1
    done = run(place, *asked, "--fresh", "--json", "--set", "parameters.max_tokens=3", "--model", "other")
    assert json.loads(done.stdout)["value"] == "green"
    (received,) = place.new_requests()
    assert (received.body["max_tokens"], received.body["model"]) == (3, "n")


def test_one_chain_that_crashes_says_where_and_exits_2(place: Workplace) -> None:
    place.write("chains/code.py", "def half(n):\n    return 1 / n\n")
    place.write(
        "chains/half.chain.yaml",
        'inputs: {n: integer}\nsteps:\n  - {id: half, python: "code:half", with: {n: "{{ n }}"}}\n',
    )
    assert run(place, "half", "--input", "n=2").stdout == "0.5\n"
    done = run(place, "half", "--input", "n=0")
    assert done.returncode == 2
    assert "code:half raised ZeroDivisionError" in done.stderr


# --- signals and kills ------------------------------------------------------------------------------------


def wait_for(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Workplace]:
    with running_model_server(delay_ms=400) as server:
        place = Workplace(tmp_path, server)
        place.write_cases(*(case_of(n) for n in range(60)))
        yield place


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_lets_what_is_in_flight_come_home_and_sends_nothing_more_F40(
    slow: Workplace, number: signal.Signals, code: int
) -> None:
    with start("run", EXPERIMENT, "--no-sync", cwd=slow.root, more=slow.environment) as process:
        wait_for(lambda: len(slow.server.received) > 6, process)
        process.send_signal(number)
        told_at = time.time()
        _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == code, errors
    assert "run the same command again to go on" in errors
    first = slow.new_requests()
    assert all(received.status == 200 for received in first)
    assert not [received for received in first if received.arrived_at > told_at + 0.3]
    slow.server.delay_s = 0.0
    assert slow.run().run.status is RunStatus.COMPLETE
    again = slow.new_requests()
    assert not {received.call_id for received in first} & {received.call_id for received in again}
    assert len(first) + len(again) == 60


def test_a_second_signal_ends_at_once_F41(slow: Workplace) -> None:
    slow.server.delay_s = 600
    with start("run", EXPERIMENT, "--no-sync", cwd=slow.root, more=slow.environment) as process:
        wait_for(lambda: len(slow.server.received) > 0, process)
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=5)  # long before the drain would end
    assert process.returncode == 130
    assert "Traceback" not in errors
    slow.server.delay_s = 0.0
    assert slow.run().run.status is RunStatus.COMPLETE


def test_a_function_that_hangs_holds_up_no_interrupt_F40(place: Workplace) -> None:
    begun = place.root / "begun"
    place.write(
        "chains/code.py",
        "import time\nfrom pathlib import Path\n\n"
        f"def hang(text):\n    Path({str(begun)!r}).touch()\n    time.sleep(3600)\n",
    )
    place.write(
        "chains/hang.chain.yaml",
        'inputs: {ticket: string}\nsteps:\n  - {id: s, python: "code:hang", with: {text: "{{ ticket }}"}}\n',
    )
    place.edit(EXPERIMENT, "{prompt: sort}", "{chain: hang}")
    with start("run", EXPERIMENT, "--no-sync", cwd=place.root, more=place.environment) as process:
        wait_for(begun.exists, process)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130


def test_a_run_killed_at_any_moment_loses_nothing_and_ends_as_if_undisturbed_F37_F38(tmp_path: Path) -> None:
    # A busy machine may take longer than the promised 250 ms to commit, which `benchmarks.kills` looks at.
    found = kill_and_compare(tmp_path, kills=3, cells=240, seed=5)
    assert (found.n_kills, found.n_forgotten, found.differing) == (3, 0, ())
    assert found.n_lost + found.n_repeated <= 3 * (16 + 64)  # what was in flight, and intents committed ahead
