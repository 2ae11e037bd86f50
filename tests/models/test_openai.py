from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from llmops.definitions.project import ModelDefinition
from llmops.errors import AccessError, ModelError, ReplyError, UnavailableError, UsageError
from llmops.models.openai import OpenAIModel, decode_info, encode, takes_newer
from llmops.records import Message, ModelInfo, Reply, Request
from tests.certificates import certificate
from tests.model_server import ModelServer, running_model_server
from tests.models.conformance import OF_THE_CLIENT, defined

if TYPE_CHECKING:
    from pathlib import Path

Ask = Callable[..., Reply]

HTTP_PROVIDERS = ("azure_inference", "azure_openai", "azure_openai/sdk", "openai", "openai/sdk")
clients = pytest.mark.parametrize("client", ["lean", "sdk"])
REQUEST = Request(
    messages=(Message(role="system", content="Be brief."), Message(role="user", content="Hello")),
    parameters={"temperature": 0, "max_tokens": 8, "stop": ["\n"]},
)


def ask_once(definition: ModelDefinition, environment: dict[str, str], call_id: str = "openai") -> Reply:
    async def once() -> Reply:
        model = OpenAIModel("tested", definition, environment)
        try:
            return await model.complete(REQUEST, call_id=call_id, timeout_s=20)
        finally:
            await model.close()

    return asyncio.run(once())


# --- encode -----------------------------------------------------------------------------------------------


def test_a_request_is_encoded_as_the_chat_call_that_compatible_servers_take() -> None:
    assert encode(REQUEST, "some-model", stream=False) == {
        "model": "some-model",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
        "temperature": 0,
        "max_tokens": 8,
        "stop": ["\n"],
    }


def test_a_stream_is_asked_to_tell_its_usage() -> None:
    streamed = encode(REQUEST, "some-model", stream=True)
    assert streamed.pop("stream") is True
    assert streamed.pop("stream_options") == {"include_usage": True}
    assert streamed == encode(REQUEST, "some-model", stream=False)


@pytest.mark.parametrize(
    ("host", "parameters", "newer"),
    [
        ("api.openai.com", {}, True),
        ("eu.api.openai.com", {}, True),
        ("mine.openai.azure.com", {}, True),
        ("localhost", {"reasoning_effort": "low"}, True),
        ("localhost", {}, False),
        ("api.openai.com.evil.test", {}, False),
    ],
)
def test_max_tokens_has_its_newer_name_where_the_older_is_refused(
    host: str, parameters: dict[str, Any], newer: bool
) -> None:
    request = Request(messages=REQUEST.messages, parameters={"max_tokens": 8, **parameters})
    body = encode(request, "m", stream=False, takes_newer=takes_newer(host))
    assert body.get("max_completion_tokens") == (8 if newer else None)
    assert body.get("max_tokens") == (None if newer else 8)


def test_information_is_the_services_own_words() -> None:
    told = {"id": "gpt-4.1-mini", "object": "model", "created": 1, "owned_by": "system"}
    assert decode_info(told) == ModelInfo(model="gpt-4.1-mini", provider="system")
    assert decode_info({"id": "qwen3"}) == ModelInfo(model="qwen3")
    nothings: tuple[object, ...] = ({}, [], {"id": ""}, {"id": 3}, {"id": "m", "owned_by": 3})
    for nothing in nothings:
        with pytest.raises(ReplyError):
            decode_info(nothing)


# --- what the environment may not do ----------------------------------------------------------------------


@clients
def test_nothing_but_our_own_headers_leaves_whatever_the_environment_holds(
    client: Any, model_server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-the-environment")
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-admin-from-the-environment")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-1")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Secret: sk-custom\nAuthorization: Bearer sk-custom")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    definition = ModelDefinition(
        provider="openai", model="m", endpoint=model_server.openai_url, client=client
    )
    ask_once(definition, {}, f"bare-{client}")
    (noted,) = [noted for noted in model_server.received if noted.call_id == f"bare-{client}"]
    assert set(noted.headers) - OF_THE_CLIENT == {
        *("accept", "accept-encoding", "content-length", "content-type", "host"),
        *("idempotency-key", "x-client-request-id"),
    }


@clients
def test_the_environment_puts_no_other_key_in_place_of_ours(
    client: Any, model_server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-the-environment")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "authorization: Bearer sk-custom\napi-key: sk-custom")
    definition = ModelDefinition(
        provider="openai", model="m", endpoint_env="U", api_key_env="K", client=client
    )
    ask_once(definition, {"U": model_server.openai_url, "K": "sk-ours"}, f"ours-{client}")
    (noted,) = [noted for noted in model_server.received if noted.call_id == f"ours-{client}"]
    assert noted.headers["authorization"] == "Bearer sk-ours"
    assert "api-key" not in noted.headers


def test_a_model_without_a_name_at_the_service_is_refused_when_opened() -> None:
    with pytest.raises(UsageError, match="'tested' has no model"):
        OpenAIModel("tested", ModelDefinition(provider="openai"), {})


def test_a_key_goes_to_openai_and_to_no_host_that_a_file_names() -> None:
    OpenAIModel("tested", ModelDefinition(provider="openai", model="m", api_key_env="K"), {"K": "k"})
    elsewhere = ModelDefinition(
        provider="openai", model="m", api_key_env="K", endpoint="https://evil.test/v1"
    )
    with pytest.raises(UsageError, match="LLMOPS_SECRET_HOSTS"):
        OpenAIModel("tested", elsewhere, {"K": "k"})


@clients
def test_the_proxy_that_the_given_environment_names_is_used(client: Any, model_server: ModelServer) -> None:
    definition = ModelDefinition(
        provider="openai", model="m", endpoint="http://model.invalid/v1", client=client
    )
    ask_once(definition, {"HTTP_PROXY": model_server.base_url}, f"by-proxy-{client}")
    (noted,) = [noted for noted in model_server.received if noted.call_id == f"by-proxy-{client}"]
    assert noted.headers["host"] == "model.invalid"


@pytest.mark.parametrize("provider", HTTP_PROVIDERS)
def test_a_proxy_that_refuses_is_no_request_sent(provider: str, model_server: ModelServer) -> None:
    from llmops.models import open_model

    environment = {"URL": "https://model.invalid/v1", "KEY": "k", "HTTPS_PROXY": model_server.base_url}

    async def once() -> None:
        model = open_model("tested", defined(provider), environment)
        try:
            await model.complete(REQUEST, call_id="refused", timeout_s=20)
        finally:
            await model.close()

    with pytest.raises(UnavailableError, match="proxy") as caught:
        asyncio.run(once())
    assert caught.value.sent is False


# --- secure connections -----------------------------------------------------------------------------------


def failure_over_tls(ask: Ask, provider: str, path: Path) -> ModelError:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    with running_model_server(tls=context) as server, pytest.raises(ModelError) as caught:
        ask(provider, "hello", endpoint=server.openai_url)
    assert server.received == []
    return caught.value


@pytest.mark.parametrize("provider", HTTP_PROVIDERS)
def test_a_certificate_that_nobody_vouches_for_is_final_and_says_why_f25(
    provider: str, ask: Ask, tmp_path: Path
) -> None:
    error = failure_over_tls(ask, provider, certificate(tmp_path, host="127.0.0.1", days=1))
    assert type(error) is AccessError
    assert error.sent is False
    assert "self-signed certificate" in str(error)


@clients
@pytest.mark.parametrize(
    ("host", "days", "why"), [("127.0.0.1", -1, "expired"), ("127.0.0.2", 1, "not valid for '127.0.0.1'")]
)
def test_an_expired_certificate_and_another_hosts_are_final_and_say_why_f25(
    client: str, host: str, days: int, why: str, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = certificate(tmp_path, host=host, days=days)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    error = failure_over_tls(ask, "openai/sdk" if client == "sdk" else "openai", path)
    assert type(error) is AccessError
    assert why in str(error)


@clients
def test_a_trusted_certificate_lets_the_request_through(
    client: str, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = certificate(tmp_path, host="127.0.0.1", days=1)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    with running_model_server(tls=context) as server:
        assert ask("openai", "hello", endpoint=server.openai_url, client=client).text.startswith("echo")


@pytest.mark.parametrize("provider", HTTP_PROVIDERS)
def test_a_server_that_speaks_no_tls_is_not_to_be_trusted(
    provider: str, ask: Ask, model_server: ModelServer
) -> None:
    plain = model_server.openai_url.replace("http://", "https://")
    with pytest.raises(AccessError, match="cannot be trusted"):
        ask(provider, "hello", endpoint=plain)
