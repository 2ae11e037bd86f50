"""Templates of a definition: those that do not parse, and names that are not there, with their place."""

from __future__ import annotations

import pytest

from llmops.definitions.build import build
from llmops.definitions.chain import Chain
from llmops.definitions.experiment import Experiment
from llmops.definitions.expressions import chain_findings, experiment_findings, prompt_findings
from llmops.definitions.prompt import Prompt
from llmops.definitions.yaml_reader import read_yaml


def prompt_told(text: str) -> list[str]:
    document = read_yaml(text.encode(), "p")
    return [str(finding) for finding in prompt_findings(build(Prompt, document), document)]


def chain_told(text: str) -> list[str]:
    document = read_yaml(text.encode(), "c")
    return [str(finding) for finding in chain_findings(build(Chain, document), document)]


def experiment_told(text: str) -> list[str]:
    document = read_yaml(text.encode(), "e")
    return [str(finding) for finding in experiment_findings(build(Experiment, document), document)]


BLOCK = """\
inputs: {ticket: string}
messages:
  - role: system
    content: |
      One.
      {{ ticket }
      Three.
  - role: user
    content: "{{ tickt }} {{ zzz }}"
"""


def test_a_template_that_does_not_parse_is_told_with_its_line_in_the_block() -> None:
    assert prompt_told(BLOCK)[0].startswith("p:6: line 2: ")


def test_every_name_that_is_not_declared_is_told_with_the_nearest() -> None:  # F77
    assert prompt_told(BLOCK)[1:] == [
        "p:9:5: 'tickt' is not defined here\n    did you mean 'ticket'?",
        "p:9:5: 'zzz' is not defined here\n    names here: ticket",
    ]


@pytest.mark.parametrize(
    "content",
    [
        "{{ tickets | map(attribute='x') | list }}",
        "{% for t in tickets %}{{ t }}{% endfor %}",
        "{{ 'a' if tickets else 'b' }}",
        "{% if tickets is defined %}a{% endif %}",
        "{{ ticket[tickets] }}",
        "{{ ticket.replace('a', tickets) }}",
        "{% set x = tickets %}{{ x }}",
    ],
)
def test_an_undefined_name_is_found_wherever_it_stands(content: str) -> None:  # F77
    told = prompt_told(f'inputs: {{ticket: string}}\nmessages: [{{role: user, content: "{content}"}}]')
    assert told == ["p:2:25: 'tickets' is not defined here\n    did you mean 'ticket'?"]


@pytest.mark.parametrize(
    "content",
    [
        "{{ ticket }}",
        "no template",
        "{% for t in ticket %}{{ loop.index }}{{ t }}{% endfor %}",
        "{% set x = 1 %}{{ x }}",
    ],
)
def test_names_that_are_there_are_no_finding(content: str) -> None:
    assert prompt_told(f'inputs: {{ticket: string}}\nmessages: [{{role: user, content: "{content}"}}]') == []


def test_the_turns_of_examples_are_held_against_their_own_dataset_later() -> None:
    block = "examples: {from: d, k: 1}, user: '{{ text }}', assistant: '{{ expected }'"
    (told,) = prompt_told(f"messages: [{{{block}}}, {{role: user, content: a}}]")
    assert told.startswith("p:1:60: line 1:")


def chain(steps: str, inputs: str = "{q: string}", outputs: str = "null") -> str:
    return f"inputs: {inputs}\noutputs: {outputs}\nsteps:\n{steps}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (chain('  - {id: a, prompt: p, with: {x: "{{ b.output }}"}}'), "c:4:31: 'b' is not defined here"),
        (chain('  - {id: a, prompt: p, with: {x: "{{ a.output }}"}}'), "c:4:31: step 'a' refers to itself"),
        (chain('  - {id: a, prompt: p, with: {x: [1, {y: "{{ z }}"}]}}'), "c:4:39: 'z' is not defined here"),
        (chain("  - {id: a, prompt: p}", outputs='{r: "{{ c.output }}"}'), "c:2:11: 'c' is not defined here"),
        (chain("  - {id: a, prompt: p}", outputs='"{{ a.outptu }}"'), "did you mean 'output'?"),
        (
            chain("  - {id: a, prompt: p}", outputs='"{{ a.text }}"'),
            "c:2:1: step 'a' gives no 'text'\n    write a.output",
        ),
        (chain("  - {id: a, prompt: p}\n  - {id: a, prompt: p}"), "c:5:6: a step is called 'a' already"),
        (chain("  - {id: q, prompt: p}"), "c:4:6: an input is called 'q' already"),
    ],
)
def test_what_a_chain_s_templates_name_has_to_be_there(text: str, said: str) -> None:  # F70
    assert any(said in told for told in chain_told(text)), chain_told(text)


def test_steps_that_wait_for_one_another_are_told_with_the_circle() -> None:  # F70
    text = chain(
        '  - {id: free, prompt: p, with: {x: "{{ q }}"}}\n'
        '  - {id: a, prompt: p, with: {x: "{{ b.output }}"}}\n'
        '  - {id: b, prompt: p, with: {x: "{{ c.output }}"}}\n'
        '  - {id: c, prompt: p, with: {x: "{{ a.output }}"}}\n'
    )
    (told,) = chain_told(text)
    assert told.partition(": steps wait for one another: ")[2] in {
        "a -> b -> c -> a",
        "b -> c -> a -> b",
        "c -> a -> b -> c",
    }
    assert told.startswith(("c:5:", "c:6:", "c:7:"))


def test_a_chain_that_reads_forward_and_backward_without_a_circle_is_right() -> None:
    text = chain(
        '  - {id: late, prompt: p, with: {x: "{{ early.output.field }} {{ q }}"}}\n  - {id: early, prompt: p}',
        outputs='{r: "{{ late.output }}", n: "{{ early[\'output\'] | length }}", s: "{{ q }}", k: 5}',
    )
    assert chain_told(text) == []


USE = "dataset: d\nvariants: {a: {prompt: p}}\nevaluators:\n"


@pytest.mark.parametrize("source", ["output.a", "expected", "inputs.q", "metadata.m", "steps.find.output"])
def test_an_evaluator_sees_output_expected_inputs_metadata_and_steps(source: str) -> None:
    assert experiment_told(USE + f'  - number: {{output: "{{{{ {source} }}}}"}}\n') == []


def test_anything_else_an_evaluator_names_is_told() -> None:
    assert experiment_told(USE + '  - number: {output: "{{ outptu }}", expected: "{{ case }}"}\n') == [
        "e:4:14: 'outptu' is not defined here\n    did you mean 'output'?",
        "e:4:38: 'case' is not defined here\n    names here: expected, inputs, metadata, output, steps",
    ]
