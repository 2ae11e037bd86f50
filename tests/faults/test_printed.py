"""What a model says is shown and never obeyed: by a terminal, a CI runner, a spreadsheet; S05, S10, S11, S30."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.command import command_line, environment, llmops
from tests.model_server import running_model_server
from tests.workplace import Workplace, case_of

HARMS = (
    "::add-mask::x", "  ::error file=a::x", "\t::set-output name=a::x", "::stop-commands::x", "::set-env name=PATH::x",
    "##[error]x", "a ##[add-mask]x", "##[command]x", "PATH=/evil", "ghadelimiter_x", "EOF", "\u3000::notice::x",
    "\u202eright to left", "\u2066isolated", "\U000e0041tag", "\x1b]52;c;eA==\x07clipboard",
    "\x9d52;c;eA==\x9cclipboard", "\x1b]8;;http://evil.test\x1b\\link\x1b]8;;\x1b\\", "\x1b]0;title\x07",
    "\x1b[2Jcleared", "\x9b31mred", "\x1bPq\x1b\\dcs",
    "back\x08\x08\x08", "over\rwritten", "bell\x07", "nul\x00", "\x1b(0lines", "del\x7f", "\x85next",
)  # fmt: skip
SAID = "\n".join(HARMS)
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]"
)
_COLOUR = re.compile("\x1b\\[[0-9;]*m|\x1b\\[\\?25[hl]|\r")
_COMMAND = re.compile(r"^\s*::|##\[", re.MULTILINE)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    with running_model_server() as server:
        place = Workplace(tmp_path / "project", server)
        kept = SAID.replace("\0", "")  # which no dataset may hold
        cases = [case_of(0, f"[[say:{kept}]]"), case_of(1), case_of(2, kept)]
        place.write_cases(*cases)
        place.edit("prompts/sort.prompt.yaml", "max_tokens: 8", "max_tokens: 800")
        (place.root / "said.txt").write_text(f"[[say:{SAID}]]")
        yield place


ONCE = ("run", "prompts/sort", "--input", "ticket=@said.txt")
WAYS = (
    ("run", "experiments/sort", "--no-sync"),
    ONCE,
    ("report", "sort"),
    ("render", "sort", "--case", "tickets:c2"),
    ("report", "--history", "experiments/sort"),
    ("doctor",),
)
RECORDS = (
    ("report", "sort", "--json"),
    (*ONCE, "--json"),
    ("render", "sort", "--case", "tickets:c2", "--json"),
)


def test_nothing_printed_drives_a_terminal_or_a_runner_S10_S11(place: Workplace) -> None:
    for arguments in (*WAYS, *RECORDS):
        done = llmops(*arguments, cwd=place.root, more=place.environment)
        assert done.returncode == 0, done.stderr
        for text in (done.stdout, done.stderr):
            assert _CONTROL.findall(text) == [], arguments
            assert _COMMAND.findall(text) == [], arguments


def test_what_a_model_says_is_shown_like_this_S11(
    place: Workplace, golden: Callable[[str, str], None]
) -> None:
    done = llmops(*ONCE, cwd=place.root, more=place.environment)
    golden("printed.txt", done.stdout)
    assert done.returncode == 0


def test_a_terminal_gets_the_same_S11(place: Workplace) -> None:
    plain = llmops(*ONCE, cwd=place.root, more=place.environment).stdout
    shown = on_a_terminal(place, *ONCE)
    assert _COLOUR.sub("", shown) == plain
    for arguments in WAYS[2:]:
        assert _CONTROL.findall(_COLOUR.sub("", on_a_terminal(place, *arguments))) == [], arguments


def on_a_terminal(place: Workplace, *arguments: str) -> str:
    """Return what a terminal is sent on standard output."""
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            command_line(*arguments),
            cwd=place.root,
            env=environment(**place.environment),
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        pieces = []
        while piece := _read(ours):
            pieces.append(piece)
        process.wait(60)
    finally:
        os.close(ours)
    return b"".join(pieces).decode()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65_536)
    except OSError:  # the other end is closed
        return b""


# --- a CI runner ------------------------------------------------------------------------------------------


def test_a_runner_is_told_to_stop_before_the_first_and_to_go_on_after_the_last_line_S10(
    place: Workplace,
) -> None:
    tokens = set()
    for _ in range(2):
        done = llmops(*ONCE, cwd=place.root, more={**place.environment, "GITHUB_ACTIONS": "true"})
        first, *_, last = done.stderr.splitlines()
        token = first.removeprefix("::stop-commands::")
        assert last == f"::{token}::"
        assert re.fullmatch("[0-9a-f]{32}", token)
        assert "::" not in done.stdout.replace(": :", "")[:2]
        tokens.add(token)
    assert len(tokens) == 2


def test_a_record_is_the_same_in_ci_and_holds_what_was_said_S10(place: Workplace) -> None:
    done = llmops(*ONCE, "--json", cwd=place.root, more={**place.environment, "GITHUB_ACTIONS": "true"})
    assert json.loads(done.stdout)["value"].splitlines()[5] == "##[error]x"
    assert "##[" not in done.stdout


@pytest.mark.parametrize(
    "arguments", [("run", "nothing-of-the-kind"), ("no-such-command",), ("report", "--limit", "x")]
)
def test_a_runner_is_told_to_go_on_whatever_happens_S10(place: Workplace, arguments: tuple[str, ...]) -> None:
    done = llmops(*arguments, cwd=place.root, more={"GITHUB_ACTIONS": "true"})
    first, *_, last = done.stderr.splitlines()
    assert last == f"::{first.removeprefix('::stop-commands::')}::"
    assert done.returncode == 2


def test_a_delivery_s_own_words_reach_the_run_in_ci_too_S10(place: Workplace) -> None:
    more = {**place.environment, "GITHUB_ACTIONS": "true", "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    done = llmops("run", "experiments/sort", cwd=place.root, more=more)
    assert done.stderr.count("::stop-commands::") == 1
    assert "not in MLflow yet: MLflow at http://127.0.0.1:9 cannot be reached" in done.stderr


# --- code of a change that nobody has read ----------------------------------------------------------------


def test_check_and_render_run_nothing_of_a_hostile_project_S05(place: Workplace) -> None:
    evil = f"open({str(place.root / 'ran')!r}, 'a').write(__name__)\n"
    shadows = ("sitecustomize", "usercustomize", "json", "yaml", "click", "chains/json", "llmops/cli")
    for name in shadows:
        place.write(f"{name}.py", evil)
    place.write(
        "chains/evil.py",
        f"{evil}def step(ticket: str) -> str:\n    return ticket\n\n\n"
        "def judge(output: str) -> bool:\n    return True\n",
    )
    steps = (
        'steps: [{id: a, python: "evil:step", with: {ticket: "{{ ticket }}"}}]\noutputs: "{{ a.output }}"\n'
    )
    place.write("chains/evil.chain.yaml", f"inputs: {{ticket: string}}\n{steps}")
    place.edit("experiments/sort.experiment.yaml", "variants:", "variants:\n  evil: {chain: evil}")
    place.edit("experiments/sort.experiment.yaml", "[exact_match]", '[exact_match, {python: "evil:judge"}]')
    for arguments in (
        ("check",),
        ("check", "chains/evil.py"),
        ("render", "sort", "--input", "ticket=x"),
        ("doctor",),
    ):
        llmops(*arguments, cwd=place.root, more=place.environment)
        assert not (place.root / "ran").exists(), arguments
    llmops("run", "experiments/sort", "--no-sync", cwd=place.root, more=place.environment)
    assert (
        (place.root / "ran").read_text().endswith(".evil")
    )  # as its owner asked; no shadow of a library did


# --- system prompts ---------------------------------------------------------------------------------------


def test_a_system_prompt_stands_in_no_report_S30(place: Workplace) -> None:
    place.write_cases(*(case_of(number) for number in range(6)))
    place.edit("prompts/sort.prompt.yaml", "Answer with", "c4nary-in-the-system-prompt Answer with")
    assert (
        llmops("run", "experiments/sort", "--no-sync", cwd=place.root, more=place.environment).returncode == 0
    )
    for written in ("a.html", "history.html", "rows.jsonl", "rows.csv", "rows.parquet"):
        option = "--rows" if written.startswith("rows") else "--html"
        history = ("--history",) if written.startswith("history") else ()
        done = llmops(
            "report", *history, "experiments/sort" if history else "sort", option, written, cwd=place.root
        )
        assert done.returncode == 0
        assert "c4nary" not in done.stdout
        assert b"c4nary" not in (place.root / written).read_bytes()
    assert "c4nary" not in llmops("report", "sort", "--json", cwd=place.root).stdout
