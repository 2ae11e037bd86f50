"""One run that all faces of a report show: two variants, two slices, an error, and cases that mean harm."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from llmops.compare import compare_run
from llmops.definitions.dataset import Case
from llmops.records import (
    DatasetVersion,
    ErrorInfo,
    EvaluatorVersion,
    Figure,
    Interval,
    ModelVersion,
    Output,
    Row,
    Run,
    RunStatus,
    Score,
    Status,
    Variant,
)

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
TEAMS = ("billing", "shipping", "returns")
HOSTILE = (
    "\x1b]8;;http://evil.example\x07click\x1b]8;;\x07 \x1b[31mred\x1b[0m \u202etxet\u202c "
    "::error ::x\n::add-mask::y ##[error]z ```` @octocat fixes #1 "
    "![i](https://evil.example/i.png) <script>alert(1)</script> | a | b |"
)


@dataclass
class Example:
    """Runs and their rows, as a journal would give them."""

    run: Run
    kept: Sequence[Row]

    def rows(self, run_id: str, *, variant: str | None = None, with_spans: bool = True) -> Iterator[Row]:
        assert run_id == self.run.id
        assert not with_spans, "spans are the slow part of reading, and a report shows none"
        return (row for row in self.kept if variant in (None, row.variant))

    def numbers(self, run_id: str, *, variant: str) -> Iterator[Row]:
        return self.rows(run_id, variant=variant, with_spans=False)

    def find_run(self, run_id: str) -> Run | None:
        return self.run if run_id == self.run.id else None


def _variant(name: str, *, is_baseline: bool = False) -> Variant:
    model = ModelVersion(name="default", provider="embedded", model="embedded", identity="m" * 64)
    return Variant(
        name=name,
        definition="prompts/triage",
        reference="triage",
        definition_identity="d" * 64,
        identity=name * 8,
        models=(model,),
        is_baseline=is_baseline,
    )


def _rows(n: int) -> Iterator[Row]:
    for number in range(n):
        text = (
            HOSTILE
            if number == 1
            else f"Where is order {number}? I have been waiting for it for so long now."
        )
        expected = TEAMS[number % 3]
        case = Case(
            id=f"t-{number:04}",
            inputs={"ticket": text},
            expected=expected,
            slice="edge" if number % 4 == 1 else "essential",
        )
        for variant in ("zero-shot", "few-shot"):
            is_right = number % 5 == 0 if variant == "zero-shot" else number % 7 != 5
            yield _row(variant, case, expected if is_right else "配送 team 🚚", float(is_right))


def _row(variant: str, case: Case, answer: str, value: float) -> Row:
    fails = variant == "zero-shot" and case.id == "t-0003"
    fields: dict[str, Any] = {"value": answer, "latency_s": 0.25, "input_tokens": 90, "output_tokens": 2}
    if fails:
        fields = {"status": Status.ERROR, "error": ErrorInfo(kind="timeout", message="no reply\x07 in 60 s")}
    score = Score(
        evaluator="exact_match",
        evaluator_identity="e" * 64,
        value=None if fails else value,
        rationale=None if value else f"{answer!r} is not {case.expected!r}",
    )
    output = Output(cell_id=f"{variant}{case.id}", created_at=NOW, **fields)
    return Row(variant=variant, repeat=0, case=case, output=output, scores=() if fails else (score,))


def _mean(value: float, low: float, high: float, n: int = 40, n_missing: int = 0) -> Figure:
    ends = Interval(low=low, high=high, level=0.9)
    return Figure(value=value, kind="mean", n=n, n_missing=n_missing, interval=ends)


def _figures(value: float, n: int, errors: float) -> dict[str, Figure]:
    plain: Mapping[str, tuple[float | None, Any]] = {
        "error_rate": (errors, "share"),
        "latency_s.p50": (0.25, "quantile"),
        "latency_s.p95": (1.5, "quantile"),
        "input_tokens.sum": (123456, "sum"),
        "output_tokens.sum": (80, "sum"),
        "cost_usd": (None, "sum"),
        "classification.f1.billing": (0.5, "statistic"),
        "classification.recall.billing": (1 / 3, "statistic"),
        "classification.precision.billing": (None, "statistic"),
        "classification.f1.shipping": (1.0, "statistic"),
    }
    scored = {
        "exact_match": _mean(value, value - 0.1, value + 0.05, n, 40 - n),
        "classification.macro_f1": _mean(value, value - 0.12, value + 0.1, n),
        "latency_s": _mean(0.4, 0.3, 0.5, n),
    }
    return scored | {name: Figure(value=found, kind=kind, n=n) for name, (found, kind) in plain.items()}


@pytest.fixture(scope="session")
def hostile() -> str:
    """Text that drives terminals, CI runners, Markdown and HTML, if it is let."""
    return HOSTILE


@pytest.fixture
def example() -> Callable[..., Example]:
    """Return a function that makes the run, with fields of it changed, and its rows."""

    def make(**fields: Any) -> Example:
        run = Run(
            id="triage-1a2b3c4d",
            experiment="triage",
            identity="1a2b3c4d" * 8,
            status=RunStatus.COMPLETE,
            created_at=NOW,
            dataset=DatasetVersion(
                name="tickets", split="test", version="v" * 64, n_cases=40, path="t.jsonl"
            ),
            variants=(_variant("zero-shot", is_baseline=True), _variant("few-shot")),
            evaluators=(
                EvaluatorVersion(name="exact_match", kind="exact_match", identity="e" * 64, low=0, high=1),
                EvaluatorVersion(
                    name="classification", kind="classification", identity="c" * 64, low=0, high=1
                ),
            ),
            repeats=1,
            seed=7,
            n_cells=80,
            n_done=80,
            n_errors=1,
            n_calls=79,
            cost_usd=0.0,
            wall_s=1.25,
            summary={"zero-shot": _figures(0.2, 39, 0.025), "few-shot": _figures(0.85, 40, 0.0)},
            slices={"few-shot": {"edge": {"exact_match": _mean(0.9, 0.6, 1.0, 10)}}},
        )
        made = Example(run.model_copy(update=fields), list(_rows(40)))
        comparisons = tuple(compare_run(made, made.run, now=NOW)) if made.run.evaluators else ()
        made.run = made.run.model_copy(update={"comparisons": comparisons})
        return made

    return make
