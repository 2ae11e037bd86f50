"""A chain: steps with one verb each, whose graph is inferred from what they refer to."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from llmops.definitions.base import Definition, Name, meaning_of
from llmops.definitions.prompt import Parameters
from llmops.definitions.reference import ReferenceText
from llmops.definitions.schemas import InputTypes, check_name
from llmops.definitions.templates import parse_template

VERBS = ("prompt", "chain", "python")
_FUNCTION = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*")


def _check_function(reference: str) -> str:
    if not _FUNCTION.fullmatch(reference):
        raise ValueError(f"write MODULE:function, not {reference!r}")
    return reference


FunctionText = Annotated[str, AfterValidator(_check_function)]
"""A reference to a function of the project's own Python: MODULE:function."""


class Step(Definition):
    """One call in a chain. Exactly one verb; `with` gives its inputs as templates or plain values.

    model, parameters, set: what this step changes in the prompt or chain it uses.
    """

    id: Annotated[str, AfterValidator(check_name)]
    prompt: ReferenceText | None = None
    chain: ReferenceText | None = None
    python: FunctionText | None = None
    arguments: dict[str, Any] = Field(default_factory=dict, alias="with")
    model: Name | None = None
    parameters: Parameters = Field(default_factory=Parameters)
    set: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_verb(self) -> Step:
        verbs = [verb for verb in VERBS if getattr(self, verb) is not None]
        if len(verbs) != 1:
            raise ValueError(f"a step has exactly one of {', '.join(VERBS)}, this one has {len(verbs)}")
        if self.python is not None and (self.model or self.set or self.parameters.given()):
            raise ValueError("a python step has no model, parameters or set")
        return self

    @property
    def verb(self) -> str:
        """Which verb the step has."""
        return next(verb for verb in VERBS if getattr(self, verb) is not None)

    @property
    def target(self) -> str:
        """What the verb names: a reference, or MODULE:function."""
        return str(getattr(self, self.verb))


class Chain(Definition):
    """What `chains/NAME.chain.yaml` says. outputs: templates by name, or one; None gives the last step's output."""

    description: str | None = None
    inputs: InputTypes = Field(default_factory=dict)
    steps: tuple[Step, ...] = Field(min_length=1)
    outputs: dict[str, Any] | str | None = None

    def meaning(self) -> dict[str, Any]:
        """Return the fields that can change an output; the description aside."""
        return meaning_of(self, without={"description"})


def templates_in(
    value: object, location: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield every text in a nested value with its location; each is a template."""
    if isinstance(value, str):
        yield location, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from templates_in(item, (*location, key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from templates_in(item, (*location, index))


def names_used(value: object) -> set[str]:
    """Return the names that the templates in a nested value look up."""
    return {name for _, source in templates_in(value) for name in parse_template(source).variables}


def dependencies(chain: Chain) -> dict[str, set[str]]:
    """Return for each step the ids of the steps whose outputs it reads, in the order of the file."""
    ids = {step.id for step in chain.steps}
    return {step.id: names_used(step.arguments) & ids for step in chain.steps}


def find_cycle(edges: Mapping[str, set[str]]) -> list[str] | None:
    """Return the names around one cycle, each needing the next, first one repeated at the end; or None."""
    try:
        TopologicalSorter({name: sorted(needed) for name, needed in sorted(edges.items())}).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        return circle[::-1]
    return None
