"""A workplace whose outputs a model judges: `other` reads each ticket and its answer, and scores it from 1 to 5.

What stands in a case's `metadata.note` reaches the judge and nobody else, so a test can make the judge alone fail
(`[[fault:503]]`) or say something else (`[[say:no JSON]]`).
"""

from __future__ import annotations

from typing import Any

from tests.model_server import Received
from tests.workplace import Workplace, case_of

JUDGE_PROMPT = "prompts/fit.prompt.yaml"
EXPERIMENT = "experiments/sort.experiment.yaml"
FIT = """
inputs: {ticket: string, output: string, expected: string, metadata: any}
model: other
parameters: {max_tokens: 60}
messages:
  - {role: system, content: "How well does the answer fit the ticket?"}
  - role: user
    content: "ticket {{ ticket }} answer {{ output }} wanted {{ expected }} note {{ metadata.note }}"
"""
USE = "judge: {name: fit, prompt: fit, scale: [1, 5]}"


def judge_everything(place: Workplace, n: int = 6, use: str = USE) -> Workplace:
    """Let a judge score the outputs of a workplace, beside `exact_match`."""
    place.write(JUDGE_PROMPT, FIT)
    place.edit(EXPERIMENT, "[exact_match]", f"[exact_match, {use}]")
    place.write_cases(*(noted(number) for number in range(n)))
    return place


def noted(number: int, note: str = "none") -> dict[str, Any]:
    """Return a case with a note to the judge."""
    return {**case_of(number), "metadata": {"note": note}}


def of_judge(requests: list[Received]) -> list[Received]:
    return [request for request in requests if request.body["model"] == "n"]


def of_sorter(requests: list[Received]) -> list[Received]:
    return [request for request in requests if request.body["model"] == "m"]
