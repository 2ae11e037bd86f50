"""The lean client: the same on the wire as the SDK, over connections that are few, used again and closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from llmops.definitions.project import ModelDefinition
from llmops.errors import UnavailableError
from llmops.models import model_version, open_model
from llmops.models.base import Model
from llmops.records import EmbeddingRequest, ImagePart, Message, Request, TextPart
from tests.model_server import ModelServer
from tests.models.conformance import FORM, KEY, OF_THE_CLIENT, SDK, opened
from tests.models.samples import IMAGE, WEATHER

REPLY = b'{"model": "m", "choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]}'


def request(text: str, **fields: Any) -> Request:
    return Request(messages=(Message(role="user", content=text),), **fields)


SEEN = Message(role="user", content=(TextPart(text="What is it?"), ImagePart(image=IMAGE)))
ASKED: dict[str, Request | EmbeddingRequest | None] = {
    "text": request('Grüße, 你好, \u2028 "quoted" \\ \N{GRINNING FACE} and a\ttab'),
    "parameters": request("hi", parameters={"temperature": 0.1, "max_tokens": 8, "stop": ["x"], "seed": 7}),
    "reasoning": request("hi", parameters={"reasoning_effort": "low", "max_tokens": 8}),
    "form": request("hi", response_format=FORM),
    "tools": request("hi", tools=(WEATHER,)),
    "image": Request(messages=(SEEN,)),
    "vectors": EmbeddingRequest(inputs=("one", "zwölf"), dimensions=16),
    "information": None,
}


async def send(model: Model, asked: Request | EmbeddingRequest | None, call_id: str) -> None:
    if asked is None:
        await model.info(timeout_s=20)
    elif isinstance(asked, Request):
        await model.complete(asked, call_id=call_id, timeout_s=20)
    else:
        await model.embed(asked, call_id=call_id, timeout_s=20)


def wire(server: ModelServer, provider: str, what: str, **fields: Any) -> Any:
    """Return what a provider puts on the wire: path, query, headers but for the client's own, and body."""

    async def once() -> None:
        model = opened(provider, server, **fields)
        try:
            await send(model, ASKED[what], "wire")
        finally:
            await model.close()

    before = len(server.received)
    asyncio.run(once())
    (noted,) = server.received[before:]
    headers = {name: said for name, said in noted.headers.items() if name not in OF_THE_CLIENT}
    return noted.path, noted.query, headers, noted.body


@pytest.mark.parametrize(
    ("provider", "what"),
    [("openai", what) for what in ASKED] + [("azure_openai", what) for what in ASKED if ASKED[what]],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_both_clients_put_the_same_on_the_wire(
    provider: str, what: str, stream: bool, model_server: ModelServer
) -> None:
    lean = wire(model_server, provider, what, stream=stream)
    assert lean == wire(model_server, provider + SDK, what, stream=stream)
    assert KEY in str(lean[2])
    assert what == "information" or "content-length" in lean[2], "equal lengths too: the same bytes"


@pytest.mark.parametrize("name", ["qwen3:8b", "a b", "org@v1", "50%", "ü"])
def test_both_clients_spell_a_name_alike_in_the_address(name: str, model_server: ModelServer) -> None:
    lean = wire(model_server, "azure_openai", "text", model=name)
    assert lean == wire(model_server, "azure_openai" + SDK, "text", model=name)
    assert lean[3]["model"] == name


def test_the_client_is_no_part_of_what_a_model_is() -> None:
    lean, sdk = (ModelDefinition(provider="openai", model="m", client=client) for client in ("lean", "sdk"))
    assert model_version("m", lean).identity == model_version("m", sdk).identity
    assert ModelDefinition(provider="openai", model="m") == lean


def test_a_request_of_megabytes_leaves_without_a_warning(model_server: ModelServer) -> None:
    async def once() -> None:
        model = opened("openai", model_server)
        large = ImagePart(image=IMAGE + "A" * 2**21)
        seen = Message(role="user", content=(TextPart(text="What is it?"), large))
        try:
            reply = await model.complete(Request(messages=(seen,)), call_id="megabytes", timeout_s=20)
        finally:
            await model.close()
        assert reply.text.startswith("saw ")

    asyncio.run(once())


# --- connections ------------------------------------------------------------------------------------------


class Served:
    """What a server has seen. connections: so many were opened; most: so many at one time; heads: of each request.

    ended: a connection was closed by the other side.
    """

    def __init__(self) -> None:
        self.connections = self.open = self.most = 0
        self.heads: list[bytes] = []
        self.ended = asyncio.Event()

    @property
    def requests(self) -> int:
        """How many came whole."""
        return len(self.heads)


@asynccontextmanager
async def served(
    answer: Callable[[Served, asyncio.StreamWriter], Awaitable[bool]], *, concurrency: int = 16
) -> AsyncIterator[tuple[Served, Model]]:
    """Give a server and a model on it. answer: writes an answer and says whether the connection stays."""
    counts = Served()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        counts.connections += 1
        counts.open += 1
        counts.most = max(counts.most, counts.open)
        while head := await reader.read(2**16):
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            body = head.partition(b"\r\n\r\n")[2]
            await reader.readexactly(length - len(body))
            counts.heads.append(head)
            if not await answer(counts, writer):
                break
        else:
            counts.ended.set()
        counts.open -= 1
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        definition = ModelDefinition.model_validate(
            {"provider": "openai", "model": "m", "endpoint_env": "U", "limits": {"concurrency": concurrency}}
        )
        model = open_model("tested", definition, {"U": f"http://{host}:{port}/v1"})
        try:
            yield counts, model
        finally:
            await model.close()


async def say_yes(_: Served, writer: asyncio.StreamWriter) -> bool:
    await asyncio.sleep(0.01)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(REPLY) + REPLY)
    return True


async def ask(model: Model, text: str = "hi") -> str:
    return (await model.complete(request(text), call_id=text, timeout_s=20)).text


def test_one_connection_serves_one_request_after_another_and_closes_with_the_model() -> None:
    async def calls() -> None:
        async with served(say_yes) as (counts, model):
            assert [await ask(model) for _ in range(5)] == ["yes"] * 5
            assert (counts.connections, counts.open) == (1, 1)
            await model.close()
            await asyncio.wait_for(counts.ended.wait(), 20)

    asyncio.run(calls())


def test_there_are_no_more_connections_than_calls_allowed_in_flight() -> None:
    async def calls() -> None:
        async with served(say_yes, concurrency=3) as (counts, model):
            await asyncio.gather(*(ask(model, str(n)) for n in range(20)))
            assert (counts.most, counts.requests) == (3, 20)

    asyncio.run(calls())


def test_a_request_that_breaks_on_a_connection_used_before_is_not_sent_again_f24() -> None:
    async def once_only(counts: Served, writer: asyncio.StreamWriter) -> bool:
        return counts.requests == 1 and await say_yes(counts, writer)

    async def calls() -> None:
        async with served(once_only) as (counts, model):
            assert await ask(model) == "yes"
            with pytest.raises(UnavailableError, match="may have been billed") as caught:
                await ask(model)
            assert caught.value.sent is None
            assert (counts.connections, counts.requests) == (1, 2)

    asyncio.run(calls())


def test_an_answer_that_is_no_http_may_have_been_billed_f24() -> None:
    async def nonsense(_: Served, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
        return False

    async def calls() -> None:
        async with served(nonsense) as (_, model):
            with pytest.raises(UnavailableError, match="may have been billed") as caught:
                await ask(model)
            assert caught.value.sent is None

    asyncio.run(calls())


def test_cookies_of_a_service_are_not_sent_back() -> None:
    async def with_cookie(_: Served, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: %d\r\n\r\n" % len(REPLY) + REPLY)
        return True

    async def calls() -> None:
        async with served(with_cookie) as (counts, model):
            assert [await ask(model), await ask(model)] == ["yes", "yes"]
            assert [b"cookie" in head.lower() for head in counts.heads] == [False, False]

    asyncio.run(calls())
