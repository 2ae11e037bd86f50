"""The server that other tests stand on: that it repeats itself, counts its faults and keeps its ledger."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tests import model_server as served
from tests.model_server import ModelServer, reply_text, tool_calls, vectors_reply

if TYPE_CHECKING:
    from pathlib import Path


def post(url: str, content: str, call_id: str = "c") -> int:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": content}]}).encode()
    with suppress(HTTPError), urlopen(Request(url, body, {"Idempotency-Key": call_id})) as response:
        return int(response.status)
    return 0


def asked(content: str, **fields: Any) -> dict[str, Any]:
    system = {"role": "system", "content": "Name the team only: billing, shipping, other."}
    return {"messages": [system, {"role": "user", "content": content}], **fields}


def test_it_answers_with_a_listed_label_the_one_named_if_there_is_one() -> None:
    assert reply_text(asked("shipping is late")) == "shipping"
    assert reply_text(asked("hello")) == reply_text(asked("hello"))
    assert {reply_text(asked(f"case {number}")) for number in range(50)} == {"billing", "shipping", "other"}


def test_it_answers_in_the_form_that_a_schema_asks_for() -> None:
    schema = {
        "type": "object",
        "properties": {
            "score": {"type": "integer", "minimum": 1, "maximum": 5},
            "team": {"enum": ["a", "b"]},
        },
    }
    wanted = {"type": "json_schema", "json_schema": {"schema": schema}}
    answer = json.loads(reply_text(asked("hello", response_format=wanted)))
    assert 1 <= answer["score"] <= 5
    assert answer["team"] in ("a", "b")


def test_it_calls_the_tools_that_the_last_message_names_until_one_has_answered() -> None:
    tools = [{"function": {"name": name, "parameters": {"type": "object"}}} for name in ("clock", "map")]
    assert [call["function"]["name"] for call in tool_calls(asked("clock and map?", tools=tools))] == [
        "clock",
        "map",
    ]
    assert tool_calls(asked("hello", tools=tools)) == tool_calls(asked("clock and map?")) == []
    answered = asked("clock?", tools=tools)
    answered["messages"].append({"role": "tool", "content": "ten", "tool_call_id": "call_0"})
    assert tool_calls(answered) == []
    assert reply_text(answered) == "the tool said ten"


def test_it_embeds_an_input_by_itself_alone_and_answers_out_of_order() -> None:
    together = vectors_reply({"input": ["a", "b"]})["data"]
    assert [item["index"] for item in together] == [1, 0]
    alone = vectors_reply({"input": ["b"]})["data"][0]
    assert together[0]["embedding"] == alone["embedding"] != together[1]["embedding"]
    assert all(-1 <= number < 1 for number in alone["embedding"])


def test_a_deployment_wants_its_api_version(model_server: ModelServer) -> None:
    url = f"{model_server.base_url}/openai/deployments/d/chat/completions"
    assert (post(url, "hello"), post(f"{url}?api-version=2024-10-21", "hello")) == (0, 200)


def test_a_counted_fault_passes_for_each_key_by_itself(model_server: ModelServer) -> None:
    url = f"{model_server.openai_url}/chat/completions"
    statuses = [post(url, "[[fault:500:2]]", call_id) for call_id in "aaaba"]
    assert statuses == [0, 0, 200, 0, 200]


def test_as_a_process_it_prints_its_address_and_keeps_a_ledger(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    command = [sys.executable, str(served.__file__), "--delay-ms", "1", "--ledger", str(ledger)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert post(f"{url}/v1/chat/completions", "hello", "first") == 200
        assert post(f"{url}/models/chat/completions", "hello [[fault:429]]", "second") == 0
        process.terminate()
    assert process.returncode == 0
    first, second = map(json.loads, ledger.read_text().splitlines())
    assert (first["call_id"], first["status"], second["call_id"], second["status"]) == (
        "first",
        200,
        "second",
        429,
    )
    assert first["arrived_at"] <= first["answered_at"] <= second["arrived_at"]
    assert "headers" not in first
