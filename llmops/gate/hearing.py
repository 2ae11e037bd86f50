"""One run as it stands now -> what its gates say of it, and the record of that but for what it cost.

Reads the numbers of the run from the journal, each side once; what stood there before belongs to the `court`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

from llmops.check.independence import undeclared_clusters
from llmops.compare import (
    SideValues,
    pair_cases,
    read_side,
    refuse_other_schemas,
    side_of,
    summing_evaluators,
)
from llmops.gate.arms import Arms
from llmops.gate.changed import changed_places
from llmops.gate.contest import Contest
from llmops.gate.court import Court
from llmops.gate.history import NO_HISTORY, is_stale
from llmops.gate.judging import Judged, Judging
from llmops.gate.looks import count_looks, held_out_looks, level_of
from llmops.gate.metrics import Metric, has_history, metric_of
from llmops.gate.outcomes import gravest, outcome_of, reason_of
from llmops.records import CandidateVerdict, GateResult, Looks, Outcome, Place, Run, Variant, Verdict
from llmops.score.summary import LEVEL
from llmops.stats.multiplicity import benjamini_hochberg
from llmops.stats.outcome import MAX_MISSING
from llmops.stats.power import ALPHA

if TYPE_CHECKING:
    from llmops.definitions.experiment import Gate

_MOST_SLICES = 12  # beyond, a table of what decides nothing would hide what does


@dataclass(frozen=True)
class Hearing:
    """One run as it stands now, and all that bears on its verdict."""

    court: Court
    run: Run
    now: datetime
    is_sequential: bool

    @cached_property
    def contest(self) -> Contest:
        """Who stands against whom."""
        return Contest(self.run, self.gates)

    @property
    def gates(self) -> Sequence[Gate]:
        """Those of the experiment as its file has them."""
        return self.court.plan.experiment.gates

    def looks(self) -> tuple[Looks, float]:
        """Return how often this was judged before, and the level that is left for it."""
        identities = {
            (after.identity, before.identity if before else "")
            for after, before in self.contest.pairs.values()
        }
        looks = count_looks(self.court.journal, self.run, identities, is_sequential=self.is_sequential)
        n_held_out = held_out_looks(self.court.workspace, self.court.journal, self.run)
        return looks.model_copy(update={"n_held_out": n_held_out}), level_of(ALPHA, looks)

    def places(self) -> dict[tuple[str, int], Place]:
        """Return each gate of each candidate, and where it stands."""
        return {
            (name, at): self._place("gates", at)
            for name, found in self.contest.chosen.items()
            for at in found
        }

    def judged(self, alpha: float) -> dict[tuple[str, int], Judged]:
        """Return what each gate says of each candidate."""
        judgings = self.judgings(alpha)
        return {
            (name, at): judgings[name].judge(self.gates[at], place)
            for (name, at), place in self.places().items()
        }

    def judgings(self, alpha: float) -> dict[str, Judging]:
        """Return what judges each candidate; the numbers of a baseline are read once."""
        return {name: Judging(arms, alpha, self.seed) for name, arms in self.arms.items()}

    @property
    def seed(self) -> int:
        """What resampling starts from: the same run is judged alike each time."""
        return int(self.run.identity[:8], 16)

    @cached_property
    def arms(self) -> dict[str, Arms]:
        """Each candidate's numbers beside its baseline's; with a history of that where there is one that holds."""
        return {
            name: replace(arms, history=NO_HISTORY, again=None) if self.stale[name] else arms
            for name, arms in self._arms.items()
        }

    @cached_property
    def stale(self) -> dict[str, int]:
        """How many earlier runs of each candidate's baseline are left out, because it is not any more what it was."""
        found = {}
        for name, arms in self._arms.items():
            tested = self.contest.tested(name, arms.pairs.candidate.columns)
            is_old = arms.history.n > 0 and is_stale(arms, tested, alpha=ALPHA, seed=self.seed)
            found[name] = arms.history.n if is_old else 0
        return found

    @cached_property
    def _arms(self) -> dict[str, Arms]:
        journal, summing = self.court.journal, summing_evaluators(self.run)
        read: dict[str, SideValues] = {}
        found: dict[str, Arms] = {}
        for name, (candidate, baseline) in self.contest.pairs.items():
            if baseline is not None and self._is_compared(name):
                refuse_other_schemas((self.run, baseline.name), (self.run, name))
            for side in (candidate, baseline):
                if side is not None and side.name not in read:
                    read[side.name] = read_side(journal, self.run, side.name, summing, with_keys=False)
            before = read[name if baseline is None else baseline.name]
            pairs = pair_cases(before, read[name], level=LEVEL)
            arms = Arms(self.run, candidate, baseline, pairs, self.court.quarantined)
            if baseline is not None and self.contest.tested(name, pairs.candidate.columns):
                history = self.court.shelf.history(baseline)
                arms = replace(arms, history=history, again=self._again(name))
            found[name] = arms
        return found

    def _is_compared(self, name: str) -> bool:
        return any(gate.not_worse_than for gate in self.contest.gates_of(name))

    def _again(self, name: str) -> SideValues | None:
        """Return the numbers of the cases that a candidate was run on more often."""
        again = self.court.again
        cases = again.cases.get(name) if again is not None else None
        if again is None or not cases:
            return None
        values = SideValues(with_keys=False)
        for row in self.court.journal.numbers(again.plan.run.id, variant=name):
            if row.case.id in cases:
                values.add(row)
        return values

    @cached_property
    def ungated(self) -> dict[str, tuple[GateResult, ...]]:
        """Return for each candidate how the scores changed that no gate asks about, slices too; with q-values."""
        found: dict[str, list[GateResult]] = {}
        judgings = self.judgings(ALPHA)
        for name, _ in self.contest.changed():
            told = (judgings[name].inform(*what) for what in self._unasked(name, judgings[name].arms))
            found[name] = [result for result in told if result is not None]
        everything = [result for results in found.values() for result in results]
        q_values = iter(benjamini_hochberg([result.p_worse or 0.0 for result in everything]))
        return {
            name: tuple(result.model_copy(update={"q_worse": next(q_values)}) for result in results)
            for name, results in found.items()
        }

    def _unasked(self, name: str, arms: Arms) -> Iterator[tuple[Metric, str | None]]:
        gates = self.contest.gates_of(name)
        asked = {(gate.metric, gate.slice) for gate in gates if gate.not_worse_than is not None}
        columns = arms.pairs.candidate.columns
        for evaluator in self.run.evaluators:
            metric = metric_of(evaluator.name, self.run.evaluators, columns)
            if has_history(metric) and evaluator.name in columns:
                slices = arms.pairs.slice_names[:_MOST_SLICES]
                yield from ((metric, part) for part in (None, *slices) if (metric.name, part) not in asked)

    def _place(self, *location: str | int) -> Place:
        document = self.court.workspace.document("experiment", self.run.experiment)
        line, column = document.position(location) or (None, None)
        return Place(path=document.path, line=line, column=column)

    def _candidate(
        self, name: str, gates: Sequence[GateResult], reused_before: datetime | None
    ) -> CandidateVerdict:
        candidate, baseline = self.contest.pairs[name]
        arms, again = self.arms[name], self.court.again
        return CandidateVerdict(
            candidate=side_of(self.run, name),
            baseline=None if baseline is None else side_of(self.run, baseline.name),
            baseline_age_s=None if baseline is None else self._age_s(baseline, reused_before),
            outcome=outcome_of(gates),
            gates=tuple(gates),
            changed=changed_places(self.court.workspace, candidate, baseline),
            n_history=arms.n_runs(with_history=True)[0] if arms.history.n else 0,
            n_stale=self.stale[name],
            n_flaky=0 if arms.again is None else len(arms.again.cases),
            ungated=self.ungated.get(name, ()),
            flaky_repeats=1 if arms.again is None or again is None else again.plan.run.repeats,
        )

    def _age_s(self, baseline: Variant, reused_before: datetime | None) -> float | None:
        oldest = self.court.journal.oldest_output(self.run.id, baseline.name)
        if oldest is None or reused_before is None or oldest >= reused_before:
            return None
        return (self.now - oldest).total_seconds()

    def written(
        self,
        results: Mapping[tuple[str, int], GateResult],
        looks: Looks,
        alpha: float,
        reused_before: datetime | None,
    ) -> Verdict:
        """Return the record, but for its id and what it cost."""
        candidates = tuple(
            self._candidate(name, [results[name, at] for at in places], reused_before)
            for name, places in self.contest.chosen.items()
        )
        outcome = gravest([each.outcome for each in candidates])
        experiment = self.court.plan.experiment
        policy = experiment.on_inconclusive or "warn"
        return Verdict(
            id="",
            created_at=self.now,
            experiment=self.run.experiment,
            place=self._place("gates"),
            outcome=outcome,
            reason=reason_of(candidates, outcome),
            blocks=outcome is Outcome.FAIL or (outcome is Outcome.INCONCLUSIVE and policy == "block"),
            run_id=self.run.id,
            dataset=self.run.dataset,
            evaluators=self.run.evaluators,
            candidates=candidates,
            policy={
                "alpha": f"{alpha:g}",
                "max_missing": f"{MAX_MISSING:g}",
                "missing_baseline": experiment.missing_baseline,
                "on_inconclusive": policy,
            },
            looks=looks,
            replayed=self.run.replayed,
            quarantined=tuple(sorted(self.court.quarantined)),
            warnings=tuple(undeclared_clusters(*self.court.workspace.cases(experiment.dataset))),
            source=self.run.source,
        )
