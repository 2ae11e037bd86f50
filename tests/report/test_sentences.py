"""The first sentence says what the intervals show, and no more."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from llmops.records import Comparison, Effect, Figure, Interval, Side
from llmops.report.sentences import Sentence, comparison_headline, judgement, run_facts, run_headlines

if TYPE_CHECKING:
    from collections.abc import Callable


def effect(metric: str, low: float | None, high: float = 0.0, **fields: Any) -> Effect:
    ends = None if low is None else Interval(low=low, high=high, level=0.9)
    estimate = None if low is None else (low + high) / 2
    known = {"scale": "difference", "baseline": 0.5, "candidate": 0.5, "estimate": estimate, "n": 224}
    return Effect.model_validate({"metric": metric, "interval": ends} | known | fields)


def headline(*effects: Effect) -> Sentence:
    side = Side(run_id="r", variant="old", definition="prompts/p", identity="i")
    comparison = Comparison(
        created_at=datetime(2026, 5, 4, tzinfo=UTC),
        baseline=side,
        candidate=side.model_copy(update={"variant": "new"}),
        dataset="tickets",
        n_cases=224,
        effects=effects,
    )
    return comparison_headline(comparison, ["exact", "judge"])


@pytest.mark.parametrize(
    ("effects", "text", "tone"),
    [
        ([effect("exact", 0.16, 0.30)], "new is better than old: exact +0.23 [0.16, 0.30], n 224", "good"),
        ([effect("exact", -0.3, -0.1)], "new is worse than old: exact -0.20 [-0.30, -0.10], n 224", "bad"),
        (
            [effect("exact", -0.1, 0.1), effect("judge", 0.1, 0.3)],
            "new is better than old: judge +0.20 [0.10, 0.30], n 224",
            "good",
        ),
        (
            [effect("exact", 0.1, 0.3), effect("judge", -0.3, -0.1)],
            "new is better than old on exact +0.20 [0.10, 0.30], n 224, "
            "but worse on judge -0.20 [-0.30, -0.10], n 224",
            "open",
        ),
        (
            [effect("exact", -0.1, 0.1), effect("judge", 0.0, 0.1), effect("exact.part", 0.1, 0.2)],
            "no difference could be shown between new and old: exact +0.00 [-0.10, 0.10], n 224; also judge",
            "open",
        ),
        ([effect("exact", None, note="too few")], "new and old cannot be compared: too few", "open"),
        ([], "new and old cannot be compared: nothing was scored", "open"),
    ],
)
def test_the_headline_says_what_the_intervals_show(effects: list[Effect], text: str, tone: str) -> None:
    assert headline(*effects) == Sentence(text, tone)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "word"),
    [
        (effect("exact", 0.01, 0.2), "better"),
        (effect("exact", 0.0, 0.2), ""),
        (effect("exact", None), ""),
        (effect("invalid_rate", 0.01, 0.2), "worse"),
        (effect("latency_s", 1.01, 1.2, scale="ratio"), "worse"),
        (effect("latency_s", 0.8, 0.99, scale="ratio"), "better"),
        (effect("words", 1.1, 1.2, scale="ratio"), "better"),
        (effect("ter", 0.1, 1.2, lower_is_better=True), "worse"),
        (effect("ter", -3.0, -0.1, lower_is_better=True), "better"),
    ],
)
def test_less_is_better_of_what_is_measured_and_worse_of_scores(found: Effect, word: str) -> None:
    assert judgement(found) == word


def test_a_run_without_a_baseline_names_its_best_variant(example: Callable[..., Any]) -> None:
    made = example()
    best = "highest of 2, with no baseline to compare with: few-shot, exact_match 0.850 [0.75, 0.90], n 40"
    assert run_headlines(made.run, ()) == [Sentence(best)]
    turned = [made.run.evaluators[0].model_copy(update={"lower_is_better": True}), *made.run.evaluators[1:]]
    best = "lowest of 2, with no baseline to compare with: zero-shot, exact_match 0.200 [0.10, 0.25], n 39"
    assert run_headlines(made.run.model_copy(update={"evaluators": tuple(turned)}), ()) == [Sentence(best)]
    alone = made.run.model_copy(update={"variants": made.run.variants[:1]})
    assert run_headlines(alone, ()) == [Sentence("zero-shot: exact_match 0.200 [0.10, 0.25], n 39")]


def test_a_run_whose_scores_are_all_absent_says_so(example: Callable[..., Any]) -> None:
    nothing = {"few-shot": {"exact_match": Figure(value=None, kind="mean", n=0, n_missing=40)}}
    made = example(summary=nothing)
    assert run_headlines(made.run, ()) == [Sentence("no exact_match could be worked out yet")]


def test_the_facts_name_dataset_version_calls_and_cost(example: Callable[..., Any]) -> None:
    made = example(repeats=3, n_reused=1234, cost_usd=0.0042)
    assert run_facts(made.run) == (
        "triage-1a2b3c4d: 40 cases of tickets/test (vvvvvvvvvvvv), 3 repeats; "
        "79 calls, 1,234 reused, 1.2 s, 0.0042 USD"
    )
