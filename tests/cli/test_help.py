"""What every command has in common: help, wrong usage, completion, and streams that are not as they should be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import click
import pytest

from llmops import __version__
from llmops.cli import COMMANDS
from tests.cli.command import PATIENCE_S, closed_pipe, command_line, environment, llmops

FOREIGN = "日本 — ça va ’"
HEAVY = {
    "pydantic",
    "yaml",
    "jinja2",
    "numpy",
    "scipy",
    "pandas",
    "sqlalchemy",
    "mlflow",
    "openai",
    "rich",
    "re2",
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a project with one run, whose texts no old encoding can hold."""
    root = tmp_path_factory.mktemp("ran")
    assert llmops("init", cwd=root).returncode == 0
    cases = root / "datasets" / "reviews.jsonl"
    text = cases.read_text(encoding="utf-8").replace('"review": "', f'"review": "{FOREIGN} ')
    cases.write_text(text, encoding="utf-8")
    done = llmops("run", "review_mood", "--no-sync", cwd=root)
    assert done.returncode == 0, done.stderr
    return root


# --- help and wrong usage ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_is_as_recorded(name: str, tmp_path: Path, golden: Callable[[str, str], None]) -> None:
    done = llmops(*name.split(), "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    golden(f"help_{name or 'all'}.txt", done.stdout)


def test_help_imports_nothing_that_takes_time(tmp_path: Path) -> None:
    done = llmops("--help", cwd=tmp_path, options=("-X", "importtime"))
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "llmops.cli" in imported
    assert not {name.partition(".")[0] for name in imported} & HEAVY


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_json(name: str) -> None:
    command = import_module(f"llmops.cli.{name}").command
    assert isinstance(command, click.Command)
    assert "--json" in [option for parameter in command.params for option in parameter.opts]
    assert command.name == name


def test_version_is_that_of_the_package(tmp_path: Path) -> None:
    done = llmops("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"llmops, version {__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["rnu", "x"], "did you mean 'run'?"),
        (["polish"], "see llmops --help"),
        (["run", "--limt", "3"], "'--limit'"),
        (["--versoin"], "'--version'"),
        (["run"], "Missing argument 'TARGET'"),
    ],
)
def test_wrong_usage_is_told_with_what_was_meant(arguments: list[str], hint: str, tmp_path: Path) -> None:
    done = llmops(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert hint in done.stderr


def test_without_a_command_help_is_shown_and_nothing_done(tmp_path: Path) -> None:
    done = llmops(cwd=tmp_path)
    assert done.returncode == 2
    assert "Commands:" in done.stderr


# --- errors -----------------------------------------------------------------------------------------------


def test_a_traceback_is_shown_to_who_asks_for_it(tmp_path: Path) -> None:
    plain = llmops("report", cwd=tmp_path)
    assert (plain.returncode, plain.stdout) == (2, "")
    assert plain.stderr == "error: no llmops.yaml here or above: run `llmops init` to start a project\n"
    traced = llmops("--debug", "report", cwd=tmp_path)
    assert (traced.returncode, traced.stdout) == (2, "")
    assert traced.stderr.startswith("Traceback (most recent call last):")
    assert traced.stderr.endswith(plain.stderr)


def test_an_error_drives_no_terminal_and_shows_no_key(project: Callable[..., Path]) -> None:
    root = project({"llmops.yaml": "models: {default: {provider: openai, model: m, api_key_env: THE_KEY}}\n"})
    name = "\x1b]0;owned\x07\x1b[2Jsk-0123456789abcdef\u202e.yaml"
    done = llmops("--debug", "run", name, cwd=root, more={"THE_KEY": "sk-0123456789abcdef"})
    assert done.returncode == 2
    assert "error: no file ***.yaml\n" in done.stderr
    assert "sk-0123" not in done.stderr
    assert "\x1b" not in done.stderr


def test_a_missing_package_is_one_line_saying_what_to_install(project: Callable[..., Path]) -> None:
    root = project(
        {"broken/pydantic.py": "raise ModuleNotFoundError('No module named x', name='pydantic.x')\n"}
    )
    path = os.pathsep.join([str(root / "broken"), environment().get("PYTHONPATH", "")])
    done = llmops("check", cwd=root, more={"PYTHONPATH": path.rstrip(os.pathsep)})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: the Python package pydantic does not load (No module named x): pip install pydantic\n"
    )


# --- completion -------------------------------------------------------------------------------------------


def completed(line: str, root: Path) -> list[str]:
    """Return what the shell would offer for the last word of a line."""
    words = line.split(" ")
    asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), "_LLMOPS_COMPLETE": "bash_complete"}
    done = llmops(cwd=root, more=asked)
    assert (done.returncode, done.stderr) == (0, "")
    return [offered.partition(",")[2] for offered in done.stdout.split()]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("llmops re", ["render", "report"]),
        ("llmops run --li", ["--limit"]),
        ("llmops run ", ["review_mood", "guest_mood", "review_card"]),
        ("llmops render gu", ["guest_mood"]),
        ("llmops render re", []),
    ],
)
def test_commands_options_and_names_are_completed(line: str, offered: list[str], ran: Path) -> None:
    assert completed(line, ran) == offered


def test_nothing_is_completed_where_there_is_no_project_or_a_broken_one(
    tmp_path: Path, project: Callable[..., Path]
) -> None:
    assert completed("llmops run x", tmp_path) == []
    project({"llmops.yaml": "models: ["})
    assert completed("llmops run x", tmp_path) == []


@pytest.mark.parametrize(
    ("shell", "line"),
    [
        ("bash", "complete -o nosort -F _llmops_completion llmops"),
        ("zsh", "#compdef llmops"),
        ("fish", "complete --no-files --command llmops"),
    ],
)
def test_each_shell_gets_a_script(shell: str, line: str, tmp_path: Path) -> None:
    done = llmops(cwd=tmp_path, more={"_LLMOPS_COMPLETE": f"{shell}_source"})
    assert done.returncode == 0
    assert line in done.stdout


def test_bash_completes_with_the_script_that_help_names(ran: Path, tmp_path: Path) -> None:
    program = tmp_path / "llmops"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m llmops "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    script = (
        'eval "$(_LLMOPS_COMPLETE=bash_source llmops)"; COMP_WORDS=(llmops run gu); COMP_CWORD=2; '
        '_llmops_completion llmops; echo "${COMPREPLY[@]}"'
    )
    found = environment(PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=ran,
        env=found,
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )
    assert done.stdout == "guest_mood\n"


# --- streams ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "encoding"),
    [("report", "ascii"), ("report", "utf-8"), ("render", "ascii"), ("render", "latin-1")],
)
def test_a_text_that_the_encoding_lacks_ends_nothing(command: str, encoding: str, ran: Path) -> None:
    arguments = {"report": ["report"], "render": ["render", "guest_mood", "--input", f"review={FOREIGN}"]}
    more = {"LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": encoding, "TERM": "dumb"}
    with subprocess.Popen(
        command_line(*arguments[command]), cwd=ran, env=environment(**more), stdout=-1, stderr=-1
    ) as process:
        printed, said = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, said) == (0, b"")
    if command == "report":
        assert printed.isascii() == (encoding != "utf-8")
    else:
        shown = {"latin-1": b"\\u65e5\\u672c \\u2014 \xe7a va \\u2019"}.get(encoding, FOREIGN.encode())
        assert shown in printed


@pytest.mark.parametrize("arguments", [["report"], ["check", "--json"], ["--help"]])
def test_a_reader_that_leaves_changes_no_exit_code(arguments: list[str], ran: Path) -> None:
    unread = closed_pipe()
    done = llmops(*arguments, cwd=ran, stdout=unread)
    os.close(unread)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_finding_stays_one_when_nobody_reads_it(project: Callable[..., Path]) -> None:
    root = project({"prompts/p.prompt.yaml": "messages: nothing\n"})
    unread = closed_pipe()
    done = llmops("check", cwd=root, stdout=unread, stderr=unread)
    os.close(unread)
    assert done.returncode == 2


def test_a_run_goes_on_when_its_reader_leaves_and_the_other_streams_are_closed(ran: Path) -> None:
    unread = closed_pipe()
    line = command_line("run", "review_mood", "--fresh", "--no-sync")
    done = subprocess.run(
        ["bash", "-c", '"$@" <&- 2>&-', "bash", *line],
        cwd=ran,
        env=environment(),
        stdout=unread,
        check=False,
        timeout=PATIENCE_S,
    )
    os.close(unread)
    assert done.returncode == 0
    report = llmops("report", "--json", cwd=ran)
    assert report.returncode == 0
    run = json.loads(report.stdout)
    assert (run["fresh"], run["status"], run["n_done"]) == (1, "complete", 48)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
def test_a_full_disk_under_the_output_is_told(ran: Path) -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = llmops("report", cwd=ran, stdout=full)
    assert done.returncode == 3
    assert done.stderr == "error: [Errno 28] No space left on device\n"


def test_head_gets_its_line(ran: Path) -> None:
    line = 'set -o pipefail; "$@" | head -1'
    done = subprocess.run(
        ["bash", "-c", line, "bash", *command_line("report", "--json")],
        cwd=ran,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "{\n", "")
