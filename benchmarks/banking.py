"""5,000 real customer queries in 77 classes, ten nearest examples each, on `embedded`: `python -m benchmarks banking`.

The data (BANKING77, Casanueva et al. 2020, CC-BY-4.0) is not part of this repository; without it the part is skipped.
"""

from __future__ import annotations

import json
from pathlib import Path

from llmops.definitions.base import identity_of
from llmops.definitions.dataset import near_equal

DATA = Path(__file__).parent.parent.parent / "shared" / "data" / "intents_banking77"
N_EVALUATED = 5000


def write_banking_project(root: Path) -> Path:
    """Write the project: the test part and a drawn part of the training part are evaluated, the rest is shown."""
    rows = [
        json.loads(line)
        for part in ("test", "train")
        for line in (DATA / f"{part}.jsonl").open(encoding="utf-8")
    ]
    labels = sorted({row["expected"] for row in rows})
    tested = [row for row in rows if row["metadata"]["split"] == "test"]
    trained = [row for row in rows if row["metadata"]["split"] == "train"]
    trained.sort(key=lambda row: identity_of(row["id"]))  # the file stands in the order of its classes
    border = len(rows) - N_EVALUATED
    evaluated = tested + trained[border:]
    seen = {near_equal(row["input"]) for row in evaluated}
    shown = [row for row in trained[:border] if near_equal(row["input"]) not in seen]
    lines = [json.dumps({**row, "metadata": {"split": "test"}}) for row in evaluated]
    lines += [json.dumps({**row, "metadata": {"split": "shown"}}) for row in shown]
    files = {
        "llmops.yaml": "",
        "datasets/banking.jsonl": "\n".join(lines) + "\n",
        "datasets/banking.dataset.yaml": (
            "inputs: {query: string}\ncolumns: {inputs.query: input}\nsplits: {by: metadata.split}\n"
        ),
        "prompts/intent.prompt.yaml": (
            "inputs: {query: string}\n"
            "parameters: {temperature: 0, max_tokens: 16}\n"
            "messages:\n"
            f'  - {{role: system, content: "Answer with the intent only: {", ".join(labels)}."}}\n'
            "  - examples: {from: banking/shown, k: 10, select: similar}\n"
            '    user: "{{ query }}"\n'
            '    assistant: "{{ expected }}"\n'
            '  - {role: user, content: "{{ query }}"}\n'
        ),
        "experiments/banking.experiment.yaml": (
            "dataset: banking/test\nvariants: {nearest-10: {prompt: intent}}\nevaluators: [exact_match]\n"
        ),
    }
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content, encoding="utf-8")
    return root
