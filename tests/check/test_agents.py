"""What is wrong with an agent is told before it runs, at the line that says it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from llmops.check import check_workspace
from llmops.definitions.workspace import load_workspace

CHAIN = """\
inputs: {q: string}
steps:
  - id: solve
    agent:
      prompt: ask
      with: {q: "{{ q }}"}
      tools:
        - python: code:add
        - name: twice
          description: Doubles a number.
          inputs: {number: integer}
          map: {over: ["{{ number }}"], do: {python: "code:add", with: {a: "{{ item }}", b: "{{ item }}"}}}
        - {chain: inner}
      max_steps: 3
"""
FILES: dict[str, str] = {
    "llmops.yaml": """\
models:
  default: {provider: embedded}
  served: {provider: openai, endpoint_env: URL, api_key_env: KEY, model: m}
""",
    "prompts/ask.prompt.yaml": """\
description: Asks.
inputs: {q: string}
messages: [{role: user, content: "{{ q }}"}]
""",
    "chains/solve.chain.yaml": CHAIN,
    "chains/inner.chain.yaml": """\
description: Asks again.
inputs: {q: string}
steps: [{id: ask, prompt: ask, with: {q: "{{ q }}"}}]
""",
    "chains/code.py": '''\
open("executed", "w")


def add(a: int, b: int) -> int:
    """Add."""
    return a + b


def bare(a: int): ...


def untyped(a):
    """Do."""


def odd(a: bytes):
    """Do."""
''',
}

Told = Callable[..., list[str]]


@pytest.fixture
def told(project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Told:
    """Give a function that says what is found once a text of the chain is replaced."""

    def told(old: str = "", new: str = "", **files: str) -> list[str]:
        assert old in CHAIN
        root = project({**FILES, "chains/solve.chain.yaml": CHAIN.replace(old, new, 1), **files})
        monkeypatch.chdir(root)
        found = [str(finding) for finding in check_workspace(load_workspace(root))]
        assert not (root / "executed").exists()
        return found

    return told


def test_an_agent_that_is_right_has_no_findings(told: Told) -> None:
    assert told() == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "code:add",
            "code:bare",
            "8:11: nothing says what the tool bare does\n    give the function a docstring",
        ),
        ("code:add", "code:untyped", "8:11: code:untyped gives 'a' no type"),
        ("code:add", "code:odd", "8:11: code:odd: a: bytes is no type that JSON has"),
        ("code:add", "code:ad", "8:11: chains/code.py has no function 'ad'; did you mean 'add'?"),
        ("code:add", "cod:add", "8:11: no module chains/cod.py; did you mean 'code'?"),
        ("{chain: inner}", "{chain: iner}", "13:12: no chain is called 'iner'"),
        ("{chain: inner}", "{chain: inner, with: {p: 1}}", "13:33: inner takes no 'p'"),
        ("{chain: inner}", "{prompt: ask, name: twice}", "13:25: two tools of this agent are called 'twice'"),
        ("{chain: inner}", "{python: code:add}", "13:12: two tools of this agent are called 'add'"),
        ("          description: Doubles a number.\n", "", "11:11: nothing says what the tool twice does"),
        ("name: twice", "name: not a name", "9:11: name: does not have the form"),
        (
            "prompt: ask",
            "prompt: aks",
            "5:7: no prompt is called 'aks' in the work tree; did you mean 'ask'?",
        ),
        ('{q: "{{ q }}"}', "{}", "ask is given no 'q'"),
        ('{q: "{{ q }}"}', '{q: "{{ p }}"}', "6:14: 'p' is not defined here"),
        ('["{{ number }}"]', '["{{ nubmer }}"]', "'nubmer' is not defined here\n    did you mean 'number'?"),
        ("max_steps: 3", "max_stesp: 3", "did you mean 'max_steps'?"),
        ("max_steps: 3", "max_steps: 0", "14:7: max_steps: "),
        ("id: solve", "id: solve\n    model: gone", "llmops.yaml has no model 'gone'"),
        (
            "id: solve",
            "id: solve\n    set: {tools.tow.model: x}",
            "4:5: the agent: set tools.tow reaches no tool",
        ),
        (
            "id: solve",
            "id: solve\n    model: served\n    set: {max_usd: 1}",
            "nobody knows the price of model served",
        ),
    ],
)
def test_what_is_wrong_with_an_agent_is_told_where_it_stands(
    told: Told, old: str, new: str, said: str
) -> None:
    found = told(old, new)
    assert any(said in line for line in found), found


def test_a_model_that_calls_no_tools_is_told_at_the_mode(
    told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plainly.py").write_text(
        "from llmops.models.embedded import EmbeddedModel\n"
        "class Plain(EmbeddedModel):\n    abilities = EmbeddedModel.abilities - {'tools'}\n"
    )
    described = tmp_path / "plainly-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: plainly\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text("[llmops.models]\nplain = plainly:Plain\n")
    monkeypatch.syspath_prepend(tmp_path)
    plain = {"llmops.yaml": "models: {default: {provider: plain}}"}
    assert told(**plain) == []
    (found,) = told("max_steps: 3", "mode: native", **plain)
    assert found == (
        "chains/solve.chain.yaml:14:7: the agent: mode native, but model default (plain) has no tool calls; "
        "write `mode: text` or `auto`"
    )


def test_money_that_nobody_can_count_is_told_at_the_limit(told: Told) -> None:
    found = told(
        "max_steps: 3",
        "max_usd: 1",
        **{"llmops.yaml": FILES["llmops.yaml"].replace("default", "other").replace("served", "default")},
    )
    assert any("14:7: the agent: max_usd cannot be held" in line for line in found), found


def test_agents_that_use_one_another_in_a_circle_are_told(told: Told) -> None:
    again = FILES["chains/inner.chain.yaml"].replace("prompt: ask", "chain: solve")
    found = told(**{"chains/inner.chain.yaml": again})
    assert any("chains use one another in a circle" in line for line in found), found
