"""Steps: values go in, a value comes out. `open_program` resolves a prompt or chain with all its overrides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any

from pydantic import ValidationError

from llmops.definitions.base import identity_of
from llmops.definitions.chain import Agent, Chain, Guard, Retrieve, Use, wiring
from llmops.definitions.dataset import Case
from llmops.definitions.experiment import EvaluatorUse
from llmops.definitions.reference import Kind
from llmops.definitions.tools import describe_tool
from llmops.definitions.workspace import Resolved, Workspace
from llmops.errors import UsageError
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
from llmops.steps.overrides import (
    Overrides,
    changed_agent,
    changed_chain,
    changed_prompt,
    changed_retrieve,
    changed_vote,
    checked_parameters,
    key_of,
    refuse_paths,
    shared_out,
)
from llmops.steps.prompt import PromptProgram
from llmops.steps.python import PythonProgram
from llmops.steps.retrieve import RetrieveProgram, open_retrieve
from llmops.steps.tool import AgentTool
from llmops.steps.vote import open_vote


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
    prompt, overrides = changed_prompt(workspace.prompt(name), name, overrides)
    parameters = {**prompt.parameters.given(), **checked_parameters(overrides.parameters)}
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


def open_use(workspace: Workspace, use: Use, name: str, *, seed: int) -> Program:
    """Return what one step carries out, without what a variant may change; raises as `open_program` does."""
    return _bound(workspace, use, Overrides(), {}, seed, name).program


def _chain_program(workspace: Workspace, name: str, overrides: Overrides, seed: int) -> ChainProgram:
    workspace.identity("chain", name)  # refuses chains that use one another in a circle
    chain = workspace.chain(name)
    inherited, below = changed_chain(chain, name, overrides)
    steps = {
        step.id: _bound(workspace, step, inherited, below[step.id], seed, step.id) for step in chain.steps
    }
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
    )


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
        refuse_paths(paths, name, "an http")
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
    agent, for_prompt, for_tools = changed_agent(use.agent, name, said.paths)
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
    """Return a step that asks an index."""
    changed = changed_retrieve(definition, name, paths)
    program = open_retrieve(changed, workspace.resolve("index", changed.index))
    return Bound(use.model_copy(update={"retrieve": changed}), program)


def _holding(
    workspace: Workspace, use: Use, inherited: Overrides, paths: Mapping[str, Any], seed: int, name: str
) -> Program:
    """Return the program of a verb that holds others. paths: reach those, by their key where there are several.

    Whoever plays the user of a conversation inherits nothing: what a variant changes is the assistant.
    """
    if use.vote is not None:
        vote, paths = changed_vote(use.vote, name, paths)
        use = use.model_copy(update={"vote": vote})
    inside = {key_of(inner.key): inner.use for inner in use.body.uses()} if use.body is not None else {}
    shares = shared_out(paths, inside, name)
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
    if use.converse is not None:
        return open_converse(use.converse, bound["user"], bound["assistant"])
    assert use.guard is not None  # noqa: S101 - the last of the verbs that hold others
    conditions = tuple(_condition(workspace, each, use.guard) for each in use.guard.evaluators)
    return open_guard(use.guard, conditions, bound.get("do"), bound.get("fallback"))


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
    refuse_paths(paths, name, "a python")
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
