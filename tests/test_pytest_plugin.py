"""Gates as tests of pytest: real processes of pytest, on a project whose `llmops gate` tells a verdict we chose."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llmops.records import CandidateVerdict, GateResult, Outcome, Verdict
from tests.cli.command import environment
from tests.report.verdicts import COMPARED, FLOOR, candidate, verdict

ROOT = Path(__file__).parent.parent
FILES = {
    "prompts/sort.prompt.yaml": "inputs: {ticket: string}\nmessages: [{role: user, content: '{{ ticket }}'}]\n",
    "datasets/tickets.jsonl": '{"id": "a", "inputs": {"ticket": "x"}, "expected": "y"}\n',
    "datasets/tickets.dataset.yaml": "kind: evaluation\ninputs: {ticket: string}\nexpected: {type: string}\n",
    "experiments/triage.experiment.yaml": """
dataset: tickets
variants: {short: {prompt: sort}, long: {prompt: sort}}
evaluators: [exact_match]
baseline: short
gates:
  - {metric: exact_match, at_least: 0.8}
  - {metric: exact_match, not_worse_than: baseline, margin: 0.05}
""",
}
STAND_IN = """
import json, sys, types
from pathlib import Path
import click, llmops.cli
@click.command("gate")
@click.argument("names", nargs=-1)
@click.option("--json", "as_json", is_flag=True)
def command(names, as_json):
    with Path("asked.txt").open("a") as file:
        print(*names, as_json, file=file)
    click.echo(Path("verdict.json").read_text())
    return 1
llmops.cli.COMMANDS["gate"] = ""
sys.modules["llmops.cli.gate"] = types.SimpleNamespace(command=command)
"""
"""What Python imports first: `llmops gate` is then a command that tells the verdict of a file and exits with 1."""


@pytest.fixture
def gated(project: Callable[..., Path]) -> Path:
    """Give a project with gates, two tests' worth of ordinary pytest beside it, and the stand-in for `llmops gate`."""
    return project(
        {**FILES, "tests/test_own.py": "def test_own(): pass\n", "before/sitecustomize.py": STAND_IN}
    )


def run_pytest(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "llmops.pytest_plugin",
        "-p",
        "no:cacheprovider",
        "-rA",
        *arguments,
    ]
    return subprocess.run(
        command,
        cwd=root,
        env=environment(PYTHONPATH=f"{root / 'before'}:{ROOT}", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1"),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def say(root: Path, told: Verdict) -> None:
    (root / "experiments" / "verdict.json").write_text(told.model_dump_json(), encoding="utf-8")


def judged(*gates: GateResult) -> CandidateVerdict:
    return candidate(Outcome.PASS, *gates)


def changed(gate: GateResult, outcome: Outcome, reason: str) -> GateResult:
    return gate.model_copy(update={"outcome": outcome, "reason": reason})


def told_of(done: subprocess.CompletedProcess[str]) -> set[tuple[str, str]]:
    """Return the outcome of each gate, by its name."""
    lines = (line.partition(" ") for line in done.stdout.splitlines() if ".experiment.yaml::" in line)
    return {(word, rest.partition("::")[2].partition(" - ")[0]) for word, _, rest in lines if word.isupper()}


def test_no_gate_runs_unless_it_is_asked_for(gated: Path) -> None:
    done = run_pytest(gated)
    assert done.returncode == 0
    assert "1 passed" in done.stdout
    assert not (gated / "experiments" / "asked.txt").exists()


def test_each_gate_is_a_test_and_the_verdict_is_asked_for_once(gated: Path) -> None:
    say(gated, verdict(Outcome.PASS, judged(FLOOR, COMPARED)))
    done = run_pytest(gated, "--llmops-gates")
    assert done.returncode == 0, done.stdout
    assert told_of(done) == {
        ("PASSED", "verdict"),
        ("PASSED", "exact_match at_least 0.8"),
        ("PASSED", "exact_match not_worse_than baseline, margin 0.05"),
    }
    assert "4 passed" in done.stdout, "the project's own test runs beside them"
    assert (gated / "experiments" / "asked.txt").read_text() == "triage True\n"


def test_workers_of_xdist_share_one_verdict_when_they_are_dealt_files(gated: Path) -> None:
    pytest.importorskip("xdist")
    say(gated, verdict(Outcome.PASS, judged(FLOOR, COMPARED)))
    done = run_pytest(gated, "--llmops-gates", "-p", "xdist", "-n", "2", "--dist", "loadfile")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout
    assert (gated / "experiments" / "asked.txt").read_text() == "triage True\n"


def test_a_setting_asks_for_gates_where_their_files_are_collected(gated: Path) -> None:
    (gated / "pytest.ini").write_text("[pytest]\nllmops_gates = true\ntestpaths = tests\n")
    say(gated, verdict(Outcome.PASS, judged(FLOOR, COMPARED)))
    assert "1 passed" in run_pytest(gated).stdout
    assert "3 passed" in run_pytest(gated, "experiments").stdout


def test_the_gate_that_fails_is_the_test_that_fails_with_its_reason_alone(gated: Path) -> None:
    lost = changed(COMPARED, Outcome.FAIL, "a loss of 0.05 or more is proved")
    say(gated, verdict(Outcome.FAIL, judged(FLOOR, COMPARED), judged(FLOOR, lost)))
    done = run_pytest(gated, "--llmops-gates", "experiments")
    assert done.returncode == 1
    assert told_of(done) == {
        ("FAILED", "verdict"),
        ("PASSED", "exact_match at_least 0.8"),
        ("FAILED", "exact_match not_worse_than baseline, margin 0.05"),
    }
    assert "a loss of 0.05 or more is proved" in done.stdout
    assert "Traceback" not in done.stdout
    assert "pytest_plugin.py" not in done.stdout


@pytest.mark.parametrize(("blocks", "word"), [(True, "FAILED"), (False, "SKIPPED")])
def test_a_gate_that_cannot_say_stops_only_where_the_policy_blocks(
    gated: Path, blocks: bool, word: str
) -> None:
    unsure = changed(FLOOR, Outcome.INCONCLUSIVE, "the interval holds 0.80")
    say(gated, verdict(Outcome.INCONCLUSIVE, judged(unsure, COMPARED), blocks=blocks))
    done = run_pytest(gated, "--llmops-gates", "experiments")
    assert done.returncode == int(blocks)
    assert "inconclusive" in done.stdout
    assert "the interval holds 0.80" in done.stdout
    assert told_of(done) >= {("PASSED", "exact_match not_worse_than baseline, margin 0.05")}
    assert f"2 {word.lower()}" in done.stdout


def test_a_gate_that_only_informs_never_fails(gated: Path) -> None:
    informs = changed(FLOOR, Outcome.FAIL, "below").model_copy(update={"blocks": False})
    say(gated, verdict(Outcome.PASS, judged(informs, COMPARED)))
    assert run_pytest(gated, "--llmops-gates", "experiments").returncode == 0


def test_a_gate_that_the_verdict_does_not_name_fails_and_never_passes_in_silence(gated: Path) -> None:
    say(gated, verdict(Outcome.PASS, judged(FLOOR)))
    done = run_pytest(gated, "--llmops-gates", "experiments")
    assert done.returncode == 1
    assert done.stdout.count("the verdict says nothing of this gate") >= 2


def test_a_command_that_gives_no_verdict_fails_every_gate_in_its_own_words(gated: Path) -> None:
    (gated / "experiments" / "verdict.json").write_text(json.dumps([]))
    done = run_pytest(gated, "--llmops-gates", "experiments")
    assert done.returncode == 1
    assert "llmops gate exits 1" in done.stdout
    assert "3 failed" in done.stdout


def test_a_broken_experiment_is_an_error_of_collection_with_its_line(gated: Path) -> None:
    (gated / "experiments" / "triage.experiment.yaml").write_text("dataset: tickets\nvariant: 1\n")
    done = run_pytest(gated, "--llmops-gates", "experiments")
    assert done.returncode == 2
    assert "triage.experiment.yaml:2" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [((), {"llmops", "llmops.pytest_plugin"}), (("--llmops-gates", "--collect-only"), None)],
    ids=["not asked for", "collected"],
)
def test_the_plugin_imports_nothing_heavy(
    gated: Path, arguments: tuple[str, ...], allowed: set[str] | None
) -> None:
    (gated / "conftest.py").write_text(
        "import sys\n"
        "def pytest_sessionfinish(session):\n"
        "    names = [name for name in sys.modules if '.' not in name or name.startswith('llmops.')]\n"
        "    print('\\nLOADED', *names)\n"
    )
    (gated / "before" / "sitecustomize.py").unlink()
    done = run_pytest(gated, "-s", *arguments)
    loaded = set(next(line for line in done.stdout.splitlines() if line.startswith("LOADED")).split()[1:])
    heavy = {
        "numpy",
        "scipy",
        "pandas",
        "sklearn",
        "mlflow",
        "openai",
        "azure",
        "sqlalchemy",
        "rich",
        "aiohttp",
    }
    assert "llmops" in loaded
    assert not loaded & heavy
    if allowed is not None:
        assert {name for name in loaded if name.partition(".")[0] == "llmops"} == allowed
