"""The page on notebooks does what it says: its cells run one after the other on the example project."""

from __future__ import annotations

import ast
import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.cli.inside import llmops_inside

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "notebooks.md").read_text(encoding="utf-8")
CELLS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
N_CASES = 224


def shown(cell: str, names: dict[str, Any]) -> Any:
    """Carry a cell out as a notebook does: what its last line is worth is shown."""
    *before, last = ast.parse(cell).body
    assert isinstance(last, ast.Expr)
    exec(compile(ast.Module(before, []), "cell", "exec"), names)  # noqa: S102 - the page is ours
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)  # noqa: S307


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Give what each cell shows, by its last line."""
    root = tmp_path_factory.mktemp("notebook")
    for name in ("prompts", "chains", "datasets", "experiments"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "llmops.yaml", root)
    done = llmops_inside("run", "support_tickets", "--no-sync", cwd=root)
    assert done.returncode == 0, done.stderr
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root / "experiments")
        return {cell.splitlines()[-1]: shown(cell, names) for cell in CELLS}


def outcome(outcomes: dict[str, Any], beginning: str) -> pd.DataFrame:
    (found,) = [value for line, value in outcomes.items() if line.startswith(beginning)]
    assert isinstance(found, pd.DataFrame | pd.Series)
    return found


def test_every_cell_of_the_page_shows_something(outcomes: dict[str, Any]) -> None:
    assert len(outcomes) == len(CELLS) >= 8
    assert all(isinstance(value, pd.DataFrame | pd.Series) for value in outcomes.values())


def test_means_and_intervals_of_the_page_are_those_of_the_report(outcomes: dict[str, Any]) -> None:
    means = outcome(outcomes, "frame.groupby")
    intervals = outcome(outcomes, "pd.DataFrame")
    assert list(means["count"]) == [N_CASES, N_CASES]
    for variant in means.index:
        assert means["mean"][variant] == pytest.approx(intervals["value"][variant])
        assert intervals["low"][variant] < means["mean"][variant] < intervals["high"][variant]


def test_flipped_cases_have_two_answers_and_a_run_beside_itself_none_that_differ(
    outcomes: dict[str, Any],
) -> None:
    flipped = outcome(outcomes, "said.pivot")
    assert len(flipped) == 10
    assert (flipped["few-shot"] != flipped["zero-shot"]).all()
    assert outcome(outcomes, "both[").empty


def test_the_worst_cases_are_wrong_and_say_why(outcomes: dict[str, Any]) -> None:
    worst = outcome(outcomes, "worst[")
    assert (worst["expected"] != worst["output"]).all()
    assert worst["exact_match.rationale"].notna().all()
