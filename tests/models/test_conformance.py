"""What every model must do, over the whole table of kinds; what every HTTP model must make of every fault."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from socket import socket
from typing import TYPE_CHECKING

import pytest

from llmops.definitions.project import ModelDefinition
from llmops.errors import (
    AccessError,
    ModelError,
    ModelTimeoutError,
    RateLimitError,
    RefusalError,
    ReplyError,
    RequestError,
    UnavailableError,
    UsageError,
)
from llmops.models import PROVIDERS, SETTINGS, model_class, open_model
from llmops.models.access import Access
from llmops.models.connection import chat_exchange
from llmops.models.exchange import Answer
from llmops.models.hints import Listening
from llmops.records import EmbeddingRequest, Embeddings, ImagePart, Message, Reply, Request, Status
from llmops.secrets import register, scrub
from tests.model_server import (
    FAULTS,
    QUOTA_CODES,
    STREAMS,
    VECTOR_EDITS,
    ModelServer,
    RateLimit,
    Received,
    running_model_server,
)
from tests.models.conformance import (
    API_VERSION,
    CELLS,
    SDK,
    SENTENCE,
    Cell,
    complete,
    defined,
    opened,
    try_cell,
)
from tests.models.samples import IMAGE, WEATHER

if TYPE_CHECKING:
    from llmops.models.base import Model

KINDS = sorted([*PROVIDERS, f"azure_openai{SDK}", f"openai{SDK}"])
HTTP_PROVIDERS = sorted(set(KINDS) - {"embedded"})
LARGE = {"big-body", "gzip-bomb", "sse-huge"}

Ask = Callable[..., Reply]

http_only = pytest.mark.parametrize("provider", HTTP_PROVIDERS)
streamed_or_not = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@pytest.fixture(params=KINDS)
def provider(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def received(server: ModelServer, call_id: str) -> list[Received]:
    return [noted for noted in server.received if noted.call_id == call_id]


def failure(ask: Ask, *arguments: str, **fields: object) -> ModelError:
    with pytest.raises(ModelError) as caught:
        ask(*arguments, **fields)
    return caught.value


def embed_once(provider: str, server: ModelServer, *inputs: str | ImagePart) -> Embeddings:
    async def once() -> Embeddings:
        model = opened(provider, server)
        try:
            call_id = f"embed-{provider}-{inputs[0]}"
            return await model.embed(EmbeddingRequest(inputs=inputs), call_id=call_id, timeout_s=20)
        finally:
            await model.close()

    return asyncio.run(once())


# --- every kind -------------------------------------------------------------------------------------------


def test_every_kind_names_its_version_and_its_parameters(provider: str) -> None:
    kind = model_class(provider.removesuffix(SDK))
    assert kind.version.partition("@")[0] == provider.removesuffix(SDK)
    known = {"temperature", "top_p", "max_tokens", "seed", "stop", "reasoning_effort"}
    assert {"temperature", "max_tokens", "seed", "stop"} <= kind.parameters <= known


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_every_kind_does_what_it_claims_and_refuses_the_rest_before_sending(
    provider: str, cell: Cell, model_server: ModelServer
) -> None:
    assert try_cell(provider, cell, model_server) is (
        cell.needs <= model_class(provider.removesuffix(SDK)).abilities
    )


@pytest.mark.parametrize("provider", sorted(set(PROVIDERS) - {"azure_inference"}))
def test_a_refusal_names_the_providers_that_can(provider: str, model_server: ModelServer) -> None:
    with pytest.raises(RequestError) as caught:
        embed_once(provider, model_server, ImagePart(image=IMAGE))
    expected = f"model 'tested': {provider} offers no image embeddings; offered by azure_inference"
    assert str(caught.value) == expected


@pytest.mark.parametrize("provider", sorted(PROVIDERS))
def test_every_kind_takes_the_settings_it_names_and_no_other(provider: str) -> None:
    settings = model_class(provider).settings
    assert settings <= set(SETTINGS) < set(ModelDefinition.model_fields)
    values = {"endpoint": "https://m.test/v1", "endpoint_env": "URL", "api_key_env": "KEY", "auth": "entra"}
    values |= {"client": "sdk"}
    for key in set(SETTINGS) - settings:
        value = values.get(key, True if key == "stream" else "some")
        definition = ModelDefinition.model_validate({"provider": provider, key: value})
        with pytest.raises(UsageError, match=f"{provider} takes no {key}"):
            open_model("tested", definition, {"URL": "https://m.test/v1", "KEY": "k"})


def test_every_kind_answers_with_text_an_outcome_and_its_cost_in_tokens(provider: str, ask: Ask) -> None:
    reply = ask(provider, SENTENCE)
    assert reply.text
    assert reply.status is Status.OK
    assert reply.finish_reason == "stop"
    assert reply.model
    assert reply.raw
    assert reply.usage is not None
    assert reply.usage.input_tokens > 0
    assert reply.usage.output_tokens > 0
    assert reply.latency_s > 0


def test_every_kind_answers_alike_when_asked_alike(provider: str, ask: Ask) -> None:
    first, second = (ask(provider, SENTENCE, call_id=call_id) for call_id in ("one", "two"))
    assert first.text == second.text
    assert first.raw == second.raw


def test_every_kind_says_when_max_tokens_cut_its_answer_f16(provider: str, ask: Ask) -> None:
    whole = ask(provider, SENTENCE)
    cut = ask(provider, SENTENCE, parameters={"max_tokens": 1})
    assert cut.status is Status.TRUNCATED
    assert cut.finish_reason == "length"
    assert cut.text != whole.text
    assert whole.text.startswith(cut.text)


def test_no_answer_is_given_to_another_call_f36(provider: str, model_server: ModelServer) -> None:
    texts = [f"Parcel {number} never came. Where is parcel {number}?" for number in range(60)]

    async def ask_all() -> tuple[list[str], list[str]]:
        model = opened(provider, model_server)
        try:
            alone = [await said(model, text) for text in texts]
            return alone, await asyncio.gather(*(said(model, text) for text in texts))
        finally:
            await model.close()

    async def said(model: Model, text: str) -> str:
        request = Request(messages=(Message(role="user", content=text),))
        return (await model.complete(request, call_id=text.split()[1], timeout_s=30)).text

    alone, together = asyncio.run(ask_all())
    assert together == alone
    assert len(set(alone)) == len(texts)


def test_every_kind_closes_whether_or_not_it_was_asked(provider: str, model_server: ModelServer) -> None:
    before = len(model_server.received)

    async def close_twice() -> None:
        model = opened(provider, model_server)
        await model.close()
        await model.close()

    asyncio.run(close_twice())
    assert len(model_server.received) == before, "closing asks nothing"


def test_opening_models_imports_no_sdk() -> None:
    program = f"""
import sys
from llmops.definitions.project import ModelDefinition
from llmops.models import open_model
variables = dict(URL="http://localhost", KEY="k")
for provider in {sorted(PROVIDERS)!r}:
    reached = dict(endpoint_env="URL", api_key_env="KEY") if provider != "embedded" else dict()
    if provider == "azure_openai":
        reached["api_version"] = {API_VERSION!r}
    open_model("m", ModelDefinition(provider=provider, model="m", **reached), variables)
heavy = set("openai httpx2 azure aiohttp anyio numpy scipy".split()) & set(sys.modules)
sys.exit(f"imported: {{heavy}}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- every HTTP kind: what goes out -----------------------------------------------------------------------


@http_only
@streamed_or_not
def test_a_request_carries_its_call_id_and_its_key(
    provider: str, stream: bool, ask: Ask, key: str, model_server: ModelServer
) -> None:
    call_id = f"carries-{provider}-{stream}"
    ask(
        provider,
        SENTENCE,
        call_id=call_id,
        stream=stream,
        parameters={"temperature": 0, "seed": 7, "stop": ["x"]},
    )
    (noted,) = received(model_server, call_id)
    assert noted.headers["x-client-request-id"] == call_id
    header, said = (
        ("api-key", key) if provider.startswith("azure_openai") else ("authorization", f"Bearer {key}")
    )
    assert noted.headers[header] == said
    assert noted.headers["accept-encoding"] == "identity"
    expected = {
        "model": "some-model",
        "messages": [{"role": "user", "content": SENTENCE}],
        "temperature": 0,
        "seed": 7,
        "stop": ["x"],
    }
    if stream:
        expected["stream"] = True
    assert {key: noted.body[key] for key in noted.body if key != "stream_options"} == expected


@http_only
def test_a_parameter_that_is_not_taken_is_refused_before_anything_is_sent(
    provider: str, ask: Ask, model_server: ModelServer
) -> None:
    error = failure(ask, provider, SENTENCE, call_id=f"unknown-{provider}", parameters={"top_k": 3})
    assert type(error) is RequestError
    assert error.sent is False
    assert not received(model_server, f"unknown-{provider}")


@http_only
def test_what_json_cannot_hold_is_refused_before_anything_is_sent(
    provider: str, ask: Ask, model_server: ModelServer
) -> None:
    wrong = {"temperature": float("nan")}
    error = failure(ask, provider, SENTENCE, call_id=f"nan-{provider}", parameters=wrong)
    assert type(error) is RequestError and "cannot be written as JSON" in str(error)
    assert error.sent is False
    assert not received(model_server, f"nan-{provider}")


@http_only
def test_a_closed_model_sends_nothing(provider: str, model_server: ModelServer) -> None:
    async def ask_closed() -> None:
        model = opened(provider, model_server)
        await model.close()
        request = Request(messages=(Message(role="user", content=SENTENCE),))
        await model.complete(request, call_id=f"closed-{provider}", timeout_s=5)

    with pytest.raises(RequestError, match="closed"):
        asyncio.run(ask_closed())
    assert not received(model_server, f"closed-{provider}")


# --- every HTTP kind: outcomes ----------------------------------------------------------------------------


@http_only
@pytest.mark.parametrize(
    ("fault", "status", "text"),
    [
        ("refusal", Status.REFUSED, "I cannot help with that."),
        ("finish_filter", Status.FILTERED, ""),
        ("length", Status.TRUNCATED, "echo"),
        ("surrogate", Status.OK, "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}c"),
        ("invalid-utf8", Status.OK, "\N{REPLACEMENT CHARACTER}"),
        ("bom", Status.OK, "echo"),
        ("gzip", Status.OK, "echo"),
        ("other-model", Status.OK, "echo"),
        ("echo-key", Status.OK, "***"),
    ],
)
def test_an_odd_reply_has_an_explicit_outcome_f13_f16_f23_f27(
    provider: str, fault: str, status: Status, text: str, ask: Ask
) -> None:
    reply = ask(provider, f"[[fault:{fault}]]")
    assert reply.status is status
    assert reply.text.startswith(text)
    assert "None" not in reply.text
    assert reply.model == ("another-model" if fault == "other-model" else "some-model")
    if fault == "surrogate":
        assert b"\\ud800" in reply.raw
    if fault == "invalid-utf8":
        assert b"\xff\xfe" in reply.raw


@http_only
@pytest.mark.parametrize("fault", ["usage-missing", "usage-strings", "usage-negative", "usage-huge"])
def test_an_unusable_usage_is_unknown_and_not_nothing_f26(provider: str, fault: str, ask: Ask) -> None:
    reply = ask(provider, f"[[fault:{fault}]]")
    assert reply.status is Status.OK
    assert reply.usage is None


PROTOCOL = [
    "array",
    "error-object",
    "no-choices",
    "empty-choices",
    "mistyped-choices",
    "mistyped-message",
    *("mistyped-content", "null-content", "tool-calls", "html", "empty", "truncated-json", "deep-json"),
    *("gzip-broken", "brotli", "short-body"),
]
ERRORS: dict[str, tuple[type[ModelError], str]] = {
    **dict.fromkeys(PROTOCOL, (ReplyError, "protocol")),
    **dict.fromkeys(["big-body", "gzip-bomb"], (ReplyError, "too_large")),
    **dict.fromkeys(["quota", *QUOTA_CODES], (AccessError, "access")),
    **dict.fromkeys(
        ["401", "403", "404", "unknown-model", "401-retry-after", "401-echo"], (AccessError, "access")
    ),
    **dict.fromkeys(["redirect-loop", "301"], (AccessError, "access")),
    **dict.fromkeys(["400", "422", "400-should-retry"], (RequestError, "request")),
    "context_length": (RequestError, "context_length"),
    "content_filter": (RefusalError, "filtered"),
    **dict.fromkeys(["408", "409", "500", "502", "503", "504", "529"], (UnavailableError, "unavailable")),
    **dict.fromkeys(["503-retry-after", "503-should-not-retry"], (UnavailableError, "unavailable")),
    **dict.fromkeys(["reset", "close"], (UnavailableError, "unavailable")),
    **dict.fromkeys(
        ["429", "retry-after", "retry-after-ms", "retry-after-soon"], (RateLimitError, "rate_limit")
    ),
    "retry-after-date": (RateLimitError, "rate_limit"),
}


@http_only
@pytest.mark.parametrize("fault", sorted(ERRORS))
def test_a_fault_is_one_request_and_one_error_of_its_class_f08_to_f32(
    provider: str, fault: str, ask: Ask, model_server: ModelServer
) -> None:
    call_id = f"{fault}-{provider}"
    error = failure(ask, provider, f"[[fault:{fault}]]", call_id=call_id)
    assert (type(error), error.kind) == ERRORS[fault]
    assert error.model == "tested"
    assert str(error).startswith("model 'tested': ")
    assert len(received(model_server, call_id)) == 1


@http_only
@pytest.mark.parametrize("fault", ["", "[[fault:503]]"])
def test_what_the_service_tells_of_its_limits_is_heard_and_stands_in_no_reply_f07(
    provider: str, fault: str, ask: Ask, model_server: ModelServer
) -> None:
    model_server.limit = RateLimit(1000.0, burst=50, tells=True)
    try:
        with Listening() as heard:
            reply = failure(ask, provider, fault) if fault else ask(provider, "hello")
    finally:
        model_server.limit = None
    assert heard.hint.requests is not None
    assert heard.hint.requests.limit == 50 and heard.hint.requests.remaining <= 49
    assert "ratelimit" not in (reply.model_dump_json() if isinstance(reply, Reply) else str(reply))


@http_only
@pytest.mark.parametrize(
    ("fault", "seconds"),
    [
        ("retry-after", 2.0),
        ("retry-after-ms", 0.05),
        ("retry-after-date", 3.0),
        ("retry-after-soon", None),
        ("503-retry-after", 3.0),
        ("401-retry-after", None),
        ("content_filter", None),
    ],
)
def test_the_service_says_how_long_to_wait_f01_f02_f03_f06_f19(
    provider: str, fault: str, seconds: float | None, ask: Ask
) -> None:
    assert failure(ask, provider, f"[[fault:{fault}]]").retry_after_s == seconds


@http_only
@pytest.mark.parametrize(
    ("fault", "sent", "body"),
    [
        ("reset", None, None),
        ("close", None, None),
        ("short-body", True, b'{"id": "chatcmpl-test", '),
        ("html", True, b"<html><body>Welcome to the proxy</body></html>"),
    ],
)
def test_an_error_tells_what_came_and_whether_it_may_be_billed_f20_f21_f24(
    provider: str, fault: str, sent: bool | None, body: bytes | None, ask: Ask
) -> None:
    error = failure(ask, provider, f"[[fault:{fault}]]")
    assert error.sent is sent
    assert error.body == body


@http_only
@pytest.mark.parametrize(
    ("fault", "sent"), [("stall", None), ("stall-body", True), ("drip", True), ("sse-stall", True)]
)
def test_the_deadline_ends_a_call_that_stalls_anywhere_f29(
    provider: str, fault: str, sent: bool | None, ask: Ask
) -> None:
    error = failure(ask, provider, f"[[fault:{fault}]]", timeout_s=0.3, stream=fault == "sse-stall")
    assert type(error) is ModelTimeoutError
    assert error.sent is sent
    assert (error.body is None) == (sent is None)


@http_only
def test_a_redirect_reaches_no_other_origin_f31(provider: str, ask: Ask, model_server: ModelServer) -> None:
    with running_model_server() as other:
        model_server.elsewhere = f"{other.base_url}/v1/chat/completions"
        error = failure(ask, provider, "[[fault:redirect]]")
        assert type(error) is AccessError
        assert "never followed" in str(error)
        assert other.received == []


@http_only
def test_a_request_that_cannot_leave_says_so_f25(provider: str, ask: Ask) -> None:
    with closing(socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        refused = failure(ask, provider, SENTENCE, endpoint=f"http://127.0.0.1:{unused.getsockname()[1]}")
    unresolved = failure(ask, provider, SENTENCE, endpoint="https://nowhere.invalid")
    for error in (refused, unresolved):
        assert type(error) is UnavailableError
        assert error.sent is False
        assert "the endpoint in URL" in str(error)


# --- every HTTP kind: vectors and information ---------------------------------------------------------------


@http_only
@pytest.mark.parametrize("fault", sorted(set(VECTOR_EDITS) - {"vectors-usage-missing"}))
def test_vectors_that_are_not_one_an_input_are_one_request_and_one_error(
    provider: str, fault: str, model_server: ModelServer
) -> None:
    text = f"[[fault:{fault}]]"
    with pytest.raises(ReplyError, match=r"^model 'tested': ") as caught:
        embed_once(provider, model_server, text, "another")
    assert caught.value.body
    assert len(received(model_server, f"embed-{provider}-{text}")) == 1


@http_only
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("401", AccessError),
        ("404", AccessError),
        ("429", RateLimitError),
        ("quota", AccessError),
        ("503", UnavailableError),
        ("422", RequestError),
        ("content_filter", RefusalError),
        ("html", ReplyError),
        ("big-body", ReplyError),
        ("reset", UnavailableError),
    ],
)
def test_a_fault_of_a_service_is_the_same_error_where_vectors_are_asked_for(
    provider: str, fault: str, kind: type[ModelError], model_server: ModelServer
) -> None:
    with pytest.raises(kind):
        embed_once(provider, model_server, f"[[fault:{fault}]]")


@http_only
def test_vectors_without_usage_have_an_unknown_one_f26(provider: str, model_server: ModelServer) -> None:
    found = embed_once(provider, model_server, "[[fault:vectors-usage-missing]]")
    assert found.usage is None
    assert found.raw


@http_only
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_tool_calls_keep_their_arguments_as_text_and_have_ids_of_their_own(
    provider: str, stream: bool, model_server: ModelServer
) -> None:
    async def asked(fault: str) -> Reply:
        model = opened(provider, model_server, stream=stream)
        text = f"What do weather and clock say? {fault}"
        tools = (WEATHER, WEATHER.model_copy(update={"name": "clock"}))
        try:
            return await complete(model, Message(role="user", content=text), tools=tools)
        finally:
            await model.close()

    for fault in ("tool-no-ids", "tool-same-ids"):
        calls = asyncio.run(asked(f"[[fault:{fault}]]")).tool_calls
        assert [call.name for call in calls] == ["weather", "clock"]
        assert len({call.id for call in calls}) == 2
    for fault in ("tool-no-names", "tool-objects"):
        with pytest.raises(ReplyError):
            asyncio.run(asked(f"[[fault:{fault}]]"))


@pytest.mark.parametrize("provider", ["azure_inference", "openai", f"openai{SDK}"])
def test_a_model_that_the_service_does_not_know_is_out_of_reach(
    provider: str, model_server: ModelServer
) -> None:
    async def asked() -> None:
        endpoint = {"URL": f"{model_server.base_url}/nowhere", "KEY": "k"}
        model = open_model("tested", defined(provider, model="missing"), endpoint)
        try:
            await model.info(timeout_s=20)
        finally:
            await model.close()

    with pytest.raises(AccessError, match=r"^model 'tested': .*\(404\)"):
        asyncio.run(asked())


# --- every HTTP kind: streams -----------------------------------------------------------------------------


@http_only
def test_a_stream_gives_the_same_reply_and_its_times(provider: str, ask: Ask) -> None:
    whole = ask(provider, SENTENCE)
    streamed = ask(provider, SENTENCE, stream=True)
    kept = {"text", "status", "finish_reason", "model", "system_fingerprint", "usage", "request_id"}
    assert streamed.model_dump(include=kept) == whole.model_dump(include=kept)
    assert streamed.raw.startswith(b"data: ")
    assert (whole.ttft_s, whole.tpot_s) == (None, None)
    assert streamed.ttft_s is not None
    assert streamed.tpot_s is not None
    assert 0 < streamed.ttft_s <= streamed.latency_s


@http_only
@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ("sse-comment", Status.OK),
        ("sse-event-only", Status.OK),
        ("sse-crlf", Status.OK),
        ("sse-finish-no-done", Status.OK),
        ("sse-open", Status.OK),
        ("sse-no-done", Status.TRUNCATED),
        ("sse-cut", Status.TRUNCATED),
        ("sse-reset", Status.TRUNCATED),
        ("echo-key", Status.OK),
    ],
)
def test_a_stream_is_read_by_the_standard_and_whole_only_when_it_says_so_f30(
    provider: str, fault: str, status: Status, ask: Ask
) -> None:
    reply = ask(provider, f"[[fault:{fault}]]", stream=True)
    assert reply.status is status
    assert reply.text == "***" if fault == "echo-key" else reply.text.startswith("echo")


@http_only
@pytest.mark.parametrize(
    ("fault", "kind", "partial"),
    [
        ("sse-bad-json", ReplyError, True),
        ("sse-array", ReplyError, True),
        ("sse-nothing", ReplyError, False),
        ("sse-huge", ReplyError, False),
        ("sse-error", UnavailableError, True),
        ("sse-error-event", UnavailableError, True),
        ("sse-quota", AccessError, True),
        ("429", RateLimitError, False),
    ],
)
def test_a_stream_that_goes_wrong_is_an_error_that_keeps_what_came_f30(
    provider: str, fault: str, kind: type[ModelError], partial: bool, ask: Ask
) -> None:
    error = failure(ask, provider, f"[[fault:{fault}]]", stream=True)
    assert type(error) is kind
    assert (b'"content": "echo"' in (error.body or b"")) == partial


# --- every HTTP kind: the key -----------------------------------------------------------------------------


@http_only
@streamed_or_not
def test_what_sends_logs_the_key_nowhere_however_much_it_may_log_s07(
    provider: str, stream: bool, ask: Ask, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("tests").debug("one line at least")
        ask(provider, SENTENCE, stream=stream)
    assert "one line at least" in caplog.text
    assert scrub(caplog.text) == caplog.text


@http_only
@streamed_or_not
def test_no_fault_brings_the_key_to_light_s07(
    provider: str, stream: bool, key: str, model_server: ModelServer
) -> None:
    faults = [fault for fault in FAULTS if fault not in LARGE and (stream or fault not in STREAMS)]

    async def seen_of(model: Model, fault: str) -> str:
        request = Request(messages=(Message(role="user", content=f"[[fault:{fault}]]"),))
        timeout_s = 0.2 if fault in ("stall", "stall-body", "drip", "sse-stall") else 20.0
        try:
            reply = await model.complete(request, call_id=fault, timeout_s=timeout_s)
        except ModelError as error:
            body = (error.body or b"").decode("utf-8", "replace")
            return f"{error!r} {body} {''.join(traceback.format_exception(error))}"
        return f"{reply!r} {reply.raw.decode('utf-8', 'replace')}"

    async def seen() -> dict[str, str]:
        model = opened(provider, model_server, stream=stream, key=key)
        try:
            return {fault: await seen_of(model, fault) for fault in [*faults, "400", "500"]}
        finally:
            await model.close()

    shown = asyncio.run(seen())
    assert [fault for fault in shown if scrub(shown[fault]) != shown[fault]] == []
    assert "***" in shown["401-echo"]
    assert "***" in shown["echo-key"]


@pytest.mark.parametrize("size", [1, 4, 100])
def test_a_key_that_a_stream_brings_in_pieces_stays_in_no_raw_reply_s07(size: int) -> None:
    register(key := "sk-in-pieces/0123+456789=")
    pieces = [key[at : at + size] for at in range(0, len(key), size)]
    deltas = [{"choices": [{"index": 0, "delta": {"content": piece}}]} for piece in pieces]
    deltas.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})

    async def chunks() -> AsyncIterator[bytes]:
        for delta in deltas:
            yield f"data: {json.dumps(delta)}\n\n".encode()
        yield b"data: [DONE]\n\n"

    exchange = chat_exchange(Access("m", "https://m.test", "there"), Request(messages=()))
    answer = Answer(200, {"content-type": "text/event-stream"}, chunks(), ())
    reply = asyncio.run(exchange.read(answer))
    assert reply.text == "***"
    assert (reply.raw == b"***") == (size < len(key))
