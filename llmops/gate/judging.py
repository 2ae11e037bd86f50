"""One gate on one candidate -> what its numbers say: by the test that its metric asks for, or by comparing a fact.

Several gates together are left to `outcomes`, and what the policy makes of them to `hearing`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmops.definitions.experiment import Gate
from llmops.gate.arms import Arms, Chosen
from llmops.gate.metrics import (
    Metric,
    gate_text,
    has_history,
    limit_of,
    margin_of,
    metric_of,
    rule_of,
)
from llmops.records import Flip, GateResult, Interval, Outcome, Place
from llmops.report.texts import quantity
from llmops.stats.figures import FigureRule, judge_figure
from llmops.stats.limits import judge_limit, judge_quantile_limit
from llmops.stats.noninferiority import judge_pairs
from llmops.stats.outcome import Outcome as Tested
from llmops.stats.outcome import PairedOutcome, Reason


@dataclass(frozen=True)
class Judged:
    """What a gate says before all gates are taken together. tested: None of a fact, and of what only informs."""

    result: GateResult
    tested: Tested | None = None


@dataclass(frozen=True)
class Judging:
    """All that judging the gates of one candidate needs. alpha: one-sided, of each error.

    test: what judges pairs under a rule.
    """

    arms: Arms
    alpha: float
    seed: int
    test: Callable[..., PairedOutcome] = judge_pairs

    def judge(self, gate: Gate, place: Place | None) -> Judged:
        """Return what a gate says of the candidate."""
        columns = self.arms.pairs.candidate.columns
        metric = metric_of(gate.metric, self.arms.run.evaluators, columns)
        about = GateResult(
            metric=gate.metric,
            gate=gate_text(gate),
            place=place,
            slice=gate.slice,
            outcome=Outcome.INCONCLUSIVE,
            reason="",
            limit=gate.at_least if gate.at_least is not None else gate.at_most,
            lower_is_better=metric.lower_is_better,
            repeats=self.arms.n_runs(with_history=False),
        )
        if gate.not_worse_than is not None and self.arms.baseline is None:
            return Judged(_without_baseline(about, gate, metric, self.arms))
        if gate.not_worse_than is not None and self._is_unchanged:
            return Judged(self._unchanged(about, gate, metric))
        if metric.kind == "fact":
            return Judged(self._fact(about, gate, metric))
        if metric.kind == "figure":
            return self._figure(about, gate, metric)
        if gate.not_worse_than is not None:
            return self._pairs(about, gate, metric)
        return self._limit(about, gate, metric)

    @property
    def _is_unchanged(self) -> bool:
        baseline = self.arms.baseline
        return baseline is not None and baseline.identity == self.arms.candidate.identity

    def _unchanged(self, about: GateResult, gate: Gate, metric: Metric) -> GateResult:
        """Pass what is the very same thing on both sides: there is nothing to test, but some case there must be."""
        n = len(self.arms.choose(gate.slice).ids)
        value, _ = self._value(self.arms.candidate.name, metric.name)
        changes = {"n": n, "baseline": value, "candidate": value, "margin": margin_of(gate, metric)}
        if n == 0:
            return about.model_copy(update={**changes, "reason": str(Reason.NO_CASES)})
        reason = "nothing changed: the candidate is the baseline"
        return about.model_copy(update={**changes, "outcome": Outcome.PASS, "reason": reason})

    # --- tests --------------------------------------------------------------------------------------------

    def _pairs(self, about: GateResult, gate: Gate, metric: Metric) -> Judged:
        if metric.kind == "quantile":
            return Judged(self._informed(about, gate, metric))
        chosen = self.arms.choose(gate.slice)
        try:
            outcome = self._outcome(gate, metric, chosen)
        except ValueError as error:
            return Judged(_untestable(about, error))
        rule = outcome.rule
        before, after = self.arms.means(metric.column, chosen, with_history=has_history(metric))
        changed = {
            name: tuple(
                Flip(case_id=chosen.ids[at], baseline=before[at], candidate=after[at]) for at in found
            )
            for name, found in (("improved", outcome.improved), ("regressed", outcome.regressed))
        }
        sides: dict[str, Any] = {"baseline": outcome.baseline, "candidate": outcome.candidate}
        written = {"margin": outcome.margin if gate.relative else rule.margin, "scale": rule.scale}
        sides["repeats"] = self.arms.n_runs(with_history=has_history(metric))
        seen = {**_tested(outcome), **_could_see(outcome), **changed, **sides, **written}
        return Judged(about.model_copy(update=seen), outcome)

    def inform(self, metric: Metric, slice_name: str | None) -> GateResult | None:
        """Return how a score changed that no gate asks about; None where it cannot be told."""
        gate = Gate(metric=metric.name, not_worse_than="baseline", slice=slice_name)
        chosen = self.arms.choose(slice_name)
        try:
            outcome = self._outcome(gate, metric, chosen)
        except ValueError:
            return None
        if outcome.estimate is None:
            return None
        found = _tested(outcome) | {"outcome": Outcome.INCONCLUSIVE, "reason": "no gate asks about it"}
        return GateResult(
            metric=metric.name,
            gate=metric.name if slice_name is None else f"{metric.name}, slice {slice_name}",
            slice=slice_name,
            blocks=False,
            scale=outcome.rule.scale,
            lower_is_better=metric.lower_is_better,
            baseline=outcome.baseline,
            candidate=outcome.candidate,
            repeats=self.arms.n_runs(with_history=True),
            **found,
        )

    def _outcome(self, gate: Gate, metric: Metric, chosen: Chosen) -> PairedOutcome:
        """Judge the pairs of some cases (ValueError where the gate cannot be tested on them)."""
        rule = rule_of(gate, metric, self.alpha, self.seed)
        with_history = has_history(metric)
        before, after = self.arms.means(metric.column, chosen, with_history=with_history)
        runs = self.arms.runs(metric.column, chosen, with_history=with_history)
        return self.test(before, after, rule, clusters=chosen.clusters, runs=runs)

    def _limit(self, about: GateResult, gate: Gate, metric: Metric) -> Judged:
        chosen = self.arms.choose(gate.slice)
        _, after = self.arms.means(metric.column, chosen)
        limit = limit_of(gate, metric, self.alpha)
        try:
            if metric.kind == "quantile":
                outcome = judge_quantile_limit(after, metric.q, limit, clusters=chosen.clusters)
            else:
                outcome = judge_limit(after, limit, clusters=chosen.clusters)
        except ValueError as error:
            return Judged(_untestable(about, error))
        found = _tested(outcome)
        if metric.kind == "quantile":  # what was tested is the share of cases beyond the limit
            known = after[~np.isnan(after)]
            value = float(np.quantile(known, metric.q)) if known.size else None
            found |= {"estimate": value, "interval": None, "method": f"{outcome.method}, of cases beyond"}
        return Judged(about.model_copy(update={**found, "candidate": found["estimate"]}), outcome)

    def _figure(self, about: GateResult, gate: Gate, metric: Metric) -> Judged:
        chosen = self.arms.choose(gate.slice)
        sums = self.arms.sums(metric.column, chosen)
        is_scored = metric.column in {evaluator.name for evaluator in self.arms.run.evaluators}
        if gate.method != "bootstrap" or not is_scored:
            return Judged(self._informed(about, gate, metric))
        if sums is None or not sums.pairs:
            return Judged(about.model_copy(update={"reason": str(Reason.NO_CASES)}))
        n_missing = len(chosen.ids) - len(sums.pairs)
        labels = None if chosen.clusters is None else [chosen.clusters[pair] for pair in sums.pairs]
        turned = -1.0 if metric.lower_is_better else 1.0
        shown: dict[str, Any]
        one: tuple[Any, ...] | None
        if about.limit is not None:
            one = sums.candidate(metric.part, lower_is_better=metric.lower_is_better)
            rule = FigureRule(turned * about.limit, turned * about.limit, self.alpha)
            shown = {} if one is None else {"candidate": one[0]}
        else:
            one = sums.gain(metric.part, lower_is_better=metric.lower_is_better)
            margin = margin_of(gate, metric)
            rule = FigureRule(-margin, 0.0, self.alpha)
            shown = {} if one is None else {"baseline": one[0], "candidate": one[1]}
            shown |= {"margin": margin, "scale": "difference"}
        if one is None:
            return Judged(about.model_copy(update={"reason": f"nothing has a figure {metric.name}"}))
        outcome = judge_figure(one[-1], len(sums.pairs), rule, n_missing=n_missing, clusters=labels)
        return Judged(about.model_copy(update=_turned(_tested(outcome), turned) | shown), outcome)

    # --- what is compared as it is ------------------------------------------------------------------------

    def _fact(self, about: GateResult, gate: Gate, metric: Metric) -> GateResult:
        """Compare a figure of the run; one that nobody knows, or that stands on nothing, shows nothing."""
        after, n = self._value(self.arms.candidate.name, metric.name)
        about = about.model_copy(update={"n": n, "candidate": after, "estimate": after})
        if after is None or n == 0:
            why = (
                "nobody knows it: the price or the tokens of some calls are unknown"
                if n
                else "nothing has run"
            )
            return about.model_copy(update={"reason": why})
        if gate.not_worse_than is None:
            limit = about.limit or 0.0
            is_kept = after >= limit if gate.at_least is not None else after <= limit
            return _compared(about, is_kept, "the limit is kept" if is_kept else "the limit is broken")
        assert self.arms.baseline is not None  # noqa: S101 - asked before
        before, n_before = self._value(self.arms.baseline.name, metric.name)
        margin = margin_of(gate, metric)
        about = about.model_copy(update={"baseline": before, "margin": margin, "scale": "difference"})
        if before is None or n_before == 0:
            return about.model_copy(update={"reason": "nobody knows the baseline's", "estimate": None})
        is_share = gate.relative or (gate.margin is None and metric.name == "cost_usd")
        allowed = margin * before if is_share else margin
        about = about.model_copy(update={"estimate": after - before, "margin": allowed})
        is_kept = after - before <= allowed
        return _compared(about, is_kept, "within the margin" if is_kept else "beyond the margin")

    def _informed(self, about: GateResult, gate: Gate, metric: Metric) -> GateResult:
        """Show a figure that no test may block on, and where it lies."""
        after, n = self._value(self.arms.candidate.name, metric.name)
        changes: dict[str, Any] = {"blocks": False, "n": n, "candidate": after, "estimate": after}
        reason = f"{metric.name} is no mean over cases: it informs"
        if metric.kind == "figure" and self.arms.sums(metric.column, Chosen((), None)) is not None:
            reason += "; `method: bootstrap` lets it block"
        value, at = after, about.limit
        if gate.not_worse_than is not None and self.arms.baseline is not None:
            before, _ = self._value(self.arms.baseline.name, metric.name)
            value = None if before is None or after is None else after - before
            at = 0.0
            changes |= {"baseline": before, "estimate": value, "scale": "difference"}
        if value is not None and at is not None:
            is_low = gate.at_most is not None or (gate.at_least is None and metric.lower_is_better)
            changes["outcome"] = (
                Outcome.PASS if (value <= at if is_low else value >= at) else Outcome.INCONCLUSIVE
            )
        return about.model_copy(update={**changes, "reason": reason})

    def _value(self, variant: str, name: str) -> tuple[float | None, int]:
        figure = self.arms.run.summary.get(variant, {}).get(name)
        return (None, 0) if figure is None else (figure.value, figure.n)


def _without_baseline(about: GateResult, gate: Gate, metric: Metric, arms: Arms) -> GateResult:
    """Say what comes of a comparison with nothing: by policy it passes, informs, or is open and blocks."""
    definition = arms.run.experiment_definition
    policy = str(definition.get("missing_baseline", "fail"))
    reason = f"no baseline at {definition.get('baseline')}: not asked, by `missing_baseline: {policy}`"
    is_first = policy == "create"
    return about.model_copy(
        update={
            "blocks": policy != "skip",
            "margin": margin_of(gate, metric),
            "outcome": Outcome.PASS if is_first else Outcome.INCONCLUSIVE,
            "reason": f"{reason}; what is judged here becomes it" if is_first else reason,
        }
    )


def _untestable(about: GateResult, error: ValueError) -> GateResult:
    return about.model_copy(update={"reason": f"it cannot be tested: {error}"})


def _compared(about: GateResult, is_kept: bool, reason: str) -> GateResult:
    said = f"{reason}: {quantity(about.metric, about.estimate)} as it is"
    return about.model_copy(update={"outcome": Outcome.PASS if is_kept else Outcome.FAIL, "reason": said})


def _tested(outcome: Tested) -> dict[str, Any]:
    ends = outcome.interval
    return {
        "outcome": Outcome(outcome.verdict),
        "reason": str(outcome.reason),
        "method": outcome.method,
        "alpha": outcome.alpha,
        "estimate": outcome.estimate,
        "interval": None
        if ends is None
        else Interval(low=ends[0], high=ends[1], level=round(1 - 2 * outcome.alpha, 10)),
        "n": outcome.n,
        "n_missing": outcome.n_missing,
        "n_clusters": outcome.n_clusters,
        "effective_clusters": outcome.effective_clusters,
        "p_pass": outcome.p_pass,
        "p_worse": outcome.p_worse,
    }


def _could_see(outcome: PairedOutcome) -> dict[str, Any]:
    return {
        "smallest_margin": outcome.smallest_margin,
        "smallest_regression": outcome.smallest_regression,
        "n_needed": outcome.n_needed,
    }


def _turned(found: dict[str, Any], way: float) -> dict[str, Any]:
    """Return what was tested as it is shown, where lower is better."""
    estimate, interval = found["estimate"], found["interval"]
    if way > 0 or estimate is None:
        return found
    ends = (
        None if interval is None else Interval(low=-interval.high, high=-interval.low, level=interval.level)
    )
    return {**found, "estimate": -estimate + 0.0, "interval": ends}
