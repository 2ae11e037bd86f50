"""A finished run -> verdict: each gate on each candidate, all of them taken together, and what the policy makes of it.

Reads the rows of the run from the journal and writes nothing; carrying out what is missing belongs to `run`, and how
a verdict looks to `report`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

from llmops.check.independence import undeclared_clusters
from llmops.compare import (
    SideValues,
    baseline_of,
    pair_cases,
    read_side,
    refuse_other_schemas,
    side_of,
    summing_evaluators,
)
from llmops.definitions.base import identity_of
from llmops.gate.arms import Arms
from llmops.gate.changed import changed_places
from llmops.gate.history import NO_HISTORY, Expected, Shelf, expect, flaky_cases, is_stale
from llmops.gate.judging import Judged, Judging
from llmops.gate.looks import count_looks, held_out_looks, level_of
from llmops.gate.metrics import has_history, metric_of
from llmops.gate.watch import Watch
from llmops.plan import repeated
from llmops.records import CandidateVerdict, GateResult, Looks, Outcome, Place, Run, Variant, Verdict
from llmops.score.summary import LEVEL
from llmops.stats.decision import decide
from llmops.stats.multiplicity import benjamini_hochberg
from llmops.stats.outcome import MAX_MISSING
from llmops.stats.power import ALPHA

if TYPE_CHECKING:
    from llmops.definitions.experiment import Gate
    from llmops.definitions.workspace import Workspace
    from llmops.gate.metrics import Metric
    from llmops.plan import Plan
    from llmops.stores.journal import Journal

_MOST_NAMED = 3
_MOST_SLICES = 12  # beyond, a table of what decides nothing would hide what does


@dataclass(frozen=True)
class Carried:
    """What it took to be able to judge. n_calls: requests sent now; usd: their price, None when that is unknown.

    n_not_recorded: replies that a replay lacked; then nothing can be said.
    begun: when; outputs of the baseline older than that were used again.
    """

    n_calls: int = 0
    usd: float | None = 0.0
    n_not_recorded: int = 0
    begun: datetime | None = None


def candidates_of(run: Run, gates: Sequence[Gate]) -> dict[str, list[int]]:
    """Return the candidates that some gate judges, and the places of their gates, in order."""
    found = {
        variant.name: [at for at, gate in enumerate(gates) if is_about(gate, variant.name)]
        for variant in run.variants
        if not variant.is_baseline
    }
    return {name: places for name, places in found.items() if places}


def is_about(gate: Gate, variant: str) -> bool:
    """Say whether a gate judges a variant, in some cell of the matrix."""
    return gate.variant is None or variant == gate.variant or variant.startswith(f"{gate.variant}/")


@dataclass(frozen=True)
class Again:
    """What was run more often than the rest. plan: of a run that has such repeats of every case.

    cases: by candidate, the ids of those it was run on more often: the ones its baseline's history shows to be flaky.
    """

    plan: Plan
    cases: Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Contest:
    """Who stands against whom in a run, by the gates of its experiment."""

    run: Run
    gates: Sequence[Gate]

    @cached_property
    def chosen(self) -> Mapping[str, Sequence[int]]:
        """The candidates, and the places of the gates that judge each."""
        return candidates_of(self.run, self.gates)

    @cached_property
    def pairs(self) -> Mapping[str, tuple[Variant, Variant | None]]:
        """Each candidate by its name, and its baseline where it has one."""
        named = {variant.name: variant for variant in self.run.variants}
        return {name: (named[name], baseline_of(self.run, named[name])) for name in self.chosen}

    def changed(self) -> Iterator[tuple[str, Variant]]:
        """Yield the name of each candidate that is not its baseline itself, and that baseline."""
        for name, (candidate, baseline) in self.pairs.items():
            if baseline is not None and baseline.identity != candidate.identity:
                yield name, baseline

    def gates_of(self, name: str) -> list[Gate]:
        """Return the gates that judge a candidate."""
        return [self.gates[at] for at in self.chosen[name]]

    def tested(self, name: str, columns: Collection[str]) -> dict[str, Metric]:
        """Return the metrics of a candidate's gates that would use a history."""
        names = {gate.metric for gate in self.gates_of(name) if gate.not_worse_than is not None}
        metrics = {each: metric_of(each, self.run.evaluators, columns) for each in sorted(names)}
        return {each: metric for each, metric in metrics.items() if has_history(metric)}


@dataclass(frozen=True)
class Court:
    """Where one experiment is judged: opened before anything is paid for, and asked until there is a verdict.

    The stored runs of its baselines are read once, so that what was foretold, what is run more often and what is
    judged stand on the same ones. quarantined: ids of cases that count on no side.
    """

    workspace: Workspace
    journal: Journal
    plan: Plan
    quarantined: Collection[str] = ()

    @cached_property
    def shelf(self) -> Shelf:
        """The runs before this one."""
        return Shelf(self.workspace, self.journal, self.plan.run)

    @cached_property
    def again(self) -> Again | None:
        """What to run more often; None where the experiment asks for nothing, or no history tells what.

        History alone decides: what the candidate's own first run suggests to repeat would be peeking.
        """
        repeats = self.plan.experiment.flaky_repeats
        if repeats <= self.plan.run.repeats:
            return None
        cases = self._flaky_cases()
        return Again(repeated(self.plan, repeats), cases) if any(cases.values()) else None

    def _flaky_cases(self) -> dict[str, frozenset[str]]:
        """Return for each candidate the cases on which its baseline's stored runs disagree about what gates ask."""
        found = {}
        for name, baseline in self._contest.changed():
            history = self.shelf.history(baseline)
            metrics = self._contest.tested(name, history.values.columns)
            found[name] = flaky_cases(history, [metric.column for metric in metrics.values()])
        return found

    def expected_noise(self) -> dict[int, Expected]:
        """Return by the place of each gate the noise to be expected, where a history tells: of the noisiest side."""
        found: dict[int, Expected] = {}
        for at, expected in self._expected():
            if at not in found or expected.noise > found[at].noise:
                found[at] = expected
        return found

    def _expected(self) -> Iterator[tuple[int, Expected]]:
        """Yield what the history of each candidate's baseline lets expect of its gates."""
        own, flaky = self.plan.run.repeats, self.plan.experiment.flaky_repeats
        for name, baseline in self._contest.changed():
            history = self.shelf.history(baseline)
            metrics = self._contest.tested(name, history.values.columns) if history.n else {}
            for at in self._contest.chosen[name]:
                gate = self._contest.gates[at]
                metric = metrics.get(gate.metric)
                if metric is None or gate.not_worse_than is None:
                    continue
                found = expect(history, metric, gate.slice, own=own, flaky=flaky)
                if found is not None:
                    yield at, found

    @cached_property
    def _contest(self) -> Contest:
        return Contest(self.plan.run, self.plan.experiment.gates)


def judge_run(
    court: Court, run: Run, *, now: datetime, carried: Carried = Carried(), watch: Watch | None = None
) -> Verdict:
    """Return the verdict on a run of the court's experiment.

    watch: what was seen on the way, of a sequential gate.

    Raises UsageError when the outputs of the two sides cannot be compared, BudgetError when a held-out split has been
    looked at too often.
    """
    hearing = _Hearing(court, run, now, is_sequential=watch is not None)
    looks, alpha = hearing.looks()
    judged = hearing.judged(alpha) if watch is None else watch.judged
    n_not_recorded = carried.n_not_recorded
    if n_not_recorded:
        judged = {key: _not_recorded(found, n_not_recorded) for key, found in judged.items()}
    results = together(judged, alpha) if watch is None or n_not_recorded else watch.results()
    written = hearing.written(results, looks, alpha, carried.begun)
    changes: dict[str, object] = {"n_calls": carried.n_calls, "cost_usd": carried.usd}
    if n_not_recorded:
        changes["reason"] = _lacking(n_not_recorded)
    if watch is not None:
        changes["n_calls_saved"] = run.n_cells - run.n_done
    verdict = written.model_copy(update=changes)
    return verdict.model_copy(update={"id": verdict_identity(verdict)})


def look_at(court: Court, run: Run, watch: Watch, *, now: datetime, asked: Collection[str]) -> bool:
    """Take a look at a run that is under way, and return whether to stop. asked: the cases that have had their turn."""
    hearing = _Hearing(court, run, now, is_sequential=True)
    alpha = hearing.looks()[1]
    judgings = hearing.judgings(alpha)
    for (name, at), place in hearing.places().items():
        watch.look((name, at), judgings[name], hearing.gates[at], place, asked)
    return watch.is_over(alpha)


@dataclass(frozen=True)
class _Hearing:
    """One run as it stands now, and all that bears on its verdict."""

    court: Court
    run: Run
    now: datetime
    is_sequential: bool

    @cached_property
    def contest(self) -> Contest:
        return Contest(self.run, self.gates)

    @property
    def gates(self) -> Sequence[Gate]:
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
        summing = summing_evaluators(self.run)
        read: dict[str, SideValues] = {}
        found: dict[str, Arms] = {}
        for name, (candidate, baseline) in self.contest.pairs.items():
            if baseline is not None and self._is_compared(name):
                refuse_other_schemas((self.run, baseline.name), (self.run, name))
            for side in (candidate, baseline):
                if side is not None and side.name not in read:
                    read[side.name] = read_side(
                        self.court.journal, self.run, side.name, summing, with_keys=False
                    )
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
            reason=_reason(candidates, outcome),
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


def _reason(candidates: Sequence[CandidateVerdict], outcome: Outcome) -> str:
    if not candidates:
        return "no variant is a candidate that some gate judges"
    n = len([gate for each in candidates for gate in each.gates if gate.blocks])
    if outcome is Outcome.PASS:
        return f"all {n} gates pass" if n > 1 else "its gate passes" if n else "no gate could be asked yet"
    told = [
        f"{each.candidate.variant}: {gate.gate}: {gate.reason}"
        for each in candidates
        for gate in each.gates
        if gate.blocks and gate.outcome is outcome
    ]
    more = f" and {len(told) - _MOST_NAMED} more" if len(told) > _MOST_NAMED else ""
    return "; ".join(told[:_MOST_NAMED]) + more if told else "no gate that decides was asked"


def together(judged: Mapping[tuple[str, int], Judged], alpha: float) -> dict[tuple[str, int], GateResult]:
    """Return what the gates of all candidates say when they are taken together.

    Any of them may block, so a regression is proved by Holm over all that were tested; facts need no test.
    """
    tested = {
        f"{name} {at}": found.tested for (name, at), found in judged.items() if found.tested is not None
    }
    decision = decide(tested, alpha=alpha)
    results = {}
    for key, found in judged.items():
        name = f"{key[0]} {key[1]}"
        result = found.result
        if found.tested is not None:
            changes: dict[str, object] = {"p_worse_adjusted": decision.adjusted_worse[name]}
            if name in decision.unproved and result.outcome is Outcome.FAIL:
                changes["outcome"] = Outcome.INCONCLUSIVE
                changes["reason"] = f"{result.reason} by itself, but not among {len(tested)} gates together"
            result = result.model_copy(update=changes)
        results[key] = result
    return results


def outcome_of(gates: Sequence[GateResult]) -> Outcome:
    """Return what a candidate's gates come to; those that inform decide nothing."""
    return gravest([gate.outcome for gate in gates if gate.blocks])


def gravest(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the worst of some outcomes; of none nothing is known."""
    order = (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS)
    return min(outcomes, key=order.index, default=Outcome.INCONCLUSIVE)


def verdict_identity(verdict: Verdict) -> str:
    """Return the hash of what determines a verdict: not when it was reached, what it cost, or how often."""
    apart = {"id", "created_at", "looks", "n_calls", "n_calls_saved", "cost_usd", "link", "source"}
    record = verdict.model_dump(mode="json", exclude=apart)
    for candidate in record["candidates"]:
        del candidate["baseline_age_s"]
    return identity_of(record)


def _not_recorded(judged: Judged, n: int) -> Judged:
    if not judged.result.blocks:
        return judged
    changes = {"outcome": Outcome.INCONCLUSIVE, "reason": _lacking(n)}
    return replace(judged, result=judged.result.model_copy(update=changes), tested=None)


def _lacking(n: int) -> str:
    what = "1 reply is" if n == 1 else f"{n:,} replies are"
    return f"{what} not in the recordings, and nothing else may answer here"
