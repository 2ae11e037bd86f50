"""A chain: steps with one verb each, whose graph is inferred from what they refer to."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, Field, model_validator

from llmops.definitions.base import Definition, Name, meaning_of
from llmops.definitions.prompt import Parameters, StopText
from llmops.definitions.reference import ReferenceText
from llmops.definitions.schemas import InputTypes, check_name
from llmops.definitions.templates import parse_template

VERBS = ("prompt", "chain", "python", "map", "converse")
STEP_PARTS: Mapping[str, tuple[str, ...]] = {"retrieve": ("passages",), "vote": ("value", "votes")}
"""Keys of a verb's output that are reached as STEP.KEY, beside STEP.output."""
_FUNCTION = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*")


def _check_function(reference: str) -> str:
    if not _FUNCTION.fullmatch(reference):
        raise ValueError(f"write MODULE:function, not {reference!r}")
    return reference


FunctionText = Annotated[str, AfterValidator(_check_function)]
"""A reference to a function of the project's own Python: MODULE:function."""


class Body(Definition):
    """What stands below a verb that is more than a reference."""

    def templates(self) -> Mapping[str, Any]:
        """Return the fields that are filled before the step is carried out, by key."""
        return {}

    def uses(self) -> Iterator[Inner]:
        """Yield the verbs inside, which fill their own templates."""
        yield from ()


class Use(Definition):
    """What is carried out: exactly one verb. `with` gives a reference its inputs as templates or plain values.

    model, parameters, set: what is changed in the prompt or chain that is used.
    """

    prompt: ReferenceText | None = None
    chain: ReferenceText | None = None
    python: FunctionText | None = None
    map: Map | None = None
    converse: Converse | None = None
    arguments: dict[str, Any] = Field(default_factory=dict, alias="with")
    model: Name | None = None
    parameters: Parameters = Field(default_factory=Parameters)
    set: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_verb(self) -> Use:
        verbs = [verb for verb in VERBS if getattr(self, verb) is not None]
        if len(verbs) != 1:
            raise ValueError(f"a step has exactly one of {', '.join(VERBS)}, this one has {len(verbs)}")
        if self.python is not None and (self.model or self.set or self.parameters.given()):
            raise ValueError("a python step has no model, parameters or set")
        if self.body is not None and self.arguments:
            raise ValueError(f"{self.verb} says what goes in by itself; remove `with`")
        return self

    @property
    def verb(self) -> str:
        """Which verb it has."""
        return next(verb for verb in VERBS if getattr(self, verb) is not None)

    @property
    def body(self) -> Body | None:
        """What stands below the verb, where that is more than a reference."""
        below = getattr(self, self.verb)
        return below if isinstance(below, Body) else None

    @property
    def target(self) -> str:
        """What the verb names: a reference, or MODULE:function."""
        return str(getattr(self, self.verb))

    @property
    def filled(self) -> tuple[str, Mapping[str, Any]]:
        """The key under which templates stand that are filled before it is carried out, and these."""
        return ("with", self.arguments) if self.body is None else (self.verb, self.body.templates())


class Inner(NamedTuple):
    """A use inside the body of a verb: its key there, and the names that its templates see beside the chain's."""

    key: str
    use: Use
    names: frozenset[str] = frozenset()


class Map(Body):
    """Carry out one thing for each item of a list, `concurrency` at a time; the outputs keep the order of the items.

    over: a template that gives the list. Each item is called `as`, its place `index`, from 0.
    on_error: of an item; `null` puts that in its place, `fail` ends the step.
    """

    over: str | list[Any]
    name: Annotated[str, AfterValidator(check_name)] = Field(default="item", alias="as")
    do: Use
    concurrency: int = Field(default=8, ge=1, le=64)
    on_error: Literal["fail", "null"] = "fail"

    def templates(self) -> Mapping[str, Any]:
        """Return the list."""
        return {"over": self.over}

    def uses(self) -> Iterator[Inner]:
        """Yield what is done with each item."""
        yield Inner("do", self.do, frozenset({self.name, "index"}))


class Converse(Body):
    """Let two speak in turn: what is tried, as the assistant, and whoever plays its user.

    Both see `history`, the conversation so far as the speaker sees it (its own words are the assistant's), and `turn`,
    the number of replies so far. opening: what was said before, as text of the user or as messages.
    max_turns: replies of the assistant. stop: it ends once somebody says one of these.
    """

    user: Use
    assistant: Use
    opening: str | list[Any] | None = None
    max_turns: int = Field(default=6, ge=1, le=50)
    stop: StopText | Annotated[tuple[StopText, ...], Field(min_length=1)] = ()

    def templates(self) -> Mapping[str, Any]:
        """Return what was said before."""
        return {} if self.opening is None else {"opening": self.opening}

    def uses(self) -> Iterator[Inner]:
        """Yield the two who speak."""
        names = frozenset({"history", "turn"})
        yield Inner("user", self.user, names)
        yield Inner("assistant", self.assistant, names)

    @property
    def stops(self) -> tuple[str, ...]:
        """What ends it."""
        return (self.stop,) if isinstance(self.stop, str) else self.stop


class Step(Use):
    """One named thing that a chain carries out."""

    id: Annotated[str, AfterValidator(check_name)]


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


class Templated(NamedTuple):
    """A text in a step that is a template, where it stands below the step, and the names it sees beside the chain's."""

    location: tuple[str | int, ...]
    source: str
    names: frozenset[str]


def templates_of(
    use: Use, location: tuple[str | int, ...] = (), names: frozenset[str] = frozenset()
) -> Iterator[Templated]:
    """Yield every template of a step, those of the verbs inside it included."""
    key, filled = use.filled
    for below, source in templates_in(filled):
        yield Templated((*location, key, *below), source, names)
    for inner in use.body.uses() if use.body is not None else ():
        yield from templates_of(inner.use, (*location, use.verb, inner.key), names | inner.names)


def uses_of(use: Use) -> Iterator[Use]:
    """Yield a use and all inside it."""
    yield use
    for inner in use.body.uses() if use.body is not None else ():
        yield from uses_of(inner.use)


def dependencies(chain: Chain) -> dict[str, set[str]]:
    """Return for each step the ids of the steps whose outputs it reads, in the order of the file."""
    ids = {step.id for step in chain.steps}
    return {
        step.id: {
            name
            for template in templates_of(step)
            for name in parse_template(template.source).variables - template.names
        }
        & ids
        for step in chain.steps
    }


def find_cycle(edges: Mapping[str, set[str]]) -> list[str] | None:
    """Return the names around one cycle, each needing the next, first one repeated at the end; or None."""
    try:
        TopologicalSorter({name: sorted(needed) for name, needed in sorted(edges.items())}).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        return circle[::-1]
    return None
