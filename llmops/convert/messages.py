"""Messages of other tools as those of a prompt: their templates translated, their inputs named."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llmops.convert.names import identifier
from llmops.convert.translate import renamed, variables
from llmops.definitions.documents import Document, Location
from llmops.definitions.templates import TemplateError
from llmops.errors import DefinitionError

ROLES = ("system", "user", "assistant")


@dataclass
class Inputs:
    """What a template may look up: names there, and how they are called here."""

    names: dict[str, str] = field(default_factory=dict)

    def add(self, name: str) -> str:
        """Return what an input is called here."""
        if name not in self.names:
            self.names[name] = identifier(name, taken={*self.names.values()})
        return self.names[name]

    def changed(self) -> dict[str, str]:
        """Return those that are called otherwise here."""
        return {old: new for old, new in self.names.items() if old != new}


def template_of(
    text: str, translate: Callable[[str], str], inputs: Inputs, document: Document, location: Location
) -> str:
    """Return a template as one of ours whose names are `inputs`; names it adds are taken in.

    Raises DefinitionError with the line where it has no counterpart.
    """
    try:
        template = translate(text)
        for name in sorted(variables(template)):
            inputs.add(name)
        return renamed(template, inputs.names)
    except TemplateError as error:
        raise DefinitionError(
            document.finding(location, f"template: {error}", "change it there first")
        ) from error


def prompt_inputs(
    messages: Iterable[Mapping[str, Any]], kinds: Mapping[str, Any], *, kind: str = "any"
) -> dict[str, Any]:
    """Return the inputs of a prompt: those declared, and those that its messages look up. kind: of the latter."""
    used = {name for message in messages for name in variables(message["content"])}
    return {**kinds, **dict.fromkeys(sorted(used - {*kinds}), kind)}


def type_of(value: Any) -> str:
    """Return the type of a value, as inputs declare it."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number" if isinstance(value, float) else "integer"
    names = ((str, "string"), (list, "array"), (dict, "object"))
    return next((name for kind, name in names if isinstance(value, kind)), "any")


def type_over(values: Iterable[Any]) -> str:
    """Return the type of several values of one input: `any` where they differ."""
    found = {type_of(value) for value in values}
    if found == {"integer", "number"}:
        return "number"
    return found.pop() if len(found) == 1 else "any"
