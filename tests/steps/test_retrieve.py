"""A retrieve step: passages of an index, best first, within a number of tokens, and a span that says which index."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmops.definitions.workspace import load_workspace
from llmops.errors import UsageError
from llmops.indexes import Passage
from llmops.models.tokens import estimate_tokens
from llmops.records import Status
from llmops.steps import load_functions, open_program
from llmops.steps.base import Program
from llmops.steps.overrides import Overrides
from llmops.steps.retrieve import within
from tests.steps.conftest import Carried

INDEX = """
sources: [{files: "docs/*.md"}]
chunker: {by: heading}
embedder: tfidf
store: fused
"""
CHAIN = """
inputs: {question: string}
steps:
  - id: find
    retrieve: {index: docs, query: "{{ question }}", top_k: 2}
outputs: "{{ find.passages | map(attribute='id') | list }}"
"""
FILES: dict[str, str | bytes] = {
    "docs/birds.md": "# Robins\n\nA robin sings at dawn.\n\n# Owls\n\nAn owl hunts at night.\n",
    "docs/fish.md": "# Pike\n\nA pike hunts in still water.\n",
    "chains/indexes/docs.index.yaml": INDEX,
    "chains/indexes/words.index.yaml": 'sources: [{files: "docs/*.md"}]\n',
    "chains/ask.chain.yaml": CHAIN,
}


@pytest.fixture
def opened(project: Callable[..., Path]) -> Callable[..., Program]:
    """Return the chain over the files, opened with what `set` says; files given replace or join those above."""

    def opened(paths: dict[str, Any] | None = None, **files: str) -> Program:
        root = project({**FILES, **{name.replace("__", "/"): text for name, text in files.items()}})
        workspace = load_workspace(root)
        program = open_program(workspace.resolve("chain", "ask"), Overrides(paths=paths or {}), seed=0)
        load_functions(program)
        return program

    return opened


def test_what_is_found_is_the_output_and_its_span_says_of_which_version(
    opened: Callable[..., Program], carry_out: Callable[..., Carried]
) -> None:
    carried = carry_out(opened(), {"question": "When does the robin sing?"})
    assert carried.output.value[0] == "docs/birds.md#robins"
    span = carried.spans[1]
    assert (span.kind, span.name, span.status) == ("retrieve", "find", Status.OK)
    assert span.inputs["query"] == "When does the robin sing?"
    assert (span.inputs["index"], len(span.inputs["version"])) == ("docs", 12)
    first = span.output["passages"][0]
    assert first["text"] == "A robin sings at dawn."
    assert (first["source"], first["metadata"]) == ("docs/birds.md", {"heading": "Robins"})


def test_nothing_in_common_gives_no_passages(
    opened: Callable[..., Program], carry_out: Callable[..., Carried]
) -> None:
    assert carry_out(opened(), {"question": "?!"}).output.value == []


def test_set_asks_another_index_or_for_more(
    opened: Callable[..., Program], carry_out: Callable[..., Carried]
) -> None:
    question = {"question": "Who hunts at night or in water, or sings?"}
    assert len(carry_out(opened({"find.top_k": 1}), question).output.value) == 1
    carried = carry_out(opened({"find.index": "words"}), question)
    assert carried.spans[1].inputs["index"] == "words"


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        ({"find.top_k": 0}, "set find.top_k: Input should be greater than or equal to 1"),
        ({"find.topk": 2}, r"set find.topk: did you mean 'top_k'\?"),
        ({"find.index": "dogs"}, r"no index is called 'dogs' in the work tree; did you mean 'docs'\?"),
    ],
)
def test_what_set_cannot_reach_is_told(
    opened: Callable[..., Program], paths: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        opened(paths)


def test_the_identity_of_a_chain_covers_its_documents(opened: Callable[..., Program]) -> None:
    before = opened().identity
    assert opened().identity == before
    assert opened(docs__other="not matched").identity == before
    assert opened({"find.top_k": 3}).identity != before
    assert opened(**{"docs__fish.md": "# Pike\n\nA pike sleeps.\n"}).identity != before


def test_a_query_that_is_no_text_is_told(
    opened: Callable[..., Program], carry_out: Callable[..., Carried]
) -> None:
    chain = CHAIN.replace("{question: string}", "{question: any}")
    carried = carry_out(opened(**{"chains__ask.chain.yaml": chain}), {"question": [1]})
    assert carried.output.error is not None
    assert carried.output.error.message == "find: `query` gives list, and an index is asked with text"
    assert carried.spans[1].error is not None


def found(*texts: str) -> list[tuple[Passage, float]]:
    return [(Passage(f"d#{number}", "d", text), 1.0) for number, text in enumerate(texts)]


def test_passages_stay_within_their_tokens_the_best_first() -> None:
    texts = ["one two three four", "five six seven eight", "nine"]
    budget = estimate_tokens(texts[0]) + estimate_tokens(texts[1])
    assert [each["text"] for each in within(found(*texts), budget)] == texts[:2]
    assert [each["text"] for each in within(found(*texts), budget - 1)] == texts[:1]
    assert [each["text"] for each in within(found(*texts), None)] == texts


def test_the_best_passage_is_cut_where_it_alone_is_too_long() -> None:
    (only,) = within(found("word " * 100, "short"), 10)
    assert only["cut"] is True
    assert estimate_tokens(only["text"]) <= 10
    assert only["text"].startswith("word word")
