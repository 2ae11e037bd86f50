"""Steps: values go in, a value comes out. `open_program` resolves a prompt or chain with all its overrides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

from pydantic import ValidationError

from llmops.definitions.base import identity_of
from llmops.definitions.chain import Agent, Chain, Guard, Retrieve, Use, Vote, wiring
from llmops.definitions.dataset import Case
from llmops.definitions.experiment import EvaluatorUse
from llmops.definitions.prompt import ExamplesBlock, Parameters, Prompt
from llmops.definitions.reference import Kind
from llmops.definitions.tools import describe_tool
from llmops.definitions.workspace import Resolved, Workspace
from llmops.errors import UsageError, nearest
from llmops.evaluators.bound import open_bound
from llmops.models import model_class, model_version
from llmops.models.base import Ability
from llmops.models.http import HOST
from llmops.render import Renderer
from llmops.steps.agent import AgentProgram, open_agent
from llmops.steps.base import Bound, Program
from llmops.steps.branch import open_branch
from llmops.steps.chain import ChainProgram
from llmops.steps.conversing import open_converse
from llmops.steps.guard import Condition, GuardProgram, open_guard
from llmops.steps.http import open_http
from llmops.steps.mapping import open_map
from llmops.steps.prompt import PromptProgram
from llmops.steps.python import PythonProgram
from llmops.steps.retrieve import RetrieveProgram, open_retrieve
from llmops.steps.tool import AgentTool
from llmops.steps.vote import open_vote

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


class SettingError(UsageError):
    """A setting of an agent that its models cannot keep. key: of the agent."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def open_program(resolved: Resolved, overrides: Overrides, *, seed: int) -> Program:
    """Return a prompt or chain ready to be carried out, with the model of today's project.

    A release comes with the model and parameters it was judged with, unless the overrides say otherwise.

    Raises UsageError for an override that reaches nothing, an unknown model, or what resolving raises.
    """
    if resolved.release is not None:
        overrides = overrides.over(Overrides(resolved.release.model, resolved.release.parameters))
    if resolved.kind == "prompt":
        return _prompt_program(resolved.workspace, resolved.name, overrides, seed)
    return _chain_program(resolved.workspace, resolved.name, overrides, seed)


def _prompt_program(workspace: Workspace, name: str, overrides: Overrides, seed: int) -> PromptProgram:
    prompt, overrides = _changed_prompt(workspace.prompt(name), name, overrides)
    parameters = {**prompt.parameters.given(), **_checked_parameters(overrides.parameters)}
    model = overrides.model or prompt.model
    names = workspace.today.project.in_turn(model)
    version, *fallbacks = [model_version(name, workspace.model(name)) for name in names]
    pool: Sequence[Case] = ()
    shown = drawn = None
    if prompt.examples is not None and prompt.examples.k:
        dataset, split = workspace.cases(prompt.examples.source)
        pool, shown = dataset.of(split), dataset.version(split)
        drawn = seed if prompt.examples.select in {"random", "balanced"} else None
    meaning = {key: value for key, value in prompt.meaning().items() if key not in {"model", "parameters"}}
    if shown is None:
        meaning["messages"] = [message for message in meaning["messages"] if "examples" not in message]
    words = {"prompt": meaning, "examples": shown, "seed": drawn}
    return PromptProgram(
        name=name,
        renderer=Renderer(prompt, pool, seed=seed, images=workspace.images),
        model=version,
        fallbacks=fallbacks,
        parameters=parameters,
        identity=identity_of(
            {
                **words,
                "model": version.identity,
                "with": parameters,
                **({"images": images} if (images := workspace.images_of(prompt)) else {}),
                **({"fallbacks": [each.identity for each in fallbacks]} if fallbacks else {}),
            }
        ),
        prompts={name: workspace.identity("prompt", name)},
        words=identity_of(words),
    )


def _changed_prompt(prompt: Prompt, name: str, overrides: Overrides) -> tuple[Prompt, Overrides]:
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


def _checked_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return Parameters.model_validate(dict(parameters)).given()
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(map(str, problem["loc"]))
        hint = nearest(key, Parameters.model_fields)
        raise UsageError(f"parameter {key!r}: {hint or problem['msg']}") from error


def open_use(workspace: Workspace, use: Use, name: str, *, seed: int) -> Program:
    """Return what one step carries out, without what a variant may change; raises as `open_program` does."""
    return _bound(workspace, use, Overrides(), {}, seed, name).program


def _chain_program(workspace: Workspace, name: str, overrides: Overrides, seed: int) -> ChainProgram:
    workspace.identity("chain", name)  # refuses chains that use one another in a circle
    chain = workspace.chain(name)
    inherited, below = _changed_chain(chain, name, overrides)
    steps = {
        step.id: _bound(workspace, step, inherited, below[step.id], seed, step.id) for step in chain.steps
    }
    programs = [step.program for step in steps.values()]
    return ChainProgram(
        name=name,
        chain=chain,
        steps=steps,
        identity=identity_of(
            {
                "chain": _own_meaning(chain),
                "uses": {key: step.program.identity for key, step in steps.items()},
            }
        ),
        models={key: model for program in programs for key, model in program.models.items()},
        prompts={key: prompt for program in programs for key, prompt in program.prompts.items()},
    )


def _changed_chain(
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


def _bound(
    workspace: Workspace, use: Use, inherited: Overrides, paths: Mapping[str, Any], seed: int, name: str
) -> Bound:
    """Return what a step carries out. paths: what `set` says of it. name: how errors call it."""
    if use.python is not None:
        return Bound(use, _python_program(workspace, use, paths, name))
    if use.agent is not None:
        return Bound(use, _agent_program(workspace, use, inherited, paths, seed, name))
    if use.retrieve is not None:
        return _retrieving(workspace, use, use.retrieve, paths, name)
    if use.http is not None:
        _refuse_paths(paths, name, "an http")
        return Bound(use, open_http(use.http))
    own = Overrides(use.model, use.parameters.given(), use.set)
    if use.body is not None:
        below = Overrides(own.model, own.parameters).over(inherited)
        return Bound(use, _holding(workspace, use, below, {**own.paths, **paths}, seed, name))
    kind: Kind = "prompt" if use.prompt is not None else "chain"
    overrides = Overrides(paths=paths).over(own.over(inherited))
    return Bound(use, open_program(workspace.resolve(kind, use.target), overrides, seed=seed))


def _agent_program(
    workspace: Workspace, use: Use, inherited: Overrides, paths: Mapping[str, Any], seed: int, name: str
) -> AgentProgram:
    """Return an agent. What is said of its step is for its prompt and limits; `tools.NAME.KEY` reaches a tool's own."""
    assert use.agent is not None  # noqa: S101 - the caller has asked
    own = Overrides(use.model, use.parameters.given(), use.set)
    said = Overrides(paths=paths).over(own.over(inherited))
    agent, for_prompt, for_tools = _changed_agent(use.agent, name, said.paths)
    prompt = open_program(
        workspace.resolve("prompt", agent.prompt),
        Overrides(said.model, said.parameters, for_prompt),
        seed=seed,
    )
    assert isinstance(prompt, PromptProgram)  # noqa: S101 - a prompt was asked for
    tools: list[AgentTool] = []
    for tool in agent.tools:
        spec = describe_tool(workspace, tool)
        if spec.problems:
            raise UsageError(f"{name}: {spec.problems[0].message}")
        bound = _bound(workspace, tool, inherited, for_tools.pop(spec.name, {}), seed, f"{name}.{spec.name}")
        tools.append(AgentTool(spec, bound))
    names = [tool.spec.name for tool in tools]
    if for_tools or len(set(names)) < len(names):
        wrong = next(iter(for_tools), None)
        told = (
            f"set tools.{wrong} reaches no tool; there are: {', '.join(names)}"
            if wrong
            else "two tools of one name"
        )
        raise UsageError(f"{name}: {told}")
    program = open_agent(agent, prompt, tools, is_native=_is_native(agent, prompt, name))
    if agent.max_usd is not None:
        _refuse_unpriced(workspace, program, name)
    return program


def _changed_agent(
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


def _is_native(agent: Agent, prompt: PromptProgram, name: str) -> bool:
    """Say whether tools go as calls of the provider's own: all who may be asked must be able to make them."""
    unable = [
        each for each in prompt.models.values() if Ability.TOOLS not in model_class(each.provider).abilities
    ]
    if unable and agent.mode == "native":
        raise SettingError(
            "mode",
            f"{name}: mode native, but model {unable[0].name} ({unable[0].provider}) has no tool calls; "
            "write `mode: text` or `auto`",
        )
    return agent.mode == "native" or (agent.mode == "auto" and not unable)


def _refuse_unpriced(workspace: Workspace, program: Program, name: str) -> None:
    asked = [name for name, version in program.models.items() if version.provider != HOST]
    unknown = [model for model in asked if workspace.model(model).pricing() is None]
    if unknown:
        message = f"{name}: max_usd cannot be held, nobody knows the price of model {unknown[0]}"
        raise SettingError("max_usd", message)


def _retrieving(
    workspace: Workspace, use: Use, definition: Retrieve, paths: Mapping[str, Any], name: str
) -> Bound:
    """Return a step that asks an index, which `set` may change: another index, or how much is found."""
    if paths:
        try:
            definition = Retrieve.model_validate({**definition.model_dump(), **paths})
        except ValidationError as error:
            problem = error.errors()[0]
            key = ".".join(map(str, problem["loc"]))
            hint = nearest(key, Retrieve.model_fields) if problem["type"] == "extra_forbidden" else None
            raise UsageError(f"set {name}.{key}: {hint or problem['msg']}") from error
        use = use.model_copy(update={"retrieve": definition})
    return Bound(use, open_retrieve(definition, workspace.resolve("index", definition.index)))


def _holding(
    workspace: Workspace, use: Use, inherited: Overrides, paths: Mapping[str, Any], seed: int, name: str
) -> Program:
    """Return the program of a verb that holds others. paths: reach those, by their key where there are several."""
    if use.vote is not None and "n" in paths:
        try:
            use = use.model_copy(
                update={"vote": Vote.model_validate({**_as_written(use.vote), "n": paths["n"]})}
            )
        except ValidationError as error:
            raise UsageError(f"set {name}.n: {error.errors()[0]['msg']}") from error
        paths = {path: value for path, value in paths.items() if path != "n"}
    inside = {_key_of(inner.key): inner.use for inner in use.body.uses()} if use.body is not None else {}
    shares = _shared_out(paths, inside, name)
    bound = {
        key: _bound(workspace, inner, below, shares[key], seed, f"{name}.{key}")
        for key, inner in inside.items()
        for below in [Overrides() if use.converse is not None and key == "user" else inherited]
    }
    if use.map is not None:
        return open_map(use.map, bound["do"])
    if use.vote is not None:
        return open_vote(use.vote, bound["do"])
    if use.branch is not None:
        return open_branch(use.branch, bound)
    if (
        use.converse is not None
    ):  # what a variant changes is the assistant; whoever plays the user stays the same
        return open_converse(use.converse, bound["user"], bound["assistant"])
    assert use.guard is not None  # noqa: S101 - the last of the verbs that hold others
    conditions = tuple(_condition(workspace, each, use.guard) for each in use.guard.evaluators)
    return open_guard(use.guard, conditions, bound.get("do"), bound.get("fallback"))


def _as_written(vote: Vote) -> dict[str, Any]:
    return {about.alias or key: getattr(vote, key) for key, about in Vote.model_fields.items()}


def _key_of(key: str) -> str:
    """Return how `set` calls a verb inside: `when.0.do` is `0`, and `fallback.do` is `fallback`."""
    return key.removeprefix("when.").removesuffix(".do")


def _shared_out(paths: Mapping[str, Any], inside: Mapping[str, Use], name: str) -> dict[str, dict[str, Any]]:
    """Return which paths reach which verb: those that begin with its key it alone, others all that take any."""
    shares: dict[str, dict[str, Any]] = {key: {} for key in inside}
    takers = [key for key, use in inside.items() if use.verb not in ("python", "http")]
    for path, value in paths.items():
        head, _, rest = path.partition(".")
        if head in inside and rest:
            shares[head][rest] = value
            continue
        _refuse_paths({} if takers else {path: value}, name, "such a")
        for key in takers:
            shares[key][path] = value
    return shares


def _refuse_paths(paths: Mapping[str, Any], name: str, what: str) -> None:
    if paths:
        raise UsageError(f"set {name}.{next(iter(paths))}: {what} step has nothing to set")


def _condition(workspace: Workspace, use: EvaluatorUse, guard: Guard) -> Condition:
    """Return an evaluator of a guard; one of the project's own code is imported once it is needed."""
    at_least = guard.at_least.get(use.name)
    if use.kind == "python":
        reference = str(use.options.get("function", ""))
        source = workspace.code.identity(reference.partition(":")[0])
        identity = identity_of({"python": use.options, "source": source})
        return Condition(use, identity, cache(partial(open_bound, workspace, use)), {}, {}, at_least)
    try:
        bound = open_bound(workspace, use)
    except ValidationError as error:
        problem = error.errors()[0]
        raise UsageError(f"{use.name}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from error
    if bound.evaluator.high is None and at_least is None:
        raise UsageError(f"{use.name} has no best score; say under `at_least` which passes")
    return Condition(use, bound.identity, lambda: bound, bound.models, bound.prompts, at_least)


def _python_program(workspace: Workspace, use: Use, paths: Mapping[str, Any], name: str) -> PythonProgram:
    _refuse_paths(paths, name, "a python")
    reference = use.target
    identity = identity_of({"python": reference, "source": workspace.step_identity(use)})
    return PythonProgram(reference, cache(partial(workspace.code.load, reference)), identity)


def _own_meaning(chain: Chain) -> dict[str, Any]:
    """What the chain itself adds: its wiring. What its steps use is in the identities of their programs."""
    dumped = chain.meaning()
    steps = [{"id": step.id, **wiring(step)} for step in chain.steps]
    return {"inputs": dumped.get("inputs", {}), "steps": steps, "outputs": dumped.get("outputs")}


def load_functions(program: Program) -> None:
    """Import every function a program calls and build every index it asks, before anything is paid for.

    Raises UsageError saying which module failed, and how, and what building an index raises.
    """
    if isinstance(program, PythonProgram | RetrieveProgram | GuardProgram):
        program.load()
    for part in program.parts.values():
        load_functions(part)
