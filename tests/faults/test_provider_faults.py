"""What a provider says or does when it gives no reply, from the command line to the journal, however it is asked."""

from __future__ import annotations

from collections import Counter

from llmops.cli.exits import Exit
from llmops.records import CallState, Status
from tests.faults.scene import (
    ANSWERED,
    ATTEMPTS,
    CONCURRENCY,
    NO_SCORE,
    Scene,
    assert_books_agree,
    over,
    sent,
)
from tests.model_server import NONSENSE, QUOTA_CODES

CLOCK_S = 0.005
"""By so much the server's clock and ours may part during a pause."""


# --- asked to wait ----------------------------------------------------------------------------------------


def assert_all_wait(scene: Scene, fault: str, seconds: float) -> None:
    """The first request is refused; no other is sent before the time is over, and one more answers each case."""
    scene.server.script = [fault]
    scene.cases(n_well=6)
    done = scene.run()
    assert done.returncode == Exit.DONE, done.stderr
    refused, *later = scene.requests
    assert (refused.status, len(later)) == (429, 6)
    assert refused.answered_at is not None
    assert min(each.arrived_at for each in later) >= refused.answered_at + seconds - CLOCK_S
    assert scene.fates() == [ANSWERED] * 6
    assert_books_agree(scene)


@over("F01")
def test_nobody_sends_before_the_seconds_are_over_that_the_service_names_F01(scene: Scene) -> None:
    assert_all_wait(scene, "retry-after-brief", 0.2)


@over("F02")
def test_a_date_is_waited_for_by_the_clock_of_the_service_however_wrong_F02(scene: Scene) -> None:
    assert_all_wait(scene, scene.random.choice(["retry-after-fast", "retry-after-slow"]), 1.0)


@over("F03")
def test_milliseconds_are_kept_and_the_longer_of_two_times_counts_F03(scene: Scene) -> None:
    assert_all_wait(scene, scene.random.choice(["retry-after-own", "retry-after-azure"]), 0.25)


@over("F06")
def test_a_time_that_is_none_is_ignored_and_the_request_sent_again_F06(scene: Scene) -> None:
    hit = scene.cases(*(f"[[fault:nonsense-{place}:1]]" for place in range(len(NONSENSE))))
    assert scene.run().returncode == Exit.DONE
    assert scene.fates() == [ANSWERED] * (len(NONSENSE) + 3)
    assert [scene.fate(case_id).attempts for case_id in hit] == [2] * len(NONSENSE)
    assert_books_agree(scene)


# --- worth another try ------------------------------------------------------------------------------------


@over("F09")
def test_what_fails_once_or_twice_is_answered_and_each_attempt_is_recorded_F09(scene: Scene) -> None:
    failures = {status: scene.random.choice([1, 2]) for status in (408, 409, 500, 502, 503, 504, 529)}
    hit = scene.cases(*(f"[[fault:{status}:{times}]]" for status, times in failures.items()))
    done = scene.run()
    assert done.returncode == Exit.DONE, done.stderr
    for case_id, times in zip(hit, failures.values(), strict=True):
        fate = scene.fate(case_id)
        assert (fate.outcome, fate.attempts, len(fate.requests)) == (ANSWERED, times + 1, times + 1)
        assert len({each.call_id for each in fate.requests}) == 1
    assert_books_agree(scene)
    assert scene.run_again() == []


@over("F10")
def test_a_service_that_stays_down_costs_no_more_than_the_declared_attempts_F10(scene: Scene) -> None:
    scene.server.outage = scene.random.choice(["500", "503", "529"])
    scene.cases(n_well=5)
    assert scene.run().returncode == Exit.INCOMPLETE
    assert 0 < len(scene.requests) <= 5 * ATTEMPTS
    assert_books_agree(scene)
    assert scene.last_run.cost_usd == 0
    assert len(scene.run_again()) == 5
    assert scene.fates() == [ANSWERED] * 5


# --- not worth another try --------------------------------------------------------------------------------


@over("F11")
def test_a_request_that_is_wrong_by_itself_is_sent_once_and_spoils_no_other_F11(scene: Scene) -> None:
    hit = scene.cases("[[fault:400]]", "[[fault:422]]", n_well=4)
    scene.server.script = [""]  # one is answered first: then the parameters are right
    assert scene.run().returncode == Exit.INCOMPLETE
    outcomes = Counter(scene.fates())
    assert outcomes["error/request"] + outcomes[ANSWERED] == 6
    assert outcomes[ANSWERED] >= 4
    assert max(len(scene.fate(case_id).requests) for case_id in hit) == 1
    assert_books_agree(scene)


@over("F11")
def test_a_request_that_is_wrong_for_every_case_stops_the_model_with_what_it_said_F11(scene: Scene) -> None:
    scene.server.outage = "400"
    scene.cases(n_well=10)
    done = scene.run()
    assert done.returncode == Exit.STOPPED
    assert "made to fail; so said of the first 3" in " ".join(done.stderr.split())
    assert 3 <= len(scene.requests) < 3 + CONCURRENCY
    assert set(sent(scene.requests).values()) == {1}
    scene.run_again()
    assert scene.fates() == [ANSWERED] * 10


@over("F12")
def test_what_a_filter_turns_down_is_filtered_by_category_and_no_error_F12(scene: Scene) -> None:
    (hit,) = scene.cases("[[fault:content_filter]]")
    done = scene.run()
    assert done.returncode == Exit.DONE, done.stderr
    fate = scene.fate(hit)
    assert (fate.outcome, len(fate.requests)) == ("filtered" if scene.way.is_chat else NO_SCORE, 1)
    assert "for violence" in fate.said
    assert fate.call is not None and fate.call.error is not None
    assert (fate.call.error.kind, "hate" in fate.call.error.message) == ("filtered", False)
    for figures in scene.last_run.summary.values():
        assert figures["error_rate"].value == 0
    assert_books_agree(scene)
    assert scene.run_again() == []


@over("F15")
def test_too_long_a_request_is_told_with_its_tokens_and_sent_once_F15(scene: Scene) -> None:
    (hit,) = scene.cases("[[fault:context_length]]")
    assert scene.run().returncode == Exit.INCOMPLETE
    fate = scene.fate(hit)
    assert (fate.outcome, len(fate.requests)) == ("error/context_length", 1)
    assert "maximum context length is 4096 tokens, and the messages have 5000" in fate.said
    assert_books_agree(scene)


@over("F19")
def test_a_time_to_wait_is_ignored_where_waiting_does_not_help_F19(scene: Scene) -> None:
    hit = scene.cases(*(f"[[fault:{status}-retry-after]]" for status in (400, 413, 422)))
    assert scene.run().returncode == Exit.INCOMPLETE
    assert scene.fates(*hit) == ["error/request"] * 3
    assert set(sent(scene.requests).values()) == {1}
    scene.server.outage = "401-retry-after"
    n_before = len(scene.requests)
    assert scene.run().returncode == Exit.STOPPED
    assert len(scene.requests) == n_before + 1


# --- stop asking ------------------------------------------------------------------------------------------


@over("F08")
def test_a_quota_code_stops_the_model_within_what_is_in_flight_F08(scene: Scene) -> None:
    scene.cases(n_well=2 + CONCURRENCY)
    for code in scene.random.sample(QUOTA_CODES, 2):  # every client meets every code in tests/models
        n_before = len(scene.requests)
        scene.server.script, scene.server.outage = [""], code
        done = scene.run()
        assert done.returncode == Exit.STOPPED
        assert "the quota is used up" in done.stderr
        answered, *refused = scene.requests[n_before:]
        assert (answered.status, {each.status for each in refused}) == (200, {429})
        assert len(refused) <= CONCURRENCY and set(sent(refused).values()) == {1}
    assert_books_agree(scene)
    assert len(scene.run_again()) == CONCURRENCY
    assert scene.fates() == [ANSWERED] * (2 + CONCURRENCY)


@over("F17")
def test_a_key_that_is_refused_from_the_start_is_named_and_never_shown_F17(scene: Scene) -> None:
    scene.server.outage = scene.random.choice(["401", "403", "401-echo"])
    scene.cases(n_well=8)
    done = scene.run()
    assert done.returncode == Exit.STOPPED
    assert "refuses the key in MODEL_KEY" in " ".join(done.stderr.split())
    assert 1 <= len(scene.requests) <= CONCURRENCY
    assert_books_agree(scene)
    assert len(scene.run_again()) == 8


@over("F18")
def test_a_model_that_is_not_there_stops_and_the_other_goes_on_F18(scene: Scene) -> None:
    scene.server.outage = scene.random.choice(["404", "410", "unknown-model"])
    scene.cases(n_well=8)
    done = scene.run()
    assert done.returncode == Exit.STOPPED
    assert "no such model or route" in " ".join(done.stderr.split())
    assert 1 <= len(scene.requests) <= CONCURRENCY
    assert [output and output.status for output in scene.outputs("beside")] == [Status.OK] * 8
    assert len(scene.run_again()) == 8


@over("F34")
def test_a_key_revoked_in_mid_run_stops_it_and_a_new_one_carries_on_F34(scene: Scene) -> None:
    scene.cases(n_well=8)
    scene.server.script, scene.server.revoked = ["", ""], {scene.key}
    done = scene.run()
    assert done.returncode == Exit.STOPPED
    assert "refuses the key in MODEL_KEY" in " ".join(done.stderr.split())
    statuses = Counter(each.status for each in scene.requests)
    assert statuses[200] == 2 and 1 <= statuses[401] <= CONCURRENCY
    assert Counter(call.state for call in scene.calls())[CallState.ANSWERED] == 2
    scene.key = "sk-another/0123456789"
    assert len(scene.run_again()) == 6
    assert scene.fates() == [ANSWERED] * 8
