"""`llmops gate` against a server: what is incomplete or refused has no verdict, and a fork gates by recordings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from shutil import rmtree

import pytest

from llmops.cli.exits import Exit
from llmops.records import Outcome
from tests.cli.inside import Done, llmops_inside
from tests.gated import EXPERIMENT, NEUTRAL, Repository
from tests.model_server import ModelServer, running_model_server
from tests.workplace import COLOURS, KEY, MODELS, jsonl

CASES = [
    {
        "id": f"c{number:03}",
        "inputs": {"ticket": f"lamp {number} [[say:{COLOURS[number % 3]}]]"},
        "expected": COLOURS[number % 3],
        "metadata": {"slice": "plain"},
    }
    for number in range(60)
]
HARM = ('"{{ ticket }}"', "\"{{ ticket | replace('green', 'purple') }}\"")


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with running_model_server() as server:
        yield server


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    own = {"llmops.yaml": MODELS.replace("&server", ""), "datasets/tickets.jsonl": jsonl(CASES)}
    return Repository(tmp_path, **own)


def keys(server: ModelServer) -> dict[str, str]:
    return {"MODEL_URL": server.openai_url, "OTHER_URL": server.openai_url, "MODEL_KEY": KEY}


def record(repository: Repository, server: ModelServer) -> Done:
    """Record the replies of the branch as it stands, and leave the project as a fork has it."""
    asked = ("run", EXPERIMENT, "--record", "--no-sync")
    done = llmops_inside(*asked, cwd=repository.root, more=keys(server))
    repository.commit()
    rmtree(repository.root / ".llmops")
    return done


# --- a fork -------------------------------------------------------------------------------------------------


def test_a_fork_without_keys_gates_by_what_it_recorded_F80(
    repository: Repository, server: ModelServer
) -> None:
    repository.edit(*NEUTRAL)
    assert record(repository, server).returncode == 0
    n_before = len(server.received)
    verdict, done = repository.verdict("--replay", "only")
    assert (done.returncode, verdict.outcome) == (Exit.DONE, Outcome.PASS)
    assert verdict.replayed is not None and verdict.n_calls == 0
    assert len(server.received) == n_before
    assert "promotes nothing" in repository.gate("sort", "--replay", "only").stdout


def test_a_harmful_recording_fails_a_fork_F80(repository: Repository, server: ModelServer) -> None:
    repository.edit(*HARM)
    record(repository, server)
    verdict, done = repository.verdict("--replay", "only")
    assert (done.returncode, verdict.outcome) == (Exit.FAILED, Outcome.FAIL)


@pytest.mark.parametrize(("policy", "code"), [("warn", Exit.DONE), ("block", Exit.INCONCLUSIVE)])
def test_what_was_not_recorded_is_inconclusive_and_never_a_pass_F80(
    repository: Repository, server: ModelServer, policy: str, code: Exit
) -> None:
    repository.edit("baseline: git:main", f"baseline: git:main\non_inconclusive: {policy}", EXPERIMENT)
    record(repository, server)
    repository.edit(*NEUTRAL)  # and not recorded again
    verdict, done = repository.verdict("--replay", "only")
    assert (done.returncode, verdict.outcome) == (code, Outcome.INCONCLUSIVE)
    assert verdict.reason.startswith("60 replies are not in the recordings")
    assert {gate.outcome for gate in verdict.candidates[0].gates} == {Outcome.INCONCLUSIVE}
    assert "no recording for model 'default'" in done.stderr


# --- no verdict ---------------------------------------------------------------------------------------------


def test_an_incomplete_run_has_no_verdict_and_goes_on_later_F85(
    repository: Repository, server: ModelServer
) -> None:
    broken = [
        case | {"inputs": {"ticket": f"{case['inputs']['ticket']} [[fault:400:1]]"}}  # type: ignore[index]
        for case in CASES[:4]
    ]
    repository.write("datasets/tickets.jsonl", jsonl([*broken, *CASES[4:]]))
    repository.edit(*NEUTRAL)
    done = repository.gate("sort", more=keys(server))
    assert (done.returncode, done.stdout) == (Exit.INCOMPLETE, "")
    assert "cells have no output" in done.stderr
    with repository.journal() as journal:
        assert journal.verdicts.of("sort") == []
    n_before = len(server.received)
    done = repository.gate("sort", more=keys(server))
    assert done.returncode == Exit.DONE
    assert done.stdout.startswith("sort: pass")
    assert len(server.received) - n_before == 2 * 4, "only what was missing was asked for"


def test_a_refused_key_stops_without_a_verdict(repository: Repository, server: ModelServer) -> None:
    server.revoked = {KEY}
    repository.edit(*NEUTRAL)
    done = repository.gate("sort", more=keys(server))
    assert (done.returncode, done.stdout) == (Exit.STOPPED, "")


# --- facts --------------------------------------------------------------------------------------------------


def test_facts_are_compared_as_they_are(repository: Repository, server: ModelServer) -> None:
    repository.edit(
        "  - {metric: error_rate, at_most: 0.01}",
        "  - {metric: cost_usd, at_most: 0.000001}\n  - {metric: cost_usd, not_worse_than: baseline}",
        EXPERIMENT,
    )
    repository.edit(*NEUTRAL)
    done = repository.gate("sort", "--json", more=keys(server))
    assert done.returncode == Exit.FAILED
    assert "cost_usd at_most 1e-06: the limit is broken" in done.stdout


def test_an_unknown_cost_is_inconclusive(repository: Repository, server: ModelServer) -> None:
    text = (repository.root / "llmops.yaml").read_text(encoding="utf-8")
    repository.write("llmops.yaml", text.replace("    price: {input_per_mtok: 1, output_per_mtok: 2}\n", ""))
    repository.edit("{metric: error_rate, at_most: 0.01}", "{metric: cost_usd, at_most: 9}", EXPERIMENT)
    repository.edit(*NEUTRAL)
    done = repository.gate("sort", "--json", more=keys(server))
    assert done.returncode == Exit.DONE
    assert "nobody knows it" in done.stdout and '"outcome": "inconclusive"' in done.stdout
