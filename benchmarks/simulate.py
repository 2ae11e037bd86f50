"""`make simulate`: how often the gate errs and what it costs, beside its goals and two bare rules on the same draws.

`python -m benchmarks.simulate` in minutes, `--quick` in one; each share with the standard error of the simulation.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy import special

from benchmarks.laws import Binary, Collapse, Documents, Drawn, Flaky, Hard, Law, Levels
from llmops.stats.decision import decide
from llmops.stats.looks import Look, decide_looks, judge_look, look_order, planned_looks
from llmops.stats.noninferiority import judge_pairs
from llmops.stats.outcome import Rule
from llmops.stats.power import ALPHA, n_unchanged

QUICK = 30
"""By how much `--quick` draws less."""
ERRORS = 3
"""Standard errors of the simulation that a goal is given."""


@dataclass(frozen=True)
class Goal:
    """What is asked of a share of runs, or of the mean cost. what: pass, fail or cost."""

    id: str
    what: str
    least: float = 0.0
    most: float = 1.0

    def __str__(self) -> str:
        return f"{self.what} {f'>= {self.least:g}' if self.least else f'<= {self.most:g}'}"


@dataclass(frozen=True)
class Scenario:
    """A law, what the gate asks, and the goals. is_sequential: with planned looks."""

    law: Law
    margin: float
    goals: tuple[Goal, ...]
    repetitions: int = 4000
    is_sequential: bool = False

    def __str__(self) -> str:
        return f"{self.law}, margin {100 * self.margin:g}{', looks' if self.is_sequential else ''}"


@dataclass(frozen=True)
class Rates:
    """Shares of runs that passed and failed, and the mean and standard deviation of their cost."""

    passed: float
    failed: float
    cost: float
    cost_sd: float
    repetitions: int

    def of(self, what: str) -> tuple[float, float]:
        """Return a figure and its standard error."""
        if what == "cost":
            return self.cost, self.cost_sd / math.sqrt(self.repetitions)
        share = self.passed if what == "pass" else self.failed
        return share, math.sqrt(max(share * (1 - share), 1 / self.repetitions**2) / self.repetitions)


def _false_block(law: Law, repetitions: int = 4000) -> Scenario:
    return Scenario(law, 0.05, (Goal("G1", "fail", most=ALPHA),), repetitions)


def _false_pass(law: Law, margin: float) -> Scenario:
    return Scenario(law, margin, (Goal("G2", "pass", most=ALPHA),))


def _looks(law: Law, margin: float, *goals: Goal, draws: int = 1000) -> Scenario:
    return Scenario(law, margin, goals, draws, is_sequential=True)


EVEN = ((25,) * 8, (10,) * 20, (20,) * 50)
UNEVEN = (tuple(range(1, 61, 3)), (100, *(5,) * 20))
SCENARIOS = (
    *(_false_block(Binary(n)) for n in (50, 200, 1000, 5000)),
    *(_false_block(Binary(200, metrics=k), repetitions=1000) for k in (5, 10)),
    *(_false_block(Documents(sizes)) for sizes in (*EVEN, *UNEVEN)),
    *(_false_block(Hard(n, share), repetitions=1000) for n, share in ((50, 0.02), (200, 0.05), (200, 0.95))),
    *(_false_pass(Binary(n, 0.05), 0.05) for n in (50, 200)),
    *(_false_pass(Binary(n, 0.02), 0.02) for n in (200, 1000)),
    *(_false_pass(Binary(n, 0.05, noise=0.0), 0.05) for n in (58, 200)),
    *(_false_pass(Collapse(n, 0.05), 0.05) for n in (20, 200)),
    *(_false_pass(Collapse(n, 0.05, gain=0.02), 0.05) for n in (50, 200)),
    *(_false_pass(Levels(n, 0.05), 0.05) for n in (50, 200)),
    *(_false_pass(Documents(sizes, 0.05), 0.05) for sizes in (*EVEN, *UNEVEN)),
    _false_pass(Binary(200, 0.05, missing=0.03), 0.05),
    _looks(Binary(1000, 0.02), 0.02, Goal("G2", "pass", most=ALPHA)),
    _looks(Flaky(200), 0.05, Goal("G3", "pass", least=0.99), Goal("G6", "cost", most=0.52), draws=2000),
    _looks(Flaky(200, 0.05), 0.05, Goal("G4", "fail", least=0.9), Goal("G4", "pass", most=0.04), draws=2000),
    _looks(Flaky(200, 0.05, collapses=True), 0.05, Goal("G2", "pass", most=ALPHA)),
    _looks(Flaky(1000), 0.02, Goal("G5", "pass", least=0.98)),
    _looks(Flaky(1000, 0.02), 0.02, Goal("G5", "pass", most=0.05)),
    _looks(Flaky(500), 0.05, Goal("G6", "cost", most=0.30)),
    _looks(Flaky(1000), 0.05, Goal("G6", "cost", most=0.18)),
    _looks(Binary(1000), 0.05, Goal("G7", "cost", most=0.40), Goal("G7", "pass", least=0.99), draws=2000),
    _looks(Binary(1000, 0.10), 0.05, Goal("G7", "cost", most=0.25)),
)


# --- three rules --------------------------------------------------------------------------------------------

Ruling = tuple[str, float]


def gate(drawn: Drawn, margin: float, seed: int) -> Ruling:
    """Our gate, one look at all cases."""
    rule = Rule(margin, 0.0, 1.0, seed=seed)
    pairs = enumerate(zip(drawn.baseline, drawn.candidate, strict=True))
    outcomes = {
        str(i): judge_pairs(*pair, rule, clusters=drawn.clusters, runs=drawn.behind) for i, pair in pairs
    }
    return decide(outcomes, alpha=rule.alpha).verdict, 1.0


def sequential_gate(drawn: Drawn, margin: float, seed: int) -> Ruling:
    """Our gate with planned looks at one metric; its cost is what was run until it stopped."""
    rule = Rule(margin, 0.0, 1.0, seed=seed)
    n_total = drawn.baseline.shape[1]
    order = look_order(n_total, seed=seed)
    looks: list[Look] = []
    for n in planned_looks(n_total):
        done = order[:n]
        pair = drawn.baseline[0, done], drawn.candidate[0, done]
        runs = (
            None if drawn.behind is None else (drawn.behind[0].of_cases(done), drawn.behind[1].of_cases(done))
        )
        looks.append(judge_look(*pair, rule, n_total=n_total, previous=looks, runs=runs))
        stop = decide_looks({"metric": looks}, alpha=rule.alpha)
        if stop.verdict is not None:
            break
    cost = n if drawn.cost is None else float(drawn.cost[done].sum())
    return str(stop.verdict), cost / n_total


def any_drop(drawn: Drawn) -> str:
    """A bare rule: block when some mean dropped."""
    return _drop(drawn, 0.0)


def drop_over_2(drawn: Drawn) -> str:
    """A bare rule: block when some mean dropped by more than 2 points."""
    return _drop(drawn, 0.02)


def significance(drawn: Drawn) -> str:
    """A bare rule: block when McNemar's test (or the sign test) finds some metric worse, at 5 in 100."""
    difference = drawn.runs[1] - drawn.runs[0]
    worse, better = (difference < 0).sum(axis=1), (difference > 0).sum(axis=1)
    p_values = np.where(worse > 0, special.bdtrc(np.maximum(worse, 1) - 1, worse + better, 0.5), 1.0)
    return "fail" if (p_values <= ALPHA).any() else "pass"


def _drop(drawn: Drawn, limit: float) -> str:
    change = (drawn.runs[1] - drawn.runs[0]).mean(axis=1)
    return "fail" if (change < -limit - 1e-12).any() else "pass"


BARE = {"any drop": any_drop, "drop > 2": drop_over_2, "significance": significance}


# --- the simulation -----------------------------------------------------------------------------------------


def simulate(place: int, repetitions: int) -> list[Rates]:
    """Return the rates of our gate, and of the bare rules, on the same draws of a scenario."""
    scenario = SCENARIOS[place]
    ours = sequential_gate if scenario.is_sequential else gate
    rulings: list[list[Ruling]] = [[] for _ in range(1 + len(BARE))]
    for seed in range(repetitions):
        drawn = scenario.law.draw(np.random.default_rng((place, seed)))
        ruled = [ours(drawn, scenario.margin, seed), *((rule(drawn), 1.0) for rule in BARE.values())]
        for found, ruling in zip(rulings, ruled, strict=True):
            found.append(ruling)
    return [_rates(found) for found in rulings]


def _rates(rulings: Sequence[Ruling]) -> Rates:
    costs = np.array([cost for _, cost in rulings])
    shares = [sum(verdict == wanted for verdict, _ in rulings) / len(rulings) for wanted in ("pass", "fail")]
    return Rates(shares[0], shares[1], float(costs.mean()), float(costs.std()), len(rulings))


def _state(goal: Goal, rates: Rates) -> str:
    figure, error = rates.of(goal.what)
    if goal.least <= figure <= goal.most:
        return _word(True)
    is_near = goal.least <= figure + ERRORS * error and figure - ERRORS * error <= goal.most
    return "within error" if is_near else _word(False)


def _word(is_met: bool) -> str:
    return "met" if is_met else "NOT MET"


def _show(scenario: Scenario, found: Sequence[Rates]) -> bool:
    """Print a row for each goal of a scenario; return whether all are met."""
    states = [_state(goal, found[0]) for goal in scenario.goals]
    for goal, state in zip(scenario.goals, states, strict=True):
        figure, error = found[0].of(goal.what)
        bare = "".join(f"{rates.of(goal.what)[0]:>13.3f}" for rates in found[1:])
        asked = f"{goal.id}  {scenario!s:52} {goal!s:13}"
        print(f"{asked} {figure:.4f} +- {error:.4f} {state:12}{bare}", flush=True)
    return _word(False) not in states


def _unseen() -> bool:
    """G8: nothing passes before it can, whatever the margin; one case, no case, one cluster say nothing."""
    wrong = 0
    for margin in (0.01, 0.02, 0.05, 0.10, 0.30):
        fewest = n_unchanged(margin)
        for n, expected in ((fewest - 1, "inconclusive"), (fewest, "pass")):
            wrong += judge_pairs(np.ones(n), np.ones(n), Rule(margin, 0.0, 1.0)).verdict != expected
    for n, labels in ((0, None), (1, None), (100, ["one"] * 100)):
        for after in (np.zeros(n), np.ones(n)):
            outcome = judge_pairs(np.ones(n), after, Rule(0.96, 0.0, 1.0), clusters=labels)
            wrong += outcome.verdict != "inconclusive"
    print(f"G8  verdicts that must not be: {wrong} of 16, asked 0: {_word(not wrong)}")
    return not wrong


def _speed() -> bool:
    """G9: five metrics of 5,000 cases, graded, within 2 s and twice the same."""
    rng = np.random.default_rng(9)
    drawn = [(rng.random(5000), rng.random(5000)) for _ in range(5)]
    started = time.process_time()
    first = [judge_pairs(*pair, Rule(0.05, 0.0, 1.0)) for pair in drawn]
    shown = [(outcome, outcome.smallest_margin, outcome.smallest_regression) for outcome in first]
    spent_s = time.process_time() - started
    is_same = repr(first) == repr([judge_pairs(*pair, Rule(0.05, 0.0, 1.0)) for pair in drawn])
    is_met = spent_s < 2 and is_same and len(shown) == 5
    print(f"G9  5 x 5,000 cases: {spent_s:.2f} s CPU, asked < 2, repeatable: {is_same}: {_word(is_met)}")
    return is_met


def main() -> None:
    """Simulate all scenarios on two cores and say which goals are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"a {QUICK}th of the draws")
    share = QUICK if parser.parse_args().quick else 1
    header = f"{'goal, world':56} {'asked':13} {'ours':16} {'':12}" + "".join(f"{name:>13}" for name in BARE)
    print(header, "-" * len(header), sep="\n")
    with ProcessPoolExecutor(2) as pool:
        asked = [
            pool.submit(simulate, place, scenario.repetitions // share)
            for place, scenario in enumerate(SCENARIOS)
        ]
        met = [_show(scenario, future.result()) for scenario, future in zip(SCENARIOS, asked, strict=True)]
    met += [_unseen(), _speed()]
    print(f"{sum(met)} of {len(met)} worlds as asked")
    sys.exit(0 if all(met) else 1)


if __name__ == "__main__":
    main()
