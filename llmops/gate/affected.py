"""Which experiments a change can have affected: those that mean something else than they did at a revision.

By identity and not by path: a comment, a description or the README affects none, a function two files away does. And
whether the baseline's replies are too old to stand beside new ones.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from llmops.compare import baseline_of
from llmops.definitions.trees import GitTree, resolve_revision
from llmops.definitions.workspace import Workspace
from llmops.errors import LlmopsError
from llmops.gate.history import released_at
from llmops.plan import Plan, plan_experiment
from llmops.records import Variant

if TYPE_CHECKING:
    from llmops.stores.journal import Journal

MAX_AGE = timedelta(days=7)
"""A baseline's replies are asked for again beside the candidate's once they are older: providers change models."""


def affected_since(workspace: Workspace, revision: str, names: list[str], *, now: datetime) -> list[str]:
    """Return the experiments that are not what they were at a revision, or were none, or cannot be read.

    Raises UsageError for a revision that git does not know here.
    """
    then = Workspace(workspace.root, GitTree(workspace.root, resolve_revision(workspace.root, revision)))
    return [name for name in names if _meaning(workspace, name, now) != _meaning(then, name, now)]


def _meaning(workspace: Workspace, name: str, now: datetime) -> object:
    """Return all that can change a verdict; of what cannot be read, something that equals nothing else."""
    try:
        return plan_experiment(workspace, name, None, now=now).run.identity, workspace.experiment(
            name
        ).meaning()
    except LlmopsError:
        return object()


def why_refresh(workspace: Workspace, journal: Journal, plan: Plan, *, now: datetime) -> str | None:
    """Return why the baseline has to be asked again beside the candidate, None where its replies may be used."""
    baselines = [each for each in plan.run.variants if each.is_baseline and each.models]
    born = {each.identity: _born(journal, plan, each) for each in baselines}
    if any(oldest is not None and now - oldest > MAX_AGE for oldest in born.values()):
        return f"the baseline's replies are more than {MAX_AGE.days} days old"
    for baseline in baselines:
        oldest, released = born[baseline.identity], released_at(workspace, baseline)
        if (
            oldest is not None
            and released is not None
            and oldest <= released
            and _is_compared(plan, baseline)
        ):
            return "the baseline was released on the replies there are, by luck too"
    return None


def _born(journal: Journal, plan: Plan, baseline: Variant) -> datetime | None:
    """Return when the oldest of a baseline's outputs that a plan would use again came to be, None without any."""
    found = [
        journal.oldest_output(run.id, variant.name)
        for run in journal.runs(plan.run.experiment, with_comparisons=False)
        if (run.fresh, run.replayed) == (plan.run.fresh, plan.run.replayed)
        for variant in run.variants
        if variant.identity == baseline.identity
    ]
    return min((time for time in found if time is not None), default=None)


def _is_compared(plan: Plan, baseline: Variant) -> bool:
    """Say whether something else than the baseline itself is compared with it."""
    candidates = (each for each in plan.run.variants if not each.is_baseline)
    return any(
        baseline_of(plan.run, each) == baseline and each.identity != baseline.identity for each in candidates
    )
