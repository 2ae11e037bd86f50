"""docs/chains.md does what it says: its files check, and what needs no network runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.inside import llmops_inside
from tests.indexes.test_docs import shown
from tests.test_readme import ROOT, blocks

PAGE = (ROOT / "docs/chains.md").read_text(encoding="utf-8")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Give a project of the files that the page shows, with the index of the page that it leads to."""
    (tmp_path / "llmops.yaml").touch()
    for name, text in shown("indexes.md").items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    for block in blocks(PAGE, "yaml") + blocks(PAGE, "python"):
        name = block.splitlines()[0].removeprefix("# ")
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(block, encoding="utf-8")
    return tmp_path


def test_the_files_shown_check(root: Path) -> None:
    done = llmops_inside("check", cwd=root)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "chain" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("chain", "given", "expected"),
    [
        (
            "voted",
            "ticket=billing: charged twice",
            {"team": "billing", "votes": [{"value": "billing", "n": 5}]},
        ),
        ("several", 'tickets=["billing: twice", "shipping: late"]', ["billing", "shipping"]),
    ],
)
def test_what_is_shown_runs(root: Path, chain: str, given: str, expected: object) -> None:
    done = llmops_inside("run", f"chains/{chain}", "--input", given, "--json", cwd=root)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["value"] == expected


@pytest.mark.parametrize("chain", ["routed", "guarded"])
def test_what_says_something_of_its_own_runs(root: Path, chain: str) -> None:
    done = llmops_inside(
        "run", f"chains/{chain}", "--input", "ticket=billing: charged twice", "--json", cwd=root
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["value"]


@pytest.mark.parametrize(
    ("question", "tool", "value"),
    [
        ("What does price say of a lantern?", "price", None),
        ("Which orders of a customer are there?", "orders", '["LL-1 of c-7"]'),
    ],
)
def test_the_agent_shown_calls_its_tools(root: Path, question: str, tool: str, value: str | None) -> None:
    given = ("--input", f"question={question}", "--input", "customer=c-7")
    done = llmops_inside("run", "chains/help", *given, "--json", cwd=root)
    assert done.returncode == 0, done.stdout + done.stderr
    output = json.loads(done.stdout)
    (called,) = [span for span in output["spans"] if span["kind"] == "tool"]
    assert (output["status"], called["name"]) == ("ok", tool)
    if value is None:  # embedded has no idea what a lantern is called; the tool's failure is an observation
        assert called["error"]["kind"] == "step"
    else:
        assert output["value"] == value
