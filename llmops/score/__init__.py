"""Outputs -> scores. Reads a case and its output; returns what each evaluator says of it; calls no model under test."""

from __future__ import annotations

from collections.abc import Sequence

from llmops.definitions.dataset import Case
from llmops.evaluators.bound import BoundEvaluator
from llmops.records import Output, Score


async def score_output(evaluators: Sequence[BoundEvaluator], case: Case, output: Output) -> list[Score]:
    """Return the scores of one output by each evaluator that has something to say."""
    found = [await evaluator.score(case, output) for evaluator in evaluators]
    return [score for score in found if score is not None]
