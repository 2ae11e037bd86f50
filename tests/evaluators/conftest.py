"""One way for all evaluator tests to open an evaluator and ask it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from llmops.evaluators import open_evaluator
from llmops.evaluators.base import Judgement, Subject
from llmops.records import Status

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(scope="session")
def judge() -> Callable[..., Judgement]:
    """Return a function from kind, output, expected and options to the judgement."""

    def judged(
        kind: str, output: Any, expected: Any = None, status: Status = Status.OK, **options: Any
    ) -> Judgement:
        subject = Subject(case_id="case-1", inputs={}, output=output, expected=expected, status=status)
        return asyncio.run(open_evaluator(kind, options).judge(subject))

    return judged
