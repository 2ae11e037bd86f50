"""`llmops check` as people run it: exit codes, places, JSON, and what a PATH may be."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llmops.cli import root
from llmops.errors import UsageError
from tests.cli.command import llmops

Project = Callable[..., Path]
Capture = pytest.CaptureFixture[str]

PROMPT = "inputs: {q: string}\nmessages: [{role: user, content: '{{ q }}'}]\n"
FILES = {
    "llmops.yaml": "",
    "prompts/ask.prompt.yaml": PROMPT,
    "chains/ask.chain.yaml": "inputs: {q: string}\nsteps: [{id: s, python: 'steps_of:f', with: {q: '{{ q }}'}}]\n",
    "chains/steps_of.py": "open('executed', 'w')\ndef f(*, q): return q\n",
    "datasets/cases.dataset.yaml": "inputs: {q: string}\n",
    "datasets/cases.jsonl": '{"id": "a", "inputs": {"q": "x"}}\n',
    "experiments/try.experiment.yaml": "dataset: cases\nvariants: {a: {prompt: ask}}\n",
    "notes/other.txt": "",
}


def check(folder: Path, *arguments: str, encoding: str = "utf-8") -> subprocess.CompletedProcess[str]:
    more = {"PYTHONIOENCODING": encoding, "LANG": "C"}
    return llmops("check", *arguments, cwd=folder, more=more, errors="replace")


def test_a_right_project_is_counted_and_exits_0(project: Project) -> None:
    done = check(project(FILES))
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        "ok: 1 prompt, 1 chain, 1 dataset, 1 experiment\n",
        "",
    )


def test_what_is_wrong_is_told_with_its_place_and_exits_2(project: Project) -> None:
    folder = project({**FILES, "prompts/ask.prompt.yaml": PROMPT.replace("inputs", "inptus")})
    done = check(folder)
    assert done.returncode == 2
    assert done.stdout == (
        "prompts/ask.prompt.yaml:1:1: unknown key 'inptus'\n    did you mean 'inputs'?\n1 finding\n"
    )
    assert done.stderr == ""


def test_recorded_outputs_that_do_not_cover_every_case_are_told_and_no_fault(project: Project) -> None:
    recorded = {
        "experiments/try.experiment.yaml": "dataset: cases\nvariants: {a: {recorded: outputs/a.jsonl}}\n",
        "datasets/cases.jsonl": '{"id": "a", "inputs": {"q": "x"}}\n{"id": "b", "inputs": {"q": "y"}}\n',
        "outputs/a.jsonl": '{"id": "a", "output": "z"}\n',
    }
    folder = project({**FILES, **recorded})
    note = "note: try: variant a: outputs/a.jsonl has no output for 1 of 2 cases: 'b'; each is an error\n"
    for arguments in ([], ["try"], ["--json"]):
        done = check(folder, *arguments)
        assert (done.returncode, done.stderr) == (0, note)
    assert done.stdout == "[]\n"
    assert check(folder, "prompts/ask.prompt.yaml").stderr == ""


def test_json_is_the_findings_and_nothing_else(project: Project) -> None:
    folder = project({**FILES, "datasets/cases.jsonl": '{"id": "a", "inputs": {"q": 5}}\n'})
    done = check(folder, "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout) == [
        {
            "path": "datasets/cases.jsonl",
            "line": 1,
            "column": None,
            "message": "case 'a': input 'q': 5 is not of type string",
            "hint": None,
        }
    ]
    assert json.loads(check(project(FILES), "--json").stdout) == []


@pytest.mark.parametrize(
    ("below", "paths", "said"),
    [
        (".", ["prompts"], "ok: 1 prompt"),
        (".", ["prompts/", "datasets"], "ok: 1 prompt, 1 dataset"),
        (
            ".",
            ["prompts/ask.prompt.yaml", "prompts/ask", "prompts/../prompts/ask.prompt.yaml"],
            "ok: 1 prompt",
        ),
        (".", ["datasets/cases.jsonl"], "ok: 1 dataset"),
        (".", ["cases", "try"], "ok: 1 dataset, 1 experiment"),
        (".", ["chains/steps_of.py"], "ok: 1 chain, 1 experiment"),
        (".", ["llmops.yaml"], "ok: 1 prompt, 1 chain, 1 dataset, 1 experiment"),
        ("prompts", ["."], "ok: 1 prompt"),
        ("prompts", ["ask.prompt.yaml"], "ok: 1 prompt"),
        ("notes", [], "ok: 1 prompt, 1 chain, 1 dataset, 1 experiment"),
        ("notes", ["../chains"], "ok: 1 chain"),
    ],
)
def test_a_path_is_a_file_a_folder_or_a_name(
    project: Project,
    below: str,
    paths: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    monkeypatch.chdir(project(FILES) / below)
    assert root.main(["check", *paths], standalone_mode=False) == 0
    assert capsys.readouterr().out == said + "\n"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("ask", "names prompt and chain: write prompts/ask or chains/ask"),
        ("aks", "did you mean 'ask'?"),
        ("cases@git:main", "check looks at the work tree; write the name without @"),
        ("prompts/ask.txt", "no prompt is called 'ask.txt'"),
        ("notes/other.txt", "is called 'notes/other.txt'"),
        ("/etc/passwd", "outside the project"),
        ("../../etc/passwd", "is no reference"),
        ("prompts/../../x", "is no path inside the project"),
        ("file:///etc/passwd", "is no reference"),
        ("..%2fx", "is no reference"),
        ("C:\\x", "is no reference"),
        ("prompts/\u2025/x", "is no path inside the project"),
    ],
)
def test_a_path_that_holds_no_definition_is_told(
    project: Project, path: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:  # S06
    monkeypatch.chdir(project(FILES))
    try:
        code = root.main(["check", path], standalone_mode=False)
    except UsageError as error:
        assert said in str(error)
    else:
        assert code == 2
        assert said in capsys.readouterr().out


def test_a_wrong_path_exits_2_without_a_traceback(project: Project) -> None:
    done = check(project(FILES), "../../etc/passwd")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: '../../etc/passwd' is no reference")
    assert "Traceback" not in done.stderr


def test_checking_executes_none_of_the_project_s_python_and_loads_nothing_heavy(
    project: Project,
) -> None:  # S05
    folder = project(FILES)
    program = (
        "import sys; from llmops.cli import root\n"
        "root.main(['check'], standalone_mode=False)\n"
        "heavy = 'mlflow numpy scipy pandas sklearn openai azure sqlalchemy rich aiohttp jsonschema re2'.split()\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert not (folder / "executed").exists()


def test_what_findings_quote_from_files_drives_no_terminal_and_no_runner(project: Project) -> None:  # S10 S11
    hostile = "\\u001b]0;x\\u0007\\n::error::x\\u202e"
    folder = project(
        {**FILES, "datasets/cases.jsonl": f'{{"id": "a", "inputs": {{"q": "x"}}, "{hostile}": 1}}\n'}
    )
    folder = project(
        {
            "datasets/flat.dataset.yaml": "columns: {inputs.q: text}\n",
            "datasets/flat.jsonl": f'{{"{hostile}": 1}}\n',
        }
    )
    done = check(folder)
    assert done.returncode == 2
    assert not set(done.stdout) & set("\x1b\x07\u202e\x9b")
    assert not any(line.lstrip().startswith("::") for line in done.stdout.splitlines())


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_unicode_gets_text_all_the_same(project: Project, encoding: str) -> None:  # F79
    folder = project({**FILES, "prompts/ask.prompt.yaml": PROMPT + "größe\u2028: 1\n"})
    done = check(folder, encoding=encoding)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "prompts/ask.prompt.yaml:3:1: unknown key" in done.stdout


def test_outside_of_a_project_the_way_in_is_named(tmp_path: Path) -> None:
    done = check(tmp_path)
    assert done.returncode == 2
    assert "no llmops.yaml here or above: run `llmops init`" in done.stderr


@pytest.mark.parametrize("kind", ["project", "prompt", "chain", "dataset", "experiment"])
def test_the_schema_of_each_kind_is_printed_anywhere(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert root.main(["check", "--schema", kind], standalone_mode=False) == 0
    assert json.loads(capsys.readouterr().out)["type"] == "object"


def test_an_unknown_kind_is_told_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"no kind is called 'promt'; did you mean 'prompt'\?"):
        root.main(["check", "--schema", "promt"], standalone_mode=False)
