"""The pages on indexes and `retrieve` do what they say."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def shown(page: str) -> dict[str, str]:
    """Return the files that a page shows, by the path in their first line."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    found = re.findall(
        r"^```(?:yaml|markdown)\n(?:# |<!-- )(\S+\.(?:yaml|md))(?: -->)?\n(.*?)^```", text, re.M | re.S
    )
    return dict(found)


def llmops(root: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "llmops", *arguments]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_files_shown_are_a_project_that_checks_and_finds(tmp_path: Path) -> None:
    find = "chains/find.chain.yaml"
    files = {"llmops.yaml": "", **shown("indexes.md"), find: shown("chains.md")[find]}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert "ok: 2 chains, 2 indexes" in llmops(tmp_path, "check")
    found = json.loads(llmops(tmp_path, "run", "chains/shop", "--input", "question=When do I get my refund?"))
    assert found[0]["id"] == "handbook/shop.md#refunds"
    assert found[0]["metadata"] == {"area": "shop", "heading": "Refunds"}
    again = ("run", "chains/find", "--input", "question=When does it open?", "--input", "lang=en")
    assert json.loads(llmops(tmp_path, *again))["sources"][0] == "handbook/shop.md#opening-hours"
