"""What speaks for a release: the verdict on exactly what stands in the files now, and what keeps it from counting.

Verdicts are reached elsewhere; here they are only looked up and held against today's files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from llmops.definitions.base import short
from llmops.definitions.experiment import expand
from llmops.definitions.reference import parse_reference
from llmops.errors import EvidenceError, InconclusiveError, UsageError, nearest
from llmops.plan import Plan, plan_experiment
from llmops.records import CandidateVerdict, Outcome, RunStatus, Variant, Verdict

if TYPE_CHECKING:
    from llmops.definitions.experiment import Gate, Trial
    from llmops.definitions.reference import Kind
    from llmops.definitions.workspace import Workspace
    from llmops.stores.journal import Journal


@dataclass(frozen=True)
class Candidate:
    """A variant of an experiment as its files say it today, and the newest verdict on it.

    problem: why it cannot be released, None when it can. outcome: of a verdict on exactly this, None without one.
    """

    plan: Plan
    trial: Trial
    verdict: Verdict | None = None
    outcome: Outcome | None = None
    problem: str | None = None

    @property
    def variant(self) -> Variant:
        """The variant, resolved."""
        return next(each for each in self.plan.run.variants if each.name == self.trial.name)

    @property
    def label(self) -> str:
        """How people name it where several experiments have one of its name."""
        return f"{self.plan.run.experiment}:{self.trial.name}"


def find_candidate(
    workspace: Workspace, journal: Journal, kind: Kind, name: str, variant: str | None, *, now: datetime
) -> Candidate:
    """Return the one variant of a prompt or chain that passed as it stands in the files now.

    variant: its name, or EXPERIMENT:NAME, where several did.

    Raises EvidenceError when none did, InconclusiveError when a verdict cannot say, UsageError when several did.
    """
    everything = list(_Looking(workspace, journal, kind, name, now).candidates())
    wanted = _named(everything, variant, f"{kind} {name}")
    passing = [each for each in wanted if each.problem is None]
    if not passing:
        raise _refusal(wanted)
    if len({each.variant.identity for each in passing}) > 1:
        names = ", ".join(each.label for each in passing)
        raise UsageError(f"several variants of {name} passed: name one with --variant; {names}")
    identity = passing[0].variant.identity
    against = [
        e for e in everything if e.variant.identity == identity and e.outcome not in (None, Outcome.PASS)
    ]
    if against:
        raise _refusal(against)
    return max(passing, key=_judged_at)


def _judged_at(candidate: Candidate) -> datetime:
    assert candidate.verdict is not None  # noqa: S101 - it passed
    return candidate.verdict.created_at


def _bare(reference: str) -> str:
    return parse_reference(reference).name


def _named(everything: Sequence[Candidate], wanted: str | None, title: str) -> list[Candidate]:
    if not everything:
        raise EvidenceError(
            f"no experiment tries {title}: name it in a variant, then `llmops gate EXPERIMENT`"
        )
    if wanted is None:
        return list(everything)
    found = [each for each in everything if wanted in (each.trial.name, each.label)]
    if not found:
        known = [word for each in everything for word in (each.trial.name, each.label)]
        hint = nearest(wanted, known) or f"there are: {', '.join(each.label for each in everything)}"
        raise UsageError(f"no variant of {title} is called {wanted!r}; {hint}")
    return found


def _refusal(candidates: Sequence[Candidate]) -> EvidenceError:
    told = "\n".join(
        f"{each.label}: {each.problem or f'the verdict is {each.outcome}'}" for each in candidates
    )
    outcomes = {each.outcome for each in candidates}
    if Outcome.INCONCLUSIVE in outcomes and Outcome.FAIL not in outcomes:
        return InconclusiveError(told)
    return EvidenceError(told)


# --- one candidate --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Looking:
    """Where evidence for a prompt or chain is looked for."""

    workspace: Workspace
    journal: Journal
    kind: Kind
    name: str
    now: datetime

    def candidates(self) -> Iterator[Candidate]:
        """Yield every variant of every experiment that may become a release, held against the verdicts there are."""
        for name in self.workspace.names("experiment"):
            experiment = self.workspace.experiment(name)
            trials = [trial for trial in expand(experiment) if self._is_meant(trial)]
            if trials:
                plan = plan_experiment(self.workspace, name, None, now=self.now)
                verdicts = self.journal.verdicts.of(name)
                yield from (self._held_against(Candidate(plan, trial), verdicts) for trial in trials)

    def _is_meant(self, trial: Trial) -> bool:
        tried = trial.definition
        is_ours = tried.recorded is None and (tried.kind, _bare(tried.target)) == (self.kind, self.name)
        return is_ours and not trial.is_baseline

    def _held_against(self, candidate: Candidate, verdicts: Sequence[Verdict]) -> Candidate:
        """Return a candidate with the newest verdict on exactly what it is now, and what is wrong with that."""
        gate = f"`llmops gate {candidate.plan.run.experiment}`"
        asked = [verdict for verdict in verdicts if verdict.replayed is None]
        if not asked:
            why = "recordings answered in place of models, and a replay never promotes"
            return replace(candidate, problem=f"{why if verdicts else 'no verdict yet'}: {gate}")
        for verdict in asked:
            if _difference(candidate, verdict) is None:
                judged = _judged(candidate, verdict)
                problem = self._shortcoming(candidate, verdict, judged)
                told = f"{problem}: {gate}" if problem else None
                return replace(candidate, verdict=verdict, outcome=judged.outcome, problem=told)
        return replace(candidate, problem=f"{_difference(candidate, asked[0])}: {gate}")

    def _shortcoming(self, candidate: Candidate, verdict: Verdict, judged: CandidateVerdict) -> str | None:
        """Return why a verdict on the right thing is not enough."""
        variant = candidate.variant
        if variant.set:
            return (
                f"it tries {variant.definition} changed by `set` ({', '.join(variant.set)}), and a release is the "
                "file as it stands: write it there"
            )
        if judged.outcome is not Outcome.PASS:
            return f"the verdict {short(verdict.id)} is {judged.outcome} ({verdict.reason})"
        oldest = timedelta(days=self.workspace.project.promotion.max_age_days)
        if self.now - verdict.created_at > oldest:
            return f"the verdict {short(verdict.id)} is more than {oldest.days} days old"
        return self._run_shortcoming(verdict.run_id, variant)

    def _run_shortcoming(self, run_id: str, variant: Variant) -> str | None:
        run = self.journal.find_run(run_id)
        if run is None or variant.identity not in {each.identity for each in run.variants}:
            return f"the run {run_id} that was judged is not in this store"
        if run.replayed is not None:
            return f"recordings answered the run {run.id}, and a replay never promotes"
        if run.status is not RunStatus.COMPLETE:
            return f"the run {run.id} that was judged is {run.status}, not complete"
        return None


def _judged(candidate: Candidate, verdict: Verdict) -> CandidateVerdict:
    return next(each for each in verdict.candidates if each.candidate.variant == candidate.trial.name)


def _difference(candidate: Candidate, verdict: Verdict) -> str | None:
    """Return in what the files are other than what a verdict was reached on."""
    run, variant, which = candidate.plan.run, candidate.variant, short(verdict.id)
    if candidate.trial.name not in {each.candidate.variant for each in verdict.candidates}:
        return f"the verdict {which} is not about this variant"
    judged = _judged(candidate, verdict)
    evaluators = [
        {each.name: each.identity for each in those} for those in (verdict.evaluators, run.evaluators)
    ]
    changed = {
        f"{variant.definition}, its model or its parameters": judged.candidate.identity != variant.identity,
        "the dataset": verdict.dataset.version != run.dataset.version,
        "an evaluator": evaluators[0] != evaluators[1],
        "the baseline": _has_other_baseline(candidate, judged),
        "a gate": not all(_was_asked(gate, judged) for gate in _gates(candidate)),
    }
    what = [name for name, is_other in changed.items() if is_other]
    return f"{' and '.join(what)} changed since the verdict {which}" if what else None


def _has_other_baseline(candidate: Candidate, judged: CandidateVerdict) -> bool:
    """Say whether the baseline in force is not the one compared with; a branch moves on with what it takes in."""
    baseline = candidate.plan.experiment.baseline
    if judged.baseline is None or (baseline is not None and baseline.startswith("git:")):
        return False
    now = {each.name: each.identity for each in candidate.plan.run.variants if each.is_baseline}
    return now.get(judged.baseline.variant) != judged.baseline.identity


def _gates(candidate: Candidate) -> Iterator[Gate]:
    """Yield the gates a candidate has to pass today."""
    name = candidate.trial.name
    for gate in candidate.plan.experiment.gates:
        if gate.variant is None or name == gate.variant or name.startswith(f"{gate.variant}/"):
            yield gate


def _was_asked(gate: Gate, judged: CandidateVerdict) -> bool:
    """Say whether a verdict has looked at a gate as it stands; a relative margin it may hold in other units."""
    limit = gate.at_least if gate.at_least is not None else gate.at_most
    margin = None if gate.relative else gate.margin
    return any(
        (found.metric, found.slice) == (gate.metric, gate.slice)
        and (limit is None or found.limit == limit)
        and (margin is None or found.margin == margin)
        for found in judged.gates
    )
