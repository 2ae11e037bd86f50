"""The stored runs of a baseline: what a candidate is compared with the mean of, once there are enough of them.

Half of the noise between two equal variants is the baseline's own, and it goes away with runs that were paid for
already. Nothing is paid for here: runs come of `--fresh`, and of gates that ask a baseline again when it has aged.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from llmops.compare import Column, SideValues, baseline_of
from llmops.definitions.reference import parse_reference
from llmops.definitions.release import AuditedRelease
from llmops.errors import UsageError
from llmops.records import Run, Variant
from llmops.stats.intervals import DUST
from llmops.stats.repeats import FLAKY_REPEATS, HISTORY, MIN_HISTORY, is_history_stale
from llmops.stats.runs import Runs

if TYPE_CHECKING:
    from llmops.definitions.workspace import Workspace
    from llmops.gate.arms import Arms
    from llmops.gate.metrics import Metric
    from llmops.stores.journal import Journal


@dataclass(frozen=True)
class History:
    """Earlier runs of one baseline, each whole. n: how often each case was run in them; values: all their numbers."""

    n: int = 0
    values: SideValues = field(default_factory=lambda: SideValues(with_keys=False))


NO_HISTORY = History()


@dataclass(frozen=True)
class Shelf:
    """Where the runs before a run are looked for. known: what was found, by the identity of a baseline."""

    workspace: Workspace
    journal: Journal
    run: Run
    known: dict[str, History] = field(default_factory=dict)

    @cached_property
    def runs(self) -> Sequence[Run]:
        """All runs of the experiment."""
        return self.journal.runs(self.run.experiment, with_comparisons=False)

    def history(self, baseline: Variant) -> History:
        """Return the newest runs of the very same thing before this run; none where that would be too few."""
        if baseline.identity not in self.known:
            self.known[baseline.identity] = self._read(baseline)
        return self.known[baseline.identity]

    def _read(self, baseline: Variant) -> History:
        earlier = list(self._earlier(baseline))
        n = sum(known.repeats for known, _ in earlier)
        if not earlier or n + self.run.repeats < MIN_HISTORY:
            return NO_HISTORY
        values = SideValues(with_keys=False)
        for known, name in earlier:
            for row in self.journal.numbers(known.id, variant=name):
                values.add(row)
        return History(n, values)

    def _earlier(self, baseline: Variant) -> Iterator[tuple[Run, str]]:
        """Yield runs that paid for the baseline's outputs one by one, newest first, with the baseline's name there."""
        since = released_at(self.workspace, baseline)
        contests = {known.fresh for known in self.runs if _contests(known, baseline.identity)}
        by_number = sorted(self.runs, key=lambda known: (-known.fresh, -known.repeats))
        taken = {self.run.fresh}
        for known in by_number:
            if len(taken) == HISTORY:
                return
            if known.fresh in taken | contests or not _is_alike(known, self.run):
                continue
            name = self._whole(known, baseline.identity)
            if name is None or not self._is_from_after(known, name, since):
                continue
            taken.add(known.fresh)
            yield known, name

    def _whole(self, known: Run, identity: str) -> str | None:
        """Return under which name all of a variant was run and judged, None where it was not."""
        judged_by = [evaluator.identity for evaluator in known.evaluators]
        names = (variant.name for variant in known.variants if variant.identity == identity)
        return next(
            (name for name in names if not self.journal.n_pending(known.id, judged_by, variants={name})), None
        )

    def _is_from_after(self, known: Run, name: str, since: datetime | None) -> bool:
        oldest = self.journal.oldest_output(known.id, name)
        return oldest is not None and (since is None or oldest > since)


def released_at(workspace: Workspace, variant: Variant) -> datetime | None:
    """Return when a variant that stands at an alias was released: what came before won that for it, by luck too."""
    try:
        alias = parse_reference(variant.reference).alias
    except ValueError:  # the file of recorded outputs
        return None
    if alias is None:
        return None
    kind: Literal["prompt", "chain"] = "chain" if variant.kind == "chain" else "prompt"
    try:
        release = workspace.release(kind, variant.definition.partition("/")[2], alias)
    except UsageError:
        return None
    return release.created_at if isinstance(release, AuditedRelease) else None


def _contests(known: Run, identity: str) -> bool:
    """Say whether a variant stood in a run as the candidate that wanted another's place: such outputs it won with."""
    for variant in known.variants:
        if variant.identity == identity and not variant.is_baseline:
            rival = baseline_of(known, variant)
            if rival is not None and rival.identity != identity:
                return True
    return False


def _is_alike(known: Run, run: Run) -> bool:
    """Say whether what a run has of a variant may stand for what another has: same cases, judged the same way."""
    return (
        known.dataset.version == run.dataset.version
        and known.replayed == run.replayed
        and {each.identity for each in known.evaluators} == {each.identity for each in run.evaluators}
    )


def flaky_cases(history: History, columns: Collection[str]) -> frozenset[str]:
    """Return the ids of the cases that did not always score the same. columns: of the metrics that matter."""
    ids = list(history.values.cases)
    found: set[int] = set()
    for name in columns:
        column = history.values.columns.get(name, Column())
        places, values = np.array(column.places, dtype=np.intp), np.array(column.values, dtype=np.float64)
        low, high = np.full(len(ids), np.inf), np.full(len(ids), -np.inf)
        np.minimum.at(low, places, values)
        np.maximum.at(high, places, values)
        found.update(np.flatnonzero(high - low > DUST * np.maximum(np.abs(high), np.abs(low))).tolist())
    return frozenset(ids[place] for place in found)


@dataclass(frozen=True)
class Expected:
    """The noise that an unchanged candidate would show, as a share of the squared range; from so many runs.

    repeated: what it would be with flaky cases run `FLAKY_REPEATS` times; n_flaky: how many these are.
    """

    noise: float
    n_runs: int
    repeated: float
    n_flaky: int


def expect(
    history: History, metric: Metric, slice_name: str | None, *, own: int, flaky: int
) -> Expected | None:
    """Return what a history lets expect of a metric on the cases of a slice; None where it tells nothing.

    own: how often this run has each case; flaky: how often the candidate runs a flaky one.
    """
    facts = history.values.cases
    kept = [fact.place for fact in facts.values() if slice_name in (None, fact.slice)]
    column = history.values.columns.get(metric.column, Column())
    runs = Runs(np.array(column.places, dtype=np.intp), np.array(column.values, dtype=np.float64))
    known = [values for values in np.array(runs.by_case(len(facts)), dtype=object)[kept] if len(values) > 1]
    if not known or metric.low is None or metric.high is None:
        return None
    within = np.array([np.var(values.astype(np.float64), ddof=1) for values in known])
    within /= (metric.high - metric.low) ** 2
    is_flaky = within > DUST
    n_runs = history.n + own

    def noise(repeats: int) -> float:
        return float((within * (1 / np.where(is_flaky, repeats, own) + 1 / n_runs)).mean())

    return Expected(noise(max(own, flaky)), n_runs, noise(max(own, FLAKY_REPEATS)), int(is_flaky.sum()))


def is_stale(arms: Arms, metrics: Mapping[str, Metric], *, alpha: float, seed: int) -> bool:
    """Return whether the run's own baseline differs from the runs before it: an A/A that fails on some metric.

    metrics: those that would use the history, by name. alpha: of all of them together.
    """
    chosen = arms.choose(None)
    n = len(chosen.ids)
    for metric in metrics.values():
        own, earlier = arms.own_runs(metric.column, chosen), arms.earlier_runs(metric.column, chosen)
        if not np.intersect1d(own.places, earlier.places).size:
            continue
        found = is_history_stale(
            earlier, own, n, alpha=alpha / len(metrics), clusters=chosen.clusters, seed=seed
        )
        if found:
            return True
    return False


def pooled(one: Runs, other: Runs) -> Runs:
    """Return the runs of both, those of the first before those of the other."""
    return Runs(np.concatenate([one.places, other.places]), np.concatenate([one.values, other.values]))
