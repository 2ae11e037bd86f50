"""`make simulate` in its small form: the scenarios draw what they say, and the table tells good rules from bad."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.laws import Binary, Collapse, Documents, Flaky, Hard, Law, Levels
from benchmarks.simulate import BARE, SCENARIOS, Goal, Rates, _state, simulate


@pytest.mark.parametrize(
    "law",
    [
        Binary(200),
        Binary(200, 0.05),
        Binary(200, 0.05, noise=0.0),
        Collapse(200, 0.05),
        Collapse(200, 0.05, gain=0.02),
        Levels(200, 0.05),
        Documents((10,) * 20, 0.05),
        Flaky(200),
        Flaky(200, 0.05),
        Flaky(200, 0.05, collapses=True),
        Hard(200, 0.5, 0.05),
    ],
    ids=str,
)
def test_each_law_regresses_by_what_it_says(law: Law) -> None:
    rng = np.random.default_rng(1)
    changes = [np.mean(drawn.candidate - drawn.baseline) for drawn in (law.draw(rng) for _ in range(500))]
    error = float(np.std(changes)) / np.sqrt(500)
    assert np.mean(changes) == pytest.approx(-law.regression, abs=4 * error)


def test_missing_scores_are_those_of_the_cases_that_got_worse() -> None:
    drawn = Binary(200, 0.05, missing=0.03).draw(np.random.default_rng(2))
    gaps = np.isnan(drawn.candidate)
    assert gaps.sum() == 6
    assert ((drawn.runs[1] - drawn.runs[0])[gaps] == -1).all()


def test_our_gate_errs_less_than_bare_rules_on_the_same_draws() -> None:
    places = {str(scenario): place for place, scenario in enumerate(SCENARIOS)}
    collapse = simulate(places["200 rare collapses, small gains, true -5, margin 5"], 40)
    ours, any_drop, _, significant = (rates.passed for rates in collapse)
    assert ours <= 0.2
    assert significant == 1
    many = simulate(places["200 pass/fail, 5 metrics, margin 5"], 30)
    ours, any_drop, _, _ = (rates.failed for rates in many)
    assert ours <= 0.2
    assert any_drop > 0.8
    assert len(collapse) == len(many) == 1 + len(BARE)


def test_looks_cost_less_than_all_cases() -> None:
    place = next(
        k
        for k, scenario in enumerate(SCENARIOS)
        if str(scenario) == "500 flaky, whole design, margin 5, looks"
    )
    ours = simulate(place, 10)[0]
    assert (ours.passed, ours.failed) == (1, 0)
    assert ours.cost < 0.4


def test_a_goal_is_met_missed_or_within_the_error_of_the_simulation() -> None:
    goal = Goal("G1", "fail", most=0.05)
    for failed, state in ((0.04, "met"), (0.055, "within error"), (0.09, "NOT MET")):
        assert _state(goal, Rates(0.5, failed, 1.0, 0.0, 1000)) == state
    assert _state(Goal("G6", "cost", most=0.5), Rates(1.0, 0.0, 0.6, 0.1, 100)) == "NOT MET"


def test_every_goal_of_the_gate_has_a_scenario() -> None:
    assert {goal.id for scenario in SCENARIOS for goal in scenario.goals} == {f"G{k}" for k in range(1, 8)}
