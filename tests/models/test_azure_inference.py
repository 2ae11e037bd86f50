from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import pytest

from llmops.definitions.project import ModelDefinition
from llmops.errors import ReplyError, UsageError
from llmops.models.azure_inference import PARAMETERS, AzureInferenceModel, decode_info, encode
from llmops.records import EmbeddingRequest, ImagePart, Message, ModelInfo, Reply, Request
from tests.models.conformance import opened
from tests.models.samples import IMAGE, WEATHER

if TYPE_CHECKING:
    from tests.model_server import ModelServer, Received

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


def embedded(server: ModelServer, request: EmbeddingRequest) -> Received:
    """Ask for vectors and return what the server received."""
    call_id = f"vectors-{request.model_dump_json()}"

    async def once() -> None:
        model = opened("azure_inference", server)
        try:
            await model.embed(request, call_id=call_id, timeout_s=20)
        finally:
            await model.close()

    asyncio.run(once())
    (noted,) = [noted for noted in server.received if noted.call_id == call_id]
    return noted


def test_vectors_of_texts_and_of_images_have_routes_of_their_own(model_server: ModelServer, key: str) -> None:
    texts = embedded(model_server, EmbeddingRequest(inputs=("one",), dimensions=4))
    images = embedded(model_server, EmbeddingRequest(inputs=(ImagePart(image=IMAGE),)))
    assert (texts.path, images.path) == ("/models/embeddings", "/models/images/embeddings")
    asked = {"model": "some-model", "encoding_format": "float"}
    assert texts.body == {**asked, "input": ["one"], "dimensions": 4}
    assert images.body == {**asked, "input": [{"image": IMAGE}]}
    for noted in (texts, images):
        assert noted.query == {"api-version": "2024-05-01-preview"}
        assert noted.headers["api-key"] == key
        assert noted.headers["authorization"] == f"Bearer {key}"


@pytest.mark.parametrize("purpose", [None, "query", "document"])
def test_the_purpose_of_vectors_is_told_where_the_protocol_has_a_field_for_it(
    purpose: Literal["query", "document"] | None, model_server: ModelServer
) -> None:
    noted = embedded(model_server, EmbeddingRequest(inputs=(f"for {purpose}",), purpose=purpose))
    assert noted.body.get("input_type") == purpose


def test_information_is_the_services_own_words() -> None:
    told = {"model_name": "mistral", "model_type": "chat-completion", "model_provider_name": "Mistral"}
    expected = ModelInfo(model="mistral", kind="chat-completion", provider="Mistral")
    assert decode_info(told) == expected
    assert decode_info({"model_name": "mistral"}) == ModelInfo(model="mistral")
    nothings: tuple[object, ...] = (
        {},
        [],
        {"model_name": ""},
        {"model_name": 3},
        {"model_name": "m", "model_type": 3},
    )
    for nothing in nothings:
        with pytest.raises(ReplyError):
            decode_info(nothing)


def test_a_tool_is_never_called_strict_because_this_protocol_knows_no_such_thing() -> None:
    request = Request(messages=(Message(role="user", content="hello"),), tools=(WEATHER,))
    (tool,) = encode(request, "m", stream=False)["tools"]
    assert "strict" not in tool["function"]
