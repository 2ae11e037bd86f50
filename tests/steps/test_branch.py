"""A branch: the first arm whose condition holds is carried out, no other, and which it was is on record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from llmops.definitions.chain import Chain, dependencies
from llmops.steps.base import Bound
from llmops.steps.branch import BranchProgram, open_branch
from llmops.steps.chain import ChainProgram
from tests.steps.conftest import Carried, function

GIVEN = {"text": "{{ text }}"}


def branching(*conditions: str, otherwise: Mapping[str, Any] | None = None) -> tuple[ChainProgram, list[str]]:
    """Return a chain of one branch with an arm for each condition, and the list of arms that were carried out."""
    told: list[str] = []
    arms = [{"if": each, "do": {"python": "code:f", "with": GIVEN}} for each in conditions]
    body = {"when": arms, "else": otherwise}
    chain = Chain.model_validate({"inputs": {"text": "any"}, "steps": [{"id": "pick", "branch": body}]})
    branch = chain.steps[0].branch
    assert branch is not None

    def arm(name: str) -> Callable[..., str]:
        def carried_out(text: object) -> str:
            told.append(name)
            return f"{name}: {text}"

        return carried_out

    bound = {
        str(number): Bound(each.do, function(arm(str(number)))) for number, each in enumerate(branch.when)
    }
    if branch.otherwise is not None:
        bound["else"] = Bound(branch.otherwise, function(arm("else")))
    program = open_branch(branch, bound)
    return ChainProgram("one", chain, {"pick": Bound(chain.steps[0], program)}, "identity"), told


def test_the_first_condition_that_holds_decides_and_the_rest_is_not_looked_at(
    carry_out: Callable[..., Carried],
) -> None:
    program, told = branching("{{ text == 'b' }}", "{{ text == 'a' }}", "{{ text.gone }}", otherwise=None)
    carried = carry_out(program, {"text": "a"})
    assert (carried.output.value, told) == ("1: a", ["1"])
    branch, arm = carried.spans[1:]
    assert (branch.kind, branch.inputs, branch.output) == (
        "branch",
        {"if": [False, True], "arm": "1"},
        "1: a",
    )
    assert (arm.name, arm.parent) == ("pick[1]", branch.index)


def test_else_is_carried_out_where_no_condition_holds(carry_out: Callable[..., Carried]) -> None:
    program, told = branching("{{ text == 'b' }}", otherwise={"python": "code:f", "with": GIVEN})
    assert (carry_out(program, {"text": "a"}).output.value, told) == ("else: a", ["else"])


def test_an_else_of_null_gives_null(carry_out: Callable[..., Carried]) -> None:
    program, told = branching("{{ false }}")
    carried = carry_out(program, {"text": "a"})
    assert (carried.output.value, told, carried.output.error) == (None, [], None)
    assert carried.spans[1].inputs == {"if": [False], "arm": "else"}


@pytest.mark.parametrize(
    ("condition", "said"),
    [("{{ text }}", "str 'yes'"), ("yes, {{ text }}", "str 'yes, yes'"), ("{{ text | length }}", "int 3")],
)
def test_a_condition_that_is_neither_true_nor_false_is_told(
    carry_out: Callable[..., Carried], condition: str, said: str
) -> None:
    program, told = branching("{{ false }}", condition)
    error = carry_out(program, {"text": "yes"}).output.error
    assert error is not None
    assert error.message == f"pick: condition 2 gives {said}, and a condition is true or false"
    assert told == []


def test_a_failing_arm_fails_the_branch_and_is_named(carry_out: Callable[..., Carried]) -> None:
    program, _ = branching("{{ true }}")
    step = program.steps["pick"].program
    assert isinstance(step, BranchProgram)
    broken = open_branch(step.branch, {"0": Bound(step.branch.when[0].do, function(lambda **_: 1 / 0))})
    chain = ChainProgram("one", program.chain, {"pick": Bound(program.chain.steps[0], broken)}, "i")
    carried = carry_out(chain, {"text": "a"})
    assert carried.output.error is not None
    assert "ZeroDivisionError" in carried.output.error.message
    assert [span.name for span in carried.spans if span.error] == ["one", "pick", "pick[0]"]


def test_what_conditions_and_arms_read_is_what_the_step_depends_on() -> None:
    do = {"python": "code:f", "with": {"x": "{{ b.output }}"}}
    steps = [
        {"id": "a", "python": "code:f"},
        {"id": "b", "python": "code:f"},
        {"id": "c", "python": "code:f"},
        {"id": "pick", "branch": {"when": [{"if": "{{ a.output > 1 }}", "do": do}], "else": None}},
    ]
    assert dependencies(Chain.model_validate({"steps": steps}))["pick"] == {"a", "b"}


def test_conditions_and_arms_are_in_the_identity() -> None:
    def identity(*conditions: str, **otherwise: Any) -> str:
        return branching(*conditions, **otherwise)[0].steps["pick"].program.identity

    same = identity("{{ true }}")
    assert identity("{{ true }}") == same
    assert len({same, identity("{{ false }}"), identity("{{ true }}", otherwise={"python": "code:f"})}) == 3
