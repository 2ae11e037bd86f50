"""What variants and steps change in what they use: model, parameters, and by `set` what paths reach.

Each function takes a definition with what is said of it, and returns it changed; opening it is left to `llmops.steps`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from llmops.definitions.chain import Agent, Chain, Retrieve, Use, Vote
from llmops.definitions.prompt import ExamplesBlock, Parameters, Prompt
from llmops.errors import UsageError, nearest

AGENT_SETTINGS = ("mode", "max_steps", "max_tokens", "max_s", "max_usd", "on_limit")
"""What `set` reaches of an agent itself, by these names."""


@dataclass(frozen=True)
class Overrides:
    """What a variant or a step changes in what it uses. paths: as in `set`, `examples.k` or `STEP.KEY`."""

    model: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    paths: Mapping[str, Any] = field(default_factory=dict)

    def over(self, below: Overrides) -> Overrides:
        """Return these overrides on top of others: where both say something, these win."""
        return Overrides(
            self.model or below.model,
            {**below.parameters, **self.parameters},
            {**below.paths, **self.paths},
        )


def changed_prompt(prompt: Prompt, name: str, overrides: Overrides) -> tuple[Prompt, Overrides]:
    """Apply `set` to a prompt; what it says of model and parameters joins the overrides."""
    examples: dict[str, Any] = {}
    parameters: dict[str, Any] = {}
    model = overrides.model
    for path, value in overrides.paths.items():
        head, _, key = path.partition(".")
        if head == "parameters" and key:
            parameters[key] = value
        elif head == "examples" and key and prompt.examples is not None:
            examples[key] = value
        elif path == "model":
            model = str(value)
        else:
            reachable = "model, parameters.KEY" + (", examples.KEY" if prompt.examples else "")
            raise UsageError(f"set {path!r} reaches nothing in prompt {name}; it has {reachable}")
    if examples:
        prompt = _with_examples(prompt, examples, name)
    return prompt, Overrides(model, {**overrides.parameters, **parameters})


def _with_examples(prompt: Prompt, changes: Mapping[str, Any], name: str) -> Prompt:
    messages = [
        {
            **message.model_dump(by_alias=True),
            "examples": {**message.examples.model_dump(by_alias=True), **changes},
        }
        if isinstance(message, ExamplesBlock)
        else message.model_dump()
        for message in prompt.messages
    ]
    try:
        return Prompt.model_validate({**prompt.model_dump(by_alias=True), "messages": messages})
    except ValidationError as error:
        problem = error.errors()[0]
        raise UsageError(f"set examples.{problem['loc'][-1]} of prompt {name}: {problem['msg']}") from error


def checked_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return Parameters.model_validate(dict(parameters)).given()
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(map(str, problem["loc"]))
        hint = nearest(key, Parameters.model_fields)
        raise UsageError(f"parameter {key!r}: {hint or problem['msg']}") from error


def changed_chain(
    chain: Chain, name: str, overrides: Overrides
) -> tuple[Overrides, Mapping[str, Mapping[str, Any]]]:
    """Return what all steps inherit, and by step what `set` says of it alone."""
    below: dict[str, dict[str, Any]] = {step.id: {} for step in chain.steps}
    parameters: dict[str, Any] = {}
    model = overrides.model
    for path, value in overrides.paths.items():
        head, _, rest = path.partition(".")
        if head in below and rest:
            below[head][rest] = value
        elif head == "parameters" and rest:
            parameters[rest] = value
        elif path == "model":
            model = str(value)
        else:
            hint = nearest(head, below) or f"its steps: {', '.join(below)}"
            raise UsageError(f"set {path!r} reaches no step of chain {name}; {hint}")
    return Overrides(model, {**overrides.parameters, **parameters}), below


def changed_agent(
    agent: Agent, name: str, paths: Mapping[str, Any]
) -> tuple[Agent, Mapping[str, Any], dict[str, dict[str, Any]]]:
    """Return an agent with its own fields changed, what is left for its prompt, and for each tool what it is set to."""
    own: dict[str, Any] = {}
    prompt: dict[str, Any] = {}
    tools: dict[str, dict[str, Any]] = {}
    for path, value in paths.items():
        head, _, rest = path.partition(".")
        tool, _, below = rest.partition(".")
        if path in AGENT_SETTINGS:
            own[path] = value
        elif head == "tools" and below:
            tools.setdefault(tool, {})[below] = value
        else:
            prompt[path] = value
    try:
        changed = Agent.model_validate({**agent.model_dump(by_alias=True), **own}) if own else agent
    except ValidationError as error:
        problem = error.errors()[0]
        raise UsageError(f"set {name}.{problem['loc'][0]}: {problem['msg']}") from error
    return changed, prompt, tools


def _as_written(vote: Vote) -> dict[str, Any]:
    return {about.alias or key: getattr(vote, key) for key, about in Vote.model_fields.items()}


def key_of(key: str) -> str:
    """Return how `set` calls a verb inside: `when.0.do` is `0`, and `fallback.do` is `fallback`."""
    return key.removeprefix("when.").removesuffix(".do")


def shared_out(paths: Mapping[str, Any], inside: Mapping[str, Use], name: str) -> dict[str, dict[str, Any]]:
    """Return which paths reach which verb: those that begin with its key it alone, others all that take any.

    Of a conversation every path says whom it is for.
    """
    shares: dict[str, dict[str, Any]] = {key: {} for key in inside}
    takers = [key for key, use in inside.items() if use.verb not in ("python", "http")]
    for path, value in paths.items():
        head, _, rest = path.partition(".")
        if head in inside and rest:
            shares[head][rest] = value
            continue
        if inside.keys() == {"user", "assistant"}:
            raise UsageError(f"set {name}.{path} reaches nothing; a conversation has user.KEY, assistant.KEY")
        refuse_paths({} if takers else {path: value}, name, "such a")
        for key in takers:
            shares[key][path] = value
    return shares


def refuse_paths(paths: Mapping[str, Any], name: str, what: str) -> None:
    if paths:
        raise UsageError(f"set {name}.{next(iter(paths))}: {what} step has nothing to set")


def changed_vote(vote: Vote, name: str, paths: Mapping[str, Any]) -> tuple[Vote, dict[str, Any]]:
    """Return a vote with another number of samples where `set` says so, and the paths left for what it does."""
    left = {path: value for path, value in paths.items() if path != "n"}
    if "n" not in paths:
        return vote, left
    try:
        return Vote.model_validate({**_as_written(vote), "n": paths["n"]}), left
    except ValidationError as error:
        raise UsageError(f"set {name}.n: {error.errors()[0]['msg']}") from error


def changed_retrieve(definition: Retrieve, name: str, paths: Mapping[str, Any]) -> Retrieve:
    """Return what is asked of an index, which `set` may change: another index, or how much is found."""
    try:
        return Retrieve.model_validate({**definition.model_dump(), **paths}) if paths else definition
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(map(str, problem["loc"]))
        hint = nearest(key, Retrieve.model_fields) if problem["type"] == "extra_forbidden" else None
        raise UsageError(f"set {name}.{key}: {hint or problem['msg']}") from error
