"""The example of an agent: a calculator that does arithmetic only, and questions that need one tool or two, offline."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from llmops.call.carrying import Result, Settings
from llmops.check import check_workspace
from llmops.definitions.workspace import load_workspace
from llmops.plan import plan_experiment, select
from llmops.records import Row
from llmops.run import run_experiment
from llmops.stores.journal import open_journal
from tests.workplace import STORE, utc_now

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def calculate() -> Callable[[str], float]:
    """Give the function of the example."""
    spec = importlib.util.spec_from_file_location("example_assistant", ROOT / "chains/assistant.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Callable[[str], float] = module.calculate
    return found


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 + 1", 2),
        (" (3 + 4) * 2.5 ", 17.5),
        ("-2 ** 2", -4),
        ("7 // 2 + 7 % 2", 4),
        ("0.1 + 0.2", 0.3),
        ("2 ** 0.5", 1.4142135624),
        ("10 / 4", 2.5),
    ],
)
def test_the_calculator_works_out_arithmetic(
    calculate: Callable[[str], float], expression: str, value: float
) -> None:
    assert calculate(expression) == value


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').getcwd()",
        "(1).__class__",
        "[1][0]",
        "x",
        "'a' * 9",
        "True + 1",
        "1 if 1 else 2",
        "1 + ",
        "",
        "1j",
        "9 ** 9 ** 9",
        "1 / 0",
        "(-8) ** 0.5",
        "1e308 * 10",
        "1+" * 150 + "1",
    ],
)
def test_the_calculator_does_nothing_else(calculate: Callable[[str], float], expression: str) -> None:
    with pytest.raises((ValueError, ArithmeticError)):
        calculate(expression)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a copy of the example."""
    root = tmp_path_factory.mktemp("example")
    for name in ("chains", "prompts", "datasets", "experiments", "docs"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "llmops.yaml"):
        shutil.copy(ROOT / name, root / name)
    return root


def run(root: Path) -> tuple[Result, list[Row]]:
    workspace = load_workspace(root)
    with closing(open_journal(STORE, root=root)) as journal:
        plan = plan_experiment(workspace, "assistant", journal, now=utc_now())
        settings = Settings({}, utc_now)
        with journal.hold(plan.run.id):
            result = asyncio.run(run_experiment(workspace, plan, journal, select(plan), settings))
        return result, list(journal.rows(plan.run.id))


@pytest.fixture(scope="module")
def carried(place: Path) -> tuple[Result, list[Row]]:
    """Give the run of the example, carried out offline."""
    return run(place)


def test_the_example_is_right(place: Path) -> None:
    targets: Any = [("chain", "assistant"), ("prompt", "assistant"), ("experiment", "assistant")]
    assert check_workspace(load_workspace(place), targets) == []


def used(row: Row) -> list[str]:
    assert row.output is not None
    return [span.name for span in row.output.spans if span.kind == "tool"]


def test_tools_answer_what_the_model_alone_cannot(carried: tuple[Result, list[Row]]) -> None:
    right: dict[tuple[str, str | None], list[float]] = defaultdict(list)
    for row in carried[1]:
        right[row.variant, row.case.slice].append(row.scores[0].value or 0.0)
    for slice_ in ("sum", "docs", "both"):
        assert sum(right["agent", slice_]) >= sum(right["alone", slice_]) + 3
    assert carried[0].run.summary["agent"]["error_rate"].value == 0


def test_some_questions_are_answered_by_two_tools_one_after_the_other(
    carried: tuple[Result, list[Row]],
) -> None:
    both = [row for row in carried[1] if row.variant == "agent" and row.case.slice == "both"]
    answered = [row for row in both if row.scores[0].value == 1.0]
    in_turn = [row for row in answered if used(row) == ["search_docs", "calculate"]]
    assert len(in_turn) >= 4
    for row in in_turn:
        assert row.output is not None
        kinds = [span.kind for span in row.output.spans]
        assert kinds == ["chain", "agent", "prompt", "tool", "retrieve", "prompt", "tool", "python", "prompt"]


def test_running_the_example_again_issues_no_call(place: Path, carried: tuple[Result, list[Row]]) -> None:
    again, rows = run(place)
    assert (again.run.n_calls, again.run.id) == (carried[0].run.n_calls, carried[0].run.id)
    assert [row.output for row in rows] == [row.output for row in carried[1]]
