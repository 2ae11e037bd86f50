"""`llmops render` as people run it: the messages, their size, and what keeps them from being made."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmops.cli import root
from llmops.cli.render import read_inputs, read_paths
from llmops.errors import LlmopsError, UsageError
from tests.cli.command import llmops

Project = Callable[..., Path]
Git = Callable[..., str]

PROMPT = """\
inputs: {q: string, n: integer}
messages:
  - {role: system, content: "Answer {{ n }} words."}
  - examples: {from: cases/train, k: 1}
    user: "{{ q }}"
    assistant: "{{ expected }}"
  - {role: user, content: "{{ q }}"}
"""


def row(case_id: str, split: str, q: str) -> str:
    return (
        json.dumps(
            {"id": case_id, "inputs": {"q": q, "n": 3}, "expected": "yes", "metadata": {"split": split}}
        )
        + "\n"
    )


FILES = {
    "llmops.yaml": "",
    "prompts/ask.prompt.yaml": PROMPT,
    "chains/evil.py": "open('executed', 'w')\n",
    "datasets/cases.dataset.yaml": "splits: {by: metadata.split}\n",
    "datasets/cases.jsonl": row("a", "train", "Is it?") + row("b:1", "test", "Was it?"),
}


def render(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return llmops("render", *arguments, cwd=folder)


def test_the_messages_are_shown_with_roles_and_a_token_estimate(project: Project) -> None:
    done = render(project(FILES), "ask", "--case", "cases/test:b:1")
    assert done.returncode == 0, done.stderr
    *shown, size = done.stdout.splitlines()
    assert shown == [
        *("--- system", "Answer 3 words."),
        *("--- user", "Is it?", "--- assistant", "yes"),
        *("--- user", "Was it?"),
    ]
    assert size.startswith("--- about ")
    assert size.endswith(" tokens in 4 messages")


def test_json_is_the_messages_and_nothing_else(project: Project) -> None:
    done = render(
        project(FILES), "prompts/ask", "--input", "q=Hm?", "--input", "n=2", "--set", "examples.k=0", "--json"
    )
    found = json.loads(done.stdout)
    assert found["messages"] == [
        {"role": "system", "content": "Answer 2 words."},
        {"role": "user", "content": "Hm?"},
    ]
    assert found["estimated_tokens"] > 0


def test_an_input_is_read_from_a_file_and_wins_over_the_case(project: Project) -> None:
    folder = project({**FILES, "long.txt": "From a file: ä"})
    done = render(folder, "ask", "--case", "cases:a", "--input", "q=@long.txt", "--json")
    assert json.loads(done.stdout)["messages"][-1]["content"] == "From a file: ä"


def test_a_case_is_not_its_own_example(project: Project) -> None:
    done = render(project(FILES), "ask", "--case", "cases:a", "--json")
    assert [message["role"] for message in json.loads(done.stdout)["messages"]] == ["system", "user"]


def test_an_older_prompt_is_rendered_with_its_older_examples(project: Project, git: Git) -> None:
    project(FILES)
    git("init")
    git("add", ".")
    git("commit", "-m", "one")
    changed = {
        "prompts/ask.prompt.yaml": PROMPT.replace("words.", "letters."),
        "datasets/cases.jsonl": row("c", "train", "New?"),
    }
    folder = project(changed)
    done = render(folder, "ask@git:HEAD", "--case", "cases/test@git:HEAD:b:1")
    assert "Answer 3 words." in done.stdout
    assert "Is it?" in done.stdout
    assert "New?" not in done.stdout
    assert not (folder / "executed").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ask"], "ask needs --input q=... --input n=..., or --case DATASET:ID"),
        (["ask", "--input", "q=x"], "ask needs --input n=..."),
        (["ask", "--input", "p=x"], "no input is called 'p'"),
        (["ask", "--input", "q"], "write NAME=VALUE"),
        (["ask", "--input", "q=x", "--input", "n=many"], "input 'n' is not text, so its value is JSON"),
        (["ask", "--input", "q=x", "--input", "n=1.5"], "input 'n': 1.5 is not of type integer"),
        (["ask", "--input", "q=@nowhere.txt"], "nowhere.txt: No such file or directory"),
        (["ask", "--input", "q=@."], ".: Is a directory"),
        (["ask", "--input", "q=@binary"], "binary: byte 0 is not UTF-8"),
        (["ask", "--case", "cases"], "write DATASET:ID"),
        (["ask", "--case", "cases:b:2"], "cases has no case 'b:2'; did you mean 'b:1'?"),
        (["ask", "--case", "casse:a"], "no dataset is called 'casse'"),
        (["ask", "--case", "../x:a"], "is no reference"),
        (["ask", "--set", "examples.n=1"], "set examples.n of prompt ask"),
        (["aks"], "did you mean 'ask'?"),
        (["ask@7"], "numbers differ between MLflow servers"),
    ],
)
def test_what_is_missing_or_wrong_is_told(
    project: Project, arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project({**FILES, "binary": b"\xff"}))
    with pytest.raises(LlmopsError) as caught:
        root.main(["render", *arguments], standalone_mode=False)
    assert said in str(caught.value)


def test_what_keeps_messages_from_being_made_exits_2_without_a_traceback(project: Project) -> None:
    done = render(project(FILES), "ask")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: ask needs --input q=... --input n=..., or --case DATASET:ID\n"


def test_text_of_a_case_drives_no_terminal_and_no_runner(project: Project) -> None:  # S10 S11
    folder = project(
        {
            **FILES,
            "datasets/cases.jsonl": row("a", "train", "x")
            + row("b", "test", "\x1b]52;c;x\x07\n::add-mask::x\n\u202ey"),
        }
    )
    done = render(folder, "ask", "--case", "cases:b")
    assert done.returncode == 0
    assert not set(done.stdout) & set("\x1b\x07\u202e")
    assert not any(line.lstrip().startswith("::") for line in done.stdout.splitlines())


def test_what_a_case_holds_is_never_read_as_a_template(project: Project) -> None:  # S03
    folder = project(
        {**FILES, "datasets/cases.jsonl": row("a", "train", "x") + row("b", "test", "{{ 7 * 7 }} {% raw %}")}
    )
    assert "{{ 7 * 7 }} {% raw %}\n" in render(folder, "ask", "--case", "cases:b").stdout


@pytest.mark.parametrize(
    ("declared", "pair", "value"),
    [
        ("string", "x=5", "5"),
        ("string", "x=a=b", "a=b"),
        ("string", "x=", ""),
        ("integer", "x=5", 5),
        ("any", 'x={"a": [1]}', {"a": [1]}),
        ({"type": "string", "enum": ["a"]}, "x=a", "a"),
        ({"type": "array"}, "x=[]", []),
    ],
)
def test_an_input_on_the_command_line_has_its_declared_type(declared: Any, pair: str, value: object) -> None:
    assert read_inputs((pair,), {"x": declared}) == {"x": value}


def test_json_nested_without_end_is_no_traceback() -> None:  # F67
    with pytest.raises(UsageError, match="its value is JSON"):
        read_inputs(("x=" + "[" * 100_000,), {"x": "any"})
    assert read_paths(("x=" + "[" * 100_000,)) == {"x": "[" * 100_000}


def test_paths_on_the_command_line_take_json_or_text() -> None:
    pairs = ("examples.k=0", "parameters.stop=END", "a=null", 'b="5"', "c=")
    assert read_paths(pairs) == {"examples.k": 0, "parameters.stop": "END", "a": None, "b": "5", "c": ""}
