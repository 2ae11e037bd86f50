"""A caller of the model server on this machine, and one case carried out through it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from llmops.call import Budget, Caller, Deployment, Limiter
from llmops.definitions.project import Limits, ModelDefinition, Price
from llmops.models import model_version, open_model
from llmops.records import ModelVersion, Output, Span
from llmops.run import carry_out_case
from llmops.steps.base import Context, Program, Trace
from llmops.steps.python import PythonProgram
from llmops.stores.journal import open_journal
from llmops.stores.writer import Writer
from tests.model_server import ModelServer, running_model_server

MODEL = ModelDefinition(
    provider="openai",
    model="m",
    endpoint_env="URL",
    limits=Limits(attempts=1),
    price=Price(input_per_mtok=1, output_per_mtok=1),
)
VERSION: ModelVersion = model_version("default", MODEL)


def utc_now() -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC)


def function(call: Callable[..., Any]) -> PythonProgram:
    """Return a step that calls a function."""
    return PythonProgram("code:f", lambda: call, "identity")


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with running_model_server() as server:
        yield server


@dataclass
class Carried:
    """What came of one case."""

    output: Output
    trace: Trace

    @property
    def spans(self) -> tuple[Span, ...]:
        return self.output.spans


@pytest.fixture
def carry_out(tmp_path: Path, server: ModelServer) -> Callable[..., Carried]:
    """Give a function that carries a program out on inputs, with a real model, journal and clock."""

    def carry_out(
        program: Program, inputs: Mapping[str, Any], *, stream: bool = False, **context: Any
    ) -> Carried:
        async def go() -> Carried:
            definition = MODEL.model_copy(update={"stream": stream})
            with closing(open_journal("sqlite:///store.db", root=tmp_path)) as journal:
                async with Writer(journal) as writer:
                    model = open_model("default", definition, {"URL": server.openai_url})
                    deployment = Deployment(VERSION, definition, model, Limiter(MODEL.limits, time.monotonic))
                    caller = Caller({"default": deployment}, writer, Budget(), utc_now)
                    trace = Trace()
                    try:
                        made = Context(caller=caller, trace=trace, **context)
                        output = await carry_out_case(program, inputs, made, "cell", utc_now)
                    finally:
                        await model.close()
                    return Carried(output, trace)

        return asyncio.run(go())

    return carry_out
