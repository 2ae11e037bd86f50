"""Steps: values go in, a value comes out. `open_program` resolves a prompt or chain with all its overrides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

from pydantic import ValidationError

from llmops.definitions.base import identity_of
from llmops.definitions.chain import Chain, Use
from llmops.definitions.dataset import Case
from llmops.definitions.prompt import ExamplesBlock, Parameters, Prompt
from llmops.definitions.reference import Kind
from llmops.definitions.workspace import Resolved, Workspace
from llmops.errors import UsageError, nearest
from llmops.models import model_version
from llmops.render import Renderer
from llmops.steps.base import Bound, Program
from llmops.steps.chain import ChainProgram
from llmops.steps.conversing import open_converse
from llmops.steps.mapping import open_map
from llmops.steps.prompt import PromptProgram
from llmops.steps.python import PythonProgram


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
    return PromptProgram(
        name=name,
        renderer=Renderer(prompt, pool, seed=seed, images=workspace.images),
        model=version,
        fallbacks=fallbacks,
        parameters=parameters,
        identity=identity_of(
            {
                "prompt": meaning,
                "examples": shown,
                "seed": drawn,
                "model": version.identity,
                "with": parameters,
                **({"images": images} if (images := workspace.images_of(prompt)) else {}),
                **({"fallbacks": [each.identity for each in fallbacks]} if fallbacks else {}),
            }
        ),
        prompts={name: workspace.identity("prompt", name)},
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
    if use.map is not None:
        inner = _bound(workspace, use.map.do, inherited, paths, seed, name)
        return Bound(use, open_map(use.map, inner))
    if use.converse is not None:
        return _bound_converse(workspace, use, inherited, paths, seed, name)
    kind: Kind = "prompt" if use.prompt is not None else "chain"
    own = Overrides(use.model, use.parameters.given(), use.set)
    overrides = Overrides(paths=paths).over(own.over(inherited))
    return Bound(use, open_program(workspace.resolve(kind, use.target), overrides, seed=seed))


def _bound_converse(
    workspace: Workspace, use: Use, inherited: Overrides, paths: Mapping[str, Any], seed: int, name: str
) -> Bound:
    """Bind the two who speak; the model and parameters that a chain is given go to the assistant alone."""
    assert use.converse is not None  # noqa: S101 - its caller looked
    below: dict[str, dict[str, Any]] = {"user": {}, "assistant": {}}
    for path, value in paths.items():
        head, _, rest = path.partition(".")
        if head not in below or not rest:
            raise UsageError(f"set {name}.{path} reaches nothing; a conversation has user.KEY, assistant.KEY")
        below[head][rest] = value
    user = _bound(workspace, use.converse.user, Overrides(), below["user"], seed, f"{name}.user")
    assistant = _bound(
        workspace, use.converse.assistant, inherited, below["assistant"], seed, f"{name}.assistant"
    )
    return Bound(use, open_converse(use.converse, user, assistant))


def _python_program(workspace: Workspace, use: Use, paths: Mapping[str, Any], name: str) -> PythonProgram:
    if paths:
        raise UsageError(f"set {name}.{next(iter(paths))}: a python step has nothing to set")
    reference = use.target
    identity = identity_of({"python": reference, "source": workspace.step_identity(use)})
    return PythonProgram(reference, cache(partial(workspace.code.load, reference)), identity)


def _own_meaning(chain: Chain) -> dict[str, Any]:
    """What the chain itself adds: its wiring. What its steps use is in the identities of their programs."""
    dumped = chain.meaning()
    steps = [{"id": step["id"], "with": step.get("with", {})} for step in dumped["steps"]]
    return {"inputs": dumped.get("inputs", {}), "steps": steps, "outputs": dumped.get("outputs")}


def load_functions(program: Program) -> None:
    """Import every function a program calls, so that one that cannot be is known before anything is paid for.

    Raises UsageError saying which module failed, and how.
    """
    if isinstance(program, PythonProgram):
        program.load()
    for part in program.parts.values():
        load_functions(part)
