"""Verdicts are stored for good, in the order in which they were reached, and each look at a candidate counts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.records import (
    CandidateVerdict,
    EvaluatorVersion,
    Flip,
    GateResult,
    Interval,
    Looks,
    Outcome,
    Place,
    Side,
    Verdict,
)
from llmops.stores.journal import Journal
from llmops.stores.rows import to_json, verdict_of
from tests.stores.conftest import Place as StorePlace
from tests.stores.samples import EXACT, NOW, digest, run_of


def side(name: str) -> Side:
    return Side(run_id="r1", variant=name, definition="prompts/triage", identity=digest(name))


def verdict(number: int = 1, candidate: str = "a", baseline: str | None = "b", **fields: Any) -> Verdict:
    judged = CandidateVerdict(
        candidate=side(candidate),
        baseline=side(baseline) if baseline else None,
        outcome=Outcome.PASS,
        gates=(gate(),),
    )
    values: dict[str, Any] = {
        "id": digest(f"verdict {number}"),
        "created_at": NOW,
        "experiment": "triage",
        "place": Place(path="experiments/triage.experiment.yaml", line=3, column=1),
        "outcome": Outcome.PASS,
        "reason": "every gate passes",
        "blocks": False,
        "run_id": "r1",
        "dataset": run_of().dataset,
        "evaluators": (EXACT,),
        "candidates": (judged,),
        "policy": {"on_inconclusive": "warn"},
        "looks": Looks(n_verdicts=number, n_held_out=2),
    }
    return Verdict(**{**values, **fields})


def gate(**fields: Any) -> GateResult:
    values: dict[str, Any] = {
        "metric": "exact_match",
        "gate": "exact_match not worse than baseline by 0.05",
        "outcome": Outcome.PASS,
        "reason": "no worse than 0.02",
        "margin": 0.05,
        "interval": Interval(low=-0.02, high=0.04, level=0.9),
        "regressed": (Flip(case_id="c\ud800", baseline=1.0, candidate=None),),
    }
    return GateResult(**{**values, **fields})


def test_a_verdict_comes_back_as_it_was_the_one_saved_last_first(journal: Journal) -> None:
    first, second = verdict(1), verdict(2, reason='a "hostile"\0 \ud800 reason')
    other = verdict(3, experiment="other/é")
    for each in (first, second, other):
        journal.verdicts.save(each)
    assert journal.verdicts.of("triage") == [second, first]
    assert journal.verdicts.of("other/é") == [other]
    assert journal.verdicts.of("nothing") == []


def test_a_verdict_that_is_there_is_neither_changed_nor_added_again(journal: Journal) -> None:
    journal.verdicts.save(verdict())
    journal.verdicts.save(verdict(reason="another one", candidate="c"))
    assert journal.verdicts.of("triage") == [verdict()]
    assert (journal.verdicts.n_looks(digest("a")), journal.verdicts.n_looks(digest("c"))) == (1, 0)


def test_looks_are_counted_by_candidate_and_by_what_it_is_compared_with(journal: Journal) -> None:
    for number, (candidate, baseline) in enumerate(
        [("a", "b"), ("a", "b"), ("a", "z"), ("a", None), ("c", "b")]
    ):
        journal.verdicts.save(verdict(number, candidate, baseline))
    assert journal.verdicts.n_looks(digest("a")) == 4
    assert journal.verdicts.n_looks(digest("a"), digest("b")) == 2
    assert journal.verdicts.n_looks(digest("a"), "") == 1
    assert journal.verdicts.n_looks(digest("c")) == 1
    assert journal.verdicts.n_looks(digest("b")) == 0


def test_one_verdict_on_two_variants_that_are_the_same_is_one_look(journal: Journal) -> None:
    (one,) = verdict().candidates
    twin = one.model_copy(update={"candidate": one.candidate.model_copy(update={"variant": "twin"})})
    elsewhere = one.model_copy(update={"baseline": side("z")})
    journal.verdicts.save(verdict(candidates=(one, twin, elsewhere)))
    assert journal.verdicts.n_looks(digest("a")) == 1
    assert journal.verdicts.n_looks(digest("a"), digest("b")) == 1


def test_the_same_finding_at_another_time_is_another_look(journal: Journal) -> None:
    journal.verdicts.save(verdict())
    journal.verdicts.save(verdict(created_at=NOW.replace(year=2027)))
    assert journal.verdicts.n_looks(digest("a")) == 2


def test_verdicts_outlive_the_process(place: StorePlace) -> None:
    with place.another() as journal:
        journal.verdicts.save(verdict())
    with place.another() as journal:
        assert journal.verdicts.of("triage") == [verdict()]
        journal.verdicts.save(verdict(2))
        assert len(journal.verdicts.of("triage")) == 2


@given(
    reason=st.text(),
    outcome=st.sampled_from(Outcome),
    cost=st.none() | st.floats(0, 1e9),
    evaluators=st.lists(
        st.builds(EvaluatorVersion, name=st.text(), kind=st.text(), identity=st.text()), max_size=2
    ),
)
def test_a_verdict_survives_its_json(
    reason: str, outcome: Outcome, cost: float | None, evaluators: list[EvaluatorVersion]
) -> None:
    given_ = verdict(reason=reason, outcome=outcome, cost_usd=cost, evaluators=tuple(evaluators))
    assert verdict_of(to_json(given_)) == given_


@pytest.mark.parametrize("revision", ["0003"])
def test_a_store_from_before_there_were_verdicts_takes_them(place: StorePlace, revision: str) -> None:
    from tests.stores.test_migrations import migrate_to, writing

    with writing(place) as connection:
        migrate_to(connection, revision)
    with place.another() as journal:
        journal.verdicts.save(verdict())
        assert journal.verdicts.of("triage") == [verdict()]
