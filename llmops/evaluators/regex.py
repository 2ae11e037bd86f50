"""Whether an output matches a pattern, in linear time whatever the pattern and the output are.

How patterns are compiled stands in `definitions/patterns.py`.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import field_validator

from llmops.definitions.base import Definition
from llmops.definitions.patterns import compile_pattern, encodable
from llmops.errors import EvaluatorError
from llmops.evaluators.base import Judgement, Subject
from llmops.evaluators.texts import as_text, expected_of, shown


class Regex:
    """1 when the pattern is found in the output (or matches all of it), 0 otherwise.

    RE2 syntax; `(?i)`, `(?m)` and `(?s)` may stand in the pattern. An output that is no text is searched as
    its canonical JSON.
    """

    class Options(Definition):
        """pattern: without it `expected` is the pattern. mode: anywhere, or the whole output."""

        pattern: str | None = None
        mode: Literal["search", "fullmatch"] = "search"
        ignore_case: bool = False

        @field_validator("pattern")
        @classmethod
        def _compiles(cls, pattern: str | None) -> str | None:
            if pattern is not None:
                compile_pattern(pattern)
            return pattern

    version = "1"
    low: float | None = 0.0
    high: float | None = 1.0
    needs_expected = True

    def __init__(self, options: Options) -> None:
        self.options = options
        self.needs_expected = options.pattern is None

    async def judge(self, subject: Subject) -> Judgement:
        """Return 1 or 0, and say what was found.

        Raises EvaluatorError when `expected` is wanted and is no pattern.
        """
        pattern = self._pattern(subject)
        match = getattr(pattern, self.options.mode)(encodable(as_text(subject.output)))
        if match is None:
            return Judgement(0.0, f"{shown(pattern.pattern)} does not match")
        return Judgement(1.0, f"found {shown(match.group())}")

    def _pattern(self, subject: Subject) -> Any:
        if self.options.pattern is not None:
            return compile_pattern(self.options.pattern, ignore_case=self.options.ignore_case)
        expected = expected_of(subject)
        if not isinstance(expected, str):
            raise EvaluatorError(f"case {subject.case_id!r}: expected must be a pattern, as text")
        try:
            return compile_pattern(expected, ignore_case=self.options.ignore_case)
        except ValueError as error:
            raise EvaluatorError(f"case {subject.case_id!r}: {error}") from error
