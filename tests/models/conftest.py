"""A model server for the tests of models, and one call to it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from llmops.models import open_model
from llmops.records import Message, Reply, Request
from tests.model_server import ModelServer, running_model_server
from tests.models.conformance import KEY, defined

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


@pytest.fixture(scope="session")
def model_server() -> Iterator[ModelServer]:
    """Give one server for all tests; a test tells its requests by their call id."""
    with running_model_server() as server:
        yield server


@pytest.fixture
def key() -> str:
    """Give the key that every request carries and nothing else may show."""
    return KEY


@pytest.fixture
def ask(model_server: ModelServer) -> Callable[..., Reply]:
    """Give a function that opens a model, asks once and closes it."""

    def ask(
        provider: str,
        text: str,
        *,
        call_id: str = "call",
        timeout_s: float = 20.0,
        endpoint: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> Reply:
        definition = defined(provider, **fields)
        environment = {"URL": endpoint or model_server.url_of(definition.provider), "KEY": KEY}
        request = Request(messages=(Message(role="user", content=text),), parameters=parameters or {})

        async def once() -> Reply:
            model = open_model("tested", definition, environment)
            try:
                return await model.complete(request, call_id=call_id, timeout_s=timeout_s)
            finally:
                await model.close()

        return asyncio.run(once())

    return ask
