"""A chain: steps with one verb each, whose graph is inferred from what they refer to."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from llmops.definitions.base import Definition, Float, Int, Name, meaning_of
from llmops.definitions.body import Body, Inner, Templated
from llmops.definitions.experiment import EvaluatorUse
from llmops.definitions.http import Http
from llmops.definitions.patterns import Pattern
from llmops.definitions.prompt import Parameters, StopText
from llmops.definitions.reference import ReferenceText
from llmops.definitions.schemas import InputTypes, check_name
from llmops.definitions.templates import parse_template

VERBS = (
    "prompt",
    "chain",
    "python",
    "map",
    "branch",
    "vote",
    "guard",
    "http",
    "retrieve",
    "agent",
    "converse",
)
STEP_PARTS: Mapping[str, tuple[str, ...]] = {
    "retrieve": ("passages",),
    "vote": ("value", "votes", "n_failed"),
    "http": ("status", "headers", "body"),
}
"""Keys of a verb's output that are reached as STEP.KEY, beside STEP.output."""
_FUNCTION = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*")


def _check_function(reference: str) -> str:
    if not _FUNCTION.fullmatch(reference):
        raise ValueError(f"write MODULE:function, not {reference!r}")
    return reference


TOOL_NAME = r"^[A-Za-z_][A-Za-z0-9_-]{0,63}$"
"""What every service takes for the name of a tool."""
FunctionText = Annotated[str, AfterValidator(_check_function)]
"""A reference to a function of the project's own Python: MODULE:function."""


class Retrieve(Body):
    """Find the passages of an index that a query is nearest to, at most `top_k`, best first.

    max_tokens: of all passages together, estimated. where: metadata that each must have; a list means any of these.
    """

    index: ReferenceText
    query: str
    top_k: Int = Field(default=4, ge=1, le=1000)
    max_tokens: Int | None = Field(default=None, ge=1)
    where: dict[str, Any] = Field(default_factory=dict)

    def templates(self) -> Mapping[str, Any]:
        """Return the query and what is asked of metadata."""
        return {"query": self.query, "where": self.where}


class Use(Definition):
    """What is carried out: exactly one verb. `with` gives a reference its inputs as templates or plain values.

    model, parameters, set: what is changed in the prompt or chain that is used.
    """

    prompt: ReferenceText | None = None
    chain: ReferenceText | None = None
    python: FunctionText | None = None
    map: Map | None = None
    agent: Agent | None = None
    retrieve: Retrieve | None = None
    branch: Branch | None = None
    vote: Vote | None = None
    guard: Guard | None = None
    http: Http | None = None
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
        if self.verb in ("python", "http") and (self.model or self.set or self.parameters.given()):
            article = "an" if self.verb == "http" else "a"
            raise ValueError(f"{article} {self.verb} step has no model, parameters or set")
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


class Map(Body):
    """Carry out one thing for each item of a list, `concurrency` at a time; the outputs keep the order of the items.

    over: a template that gives the list. Each item is called `as`, its place `index`, from 0.
    on_error: of an item that gives no value; `null` puts that in its place, `record` what went wrong as
        `{"error": {"kind", "message"}}`, and `fail` ends the step. at_most: items; a longer list is an error.
    """

    over: str | list[Any]
    name: Annotated[str, AfterValidator(check_name)] = Field(default="item", alias="as")
    do: Use
    concurrency: Int = Field(default=8, ge=1, le=64)
    on_error: Literal["fail", "null", "record"] = "fail"
    at_most: Int = Field(default=1000, ge=1)

    def templates(self) -> Mapping[str, Any]:
        """Return the list."""
        return {"over": self.over}

    def uses(self) -> Iterator[Inner]:
        """Yield what is done with each item."""
        yield Inner("do", self.do, frozenset({self.name, "index"}))


class Tool(Use):
    """What an agent's model may call: one verb, and what the model is told of it.

    name, description: those of the function, prompt or chain unless said; of any other verb they must be said.
    inputs: what the model gives, which the templates of the tool see. Unless said, the inputs that a function (by its
    type hints), prompt or chain takes; those that `with` gives are the chain's own and the model never sees them.
    """

    name: Annotated[str, Field(pattern=TOOL_NAME)] | None = None
    description: str | None = None
    inputs: InputTypes | None = None


class Agent(Body):
    """Ask a model again and again, carrying out the tools it asks for, until it answers.

    prompt, with: what it is asked first, with the prompt's own model, parameters and response format.
    mode: tools through the provider's own calls (`native`), or told in the messages (`text`); `auto` is native where
    the provider can. A step is one turn of the model with the tools it asks for; tokens, seconds of recorded time and
    US dollars count all below the agent. on_limit: `fail`, or ask for an `answer` once more, without tools.
    """

    prompt: ReferenceText
    arguments: dict[str, Any] = Field(default_factory=dict, alias="with")
    tools: tuple[Tool, ...] = Field(min_length=1)
    mode: Literal["auto", "native", "text"] = "auto"
    max_steps: Int = Field(default=10, ge=1, le=1000)
    max_tokens: Int | None = Field(default=None, ge=1)
    max_s: Float | None = Field(default=None, gt=0)
    max_usd: Float | None = Field(default=None, gt=0)
    on_limit: Literal["fail", "answer"] = "fail"

    def uses(self) -> Iterator[Inner]:
        """Yield the prompt, and each tool, whose templates see what the model gives it."""
        yield Inner("", self.asked)
        for place, tool in enumerate(self.tools):
            yield Inner(f"tools.{place}", tool, frozenset(tool.inputs or ()))

    @property
    def asked(self) -> Use:
        """The prompt with what it is given."""
        return Use.model_validate({"prompt": self.prompt, "with": self.arguments})


class Arm(Definition):
    """What is done if a condition holds: an expression that is true or false."""

    condition: str = Field(alias="if")
    do: Use


class Branch(Body):
    """Carry out the first arm whose condition holds, or `else`; where that is null, the output is null.

    Conditions are worked out in turn, none after the first that holds.
    """

    when: tuple[Arm, ...] = Field(min_length=1)
    otherwise: Use | None = Field(alias="else")

    def later(self) -> Iterator[Templated]:
        """Yield the conditions."""
        for index, arm in enumerate(self.when):
            yield Templated(("when", index, "if"), arm.condition)

    def uses(self) -> Iterator[Inner]:
        """Yield what each arm does."""
        for index, arm in enumerate(self.when):
            yield Inner(f"when.{index}.do", arm.do)
        if self.otherwise is not None:
            yield Inner("else", self.otherwise)


class Vote(Body):
    """Carry out one thing `n` times, each time anew, and take what most of them give.

    on: an expression over `output` that gives what is counted; by default the output. Texts count as the same
        whatever their case and spaces are.
    tie: which of those with as many votes wins: `first` to have been given, the `shortest`, or `none`: null.
    """

    n: Int = Field(ge=2, le=1000)
    do: Use
    on: str | None = None
    tie: Literal["first", "shortest", "none"] = "first"
    concurrency: Int = Field(default=8, ge=1, le=64)

    def later(self) -> Iterator[Templated]:
        """Yield what is counted."""
        if self.on is not None:
            yield Templated(("on",), self.on, frozenset({"output"}))

    def uses(self) -> Iterator[Inner]:
        """Yield what each sample carries out."""
        yield Inner("do", self.do)


class Fallback(Definition):
    """What stands in for a value that fails its guard: another value, or what a verb gives."""

    value: Any = None
    do: Use | None = None

    @model_validator(mode="after")
    def _one(self) -> Fallback:
        if (self.do is None) == ("value" not in self.model_fields_set):
            raise ValueError("a fallback is a `value` or what to `do`, one of the two")
        return self


class Redaction(Definition):
    """What is replaced in every text of a value, and by what."""

    pattern: Pattern
    by: str = Field(default="[redacted]", alias="with")


class Guard(Body):
    """Let a value pass only if every evaluator says so; the output is the value.

    value, do: what is looked at, given by a template or made by a verb.
    evaluators: as in an experiment; their `output` and `expected` see the chain, and `output`: the value.
    at_least: by evaluator, the lowest score that passes; by default its best.
    on_fail: `stop` the case; `retry` what is to do, at most `n` times more, with `feedback` (what was wrong; at first
        empty) and `attempt` (from 0) for its templates; take the `fallback`; or replace what `redact` says and look
        again. When retries are used up, the fallback is taken where there is one, and else the case stops.
    """

    value: Any = None
    do: Use | None = None
    evaluators: tuple[EvaluatorUse, ...] = Field(min_length=1)
    at_least: dict[str, Float] = Field(default_factory=dict)
    on_fail: Literal["stop", "retry", "fallback", "redact"] = "stop"
    n: Int = Field(default=2, ge=1, le=10)
    fallback: Fallback | None = None
    redact: tuple[Redaction, ...] = ()

    @model_validator(mode="after")
    def _fits(self) -> Guard:
        if (self.do is None) == ("value" not in self.model_fields_set):
            raise ValueError("a guard looks at a `value` or at what it is to `do`, one of the two")
        if self.on_fail == "retry" and self.do is None:
            raise ValueError("retry carries out again what is to `do`, and there is only a value")
        if self.on_fail == "fallback" and self.fallback is None:
            raise ValueError("on_fail is fallback, and there is no `fallback`")
        if (self.on_fail == "redact") != bool(self.redact):
            raise ValueError(
                "`redact` says what is replaced, and on_fail: redact that it is; give both or none"
            )
        if self.fallback is not None and self.on_fail not in ("retry", "fallback"):
            raise ValueError(f"on_fail is {self.on_fail}, which takes no `fallback`")
        if "n" in self.model_fields_set and self.on_fail != "retry":
            raise ValueError(f"`n` is how often to retry, and on_fail is {self.on_fail}")
        return self

    def templates(self) -> Mapping[str, Any]:
        """Return the value."""
        return {} if self.do is not None else {"value": self.value}

    def later(self) -> Iterator[Templated]:
        """Yield the expressions of the evaluators, and the value of the fallback."""
        for index, use in enumerate(self.evaluators):
            for key in ("output", "expected"):
                source = getattr(use, key)
                if source is not None:
                    yield Templated(("evaluators", index, use.kind, key), source, frozenset({"output"}))
        for below, source in templates_in(self.fallback.value if self.fallback else None):
            yield Templated(("fallback", "value", *below), source)

    def uses(self) -> Iterator[Inner]:
        """Yield what makes the value, and what makes the one that stands in for it."""
        if self.do is not None:
            yield Inner("do", self.do, frozenset({"feedback", "attempt"}))
        if self.fallback is not None and self.fallback.do is not None:
            yield Inner("fallback.do", self.fallback.do)


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


def templates_of(
    use: Use, location: tuple[str | int, ...] = (), names: frozenset[str] = frozenset()
) -> Iterator[Templated]:
    """Yield every template of a step, those of the verbs inside it included."""
    key, filled = use.filled
    for below, source in templates_in(filled):
        yield Templated((*location, key, *below), source, names)
    if use.body is None:
        return
    for below, source, own in use.body.later():
        yield Templated((*location, use.verb, *below), source, names | own)
    for inner in use.body.uses():
        yield from templates_of(inner.use, (*location, use.verb, *inner.place), names | inner.names)


def uses_of(use: Use) -> Iterator[Use]:
    """Yield a use and all inside it."""
    yield use
    for inner in use.body.uses() if use.body is not None else ():
        yield from uses_of(inner.use)


def wiring(value: object) -> Any:
    """Return what a step adds to what it refers to, as plain data: what goes in, and what its verb says.

    What it refers to has an identity of its own; how many are under way at a time, and how long each may take,
    changes no output.
    """
    if isinstance(value, Use):
        return {"with": wiring(value.arguments)} if value.body is None else {value.verb: wiring(value.body)}
    if isinstance(value, Definition):
        return {
            about.alias or name: wiring(getattr(value, name))
            for name, about in type(value).model_fields.items()
            if name not in ("concurrency", "timeout_s")
        }
    if isinstance(value, Mapping):
        return {key: wiring(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [wiring(item) for item in value]
    return value


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
