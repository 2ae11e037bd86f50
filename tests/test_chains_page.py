"""docs/chains.md: the files it shows are a project that checks, and its agent answers offline."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parent.parent / "docs" / "chains.md"


@pytest.fixture
def shown(tmp_path: Path) -> Path:
    """Give a project of the files that the page shows."""
    (tmp_path / "llmops.yaml").write_text("", encoding="utf-8")
    for name, block in re.findall(
        r"^```(?:yaml|python)\n# (\S+)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(block, encoding="utf-8")
    return tmp_path


def llmops(root: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "llmops", *arguments]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_files_it_shows_check(shown: Path) -> None:
    llmops(shown, "check")


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What does price say of a lantern?", None),
        ("Which orders of a customer are there?", "LL-1 of c-7"),
    ],
)
def test_its_agent_answers(shown: Path, question: str, answer: str | None) -> None:
    said = llmops(
        shown, "run", "chains/help", "--input", f"question={question}", "--input", "customer=c-7", "--json"
    )
    output: dict[str, Any] = json.loads(said)
    assert output["status"] == "ok"
    tools = [span for span in output["spans"] if span["kind"] == "tool"]
    assert [tool["name"] for tool in tools] == ["price" if answer is None else "orders"]
    if answer is None:  # embedded has no idea what a lantern is called; the tool's failure is an observation
        assert tools[0]["error"]["kind"] == "step"
    else:
        assert answer in output["value"]
