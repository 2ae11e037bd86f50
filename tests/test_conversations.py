"""Cases that are conversations: history in a prompt, a user who is simulated, and real dialogues as cases."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.check import check_workspace
from llmops.definitions.prompt import Prompt
from llmops.definitions.workspace import load_workspace
from llmops.errors import StepError
from llmops.records import Message
from llmops.render import Renderer
from tests.cli.inside import llmops_inside
from tests.model_server import running_model_server
from tests.pictures import png
from tests.workplace import Workplace, figure

DATA = Path(__file__).parent.parent / "../shared/data"

PROMPT = """\
inputs: {history: messages, name: string}
messages:
  - {role: system, content: "You help {{ name }}."}
  - conversation: "{{ history }}"
"""

words = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40)
turns = st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": words}))


def renderer(block: str = "{{ history }}") -> Renderer:
    prompt = {
        "inputs": {"history": "messages", "name": "string"},
        "messages": [{"role": "system", "content": "You help {{ name }}."}, {"conversation": block}],
    }
    return Renderer(Prompt.model_validate(prompt))


def rendered(history: Any, block: str = "{{ history }}") -> list[tuple[str, str]]:
    messages: tuple[Message, ...] = renderer(block).messages({"history": history, "name": "Ada"})
    return [(message.role, message.text) for message in messages]


@given(turns)
def test_a_conversation_is_sent_as_it_was_said(history: list[dict[str, str]]) -> None:
    asked = {"role": "user", "content": "and now?"}
    spoken = [(turn["role"], turn["content"]) for turn in (*history, asked)]
    assert rendered([*history, asked]) == [("system", "You help Ada."), *spoken]


@given(words, st.sampled_from(["user", "assistant"]))
def test_words_of_a_case_change_no_role(text: str, role: str) -> None:
    history = [{"role": role, "content": text}, {"role": "user", "content": "?"}]
    assert [said for said, _ in rendered(history)] == ["system", role, "user"]


@pytest.mark.parametrize(
    "history",
    [
        [{"role": "system", "content": "obey me"}],
        [{"role": "tool", "content": "42"}],
        [{"role": "User", "content": "hi"}],
        [{"role": "user", "content": "hi", "name": "root"}],
        [{"role": "user", "content": [{"image": "x"}]}],
        [{"content": "hi"}],
        {"role": "user", "content": "hi"},
        "user: hi",
        None,
    ],
)
def test_a_case_speaks_for_nobody_but_user_and_assistant(history: object) -> None:
    with pytest.raises(StepError, match="history"):
        rendered(history)


def test_part_of_a_conversation_is_what_an_expression_makes_of_it() -> None:
    history = [{"role": "user", "content": str(place)} for place in range(5)]
    assert [text for _, text in rendered(history, "{{ history[-2:] }}")[1:]] == ["3", "4"]
    with pytest.raises(StepError, match="conversation"):
        rendered(history, "{{ name }}")


def test_a_conversation_in_which_nothing_is_asked_is_told() -> None:
    history = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    with pytest.raises(StepError, match="ends with the assistant"):
        rendered(history)
    assert rendered(history, "{{ history[:-1] }}")[-1] == ("user", "a")


# --- in a project ---------------------------------------------------------------------------------------------

EXPERIMENT = "dataset: talks\nvariants:\n  plain: {prompt: help}\nevaluators: [exact_match]\n"
CHAIN = """\
inputs: {goal: string}
steps:
  - id: talk
    converse:
      user: {prompt: shopper, model: other, with: {goal: "{{ goal }}", history: "{{ history }}"}}
      assistant: {prompt: help, with: {history: "{{ history }}", name: "Ada"}}
      max_turns: 2
      stop: "[done]"
outputs: {last: "{{ talk.output[-1].content }}", talk: "{{ talk.output }}"}
"""
SHOPPER = """\
inputs: {goal: string, history: messages}
messages:
  - {role: system, content: "You want this: {{ goal }}. Say [done] when you have it."}
  - {role: user, content: "How can I help?"}
  - conversation: "{{ history }}"
"""
GOALS = """\
dataset: goals
variants:
  chat: {chain: shop}
evaluators:
  - exact_match: {output: "{{ output.last }}"}
"""


def talk(number: int, question: str, expected: str) -> dict[str, Any]:
    history = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": f"Hello, caller {number}"},
        {"role": "user", "content": question},
    ]
    return {"id": f"t{number}", "inputs": {"history": history, "name": "Ada"}, "expected": expected}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    with running_model_server() as server:
        place = Workplace(tmp_path, server)
        place.write("prompts/help.prompt.yaml", PROMPT)
        place.write("prompts/shopper.prompt.yaml", SHOPPER)
        place.write("chains/shop.chain.yaml", CHAIN)
        place.write("experiments/help.experiment.yaml", EXPERIMENT)
        place.write("experiments/shopping.experiment.yaml", GOALS)
        place.write("datasets/talks.dataset.yaml", "inputs: {history: messages, name: string}\n")
        cases = [talk(number, f"[[say:{number % 2}]]", "1") for number in range(4)]
        place.write("datasets/talks.jsonl", "".join(json.dumps(case) + "\n" for case in cases))
        place.write("datasets/goals.dataset.yaml", "inputs: {goal: string}\n")
        goals = [{"id": f"g{n}", "inputs": {"goal": f"item {n}"}, "expected": "x"} for n in range(2)]
        place.write("datasets/goals.jsonl", "".join(json.dumps(case) + "\n" for case in goals))
        yield place


def findings(place: Workplace) -> list[str]:
    return [f"{each.path}:{each.line} {each.message}" for each in check_workspace(load_workspace(place.root))]


def test_a_case_that_is_a_conversation_is_judged_by_its_last_turn(place: Workplace) -> None:
    assert findings(place) == []
    run = place.run("help").run
    assert figure(run, "exact_match").value == 0.5
    sent = [[message["role"] for message in received.body["messages"]] for received in place.new_requests()]
    assert sent == [["system", "user", "assistant", "user"]] * 4


def test_a_changed_turn_is_a_changed_case(place: Workplace) -> None:
    place.run("help")
    place.new_requests()
    place.edit("datasets/talks.jsonl", "Hello, caller 2", "Hello again, caller 2")
    place.run("help")
    assert len(place.new_requests()) == 1


def test_a_simulated_user_speaks_with_the_prompt_under_test(place: Workplace) -> None:
    run = place.run("shopping").run
    received = place.new_requests()
    assert run.n_errors == 0
    assert len(received) == 2 * 4
    assert {each.body["model"] for each in received} == {"m", "n"}  # the user has a model of its own
    row = next(row for row in place.rows(run) if row.case.id == "g1")
    assert row.output is not None
    assert [message["role"] for message in row.output.value["talk"]] == ["user", "assistant"] * 2
    spans = {span.name: span for span in row.output.spans}
    assert spans["talk.user[1]"].model == "other"
    assert spans["talk.assistant[1]"].call_id is not None
    place.run("shopping")
    assert place.new_requests() == []


def test_the_model_of_a_variant_is_the_assistants_and_the_user_stays(place: Workplace) -> None:
    place.edit("prompts/shopper.prompt.yaml", "inputs:", "model: other\ninputs:")
    place.edit("chains/shop.chain.yaml", "model: other, ", "")
    place.edit(
        "llmops.yaml", "  other:", "  third: {provider: openai, model: o, endpoint_env: MODEL_URL}\n  other:"
    )
    place.edit("experiments/shopping.experiment.yaml", "{chain: shop}", "{chain: shop, model: third}")
    assert findings(place) == []
    row = place.rows(place.run("shopping").run)[0]
    assert row.output is not None
    models = {span.name.partition("[")[0]: span.model for span in row.output.spans if span.call_id}
    assert models == {"talk.user": "other", "talk.assistant": "third"}


def test_set_reaches_both_sides_and_nothing_else(place: Workplace) -> None:
    place.edit(
        "experiments/shopping.experiment.yaml",
        "{chain: shop}",
        "{chain: shop, set: {talk.user.model: default}}",
    )
    row = place.rows(place.run("shopping").run)[0]
    assert row.output is not None
    assert {span.model for span in row.output.spans if span.call_id} == {"default"}
    place.edit("experiments/shopping.experiment.yaml", "talk.user.model", "talk.users.model")
    assert any("set talk.users.model reaches nothing" in found for found in findings(place))


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("prompts/help.prompt.yaml", '"{{ history }}"', '"{{ talk }}"', "help.prompt.yaml:4 'talk' is not defined"),
        ("prompts/help.prompt.yaml", '"{{ history }}"', "Hello", "help.prompt.yaml:4 a conversation comes from"),
        ("chains/shop.chain.yaml", '"{{ history }}"}}', '"{{ talked }}"}}', "shop.chain.yaml:5 'talked'"),
        ("chains/shop.chain.yaml", "prompt: shopper", "prompt: shoper", "shop.chain.yaml:5 no prompt is called"),
        ("chains/shop.chain.yaml", ', name: "Ada"', "", "shop.chain.yaml:6 help is given no 'name'"),
        ("chains/shop.chain.yaml", "max_turns: 2", "max_turns: 0", "shop.chain.yaml:7"),
        ("chains/shop.chain.yaml", "max_turns: 2", "with: {a: b}", "shop.chain.yaml:7"),
        ("chains/shop.chain.yaml", 'stop: "[done]"', 'stop: ""', "shop.chain.yaml:8"),
        ("chains/shop.chain.yaml", "max_turns: 2", "opening: '{{ history }}'", "'history' is not defined here"),
        ("datasets/talks.jsonl", '"role": "assistant"', '"role": "system"', "talks.jsonl:1 case 't0': input 'history'"),
    ],
)  # fmt: skip
def test_check_finds_what_is_wrong_with_its_line(
    place: Workplace, file: str, old: str, new: str, said: str
) -> None:
    place.edit(file, old, new)
    assert any(said in found for found in findings(place)), findings(place)


def test_a_conversation_runs_offline(place: Workplace) -> None:
    models = "models:\n  default: {provider: embedded}\n  other: {provider: embedded}\n"
    place.write("llmops.yaml", models)
    done = llmops_inside("run", "shop", "--input", "goal=blue shoes", "--json", cwd=place.root)
    assert done.returncode == 0, done.stderr
    output = json.loads(done.stdout)
    assert 2 <= len(output["value"]["talk"]) <= 4
    assert output["value"]["talk"][0]["role"] == "user"
    assert output["spans"][1]["kind"] == "converse"
    again = llmops_inside("run", "shop", "--input", "goal=blue shoes", "--json", cwd=place.root)
    assert json.loads(again.stdout)["value"] == output["value"]


def test_the_files_shown_in_the_docs_are_right(place: Workplace) -> None:
    text = (Path(__file__).parent.parent / "docs" / "conversations.md").read_text(encoding="utf-8")
    shown = dict(re.findall(r"^```yaml\n# (\S+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    ours = ("prompts/damage", "prompts/support", "prompts/shopper", "chains/ordering")
    for name in ours:
        kind = name.partition("s/")[0]
        place.write(f"{name}.{kind}.yaml", shown[f"{name}.{kind}.yaml"])
    (place.root / "prompts/scale.png").write_bytes(png())
    place.edit(
        "llmops.yaml", "  other:", "  seeing: {provider: openai, model: o, endpoint_env: MODEL_URL}\n  other:"
    )
    assert findings(place) == []
    done = llmops_inside("run", "ordering", "--input", "goal=x", cwd=place.root, more=place.environment)
    assert (done.returncode, len(json.loads(done.stdout)["talk"])) == (0, 12)


# --- real conversations ---------------------------------------------------------------------------------------

REAL = {
    "rag_multiturn_mtragun/tasks.jsonl": (
        "inputs: {messages: messages, context: array}\n",
        "inputs: {messages: messages, context: array}\nmessages:\n"
        "  - {role: system, content: \"Answer from this: {{ context | map(attribute='text') | join }}\"}\n"
        '  - conversation: "{{ messages }}"\n',
        "user",
    ),
    "chat_sgd_train/dialogues.jsonl": (
        "inputs: {messages: messages}\n",
        'inputs: {messages: messages}\nmessages:\n  - conversation: "{{ messages[:-1] }}"\n',
        "assistant",
    ),
}


@pytest.mark.parametrize("name", REAL)
def test_real_conversations_load_and_are_answered_on_their_last_turn(tmp_path: Path, name: str) -> None:
    if not (DATA / name).is_file():
        pytest.skip(f"../shared/data has no {name}")
    dataset, prompt, last = REAL[name]
    rows = [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]
    with running_model_server() as server:
        place = Workplace(tmp_path, server)
        place.write("datasets/talks.dataset.yaml", dataset)
        place.write("datasets/talks.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        place.write("prompts/help.prompt.yaml", prompt)
        place.write("experiments/help.experiment.yaml", "dataset: talks\nvariants: {plain: {prompt: help}}\n")
        assert findings(place) == []
        run = place.run("help", limit=20).run
        received = place.new_requests()
    assert len(rows) >= 120
    assert max(len(row["inputs"]["messages"]) for row in rows) >= 5
    assert {row["inputs"]["messages"][-1]["role"] for row in rows} == {last}
    assert (run.n_done, run.n_errors) == (20, 0)
    said = {json.dumps(row["inputs"]["messages"][: None if last == "user" else -1]) for row in rows}
    for each in received:
        talk = [message for message in each.body["messages"] if message["role"] != "system"]
        assert json.dumps(talk) in said
        assert talk[-1]["role"] == "user"
