"""Verdicts that all faces show: one that passes, one that fails, one that cannot say, and any that hypothesis draws."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

from llmops.records import (
    CandidateVerdict,
    DatasetVersion,
    Flip,
    GateResult,
    Interval,
    Looks,
    Outcome,
    Place,
    Side,
    Source,
    Verdict,
)

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
EXPERIMENT = Place(path="experiments/triage.experiment.yaml", line=1)
FLOOR = GateResult(
    metric="exact_match",
    gate="exact_match at_least 0.80",
    place=Place(path=EXPERIMENT.path, line=14),
    outcome=Outcome.PASS,
    reason="the interval lies above 0.80",
    method="exact",
    alpha=0.05,
    limit=0.8,
    candidate=0.85,
    estimate=0.85,
    interval=Interval(low=0.803, high=0.89, level=0.9),
    n=200,
    p_pass=0.03,
)
COMPARED = GateResult(
    metric="exact_match",
    gate="exact_match not_worse_than baseline, margin 0.05",
    place=Place(path=EXPERIMENT.path, line=15, column=5),
    outcome=Outcome.PASS,
    reason="a loss of 0.05 is excluded",
    method="exact",
    alpha=0.05,
    margin=0.05,
    scale="difference",
    baseline=0.845,
    candidate=0.85,
    estimate=0.005,
    interval=Interval(low=-0.0251, high=0.04, level=0.9),
    n=200,
    p_pass=0.004,
    p_worse=0.62,
    smallest_margin=0.047,
    smallest_regression=0.061,
)
LATENCY = GateResult(
    metric="latency_s",
    gate="latency_s not_worse_than baseline, relative, margin 0.10",
    outcome=Outcome.INCONCLUSIVE,
    reason="the interval holds both no change and a loss of 10 %",
    blocks=False,
    method="exact",
    alpha=0.05,
    margin=0.1,
    scale="ratio",
    lower_is_better=True,
    baseline=0.41,
    candidate=0.43,
    estimate=1.0488,
    interval=Interval(low=0.98, high=1.12, level=0.9),
    n=198,
    n_missing=2,
    n_clusters=40,
    effective_clusters=31.4,
    repeats=(8, 1),
    p_pass=0.09,
    p_worse=0.14,
    smallest_margin=0.13,
    n_needed=420,
)


def side(name: str, run_id: str = "triage-1a2b3c4d") -> Side:
    return Side(run_id=run_id, variant=name, definition=f"prompts/{name}", identity=f"{name}-" * 8)


def candidate(outcome: Outcome, *gates: GateResult, **fields: Any) -> CandidateVerdict:
    values: dict[str, Any] = {
        "candidate": side("few-shot"),
        "baseline": side("zero-shot"),
        "outcome": outcome,
        "gates": gates,
    }
    return CandidateVerdict(**(values | fields))


def verdict(outcome: Outcome, *candidates: CandidateVerdict, **fields: Any) -> Verdict:
    values: dict[str, Any] = {
        "id": "f00d" * 16,
        "created_at": NOW,
        "experiment": "triage",
        "place": EXPERIMENT,
        "outcome": outcome,
        "reason": "all gates of few-shot pass",
        "blocks": outcome is Outcome.FAIL,
        "run_id": "triage-1a2b3c4d",
        "dataset": DatasetVersion(
            name="tickets", split="test", version="v" * 64, n_cases=200, path="t.jsonl"
        ),
        "candidates": candidates,
        "policy": {"on_inconclusive": "warn"},
        "n_calls": 12,
        "cost_usd": 0.0123,
        "link": "https://ci.example/runs/7?a=1&b=2",
    }
    return Verdict(**(values | fields))


def passing(**fields: Any) -> Verdict:
    return verdict(Outcome.PASS, candidate(Outcome.PASS, FLOOR, COMPARED, LATENCY), **fields)


def failing(**fields: Any) -> Verdict:
    flips = [Flip(case_id=f"t-{number:04}", baseline=1.0, candidate=0.0) for number in (5, 12, 19)]
    worse = COMPARED.model_copy(
        update={
            "outcome": Outcome.FAIL,
            "reason": "few-shot is worse than zero-shot by more than chance",
            "candidate": 0.72,
            "estimate": -0.125,
            "interval": Interval(low=-0.18, high=-0.07, level=0.9),
            "p_pass": 0.99,
            "p_worse": 0.0001,
            "p_worse_adjusted": 0.0002,
            "regressed": tuple(flips),
            "improved": (Flip(case_id="t-0002", baseline=0.0, candidate=1.0),),
        }
    )
    changed = (Place(path="prompts/few-shot.prompt.yaml", line=9), Place(path="chains/x.py", line=3))
    judged = candidate(Outcome.FAIL, FLOOR, worse, LATENCY, changed=changed)
    return verdict(Outcome.FAIL, judged, **({"reason": "few-shot fails exact_match"} | fields))


def open_verdict(**fields: Any) -> Verdict:
    unsure = COMPARED.model_copy(
        update={
            "outcome": Outcome.INCONCLUSIVE,
            "reason": "neither a loss of 0.05 nor no loss can be excluded",
            "estimate": -0.02,
            "interval": Interval(low=-0.0512, high=0.012, level=0.9),
            "p_pass": 0.0503,
            "p_worse": 0.21,
            "n_needed": 430,
            "look": 2,
            "n_looks": 5,
        }
    )
    judged = candidate(Outcome.INCONCLUSIVE, FLOOR, unsure, baseline_age_s=3.5 * 86_400)
    values = {
        "reason": "few-shot may be worse on exact_match",
        "replayed": "abcd" * 16,
        "looks": Looks(n_verdicts=3, n_fresh=1, n_held_out=4),
        "quarantined": ("t-0007", "t-0031"),
        "source": Source(commit="c0ffee" * 7, dirty=True),
        "n_calls_saved": 88,
        "cost_usd": None,
        "link": None,
    }
    return verdict(Outcome.INCONCLUSIVE, judged, **(values | fields))


# --- any verdict --------------------------------------------------------------------------------------------

OUTCOMES = st.sampled_from(list(Outcome))
WORDS = st.text("abcdefg äß配", min_size=1, max_size=12).map(lambda text: " ".join(text.split()) or "a")
_SCORES = st.floats(-2, 2, allow_nan=False) | st.sampled_from([0.0, 0.05, -0.05, 0.0499, 1.0])
_SHARES = st.none() | st.floats(0, 1) | st.sampled_from([0.05, 0.0503, 1e-5])
_COUNTS = st.integers(0, 10**6)


@st.composite
def intervals(draw: st.DrawFn) -> Interval:
    low, high = sorted((draw(_SCORES), draw(_SCORES)))
    return Interval(low=low, high=high, level=draw(st.sampled_from([0.9, 0.9923])))


@st.composite
def gates(draw: st.DrawFn, words: st.SearchStrategy[str] = WORDS) -> GateResult:
    flips = st.lists(words, max_size=2, unique=True).map(
        lambda ids: tuple(Flip(case_id=one, baseline=1.0, candidate=None) for one in ids)
    )
    return GateResult(
        metric=draw(st.sampled_from(["exact_match", "latency_s", "cost_usd", "error_rate"]) | words),
        gate=draw(words),
        place=draw(st.none() | st.builds(Place, path=words, line=st.none() | st.integers(1, 999))),
        outcome=draw(OUTCOMES),
        reason=draw(words),
        blocks=draw(st.booleans()),
        method=draw(st.none() | words),
        alpha=draw(st.none() | st.just(0.05)),
        limit=draw(st.none() | _SCORES),
        margin=draw(st.none() | st.just(0.05)),
        scale=draw(st.sampled_from([None, "difference", "ratio"])),
        baseline=draw(st.none() | _SCORES),
        candidate=draw(st.none() | _SCORES),
        estimate=draw(st.none() | _SCORES),
        interval=draw(st.none() | intervals()),
        n=draw(_COUNTS),
        n_missing=draw(_COUNTS),
        p_pass=draw(_SHARES),
        p_worse=draw(_SHARES),
        p_worse_adjusted=draw(_SHARES),
        smallest_margin=draw(_SHARES),
        n_needed=draw(st.none() | _COUNTS),
        regressed=draw(flips),
        improved=draw(flips),
    )


@st.composite
def verdicts(draw: st.DrawFn, words: st.SearchStrategy[str] = WORDS) -> Verdict:
    candidates = [
        CandidateVerdict(
            candidate=Side(
                run_id=draw(words), variant=f"{draw(words)}{number}", definition="d", identity=draw(words)
            ),
            baseline=draw(st.none() | st.just(side("zero-shot"))),
            baseline_age_s=draw(st.none() | st.floats(0, 1e7)),
            outcome=draw(OUTCOMES),
            gates=tuple(draw(st.lists(gates(words), max_size=3))),
            changed=tuple(draw(st.lists(st.builds(Place, path=words, line=st.just(3)), max_size=1))),
        )
        for number in range(draw(st.integers(0, 2)))
    ]
    return Verdict(
        id=draw(words),
        created_at=NOW,
        experiment=draw(words),
        place=Place(path=draw(words)),
        outcome=overall([one.outcome for one in candidates], draw(OUTCOMES)),
        reason=draw(words),
        blocks=draw(st.booleans()),
        run_id=draw(words),
        baseline_run_id=draw(st.none() | words),
        dataset=DatasetVersion(name=draw(words), split=None, version=draw(words), n_cases=7, path="p"),
        candidates=tuple(candidates),
        policy=draw(st.dictionaries(words, words, max_size=1)),
        looks=Looks(n_verdicts=draw(st.integers(1, 3))),
        replayed=draw(st.none() | words),
        quarantined=tuple(draw(st.lists(words, max_size=2))),
        cost_usd=draw(st.none() | st.floats(0, 10)),
        link=draw(st.none() | words),
    )


def overall(outcomes: Sequence[Outcome], otherwise: Outcome) -> Outcome:
    """Return what candidates come to; without any, a verdict may be anything."""
    gravest = (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS)
    return next((outcome for outcome in gravest if outcome in outcomes), otherwise)
