"""Types of inputs and JSON Schemas, as definitions declare them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator

from llmops.definitions.images import image_problem
from llmops.definitions.json_schema import TYPES, check_schema, checker, problem_with
from llmops.definitions.templates import TemplateError, parse_template
from llmops.errors import nearest

__all__ = [
    "MESSAGES",
    "RESERVED",
    "InputTypes",
    "PromptInputTypes",
    "Schema",
    "check_name",
    "check_of",
    "checker",
    "problem_with",
    "schema_of",
]

MESSAGES: Mapping[str, Any] = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"role": {"enum": ["user", "assistant"]}, "content": {"type": "string"}},
        "required": ["role", "content"],
        "additionalProperties": False,
    },
}
"""A conversation, as the type `messages`: text from a case speaks for nobody but these two."""
_NAMED: Mapping[str, Mapping[str, Any]] = {"any": {}, "messages": MESSAGES, "image": {"type": "string"}}
"""Types beside those of JSON. A file says where an image is; a case holds what is known of it."""

RESERVED = frozenset({"steps", "output", "expected"})
_TO_JUDGE = frozenset({"output", "expected"})
"""Of those, what a judge's prompt is given beside the inputs of a case, by these names."""
_WORDS = frozenset({"and", "else", "if", "in", "is", "or"})
"""Words between the parts of an expression, which would pass for a name only when they stand alone."""


def _check_schema(schema: dict[str, Any]) -> dict[str, Any]:
    check_schema(schema)
    return schema


Schema = Annotated[dict[str, Any], AfterValidator(_check_schema)]


def check_name(name: str, reserved: frozenset[str] = RESERVED) -> str:
    """Return a name that templates can look up, as inputs and steps need one.

    Raises ValueError for any other, and for those that mean something else in a template.
    """
    try:
        is_free = name.isidentifier() and name not in reserved | _WORDS
        if is_free and name in parse_template(f"{{{{ {name} }}}}").variables:
            return name
    except TemplateError:
        pass  # a word of the template language, or one that begins with an underscore
    raise ValueError(
        f"{name!r} cannot be looked up in a template: names of inputs and steps are identifiers (with _ for -), "
        f"none of {', '.join(sorted(reserved))}"
    )


def _check_inputs(
    inputs: dict[str, str | dict[str, Any]], reserved: frozenset[str] = RESERVED
) -> dict[str, str | dict[str, Any]]:
    for name, kind in inputs.items():
        check_name(name, reserved)
        if isinstance(kind, dict):
            check_schema(kind)
        elif kind not in {*TYPES, *_NAMED}:
            hint = nearest(kind, [*TYPES, *_NAMED]) or f"types: {', '.join((*TYPES, *_NAMED))}"
            raise ValueError(f"input {name!r}: no type is called {kind!r}; {hint}")
    return inputs


def _check_prompt_inputs(inputs: dict[str, str | dict[str, Any]]) -> dict[str, str | dict[str, Any]]:
    return _check_inputs(inputs, RESERVED - _TO_JUDGE)


InputTypes = Annotated[dict[str, str | dict[str, Any]], AfterValidator(_check_inputs)]
PromptInputTypes = Annotated[dict[str, str | dict[str, Any]], AfterValidator(_check_prompt_inputs)]


def schema_of(kind: str | Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON Schema of an input's type as files hold it: of a name (`string`, `any`) or a schema."""
    if isinstance(kind, str):
        return dict(_NAMED.get(kind, {"type": kind}))
    return dict(kind)


def check_of(kind: str | Mapping[str, Any]) -> Callable[[object], str | None]:
    """Return what says why a value, as cases and steps hold it, is not of an input's type; None when it is."""
    return image_problem if kind == "image" else checker(schema_of(kind))
