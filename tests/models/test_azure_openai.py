from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llmops.definitions.project import ModelDefinition
from llmops.errors import UsageError
from llmops.models import model_version, open_model
from llmops.models.azure_openai import AzureOpenAIModel
from llmops.records import EmbeddingRequest, Message, Request
from tests.model_server import ModelServer, Received
from tests.models.conformance import API_VERSION, KEY, OF_THE_CLIENT, opened

REQUEST = Request(messages=(Message(role="user", content="hello"),), parameters={"max_tokens": 8})


def sent(server: ModelServer, call_id: str, *, stream: bool = False, **fields: Any) -> Received:
    """Ask once and return what the server received."""

    async def once() -> None:
        model = opened("azure_openai", server, stream=stream, **fields)
        try:
            await model.complete(REQUEST, call_id=call_id, timeout_s=20)
        finally:
            await model.close()

    asyncio.run(once())
    (noted,) = [noted for noted in server.received if noted.call_id == call_id]
    return noted


@pytest.mark.parametrize("stream", [False, True])
def test_the_call_goes_to_the_deployment_with_its_api_version_and_its_key(
    stream: bool, model_server: ModelServer
) -> None:
    noted = sent(model_server, f"deployment-{stream}", stream=stream)
    assert noted.path == "/openai/deployments/some-model/chat/completions"
    assert noted.query == {"api-version": API_VERSION}
    assert noted.headers["api-key"] == KEY
    assert "authorization" not in noted.headers
    assert noted.body["max_completion_tokens"] == 8
    assert "max_tokens" not in noted.body
    assert noted.body.get("stream", False) is stream


def test_vectors_are_asked_of_the_deployment_too(model_server: ModelServer) -> None:
    async def embed() -> None:
        model = opened("azure_openai", model_server)
        try:
            await model.embed(EmbeddingRequest(inputs=("one",)), call_id="azure-vectors", timeout_s=20)
        finally:
            await model.close()

    asyncio.run(embed())
    (noted,) = [noted for noted in model_server.received if noted.call_id == "azure-vectors"]
    assert noted.path == "/openai/deployments/some-model/embeddings"
    assert noted.query == {"api-version": API_VERSION}
    assert noted.headers["api-key"] == KEY


@pytest.mark.parametrize("client", ["lean", "sdk"])
def test_nothing_but_our_own_headers_leaves_whatever_the_environment_holds(
    client: str, model_server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "key-from-the-environment")
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", "token-from-the-environment")
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OPENAI_API_VERSION", "2020-01-01")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Secret: sk-custom\nApi-Key: sk-custom")
    noted = sent(model_server, f"azure-bare-{client}", client=client)
    assert noted.headers["api-key"] == KEY
    assert noted.query == {"api-version": API_VERSION}
    assert set(noted.headers) - OF_THE_CLIENT == {
        *("accept", "accept-encoding", "api-key", "content-length", "content-type", "host"),
        *("idempotency-key", "x-client-request-id"),
    }


@pytest.mark.parametrize(
    ("missing", "said"),
    [("api_version", "no api_version"), ("model", "no model"), ("endpoint_env", "no endpoint")],
)
def test_a_definition_that_lacks_what_a_deployment_needs_is_refused_when_opened(
    missing: str, said: str
) -> None:
    fields: dict[str, Any] = {
        "model": "d",
        "api_version": API_VERSION,
        "endpoint_env": "URL",
        "api_key_env": "KEY",
    }
    environment = {"URL": "https://mine.openai.azure.com", "KEY": "k"}
    AzureOpenAIModel("tested", ModelDefinition(provider="azure_openai", **fields), environment)
    del fields[missing]
    with pytest.raises(UsageError, match=f"'tested' has {said}"):
        AzureOpenAIModel("tested", ModelDefinition(provider="azure_openai", **fields), environment)


def test_no_azure_host_is_trusted_by_its_name_because_anyone_can_register_one() -> None:
    definition = ModelDefinition(
        provider="azure_openai",
        model="d",
        api_version=API_VERSION,
        endpoint="https://mine.openai.azure.com",
        api_key_env="K",
    )
    with pytest.raises(UsageError, match="LLMOPS_SECRET_HOSTS"):
        open_model("tested", definition, {"K": "k"})
    open_model("tested", definition, {"K": "k", "LLMOPS_SECRET_HOSTS": "mine.openai.azure.com"})


def test_another_api_version_is_another_model() -> None:
    versions = [
        model_version("m", ModelDefinition(provider="azure_openai", model="d", api_version=dated))
        for dated in ("2024-10-21", "2025-01-01-preview")
    ]
    assert versions[0].identity != versions[1].identity
