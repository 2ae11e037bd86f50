from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from llmops.definitions.project import ModelDefinition
from llmops.errors import UsageError
from llmops.models.azure_inference import PARAMETERS, AzureInferenceModel, encode
from llmops.records import Message, Reply, Request

if TYPE_CHECKING:
    from tests.model_server import ModelServer

Ask = Callable[..., Reply]


def test_a_request_is_encoded_as_the_body_of_the_inference_api() -> None:
    request = Request(
        messages=(Message(role="system", content="Be brief."), Message(role="user", content="Hello")),
        parameters={"temperature": 0.5, "max_tokens": 8, "top_p": 0.9, "seed": 3, "stop": ["\n"]},
    )
    expected = {
        "model": "mistral-nemo",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
        **request.parameters,
    }
    assert encode(request, "mistral-nemo", stream=False) == expected
    assert encode(request, "mistral-nemo", stream=True) == {**expected, "stream": True}
    assert "model" not in encode(request, None, stream=False)
    assert set(request.parameters) == PARAMETERS


@pytest.mark.parametrize("stream", [False, True])
def test_the_call_goes_to_the_inference_route_with_both_key_headers(
    stream: bool, ask: Ask, key: str, model_server: ModelServer
) -> None:
    call_id = f"azure-{stream}"
    ask("azure_inference", "hello", call_id=call_id, stream=stream)
    (noted,) = [noted for noted in model_server.received if noted.call_id == call_id]
    assert noted.path == "/models/chat/completions"
    assert noted.query == {"api-version": "2024-05-01-preview"}
    assert noted.headers["api-key"] == key
    assert noted.headers["authorization"] == f"Bearer {key}"
    assert noted.headers["x-ms-client-request-id"] == call_id
    assert noted.body.get("stream", False) is stream


def test_a_model_without_a_key_or_an_endpoint_is_refused_when_opened() -> None:
    with pytest.raises(UsageError, match="api_key_env"):
        AzureInferenceModel(
            "nemo", ModelDefinition(provider="azure_inference", endpoint="https://a.test"), {}
        )
    with pytest.raises(UsageError, match="no endpoint"):
        AzureInferenceModel("nemo", ModelDefinition(provider="azure_inference", api_key_env="K"), {"K": "k"})


def test_no_azure_host_is_trusted_by_its_name_because_anyone_can_register_one() -> None:
    definition = ModelDefinition(
        provider="azure_inference", endpoint="https://mine.services.ai.azure.com/models", api_key_env="K"
    )
    with pytest.raises(UsageError, match="LLMOPS_SECRET_HOSTS"):
        AzureInferenceModel("nemo", definition, {"K": "k"})
    AzureInferenceModel("nemo", definition, {"K": "k", "LLMOPS_SECRET_HOSTS": "mine.services.ai.azure.com"})
