"""What a gate's metric is: a fact of the run, a mean over cases, a quantile, or a figure of all cases together.

Which of them it is decides how it is judged, and the rule of the test follows from it and from what the gate says.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from llmops.definitions.experiment import Gate
from llmops.records import EvaluatorVersion
from llmops.score.summary import OPEN_MEASURES
from llmops.stats.limits import Limit
from llmops.stats.outcome import Method, Rule

MARGIN, RELATIVE_MARGIN = 0.05, 0.10
"""What a candidate may be worse by where its owner says nothing: a share of the range, or of the baseline."""
FACTS = ("error_rate", "cost_usd")
_RATES = ("invalid_rate", "unfiltered_rate")

Kind = Literal["fact", "mean", "quantile", "figure"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One number over a variant. column: where the value of each case stands; low, high: its range, None if open.

    q: of a quantile. part: of a figure, what its evaluator calls it.
    """

    name: str
    kind: Kind
    column: str
    low: float | None = None
    high: float | None = None
    lower_is_better: bool = True
    q: float = 0.0
    part: str = ""

    @property
    def is_open(self) -> bool:
        """Whether nothing bounds it."""
        return self.low is None or self.high is None

    @property
    def ends(self) -> tuple[float | None, float | None]:
        """The range, of which one end alone is of no use."""
        return (None, None) if self.is_open else (self.low, self.high)


def metric_of(name: str, evaluators: Sequence[EvaluatorVersion], columns: Collection[str]) -> Metric:
    """Return what a metric is. columns: names under which cases have values; other parts are figures of them all."""
    if name in FACTS:
        return Metric(name, "fact", name)
    if name in _RATES:
        return Metric(name, "mean", name, 0.0, 1.0)
    for evaluator in evaluators:
        ends = evaluator.low, evaluator.high, evaluator.lower_is_better
        if name == evaluator.name or (name.startswith(f"{evaluator.name}.") and name in columns):
            return Metric(name, "mean", name, *ends)
    base, _, part = name.partition(".")
    if base in OPEN_MEASURES:
        if part.startswith("p"):
            return Metric(name, "quantile", base, q=float(part[1:]) / 100)
        return Metric(name, "figure" if part else "mean", base, part=part)
    owner = next(each for each in evaluators if name.startswith(f"{each.name}."))
    part = name.removeprefix(f"{owner.name}.")
    return Metric(name, "figure", owner.name, owner.low, owner.high, owner.lower_is_better, part=part)


def has_history(metric: Metric) -> bool:
    """Say whether a metric may be compared with the mean of a history: a bounded mean over cases.

    The log of a mean of eight seconds lies above the mean of their logs, so a ratio would flatter the candidate; and
    how fast a service is changes by the hour.
    """
    return metric.kind == "mean" and not metric.is_open


def rule_of(gate: Gate, metric: Metric, alpha: float, seed: int = 0) -> Rule:
    """Return the rule of a gate against the baseline (ValueError where what it says cannot be tested)."""
    low, high = metric.ends
    is_ratio = low is None and (gate.relative or gate.margin is None)
    return Rule(
        margin=margin_of(gate, metric),
        low=low,
        high=high,
        lower_is_better=metric.lower_is_better,
        relative=gate.relative and not is_ratio,
        scale="ratio" if is_ratio else "difference",
        alpha=alpha,
        method=_method(gate),
        seed=seed,
    )


def _method(gate: Gate) -> Method:
    return "exact" if gate.method is None or gate.method == "bootstrap" else gate.method


def margin_of(gate: Gate, metric: Metric) -> float:
    """Return what a gate allows the candidate to be worse by, as it is written or by default."""
    if gate.margin is not None:
        return gate.margin
    low, high = metric.ends
    if gate.relative or low is None or high is None or metric.name == "cost_usd":
        return RELATIVE_MARGIN
    return MARGIN * (high - low)


def limit_of(gate: Gate, metric: Metric, alpha: float) -> Limit:
    """Return the limit of a gate that asks one."""
    low, high = metric.ends
    if gate.at_least is not None:
        return Limit(gate.at_least, "at_least", low, high, alpha)
    assert gate.at_most is not None  # noqa: S101 - a gate asks one of three
    return Limit(gate.at_most, "at_most", low, high, alpha)


def gate_text(gate: Gate) -> str:
    """Return a gate in one line, in the words of its file."""
    if gate.not_worse_than is not None:
        asked = f"{gate.metric} not_worse_than baseline"
    elif gate.at_least is not None:
        asked = f"{gate.metric} at_least {gate.at_least:g}"
    else:
        asked = f"{gate.metric} at_most {gate.at_most:g}"
    said = [asked]
    if gate.margin is not None:
        said.append(f"margin {gate.margin:g}" + (" of it" if gate.relative else ""))
    said += [f"{key} {value}" for key in ("slice", "method") if (value := getattr(gate, key)) is not None]
    return ", ".join(said)
