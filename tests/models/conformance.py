"""Every provider by everything a provider may be able to do, tried against the loopback server by what it sends with.

    python -m tests.models.conformance      # prints the table of docs/providers.md

What a provider claims is carried out and looked at; what it does not claim must be refused before anything is sent.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from llmops.definitions.project import ModelDefinition
from llmops.errors import RequestError, UsageError
from llmops.models import PROVIDERS, model_class, open_model
from llmops.models.base import Ability, Model
from llmops.records import (
    EmbeddingRequest,
    ImagePart,
    Message,
    Reply,
    Request,
    Status,
    TextPart,
)
from tests.model_server import ModelServer, running_model_server
from tests.models.samples import IMAGE, WEATHER

KEY = "sk-canary/0123+456789="
API_VERSION = "2024-10-21"
SENTENCE = "The parcel never came. I want my money back, and I want it soon."
FORM = {
    "type": "object",
    "properties": {"team": {"enum": ["billing", "shipping"]}, "urgent": {"type": "boolean"}},
    "required": ["team", "urgent"],
    "additionalProperties": False,
}


SDK = "/sdk"
"""Behind a provider's name: through its SDK in place of the lean client. What tests claim holds for both."""

OF_THE_CLIENT = frozenset({"connection", "user-agent", "x-stainless-raw-response"})
"""Headers in which the lean client and the SDK may differ."""


@dataclass(frozen=True)
class Cell:
    """One thing to do. needs: what a provider must be able to do for it. stream: whether the reply is streamed.

    on_unknown: of the model.
    """

    name: str
    needs: frozenset[Ability]
    carry_out: Callable[[Model], Awaitable[None]]
    stream: bool = False
    on_unknown: str = "retry"


def opened(
    provider: str, server: ModelServer, *, stream: bool = False, key: str = KEY, **fields: Any
) -> Model:
    """Return a provider's model on the server. provider: through its SDK if it ends in SDK."""
    environment = {"URL": server.url_of(provider.removesuffix(SDK)), "KEY": key}
    return open_model("tested", defined(provider, stream=stream, **fields), environment)


def defined(provider: str, **fields: Any) -> ModelDefinition:
    """Return the definition of a provider's model, reached by the variables URL and KEY."""
    if provider != "embedded":
        fields = {"endpoint_env": "URL", "api_key_env": "KEY", **fields}
    if provider.startswith("azure_openai"):
        fields = {"api_version": API_VERSION, **fields}
    if provider.endswith(SDK):
        fields = {"client": "sdk", **fields}
    return ModelDefinition(provider=provider.removesuffix(SDK), **{"model": "some-model", **fields})


async def complete(model: Model, *messages: Message, **fields: Any) -> Reply:
    """Ask once."""
    return await model.complete(Request(messages=messages, **fields), call_id="cell", timeout_s=20)


def user(text: str, *parts: ImagePart) -> Message:
    """Return a message of a text, with images if there are any."""
    return Message(role="user", content=(TextPart(text=text), *parts) if parts else text)


# --- what there is to do ----------------------------------------------------------------------------------


async def _answers(model: Model) -> None:
    reply = await complete(model, user(SENTENCE))
    assert reply.text and reply.status is Status.OK and reply.usage is not None


async def _streams(model: Model) -> None:
    reply = await complete(model, user(SENTENCE))
    assert reply.text and reply.ttft_s is not None and reply.tpot_s is not None


async def _calls_tools(model: Model) -> None:
    clock = WEATHER.model_copy(update={"name": "clock"})
    question = user("What do weather and clock say?")
    asked = await complete(model, question, tools=(WEATHER, clock))
    assert (asked.text, asked.status, asked.finish_reason) == ("", Status.OK, "tool_calls")
    assert [call.name for call in asked.tool_calls] == ["weather", "clock"]
    assert all(isinstance(json.loads(call.arguments)["town"], str) for call in asked.tool_calls)
    answers = [Message(role="tool", content="rain", tool_call_id=call.id) for call in asked.tool_calls]
    before = Message(role="assistant", content="", tool_calls=asked.tool_calls)
    assert "rain" in (await complete(model, question, before, *answers, tools=(WEATHER,))).text


async def _fills_a_form(model: Model) -> None:
    reply = await complete(model, user(SENTENCE), response_format=FORM)
    filled = json.loads(reply.text)
    assert filled["team"] in ("billing", "shipping") and isinstance(filled["urgent"], bool)


async def _sees_an_image(model: Model) -> None:
    seen, other = [
        (await complete(model, user("What is it?", ImagePart(image=image)))).text
        for image in (IMAGE, IMAGE + "A")
    ]
    assert seen.startswith("saw ") and other.startswith("saw ") and seen != other


async def _embeds(model: Model) -> None:
    await _vectors(model, ("one", "two", "one"))


async def _embeds_images(model: Model) -> None:
    await _vectors(model, (ImagePart(image=IMAGE), ImagePart(image=IMAGE + "A"), ImagePart(image=IMAGE)))


async def _vectors(model: Model, inputs: Sequence[str | ImagePart]) -> None:
    for dimensions in (None, 16):
        request = EmbeddingRequest(inputs=tuple(inputs), dimensions=dimensions)
        found = await model.embed(request, call_id="cell", timeout_s=20)
        first, second, third = found.vectors
        assert first == third != second and len(first) == len(second) == (dimensions or len(first))
        assert found.usage is not None and found.usage.input_tokens > 0 and found.model


async def _tells_of_itself(model: Model) -> None:
    info = await model.info(timeout_s=20)
    assert info.model and info.provider


async def _looks_up(model: Model) -> None:
    request, call_id = Request(messages=(user(SENTENCE),)), uuid4().hex
    assert await model.find(request, call_id=call_id, timeout_s=20) is None
    reply = await model.complete(request, call_id=call_id, timeout_s=20)
    found = await model.find(request, call_id=call_id, timeout_s=20)
    assert found is not None
    assert (found.text, found.usage, found.status) == (reply.text, reply.usage, reply.status)
    assert await model.find(request, call_id=f"not {call_id}", timeout_s=20) is None


CELLS = (
    Cell("chat", frozenset({Ability.CHAT}), _answers),
    Cell("streamed", frozenset({Ability.CHAT, Ability.STREAM}), _streams, stream=True),
    Cell("tools", frozenset({Ability.TOOLS}), _calls_tools),
    Cell("streamed tools", frozenset({Ability.TOOLS, Ability.STREAM}), _calls_tools, stream=True),
    Cell("JSON schema", frozenset({Ability.SCHEMA}), _fills_a_form),
    Cell("images", frozenset({Ability.IMAGES}), _sees_an_image),
    Cell("embeddings", frozenset({Ability.EMBEDDINGS}), _embeds),
    Cell("image embeddings", frozenset({Ability.IMAGE_EMBEDDINGS}), _embeds_images),
    Cell(
        "looking up",
        frozenset({Ability.CHAT, Ability.RECONCILE}),
        _looks_up,
        on_unknown="reconcile",
    ),
    Cell("information", frozenset({Ability.INFO}), _tells_of_itself),
)


# --- the table --------------------------------------------------------------------------------------------


def try_cell(provider: str, cell: Cell, server: ModelServer) -> bool:
    """Return whether the provider can, having seen that it does, or that it refuses before anything is sent."""
    claims = bool(cell.needs <= model_class(provider.removesuffix(SDK)).abilities)
    before = len(server.received)
    try:
        asyncio.run(_carry_out(provider, cell, server))
    except (RequestError, UsageError) as refused:
        assert not claims, f"{provider} claims {cell.name} and refuses it: {refused}"
        assert len(server.received) == before, f"{provider} sent something before it refused {cell.name}"
        assert not isinstance(refused, RequestError) or refused.sent is False
    else:
        assert claims, f"{provider} does {cell.name} and does not claim it"
        assert len(server.received) > before or provider == "embedded"
    return claims


async def _carry_out(provider: str, cell: Cell, server: ModelServer) -> None:
    model = opened(provider, server, stream=cell.stream, on_unknown=cell.on_unknown)
    try:
        await cell.carry_out(model)
    finally:
        await model.close()


def table(server: ModelServer) -> str:
    """Return the table as Markdown, every cell of it carried out."""
    rows = [
        [f"`{provider}`", *("yes" if try_cell(provider, cell, server) else "no" for cell in CELLS)]
        for provider in sorted(PROVIDERS)
    ]
    head = ["provider", *(cell.name for cell in CELLS)]
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ["---"] * len(head), *rows))


if __name__ == "__main__":
    with running_model_server() as running:
        print(table(running), end="")
