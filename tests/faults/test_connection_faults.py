"""Connections that break, stall, lead elsewhere or bring too much, however the model is asked."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from llmops.call import Answer, Budget, Caller, open_caller, open_deployments
from llmops.cli.exits import Exit
from llmops.models import model_version
from llmops.models.wire import MOST_BYTES
from llmops.records import (
    AnyReply,
    AnyRequest,
    CallState,
    EmbeddingRequest,
    Embeddings,
    Message,
    Reply,
    Request,
)
from tests.certificates import certificate
from tests.cli.command import environment
from tests.faults.scene import (
    ANSWERED,
    ATTEMPTS,
    CLIENTS,
    CONCURRENCY,
    EMBEDDINGS,
    STREAMED,
    Scene,
    assert_books_agree,
    over,
)
from tests.model_server import LATE_S, ModelServer, reply_text, running_model_server, vectors_reply
from tests.workplace import calls_in, utc_now

Asked = Request | EmbeddingRequest
Said = Reply | Embeddings

# --- before anything is sent ------------------------------------------------------------------------------


@contextmanager
def resetting() -> Iterator[tuple[str, list[bytes]]]:
    """Give the address of a server that resets every connection before it says a word, and what it was sent."""
    heard: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def reset_all() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            heard.append(connection.recv(5))  # of the greeting, which says nothing of a request
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()

    thread = threading.Thread(target=reset_all, daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{listener.getsockname()[1]}", heard
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(timeout=10)


@over("F25")
def test_what_cannot_leave_is_tried_again_as_often_as_declared_and_costs_nothing_F25(scene: Scene) -> None:
    scene.cases(n_well=3)
    with resetting() as (reset, heard), socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        refused = f"http://127.0.0.1:{unused.getsockname()[1]}"
        for scene.url in (reset, refused, "https://nowhere.invalid"):
            done = scene.run()
            assert done.returncode == Exit.INCOMPLETE
            assert "the endpoint in MODEL_URL cannot be reached" in " ".join(done.stderr.split())
            assert scene.fates() == ["error/unavailable"] * 3
    assert len(heard) == 3 * ATTEMPTS
    assert {each[:1] for each in heard} == {b"\x16"}  # a TLS handshake and nothing else
    assert scene.requests == []
    assert_books_agree(scene)
    assert scene.last_run.cost_usd == 0
    scene.url = ""
    assert len(scene.run_again()) == 3
    assert scene.fates() == [ANSWERED] * 3


@over("F25")
def test_a_certificate_that_is_not_to_be_trusted_is_final_and_says_why_F25(scene: Scene) -> None:
    scene.cases(n_well=3)
    trusted = scene.certificates
    flaws = [("self-signed", "127.0.0.1", 1), ("expired", "127.0.0.1", -1), ("not valid for", "127.0.0.2", 1)]
    for why, host, days in flaws:
        path = certificate(scene.root, host=host, days=days)
        scene.certificates = trusted if why == "self-signed" else str(path)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        with running_model_server(tls=context) as server:
            scene.url = server.url_of(scene.way.provider)
            done = scene.run()
            assert server.received == []
        assert done.returncode == Exit.STOPPED
        told = " ".join(done.stderr.split())
        assert "the endpoint in MODEL_URL cannot be trusted" in told and why in told
    scene.url, scene.certificates = "", trusted
    assert len(scene.run_again()) == 3


# --- afterwards -------------------------------------------------------------------------------------------


@over("F24")
def test_a_reset_after_the_request_is_sent_again_under_the_same_key_F24(scene: Scene) -> None:
    hit = scene.cases("[[fault:reset:1]]", "[[fault:close:1]]")
    done = scene.run()
    assert done.returncode == Exit.DONE, done.stderr
    for fate in map(scene.fate, hit):
        assert (fate.outcome, fate.attempts, len(fate.requests)) == (ANSWERED, 2, 2)
        assert len({each.call_id for each in fate.requests}) == 1
    assert_books_agree(scene)
    assert scene.run_again() == []


@over("F24")
def test_what_may_have_been_done_is_left_alone_where_that_is_the_policy_F24(scene: Scene) -> None:
    (hit,) = scene.cases("[[fault:reset:1]]" if scene.random.random() < 0.5 else "[[fault:close:1]]")
    scene.more = {"on_unknown": "fail"}
    assert scene.run().returncode == Exit.INCOMPLETE
    fate = scene.fate(hit)
    assert fate.call is not None
    assert fate.outcome == ("unknown" if scene.way.is_chat else "error/unknown")
    assert (fate.call.state, len(fate.requests)) == (CallState.UNKNOWN, 1)
    assert scene.last_run.n_unknown == 1
    n_before = len(scene.requests)
    assert scene.run().returncode == Exit.INCOMPLETE
    assert len(scene.requests) == n_before
    assert_books_agree(scene)
    scene.more = {}
    assert len(scene.run_again()) == 1
    assert scene.fate(hit).outcome == ANSWERED


@over("F24-reconcile")
def test_what_the_service_has_kept_is_looked_up_and_not_paid_for_again_F24(scene: Scene) -> None:
    lost, never = scene.cases("[[fault:close:1]]", "[[fault:reset:1]]")
    scene.more = {"on_unknown": "reconcile"}
    done = scene.run()
    assert done.returncode == Exit.DONE, done.stderr
    asked = {
        case_id: [each for each in scene.fate(case_id).requests if each.call_id] for case_id in (lost, never)
    }
    assert {case_id: len(found) for case_id, found in asked.items()} == {lost: 1, never: 2}
    assert scene.fates() == [ANSWERED] * 5
    assert scene.run_again() == []


@over("F29")
def test_the_deadline_ends_a_call_wherever_it_stalls_F29(scene: Scene) -> None:
    faults = ["stall", "stall-body", "drip", *(["sse-stall"] if scene.way.kind == STREAMED else [])]
    scene.cases(*(f"[[fault:{fault}:1]]" for fault in faults), n_well=0)
    scene.more = {"limits": {"timeout_s": 0.3, "attempts": 1}}
    assert scene.run().returncode == Exit.INCOMPLETE
    assert scene.fates() == ["error/timeout"] * len(faults)
    assert len(scene.requests) == len(faults)
    assert_books_agree(scene)
    scene.more = {}
    assert len(scene.run_again()) == len(faults)
    assert scene.fates() == [ANSWERED] * len(faults)


@over("F31")
def test_a_redirect_to_another_origin_is_refused_and_nothing_reaches_it_F31(scene: Scene) -> None:
    scene.cases(n_well=5)
    with running_model_server() as other:
        scene.server.elsewhere = f"{other.base_url}/v1/chat/completions"
        scene.server.outage = scene.random.choice(["redirect", "redirect-308"])
        done = scene.run()
        assert other.received == []
    assert done.returncode == Exit.STOPPED
    assert "sends us elsewhere, which is never followed" in " ".join(done.stderr.split())
    assert 1 <= len(scene.requests) <= CONCURRENCY
    assert len(scene.run_again()) == 5


@over("F32")
def test_a_redirect_in_a_circle_is_one_request_F32(scene: Scene) -> None:
    scene.cases(n_well=5)
    scene.server.outage = "redirect-loop"
    done = scene.run()
    assert done.returncode == Exit.STOPPED
    assert [each.status for each in scene.requests] == [307]
    assert_books_agree(scene)
    assert len(scene.run_again()) == 5


# --- far too much -----------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are told by Linux alone")
@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.replace("/", "_"))
def test_200_megabytes_or_a_bomb_take_no_more_memory_than_twice_the_cap_F28(
    client: str, fault_server: ModelServer
) -> None:
    command = [sys.executable, "-m", "tests.faults.memory", client, fault_server.base_url]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        command, cwd=root, env=environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    rises = json.loads(done.stdout)
    assert len(rises) == 6
    assert {name: rise for name, rise in rises.items() if rise > 2 * MOST_BYTES} == {}


# --- which answer is whose --------------------------------------------------------------------------------


@over("F36")
def test_an_answer_that_comes_out_of_turn_or_late_is_never_anothers_F36(scene: Scene) -> None:
    waits = scene.random.sample(range(0, 240, 20), 12)
    lates = set(scene.random.sample(range(12), 2))
    scene.more = {"limits": {"timeout_s": LATE_S / 2, "concurrency": 6}}
    said = [f"[[wait:{wait}]]" + "[[fault:late:1]]" * (place in lates) for place, wait in enumerate(waits)]
    hit = scene.cases(*said, n_well=0)
    done = scene.run()
    assert done.returncode == Exit.DONE, done.stderr
    for place, fate in enumerate(map(scene.fate, hit)):
        assert (fate.outcome, fate.attempts) == (ANSWERED, 2 if place in lates else 1)
        assert fate.call is not None
        assert is_own(fate.call.request, fate.call.reply)
    assert_books_agree(scene)


@over("F36")
def test_an_answer_to_a_cancelled_call_is_never_anothers_F36(scene: Scene) -> None:
    nonces = [f"n{scene.random.getrandbits(40):010x}" for _ in range(10)]
    dropped = set(scene.random.sample(nonces[:CONCURRENCY], 2))
    answers = asyncio.run(asked_and_cancelled(scene, nonces, dropped))
    assert set(answers) == set(nonces) - dropped
    for nonce, answer in answers.items():
        assert is_own(asking(scene, nonce), answer.reply)
    with scene.journal() as journal:
        calls = calls_in(journal)
    assert len(calls) == len(nonces)
    for call in calls:
        is_dropped = any(nonce in call.request.model_dump_json() for nonce in dropped)
        assert call.state is (CallState.UNKNOWN if is_dropped else CallState.ANSWERED)
        assert call.reply is None if is_dropped else is_own(call.request, call.reply)


async def asked_and_cancelled(scene: Scene, nonces: list[str], dropped: set[str]) -> dict[str, Answer[Said]]:
    """Ask for all, those to be dropped among the first and in flight when they are; return what was answered."""
    workspace = scene.load()
    versions = {"asked": model_version("asked", workspace.model("asked"))}
    deployments = open_deployments(workspace, versions, scene.environment)
    deployments["asked"].proven = True  # else the first goes alone
    with scene.journal() as journal, journal.hold("test"):
        async with open_caller(deployments, journal, Budget(), utc_now) as (caller, _):
            tasks = {
                nonce: asyncio.create_task(ask(caller, asking(scene, nonce)))
                for nonce in nonces[:CONCURRENCY]
            }
            while len(scene.requests) < CONCURRENCY:  # noqa: ASYNC110 - another thread serves
                await asyncio.sleep(0.005)
            for nonce in dropped:
                tasks[nonce].cancel()
            for nonce in nonces[CONCURRENCY:]:
                tasks[nonce] = asyncio.create_task(ask(caller, asking(scene, nonce)))
            await asyncio.wait(tasks.values())
    return {nonce: task.result() for nonce, task in tasks.items() if not task.cancelled()}


def asking(scene: Scene, nonce: str) -> Asked:
    if scene.way.kind == EMBEDDINGS:
        return EmbeddingRequest(inputs=(f"[[wait:150]]{nonce}",))
    return Request(messages=(Message(role="user", content=f"[[wait:150]][[say:{nonce}]]"),))


async def ask(caller: Caller, request: Asked) -> Answer[Said]:
    if isinstance(request, EmbeddingRequest):
        return cast(Answer[Said], await caller.embed("asked", request))
    return cast(Answer[Said], await caller.ask("asked", request))


def is_own(request: AnyRequest, reply: AnyReply | None) -> bool:
    """Say whether a reply is what the server says to this very request."""
    if isinstance(request, EmbeddingRequest):
        told = vectors_reply({"input": list(request.inputs)})["data"][::-1]
        return isinstance(reply, Embeddings) and reply.vectors == tuple(
            tuple(each["embedding"]) for each in told
        )
    assert isinstance(request, Request)
    body: dict[str, Any] = {"messages": [{"role": m.role, "content": m.text} for m in request.messages]}
    if request.response_format is not None:
        body["response_format"] = {"json_schema": {"schema": request.response_format}}
    return isinstance(reply, Reply) and reply.text == reply_text(body)
