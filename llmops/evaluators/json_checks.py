"""Whether an output is JSON, and JSON of the right shape. The one file that meets jsonschema.

Strict where Python is lenient: NaN, Infinity and numbers that no double holds are no JSON here. Patterns in
schemas run on RE2, as in `regex`, and no schema is ever fetched from anywhere.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NoReturn

from pydantic import Field, field_validator

from llmops.definitions.base import Definition
from llmops.evaluators.base import Judgement, Subject
from llmops.evaluators.regex import compile_pattern, encodable
from llmops.evaluators.texts import storable
from llmops.records import Status

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
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
            _check_schema(schema)
            return schema

    version = "1"
    low: float | None = 0.0
    high: float | None = 1.0
    needs_expected = False

    def __init__(self, options: Options) -> None:
        self.options = options
        self._validator = _validator(options.json_schema)

    async def judge(self, subject: Subject) -> Judgement:
        """Return 1 or 0, and the first few places that do not fit."""
        value, problem = _read(subject)
        if problem is not None:
            return Judgement(0.0, problem, parts={"parsed": 0.0})
        try:
            problems = sorted(_problem(error) for error in self._validator.iter_errors(value))
        except RecursionError:
            problems = ["nested too deeply to be checked"]
        return Judgement(float(not problems), _summary(problems), parts={"parsed": 1.0})


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


def _check_schema(schema: Mapping[str, Any]) -> None:
    """Raise ValueError for a schema that is wrong, of another draft, or reaches beyond itself."""
    from jsonschema.exceptions import SchemaError
    from referencing import Registry
    from referencing.jsonschema import DRAFT202012

    if schema.get("$schema", _DIALECT).rstrip("#") != _DIALECT:
        raise ValueError(f"the schema must be of Draft 2020-12 ({_DIALECT}), not {schema['$schema']!r}")
    try:
        _linear_validator().check_schema(schema)
    except SchemaError as error:
        raise ValueError(f"the schema is wrong at {error.json_path}: {error.message}") from error
    resource = DRAFT202012.create_resource(schema)
    _check_parts(resource, Registry().with_resource("", resource).resolver_with_root(resource))


def _check_parts(resource: Any, resolver: Any) -> None:
    from referencing.exceptions import Unresolvable

    schema = resource.contents if isinstance(resource.contents, Mapping) else {}
    for reference in (schema[key] for key in ("$ref", "$dynamicRef") if key in schema):
        try:
            resolver.lookup(reference)
        except Unresolvable as error:
            raise ValueError(f"{reference!r} is not in the schema, and no schema is fetched") from error
    named = schema.get("patternProperties", {})
    for pattern in (*named, *([schema["pattern"]] if "pattern" in schema else ())):
        compile_pattern(pattern)
    if named and "unevaluatedProperties" in schema:
        raise ValueError("patternProperties beside unevaluatedProperties is not supported")
    for part in resource.subresources():
        if isinstance(part.contents, Mapping) and "$schema" in part.contents:
            raise ValueError("only the top of a schema may say $schema")
        _check_parts(part, resolver.in_subresource(part))


def _validator(schema: Mapping[str, Any]) -> Any:
    from referencing import Registry

    # Asked for a draft by name, jsonschema would go on with its own class for it, which matches with `re`.
    unnamed = {key: value for key, value in schema.items() if key != "$schema"}
    return _linear_validator()(unnamed, registry=Registry())


@cache
def _linear_validator() -> Any:
    """Return jsonschema's class for the draft with the keywords that match patterns moved to RE2."""
    from jsonschema import Draft202012Validator, validators

    extend: Any = validators.extend  # has no types
    keywords = {
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
    }
    return extend(Draft202012Validator, keywords)


def _matches(pattern: str, text: str) -> bool:
    return compile_pattern(pattern).search(encodable(text)) is not None


def _pattern(_: Any, pattern: str, instance: Any, __: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    if isinstance(instance, str) and not _matches(pattern, instance):
        yield ValidationError(f"{instance[:40]!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, named: Mapping[str, Any], instance: Any, _: Any) -> Iterator[Any]:
    if not isinstance(instance, dict):
        return
    for pattern, part in named.items():
        for key, value in instance.items():
            if _matches(pattern, key):
                yield from validator.descend(value, part, path=key, schema_path=pattern)


def _additional_properties(
    validator: Any, additional: Any, instance: Any, schema: Mapping[str, Any]
) -> Iterator[Any]:
    """Ask the original about the keys that no pattern of the schema takes."""
    from jsonschema import Draft202012Validator

    patterns = schema.get("patternProperties", {})
    if isinstance(instance, dict) and patterns:
        instance = {
            key: value for key, value in instance.items() if not any(_matches(p, key) for p in patterns)
        }
        schema = {key: value for key, value in schema.items() if key != "patternProperties"}
    yield from Draft202012Validator.VALIDATORS["additionalProperties"](
        validator, additional, instance, schema
    )
