"""Several metrics, one verdict: all must pass, any may block, and both errors are kept over all of them."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmops.stats.decision import decide
from llmops.stats.multiplicity import holm
from llmops.stats.noninferiority import judge_pairs
from llmops.stats.outcome import Outcome, PairedOutcome, Reason, Rule

RULE = Rule(0.05, 0.0, 1.0)


@cache
def judged(losses: int, gains: int, n: int = 200) -> PairedOutcome:
    after = np.ones(n)
    after[:losses] = 0
    before = np.ones(n)
    before[losses : losses + gains] = 0
    return judge_pairs(before, after, RULE)


def outcome(p_pass: float, p_worse: float) -> Outcome:
    return Outcome(
        verdict="inconclusive",
        reason=Reason.NEITHER,
        n=100,
        n_missing=0,
        n_clusters=None,
        effective_clusters=None,
        estimate=0.0,
        interval=None,
        p_pass=p_pass,
        p_worse=p_worse,
        guarded_pass=p_pass,
        guarded_worse=p_worse,
        alpha=0.05,
        method="exact",
    )


def test_all_metrics_must_pass_at_full_alpha() -> None:
    good, open_ = judged(3, 3), judged(12, 8)
    assert decide({"a": good, "b": good}, alpha=0.05).verdict == "pass"
    mixed = decide({"a": good, "b": open_}, alpha=0.05)
    assert (mixed.verdict, mixed.unproved, mixed.failed) == ("inconclusive", ("b",), ())


def test_any_metric_may_block() -> None:
    found = decide({"a": judged(3, 3), "b": judged(30, 5)}, alpha=0.05)
    assert (found.verdict, found.failed) == ("fail", ("b",))


def test_what_is_significant_alone_may_not_be_among_many() -> None:
    alone = judged(12, 3)
    assert decide({"a": alone}, alpha=0.05).verdict == "fail"
    among = {"a": alone, **{f"m{k}": judged(12, 8) for k in range(4)}}
    found = decide(among, alpha=0.05)
    assert found.verdict == "inconclusive"
    assert found.adjusted_worse["a"] == pytest.approx(5 * alone.p_worse)


def test_a_tolerable_regression_that_passes_does_not_block() -> None:
    tolerable = judged(60, 30, n=2000)
    assert tolerable.p_worse < 0.01
    assert decide({"a": tolerable}, alpha=0.05).verdict == "pass"


def test_no_metric_shows_nothing() -> None:
    assert decide({}, alpha=0.05).verdict == "inconclusive"


@settings(deadline=None, max_examples=80)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=8))
def test_a_verdict_is_what_its_rule_says(p_values: list[tuple[float, float]]) -> None:
    found = decide({str(k): outcome(*pair) for k, pair in enumerate(p_values)}, alpha=0.05)
    adjusted = holm([worse for _, worse in p_values])
    blocks = any(p > 0.05 and worse <= 0.05 for (p, _), worse in zip(p_values, adjusted, strict=True))
    passes = all(p <= 0.05 for p, _ in p_values)
    assert found.verdict == ("fail" if blocks else "pass" if passes else "inconclusive")
    assert len(found.failed) + len(found.unproved) == sum(p > 0.05 for p, _ in p_values)


def test_ten_unchanged_metrics_block_no_more_often_than_one() -> None:
    rng = np.random.default_rng(1)
    reps, blocked = 300, 0
    for _ in range(reps):
        flips = rng.multinomial(100, [0.05, 0.05, 0.9], 10)
        blocked += (
            decide(
                {str(k): judged(a, b, 100) for k, (a, b, _) in enumerate(flips.tolist())}, alpha=0.05
            ).verdict
            == "fail"
        )
    assert blocked / reps <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / reps)
