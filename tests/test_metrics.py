"""docs/metrics.md says what there is, its blocks check, and its table is what the recorded outputs still come to."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.reference import BEGIN, DATA, END, PARTS, Found, Line, digits_of, lines_of, table
from llmops.evaluators import EVALUATORS

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the public data is not at {DATA.name}")

FILES = {
    "llmops.yaml": "models: {vectors: {provider: openai, model: v}, default: {provider: embedded}}",
    "prompts/tone.prompt.yaml": (
        'inputs: {output: string}\nmessages: [{role: user, content: "How polite is this? {{ output }}"}]\n'
    ),
    "chains/ours.py": "def is_polite(output):\n    return True\n\n\ndef n_words(output):\n    return 3\n",
    "datasets/d.dataset.yaml": "inputs: {text: string}\n",
    "datasets/d.jsonl": '{"id": "a", "inputs": {"text": "x"}, "expected": "y"}\n',
    "recorded/a.jsonl": '{"id": "a", "output": "z"}\n',
}


def test_every_evaluator_has_a_word_said_of_it() -> None:
    described = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\*\*.*?\*\*.*", PAGE, re.MULTILINE))))
    assert described >= set(EVALUATORS)


def test_the_blocks_of_the_page_check(project: Callable[..., Path]) -> None:
    head = "dataset: d\nvariants: {a: {recorded: recorded/a.jsonl}}\n"
    experiments = {f"experiments/e{n}.experiment.yaml": head + block for n, block in enumerate(BLOCKS)}
    assert len(experiments) >= 7
    root = project({**FILES, **experiments})
    command = [sys.executable, "-m", "llmops", "check"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# --- the table ----------------------------------------------------------------------------------------------


def in_page() -> list[str]:
    """Return the lines of the table as the page has it."""
    between = PAGE.partition(BEGIN)[2].partition(END)[0]
    return [line for line in between.splitlines() if line.startswith("| ")][2:]


@needs_data
@pytest.mark.parametrize(
    ("name", "systems"),
    [
        ("squad", ["logistic-regression"]),
        ("gsm8k", ["6b_finetuning"]),
        ("bbh", None),
        ("summeval", ["M11"]),
        ("wmt21", ["Facebook-AI"]),
    ],
)
def test_what_is_in_the_table_comes_out_again(tmp_path: Path, name: str, systems: list[str] | None) -> None:
    lines = lines_of(name, tmp_path, systems=systems)
    assert lines
    assert all(line.agrees for line in lines)
    assert set(list(table(lines))[2:]) <= set(in_page())


@needs_data
def test_the_table_has_every_value_that_can_be_compared() -> None:
    known = json.loads((DATA / "reference_values.json").read_text(encoding="utf-8"))
    wanted = {
        (part.dataset, row["metric"], row["system"])
        for part in PARTS.values()
        for row in known
        if row["dataset"] == part.dataset and row["metric"] in part.metrics
    }
    cells = [[cell.strip() for cell in line.split(" | ")] for line in in_page()]
    assert {(row[0].removeprefix("| "), row[1], row[2]) for row in cells} == wanted
    assert {row[6] for row in cells} == {"0"}


def test_values_agree_when_they_round_to_the_same_digits() -> None:
    def line(
        theirs: float, ours: float | None, note: str | None = None, signature: str | None = None
    ) -> Line:
        row = {"dataset": "d", "metric": "m", "system": "s", "value": theirs, "basis": "published"}
        return Line(row if signature is None else {**row, "signature": signature}, Found(ours, 3, note), 3)

    assert line(34.596, 34.5964).agrees
    assert not line(34.596, 34.597).agrees
    assert not line(34.596, None).agrees
    assert line(1.0, 1.0, "nrefs:1|v; a rough interval", "nrefs:1|v").agrees
    assert not line(1.0, 1.0, "nrefs:2|v", "nrefs:1|v").agrees
    assert line(1.0, 1.25).cells() == ("d", "m", "s", "3", "1.000", "1.250", "**0.25**", "published", "")


def test_digits_are_those_of_the_longest_value() -> None:
    assert digits_of([34.596, 45.9295]) == 4
    assert digits_of([92.80000000000001, 88.4]) == 1
    assert digits_of([2.0]) == 0
