"""Small records for the tests of stores: runs, cells, and what is recorded for them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from llmops.definitions.dataset import Case
from llmops.records import (
    NOTHING,
    Call,
    CallState,
    DatasetVersion,
    EvaluatorVersion,
    Message,
    Output,
    Reply,
    Request,
    Run,
    RunStatus,
    Score,
    Span,
)
from llmops.stores.journal import Cell, Journal, open_journal
from llmops.stores.rows import Rows, call_row, intent_row, output_row, score_row, span_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

URL = "sqlite:///.llmops/store.db"
NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


@dataclass
class Batch:
    """What one transaction writes. scores: with the id of the cell and the key of the case they were given for."""

    intents: list[Call] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    scores: list[tuple[str, str, Score]] = field(default_factory=list)


def apply(journal: Journal, batch: Batch) -> dict[str, Call]:
    """Write a batch in one transaction and return, by id, the intents that are answered already."""
    rows = Rows()
    for call in batch.intents:
        rows.add_intent(intent_row(call))
    for call in batch.calls:
        rows.add_call(call_row(call), NOTHING)
    for output in batch.outputs:
        rows.add_output(output_row(output), span_rows(output))
    for cell_id, case_key, score in batch.scores:
        rows.add_score(score_row(cell_id, case_key, score))
    return dict(journal.commit(rows).answered)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def evaluator(name: str) -> EvaluatorVersion:
    return EvaluatorVersion(name=name, kind=name, identity=digest(name), low=0.0, high=1.0)


EXACT, TONE = evaluator("exact_match"), evaluator("tone")


def store_of(root: Path) -> Path:
    return root / ".llmops" / "store.db"


def opened(root: Path) -> Journal:
    return open_journal(URL, root=root)


def run_of(run_id: str = "r1", **fields: Any) -> Run:
    values: dict[str, Any] = {
        "id": run_id,
        "experiment": "triage",
        "identity": digest(run_id),
        "status": RunStatus.RUNNING,
        "created_at": NOW,
        "dataset": DatasetVersion(
            name="tickets", split="test", version="v1", n_cases=3, path="tickets.jsonl"
        ),
        "variants": (),
        "evaluators": (EXACT, TONE),
        "repeats": 1,
        "seed": 7,
        "n_cells": 0,
    }
    return Run(**{**values, **fields})


def case_of(number: int) -> Case:
    return Case(id=f"case-{number}", inputs={"ticket": f"ticket {number}"}, expected="billing")


def cells_of(n_cases: int, variants: Sequence[str] = ("a", "b"), repeats: int = 1) -> list[tuple[Cell, Case]]:
    """Return cells as a run orders them: repeat by repeat, case by case, variant by variant."""
    return list(_cells(n_cases, variants, repeats))


def _cells(n_cases: int, variants: Sequence[str], repeats: int) -> Iterator[tuple[Cell, Case]]:
    position = 0
    for repeat in range(repeats):
        for number in range(n_cases):
            case = case_of(number)
            for variant in variants:
                cell_id = digest(f"{variant} {number} {repeat}")
                yield Cell(position, variant, repeat, case.id, case.key(), cell_id), case
                position += 1


def request_of(text: str) -> Request:
    return Request(messages=(Message(role="user", content=text),), parameters={"temperature": 0})


def call_of(name: str, **fields: Any) -> Call:
    """Return a call that is about to be sent."""
    values: dict[str, Any] = {
        "id": digest(name),
        "model": "default",
        "model_identity": digest("default"),
        "request": request_of(name),
        "state": CallState.SENT,
        "created_at": NOW,
    }
    return Call(**{**values, **fields})


def answered(call: Call, text: str = "billing", **fields: Any) -> Call:
    reply = Reply(text=text, model="m-1", raw=text.encode("utf-8", "surrogatepass"))
    changes = {"state": CallState.ANSWERED, "attempts": 1, "reply": reply, "answered_at": NOW}
    return call.model_copy(update={**changes, **fields})


def output_of(cell: Cell, value: Any = "billing", **fields: Any) -> Output:
    return Output(cell_id=cell.cell_id, value=value, created_at=NOW, **fields)


def span_of(index: int = 0, call_id: str | None = None, **fields: Any) -> Span:
    values: dict[str, Any] = {"parent": None, "name": "triage", "kind": "prompt", "inputs": {}}
    return Span(index=index, call_id=call_id, **{**values, **fields})


def score_of(version: EvaluatorVersion = EXACT, value: float | None = 1.0, **fields: Any) -> Score:
    return Score(evaluator=version.name, evaluator_identity=version.identity, value=value, **fields)
