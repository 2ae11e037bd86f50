"""What the gates of a plan can see, before anything is paid for: so that nobody pays for an answer that cannot come.

Noise is what the baseline's history shows, else the typical one; what a gate did see stands in its verdict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from llmops.errors import DefinitionError, UsageError
from llmops.gate.metrics import Metric, gate_text, margin_of, metric_of, rule_of
from llmops.report.texts import count, one_line, quantity
from llmops.score.summary import OPEN_MEASURES
from llmops.stats.power import ALPHA, TYPICAL_NOISE, PowerReport, n_unchanged, power_report
from llmops.stats.repeats import FLAKY_REPEATS

if TYPE_CHECKING:
    from llmops.definitions.documents import Document
    from llmops.definitions.experiment import Gate
    from llmops.gate.history import Expected
    from llmops.plan import Plan
    from llmops.stats.outcome import Rule


def forecast(
    plan: Plan, document: Document, expected: Mapping[int, Expected] = MappingProxyType({})
) -> Iterator[str]:
    """Yield for each gate that infers what it can see with the cases there are.

    document: the experiment's file. expected: the noise of gates by their place, where a history tells.

    Raises DefinitionError for a gate that no test can judge.
    """
    sizes = _sizes(plan)
    for place, gate in enumerate(plan.experiment.gates):
        columns = {gate.metric} if gate.metric.partition(".")[0] not in OPEN_MEASURES else set()
        metric = metric_of(gate.metric, plan.run.evaluators, columns)
        try:
            said = _said(gate, metric, sizes[gate.slice], plan.run.repeats, expected.get(place))
        except (ValueError, UsageError) as error:
            raise DefinitionError(document.finding(("gates", place), str(error))) from error
        if said:
            yield f"{one_line(gate_text(gate))}: {said}"


def _sizes(plan: Plan) -> Counter[str | None]:
    sizes: Counter[str | None] = Counter({None: len(plan.cases)})
    if any(gate.slice is not None for gate in plan.experiment.gates):
        sizes.update(case.slice for case in plan.cases if case.slice is not None)
    return sizes


def _said(gate: Gate, metric: Metric, n: int, repeats: int, expected: Expected | None) -> str | None:
    if metric.kind == "fact":
        if gate.slice is not None:
            raise UsageError(f"{metric.name} is a fact of the whole run: it takes no slice")
        return None
    if metric.kind == "quantile" and gate.not_worse_than is None:
        if gate.at_most is None:
            raise UsageError("a quantile is kept at most at a limit: write at_most")
        return f"{count(n, 'case')}; below {n_unchanged(1 - metric.q)} it cannot pass"
    if gate.not_worse_than is None or metric.kind != "mean":
        return None
    rule = rule_of(gate, metric, ALPHA)
    if n == 0:
        return "no case: it cannot pass"
    return None if rule.reach is None else _bounded(gate, metric, rule, n, repeats, expected)


def _bounded(gate: Gate, metric: Metric, rule: Rule, n: int, repeats: int, expected: Expected | None) -> str:
    reach = rule.reach or 1.0
    margin = margin_of(gate, metric) / (1.0 if rule.relative else reach)
    noise = TYPICAL_NOISE / repeats if expected is None else expected.noise
    can = power_report(n, margin, noise=noise)
    said = (
        f"{count(n, 'case')} can {_sight(metric, reach, can)}, four times in five; "
        f"this margin takes about {can.n_needed:,}, and below {can.n_unchanged:,} it cannot pass"
    )
    if expected is None:
        return said
    said += f" (noise {noise:.3f} beside {expected.n_runs} runs of the baseline)"
    if expected.repeated < noise:
        more = _sight(metric, reach, power_report(n, margin, noise=expected.repeated))
        cases = count(expected.n_flaky, "flaky case")
        said += f"; with `flaky_repeats: {FLAKY_REPEATS}`, for {cases}, they could {more}"
    return said


def _sight(metric: Metric, reach: float, can: PowerReport) -> str:
    least, proved = (
        quantity(metric.name, reach * value) for value in (can.smallest_margin, can.smallest_regression)
    )
    return f"pass a margin of {least} and prove a regression of {proved}"
