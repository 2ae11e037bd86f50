"""The project's own judgement: a Python function that takes what it names and returns a score.

Finding and loading the function is left to `definitions/code.py`; what it may see and return is settled here.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any, Literal

from pydantic import field_validator

from llmops.definitions.base import Definition
from llmops.errors import EvaluatorError, nearest
from llmops.evaluators.base import Judgement, Subject
from llmops.evaluators.texts import storable

ARGUMENTS = ("output", "expected", "inputs", "metadata", "case_id", "spans", "status")
_SCORE, _RATIONALE = "score", "rationale"


class PythonEvaluator:
    """What a function makes of an output, called with those of `ARGUMENTS` that its parameters name.

    It returns a boolean, a number, None for no score, or a dict of them: `score`, or its only number, is the
    value, a text under `rationale` says why, and the others are parts. It may be async. It is given copies,
    so that it cannot change what is stored.
    """

    class Options(Definition):
        """function: `MODULE:function`. range: of its score and parts, both ends in it."""

        function: str
        range: tuple[float, float] | Literal["open"] = (0.0, 1.0)

        @field_validator("range")
        @classmethod
        def _rise(
            cls, limits: tuple[float, float] | Literal["open"]
        ) -> tuple[float, float] | Literal["open"]:
            if limits != "open" and not limits[0] < limits[1]:
                raise ValueError("range must be [low, high] with low below high, or open")
            return limits

    version = "1"
    low: float | None
    high: float | None
    needs_expected = False

    def __init__(self, options: Options, function: Callable[..., Any]) -> None:
        self.options = options
        self.low, self.high = (None, None) if options.range == "open" else options.range
        self._function = function
        self._arguments = _arguments(options.function, function)

    async def judge(self, subject: Subject) -> Judgement:
        """Return what the function found.

        Raises EvaluatorError when it raises, returns anything else, or leaves its range.
        """
        arguments = {name: copy.deepcopy(getattr(subject, name)) for name in self._arguments}
        try:
            returned = self._function(**arguments)
            if inspect.isawaitable(returned):
                returned = await returned
        except (Exception, SystemExit) as error:  # the project's own code may raise anything
            reason = storable(str(error)).strip().partition("\n")[0]
            raise EvaluatorError(self._said(f"raised {type(error).__name__}: {reason}")) from error
        return self._judgement(returned)

    def _judgement(self, returned: Any) -> Judgement:
        if not isinstance(returned, Mapping):
            return Judgement(self._number(returned))
        parts = {name: self._number(value) for name, value in returned.items() if name != _RATIONALE}
        rationale = returned.get(_RATIONALE)
        if not all(isinstance(name, str) for name in parts) or not isinstance(rationale, str | None):
            raise EvaluatorError(self._said("must return names as keys, and its rationale as text"))
        if _SCORE not in parts and len(parts) != 1:
            raise EvaluatorError(self._said(f"must say which of {len(parts)} numbers is its score"))
        value = parts.pop(_SCORE if _SCORE in parts else next(iter(parts)))
        known = {name: part for name, part in parts.items() if part is not None}
        return Judgement(value, None if rationale is None else storable(rationale), parts=known)

    def _number(self, value: Any) -> float | None:
        if getattr(value, "ndim", None) == 0:  # numpy's own booleans and numbers
            value = value.item()
        if value is None:
            return None
        if not isinstance(value, Real):
            kind = type(value).__name__
            raise EvaluatorError(
                self._said(f"must return a boolean, a number, a dict of them or None, not {kind}")
            )
        number = _double(value)
        if not math.isfinite(number):
            raise EvaluatorError(self._said(f"returned {number}, which is no score"))
        if self.low is not None and self.high is not None and not self.low <= number <= self.high:
            hint = f"outside {self.low:g} to {self.high:g}; declare `range: [low, high]` or `range: open`"
            raise EvaluatorError(self._said(f"returned {number:g}, {hint}"))
        return number

    def _said(self, what: str) -> str:
        return f"{self.options.function} {what}"


def _double(value: Real) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer too large for a double
        return math.inf


def _arguments(reference: str, function: Callable[..., Any]) -> tuple[str, ...]:
    """Return which of ARGUMENTS a function takes.

    Raises ValueError when it has a parameter that could not be filled.
    """
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return ARGUMENTS
    for parameter in parameters:
        optional = parameter.default is not parameter.empty or parameter.kind is parameter.VAR_POSITIONAL
        if parameter.kind is parameter.POSITIONAL_ONLY or (parameter.name not in ARGUMENTS and not optional):
            hint = nearest(parameter.name, ARGUMENTS) or f"a score sees {', '.join(ARGUMENTS)}"
            raise ValueError(f"{reference} wants {parameter.name!r}, by position or unknown; {hint}")
    return tuple(parameter.name for parameter in parameters if parameter.name in ARGUMENTS)
