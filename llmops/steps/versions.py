"""What of a chain's steps changed between two runs, and what follows from it, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from llmops.definitions.base import identity_of
from llmops.definitions.chain import dependencies, wiring
from llmops.records import StepVersion
from llmops.steps.base import Program
from llmops.steps.chain import ChainProgram
from llmops.steps.guard import GuardProgram
from llmops.steps.prompt import PromptProgram
from llmops.steps.python import PythonProgram


def step_versions(program: ChainProgram) -> tuple[StepVersion, ...]:
    """Return the steps of a chain with what determines each, each after those it reads."""
    reads, steps = dependencies(program.chain), {step.id: step for step in program.chain.steps}
    return tuple(
        StepVersion(
            id=step.id,
            verb=program.steps[step.id].program.kind,
            reads=tuple(sorted(reads[step.id])),
            parts={
                "inputs" if step.body is None else step.verb: identity_of(wiring(step)),
                **dict(_parts(program.steps[step.id].program)),
            },
        )
        for step in map(steps.__getitem__, program.order)
    )


def _parts(program: Program, of: str = "") -> Iterator[tuple[str, str]]:
    """Yield what determines the outputs of a program beside its inputs. of: of which verb inside a step it is."""
    if isinstance(program, PromptProgram):
        yield f"words{of}", program.words
        yield f"model{of}", identity_of([model.identity for model in program.models.values()])
        yield f"parameters{of}", identity_of(dict(program.parameters))
    elif isinstance(program, PythonProgram):
        yield f"function{of}", program.identity
    elif isinstance(program, ChainProgram):
        yield f"chain{of}", program.identity
    else:
        if isinstance(program, GuardProgram):
            yield from ((f"evaluator {each.use.name}{of}", each.identity) for each in program.conditions)
        for name, part in program.parts.items():
            yield from _parts(part, of if name == "do" else f"{of} of {name}")


def step_changes(before: Sequence[StepVersion], after: Sequence[StepVersion]) -> Iterator[str]:
    """Yield in words which steps of a chain changed, and then what follows."""
    then, now = {step.id: step for step in before}, {step.id: step for step in after}
    changed = {
        name: [
            part
            for part in {**then[name].parts, **step.parts}
            if then[name].parts.get(part) != step.parts.get(part)
        ]
        for name, step in now.items()
        if name in then and dict(then[name].parts) != dict(step.parts)
    }
    new = [name for name in now if name not in then]
    yield from (f"step {name} changed: {', '.join(parts)}" for name, parts in changed.items())
    yield from (f"step {name} is new" for name in new)
    yield from (f"step {name} is gone" for name in then if name not in now)
    following = _following({*changed, *new}, now)
    if following:
        yield f"{', '.join(following)}: asked again only where what is read there really changed"
    kept = [name for name in now if name not in (*changed, *new, *following)]
    if kept:
        yield f"{', '.join(kept)}: nothing is asked again"


def _following(changed: set[str], steps: Mapping[str, StepVersion]) -> list[str]:
    """Return the steps that read a changed one, directly or through others, in the order of the chain."""
    reached = set(changed)
    while True:
        more = {name for name, step in steps.items() if name not in reached and reached & set(step.reads)}
        if not more:
            return [name for name in steps if name in reached - changed]
        reached |= more
