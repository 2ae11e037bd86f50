"""Whether an output is JSON, and JSON of the right shape.

Strict where Python is lenient: NaN, Infinity and numbers that no double holds are no JSON here. What a schema
may say stands in `definitions/json_schema.py`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any, NoReturn

from pydantic import Field, field_validator

from llmops.definitions.base import Definition
from llmops.definitions.json_schema import check_schema, checker, full_validator
from llmops.evaluators.base import Judgement, Subject
from llmops.evaluators.texts import storable
from llmops.records import Status

_ERRORS_SHOWN = 3
_ERROR_CHARACTERS = 160
_CUT_OFF = "cut off before its end (truncated), so it is no whole JSON"


class JsonValid:
    """1 when the output is JSON, 0 otherwise.

    A text must be JSON from its first to its last character, without a Markdown fence; an output that is
    already an object, a list, a number, a boolean or null is.
    """

    class Options(Definition):
        """It has none."""

    version = "1"
    low: float | None = 0.0
    high: float | None = 1.0
    needs_expected = False

    def __init__(self, options: Options) -> None:
        self.options = options

    async def judge(self, subject: Subject) -> Judgement:
        """Return 1 or 0, and where the output stops being JSON."""
        _, problem = _read(subject)
        return Judgement(float(problem is None), problem)


class JsonSchema:
    """1 when the output fits a JSON Schema (Draft 2020-12), 0 otherwise; part `parsed`: 1 when it is JSON.

    A text is parsed first, as by `json_valid`. `format` is not checked, as the draft has it by default.
    """

    class Options(Definition):
        """json_schema, in files `schema`: the schema itself; `$ref` reaches what stands inside it."""

        json_schema: Mapping[str, Any] = Field(alias="schema")

        @field_validator("json_schema")
        @classmethod
        def _is_usable(cls, schema: Mapping[str, Any]) -> Mapping[str, Any]:
            check_schema(schema)
            return schema

    version = "1"
    low: float | None = 0.0
    high: float | None = 1.0
    needs_expected = False

    def __init__(self, options: Options) -> None:
        self.options = options
        self._problem_with = checker(options.json_schema)

    async def judge(self, subject: Subject) -> Judgement:
        """Return 1 or 0, and the first few places that do not fit."""
        value, problem = _read(subject)
        if problem is not None:
            return Judgement(0.0, problem, parts={"parsed": 0.0})
        if self._problem_with(value) is None:
            return Judgement(1.0, parts={"parsed": 1.0})
        try:
            problems = sorted(_problem(error) for error in self._validator.iter_errors(value))
        except RecursionError:
            problems = ["nested too deeply to be checked"]
        return Judgement(float(not problems), _summary(problems), parts={"parsed": 1.0})

    @cached_property
    def _validator(self) -> Any:
        return full_validator(self.options.json_schema)


def parse_json(text: str) -> Any:
    """Return the value of a JSON text.

    Raises ValueError, in words for people, for what is no JSON, for NaN and Infinity, for numbers that would
    become infinite or are too long for Python, and for nesting that is too deep.
    """
    try:
        return json.loads(text, parse_float=_finite, parse_int=_whole, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON at line {error.lineno} column {error.colno}: {error.msg}") from error
    except RecursionError as error:
        raise ValueError("nested too deeply to be read") from error


def _finite(text: str) -> float:
    if math.isinf(value := float(text)):
        raise ValueError(f"the number {text[:20]} is out of range")
    return value


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise ValueError(f"an integer of {len(text)} digits is out of range") from error


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _read(subject: Subject) -> tuple[Any, str | None]:
    """Return the value of an output, or None and why it has none."""
    if not isinstance(subject.output, str):
        return subject.output, None
    try:
        return parse_json(subject.output), None
    except ValueError as error:
        if subject.status is Status.TRUNCATED:
            return None, _CUT_OFF
        fence = "; it stands in a Markdown fence" if subject.output.lstrip().startswith("```") else ""
        return None, f"{error}{fence}"


def _problem(error: Any) -> str:
    place = "/".join(["", *map(str, error.absolute_path)]) or "the top"
    message = error.message if len(error.message) <= _ERROR_CHARACTERS else _shortened(error.message)
    return storable(f"at {place[:_ERROR_CHARACTERS]}: {message}")


def _shortened(message: str) -> str:
    """Return the end of a message: it leads with the value, and ends with what is wrong with it."""
    return f"…{message[-_ERROR_CHARACTERS:]}"


def _summary(problems: list[str]) -> str | None:
    more = len(problems) - _ERRORS_SHOWN
    return "; ".join(problems[:_ERRORS_SHOWN] + ([f"and {more} more"] if more > 0 else [])) or None
