"""JSON Schema, Draft 2020-12: is a schema right, and does a value fit it. The one room that meets jsonschema.

What most schemas say is checked here, without the library: it costs a tenth of a second to import and a
hundred times as long for each value. Patterns run on RE2, in linear time, and no schema is ever fetched.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache, lru_cache
from typing import Any

from llmops.definitions.base import canonical
from llmops.definitions.documents import brief, kind_of
from llmops.definitions.patterns import compile_pattern, encodable

DIALECT = "https://json-schema.org/draft/2020-12/schema"
TYPES: Mapping[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: (
        (isinstance(value, int) and not isinstance(value, bool))
        or (isinstance(value, float) and value.is_integer())
    ),
    "boolean": lambda value: isinstance(value, bool),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "null": lambda value: value is None,
}
"""What each type's values are in Python; 1.0 is an integer, and true is no number."""

Fits = Callable[[Any], bool]
_LONGEST = 200


def check_schema(schema: Mapping[str, Any]) -> None:
    """Raise ValueError for a schema that is wrong, of another draft, or reaches beyond itself."""
    if _plain_fits(schema) is not None:
        return
    from jsonschema.exceptions import SchemaError
    from referencing import Registry
    from referencing.jsonschema import DRAFT202012

    if str(schema.get("$schema", DIALECT)).rstrip("#") != DIALECT:
        raise ValueError(f"the schema must be of Draft 2020-12 ({DIALECT}), not {schema['$schema']!r}")
    try:
        _linear_validator().check_schema(schema)
    except SchemaError as error:
        raise ValueError(f"the schema is wrong at {error.json_path}: {_cut(error.message)}") from error
    resource = DRAFT202012.create_resource(schema)
    _check_parts(resource, Registry().with_resource("", resource).resolver_with_root(resource))


def problem_with(value: object, schema: Mapping[str, Any]) -> str | None:
    """Return in one sentence why a value does not fit a schema, or None when it fits."""
    return checker(schema)(value)


def checker(schema: Mapping[str, Any]) -> Callable[[object], str | None]:
    """Return the function that says in one sentence why a value does not fit, or None when it does."""
    return _checker(canonical(schema))


@lru_cache(maxsize=256)
def _checker(schema_json: str) -> Callable[[object], str | None]:
    schema = json.loads(schema_json)
    fits = _plain_fits(schema)

    def problem(value: object) -> str | None:
        if fits is not None and fits(value):
            return None
        return _simple_problem(value, schema) or _full_problem(value, schema_json)

    return problem


def _simple_problem(value: object, schema: Mapping[str, Any]) -> str | None:
    """Say what is wrong by type and enum alone, in the words of most mistakes."""
    kind = schema.get("type")
    if isinstance(kind, str) and not TYPES[kind](value):
        return f"{_shown(value)} is not of type {kind}"
    if "enum" in schema and not any(_same(value, allowed) for allowed in schema["enum"]):
        return f"{_shown(value)} is none of {', '.join(map(_shown, schema['enum']))}"[:_LONGEST]
    return None


def _full_problem(value: object, schema_json: str) -> str | None:
    from jsonschema.exceptions import best_match

    try:
        error = best_match(_full_validator(schema_json).iter_errors(value))
    except RecursionError:
        return "nested too deeply to be checked"
    if error is None:
        return None
    place = ".".join(str(part) for part in error.absolute_path)
    return f"{place}: {_cut(error.message)}" if place else _cut(error.message)


def _cut(message: str) -> str:
    """Return the end of a message: it leads with the value, and ends with what is wrong with it."""
    return message if len(message) <= _LONGEST else f"…{message[-_LONGEST:]}"


def _shown(value: object) -> str:
    return brief(value) if isinstance(value, str) else kind_of(value)


# --- what most schemas say ----------------------------------------------------------------------------------


def _plain_fits(schema: object) -> Fits | None:
    """Return the test of a schema that says only what is in `_KEYWORDS`, and says it right; else None."""
    if not isinstance(schema, Mapping):
        return None
    tests: list[Fits] = []
    for keyword, said in schema.items():
        make = _KEYWORDS.get(keyword)
        test = None if make is None else make(said, schema)
        if test is None:
            return None
        if test is not _always:
            tests.append(test)
    if len(tests) == 1:
        return tests[0]
    return lambda value: all(test(value) for test in tests)


def _always(_: object) -> bool:
    return True


def _type_fits(said: Any, _: Mapping[str, Any]) -> Fits | None:
    names = said if isinstance(said, list) else [said]
    if not names or not all(isinstance(name, str) and name in TYPES for name in names):
        return None
    tests = [TYPES[name] for name in dict.fromkeys(names)]
    if len(tests) != len(names):
        return None  # the draft wants them to differ
    return tests[0] if len(tests) == 1 else lambda value: any(test(value) for test in tests)


def _enum_fits(said: Any, _: Mapping[str, Any]) -> Fits | None:
    if not isinstance(said, list):
        return None
    texts = frozenset(item for item in said if isinstance(item, str))
    others = [item for item in said if not isinstance(item, str)]
    return lambda value: value in texts if isinstance(value, str) else any(_same(value, o) for o in others)


def _same(one: Any, two: Any) -> bool:
    """Return whether two JSON values are equal: 1 and 1.0 are, 1 and true are not."""
    if isinstance(one, bool) or isinstance(two, bool):
        return one is two
    if isinstance(one, list) and isinstance(two, list):
        return len(one) == len(two) and all(map(_same, one, two))
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(_same(one[key], two[key]) for key in one)
    return bool(one == two)


def _properties_fit(said: Any, _: Mapping[str, Any]) -> Fits | None:
    if not isinstance(said, Mapping):
        return None
    tests = {name: _plain_fits(part) for name, part in said.items()}
    if None in tests.values():
        return None
    known = [(name, test) for name, test in tests.items() if test is not None]
    return lambda value: (
        not isinstance(value, dict) or all(test(value[name]) for name, test in known if name in value)
    )


def _additional_fits(said: Any, schema: Mapping[str, Any]) -> Fits | None:
    if said is True:
        return _always
    named = schema.get("properties", {})
    if said is not False or not isinstance(named, Mapping):
        return None
    return lambda value: not isinstance(value, dict) or value.keys() <= named.keys()


def _required_fits(said: Any, _: Mapping[str, Any]) -> Fits | None:
    if not isinstance(said, list) or not all(isinstance(name, str) for name in said):
        return None
    names = frozenset(said)
    if len(names) != len(said):
        return None
    return lambda value: not isinstance(value, dict) or names <= value.keys()


def _items_fit(said: Any, _: Mapping[str, Any]) -> Fits | None:
    test = _plain_fits(said)
    if test is None:
        return None
    return lambda value: not isinstance(value, list) or all(map(test, value))


def _minimum_fits(said: Any, _: Mapping[str, Any]) -> Fits | None:
    is_number = TYPES["number"]
    return (lambda value: not is_number(value) or value >= said) if is_number(said) else None


def _maximum_fits(said: Any, _: Mapping[str, Any]) -> Fits | None:
    is_number = TYPES["number"]
    return (lambda value: not is_number(value) or value <= said) if is_number(said) else None


def _pattern_fits(said: Any, _: Mapping[str, Any]) -> Fits | None:
    if not isinstance(said, str):
        return None
    try:
        compile_pattern(said)
    except ValueError:
        return None
    return lambda value: not isinstance(value, str) or _matches(said, value)


def _note(said: Any, _: Mapping[str, Any]) -> Fits | None:
    return _always if isinstance(said, str) else None


_KEYWORDS: Mapping[str, Callable[[Any, Mapping[str, Any]], Fits | None]] = {
    "type": _type_fits,
    "enum": _enum_fits,
    "properties": _properties_fit,
    "additionalProperties": _additional_fits,
    "required": _required_fits,
    "items": _items_fit,
    "minimum": _minimum_fits,
    "maximum": _maximum_fits,
    "pattern": _pattern_fits,
    "title": _note,
    "description": _note,
}


# --- all that a schema can say ------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _full_validator(schema_json: str) -> Any:
    return full_validator(json.loads(schema_json))


def full_validator(schema: Mapping[str, Any]) -> Any:
    """Return jsonschema's validator of a schema that has passed `check_schema`; it fetches nothing."""
    from referencing import Registry

    # Asked for a draft by name, jsonschema would go on with its own class for it, which matches with `re`.
    unnamed = {key: value for key, value in schema.items() if key != "$schema"}
    return _linear_validator()(unnamed, registry=Registry())


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
