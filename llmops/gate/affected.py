"""Which experiments a change can have affected: those that mean something else than they did at a revision.

By identity and not by path: a comment, a description or the README affects none, a function two files away does. And
whether the baseline's replies are too old to stand beside new ones.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from llmops.definitions.trees import GitTree, resolve_revision
from llmops.definitions.workspace import Workspace
from llmops.errors import LlmopsError
from llmops.plan import Plan, plan_experiment

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


def born(journal: Journal, plan: Plan) -> datetime | None:
    """Return when the oldest of the baseline's outputs that a plan would use again came to be, None without any."""
    baselines = {each.identity for each in plan.run.variants if each.is_baseline and each.models}
    found = [
        journal.oldest_output(run.id, variant.name)
        for run in journal.runs(plan.run.experiment, with_comparisons=False)
        if (run.fresh, run.replayed) == (plan.run.fresh, plan.run.replayed)
        for variant in run.variants
        if variant.identity in baselines
    ]
    return min((time for time in found if time is not None), default=None)


def is_stale(journal: Journal, plan: Plan, *, now: datetime) -> bool:
    """Say whether the baseline has to be asked again."""
    oldest = born(journal, plan)
    return oldest is not None and now - oldest > MAX_AGE
