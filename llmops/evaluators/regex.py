"""Whether an output matches a pattern, in linear time whatever the pattern and the output are.

The one file that meets RE2, which has neither look-around nor backreferences and so never runs away.
"""

from __future__ import annotations

from typing import Any, Literal

import re2
from pydantic import field_validator

from llmops.definitions.base import Definition
from llmops.errors import EvaluatorError
from llmops.evaluators.base import Judgement, Subject
from llmops.evaluators.texts import as_text, expected_of, shown

_QUOTED = 80
_LINEAR = "patterns run in linear time (RE2), which has none"
_UNSUPPORTED = {
    "(?=": "look-ahead",
    "(?!": "look-ahead",
    "(?<=": "look-behind",
    "(?<!": "look-behind",
    "(?>": "atomic groups",
    "(?P=": "backreferences",
    "(?(": "conditional groups",
    **{f"\\{digit}": "backreferences" for digit in range(1, 10)},
}


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


def compile_pattern(pattern: str, *, ignore_case: bool = False) -> Any:
    """Return the compiled pattern; RE2 keeps the last 128, so asking again is cheap.

    Raises ValueError, in words for people, for a pattern that is wrong or that RE2 does not support.
    """
    options = re2.Options()
    options.log_errors = False
    options.case_sensitive = not ignore_case
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        said = error.args[0]
        raise ValueError(_reason(pattern, said.decode() if isinstance(said, bytes) else said)) from error
    except UnicodeEncodeError as error:
        raise ValueError(f"pattern {shown(pattern)} is no valid Unicode text") from error


def encodable(text: str) -> str:
    """Return text with each lone surrogate replaced by U+FFFD, since RE2 reads UTF-8."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _reason(pattern: str, said: str) -> str:
    """Return why a pattern was refused: RE2 quotes the operator, cut short where it stopped reading."""
    named = next((name for sign, name in _UNSUPPORTED.items() if sign in pattern), None)
    if named and ("perl operator" in said or "escape sequence" in said):
        return f"pattern {shown(pattern)} uses {named}; {_LINEAR}"
    return f"pattern {shown(pattern)} is wrong: {said[:_QUOTED]}"
