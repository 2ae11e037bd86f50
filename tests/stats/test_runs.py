"""Unequally many runs on both sides: their means, and the dealing of labels that stays exact where signs do not."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmops.stats.noninferiority import judge_pairs
from llmops.stats.outcome import Rule
from llmops.stats.repeats import flaky_repeats
from llmops.stats.runs import Runs, are_balanced, relabelling_p
from llmops.stats.sign_flips import sign_flip_p

Floats = npt.NDArray[np.float64]
LAW = settings(deadline=None, max_examples=50)
SCORES = st.lists(st.lists(st.sampled_from([0.0, 0.5, 1.0]), max_size=4), min_size=1, max_size=8)
RULE = Rule(0.05, 0.0, 1.0, resamples=999)


def gain(before: Floats, after: Floats) -> Floats:
    return after - before


def drawn(rng: np.random.Generator, shares: Floats, counts: npt.NDArray[np.intp]) -> Runs:
    places = np.repeat(np.arange(shares.size), counts)
    return Runs(places, (rng.random(places.size) < shares[places]).astype(float))


@LAW
@given(SCORES, st.randoms(use_true_random=False))
def test_means_do_not_mind_the_order_of_runs(scores: list[list[float]], random: object) -> None:
    runs = Runs.of(scores)
    order = np.array(sorted(range(runs.values.size), key=lambda _: random.random()), dtype=np.intp)  # type: ignore[attr-defined]
    shuffled = Runs(runs.places[order], runs.values[order])
    expected = [np.mean(case) if case else math.nan for case in scores]
    assert runs.means(len(scores)) == pytest.approx(expected, nan_ok=True)
    assert np.array_equal(shuffled.means(len(scores)), runs.means(len(scores)), equal_nan=True)
    assert [case.tolist() for case in runs.by_case(len(scores))] == [sorted(case) for case in scores]


@LAW
@given(SCORES, st.integers(1, 4))
def test_first_runs_are_the_first_of_each_case(scores: list[list[float]], k: int) -> None:
    first = Runs.of(scores).first(k)
    expected = Runs.of([case[:k] for case in scores])
    assert first.places.tolist() == expected.places.tolist()
    assert first.values.tolist() == expected.values.tolist()


@LAW
@given(SCORES, st.data())
def test_runs_of_some_cases_follow_their_order(scores: list[list[float]], data: st.DataObject) -> None:
    chosen = data.draw(st.permutations(range(len(scores))))[: data.draw(st.integers(1, len(scores)))]
    part = Runs.of(scores).of_cases(np.array(chosen))
    expected = [sorted(scores[place]) for place in chosen]
    assert [case.tolist() for case in part.by_case(len(chosen))] == expected


def test_one_run_a_side_is_dealt_like_signs_are_flipped() -> None:
    rng = np.random.default_rng(1)
    before, after = (rng.random(120) < 0.6).astype(float), (rng.random(120) < 0.5).astype(float)
    one, other = Runs.of(list(before)), Runs.of(list(after))
    assert are_balanced(one, other, 120)
    dealt = relabelling_p(one, other, 120, gain, seed=1)
    assert dealt == pytest.approx(sign_flip_p(after - before, seed=1), abs=0.02)


def test_few_cases_agree_with_full_enumeration() -> None:
    stored, fresh = [[1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [1.0, 1.0, 1.0]], [0.0, 0.0, 0.0]
    cases = [[*a, b] for a, b in zip(stored, fresh, strict=True)]
    weights = [1 / np.var(case) for case in cases]

    def total(chosen: tuple[int, ...]) -> float:
        return sum(
            float(w) * (case[at] - (sum(case) - case[at]) / 3)
            for w, case, at in zip(weights, cases, chosen, strict=True)
        )

    observed = total((3, 3, 3))
    expected = np.mean([total(chosen) <= observed + 1e-12 for chosen in product(range(4), repeat=3)])
    found = relabelling_p(Runs.of(stored), Runs.of(fresh), 3, gain, seed=2)
    assert found == pytest.approx(expected, abs=4 * math.sqrt(expected / 9999))


def test_many_runs_are_dealt_afresh() -> None:
    rng = np.random.default_rng(3)
    before, after = rng.random((4, 16)), rng.random((4, 8)) - 0.2
    found = relabelling_p(Runs.of(list(before)), Runs.of(list(after)), 4, gain, resamples=999, seed=1)
    assert 0.001 <= found < 0.2


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.98])
def test_history_and_flaky_repeats_block_an_unchanged_candidate_no_more_often_than_said(share: float) -> None:
    rng = np.random.default_rng(4)
    reps, by_signs, found = 200, 0, 0
    for seed in range(reps):
        shares = np.full(50, share)
        history = drawn(rng, shares, np.full(50, 8))
        candidate = drawn(rng, shares, flaky_repeats(history.means(50)))
        means = history.means(50), candidate.means(50)
        found += judge_pairs(*means, RULE, runs=(history, candidate)).p_worse <= 0.05
        by_signs += sign_flip_p(means[1] - means[0], resamples=999, seed=seed) <= 0.05
    assert found / reps <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / reps)
    if share == 0.02:
        assert by_signs / reps > 0.2  # what signs alone would do


def test_history_and_flaky_repeats_still_see_a_regression() -> None:
    rng = np.random.default_rng(5)
    shares = np.where(rng.random(200) < 0.8, 1.0, rng.random(200))
    history = drawn(rng, shares, np.full(200, 8))
    candidate = drawn(rng, 0.88 * shares, flaky_repeats(history.means(200)))
    outcome = judge_pairs(history.means(200), candidate.means(200), RULE, runs=(history, candidate))
    assert outcome.verdict == "fail"


def test_a_case_that_hardly_differs_does_not_decide_alone() -> None:
    stored = [[1.0] * 7 + [0.0]] * 20 + [[0.9, 0.9001, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9]]
    fresh = [0.0] * 20 + [0.9001]
    assert relabelling_p(Runs.of(stored), Runs.of(fresh), 21, gain, seed=1) < 0.001


def test_cases_without_runs_on_both_sides_count_nothing() -> None:
    full = relabelling_p(Runs.of([[1.0, 1.0]] * 9), Runs.of([0.0] * 9), 9, gain, seed=1)
    gaps = relabelling_p(Runs.of([[1.0, 1.0]] * 9 + [[]]), Runs.of([*[0.0] * 9, 1.0]), 10, gain, seed=1)
    assert gaps == full < 0.01
    assert relabelling_p(Runs.of([[]]), Runs.of([[]]), 1, gain, seed=1) == 1


def test_refuses_scores_of_unknown_cases() -> None:
    with pytest.raises(ValueError, match="scores of runs"):
        Runs(np.arange(3), np.ones(2))
