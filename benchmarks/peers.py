"""Other tools on the same work, where they are installed: Inspect AI and promptfoo, by their own commands.

The same prompts to the same server with an exact match, written down in whatever way each tool writes down.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.measure import Spent, spend
from benchmarks.projects import ASKED

FAILED_ASSERTIONS = 100
"""What promptfoo exits with when all ran and some answers are not what was expected."""

INSPECT_TASK = """
from inspect_ai import Task, task
from inspect_ai.dataset import json_dataset
from inspect_ai.scorer import exact
from inspect_ai.solver import generate


@task
def bench():
    return Task(dataset=json_dataset("cases.jsonl"), solver=generate(), scorer=exact())
"""

Peer = Callable[[Path, int, int, str], Spent]
"""Carries out so many cases, so many at a time, against a server's URL, in a folder of its own."""


def inspect_ai(root: Path, n: int, concurrency: int, url: str) -> Spent:
    """Run `inspect eval`. Its client for OpenAI would ask another API by default."""
    cases = [{"id": f"c-{k}", "input": f"{ASKED} case number {k}", "target": "yes"} for k in range(n)]
    (root / "cases.jsonl").write_text("".join(f"{json.dumps(case)}\n" for case in cases), encoding="utf-8")
    (root / "task.py").write_text(INSPECT_TASK, encoding="utf-8")
    at_once = ["--max-connections", str(concurrency), "--max-samples", str(2 * concurrency)]
    model = ["--model", "openai/m", "--model-base-url", url, "-M", "responses_api=false", "--max-tokens", "8"]
    return _spent(root, ["inspect", "eval", "task.py", *model, *at_once, "--display", "none"], {0})


def promptfoo(root: Path, n: int, concurrency: int, url: str) -> Spent:
    """Run `promptfoo eval`, without its cache of replies."""
    provider = {"id": "openai:chat:m", "config": {"apiBaseUrl": url, "max_tokens": 8}}
    expected = [{"type": "equals", "value": "yes"}]
    config = {
        "prompts": [f"{ASKED} {{{{text}}}}"],
        "providers": [provider],
        "tests": [{"vars": {"text": f"case number {k}"}, "assert": expected} for k in range(n)],
    }
    (root / "promptfooconfig.json").write_text(json.dumps(config), encoding="utf-8")
    quietly = ["--no-cache", "--no-progress-bar", "--no-table", "--max-concurrency", str(concurrency)]
    command = ["promptfoo", "eval", "-c", "promptfooconfig.json", *quietly]
    return _spent(root, command, {0, FAILED_ASSERTIONS})


PEERS: Mapping[str, tuple[str, Peer]] = {
    "Inspect AI": ("inspect", inspect_ai),
    "promptfoo": ("promptfoo", promptfoo),
}
"""By name, the command that must be on the PATH and what runs it."""


def installed() -> dict[str, Peer]:
    """Return the tools that are on this machine."""
    return {name: peer for name, (command, peer) in PEERS.items() if shutil.which(command)}


def _spent(root: Path, command: list[str], expected: set[int]) -> Spent:
    environment = {
        **os.environ,
        "OPENAI_API_KEY": "sk-bench-0123456789",
        "PROMPTFOO_CONFIG_DIR": str(root),
        "PROMPTFOO_DISABLE_TELEMETRY": "1",
        "PROMPTFOO_DISABLE_UPDATE": "1",
    }
    spent = spend(command, cwd=root, environment=environment)
    if spent.code not in expected:
        raise SystemExit(f"{' '.join(command)} exited {spent.code}:\n{spent.output}")
    return spent
