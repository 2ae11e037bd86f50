"""Two variants' figures over all cases together -> how far apart they are, under the same resamples of cases.

Macro F1, corpus BLEU: no case has a value of its own, so the cases are drawn again for both sides alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from llmops.evaluators.base import Summary
from llmops.evaluators.statistics import plain_value, resampled
from llmops.records import Interval
from llmops.score.summary import Ledger, Sums
from llmops.stats.intervals import DUST

if TYPE_CHECKING:
    from llmops.stats.arrays import Floats
    from llmops.stats.bootstrap import Statistic


@dataclass(frozen=True, slots=True)
class PairedFigure:
    """One figure of both sides over the same n cases, and the interval of candidate less baseline."""

    part: str
    baseline: float
    candidate: float
    interval: Interval


@dataclass(frozen=True)
class PairedSums:
    """What one evaluator said of the cases that are on both sides. sides: baseline and candidate, by pair."""

    evaluator: Summary
    sides: tuple[Mapping[int, Sequence[Sums]], Mapping[int, Sequence[Sums]]]

    @property
    def pairs(self) -> list[int]:
        """The places, among all pairs, of the cases of which both sides have sums."""
        return sorted(self.sides[0].keys() & self.sides[1].keys())

    @property
    def n_missing(self) -> int:
        """The number of cases of which only one side has."""
        return len(self.sides[0].keys() ^ self.sides[1].keys())

    def figures(self, clusters: Sequence[str] | None, *, level: float, seed: int) -> Iterator[PairedFigure]:
        """Yield each figure, over `pairs`, of which there must be one. clusters: one label a pair of `pairs`."""
        pairs = self.pairs
        baseline, candidate = (self._by_case([side[pair] for pair in pairs]) for side in self.sides)
        for part in sorted(baseline.keys() & candidate.keys()):
            before, after = (plain_value(side[part], len(pairs)) for side in (baseline, candidate))
            difference = _difference(baseline[part], candidate[part])
            interval = resampled(difference, len(pairs), clusters=clusters, level=level, seed=seed)
            yield PairedFigure(part, before, after, interval)

    def candidate(self, part: str, *, lower_is_better: bool) -> tuple[float, Statistic] | None:
        """Return a figure of the candidate alone, and the function behind it turned so that higher is better.

        None where its evaluator has no such figure.
        """
        found = self._by_case([self.sides[1][pair] for pair in self.pairs]).get(part)
        return (
            None if found is None else (plain_value(found, len(self.pairs)), _turned(found, lower_is_better))
        )

    def gain(self, part: str, *, lower_is_better: bool) -> tuple[float, float, Statistic] | None:
        """Return a figure of both sides, and the function of how much better the candidate is; as `candidate`."""
        baseline, candidate = (self._by_case([side[pair] for pair in self.pairs]) for side in self.sides)
        if part not in baseline or part not in candidate:
            return None
        before, after = (plain_value(side[part], len(self.pairs)) for side in (baseline, candidate))
        return before, after, _turned(_difference(baseline[part], candidate[part]), lower_is_better)

    def _by_case(self, repeats: Sequence[Sequence[Sums]]) -> dict[str, Statistic]:
        """Return the figures of one side as functions of weights of its cases: all repeats of a case weigh alike."""
        scores = [score for case in repeats for score in case]
        places = np.repeat(np.arange(len(repeats)), [len(case) for case in repeats])
        return {part: _spread(found, places) for part, found in self.evaluator.statistics(scores).items()}


def pair_sums(
    evaluator: Summary, sides: tuple[Ledger, Ledger], pairs: tuple[Mapping[int, int], Mapping[int, int]]
) -> PairedSums:
    """Return what an evaluator said of the cases on both sides. pairs: of each side, the pair of a case's place."""
    baseline, candidate = (_by_pair(evaluator, *side) for side in zip(sides, pairs, strict=True))
    return PairedSums(evaluator, (baseline, candidate))


def _by_pair(evaluator: Summary, ledger: Ledger, pairs: Mapping[int, int]) -> dict[int, list[Sums]]:
    found: dict[int, list[Sums]] = {}
    for place, score in zip(ledger.places, ledger.scores, strict=True):
        if place in pairs and evaluator.is_summed(score):
            found.setdefault(pairs[place], []).append(score)
    # The order in which repeats came must show nowhere, not even in the last bit.
    return {
        pair: sorted(scores, key=lambda score: (score.label or "", score.sums))
        for pair, scores in found.items()
    }


def _turned(statistic: Statistic, lower_is_better: bool) -> Statistic:
    return (lambda weights: -statistic(weights)) if lower_is_better else statistic


def _spread(statistic: Statistic, places: npt.NDArray[np.intp]) -> Statistic:
    return lambda weights: statistic(weights[:, places])


def _difference(baseline: Statistic, candidate: Statistic) -> Statistic:
    def difference(weights: npt.NDArray[np.intp]) -> Floats:
        before, after = baseline(weights), candidate(weights)
        change = after - before
        # Dust would look like a change, and like one that all resamples agree on.
        change[np.abs(change) <= DUST * np.maximum(np.abs(before), np.abs(after))] = 0.0
        return change

    return difference
