"""An index whose vectors a model makes: asked through the run's caller, paid for once, and for an edit a little."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest

from llmops.definitions.workspace import load_workspace
from llmops.errors import UsageError, first_error
from llmops.indexes import find_index
from llmops.indexes.embedding import MOST, batches, embed_all
from llmops.steps import load_functions, open_program
from llmops.steps.base import Program
from llmops.steps.overrides import Overrides
from tests.model_server import ModelServer
from tests.steps.conftest import Carried

EMBEDDED = "sources: [{files: d.jsonl}]\nchunker: {by: document}\nembedder: {model: default}\nstore: fused\n"
FILES: dict[str, str | bytes] = {
    "llmops.yaml": "models:\n  default: {provider: openai, model: m, endpoint_env: URL}\n",
    "chains/indexes/docs.index.yaml": EMBEDDED,
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


def test_vectors_of_a_model_are_found_alike_in_the_memory_and_on_the_disk(
    opened: Callable[..., Program], carry_out: Callable[..., Carried], monkeypatch: pytest.MonkeyPatch
) -> None:
    definition = "chains/indexes/docs.index.yaml"
    found = []
    for store in ("vectors", "lancedb"):
        monkeypatch.setitem(FILES, definition, EMBEDDED.replace("fused", store))
        carried = carry_out(opened(rows(range(200))), {"question": "number3"})
        found.append([(each["id"], round(each["score"], 5)) for each in carried.spans[1].output["passages"]])
    assert found[0] == found[1]
    assert len(found[0]) == 2


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


def test_vectors_lie_in_the_order_of_the_texts_whichever_comes_first(tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(500)]

    async def embed(batch: Sequence[str]) -> list[list[float]]:
        await asyncio.sleep(0.01 * (len(batch) % 3))
        return [[float(text.split()[1]), 1.0] for text in batch]

    made = asyncio.run(embed_all(texts, embed, tmp_path))
    assert made.tolist() == [[float(number), 1.0] for number in range(500)]
    assert list(tmp_path.iterdir()) == []


def test_vectors_of_two_lengths_are_told(tmp_path: Path) -> None:
    async def embed(batch: Sequence[str]) -> list[list[float]]:
        return [[1.0] * (2 + len(batch) % 2) for _ in batch]

    with pytest.raises(ExceptionGroup) as raised:
        asyncio.run(embed_all([f"text {number}" for number in range(500)], embed, tmp_path))
    error = first_error(raised.value)
    assert isinstance(error, UsageError)
    assert str(error) == "the model gave vectors of 2 and of 3 numbers"


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
