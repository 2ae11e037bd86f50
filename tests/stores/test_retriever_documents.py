"""Passages reach MLflow in the shape in which it shows documents and gives them to its judges."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llmops.stores.mlflow.cases import _attributes
from llmops.stores.traces import CaseTrace, Step

PASSAGE = {"id": "d#1", "text": "one", "source": "d", "score": 0.5, "metadata": {"lang": "en"}}
CASE = CaseTrace(7, "c1", "case", False, "", "", (), (), {}, 0)
STEP = Step("find", "retrieve", 0, 0, 1, {"query": "x"}, {"passages": [PASSAGE]})


def outputs(step: Step) -> Any:
    return _attributes(CASE, step).get("mlflow.spanOutputs")


def test_a_retriever_gives_documents() -> None:
    from mlflow.entities import Document

    (document,) = outputs(STEP)
    assert Document(**document) == Document("one", {"doc_uri": "d", "score": 0.5, "lang": "en"}, "d#1")


@pytest.mark.parametrize(
    "output", ["shortened [whole in rows.jsonl]", None, {"passages": "text"}, {"passages": ["a"]}]
)
def test_what_is_no_list_of_passages_stays_as_it_is(output: Any) -> None:
    assert outputs(replace(STEP, output=output)) == output


def test_other_steps_give_what_they_gave() -> None:
    assert outputs(replace(STEP, kind="python")) == {"passages": [PASSAGE]}
