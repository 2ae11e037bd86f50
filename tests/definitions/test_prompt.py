"""A prompt as it is written, and what of it is its meaning."""

from __future__ import annotations

from typing import Any

import pytest

from llmops.definitions.base import identity_of
from llmops.definitions.build import build
from llmops.definitions.prompt import ExamplesBlock, Parameters, Prompt
from llmops.definitions.yaml_reader import read_yaml
from llmops.errors import DefinitionError

PATH = "prompts/support_triage.prompt.yaml"
DESIGNED = """\
description: Which team should take this ticket?
inputs: {ticket: string}
model: default
parameters: {temperature: 0, max_tokens: 8}
messages:
  - role: system
    content: |
      Answer with the team's name only.
  - examples: {from: support_tickets/train, k: 8, select: similar}
    user: "{{ ticket }}"
    assistant: "{{ expected }}"
  - role: user
    content: "{{ ticket }}"
response_format: {type: string, enum: [billing, shipping]}
"""


def prompt_of(text: str) -> Prompt:
    return build(Prompt, read_yaml(text.encode(), PATH))


def finding_of(text: str) -> str:
    with pytest.raises(DefinitionError) as caught:
        prompt_of(text)
    return str(caught.value.findings[-1]).removeprefix(f"{PATH}:")


def identity(text: str) -> str:
    return identity_of(prompt_of(text).meaning())


def test_the_prompt_of_the_design_is_read_as_written() -> None:
    prompt = prompt_of(DESIGNED)
    assert prompt.parameters.given() == {"temperature": 0.0, "max_tokens": 8}
    assert prompt.examples is not None
    assert (prompt.examples.source, prompt.examples.k, prompt.examples.select) == (
        "support_tickets/train",
        8,
        "similar",
    )
    assert [isinstance(message, ExamplesBlock) for message in prompt.messages] == [False, True, False]


def test_a_short_prompt_has_the_default_model_and_no_parameters() -> None:
    prompt = prompt_of("messages: [{role: user, content: hi}]")
    assert (prompt.model, prompt.parameters.given(), prompt.examples) == ("default", {}, None)


MESSAGE = "messages: [{role: user, content: hi}]\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mesages: []\n" + MESSAGE, "1:1: unknown key 'mesages'\n    did you mean 'messages'?"),
        ("inputs: {}", "1:1: the key 'messages' is missing"),
        ("messages: []", "1:1: messages: needs at least 1 of them"),
        ("messages: [{role: tool, content: a}]", "1:13: role: should be 'system', 'user' or 'assistant'"),
        (
            "messages:\n  - {role: user, contnet: a}",
            "2:18: unknown key 'contnet'\n    did you mean 'content'?",
        ),
        ("messages: [{examples: {from: a, k: 1}, user: x}]", "1:12: the key 'assistant' is missing"),
        (
            "messages: [{examples: {from: a, k: 1}, user: x, assistant: y}]",
            "needs at least one message besides",
        ),
        (MESSAGE + "parameters: {temperature: 3}", "2:14: temperature: should be at most 2, not 3"),
        (MESSAGE + "parameters: {temperature: .nan}", "2:27: .nan is no number to work with"),
        (MESSAGE + "parameters: {temperature: 1e999}", "2:27: '1e999' is too large for a number"),
        (MESSAGE + "parameters: {top_p: 0}", "2:14: top_p: should be more than 0"),
        (MESSAGE + "parameters: {temprature: 0}", "did you mean 'temperature'?"),
        (MESSAGE + "parameters: {stop: []}", "2:14: stop: "),
        (MESSAGE + "parameters: {stop: ''}", "2:14: stop: "),
        (MESSAGE + "parameters: {max_tokens: 1.5}", "2:14: max_tokens: should be a whole number"),
        (MESSAGE + "model: a b", "2:1: model: does not have the form"),
        (MESSAGE + "inputs: {a-b: string}", "2:1: inputs: 'a-b' cannot be looked up in a template"),
        (MESSAGE + "inputs: {steps: string}", "'steps' cannot be looked up"),
        (MESSAGE + "inputs: {a: strnig}", "no type is called 'strnig'; did you mean 'string'?"),
        (MESSAGE + "response_format: {type: strng}", "the schema is wrong at $.type"),
    ],
)
def test_a_slip_is_told_with_its_place(text: str, said: str) -> None:  # F62 F73 F74
    assert said in finding_of(text)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("a@7", "numbers differ"),
        ("../a", "is no reference"),
        ("a b", "is no reference"),
        ("a@", "after @ stands"),
    ],
)
def test_examples_come_from_a_reference(source: str, said: str) -> None:  # S06
    text = f"messages: [{{examples: {{from: '{source}', k: 1}}, user: x, assistant: y}}, {{role: user, content: a}}]"
    found = finding_of(text)
    assert found.startswith("1:24: from: ")
    assert said in found


def test_a_prompt_has_one_block_of_examples_at_most() -> None:
    block = "{examples: {from: a, k: 1}, user: x, assistant: y}"
    found = finding_of(f"messages: [{block}, {block}, {{role: user, content: a}}]")
    assert "at most one examples block" in found


REWRITTEN = """\
# The same, written by somebody else.
response_format:
  enum:
    - billing
    - shipping
  type: "string"
x-owner: somebody
messages:
  - {content: "Answer with the team's name only.\\n", role: system}
  - assistant: '{{ expected }}'
    user: '{{ ticket }}'
    examples:
      select: similar
      k: 8
      from: support_tickets/train
  - {role: user, content: '{{ ticket }}'}
parameters: {max_tokens: 8, temperature: 0.0}
inputs:
  ticket: string
"""


def test_comments_key_order_formatting_and_description_change_no_meaning() -> None:
    assert identity(REWRITTEN) == identity(DESIGNED)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ticket: string", "ticket: any"),
        ("model: default", "model: other"),
        ("temperature: 0", "temperature: 0.1"),
        ("max_tokens: 8", "max_tokens: 9"),
        ("max_tokens: 8", "seed: 8"),
        ("role: system", "role: user"),
        ("name only.", "name only!"),
        ("k: 8", "k: 7"),
        ("select: similar", "select: first"),
        ("support_tickets/train", "support_tickets/test"),
        ('user: "{{ ticket }}"', 'user: "{{ ticket }} "'),
        ("{{ expected }}", "{{ expected | upper }}"),
        ("[billing, shipping]", "[shipping, billing]"),
        ("type: string, enum", "type: [string], enum"),
        ("response_format: {", "response_format: {const: null, "),
    ],
)
def test_any_other_change_changes_the_meaning(old: str, new: str) -> None:
    assert old in DESIGNED
    assert identity(DESIGNED.replace(old, new)) != identity(DESIGNED)


def test_the_order_of_messages_is_part_of_the_meaning() -> None:
    one, two = "{role: user, content: a}", "{role: user, content: b}"
    assert identity(f"messages: [{one}, {two}]") != identity(f"messages: [{two}, {one}]")


@pytest.mark.parametrize(
    ("fields", "given"),
    [({}, {}), ({"stop": ("a", "b")}, {"stop": ["a", "b"]}), ({"seed": 0, "top_p": None}, {"seed": 0})],
)
def test_parameters_that_are_given_are_plain_data(fields: dict[str, Any], given: dict[str, Any]) -> None:
    assert Parameters(**fields).given() == given


def test_a_prompt_may_read_what_a_judge_is_given() -> None:
    prompt = Prompt.model_validate(
        {
            "inputs": {"output": "any", "expected": "string"},
            "messages": [{"role": "user", "content": "{{ output }}"}],
        }
    )
    assert list(prompt.inputs) == ["output", "expected"]
