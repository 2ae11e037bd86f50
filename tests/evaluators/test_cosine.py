"""How near two texts are by a model's vectors."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.call import Budget, open_caller, open_deployments
from llmops.definitions.dataset import Case
from llmops.definitions.workspace import load_workspace
from llmops.errors import EvaluatorError, UsageError
from llmops.evaluators import open_asking_evaluator
from llmops.evaluators.base import Asking, Judgement, Subject
from llmops.evaluators.cosine import Cosine, cosine
from llmops.stores.journal import open_journal
from tests.model_server import ModelServer, running_model_server
from tests.workplace import KEY, utc_now

PROJECT = """
models:
  default: {provider: embedded}
  vectors: {provider: openai, model: v, endpoint_env: URL, api_key_env: KEY, limits: {attempts: 1}}
"""

VECTORS = st.lists(st.floats(-1e100, 1e100), min_size=3, max_size=3)


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    with running_model_server() as server:
        yield server


@pytest.fixture
def ask(tmp_path: Path, server: ModelServer) -> Callable[..., Judgement]:
    (tmp_path / "llmops.yaml").write_text(PROJECT, encoding="utf-8")

    def asked(output: Any, expected: Any, model: str = "vectors") -> Judgement:
        return asyncio.run(judged(tmp_path, server, model, Subject("c1", {}, output, expected)))

    return asked


async def judged(root: Path, server: ModelServer, model: str, subject: Subject) -> Judgement:
    workspace = load_workspace(root)
    evaluator = open_asking_evaluator("cosine", {"model": model}, workspace)
    assert isinstance(evaluator, Cosine)
    environment = {"URL": server.openai_url, "KEY": KEY}
    with closing(open_journal("sqlite:///store.db", root=root)) as journal, journal.hold("test"):
        deployments = open_deployments(workspace, evaluator.models, environment)
        async with open_caller(deployments, journal, Budget(), utc_now) as (caller, _):
            return await evaluator.judge(subject, Asking(caller))


def test_one_request_holds_both_texts_and_is_paid_once(
    ask: Callable[..., Judgement], server: ModelServer
) -> None:
    n_before = len(server.received)
    found = ask("the cat", "a cat")
    assert ask("the cat", "a cat") == found
    (received,) = server.received[n_before:]
    assert received.body["input"] == ["the cat", "a cat"]
    assert found.value is not None and -1.0 <= found.value <= 1.0
    assert found.call_ids == (received.call_id,)


def test_equal_texts_are_as_near_as_can_be(ask: Callable[..., Judgement]) -> None:
    for model in ("vectors", "default"):
        assert ask("the same words", "the same words", model).value == pytest.approx(1.0, abs=1e-6)


def test_the_nearest_of_several_accepted_answers_counts(
    ask: Callable[..., Judgement], server: ModelServer
) -> None:
    n_before = len(server.received)
    found = ask("the cat", ["a dog", "the cat", "fish"])
    assert found.value == pytest.approx(1.0, abs=1e-6)
    assert found.rationale == "nearest to 'the cat'"
    assert len(server.received) == n_before + 1


def test_embedded_finds_shared_words_nearer(ask: Callable[..., Judgement]) -> None:
    near = ask("my parcel is late", "the parcel came late", "default").value
    far = ask("my parcel is late", "refund the invoice", "default").value
    assert near is not None and far is not None and near > far


@pytest.mark.parametrize(
    ("output", "expected", "why"),
    [
        ("", "x", "the output is empty"),
        (" \n", "x", "the output is empty"),
        (3, "x", "the output is of type number"),
        (None, "x", "the output is of type null"),
        ({"a": 1}, "x", "the output is of type object"),
        ("x\ud800", "x", "half a character"),
        ("x", "", "expected is empty"),
        ("x", None, "has no expected"),
        ("x", 3, "expected is of type number"),
        ("x", [], "expected is an empty list"),
        ("x", ["y", ""], "an accepted answer is empty"),
    ],
)
def test_what_has_no_vector_has_no_score_and_costs_nothing(
    ask: Callable[..., Judgement], server: ModelServer, output: Any, expected: Any, why: str
) -> None:
    n_before = len(server.received)
    with pytest.raises(EvaluatorError, match=why):
        ask(output, expected)
    assert len(server.received) == n_before


def test_a_model_that_is_not_there_is_refused_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "llmops.yaml").write_text(PROJECT, encoding="utf-8")
    with pytest.raises(UsageError, match="did you mean 'vectors'"):
        open_asking_evaluator("cosine", {"model": "vector"}, load_workspace(tmp_path))


def test_the_estimate_counts_the_accepted_answers(tmp_path: Path) -> None:
    (tmp_path / "llmops.yaml").write_text(PROJECT, encoding="utf-8")
    found = open_asking_evaluator("cosine", {"model": "vectors"}, load_workspace(tmp_path))
    assert isinstance(found, Cosine)
    one, two, none = (
        found.least_tokens(Case(id="c", inputs={}, expected=expected))
        for expected in ("four words of text", ["four words of text"] * 2, None)
    )
    assert one is not None and one > 0
    assert (two, none) == (2 * one, 0)


@pytest.mark.parametrize(
    ("first", "second", "value"),
    [
        ([1, 0], [0, 2], 0.0),
        ([1, 2, 3], [2, 4, 6], 1.0),
        ([1, 2], [-1, -2], -1.0),
        ([3, 4], [4, 3], 0.96),
        ([0, 0], [1, 1], None),
        ([1e-200, 0], [1e200, 0], 1.0),
    ],
)
def test_cosines_worked_out_by_hand(first: list[float], second: list[float], value: float | None) -> None:
    assert cosine(first, second) == (None if value is None else pytest.approx(value, abs=1e-15))


@given(first=VECTORS, second=VECTORS)
def test_a_cosine_is_symmetric_and_in_range(first: list[float], second: list[float]) -> None:
    found = cosine(first, second)
    assert found == cosine(second, first)
    assert found is None or (math.isfinite(found) and -1.0 <= found <= 1.0)


@given(vector=VECTORS.filter(lambda vector: math.hypot(*vector) > 1e-300), scale=st.floats(1e-3, 1e3))
def test_only_the_direction_counts(vector: list[float], scale: float) -> None:
    scaled = [scale * value for value in vector]
    assert cosine(vector, scaled) == pytest.approx(1.0, abs=1e-12)
