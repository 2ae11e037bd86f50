"""Whether an output is what was expected, or contains it. How text is read stands in `texts.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from llmops.definitions.base import Definition
from llmops.errors import EvaluatorError
from llmops.evaluators.base import Judgement, Subject
from llmops.evaluators.texts import as_text, expected_of, kind_of, normal_form, shown


class ExactMatch:
    """1 when output and expected are the same JSON value, 0 otherwise.

    Text is compared as written but for one newline at the end; 1 and 1.0 are the same number, "1" is text
    and true is neither. With `normalise`, texts are compared, wherever they stand in a value, by their
    `texts.normal_form`.
    """

    class Options(Definition):
        """any_of: expected is a list of accepted answers. normalise: compare texts by their normal form."""

        any_of: bool = False
        normalise: bool = False

    version = "1"
    low: float | None = 0.0
    high: float | None = 1.0
    needs_expected = True

    def __init__(self, options: Options) -> None:
        self.options = options

    async def judge(self, subject: Subject) -> Judgement:
        """Return 1 or 0.

        Raises EvaluatorError when the case expects nothing, or `any_of` meets no list of answers.
        """
        accepted = _accepted(subject, any_of=self.options.any_of)
        form = _normalised if self.options.normalise else _without_newline
        try:
            output = form(subject.output)
            if any(is_same(output, form(answer)) for answer in accepted):
                return Judgement(1.0)
        except RecursionError as error:
            raise EvaluatorError(f"case {subject.case_id!r}: values are nested too deeply") from error
        return Judgement(0.0, _difference(subject.output, accepted))


class Contains:
    """1 when the output holds a text, all of several, or any of several; 0 otherwise.

    An output that is no text is searched as its canonical JSON.
    """

    class Options(Definition):
        """One of text, all and any; without them `expected` is the text. ignore_case: by case folding."""

        text: str | None = Field(default=None, min_length=1)
        all: tuple[str, ...] | None = Field(default=None, min_length=1)
        any: tuple[str, ...] | None = Field(default=None, min_length=1)
        ignore_case: bool = False

        @model_validator(mode="after")
        def _one_of_them(self) -> Contains.Options:
            if sum(wanted is not None for wanted in (self.text, self.all, self.any)) > 1:
                raise ValueError("give one of text, all and any")
            if "" in (self.all or ()) or "" in (self.any or ()):
                raise ValueError("every output contains the empty text")
            return self

    version = "1"
    low: float | None = 0.0
    high: float | None = 1.0
    needs_expected = True

    def __init__(self, options: Options) -> None:
        self.options = options
        self.needs_expected = options.text is None and options.all is None and options.any is None

    async def judge(self, subject: Subject) -> Judgement:
        """Return 1 or 0, and say which texts were found and which are missing.

        Raises EvaluatorError when `expected` is wanted and is no text, or empty.
        """
        output, wanted = as_text(subject.output), self._wanted(subject)
        missing = [text for text in wanted if not self._is_in(text, output)]
        found = [text for text in wanted if text not in missing]
        enough = bool(found) if self.options.any is not None else not missing
        named = (("found", found), ("missing", missing))
        said = [f"{word} {', '.join(map(shown, texts))}" for word, texts in named if texts]
        return Judgement(float(enough), "; ".join(said))

    def _wanted(self, subject: Subject) -> tuple[str, ...]:
        options = self.options
        if not self.needs_expected:
            return options.all or options.any or (options.text or "",)
        expected = expected_of(subject)
        if not isinstance(expected, str) or not expected:
            raise EvaluatorError(f"case {subject.case_id!r}: expected must be a text that is not empty")
        return (expected,)

    def _is_in(self, text: str, output: str) -> bool:
        return text.casefold() in output.casefold() if self.options.ignore_case else text in output


def is_same(first: Any, second: Any) -> bool:
    """Say whether two JSON values are equal: numbers by value, true and false apart from 1 and 0."""
    if isinstance(first, bool) or isinstance(second, bool):
        return first is second
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        return len(first) == len(second) and all(map(is_same, first, second))
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(is_same(first[key], second[key]) for key in first)
    return bool(first == second)


def _accepted(subject: Subject, *, any_of: bool) -> list[Any]:
    expected = expected_of(subject)
    if not any_of:
        return [expected]
    if not isinstance(expected, (list, tuple)) or not expected:
        raise EvaluatorError(f"case {subject.case_id!r}: expected must be a list of accepted answers")
    return list(expected)


def _without_newline(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return value.removesuffix("\r\n" if value.endswith("\r\n") else "\n")


def _normalised(value: Any) -> Any:
    if isinstance(value, str):
        return normal_form(value)
    if isinstance(value, (list, tuple)):
        return [_normalised(part) for part in value]
    if isinstance(value, Mapping):
        return {key: _normalised(part) for key, part in value.items()}
    return value


def _difference(output: Any, accepted: list[Any]) -> str:
    if len(accepted) > 1:
        return f"{shown(output)} is none of the {len(accepted)} accepted answers"
    expected = accepted[0]
    if kind_of(output) == kind_of(expected):
        return f"{shown(output)} is not {shown(expected)}"
    return f"{kind_of(output)} {shown(output)} is not the {kind_of(expected)} {shown(expected)}"
