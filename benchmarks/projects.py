"""Throw-away projects of any size for the benchmarks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

ASKED = "Answer with one word only: yes, no."
EXACT = ("exact_match",)
THREE = (*EXACT, "contains", "regex: {pattern: 'yes|no'}")

SERVER = """
models:
  default:
    provider: openai
    model: m
    endpoint_env: BENCH_URL
    price: {{input_per_mtok: 1, output_per_mtok: 1}}
    limits: {{concurrency: {concurrency}, timeout_s: 120}}
"""


def write_project(
    root: Path,
    *,
    cases: int,
    repeats: int = 1,
    concurrency: int = 64,
    embedded: bool = False,
    evaluators: Sequence[str] = THREE,
    store: str | None = None,
    first: int = 0,
) -> Path:
    """Write a project with one prompt, one variant and so many cases; the experiment is called `bench`.

    store: a database's URL, None for the usual file. first: the number of the first case, for others than another's.
    """
    files = {
        "llmops.yaml": ("" if embedded else SERVER.format(concurrency=concurrency))
        + (f"store: {{url: '{store}'}}\n" if store else ""),
        "prompts/echo.prompt.yaml": (
            "inputs: {text: string}\n"
            "parameters: {max_tokens: 8}\n"
            "messages:\n"
            f'  - {{role: user, content: "{ASKED} {{{{ text }}}}"}}\n'
        ),
        "datasets/bench.dataset.yaml": "inputs: {text: string}\nexpected: {type: string}\n",
        "datasets/bench.jsonl": "".join(
            json.dumps({"id": f"c-{n}", "inputs": {"text": f"case number {n}"}, "expected": "yes"}) + "\n"
            for n in range(first, first + cases)
        ),
        "experiments/bench.experiment.yaml": (
            "dataset: bench\n"
            "variants: {only: {prompt: echo}}\n"
            f"repeats: {repeats}\n"
            "evaluators:\n" + "".join(f"  - {evaluator}\n" for evaluator in evaluators)
        ),
    }
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return root
