"""A gate that looks on the way to the whole dataset, and stops as soon as the answer is sure.

Each gate that infers is judged at its share of alpha at every look; which looks there are, what a regression that was
proved early means, and when to give up belongs to `stats.looks`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from llmops.definitions.experiment import Gate
from llmops.gate.judging import Judged, Judging
from llmops.records import GateResult, Place
from llmops.records import Outcome as Said
from llmops.stats.looks import Look, Stop, decide_looks, judge_look, planned_looks
from llmops.stats.outcome import Outcome, PairedOutcome, Rule
from llmops.stats.spending import nominal_levels

Key = tuple[str, int]
"""A candidate's name, and the place of a gate among those of the experiment."""


@dataclass
class Watch:
    """The looks so far. judged: what each gate said last, or when it passed; stop: what all looks add up to."""

    judged: dict[Key, Judged] = field(default_factory=dict)
    looks: dict[Key, list[Look]] = field(default_factory=dict)
    stop: Stop | None = None

    def look(
        self, key: Key, judging: Judging, gate: Gate, place: Place | None, asked: Collection[str]
    ) -> None:
        """Judge one gate on the cases asked so far, at the level of this look; one that passed has passed."""
        seen = self.looks.setdefault(key, [])
        if any(look.outcome.verdict == "pass" for look in seen):
            return
        n_total = len(judging.arms.choose(gate.slice).ids)
        arms = replace(judging.arms, asked=asked)
        n = len(arms.choose(gate.slice).ids)
        if n_total and (n == 0 or (seen and n / n_total <= seen[-1].fraction)):
            return  # no case of its slice has come since
        fractions = (*(seen[-1].fractions if seen else ()), n / n_total if n_total else 1.0)
        level = nominal_levels(fractions, judging.alpha)[-1]
        pairs = _Pairs(judging.alpha, n_total, seen)
        self.judged[key] = replace(judging, arms=arms, alpha=level, test=pairs.test).judge(gate, place)
        tested = self.judged[key].tested
        if tested is not None:
            seen.append(pairs.taken or _look_at_limit(tested, judging.alpha, fractions, n, n_total))

    def is_over(self, alpha: float) -> bool:
        """Return whether to stop: all gates have answered, or none is going to."""
        looked: dict[str, Sequence[Look]] = {_name(key): seen for key, seen in self.looks.items() if seen}
        waiting = [key for key, seen in self.looks.items() if not seen and not self._is_fact(key)]
        if waiting or not looked:
            return False
        self.stop = decide_looks(looked, alpha=alpha)
        return self.stop.verdict is not None

    def _is_fact(self, key: Key) -> bool:
        return key in self.judged and self.judged[key].tested is None

    def results(self) -> dict[Key, GateResult]:
        """Return what each gate says after the last look, all of them taken together."""
        return {key: self._result(key, judged) for key, judged in self.judged.items()}

    def _result(self, key: Key, judged: Judged) -> GateResult:
        seen = self.looks[key]
        if not seen or self.stop is None:
            return judged.result
        name = _name(key)
        outcome = Said.PASS
        if name in self.stop.failed:
            outcome = Said.FAIL
        elif name in self.stop.unproved:
            outcome = Said.INCONCLUSIVE
        reason = judged.result.reason
        if self.stop.is_futile and outcome is Said.INCONCLUSIVE:
            reason = "neither a pass nor a fail is to be hoped for with the cases left"
        elif outcome is Said.FAIL and judged.result.outcome is not Said.FAIL:
            reason = "a regression was proved at an earlier look"
        elif outcome is Said.INCONCLUSIVE and judged.result.outcome is not outcome:
            reason = f"{reason} at this look by itself, but not among all gates and looks together"
        changes = {"outcome": outcome, "reason": reason, "look": seen[-1].number, "n_looks": seen[-1].n_looks}
        return judged.result.model_copy(update=changes)


@dataclass
class _Pairs:
    """The test of pairs at one look, and the look that it took. alpha: of all looks together."""

    alpha: float
    n_total: int
    previous: Sequence[Look]
    taken: Look | None = None

    def test(self, before: Any, after: Any, rule: Rule, **of_cases: Any) -> PairedOutcome:
        """Judge the pairs so far, as `judge_pairs` would at the level of this look."""
        whole = replace(rule, alpha=self.alpha)
        self.taken = judge_look(
            before, after, whole, n_total=self.n_total, previous=self.previous, **of_cases
        )
        outcome = self.taken.outcome
        assert isinstance(outcome, PairedOutcome)  # noqa: S101 - of pairs
        return outcome


def _look_at_limit(tested: Outcome, alpha: float, fractions: tuple[float, ...], n: int, n_total: int) -> Look:
    """Return a look at one side alone, of which nobody foretells what later ones bring."""
    n_looks = len(fractions) + sum(done > n for done in planned_looks(n_total))
    later = 0.0 if n == n_total else 1.0
    return Look(tested, alpha, len(fractions), n_looks, fractions, n == n_total, False, later, later)


def _name(key: Key) -> str:
    return f"{key[0]} {key[1]}"
