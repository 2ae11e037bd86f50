"""A vote: samples that are answers of their own, each paid for once, and the value that most of them give."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.definitions.chain import Chain
from llmops.definitions.prompt import Prompt
from llmops.records import Repeat, Status, sampled
from llmops.render import Renderer
from llmops.steps.base import Bound, Program
from llmops.steps.chain import ChainProgram
from llmops.steps.prompt import PromptProgram
from llmops.steps.vote import Ballot, VoteProgram, counted, open_vote
from tests.model_server import ModelServer
from tests.steps.conftest import VERSION, Carried, function

GIVEN = {"text": "{{ text }}"}


def voting(program: Program, **options: Any) -> ChainProgram:
    """Return a chain of one vote over samples of a program."""
    body = {"n": 5, "do": {"python": "code:f", "with": GIVEN}, **options}
    chain = Chain.model_validate({"inputs": {"text": "string"}, "steps": [{"id": "best", "vote": body}]})
    step = chain.steps[0]
    assert step.vote is not None
    vote = open_vote(step.vote, Bound(step.vote.do, program))
    return ChainProgram("one", chain, {"best": Bound(step, vote)}, "identity")


def saying(*answers: Any) -> Program:
    """Return a program whose calls give these answers in turn; an exception is raised."""
    rest = list(answers)

    def say(text: str) -> Any:
        answer = rest.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return function(say)


def asking() -> PromptProgram:
    prompt = Prompt.model_validate(
        {"inputs": {"text": "string"}, "messages": [{"role": "user", "content": "{{ text }}"}]}
    )
    return PromptProgram("ask", Renderer(prompt), VERSION, {}, "identity", {})


def test_most_votes_win_and_texts_are_the_same_whatever_case_and_spaces_are(
    carry_out: Callable[..., Carried],
) -> None:
    program = voting(saying("no", " Yes", "YES  ", "no way", "yes"), concurrency=1)
    carried = carry_out(program, {"text": "?"})
    votes = [{"value": " Yes", "n": 3}, {"value": "no", "n": 1}, {"value": "no way", "n": 1}]
    assert carried.output.value == {"value": " Yes", "votes": votes, "n_failed": 0}
    assert carried.spans[1].given()["value"] == " Yes"
    assert [span.number for span in carried.spans[2:]] == [0, 1, 2, 3, 4]


def test_what_is_counted_can_be_picked(carry_out: Callable[..., Carried]) -> None:
    said = [{"label": "a", "why": n} for n in range(2)] + [{"label": "b", "why": 3}]
    program = voting(saying(*said), n=3, on="{{ output.label }}", concurrency=1)
    assert carry_out(program, {"text": "?"}).output.value["value"] == "a"


@pytest.mark.parametrize(("tie", "value"), [("first", "long"), ("shortest", "ab"), ("none", None)])
def test_a_tie_is_broken_as_declared(carry_out: Callable[..., Carried], tie: str, value: str | None) -> None:
    program = voting(saying("long", "ab", "x", "long", "ab"), tie=tie, concurrency=1)
    found = carry_out(program, {"text": "?"}).output.value
    assert found["value"] == value
    assert [each["n"] for each in found["votes"]] == [2, 2, 1]


def test_samples_that_fail_are_counted_and_have_no_vote(carry_out: Callable[..., Carried]) -> None:
    program = voting(saying(ValueError("one"), "a", ValueError("two"), "b", "b"), concurrency=1)
    found = carry_out(program, {"text": "?"}).output.value
    assert (found["value"], found["n_failed"]) == ("b", 2)


def test_a_vote_without_a_single_sample_fails_as_the_first_did(carry_out: Callable[..., Carried]) -> None:
    output = carry_out(voting(saying(*map(ValueError, "abcde")), concurrency=1), {"text": "?"}).output
    assert output.status is Status.CRASHED
    assert output.error is not None
    assert "ValueError: a" in output.error.message


def test_every_sample_is_a_call_of_its_own_and_is_paid_for_once(
    carry_out: Callable[..., Carried], server: ModelServer
) -> None:
    first = carry_out(voting(asking()), {"text": "hello"})
    keys = [received.call_id for received in server.received]
    assert len(set(keys)) == len(keys) == 5
    assert {span.call_id for span in first.spans if span.kind == "prompt"} == set(keys)
    carry_out(voting(asking()), {"text": "hello"})
    assert len(server.received) == 5
    carry_out(voting(asking(), n=7), {"text": "hello"})
    assert len(server.received) == 7, "two samples more are two calls more"


def test_the_first_sample_is_the_call_of_a_step_without_a_vote(
    carry_out: Callable[..., Carried], server: ModelServer
) -> None:
    plain = carry_out(asking(), {"text": "hello"})
    voted = carry_out(voting(asking(), n=2), {"text": "hello"})
    assert plain.spans[0].call_id == voted.spans[2].call_id
    assert len(server.received) == 2


def test_a_repeat_takes_samples_of_its_own(carry_out: Callable[..., Carried], server: ModelServer) -> None:
    for repeat in range(3):
        carry_out(voting(asking()), {"text": "hello"}, repeat=repeat)
    assert len({received.call_id for received in server.received}) == 15


def test_what_the_world_lets_fail_fails_the_vote_and_the_next_run_pays_for_what_is_missing(
    carry_out: Callable[..., Carried], server: ModelServer
) -> None:
    server.script = ["", "503", "", "", ""]
    output = carry_out(voting(asking(), concurrency=1), {"text": "hello"}).output
    assert output.status is Status.ERROR
    asked = Counter(received.call_id for received in server.received)
    again = carry_out(voting(asking(), concurrency=1), {"text": "hello"}).output
    assert again.status is Status.OK
    every = Counter(received.call_id for received in server.received)
    assert sum(asked.values()) == 2
    assert sorted(every.values()) == [1, 1, 1, 1, 2]


def test_a_refused_sample_has_no_vote(carry_out: Callable[..., Carried], server: ModelServer) -> None:
    server.script = ["refusal", "", "", "", ""]
    found = carry_out(voting(asking(), concurrency=1), {"text": "hello"}).output
    assert (found.status, found.value["n_failed"]) == (Status.OK, 1)


KEYS = st.lists(st.sampled_from("abcd"), min_size=1, max_size=30)


@given(KEYS)
def test_votes_add_up_and_nothing_has_more_than_the_winner(keys: Sequence[str]) -> None:
    found = counted([Ballot(key, key) for key in keys], "first")
    counts = [vote["n"] for vote in found["votes"]]
    assert sum(counts) == len(keys)
    assert counts == sorted(counts, reverse=True)
    assert found["votes"][0] == {"value": found["value"], "n": max(Counter(keys).values())}


@given(KEYS, st.randoms())
def test_without_a_tie_the_order_of_samples_decides_nothing(keys: list[str], random: Any) -> None:
    ranked = Counter(keys).most_common(2)
    if len(ranked) == 2 and ranked[0][1] == ranked[1][1]:
        return
    shuffled = list(keys)
    random.shuffle(shuffled)
    winners = {counted([Ballot(key, key) for key in each], "none")["value"] for each in (keys, shuffled)}
    assert winners == {ranked[0][0]}


PATHS = st.integers(1, 4).flatmap(
    lambda depth: st.lists(
        st.tuples(st.integers(0, 3), st.lists(st.integers(0, 3), min_size=depth, max_size=depth)),
        min_size=2,
        max_size=2,
    )
)


@given(PATHS)
def test_samples_of_samples_are_different_answers(paths: list[tuple[int, list[int]]]) -> None:
    def which(repeat: Repeat, numbers: list[int]) -> str:
        for number in numbers:
            repeat = sampled(repeat, number)
        return json.dumps(repeat)

    one, other = paths
    assert (which(*one) == which(*other)) == (one == other)


def test_how_many_at_a_time_changes_no_identity_and_all_else_does() -> None:
    def identity(**options: Any) -> str:
        program = voting(saying(), **options).steps["best"].program
        assert isinstance(program, VoteProgram)
        return program.identity

    assert identity(concurrency=2) == identity()
    assert len({identity(), identity(n=3), identity(tie="none"), identity(on="{{ output }}")}) == 4
