"""How often a candidate was judged before, and what a further time costs: pressing the button again buys nothing.

The same outputs give the same verdict, so asking again about them is only counted. Outputs that were paid for anew
are further evidence, and a further chance to pass by accident: each such time is judged at half the alpha of the one
before, so that all of them together stay below twice alpha, however often somebody tries.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from llmops.definitions.base import identity_of
from llmops.errors import BudgetError
from llmops.records import Looks, Run, Verdict
from llmops.stats.looks import look_order, planned_looks

if TYPE_CHECKING:
    from llmops.definitions.dataset import Case
    from llmops.definitions.workspace import Workspace
    from llmops.plan import Plan
    from llmops.stores.journal import Journal

Pair = tuple[str, str]
"""Identities of a candidate and of its baseline, "" without one."""


def count_looks(journal: Journal, run: Run, pairs: Collection[Pair], *, is_sequential: bool = False) -> Looks:
    """Return how often these candidates have been judged against these baselines, the verdict to come included.

    Looks on the way count once, together; judging the whole after them is a further time.
    """
    n_verdicts = max((journal.verdicts.n_looks(*pair) for pair in pairs), default=0)
    tried = {(run.fresh, is_sequential)}
    for verdict in () if run.replayed else journal.verdicts.of(run.experiment):
        if verdict.replayed is None and not pairs_of(verdict).isdisjoint(pairs):
            known = journal.find_run(verdict.run_id)
            if known is not None:
                tried.add((known.fresh, verdict.n_calls_saved is not None))
    return Looks(n_verdicts=n_verdicts + 1, n_fresh=len(tried) - 1)


def portions(plan: Plan) -> list[frozenset[str]]:
    """Return the ids of the cases that each look of a sequential gate adds: every look a fair miniature of the whole.

    Slices are spread evenly and clusters stay whole. The order follows from the cases and from what is tried, which
    nobody can vary without being judged on something else; a commit or the seed of the experiment could be.
    """
    cases = list(plan.cases)
    slices, own = [case.slice or "" for case in cases], [_cluster(case) for case in cases]
    tried = sorted({variant.identity for variant in plan.run.variants})
    seed = int(identity_of([plan.run.dataset.version, *tried])[:16], 16)
    order = look_order(len(cases), seed=seed, strata=slices, clusters=own).tolist() if cases else []
    found, done = [], 0
    for planned in planned_looks(len(cases)):
        n = planned
        while 0 < n < len(order) and own[order[n]] == own[order[n - 1]]:
            n += 1
        if n > done:
            found.append(frozenset(cases[place].id for place in order[done:n]))
            done = n
    return found


def _cluster(case: Case) -> str:
    return f"case:{case.id}" if case.cluster is None else f"cluster:{case.cluster}"


def held_out_looks(workspace: Workspace, journal: Journal, run: Run) -> int | None:
    """Return how many runs have been judged on a held-out split, this one included; None where it is not held out.

    Raises BudgetError when that is more than the dataset allows.
    """
    dataset = run.dataset
    allowed = workspace.dataset_definition(dataset.name).held_out.get(dataset.split or "")
    if allowed is None:
        return None
    judged = {
        verdict.run_id
        for name in workspace.names("experiment")
        for verdict in journal.verdicts.of(name)
        if (verdict.dataset.name, verdict.dataset.split) == (dataset.name, dataset.split)
    }
    n = len(judged | {run.id})
    if n > allowed:
        raise BudgetError(
            f"{dataset.name}/{dataset.split} is held out, and gates have looked at it {n - 1:,} times of {allowed:,}: "
            "hold out new cases, or judge on another split"
        )
    return n


def pairs_of(verdict: Verdict) -> set[Pair]:
    """Return whom a verdict looked at."""
    return {
        (each.candidate.identity, each.baseline.identity if each.baseline else "")
        for each in verdict.candidates
    }


def level_of(alpha: float, looks: Looks) -> float:
    """Return the level at which these outputs are judged."""
    return alpha / 2.0**looks.n_fresh
