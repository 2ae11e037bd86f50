"""A run in a journal with all that can be hard to mirror: spans, errors, absent scores, hostile text."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from llmops.definitions.base import identity_of
from llmops.definitions.dataset import Case
from llmops.definitions.workspace import Workspace, load_workspace
from llmops.records import (
    Call,
    CallState,
    DatasetVersion,
    ErrorInfo,
    EvaluatorVersion,
    Figure,
    Interval,
    Message,
    ModelVersion,
    Output,
    Reply,
    Request,
    Run,
    RunStatus,
    Score,
    Source,
    Span,
    Status,
    Usage,
    Variant,
)
from llmops.stores.journal import Cell, Journal, open_journal
from llmops.stores.mlflow import open_mlflow
from llmops.sync import Delivered, sync_runs
from tests.stores.samples import Batch, apply

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
LABELS = ("billing", "shipping", "other")
HOSTILE = "half \ud800 a pair, \0 nothing, </script>\x1b[2J " + "long " * 20_000
EVALUATORS = (
    EvaluatorVersion(name="exact_match", kind="exact_match", identity="e" * 64, low=0.0, high=1.0),
    EvaluatorVersion(name="class.v2", kind="classification", identity="c" * 64, low=0.0, high=1.0),
    EvaluatorVersion(name="closeness", kind="python", identity="f" * 64, low=0.0, high=1.0),
)
PROMPT = """
description: Which team should take this ticket?
inputs: {ticket: string}
parameters: {temperature: 0, max_tokens: 8, stop: END}
messages:
  - {role: system, content: Answer with the name of the team.}
  - examples: {from: tickets, k: 2, select: first}
    user: "{{ ticket }}"
    assistant: "{{ expected }}"
  - {role: user, content: "{{ ticket }}"}
response_format: {type: string, enum: [billing, shipping, other]}
"""
FILES = {
    "prompts/triage.prompt.yaml": PROMPT,
    "datasets/tickets.dataset.yaml": "inputs: {ticket: string}\n",
    "datasets/tickets.jsonl": '{"id": "x", "inputs": {"ticket": "Paid twice"}, "expected": "billing"}\n',
    "experiments/triage.experiment.yaml": "dataset: tickets\nvariants: {few: {prompt: triage}}\n",
}
MODEL = ModelVersion(name="default", provider="embedded", model="embedded-1", identity="a" * 64)


@dataclass
class MirroredRun:
    """Two variants on the same cases. hostile: the last case is full of text that no database takes."""

    journal: Journal
    workspace: Workspace
    n_cases: int = 12
    hostile: bool = True
    fresh: int = 0
    begun: datetime = NOW

    def variants(self) -> tuple[Variant, ...]:
        prompt = self.workspace.identity("prompt", "triage")
        names = ("zero-shot", "few-shot")
        return tuple(
            Variant(
                name=name,
                definition="prompts/triage",
                reference="triage",
                definition_identity=prompt,
                identity=identity_of(name),
                models=(MODEL,),
                parameters={"temperature": 0, "max_tokens": 8},
                set={"examples.k": 0} if name == "zero-shot" else {"note: é": "ü" * 7_000},
                prompts={"triage": prompt},
                is_baseline=name == "zero-shot",
            )
            for name in names
        )

    def run(self, **changes: Any) -> Run:
        identity = identity_of([self.n_cases, "run"])
        return Run(
            id=f"triage-{identity[:8]}" + (f".{self.fresh}" if self.fresh else ""),
            experiment="triage",
            identity=identity,
            fresh=self.fresh,
            status=RunStatus.RUNNING,
            created_at=self.begun,
            dataset=DatasetVersion(
                name="tickets",
                split="test",
                version="d" * 64,
                n_cases=self.n_cases,
                path="datasets/tickets.jsonl",
            ),
            variants=self.variants(),
            evaluators=EVALUATORS,
            repeats=1,
            seed=7,
            source=Source(commit="b" * 40, branch="main", dirty=True),
            experiment_definition={"description": "Do examples help?", "baseline": "zero-shot"},
            n_cells=2 * self.n_cases,
        ).model_copy(update=changes)

    def case(self, number: int) -> Case:
        text = HOSTILE if self.hostile and number == self.n_cases - 1 else f"Ticket {number}: where is it?"
        return Case(
            id=f"t-{number:05}",
            inputs={"ticket": text},
            expected=LABELS[number % 3],
            slice="edge" if number % 4 == 0 else "average",
        )

    def begin(self) -> None:
        run = self.run()
        cells: list[tuple[Cell, Case]] = []
        for number in range(self.n_cases):
            case = self.case(number)
            for variant in run.variants:
                cells.append((self._cell(len(cells), variant, case), case))
        self.journal.begin_run(run, cells)

    def _cell(self, position: int, variant: Variant, case: Case) -> Cell:
        cell_id = identity_of([variant.identity, case.input_key(), self.fresh])
        return Cell(position, variant.name, 0, case.id, case.key(), cell_id)

    def carry_out(self, numbers: Sequence[int], *, failing: Sequence[int] = (5,)) -> None:
        """Give the cases an output each; those that fail do so in the candidate."""
        batch = Batch()
        for number in numbers:
            case = self.case(number)
            for place, variant in enumerate(self.variants()):
                cell = self._cell(0, variant, case)
                fails = number in failing and place == 1
                call, output = self._answer(cell, case, number, fails=fails)
                batch.calls.append(call)
                batch.outputs.append(output)
                label = str(output.value)
                for score in self._scores(case, label, number, failed=fails):
                    batch.scores.append((cell.cell_id, cell.case_key, score))
            if len(batch.outputs) >= 500:
                apply(self.journal, batch)
                batch = Batch()
        apply(self.journal, batch)

    def _answer(self, cell: Cell, case: Case, number: int, *, fails: bool) -> tuple[Call, Output]:
        wrong = number % 4 == 1 and cell.variant == "zero-shot"
        text = LABELS[(number + wrong) % 3]
        error = (
            ErrorInfo(kind="timeout", message=f"no reply in 60 s {HOSTILE[:40]}", step="triage")
            if fails
            else None
        )
        at = NOW + timedelta(seconds=number)
        messages = (
            Message(role="system", content="Answer with the name of the team."),
            Message(role="user", content=str(case.inputs["ticket"])),
        )
        call = Call(
            id=cell.cell_id,
            model="default",
            model_identity=MODEL.identity,
            request=Request(messages=messages, parameters={"temperature": 0}),
            state=CallState.FAILED if fails else CallState.ANSWERED,
            attempts=1,
            reply=None if fails else Reply(text=text, model="embedded-1-0611", latency_s=0.2, raw=b"{}"),
            created_at=at,
        )
        usage = None if fails else Usage(input_tokens=120 + number, output_tokens=3)
        span = Span(
            index=0,
            parent=None,
            name="triage",
            kind="prompt",
            inputs=dict(case.inputs),
            output=None if fails else text,
            status=Status.ERROR if fails else Status.OK,
            call_id=call.id,
            model="default",
            usage=usage,
            cost_usd=None if fails else 0.0001,
            start_s=0.0,
            duration_s=0.2,
            error=error,
        )
        check = Span(
            index=1,
            parent=0,
            name="parse",
            kind="python",
            inputs=text,
            output=text,
            start_s=0.2,
            duration_s=0.01,
        )
        output = Output(
            cell_id=cell.cell_id,
            value=None if fails else text,
            status=span.status,
            error=error,
            latency_s=None if fails else 0.21,
            input_tokens=None if fails else 120 + number,
            output_tokens=None if fails else 3,
            cost_usd=None if fails else 0.0001,
            returned_model=None if fails else "embedded-1-0611",
            spans=(span,) if fails else (span, check),
            created_at=at,
        )
        return call, output

    def _scores(self, case: Case, label: str, number: int, *, failed: bool) -> list[Score]:
        right = float(label == case.expected)
        exact = Score(evaluator="exact_match", evaluator_identity="e" * 64, value=0.0 if failed else right)
        classified = Score(
            evaluator="class.v2",
            evaluator_identity="c" * 64,
            value=0.0 if failed else right,
            label=label,
            truth=str(case.expected),
            rationale=None if right else f"{label} is not {case.expected}",
        )
        absent = failed or number == 7
        closeness = Score(
            evaluator="closeness",
            evaluator_identity="f" * 64,
            value=None if absent else 0.25 + 0.5 * right,
            parts={} if absent else {"n": 0.5, "width": 1.5},
            error="the judge \0 did not answer" if absent else None,
        )
        return [exact, classified, closeness]

    def save(self, status: RunStatus = RunStatus.COMPLETE, **changes: Any) -> Run:
        """Store the run's record with figures as a summary would give them."""
        n_done = changes.pop("n_done", 2 * self.n_cases)
        figures = {
            variant.name: {
                "exact_match": mean(0.75 + 0.1 * place, self.n_cases),
                "class.v2": mean(0.75, self.n_cases),
                "class.v2.macro_f1": Figure(
                    value=0.7,
                    kind="statistic",
                    n=self.n_cases,
                    interval=Interval(low=0.5, high=0.9, level=0.9),
                ),
                "class.v2.f1.not/found @ \u00e9": Figure(value=0.5, kind="statistic", n=3),
                "closeness": mean(0.6, self.n_cases - 2, n_missing=2),
                "closeness.n": mean(0.5, self.n_cases - 2),
                "error_rate": Figure(value=place / self.n_cases, kind="share", n=self.n_cases),
                "latency_s": mean(0.21, self.n_cases),
                "latency_s.p95": Figure(value=0.3, kind="quantile", n=self.n_cases),
                "cost_usd": Figure(
                    value=None if place else 0.0012,
                    kind="sum",
                    n=self.n_cases,
                    note="unknown" if place else None,
                ),
            }
            for place, variant in enumerate(self.variants())
        }
        slices = {
            name: {"edge": {"exact_match": mean(0.5, 3)}, "average": {"exact_match": mean(0.9, 9)}}
            for name in figures
        }
        run = self.run(
            **{
                "status": status,
                "finished_at": NOW + timedelta(minutes=1),
                "n_done": n_done,
                "n_errors": 1,
                "n_calls": n_done,
                "cost_usd": None,
                "wall_s": 12.5,
                "summary": figures,
                "slices": slices,
                **changes,
            }
        )
        self.journal.save_run(run)
        return run


def mean(value: float, n: int, *, n_missing: int = 0) -> Figure:
    interval = Interval(low=value - 0.1, high=value + 0.1, level=0.9)
    return Figure(value=value, kind="mean", n=n, n_missing=n_missing, interval=interval)


@cache
def empty_database() -> bytes:
    """An MLflow database without runs; making one takes seconds, copying it none."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "mlflow.db"
        open_mlflow(f"sqlite:///{path}", environment={}).close()
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return path.read_bytes()


@dataclass
class Mirror:
    """A project with a journal, and an MLflow of its own beside it."""

    root: Path
    uri: str = "sqlite:///mlflow.db"
    stages: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name, content in {"llmops.yaml": "", **FILES}.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
        if self.uri.startswith("sqlite"):
            (self.root / "mlflow.db").write_bytes(empty_database())
        self.journal = open_journal("sqlite:///.llmops/store.db", root=self.root)
        self.workspace = load_workspace(self.root)

    def close(self) -> None:
        """Close the journal, and what MLflow's own client has opened since."""
        self.journal.close()
        open_mlflow(self.address, environment={}).close()

    def edit_prompt(self, text: str) -> None:
        """Change the prompt's file, and look at the project anew."""
        (self.root / "prompts/triage.prompt.yaml").write_text(text, encoding="utf-8")
        self.workspace = load_workspace(self.root)

    def mirrored_run(self, **options: Any) -> MirroredRun:
        return MirroredRun(self.journal, self.workspace, **options)

    def whole_run(self, **options: Any) -> Run:
        """Carry a run out and save it; it then waits to be delivered."""
        run = self.mirrored_run(**options)
        run.begin()
        run.carry_out(range(run.n_cases))
        return run.save()

    def sync(self, **options: Any) -> list[Delivered]:
        given: dict[str, Any] = {"now": lambda: NOW, "progress": self.stages.append, "environment": {}}
        return sync_runs(self.journal, self.workspace, self.uri, **(given | options))

    @property
    def address(self) -> str:
        return self.uri if self.uri.startswith("http") else f"sqlite:///{self.root}/mlflow.db"

    @property
    def client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(self.address)

    def traces(self, delivered: Delivered, variant: str) -> dict[str, Any]:
        """All traces of a variant with their spans, by case id."""
        run_id = delivered.ids["variants"][variant]
        page = self.client.search_traces(
            locations=[delivered.ids["experiment_id"]], run_id=run_id, max_results=500
        )
        return {trace.info.tags["case_id"]: trace for trace in page}
