"""What single gates say -> what all of them say together: of all candidates, of one, and why, in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llmops.gate.judging import Judged
from llmops.records import CandidateVerdict, GateResult, Outcome
from llmops.stats.decision import decide

_MOST_NAMED = 3


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


def reason_of(candidates: Sequence[CandidateVerdict], outcome: Outcome) -> str:
    """Return in one line why candidates come to an outcome."""
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
