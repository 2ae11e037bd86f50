"""A chain as it is written, its graph, and what of it is its meaning."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.definitions.base import identity_of
from llmops.definitions.build import build
from llmops.definitions.chain import Chain, dependencies, find_cycle, templates_in
from llmops.definitions.yaml_reader import read_yaml
from llmops.errors import DefinitionError

PATH = "chains/answer.chain.yaml"
CHAIN = """\
description: Two steps.
inputs: {question: string}
steps:
  - id: find
    python: search:find_passages
    with: {query: "{{ question }}", top: 4}
  - id: answer
    prompt: docs_answer@git:main
    with: {question: "{{ question }}", passages: "{{ find.output }}"}
    model: default
    parameters: {temperature: 0}
    set: {examples.k: 0}
outputs: {answer: "{{ answer.output }}", n: "{{ find.output | length }}"}
"""


def chain_of(text: str) -> Chain:
    return build(Chain, read_yaml(text.encode(), PATH))


def finding_of(text: str) -> str:
    with pytest.raises(DefinitionError) as caught:
        chain_of(text)
    (finding,) = caught.value.findings
    return str(finding).removeprefix(f"{PATH}:")


def identity(text: str) -> str:
    return identity_of(chain_of(text).meaning())


def test_a_chain_is_read_as_written() -> None:
    find, answer = chain_of(CHAIN).steps
    assert (find.verb, find.target, find.arguments["top"]) == ("python", "search:find_passages", 4)
    assert (answer.verb, answer.target) == ("prompt", "docs_answer@git:main")
    assert answer.parameters.given() == {"temperature": 0.0}


def test_what_a_step_reads_is_inferred_from_its_templates() -> None:
    assert dependencies(chain_of(CHAIN)) == {"find": set(), "answer": {"find"}}


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (
            "{id: a}",
            "1:9: steps, item 1: a step has exactly one of prompt, chain, python, map, retrieve, this one has 0",
        ),
        ("{id: a, prompt: x, chain: y}", "this one has 2"),
        ("{id: a, promt: x}", "did you mean 'prompt'?"),
        ("{id: a-b, prompt: x}", "1:10: id: 'a-b' cannot be looked up in a template"),
        ("{id: steps, prompt: x}", "'steps' cannot be looked up"),
        ("{id: a, prompt: x@7}", "1:17: prompt: 'x@7': numbers differ between MLflow servers"),
        ("{id: a, prompt: ../x}", "is no reference"),
        ("{id: a, python: 'm:f', model: default}", "a python step has no model, parameters or set"),
        ("{id: a, python: 'm:f', set: {x: 1}}", "a python step has no model, parameters or set"),
        ("{id: a, prompt: x, with: [1]}", "1:28: with: should be a mapping, not a list"),
    ],
)
def test_a_slip_in_a_step_is_told_with_its_place(step: str, said: str) -> None:  # F70 F73
    text = f"steps: [{step}]"
    try:
        chain_of(text)
    except DefinitionError as error:
        assert any(said in str(finding).removeprefix(f"{PATH}:") for finding in error.findings), str(error)
    else:
        pytest.fail("was taken")


@pytest.mark.parametrize("reference", ["m:f", "m_1:f_2", "package.module:f", "_m:_f"])
def test_a_function_is_named_by_module_and_name(reference: str) -> None:
    assert chain_of(f"steps: [{{id: a, python: '{reference}'}}]").steps[0].target == reference


@pytest.mark.parametrize(
    "reference",
    [
        *("f", "m:", ":f", "m.f", "m:f:g", "m:f.g", "m:f()", "m f", "m:f\n", " m:f", "m:f "),
        *(
            "../m:f",
            "..:f",
            ".m:f",
            "m.:f",
            "a..b:f",
            "a/b:f",
            "/etc/m:f",
            "chains/m.py:f",
            "m.py:f g",
            "a\\b:f",
        ),
        *("os.path%2f:f", "file:///m:f", "~m:f", "m\0:f", "C:\\m:f", "mödul:f", "m:fü", "1m:f"),
    ],
)
def test_nothing_else_names_a_function(reference: str) -> None:  # S06
    text = f"steps: [{{id: a, python: {reference!r}}}]" if reference.isprintable() else ""
    if not text:
        text = 'steps: [{id: a, python: "' + reference.replace("\n", "\\n").replace("\0", "\\x01") + '"}]'
    assert "write MODULE:function" in finding_of(text)


def test_a_chain_without_steps_is_refused() -> None:
    assert finding_of("steps: []") == "1:1: steps: needs at least 1 of them"


def test_comments_key_order_formatting_and_description_change_no_meaning() -> None:
    rewritten = CHAIN.replace("Two steps.", "2 steps. # really").replace(
        'with: {query: "{{ question }}", top: 4}', "with:\n      top: 4\n      query: '{{ question }}'  # why"
    )
    assert rewritten != CHAIN
    assert identity(rewritten) == identity(CHAIN)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("question: string", "question: any"),
        ("id: find\n", "id: found\n"),
        ("search:find_passages", "search:find"),
        ("top: 4", "top: 5"),
        ("top: 4", "top: null"),
        (", top: 4", ""),
        ("docs_answer@git:main", "docs_answer"),
        ("model: default", "model: other"),
        ("temperature: 0", "temperature: 1"),
        ("examples.k: 0", "examples.k: null"),
        ("| length", "| count"),
        ("outputs: {answer", "outputs: {reply"),
    ],
)
def test_any_other_change_changes_the_meaning(old: str, new: str) -> None:
    assert old in CHAIN
    assert identity(CHAIN.replace(old, new)) != identity(CHAIN)


def test_an_argument_of_null_is_not_an_absent_one() -> None:
    assert identity(CHAIN.replace("top: 4", "top: null")) != identity(CHAIN.replace(", top: 4", ""))


def test_every_text_in_a_nested_value_is_a_template_with_its_place() -> None:
    value = {"a": ["x", {"b": "{{ y }}"}], "c": 5, "d": None}
    assert list(templates_in(value)) == [(("a", 0), "x"), (("a", 1, "b"), "{{ y }}")]


NODES = st.sampled_from("abcdef")


@given(st.dictionaries(NODES, st.sets(NODES)))
def test_a_cycle_that_is_found_is_one_and_none_is_missed(edges: dict[str, set[str]]) -> None:
    cycle = find_cycle(edges)
    if cycle is None:
        order: list[str] = []  # something can always be taken next
        left = {name: set(needed) for name, needed in edges.items()}
        for needed in edges.values():
            for name in needed:
                left.setdefault(name, set())
        while left:
            free = next(name for name, needed in left.items() if needed <= set(order))
            order.append(free)
            del left[free]
    else:
        assert cycle[0] == cycle[-1]
        assert all(after in edges[before] for before, after in pairwise(cycle))


def test_a_long_chain_of_steps_is_no_cycle_and_a_long_cycle_is_found() -> None:
    edges: dict[str, set[str]] = {f"s{n}": {f"s{n + 1}"} for n in range(5000)}
    assert find_cycle(edges) is None
    cycle = find_cycle({**edges, "s5000": {"s0"}})
    assert cycle is not None
    assert len(cycle) == 5002


@pytest.mark.parametrize("value", [1, None, True, [], {}])
def test_what_is_no_text_holds_no_template(value: Any) -> None:
    assert list(templates_in(value)) == []
