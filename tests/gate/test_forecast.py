"""What gates can see is told before anything is paid for: with the noise of the history, where there is one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from llmops.compare import SideValues
from llmops.gate.history import History, expect
from llmops.gate.metrics import Metric
from llmops.records import CaseNumbers, RowNumbers, ScoreNumbers
from llmops.stats.power import power_report
from tests.gate.test_history import collect
from tests.gated import EXPERIMENT, NEUTRAL, Repository


def history_of(table: list[list[float]], slices: str = "") -> History:
    """Return a history of cases, one row each with the score of each run."""
    values = SideValues(with_keys=False)
    for run in range(len(table[0])):
        for place, scores in enumerate(table):
            case = CaseNumbers(f"c{place}", slices[place : place + 1] or None, None, "")
            score = ScoreNumbers("m", scores[run], None, None, {}, ())
            values.add(RowNumbers(case, None, [score]))
    return History(len(table[0]), values)


SCORE = Metric("m", "mean", "m", 0.0, 1.0)


def test_expected_noise_is_the_variance_of_a_difference_of_means() -> None:
    rng = np.random.default_rng(3)
    chances = np.array([0.5, 0.2, 1.0, 0.0] * 250)
    table = (rng.random((chances.size, 7)) < chances[:, None]).astype(float)
    found = expect(history_of(table.tolist()), SCORE, None, own=1, flaky=1)
    assert found is not None
    assert found.n_runs == 8
    truth = float((chances * (1 - chances)).mean())
    assert found.noise == pytest.approx(truth * (1 + 1 / 8), rel=0.05)
    assert found.repeated == pytest.approx(truth * (1 / 4 + 1 / 8), rel=0.05)
    assert found.n_flaky == int((np.ptp(table, axis=1) > 0).sum())
    already = expect(history_of(table.tolist()), SCORE, None, own=1, flaky=4)
    assert already is not None and already.noise == already.repeated == found.repeated


def test_a_slice_has_its_own_noise_and_the_range_counts() -> None:
    history = history_of([[1, 5], [3, 3], [4, 4]], slices="abb")
    stars = Metric("m", "mean", "m", 1.0, 5.0)
    whole, own, other = (expect(history, stars, name, own=1, flaky=1) for name in (None, "a", "b"))
    assert whole is not None and own is not None and other is not None
    assert own.noise == pytest.approx(8 / 16 * (1 + 1 / 3)) and other.noise == 0
    assert whole.noise == pytest.approx(own.noise / 3)
    assert expect(history, stars, "gone", own=1, flaky=1) is None


def test_the_forecast_takes_its_noise_from_the_history(tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    repository.edit("{prompt: sort}", "{prompt: sort, parameters: {temperature: 2}}", EXPERIMENT)
    repository.edit(*NEUTRAL)
    typical = power_report(90, 0.05)
    line = f"90 cases can pass a margin of {typical.smallest_margin:.3f} and prove a regression of"
    told = repository.gate("sort").stderr
    assert line in told and "runs of the baseline" not in told
    collect(repository, 4)
    told = repository.gate("sort").stderr
    assert line not in told
    assert " beside 5 runs of the baseline); with `flaky_repeats: 4`, for " in told
    repository.edit("dataset: tickets", "dataset: tickets\nflaky_repeats: 4", EXPERIMENT)
    told = repository.gate("sort").stderr
    assert " beside 5 runs of the baseline)" in told and "they could" not in told
