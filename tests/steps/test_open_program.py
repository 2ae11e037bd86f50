"""Prompts and chains with their overrides: what `set` reaches, who wins, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmops.definitions.workspace import load_workspace
from llmops.errors import UsageError
from llmops.steps import load_functions, open_program
from llmops.steps.base import Program
from llmops.steps.overrides import Overrides
from llmops.steps.prompt import PromptProgram

FILES: dict[str, str | bytes] = {
    "llmops.yaml": "models:\n"
    + "".join(f"  {name}: {{provider: embedded}}\n" for name in ("default", "mine", "theirs")),
    "prompts/ask.prompt.yaml": """
inputs: {text: string}
parameters: {temperature: 0, max_tokens: 8}
messages:
  - examples: {from: shown, k: 2, select: first}
    user: "{{ text }}"
    assistant: "{{ expected }}"
  - {role: user, content: "{{ text }}"}
""",
    "datasets/shown.dataset.yaml": "kind: few_shot\ninputs: {text: string}\n",
    "datasets/shown.jsonl": '{"id": "1", "inputs": {"text": "a"}, "expected": "b"}\n',
    "chains/outer.chain.yaml": """
inputs: {text: string}
steps:
  - {id: free, prompt: ask, with: {text: "{{ text }}"}}
  - {id: fixed, prompt: ask, model: mine, parameters: {temperature: 1}, with: {text: "{{ text }}"}}
  - {id: inner, chain: inner, with: {text: "{{ text }}"}}
""",
    "chains/inner.chain.yaml": """
inputs: {text: string}
steps:
  - {id: code, python: "code:same", with: {text: "{{ text }}"}}
  - {id: deep, prompt: ask, set: {examples.k: 1}, with: {text: "{{ text }}"}}
""",
    "chains/code.py": "def same(text):\n    return text\n",
}


@pytest.fixture
def opened(project: Callable[..., Path]) -> Callable[..., Program]:
    """Give a function that opens a prompt or chain of the project with overrides."""
    root = project(FILES)

    def opened(kind: Any, name: str, **overrides: Any) -> Program:
        resolved = load_workspace(root).resolve(kind, name)
        return open_program(resolved, Overrides(**overrides), seed=0)

    return opened


def prompt(program: Program, *path: str) -> PromptProgram:
    """Return the prompt at a path of steps."""
    for step in path:
        program = program.parts[step]
    assert isinstance(program, PromptProgram)
    return program


def k_of(program: PromptProgram) -> int:
    examples = program.renderer.prompt.examples
    assert examples is not None
    return examples.k


def test_overrides_of_a_prompt_reach_model_parameters_and_examples(opened: Callable[..., Program]) -> None:
    paths = {"parameters.temperature": 2, "examples.k": 1, "model": "theirs"}
    program = prompt(opened("prompt", "ask", model="mine", parameters={"top_p": 0.5}, paths=paths))
    assert program.model.name == "theirs"
    assert program.parameters == {"temperature": 2, "max_tokens": 8, "top_p": 0.5}
    assert k_of(program) == 1


def test_a_prompt_without_examples_reads_no_pool(opened: Callable[..., Program]) -> None:
    assert prompt(opened("prompt", "ask", paths={"examples.k": 0})).renderer.pool == ()
    assert len(prompt(opened("prompt", "ask")).renderer.pool) == 1


def test_a_variant_reaches_every_step_that_does_not_say_otherwise(opened: Callable[..., Program]) -> None:
    program = opened("chain", "outer", model="theirs", parameters={"temperature": 2})
    assert prompt(program, "free").model.name == "theirs"
    assert prompt(program, "inner", "deep").model.name == "theirs"
    assert prompt(program, "fixed").model.name == "mine"
    assert prompt(program, "free").parameters["temperature"] == 2
    assert prompt(program, "fixed").parameters["temperature"] == 1
    assert set(program.models) == {"mine", "theirs"}


def test_set_of_a_variant_wins_over_what_a_step_says_itself(opened: Callable[..., Program]) -> None:
    paths = {"fixed.model": "theirs", "fixed.parameters.temperature": 2, "inner.deep.examples.k": 0}
    program = opened("chain", "outer", paths=paths)
    assert prompt(program, "fixed").model.name == "theirs"
    assert prompt(program, "fixed").parameters["temperature"] == 2
    assert k_of(prompt(program, "inner", "deep")) == 0
    assert k_of(prompt(program, "free")) == 2


def test_set_of_a_step_that_is_a_chain_reaches_all_steps_of_that_chain(
    opened: Callable[..., Program],
) -> None:
    program = opened("chain", "outer", paths={"inner.model": "theirs", "inner.parameters.top_p": 0.5})
    assert prompt(program, "inner", "deep").model.name == "theirs"
    assert prompt(program, "inner", "deep").parameters["top_p"] == 0.5
    assert prompt(program, "free").model.name == "default"


@pytest.mark.parametrize(
    ("kind", "name", "overrides", "says"),
    [
        (
            "prompt",
            "ask",
            {"paths": {"temperature": 1}},
            "reaches nothing in prompt ask; it has model, parameters",
        ),
        ("prompt", "ask", {"paths": {"examples.q": 1}}, "examples.q"),
        ("prompt", "ask", {"paths": {"examples.k": -1}}, "examples.k"),
        ("prompt", "ask", {"paths": {"parameters.temprature": 1}}, "did you mean 'temperature'"),
        ("prompt", "ask", {"parameters": {"temperature": "hot"}}, "temperature"),
        ("prompt", "ask", {"model": "their"}, "did you mean 'theirs'"),
        ("chain", "outer", {"paths": {"fre.model": "mine"}}, "did you mean 'free'"),
        ("chain", "outer", {"paths": {"inner.code.x": 1}}, "a python step has nothing to set"),
        ("chain", "outer", {"paths": {"inner.dep.model": "mine"}}, "chain inner; did you mean 'deep'"),
    ],
)
def test_an_override_that_reaches_nothing_is_refused_with_what_there_is(
    opened: Callable[..., Program], kind: str, name: str, overrides: dict[str, Any], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        opened(kind, name, **overrides)


def test_functions_are_imported_before_they_are_needed_and_only_once(project: Callable[..., Path]) -> None:
    counting = "import builtins\nbuiltins.n_imports = getattr(builtins, 'n_imports', 0) + 1\n"
    root = project({**FILES, "chains/code.py": f"{counting}\ndef same(text):\n    return text\n"})
    import builtins

    program = open_program(load_workspace(root).resolve("chain", "outer"), Overrides(), seed=0)
    assert not hasattr(builtins, "n_imports")
    try:
        load_functions(program)
        load_functions(program)
        assert builtins.n_imports == 1  # type: ignore[attr-defined]
    finally:
        del builtins.n_imports  # type: ignore[attr-defined]


def test_a_function_that_is_missing_is_named(project: Callable[..., Path]) -> None:
    root = project({**FILES, "chains/code.py": "def sane(text):\n    return text\n"})
    program = open_program(load_workspace(root).resolve("chain", "inner"), Overrides(), seed=0)
    with pytest.raises(UsageError, match="did you mean 'sane'"):
        load_functions(program)
