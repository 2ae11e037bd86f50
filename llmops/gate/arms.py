"""A candidate's numbers beside its baseline's, case by case: those cases a gate asks about, and no others.

Pairing and reading are `compare`'s; here slices are cut out and flaky cases left out, the same on both sides.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from llmops.compare import Column, Pairs, SideValues
from llmops.gate.history import NO_HISTORY, History, pooled
from llmops.records import Run, Variant
from llmops.score.paired import PairedSums, pair_sums
from llmops.stats.arrays import Floats
from llmops.stats.runs import Runs


@dataclass(frozen=True)
class Chosen:
    """The cases of one gate. ids: in order; clusters: a label a case, None where each case is its own."""

    ids: Sequence[str]
    clusters: Sequence[str] | None


@dataclass(frozen=True)
class Arms:
    """One candidate and what it is compared with, all their numbers read.

    baseline: None where there is none; `pairs` then holds the candidate on both sides.
    asked: cases that have had their turn, None when all have. history: what the baseline's side takes in besides;
    again: what takes the place of the candidate's flaky cases, run more often.
    """

    run: Run
    candidate: Variant
    baseline: Variant | None
    pairs: Pairs
    quarantined: Collection[str] = ()
    asked: Collection[str] | None = None
    history: History = NO_HISTORY
    again: SideValues | None = None

    def choose(self, slice_name: str | None) -> Chosen:
        """Return the cases of a slice, or all."""
        kept = [
            place
            for place, (case_id, label) in enumerate(zip(self.pairs.ids, self.pairs.slices, strict=True))
            if slice_name in (None, label)
            and case_id not in self.quarantined
            and (self.asked is None or case_id in self.asked)
        ]
        clusters = self.pairs.clusters
        return Chosen(
            [self.pairs.ids[place] for place in kept],
            None if clusters is None else clusters[kept].tolist(),
        )

    def means(self, column: str, chosen: Chosen, *, with_history: bool = False) -> tuple[Floats, Floats]:
        """Return the case means of baseline and candidate, NaN where a score is missing."""
        if not chosen.ids:
            return np.zeros(0), np.zeros(0)
        before, after = (side.means(column, chosen.ids) for side in self._sides)
        runs = self.runs(column, chosen, with_history=with_history) if with_history else None
        if runs is not None:
            before, after = (side.means(len(chosen.ids)) for side in runs)
        return before, after

    def runs(self, column: str, chosen: Chosen, *, with_history: bool = False) -> tuple[Runs, Runs] | None:
        """Return what the means are means of; None where each case was run once."""
        if self.run.repeats == 1 and not (with_history and self.history.n):
            return None
        before, after = self.own_runs(column, chosen), _runs(self.pairs.candidate, column, chosen.ids)
        if with_history and self.history.n:
            before = pooled(before, self.earlier_runs(column, chosen))
        if with_history and self.again is not None:
            after = _replaced(after, _runs(self.again, column, chosen.ids))
        return before, after

    def own_runs(self, column: str, chosen: Chosen) -> Runs:
        """Return the baseline's values in this run."""
        return _runs(self.pairs.baseline, column, chosen.ids)

    def earlier_runs(self, column: str, chosen: Chosen) -> Runs:
        """Return the baseline's values in the runs before this one."""
        return _runs(self.history.values, column, chosen.ids)

    def n_runs(self, *, with_history: bool) -> tuple[int, int]:
        """Return how often each case was run, on the baseline's side and the candidate's."""
        own = self.run.repeats
        return own + (self.history.n if with_history else 0), own

    def sums(self, evaluator: str, chosen: Chosen) -> PairedSums | None:
        """Return what figures of all cases are made of; None of an evaluator that has none."""
        summing = self.pairs.candidate.summing.get(evaluator)
        before, after = (side.ledgers.get(evaluator) for side in self._sides)
        if summing is None or before is None or after is None:
            return None
        places = [
            {side.cases[case_id].place: pair for pair, case_id in enumerate(chosen.ids)}
            for side in self._sides
        ]
        return pair_sums(summing, (before, after), (places[0], places[1]))

    @property
    def _sides(self) -> tuple[SideValues, SideValues]:
        return self.pairs.baseline, self.pairs.candidate


def _runs(side: SideValues, column: str, ids: Sequence[str]) -> Runs:
    """Return the values of one side, one a repeat, each with the place of its case among `ids`."""
    rank = np.full(len(side.cases), -1)
    for place, case_id in enumerate(ids):
        if case_id in side.cases:
            rank[side.cases[case_id].place] = place
    found = side.columns.get(column, Column())
    places, values = rank[np.array(found.places, dtype=np.intp)], np.array(found.values, dtype=np.float64)
    return Runs(places[places >= 0], values[places >= 0])


def _replaced(runs: Runs, again: Runs) -> Runs:
    """Return the runs of all cases, with those of another place where it has any."""
    kept = ~np.isin(runs.places, again.places)
    return pooled(Runs(runs.places[kept], runs.values[kept]), again)
