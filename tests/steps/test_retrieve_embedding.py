"""An index whose vectors a model makes: asked through the run's caller, paid for once, and for an edit a little."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from llmops.definitions.workspace import load_workspace
from llmops.indexes import find_index
from llmops.indexes.embedding import MOST, batches
from llmops.steps import load_functions, open_program
from llmops.steps.base import Program
from llmops.steps.overrides import Overrides
from tests.model_server import ModelServer
from tests.steps.conftest import Carried

FILES: dict[str, str | bytes] = {
    "llmops.yaml": "models:\n  default: {provider: openai, model: m, endpoint_env: URL}\n",
    "chains/indexes/docs.index.yaml": (
        "sources: [{files: d.jsonl}]\nchunker: {by: document}\nembedder: {model: default}\nstore: fused\n"
    ),
    "chains/ask.chain.yaml": (
        "inputs: {question: string}\nsteps:\n"
        '  - id: find\n    retrieve: {index: docs, query: "{{ question }}", top_k: 2}\n'
        '  - id: again\n    retrieve: {index: docs, query: "{{ question }}", top_k: 2}\n'
    ),
}


def rows(numbers: Iterable[int]) -> str:
    return "".join(f'{{"id": "r{n}", "text": "a passage about number{n}"}}\n' for n in numbers)


@pytest.fixture
def opened(project: Callable[..., Path]) -> Callable[..., Program]:
    def opened(text: str) -> Program:
        workspace = load_workspace(project({**FILES, "d.jsonl": text}))
        program = open_program(workspace.resolve("chain", "ask"), Overrides(), seed=0)
        load_functions(program)
        return program

    return opened


def sent(server: ModelServer) -> list[str]:
    """Return all texts that the server was asked to embed."""
    return [text for received in server.received for text in received.body["input"]]


def test_documents_are_embedded_once_and_each_query_once(
    opened: Callable[..., Program], carry_out: Callable[..., Carried], server: ModelServer, tmp_path: Path
) -> None:
    program = opened(rows(range(10)))
    assert list(program.models) == ["default"]
    assert server.received == []
    carried = carry_out(program, {"question": "number3"})
    assert carried.output.error is None
    assert sorted(sent(server)) == sorted([*(f"a passage about number{n}" for n in range(10)), "number3"])
    span = carried.spans[1]
    assert (span.model, span.call_id is not None, span.usage is not None) == ("default", True, True)
    assert span.output["passages"][0]["id"] == "r3"
    assert find_index(load_workspace(tmp_path), "docs") is not None
    carry_out(opened(rows(range(10))), {"question": "number4"})
    assert sent(server)[11:] == ["number4"]


def test_an_edit_asks_again_for_its_own_batch_alone(
    opened: Callable[..., Program], carry_out: Callable[..., Carried], server: ModelServer
) -> None:
    carry_out(opened(rows(range(400))), {"question": "x"})
    before = len(sent(server))
    carry_out(opened(rows([*range(200), 1000, *range(200, 400)])), {"question": "x"})
    again = sent(server)[before:]
    assert "a passage about number1000" in again
    assert len(again) <= 2 * MOST


def test_what_keeps_the_model_from_answering_ends_the_case_and_builds_nothing(
    opened: Callable[..., Program], carry_out: Callable[..., Carried], tmp_path: Path
) -> None:
    carried = carry_out(opened('{"id": "a", "text": "[[fault:500]] text"}\n'), {"question": "x"})
    assert carried.output.error is not None
    assert carried.spans[1].error is not None
    assert find_index(load_workspace(tmp_path), "docs") is None


def test_batches_hold_everything_in_order_and_move_little() -> None:
    texts = [f"text {number}" for number in range(2000)]
    first = list(batches(texts))
    assert [text for batch in first for text in batch] == texts
    assert max(map(len, first)) <= MOST
    moved = {tuple(batch) for batch in batches([*texts[:1000], "new", *texts[1000:]])} - set(
        map(tuple, first)
    )
    assert len(moved) <= 3
    assert not any(batches([]))
