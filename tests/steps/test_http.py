"""An http step: asked once, journaled and replayed as model calls are; a case fills in values and nothing else."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.call.carrying import Settings
from llmops.call.recording import record_run
from llmops.call.replay import Replay
from llmops.definitions.http import Http
from llmops.errors import StepError, UsageError
from llmops.plan import Selection, plan_experiment
from llmops.records import Output, Status
from llmops.run import run_experiment
from llmops.steps.base import Place
from llmops.steps.http import HttpProgram, open_http
from llmops.stores.recordings import Recordings
from tests.model_server import ModelServer, running_model_server
from tests.steps.flows import flown, spans_of, write_flow, write_tickets
from tests.workplace import KEY, Workplace, utc_now


class Open(Workplace):
    """A workplace whose environment lets http steps reach this machine."""

    allowed: str = "127.0.0.1"
    more: dict[str, str] = {}  # noqa: RUF012 - each test sets its own

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, "LLMOPS_PRIVATE_HOSTS": self.allowed, **self.more}


@pytest.fixture
def place(tmp_path: Path, server: ModelServer) -> Open:
    return Open(tmp_path, server)


def http(place: Workplace, body: str, path: str = "/api/find/{{ ticket }}", verb: str = "http") -> None:
    write_flow(place, f"- id: ask\n  {verb}:\n    url: '{place.server.base_url}{path}'\n    {body}\n")


def output(place: Workplace, *tickets: str) -> Output:
    (row,) = flown(place, *(tickets or ("x",)))
    assert row.output is not None
    return row.output


def test_an_answer_is_plain_data_and_its_parts_are_reached_by_name(place: Open) -> None:
    http(
        place, "query: {n: 3, all: true, tag: [a, 'b c'], none: null}\n    headers: {X-From: '{{ ticket }}'}"
    )
    place.write(
        "chains/flow.chain.yaml",
        (place.root / "chains/flow.chain.yaml").read_text()
        + 'outputs: "{{ ask.status }} {{ ask.body.path }}"\n',
    )
    found = output(place, "a b")
    assert found.value == "200 /api/find/a%20b"
    (received,) = place.new_requests()
    assert received.headers["x-from"] == "a b"
    span = found.spans[1]
    assert span.output["body"]["query"] == [["n", "3"], ["all", "true"], ["tag", "a"], ["tag", "b c"]]
    assert span.output["headers"]["content-type"].startswith("application/json")
    assert (span.kind, span.model, span.cost_usd) == ("http", place.server.base_url, 0.0)
    assert found.cost_usd == 0.0
    assert found.input_tokens is None


def test_what_is_sent_keeps_its_types(place: Open) -> None:
    http(
        place, "method: PUT\n    json: {n: '{{ ticket | length }}', all: [1, null], said: 'so {{ ticket }}'}"
    )
    output(place, 'é"')
    (received,) = place.new_requests()
    assert json.loads(received.body["text"]) == {"n": 2, "all": [1, None], "said": 'so é"'}
    assert received.headers["content-type"] == "application/json"


def test_an_operation_is_asked_once_and_again_when_fresh(place: Open) -> None:
    http(place, "timeout_s: 5")
    flown(place, "a", "b", "a")
    assert len(place.new_requests()) == 2
    place.edit("chains/flow.chain.yaml", "timeout_s: 5", "timeout_s: 6")
    flown(place)
    place.write(
        "chains/flow.chain.yaml",
        (place.root / "chains/flow.chain.yaml").read_text() + "outputs: {a: '{{ ask.body }}'}",
    )
    flown(place)
    assert place.new_requests() == [], "what decides no answer asks for none"
    flown(place, fresh=True)
    assert len(place.new_requests()) == 2


def test_a_replay_opens_no_socket(place: Open, tmp_path: Path) -> None:
    write_flow(
        place,
        f"""
        - id: ask
          http: {{url: '{place.server.base_url}/api/x', query: {{q: "{{{{ ticket }}}}"}}}}
        - id: best
          vote: {{n: 3, do: {{prompt: say, with: {{text: "asked {{{{ ask.body.query }}}}"}}}}}}
        """,
    )
    write_tickets(place, "a", "b")
    run = place.run("flow").run
    live = {row.case.id: row.output.value for row in place.rows(run) if row.output}
    assert len(place.new_requests()) == 2 + 2 * 3
    with place.journal() as journal:
        recorded = record_run(journal, run, lambda: Recordings("none"), "recorded").recordings
    assert len(recorded) == 8
    replay = Replay(recorded)
    with place.journal() as journal:
        plan = plan_experiment(place.workspace(), "flow", journal, replayed=replay.identity, now=utc_now())
        settings = Settings({}, utc_now, replay=replay)
        again = asyncio.run(run_experiment(place.workspace(), plan, journal, Selection(), settings)).run
    assert place.new_requests() == []
    assert {row.case.id: row.output.value for row in place.rows(again) if row.output} == live


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_what_may_be_sent_twice_is_tried_again(place: Open, method: str) -> None:
    http(place, f"method: {method}")
    place.server.script = ["503", "close"]
    assert output(place).status is Status.OK
    requests = place.new_requests()
    assert [received.body["method"] for received in requests] == [method] * 3
    assert {received.call_id for received in requests} == {""}


@pytest.mark.parametrize("fault", ["503", "close", "500"])
def test_a_post_is_not_sent_again(place: Open, fault: str) -> None:
    http(place, "method: POST\n    json: {a: 1}")
    place.server.script = [fault]
    found = output(place)
    assert found.status is (Status.UNKNOWN if fault == "close" else Status.ERROR)
    assert len(place.new_requests()) == 1
    if fault == "close":
        flown(place)
        assert place.new_requests() == [], (
            "nobody knows whether it was carried out, and nobody sends it again"
        )
        assert found.error is not None
        assert "`idempotent: true` sends it again" in found.error.message


def test_a_post_that_was_refused_for_now_is_sent_again(place: Open) -> None:
    http(place, "method: POST\n    json: {a: 1}")
    place.server.script = ["retry-after-ms"]
    assert output(place).status is Status.OK
    assert len(place.new_requests()) == 2


def test_an_idempotent_post_is_sent_again_under_the_same_key(place: Open) -> None:
    http(place, "method: POST\n    idempotent: true\n    json: {a: 1}")
    place.server.script = ["close", "503"]
    assert output(place).status is Status.OK
    keys = {received.call_id for received in place.new_requests()}
    assert len(keys) == 1
    assert keys != {""}
    flown(place, fresh=True)
    assert keys.isdisjoint(received.call_id for received in place.new_requests())


@pytest.mark.parametrize(
    ("status", "said"), [("404", "is wrong"), ("307", "never followed"), ("422", "made to fail")]
)
def test_other_statuses_fail_the_case_alone(place: Open, status: str, said: str) -> None:
    http(place, "query: {m: '{{ ticket }}'}", "/api/x")
    bad, good = flown(place, f"[[fault:{status}]]", "fine")
    assert good.output is not None and good.output.status is Status.OK
    assert bad.output is not None and bad.output.error is not None
    assert bad.output.status is Status.ERROR
    assert said in bad.output.error.message


def test_a_status_that_is_allowed_is_an_answer(place: Open) -> None:
    http(place, "allow: [200, 404]\n    query: {m: '{{ ticket }}'}", "/api/x")
    found = output(place, "[[fault:404]]")
    assert (found.status, found.value["status"]) == (Status.OK, 404)


def test_a_redirect_leads_nowhere(place: Open) -> None:
    with running_model_server() as other:
        place.server.elsewhere = f"{other.base_url}/api/secret"
        http(place, "timeout_s: 5")
        place.server.script = ["redirect"]
        assert output(place).status is Status.ERROR
        assert other.received == []


@pytest.mark.parametrize(
    ("fault", "said"), [("big-body", "larger than"), ("gzip-bomb", "larger than"), ("stall", "within 1 s")]
)
def test_size_and_time_of_an_answer_are_bounded(place: Open, fault: str, said: str) -> None:
    http(place, "method: POST\n    timeout_s: 1.0")
    place.server.script = [fault]
    error = output(place).error
    assert error is not None
    assert said in error.message


def test_an_answer_that_is_no_text_of_ours_is_text(place: Open) -> None:
    http(place, "timeout_s: 5")
    place.server.script = ["html"]
    assert output(place).value["body"] == "<html><body>Welcome to the proxy</body></html>"


def test_what_is_called_json_and_is_none_is_told(place: Open) -> None:
    http(place, "timeout_s: 5")
    place.server.script = ["truncated-json"]
    found = output(place)
    assert found.status is Status.CRASHED
    assert found.error is not None
    assert "called JSON and is none" in found.error.message


# --- where it goes, and with what ---------------------------------------------------------------------------


def test_this_machine_and_private_networks_need_the_environments_leave(place: Open) -> None:
    http(place, "timeout_s: 5")
    place.allowed = "10.0.0.1"
    with pytest.raises(UsageError, match=r"allow it: LLMOPS_PRIVATE_HOSTS=127\.0\.0\.1"):
        output(place)
    assert place.new_requests() == []


def test_a_name_that_leads_to_this_machine_is_refused_where_it_is_looked_up(place: Open) -> None:
    place.allowed = ""
    port = place.server.base_url.rpartition(":")[2]
    write_flow(place, f"- id: ask\n  http: {{url: 'http://localhost:{port}/api/x'}}")
    write_tickets(place, "x")
    assert "no address of the public internet" in str(place.run("flow").stopped)
    assert place.new_requests() == []


@pytest.mark.parametrize("host", ["169.254.169.254", "[::ffff:a9fe:a9fe]", "2852039166", "168.63.129.16"])
def test_nothing_goes_to_where_clouds_keep_credentials_whatever_is_allowed(place: Open, host: str) -> None:
    place.allowed = host
    write_flow(place, f"- id: ask\n  http: {{url: 'http://{host}/latest/meta-data'}}")
    with pytest.raises(UsageError, match="link-local"):
        output(place)


def test_a_secret_goes_only_where_the_environment_lets_it_and_stands_nowhere(place: Open) -> None:
    http(place, "bearer_env: MODEL_KEY\n    headers_env: {X-Key: MODEL_KEY}")
    with pytest.raises(UsageError, match=r"LLMOPS_SECRET_HOSTS=127\.0\.0\.1"):
        output(place)
    assert place.new_requests() == []
    place.more = {"LLMOPS_SECRET_HOSTS": "MODEL_KEY=127.0.0.1"}
    found = output(place)
    (received,) = place.new_requests()
    assert (received.headers["authorization"], received.headers["x-key"]) == (f"Bearer {KEY}", KEY)
    assert KEY not in found.model_dump_json()
    store = b"".join(path.read_bytes() for path in (place.root / ".llmops").iterdir())
    assert KEY.encode() not in store


def test_a_secret_that_is_not_set_is_told_before_anything_is_sent(place: Open) -> None:
    write_flow(
        place,
        f"""
        - id: say
          prompt: say
          with: {{text: "{{{{ ticket }}}}"}}
        - id: ask
          map:
            over: [1]
            do: {{http: {{url: '{place.server.base_url}/api/x', bearer_env: GONE_TOKEN}}}}
        """,
    )
    with pytest.raises(UsageError, match="needs GONE_TOKEN"):
        output(place)
    assert place.new_requests() == []


def test_limits_of_a_host_stand_in_the_project(place: Open) -> None:
    http(place, "timeout_s: 5")
    host = place.server.base_url.partition("://")[2]
    text = (place.root / "llmops.yaml").read_text()
    place.write("llmops.yaml", f"{text}hosts:\n  '{host}': {{attempts: 1}}\n")
    place.server.script = ["503"]
    assert output(place).status is Status.ERROR
    assert len(place.new_requests()) == 1


# --- the address --------------------------------------------------------------------------------------------


def program(url: str) -> HttpProgram:
    return open_http(Http.model_validate({"url": url}))


def address(url: str, **scope: Any) -> str:
    return program(url)._url(Place("ask", scope=scope))


HOSTILE = st.one_of(
    st.text(),
    st.sampled_from(
        [
            "..",
            "../../admin",
            "a/../..",
            "%2e%2e/",
            "?x=1",
            "#",
            "//evil.example",
            "\\evil",
            "@evil",
            "a\r\nHost: b",
        ]
    ),
)


@given(HOSTILE, HOSTILE)
def test_what_a_case_brings_stays_in_its_segment_of_the_path(one: str, other: str) -> None:
    try:
        found = address("https://api.example.com/v1/{{ one }}/x-{{ other }}/end", one=one, other=other)
    except StepError:
        assert one in ("", ".", "..")
        return
    parts = urlsplit(found)
    assert (parts.scheme, parts.netloc, parts.query, parts.fragment) == ("https", "api.example.com", "", "")
    first, version, filled, dashed, last = parts.path.split("/")
    assert (first, version, last) == ("", "v1", "end")
    assert unquote(filled, errors="strict") == one.encode("utf-8", "replace").decode()
    assert unquote(dashed) == "x-" + other.encode("utf-8", "replace").decode()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("{{ host }}/x", "begins with a fixed"),
        ("https://{{ host }}/x", "begins with a fixed"),
        ("https://api.example.com{{ port }}/x", "begins with a fixed"),
        ("ftp://api.example.com/x", "begins with a fixed"),
        ("https://user:secret@api.example.com/x", "without user name"),
        ("https://api.example.com/x?q={{ q }}", "parameters stand under `query`"),
        ("https://api.example.com/a%2fb", "encoded by itself"),
        ("https://api.example.com/{% if x %}a{% endif %}", "write http"),
    ],
)
def test_an_address_with_a_host_from_elsewhere_is_refused(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Http.model_validate({"url": url})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"json": {"a": 1}}, "GET sends no body"),
        ({"method": "POST", "json": {"a": 1}, "body": "b"}, "not both"),
        ({"idempotent": True}, "may be sent again as it is"),
        ({"headers": {"Host": "evil"}}, "set by llmops itself"),
        ({"headers": {"a b": "c"}}, "no name of a header"),
        ({"headers": {"authorization": "x"}, "bearer_env": "T"}, "given twice"),
        ({"bearer_env": "not a name"}, "environment variable"),
        ({"timeout_s": 0.0}, "greater than 0"),
    ],
)
def test_a_slip_in_an_operation_is_told(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Http.model_validate({"url": "https://api.example.com/x", **fields})


def test_a_header_cannot_begin_another(place: Open) -> None:
    http(place, "headers: {X-From: '{{ ticket }}'}", "/api/x")
    found = output(place, "a\r\nX-Evil: 1")
    assert found.error is not None
    assert "header X-From holds a line end" in found.error.message
    assert place.new_requests() == []


def test_the_step_and_its_answer_show_in_the_trace(place: Open) -> None:
    http(place, "timeout_s: 5")
    (row,) = flown(place, "x")
    (span,) = spans_of(row, "http")
    assert span.inputs == {"method": "GET", "url": f"{place.server.base_url}/api/find/x"}
