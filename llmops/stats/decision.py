"""Outcomes of several metrics -> one verdict that keeps both errors at alpha over all of them together.

All blocking metrics must pass, each at full alpha (Berger 1982: an intersection-union test needs no correction); any
may block, so those p-values are Holm's. Metrics that only inform do not come here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llmops.stats.multiplicity import holm
from llmops.stats.outcome import Outcome, Verdict


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict over several metrics. failed: those that block it; unproved: those neither passed nor failed.

    adjusted_worse: Holm's p-value that a metric got worse, by name.
    """

    verdict: Verdict
    failed: tuple[str, ...]
    unproved: tuple[str, ...]
    adjusted_worse: Mapping[str, float]


def decide(outcomes: Mapping[str, Outcome], *, alpha: float) -> Decision:
    """Return what the outcomes of all blocking metrics, by name, add up to.

    Without a metric nothing is shown, and the verdict is inconclusive.
    """
    adjusted = holm([outcome.guarded_worse for outcome in outcomes.values()])
    by_name = dict(zip(outcomes, adjusted, strict=True))
    passed = {name for name, outcome in outcomes.items() if outcome.guarded_pass <= alpha}
    failed = tuple(name for name in outcomes if name not in passed and by_name[name] <= alpha)
    unproved = tuple(name for name in outcomes if name not in passed and name not in failed)
    return Decision(verdict_of(failed, unproved, bool(outcomes)), failed, unproved, by_name)


def verdict_of(failed: tuple[str, ...], unproved: tuple[str, ...], has_any: bool) -> Verdict:
    """Return the verdict over the metrics that failed, and those that neither failed nor passed."""
    if failed:
        return "fail"
    return "inconclusive" if unproved or not has_any else "pass"
