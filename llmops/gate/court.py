"""What one gate has from its plan to its verdict: opened once, before anything is paid for, and handed to all that ask.

It knows what the stored runs of the baselines tell; a run as it stands now has its `hearing`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from llmops.gate.contest import Contest
from llmops.gate.history import Expected, Shelf, expect, flaky_cases
from llmops.plan import Plan, repeated

if TYPE_CHECKING:
    from llmops.definitions.workspace import Workspace
    from llmops.stores.journal import Journal


@dataclass(frozen=True)
class Again:
    """What was run more often than the rest. plan: of a run that has such repeats of every case.

    cases: by candidate, the ids of those it was run on more often: the ones its baseline's history shows to be flaky.
    """

    plan: Plan
    cases: Mapping[str, frozenset[str]]


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
