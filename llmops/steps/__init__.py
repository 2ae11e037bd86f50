"""Steps: values go in, a value comes out. `open_program` resolves a prompt or chain with all its overrides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
    return _Site(workspace, seed, name).open(use).program


def _chain_program(workspace: Workspace, name: str, overrides: Overrides, seed: int) -> ChainProgram:
    workspace.identity("chain", name)  # refuses chains that use one another in a circle
    chain = workspace.chain(name)
    inherited, below = changed_chain(chain, name, overrides)
    steps = {
        step.id: _Site(workspace, seed, step.id, inherited, below[step.id]).open(step) for step in chain.steps
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


@dataclass(frozen=True)
class _Site:
    """Where a verb is opened, and what is said of it from outside. name: how errors call it.

    inherited: what a variant and the steps around it say of whatever they use. paths: what `set` says of it alone.
    """

    workspace: Workspace
    seed: int
    name: str
    inherited: Overrides = field(default_factory=Overrides)
    paths: Mapping[str, Any] = field(default_factory=dict)

    def inside(self, key: str, inherited: Overrides, paths: Mapping[str, Any]) -> _Site:
        """Return where a verb is opened that this one holds."""
        return _Site(self.workspace, self.seed, f"{self.name}.{key}", inherited, paths)

    def open(self, use: Use) -> Bound:
        """Return what a step carries out."""
        if use.python is not None:
            return Bound(use, self._python(use))
        if use.agent is not None:
            return Bound(use, self._agent(use, use.agent))
        if use.retrieve is not None:
            return self._retrieving(use, use.retrieve)
        if use.http is not None:
            refuse_paths(self.paths, self.name, "an http")
            return Bound(use, open_http(use.http))
        if use.body is not None:
            return Bound(use, self._holding(use))
        kind: Kind = "prompt" if use.prompt is not None else "chain"
        return Bound(use, self._program(kind, use.target, self._said(use)))

    def _said(self, use: Use) -> Overrides:
        """Return all that is said of a step, its own words below those from outside."""
        own = Overrides(use.model, use.parameters.given(), use.set)
        return Overrides(paths=self.paths).over(own.over(self.inherited))

    def _program(self, kind: Kind, target: str, overrides: Overrides) -> Program:
        return open_program(self.workspace.resolve(kind, target), overrides, seed=self.seed)

    def _python(self, use: Use) -> PythonProgram:
        refuse_paths(self.paths, self.name, "a python")
        reference = use.target
        identity = identity_of({"python": reference, "source": self.workspace.step_identity(use)})
        return PythonProgram(reference, cache(partial(self.workspace.code.load, reference)), identity)

    def _agent(self, use: Use, definition: Agent) -> AgentProgram:
        """Return an agent. What is said of its step is for its prompt and limits, `tools.NAME.KEY` for a tool."""
        said = self._said(use)
        agent, for_prompt, for_tools = changed_agent(definition, self.name, said.paths)
        prompt = self._program("prompt", agent.prompt, Overrides(said.model, said.parameters, for_prompt))
        assert isinstance(prompt, PromptProgram)  # noqa: S101 - a prompt was asked for
        tools = self._tools(agent, for_tools)
        program = open_agent(agent, prompt, tools, is_native=_is_native(agent, prompt, self.name))
        if agent.max_usd is not None:
            _refuse_unpriced(self.workspace, program, self.name)
        return program

    def _tools(self, agent: Agent, said: Mapping[str, Mapping[str, Any]]) -> list[AgentTool]:
        """Return the tools of an agent. said: by the name of a tool, what `set` says of it."""
        tools: list[AgentTool] = []
        for tool in agent.tools:
            spec = describe_tool(self.workspace, tool)
            if spec.problems:
                raise UsageError(f"{self.name}: {spec.problems[0].message}")
            site = self.inside(spec.name, self.inherited, said.get(spec.name, {}))
            tools.append(AgentTool(spec, site.open(tool)))
        names = [tool.spec.name for tool in tools]
        wrong = next((name for name in said if name not in names), None)
        if wrong is not None:
            raise UsageError(f"{self.name}: set tools.{wrong} reaches no tool; there are: {', '.join(names)}")
        if len(set(names)) < len(names):
            raise UsageError(f"{self.name}: two tools of one name")
        return tools

    def _retrieving(self, use: Use, definition: Retrieve) -> Bound:
        """Return a step that asks an index."""
        changed = changed_retrieve(definition, self.name, self.paths)
        program = open_retrieve(changed, self.workspace.resolve("index", changed.index))
        return Bound(use.model_copy(update={"retrieve": changed}), program)

    def _holding(self, use: Use) -> Program:
        """Return the program of a verb that holds others; paths reach those, by their key where there are several."""
        paths: Mapping[str, Any] = {**use.set, **self.paths}
        if use.vote is not None:
            vote, paths = changed_vote(use.vote, self.name, paths)
            use = use.model_copy(update={"vote": vote})
        bound = self._parts(use, paths)
        if use.map is not None:
            return open_map(use.map, bound["do"])
        if use.vote is not None:
            return open_vote(use.vote, bound["do"])
        if use.branch is not None:
            return open_branch(use.branch, bound)
        if use.converse is not None:
            return open_converse(use.converse, bound["user"], bound["assistant"])
        assert use.guard is not None  # noqa: S101 - the last of the verbs that hold others
        conditions = tuple(_condition(self.workspace, each, use.guard) for each in use.guard.evaluators)
        return open_guard(use.guard, conditions, bound.get("do"), bound.get("fallback"))

    def _parts(self, use: Use, paths: Mapping[str, Any]) -> dict[str, Bound]:
        """Return what a verb holds, by key.

        Whoever plays the user of a conversation inherits nothing: what a variant changes is the assistant.
        """
        assert use.body is not None  # noqa: S101 - the caller has asked
        inside = {key_of(inner.key): inner.use for inner in use.body.uses()}
        shares = shared_out(paths, inside, self.name)
        below = Overrides(use.model, use.parameters.given()).over(self.inherited)
        bound = {}
        for key, inner in inside.items():
            is_user = use.converse is not None and key == "user"
            bound[key] = self.inside(key, Overrides() if is_user else below, shares[key]).open(inner)
        return bound


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
