"""What a call costs whose outcome nobody knows: sent again, looked up or left alone, and every cent accounted for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from llmops.call.carrying import Result
from llmops.check.models import check_project
from llmops.errors import BudgetError
from llmops.records import CallState, Run, RunStatus, Status
from llmops.report.sentences import run_caveats, run_facts
from tests.model_server import Received, running_model_server
from tests.workplace import Workplace, calls_in, case_of, figure

PER_TOKEN = {"prompt_tokens": 1e-6, "completion_tokens": 2e-6}


def settled(place: Workplace, fault: str, *, policy: str = "retry", attempts: int = 1) -> Result:
    """Carry out an experiment of two cases, one of which meets the fault."""
    place.edit("llmops.yaml", "attempts: 1, timeout_s: 20", f"attempts: {attempts}, timeout_s: 2")
    place.edit("llmops.yaml", "model: m\n", f"model: m\n    on_unknown: {policy}\n")
    place.write_cases(case_of(0), case_of(1, f"[[fault:{fault}]]"))
    return place.run()


def sent(place: Workplace) -> list[Received]:
    """Return the chats that the server has received, look-ups left out."""
    return [received for received in place.server.received if received.call_id]


def billed_usd(place: Workplace) -> float:
    """Return what the server has billed, by its own ledger."""
    usages = [received.usage for received in place.server.received if received.usage is not None]
    return sum(usage[name] * price for usage in usages for name, price in PER_TOKEN.items())


def statuses(place: Workplace, run: Run) -> dict[str, Status]:
    return {row.case.id: row.output.status for row in place.rows(run) if row.output is not None}


# --- on_unknown -------------------------------------------------------------------------------------------


def test_an_unknown_outcome_is_sent_again_under_the_same_key_and_counted_f24(place: Workplace) -> None:
    run = settled(place, "close:1", attempts=3).run
    keys = Counter(received.call_id for received in sent(place))
    assert sorted(keys.values()) == [1, 2]
    assert (run.n_calls, run.n_retried, run.n_repeated, run.n_unknown) == (3, 1, 1, 1)
    assert run.cost_usd is not None and run.hidden_usd is not None
    assert run.cost_usd < billed_usd(place) <= run.cost_usd + run.hidden_usd
    assert (
        "; 1 further try; 1 sent again for what may have been done; 1 outcome unknown, at most"
        in run_facts(run)
    )


@pytest.mark.parametrize("fault", ["reset", "close", "stall", "stall-body"])
def test_what_may_have_been_done_is_not_sent_again_where_that_is_forbidden_f24(
    place: Workplace, fault: str
) -> None:
    result = settled(place, fault, policy="fail", attempts=4)
    assert len(sent(place)) == 2 == result.run.n_calls
    assert statuses(place, result.run) == {"c0": Status.OK, "c1": Status.UNKNOWN}
    assert (result.run.n_unknown, result.run.n_repeated, result.errors["unknown"][0]) == (1, 0, 1)
    again = place.run()
    assert len(sent(place)) == 2
    assert (again.run.status, again.run.n_unknown) == (RunStatus.PARTIAL, 1)


def test_what_was_left_alone_goes_on_when_the_policy_is_changed_f24(place: Workplace) -> None:
    settled(place, "close:1", policy="fail")
    place.edit("llmops.yaml", "on_unknown: fail", "on_unknown: retry")
    run = place.run().run
    assert (run.status, run.n_calls, run.n_repeated, run.n_unknown) == (RunStatus.COMPLETE, 3, 1, 1)


def test_a_failure_that_is_known_is_tried_again_whatever_the_policy_f09(place: Workplace) -> None:
    run = settled(place, "503:2", policy="fail", attempts=3).run
    assert (run.status, run.n_calls, run.n_retried) == (RunStatus.COMPLETE, 4, 2)
    assert (run.n_unknown, run.n_repeated, run.hidden_usd) == (0, 0, 0.0)
    assert run.cost_usd == pytest.approx(billed_usd(place))


@pytest.mark.parametrize("attempts", [1, 3])
def test_what_the_service_has_is_looked_up_and_paid_for_once_f24(place: Workplace, attempts: int) -> None:
    run = settled(place, "close", policy="reconcile", attempts=attempts).run
    if attempts == 1:
        assert statuses(place, run)["c1"] is Status.UNKNOWN
        run = place.run().run
    assert len(sent(place)) == 2 == run.n_calls
    assert statuses(place, run) == {"c0": Status.OK, "c1": Status.OK}
    assert (run.n_unknown, run.n_repeated) == (0, 0)
    assert run.hidden_usd == pytest.approx(0)
    assert run.cost_usd == pytest.approx(billed_usd(place))


def test_what_the_service_does_not_have_is_sent_again_f24(place: Workplace) -> None:
    run = settled(place, "reset:1", policy="reconcile", attempts=3).run
    assert (run.status, len(sent(place)), run.n_repeated) == (RunStatus.COMPLETE, 3, 1)
    assert all(received.body["store"] is True for received in sent(place))
    assert {received.body["metadata"]["llmops_call"] for received in sent(place)} == {
        received.call_id for received in sent(place)
    }


def test_a_look_up_that_fails_leaves_the_outcome_unknown_f24(place: Workplace) -> None:
    place.server.lists = False
    run = settled(place, "close:1", policy="reconcile", attempts=3).run
    assert statuses(place, run)["c1"] is Status.UNKNOWN
    assert len(sent(place)) == 2
    place.server.lists = True
    run = place.run().run
    assert (run.status, len(sent(place))) == (RunStatus.COMPLETE, 2)


def test_only_a_provider_that_keeps_replies_can_reconcile(place: Workplace) -> None:
    place.write("llmops.yaml", "models:\n  default:\n    provider: embedded\n    on_unknown: reconcile\n")
    (finding,) = check_project(place.workspace())
    assert finding.line == 4 and "looked up" in finding.message
    assert "azure_openai, openai" in str(finding.hint)


# --- paid for, and nothing came ---------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["truncated-json", "short-body", "empty", "no-choices", "empty-choices"])
def test_a_reply_that_is_none_is_paid_for_twice_at_most_f20_f21_f22(place: Workplace, fault: str) -> None:
    run = settled(place, fault, attempts=5).run
    assert (len(sent(place)), run.n_calls, run.n_retried) == (3, 3, 1)
    assert statuses(place, run)["c1"] is Status.ERROR
    assert (run.cost_usd, run.n_unknown) == (None, 0)
    with place.journal() as journal:
        account = journal.account(run.id)
    assert account is not None and account.n_unpriced == 2
    assert billed_usd(place) <= account.usd


def test_a_stream_that_broke_off_keeps_its_text_and_is_not_sent_again_f20(place: Workplace) -> None:
    place.edit("llmops.yaml", "model: m\n", "model: m\n    stream: true\n")
    run = settled(place, "sse-cut", attempts=5).run
    assert (len(sent(place)), statuses(place, run)["c1"]) == (2, Status.TRUNCATED)


# --- what the service says beside the reply ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "share"), [("unfiltered", 0.5), ("unfiltered-prompt", 0.5), ("filter-ran", None)]
)
def test_a_filter_that_did_not_run_is_flagged_and_counted_f14(
    place: Workplace, fault: str, share: float | None
) -> None:
    run = settled(place, fault).run
    assert statuses(place, run)["c1"] is Status.OK
    flagged = {row.case.id for row in place.rows(run) if row.output is not None and row.output.unfiltered}
    assert flagged == ({"c1"} if share else set())
    if share is None:
        assert "unfiltered_rate" not in run.summary["plain"]
    else:
        assert figure(run, "unfiltered_rate").value == share


def test_a_model_that_was_not_asked_is_named_in_the_report_f33(place: Workplace) -> None:
    run = settled(place, "other-model").run
    assert run.answered_by == {"plain": ("another-model", "m")}
    told = [sentence.text for sentence in run_caveats(run)]
    assert "another model answered than was asked: plain asked for m and got another-model" in told


@pytest.mark.parametrize("fault", ["content_filter", "finish_filter"])
def test_what_a_filter_stops_is_sent_once_and_is_no_error_f12_f13(place: Workplace, fault: str) -> None:
    run = settled(place, fault, attempts=5).run
    assert (len(sent(place)), statuses(place, run)["c1"], run.n_errors) == (2, Status.FILTERED, 0)


def test_a_late_answer_is_never_taken_for_another_f36(tmp_path: Path) -> None:
    with running_model_server(delay_ms=300) as server:
        place = Workplace(tmp_path, server)
        place.edit("llmops.yaml", "timeout_s: 20", "timeout_s: 0.2")
        place.write_cases(*(case_of(n, f"[[say:nonce {n}]]") for n in range(6)))
        assert place.run().run.n_unknown == 6
        server.delay_s = 0.0
        run = place.run().run
        said = {row.case.id: row.output.value for row in place.rows(run) if row.output is not None}
    assert said == {f"c{n}": f"nonce {n}" for n in range(6)}
    assert (run.n_calls, run.n_repeated, run.n_unknown) == (12, 6, 6)


# --- kills ------------------------------------------------------------------------------------------------


def killed(place: Workplace, after: int) -> None:
    """Start the run in a process of its own and kill it once the server has received so many requests."""
    enough = len(sent(place)) + after
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "llmops", "run", "experiments/sort", "--no-sync"],
        cwd=place.root,
        env={**os.environ, **place.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 60
    while len(sent(place)) < enough and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def test_a_run_killed_twice_accounts_for_every_request_f37_f38(tmp_path: Path) -> None:
    with running_model_server(delay_ms=40) as server:
        place = Workplace(tmp_path, server)
        place.write_cases(*(case_of(n, "[[fault:503:1]]" if n % 5 == 0 else "") for n in range(40)))
        place.edit("llmops.yaml", "attempts: 1", "attempts: 4")
        for _ in range(2):
            killed(place, 12)
        run = place.run().run
        received = len(sent(place))
        repeated = sum(n - 1 for n in Counter(one.call_id for one in sent(place) if one.usage).values())
        assert run.status is RunStatus.COMPLETE and run.cost_usd is not None and run.hidden_usd is not None
        assert run.n_calls <= received <= run.n_calls + run.n_unknown
        assert run.n_unknown > 0 and repeated <= run.n_repeated
        assert run.cost_usd <= billed_usd(place) + 1e-12
        assert billed_usd(place) <= run.cost_usd + run.hidden_usd + 1e-12
        with place.journal() as journal:
            account = journal.account(run.id)
            assert account is not None and (account.n_calls, account.n_unknown) == (
                run.n_calls,
                run.n_unknown,
            )
            assert not [call for call in calls_in(journal) if call.state is CallState.SENT]


def test_a_killed_run_never_passes_its_cap_s29_f37(tmp_path: Path) -> None:
    cap = 0.010
    with running_model_server(delay_ms=30) as server:
        place = Workplace(tmp_path, server)
        place.write_cases(*(case_of(n, "[[fault:503:1]]" if n % 4 == 0 else "") for n in range(300)))
        place.edit("llmops.yaml", "attempts: 1", "attempts: 3")
        place.edit("experiments/sort.experiment.yaml", "seed: 3", f"seed: 3\nbudget: {{usd: {cap}}}")
        for _ in range(2):
            killed(place, 10)
        assert isinstance(place.run().stopped, BudgetError)
        assert 0 < billed_usd(place) <= cap


def test_a_killed_run_never_sends_more_than_its_calls_s29_f37(tmp_path: Path) -> None:
    with running_model_server(delay_ms=30) as server:
        place = Workplace(tmp_path, server)
        place.write_cases(*(case_of(n, "[[fault:503:1]]" if n % 4 == 0 else "") for n in range(400)))
        place.edit("llmops.yaml", "attempts: 1", "attempts: 3")
        place.edit("experiments/sort.experiment.yaml", "seed: 3", "seed: 3\nbudget: {calls: 240}")
        killed(place, 20)
        killed(place, 20)
        assert isinstance(place.run().stopped, BudgetError)
        assert len(sent(place)) <= 240


def test_a_kill_under_a_policy_that_forbids_it_repeats_nothing_f37(tmp_path: Path) -> None:
    with running_model_server(delay_ms=40) as server:
        place = Workplace(tmp_path, server)
        place.edit("llmops.yaml", "model: m\n", "model: m\n    on_unknown: fail\n")
        place.write_cases(*(case_of(n) for n in range(40)))
        killed(place, 12)
        result = place.run()
        assert set(Counter(one.call_id for one in sent(place)).values()) == {1}
        assert result.run.n_repeated == 0 < result.run.n_unknown
        assert set(statuses(place, result.run).values()) == {Status.OK, Status.UNKNOWN}


def test_the_record_of_what_was_spent_survives_a_round_trip(place: Workplace) -> None:
    run = settled(place, "close:1", attempts=3).run
    assert Run.model_validate_json(run.model_dump_json()) == run
    assert {"n_retried", "n_unknown", "n_repeated", "hidden_usd"} <= json.loads(run.model_dump_json()).keys()
