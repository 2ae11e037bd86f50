"""The README and the pages of docs/ do what they say: their commands run, their files check."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llmops.cli import COMMANDS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = sorted((ROOT / "docs").glob("*.md"))
EXAMPLE = ("prompts", "chains", "datasets", "experiments", "docs", "README.md", "llmops.yaml")
CHANGING = re.compile(r"support_tickets-[0-9a-f]{8}|\d+\.\d+ s|\d+(?:,\d{3})* calls|\d+ reused")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def transcripts(page: Path) -> list[tuple[str, list[str]]]:
    """Return each command shown with `$` and the lines shown under it."""
    shown: list[tuple[str, list[str]]] = []
    for block in blocks(page.read_text(encoding="utf-8"), "console"):
        for line in block.splitlines():
            if line.startswith("$ "):
                shown.append((line[2:], []))
            else:
                shown[-1][1].append(line)
    return shown


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a copy of the example project, in git."""
    root = tmp_path_factory.mktemp("readme")
    for name in EXAMPLE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, root / name)
    for arguments in (
        ("init", "-q"),
        ("add", "-A"),
        ("-c", "user.name=T", "-c", "user.email=t@t", "commit", "-qm", "x"),
    ):
        subprocess.run(["git", "-C", str(root), *arguments], check=True, capture_output=True)
    return root


def steady(line: str) -> str:
    """Return a line without what differs from machine to machine."""
    return CHANGING.sub("#", line).rstrip()


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "docs/comparing.md",
        "docs/docs_qa.md",
        "docs/gates.md",
        "docs/recordings.md",
        "docs/running.md",
    ],
)
def test_every_command_of_a_page_prints_what_it_shows(example: Path, page: str) -> None:
    ran = [(command, lines) for command, lines in transcripts(ROOT / page) if command.startswith("llmops ")]
    assert ran
    for command, shown in ran:
        done = subprocess.run(
            [sys.executable, "-m", "llmops", *shlex.split(command)[1:]],
            cwd=example,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        printed = [steady(line) for line in (done.stderr + done.stdout).splitlines()]
        for line in shown:
            if line.strip() != "...":
                assert steady(line) in printed, f"{command} does not print {line!r}:\n" + "\n".join(printed)


def test_make_targets_of_the_readme_exist() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    named = set(re.findall(r"make ([a-z]+)", README))
    assert {"demo", "test"} <= named <= set(targets)


def test_every_command_is_documented() -> None:
    for name in COMMANDS:
        assert re.search(rf"^\| `{name}\b", README, re.MULTILINE), (
            f"{name} is missing from the README's table"
        )


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    assert len(README.splitlines()) < 150
    for page in [ROOT / "README.md", *DOCS]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"


@pytest.mark.parametrize(
    ("page", "cases", "commands"),
    [
        (
            "files.md",
            "tickets",
            [["run", "experiments/triage", "--no-sync"], ["run", "chains/routed", "--input", "ticket=hello"]],
        ),
        ("judges.md", "replies", [["run", "experiments/replies", "--no-sync"], ["score", "replies"]]),
    ],
)
def test_the_files_shown_in_the_docs_are_a_project_that_checks(
    tmp_path: Path, page: str, cases: str, commands: list[list[str]]
) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    for block in blocks(text, "yaml") + blocks(text, "python"):
        name = block.splitlines()[0].removeprefix("# ")
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(block, encoding="utf-8")
    (tmp_path / "datasets" / f"{cases}.jsonl").write_text(blocks(text, "json")[0], encoding="utf-8")
    for name, block in re.findall(r"`([^`]+\.csv)`:\n\n```csv\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        (tmp_path / name).write_text(block, encoding="utf-8")
    for arguments in (["check"], *commands):
        done = subprocess.run(
            [sys.executable, "-m", "llmops", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_exit_codes_of_the_docs_are_those_of_the_code() -> None:
    from llmops.cli.exits import Exit

    text = (ROOT / "docs" / "running.md").read_text(encoding="utf-8")
    table = {int(n) for row in re.findall(r"^\| ([\d, ]+) \|", text, re.MULTILINE) for n in row.split(",")}
    assert table == {int(code) for code in Exit}
