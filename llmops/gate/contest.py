"""A run and the gates of its experiment -> who stands against whom, and which gates judge it.

Only records and definitions are looked at; what the two sides scored is left to `arms`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from llmops.compare import baseline_of
from llmops.gate.metrics import Metric, has_history, metric_of
from llmops.records import Run, Variant

if TYPE_CHECKING:
    from llmops.definitions.experiment import Gate


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
