"""Verbs that hold others are held against what they name, at whatever depth it stands, with the line of the file."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from llmops.check import check_workspace
from llmops.definitions.workspace import load_workspace

Project = Callable[..., Path]
FILES = {
    "llmops.yaml": "models: {default: {provider: embedded}}\n",
    "prompts/ask.prompt.yaml": 'inputs: {q: string}\nmessages: [{role: user, content: "{{ q }}"}]\n',
    "prompts/grade.prompt.yaml": 'inputs: {output: string}\nmessages: [{role: user, content: "{{ output }}"}]\n',
    "chains/text.py": "open('executed', 'w')\ndef clean(*, text): return text\ndef good(output): return True\n",
}


def told(project: Project, *steps: str, **files: str) -> list[str]:
    """Return what is found in a chain with these steps after one called `first`; the third line of the file on."""
    listed = "".join(textwrap.indent(textwrap.dedent(step).strip("\n"), "  ") + "\n" for step in steps)
    first = "  - {id: first, python: 'text:clean', with: {text: \"{{ q }}\"}}\n"
    chain = f"inputs: {{q: string}}\nsteps:\n{first}{listed}"
    root = project({**FILES, "chains/flow.chain.yaml": chain, **files})
    found = [str(finding) for finding in check_workspace(load_workspace(root))]
    assert not (root / "executed").exists(), "nobody's code runs in a check"
    return [line.removeprefix("chains/flow.chain.yaml:") for line in found]


RIGHT = """
- id: pick
  branch:
    when:
      - if: "{{ first.output == q }}"
        do: {prompt: ask, with: {q: "{{ q }}"}}
    else: null
- id: best
  vote:
    n: 3
    do: {prompt: ask, with: {q: "{{ q }}"}}
    on: "{{ output | lower }}"
- id: each
  map: {over: ["a"], do: {vote: {n: 2, do: {prompt: ask, with: {q: "{{ item }}"}}}}}
- id: page
  http: {url: "https://api.example.com/v1/{{ first.output }}", query: {q: "{{ best.value }}"}}
- id: safe
  guard:
    do: {prompt: ask, with: {q: "{{ page.body }} {{ feedback }} {{ attempt }}"}}
    evaluators:
      - regex: {pattern: "a+"}
      - python: text:good
      - exact_match: {expected: "{{ best.value }}"}
      - judge: {prompt: grade, scale: [1, 5]}
    at_least: {judge: 4}
    on_fail: retry
    fallback: {value: "{{ q }}"}
"""


def test_what_is_right_has_no_findings_and_none_of_its_python_is_executed(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert told(project, RIGHT) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "first.output == q",
            "frist.output == q",
            "7:11: 'frist' is not defined here\n    did you mean 'first'?",
        ),
        ("first.output == q", "first.value == q", "7:11: step 'first' gives no 'value'"),
        ('"{{ first.output == q }}"', "yes", "7:11: a condition is one expression"),
        ("first.output == q", "true", "7:11: this condition looks at nothing of the case"),
        ("    else: null\n", "", "5:5: the key 'else' is missing"),
        (
            '{prompt: ask, with: {q: "{{ q }}"}}\n    else',
            "{prompt: aks, with: {q: a}}\n    else",
            "8:16: no prompt is called 'aks'",
        ),
        ("n: 3", "n: 1", "12:7: n: should be at least 2, not 1"),
        ("output | lower", "outptu | lower", "14:7: 'outptu' is not defined here"),
        ("{{ item }}", "{{ itme }}", "'itme' is not defined here"),
        ('{q: "{{ item }}"}', "{}", "ask is given no 'q'"),
        (
            'best.value }}"}}\n- id: safe',
            'best.values }}"}}\n- id: safe',
            "18:74: step 'best' gives no 'values'",
        ),
        ("page.body", "page.text", "step 'page' gives no 'text'"),
        ('regex: {pattern: "a+"}', "regx: {pattern: a}", "23:11: regx: no evaluator is called 'regx'"),
        ('pattern: "a+"', "patern: a", "23:19: unknown key 'patern'"),
        ("text:good", "text:goood", "24:11: goood: chains/text.py has no function 'goood'"),
        (
            'exact_match: {expected: "{{ best.value }}"}',
            "exact_match",
            "exact_match compares with what is expected",
        ),
        (
            '{{ best.value }}"}\n      - judge',
            '{{ bets.value }}"}\n      - judge',
            "25:25: 'bets' is not defined here",
        ),
        ("prompt: grade", "prompt: grad", "no prompt is called 'grad'"),
        ("at_least: {judge: 4}", "at_least: {juge: 4}", "27:18: no evaluator here is called 'juge'"),
        ("on_fail: retry", "on_fail: redact", "`redact` says what is replaced"),
        ('value: "{{ q }}"}', 'value: "{{ p }}"}', "29:18: 'p' is not defined here"),
        ("https://api.example.com", "https://{{ q }}", "18:12: url: the address begins with a fixed"),
    ],
)
def test_a_slip_is_told_with_its_line(project: Project, old: str, new: str, said: str) -> None:
    assert old in RIGHT
    found = told(project, RIGHT.replace(old, new, 1))
    assert any(said in line for line in found), found


@pytest.mark.parametrize(
    "use",
    [
        "{id: s, map: {over: [1], do: {chain: a}}}",
        "{id: s, vote: {n: 2, do: {chain: a}}}",
        "{id: s, branch: {when: [{if: '{{ q }}', do: {chain: a}}], else: null}}",
        "{id: s, branch: {when: [{if: '{{ q }}', do: {python: 'text:clean', with: {text: a}}}], else: {chain: a}}}",
        "{id: s, guard: {do: {chain: a}, evaluators: [json_valid]}}",
        "{id: s, guard: {value: a, evaluators: [json_valid], on_fail: fallback, fallback: {do: {chain: a}}}}",
        "{id: s, map: {over: [1], do: {vote: {n: 2, do: {chain: a}}}}}",
    ],
)
def test_a_chain_that_uses_itself_inside_a_verb_is_told_with_the_circle(
    project: Project, use: str
) -> None:  # F70
    root = project({**FILES, "chains/a.chain.yaml": f"inputs: {{q: boolean}}\nsteps:\n  - {use}\n"})
    found = [str(finding) for finding in check_workspace(load_workspace(root))]
    assert any("chains use one another in a circle: a -> a" in line for line in found), found
    assert all(line.startswith("chains/a.chain.yaml:3:") for line in found), found


def test_steps_that_wait_for_one_another_through_what_they_hold_are_told(project: Project) -> None:  # F70
    one = "- id: one\n  vote: {n: 2, do: {prompt: ask, with: {q: '{{ two.output }}'}}}"
    two = "- id: two\n  branch: {when: [{if: '{{ one.value == 1 }}', do: {prompt: ask, with: {q: a}}}], else: null}"
    assert told(project, one, two) == ["4:5: steps wait for one another: one -> two -> one"]


def test_a_verb_that_looks_at_its_own_step_is_told(project: Project) -> None:
    step = (
        "- id: one\n  branch: {when: [{if: '{{ one.output }}', do: {prompt: ask, with: {q: a}}}], else: null}"
    )
    assert told(project, step) == ["5:22: step 'one' refers to itself"]


def test_overrides_reach_what_a_verb_holds_and_say_so_where_nothing_is(project: Project) -> None:
    files = {
        "datasets/d.dataset.yaml": "inputs: {q: string}\nexpected: {type: string}\n",
        "datasets/d.jsonl": '{"id": "1", "inputs": {"q": "a"}, "expected": "a"}\n',
        "experiments/e.experiment.yaml": (
            "dataset: d\nevaluators: [exact_match]\nvariants:\n"
            "  a: {chain: flow, set: {best.n: 5, pick.0.parameters.max_tokens: 3, each.model: default}}\n"
            "  b: {chain: flow, set: {best.n: 1}}\n"
            "  c: {chain: flow, set: {page.model: default}}\n"
        ),
    }
    found = told(project, RIGHT, **files)
    assert [line.partition(": variant ")[2] for line in found] == [
        "b: set best.n: Input should be greater than or equal to 2",
        "c: set page.model: an http step has nothing to set",
    ]
