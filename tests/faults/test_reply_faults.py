"""Replies that are odd, cut, empty or too large, from the command line to the journal, however they are asked for."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from llmops.call import upper_cost
from llmops.cli.exits import Exit
from llmops.definitions.project import Price
from llmops.models.failures import DIAGNOSIS_BYTES
from llmops.models.tokens import estimate_request_tokens
from llmops.records import Embeddings, Reply
from tests.cli.inside import llmops_inside
from tests.faults.scene import (
    ANSWERED,
    CHATS,
    EMBEDDINGS,
    JUDGE,
    NO_SCORE,
    Fate,
    Scene,
    Way,
    assert_books_agree,
    over,
)
from tests.model_server import BIDI, ModelServer
from tests.postgres_server import PostgresServer

PAID_TRIES = 2
"""A reply that is none was billed, and is asked for once more."""


def reply_of(fate: Fate) -> Reply:
    """Return the reply that the journal has."""
    assert fate.call is not None and isinstance(fate.call.reply, Reply)
    return fate.call.reply


# --- outcomes that are no error ---------------------------------------------------------------------------


@over("F13")
def test_a_reply_that_a_filter_stopped_is_filtered_and_holds_no_text_F13(scene: Scene) -> None:
    (hit,) = scene.cases("[[fault:finish_filter]]")
    done = scene.run()
    assert done.returncode == Exit.DONE, done.stderr
    fate = scene.fate(hit)
    assert fate.outcome == ("filtered" if scene.way.is_chat else NO_SCORE)
    assert "content filter stopped" in fate.said
    assert (reply_of(fate).text, len(fate.requests)) == ("", 1)
    assert fate.call is not None and fate.call.cost_usd
    assert_books_agree(scene)
    assert scene.run_again() == []


@over("F14")
def test_a_filter_that_did_not_run_is_flagged_beside_the_text_F14(scene: Scene) -> None:
    unfiltered, prompt, ran = scene.cases(
        "[[fault:unfiltered]]", "[[fault:unfiltered-prompt]]", "[[fault:filter-ran]]"
    )
    done = scene.run()
    assert done.returncode == Exit.DONE, done.stderr
    for case_id, is_flagged in {unfiltered: True, prompt: True, ran: False}.items():
        fate = scene.fate(case_id)
        assert (fate.outcome, reply_of(fate).unfiltered, len(fate.requests)) == (ANSWERED, is_flagged, 1)
        if scene.way.is_chat:
            assert fate.row.output is not None and fate.row.output.unfiltered is is_flagged
    if scene.way.is_chat:
        assert scene.last_run.summary["plain"]["unfiltered_rate"].value == pytest.approx(2 / 6)
    assert_books_agree(scene)


@over("F16")
def test_a_reply_cut_at_its_length_is_truncated_and_json_evaluators_say_so_F16(scene: Scene) -> None:
    (hit,) = scene.cases('[[say:{"score": ]][[fault:length]]')
    done = scene.run()
    assert done.returncode == Exit.DONE, done.stderr
    fate = scene.fate(hit)
    assert reply_of(fate).text == '{"score":'
    assert len(fate.requests) == 1
    if scene.way.kind == JUDGE:
        assert (fate.outcome, "cut off" in fate.said) == (NO_SCORE, True)
    else:
        score = fate.row.scores[1]
        assert (fate.outcome, score.evaluator, score.value) == ("truncated", "json_valid", 0)
        assert str(score.rationale).startswith("cut off before its end (truncated)")
    assert scene.run_again() == []


@over("F23")
def test_a_refusal_has_its_words_and_nothing_said_is_never_the_text_none_F23(scene: Scene) -> None:
    faults = ["refusal", "null-content", "tool-calls"]
    refused, *empty = scene.cases(*(f"[[fault:{fault}]]" for fault in faults))
    assert scene.run().returncode == Exit.INCOMPLETE
    fate = scene.fate(refused)
    assert fate.outcome == ("refused" if scene.way.is_chat else NO_SCORE)
    assert (reply_of(fate).text, len(fate.requests)) == ("I cannot help with that.", 1)
    for fate in map(scene.fate, empty):
        assert (fate.outcome, fate.call and fate.call.reply) == ("error/protocol", None)
        assert fate.row.output is None or "None" not in str(fate.row.output.value or "")
        assert 1 <= len(fate.requests) <= PAID_TRIES
    assert_books_agree(scene)


@over("F26")
def test_a_usage_that_is_none_leaves_the_cost_unknown_and_never_nothing_F26(scene: Scene) -> None:
    faults = ["missing", "strings", "negative", "huge"]
    hit = scene.cases(*(f"[[fault:usage-{fault}]]" for fault in faults))
    done = scene.run()
    assert done.returncode == Exit.DONE, done.stderr
    for fate in map(scene.fate, hit):
        assert fate.call is not None and fate.call.reply is not None and fate.call.reply.usage is not None
        assert (fate.outcome, fate.call.cost_usd, fate.call.reply.usage.estimated) == (ANSWERED, None, True)
    run = scene.last_run
    assert run.cost_usd is None
    if scene.way.is_chat:
        assert run.summary["plain"]["cost_usd"].value is None
    assert_books_agree(scene)
    assert scene.run_again() == []


@over("F26")
def test_an_unknown_cost_counts_at_its_upper_estimate_against_the_budget_F26(scene: Scene) -> None:
    scene.cases(*["[[fault:usage-missing]]"] * 6, n_well=0)
    scene.run()
    price = Price(input_per_mtok=1, output_per_mtok=2)
    upper = [upper_cost(call.request, estimate_request_tokens(call.request), price) for call in scene.calls()]
    assert len(upper) == 6
    scene.extra = f"budget: {{usd: {4.5 * max(upper):.9f}}}\n"
    n_before = len(scene.requests)
    done = scene.run("--fresh")
    assert done.returncode == Exit.STOPPED, done.stderr
    assert len(scene.requests) - n_before == 4


# --- replies that are none --------------------------------------------------------------------------------


def assert_no_reply(scene: Scene, hit: list[str], kind: str, most: int) -> None:
    """Each case has an error of the kind after so many requests at most, and what came is kept up to a limit."""
    assert scene.run().returncode == Exit.INCOMPLETE
    for fate in map(scene.fate, hit):
        assert (fate.outcome, fate.attempts) == (f"error/{kind}", len(fate.requests))
        assert 1 <= len(fate.requests) <= most
        assert fate.call is not None
        assert len(fate.call.body or b"") <= DIAGNOSIS_BYTES
    assert_books_agree(scene)


@over("F20")
def test_a_body_cut_short_is_paid_for_twice_at_most_and_both_times_are_billed_F20(scene: Scene) -> None:
    lasting = scene.cases("[[fault:truncated-json]]", "[[fault:short-body]]")
    assert_no_reply(scene, lasting, "protocol", PAID_TRIES)
    assert [len(scene.fate(case_id).requests) for case_id in lasting] == [PAID_TRIES] * 2
    assert scene.books.account.n_unpriced == 2 * PAID_TRIES
    assert scene.last_run.cost_usd is None
    again = scene.cases("[[fault:truncated-json:1]]", "[[fault:short-body:1]]", n_well=1)
    assert scene.run().returncode == Exit.DONE
    assert [(fate.outcome, fate.attempts) for fate in map(scene.fate, again)] == [(ANSWERED, 2)] * 2


@over("F21")
def test_a_body_that_is_no_reply_is_an_error_and_kept_F21(scene: Scene) -> None:
    hit = scene.cases(*(f"[[fault:{fault}]]" for fault in ("html", "array", "error-object", "empty")))
    assert_no_reply(scene, hit, "protocol", PAID_TRIES)
    bodies = [fate.call.body for fate in map(scene.fate, hit) if fate.call]
    assert bodies[0] == b"<html><body>Welcome to the proxy</body></html>"
    assert (bodies[1] or b"").startswith(b"[{")
    assert b"made to fail" in (bodies[2] or b"")
    assert bodies[3] is None
    assert "the reply holds an error" in scene.fate(hit[2]).said


@over("F22")
def test_a_reply_without_what_was_asked_for_is_an_error_F22(scene: Scene) -> None:
    of_chat = ["no-choices", "empty-choices", "mistyped-choices", "mistyped-message", "mistyped-content"]
    of_vectors = ["no-vectors", "too-few-vectors", "ragged-vectors", "text-vector", "nan-vector"]
    faults = of_vectors if scene.way.kind == EMBEDDINGS else of_chat
    hit = scene.cases(*(f"[[fault:{fault}]]" for fault in faults))
    assert_no_reply(scene, hit, "protocol", PAID_TRIES)
    assert all(fate.call and fate.call.body for fate in map(scene.fate, hit))


@over("F28")
def test_a_body_that_is_too_large_is_left_at_the_cap_and_not_asked_for_again_F28(scene: Scene) -> None:
    hit = scene.cases("[[fault:big-body]]", "[[fault:gzip-bomb]]", n_well=1)
    assert_no_reply(scene, hit, "too_large", 1)


# --- another model than asked -----------------------------------------------------------------------------


@over("F33")
def test_another_model_that_answers_is_stored_and_warned_of_F33(scene: Scene) -> None:
    (hit,) = scene.cases("[[fault:other-model]]")
    done = scene.run("--concurrency", "4")  # as text
    assert done.returncode == Exit.DONE, done.stderr
    fate = scene.fate(hit)
    assert fate.call is not None and isinstance(fate.call.reply, Reply | Embeddings)
    assert (fate.outcome, fate.call.reply.model) == (ANSWERED, "another-model")
    if scene.way.is_chat:
        assert fate.row.output is not None and fate.row.output.returned_model == "another-model"
        told = "another model answered than was asked" in " ".join(done.stdout.split())
        assert told is (scene.way.provider != "azure_openai")  # whose deployments have names of their own


# --- text that is hard to keep ----------------------------------------------------------------------------

LOST = "\N{REPLACEMENT CHARACTER}"
TEXTS = {
    "surrogate": (f"a{LOST}b{LOST}c", b"\\ud800"),
    "invalid-utf8": (LOST, b"\xff\xfe"),
    "bidi": (BIDI, b"\\u202e"),
    "bom": ("", b"\xef\xbb\xbf"),
}
LONG = {"marks": ("e" + "\u0301" * 1_000_000, b"\\u0301" * 1000)}
"""Megabytes, which every client hands on alike."""


def assert_kept(scene: Scene, texts: dict[str, tuple[str, bytes]]) -> None:
    """Every text is stored, its bytes as they came, and exported as UTF-8."""
    faults = dict(zip(texts, scene.cases(*(f"[[fault:{fault}]]" for fault in texts)), strict=True))
    done = scene.run()
    assert done.returncode == Exit.DONE, done.stderr
    for fault, (text, raw) in texts.items():
        reply = reply_of(scene.fate(faults[fault]))
        assert text in reply.text
        assert raw in reply.raw
    exported = scene.root / "rows.jsonl"
    told = llmops_inside("report", "--rows", str(exported), cwd=scene.root, more=scene.environment)
    assert told.returncode == Exit.DONE, told.stderr
    lines = exported.read_bytes().decode("utf-8").split("\n")
    assert len(lines) > len(texts)
    assert "\0" not in "".join(lines)
    assert scene.run_again() == []


@over("F27")
def test_any_text_is_stored_without_loss_and_exported_as_utf8_F27(scene: Scene) -> None:
    assert_kept(scene, TEXTS | (LONG if scene.way.client == "openai" else {}))


@pytest.mark.parametrize("kind", [*CHATS, JUDGE])
def test_any_text_is_stored_without_loss_in_postgresql_too_F27(
    kind: str, tmp_path: Path, fault_server: ModelServer, fault_seed: str, postgres: PostgresServer
) -> None:
    url = postgres.new_database()
    assert_kept(
        Scene(tmp_path, fault_server, Way(kind, "openai"), Random(fault_seed), store=url), TEXTS | LONG
    )


# --- streams ----------------------------------------------------------------------------------------------

WHOLE_STREAMS = ("sse-comment", "sse-event-only", "sse-crlf", "sse-finish-no-done", "sse-open")
CUT_STREAMS = ("sse-no-done", "sse-cut", "sse-reset")
PARTIAL = {"sse-bad-json": "protocol", "sse-array": "protocol", "sse-error": "unavailable"}
PARTIAL |= {"sse-error-event": "unavailable"}


@over("F30")
def test_a_stream_is_whole_only_when_it_says_so_and_keeps_what_came_F30(scene: Scene) -> None:
    faults = [*WHOLE_STREAMS, *CUT_STREAMS, *PARTIAL, "sse-nothing", "sse-huge"]
    hit = dict(zip(faults, scene.cases(*(f"[[fault:{fault}]]" for fault in faults)), strict=True))
    assert scene.run().returncode == Exit.INCOMPLETE
    fates = {fault: scene.fate(case_id) for fault, case_id in hit.items()}
    expected = {
        **dict.fromkeys(WHOLE_STREAMS, ANSWERED),
        **dict.fromkeys(CUT_STREAMS, "truncated"),
        **{fault: f"error/{kind}" for fault, kind in PARTIAL.items()},
        "sse-nothing": "error/protocol",
        "sse-huge": "error/too_large",
    }
    assert {fault: fate.outcome for fault, fate in fates.items()} == expected
    for fault in CUT_STREAMS:
        assert reply_of(fates[fault]).text == "echo"
        assert len(fates[fault].requests) == 1
    for fault in PARTIAL:
        call = fates[fault].call
        assert call is not None and b'"content": "echo"' in (call.body or b"")
    assert_books_agree(scene)
