"""Scores that no gate asks about: told with q-values on every face, and deciding nothing."""

from __future__ import annotations

from html import unescape
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest, false_discovery_control

from llmops.records import Outcome
from tests.gated import EXPERIMENT, HARM, NEUTRAL, Repository


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    repository = Repository(tmp_path)
    repository.edit("[exact_match]", "[exact_match, contains: {name: red, any: [red]}]", EXPERIMENT)
    return repository


def test_what_no_gate_asks_about_is_told_with_q_values_and_decides_nothing(repository: Repository) -> None:
    repository.edit("exact_match, not_worse_than: baseline, margin: 0.05", "red, at_least: 0.1", EXPERIMENT)
    repository.edit(*HARM)
    files = {name: repository.left(f"v.{name}") for name in ("markdown", "html", "junit")}
    options = [word for name, path in files.items() for word in (f"--{name}", str(path))]
    verdict, _ = repository.verdict(*options)
    assert verdict.outcome is Outcome.PASS
    (candidate,) = verdict.candidates
    named = {result.gate: result for result in candidate.ungated}
    parts = ("", ", slice edge", ", slice plain")
    assert list(named) == [f"{metric}{part}" for metric in ("exact_match", "red") for part in parts]
    assert not any(result.blocks for result in named.values())
    whole = named["exact_match"]
    assert (whole.n, whole.baseline) == (90, 1.0)
    assert whole.estimate == pytest.approx(-1 / 3)
    assert whole.p_worse == pytest.approx(binomtest(30, 30, alternative="greater").pvalue)
    p_values = [result.p_worse for result in named.values() if result.p_worse is not None]
    q_values = [result.q_worse for result in named.values() if result.q_worse is not None]
    assert q_values == pytest.approx(false_discovery_control(np.array(p_values)))
    assert min(q_values) < 0.001 and max(q_values) > 0.5
    for name, path in files.items():
        text = unescape(path.read_text(encoding="utf-8")).replace("\\", "")
        assert "asked by no gate" in text and "exact_match, slice edge" in text, name
    assert "asked by no gate" in repository.gate("sort").stdout


def test_what_a_gate_asks_is_not_told_twice(repository: Repository) -> None:
    repository.edit(
        "  - {metric: error",
        "  - {metric: red, not_worse_than: baseline, slice: edge}\n  - {metric: error",
        EXPERIMENT,
    )
    repository.edit(*NEUTRAL)
    verdict, _ = repository.verdict()
    assert [result.gate for result in verdict.candidates[0].ungated] == [
        "exact_match, slice edge",
        "exact_match, slice plain",
        "red",
        "red, slice plain",
    ]


def test_where_nothing_changed_there_is_nothing_to_tell(repository: Repository) -> None:
    assert repository.verdict()[0].candidates[0].ungated == ()
    assert "asked by no gate" not in repository.gate("sort").stdout
