"""`llmops run TARGET --chat`: lines in, answers out, each turn with its steps, in a terminal and from a pipe."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from io import StringIO
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.check import check_workspace
from llmops.cli.chat import Written
from llmops.report.texts import printable
from llmops.secrets import register_environment, scrub
from tests.cli.command import llmops
from tests.cli.inside import Done, llmops_inside
from tests.cli.terminal import in_terminal
from tests.model_server import ModelServer, running_model_server
from tests.pictures import data_url, png
from tests.workplace import KEY, Workplace, said

HELP = """\
inputs: {history: messages, name: string}
messages:
  - {role: system, content: "You help {{ name }}."}
  - conversation: "{{ history }}"
"""
CHAIN = """\
inputs: {text: string}
steps:
  - {id: label, prompt: sort, with: {ticket: "{{ text }}"}}
  - {id: again, prompt: sort, with: {ticket: "{{ label.output }}, {{ text }}"}}
outputs: {label: "{{ label.output }}"}
"""

Chat = Callable[..., Done]


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with running_model_server() as server:
        yield server


@pytest.fixture
def place(tmp_path: Path, server: ModelServer) -> Workplace:
    place = Workplace(tmp_path, server)
    place.write("prompts/help.prompt.yaml", HELP)
    place.write("chains/twice.chain.yaml", CHAIN)
    return place


@pytest.fixture
def chat(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> Chat:
    """Give a function that chats from a pipe."""

    def chat(*lines: str, target: str = "prompts/sort", options: tuple[str, ...] = ()) -> Done:
        monkeypatch.setattr(sys, "stdin", StringIO("".join(f"{line}\n" for line in lines)))
        return llmops_inside("run", target, "--chat", *options, cwd=place.root, more=place.environment)

    return chat


HELPED = {"target": "help", "options": ("--input", "name=Ada")}


# --- turns ------------------------------------------------------------------------------------------------------


def test_each_line_is_asked_and_answered(chat: Chat) -> None:
    done = chat("is it red", "", "is it blue")
    assert (done.returncode, done.stdout) == (0, "red\nblue\n")


def test_each_turn_shows_its_steps_beside_the_answer(chat: Chat) -> None:
    done = chat("it is green", target="twice")
    lines = done.stderr.splitlines()
    assert json.loads(done.stdout) == {"label": "green"}
    assert [line.split()[0] for line in lines[-4:]] == ["twice", "label", "again", "in"]
    assert lines[-3].startswith("    label  default  ")
    assert " -> 1 tokens  <0.0001 USD  0." in lines[-3]
    assert lines[-1].startswith("  in all: ")


def test_a_prompt_with_a_conversation_remembers_what_was_said(chat: Chat, place: Workplace) -> None:
    done = chat("[[say:Hello.]]", "who am I? [[say:Ada.]]", **HELPED)
    assert done.stdout == "Hello.\nAda.\n"
    messages = place.new_requests()[-1].body["messages"]
    assert messages == [
        {"role": "system", "content": "You help Ada."},
        {"role": "user", "content": "[[say:Hello.]]"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "who am I? [[say:Ada.]]"},
    ]


def test_a_chain_with_a_conversation_remembers_it_too(chat: Chat, place: Workplace) -> None:
    step = '{id: help, prompt: help, with: {history: "{{ talk }}", name: "Ada"}}'
    place.write("chains/desk.chain.yaml", f"inputs: {{talk: messages}}\nsteps:\n  - {step}\n")
    assert chat("[[say:Yes.]]", "[[say:No.]]", target="desk").stdout == "Yes.\nNo.\n"
    assert [m["role"] for m in place.new_requests()[-1].body["messages"][1:]] == ["user", "assistant", "user"]


def test_a_store_that_another_holds_is_told_and_the_chat_goes_on(chat: Chat, place: Workplace) -> None:
    with place.journal() as journal, journal.hold("another"):
        done = chat("red", "/help")
    assert (done.returncode, done.stdout) == (5, "")
    assert "/quit" in done.stderr


def test_reset_forgets_it(chat: Chat, place: Workplace) -> None:
    chat("one", "/reset", "two", **HELPED)
    assert len(place.new_requests()[-1].body["messages"]) == 2


def test_a_line_beside_a_conversation_is_the_input_that_is_left(chat: Chat, place: Workplace) -> None:
    prompt = HELP.replace("name", "question").replace("You help {{ question }}.", "Help.")
    place.write("prompts/help.prompt.yaml", prompt + '  - {role: user, content: "Q: {{ question }}"}\n')
    chat("one", "two", target="help")
    assert [message["content"][:6] for message in place.new_requests()[-1].body["messages"]] == [
        "Help.",
        "one",
        "echo " + place.server.received[-1].body["messages"][2]["content"][5:6],
        "Q: two",
    ]


def test_other_prompts_answer_each_line_by_itself(chat: Chat, place: Workplace) -> None:
    chat("red", "blue")
    assert [len(received.body["messages"]) for received in place.new_requests()] == [2, 2]


@pytest.mark.parametrize(
    ("kind", "line", "value"), [("integer", "5", "5"), ("array", "[1, 2]", "[1, 2]"), ("string", "@x", "@x")]
)
def test_a_line_is_read_as_the_type_of_its_input(
    chat: Chat, place: Workplace, kind: str, line: str, value: str
) -> None:
    place.edit("prompts/sort.prompt.yaml", "{ticket: string}", f"{{ticket: {kind}}}")
    assert chat(line).returncode == 0
    assert said(place.new_requests()[0]) == value


def test_an_image_is_an_input_like_any_other(chat: Chat, place: Workplace) -> None:
    (place.root / "a.png").write_bytes(png())
    parts = '[{text: "{{ ask }}"}, {image: "{{ picture }}"}]'
    see = f"inputs: {{picture: image, ask: string}}\nmessages:\n  - role: user\n    content: {parts}\n"
    place.write("prompts/see.prompt.yaml", see)
    done = chat("what?", "/save seen.jsonl", "/inputs", target="see", options=("--input", "picture=a.png"))
    assert done.returncode == 0
    assert done.stdout.startswith("saw ")
    assert "picture = [image a.png, image/png, 2x3" in done.stderr
    saved = json.loads((place.root / "seen.jsonl").read_text())
    assert saved["inputs"] == {"picture": data_url(png()), "ask": "what?"}


def test_which_input_a_line_is_must_be_clear(chat: Chat, place: Workplace) -> None:
    prompt = "inputs: {a: string, b: string}\nmessages:\n  - {role: user, content: '{{ a }}{{ b }}'}\n"
    place.write("prompts/both.prompt.yaml", prompt)
    done = chat("x", target="both")
    assert (done.returncode, done.stdout) == (2, "")
    assert "give all but one of --input a=... --input b=..." in done.stderr
    done = chat("x", target="both", options=("--input", "a=1", "--input", "b=2"))
    assert "no input left that a line could be" in done.stderr


def test_an_old_version_is_talked_to_by_its_reference(
    place: Workplace, chat: Chat, git: Callable[..., str]
) -> None:
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    place.edit("prompts/sort.prompt.yaml", "red, green, blue", "teal, pink, grey")
    assert chat("is it teal").stdout == "teal\n"
    assert chat("is it blue", target="prompts/sort@git:HEAD").stdout == "blue\n"


# --- paying -----------------------------------------------------------------------------------------------------


def test_the_same_question_costs_nothing_again_until_fresh_is_said(chat: Chat, place: Workplace) -> None:
    done = chat("is it red", "is it red", "/fresh", "is it red", "is it red")
    assert len(place.new_requests()) == 2
    assert done.stderr.count("answered before: 0 calls") == 2
    chat("is it red", "is it red", options=("--fresh",))
    assert len(place.new_requests()) == 2


def test_another_model_answers_once_it_is_named(chat: Chat, place: Workplace) -> None:
    done = chat("red", "/model other", "red", "/model nobody", "red", options=("--model", "default"))
    assert [received.body["model"] for received in place.new_requests()] == ["m", "n"]
    assert "no model 'nobody'" in done.stderr
    assert done.stdout == "red\nred\nred\n"
    assert done.returncode == 2


def test_a_key_that_is_missing_is_told_and_the_chat_goes_on(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", StringIO("red\n/spans\n"))
    more = {name: value for name, value in place.environment.items() if name != "MODEL_KEY"}
    done = llmops_inside("run", "prompts/sort", "--chat", cwd=place.root, more=more)
    assert done.returncode != 0
    assert "MODEL_KEY" in done.stderr
    assert "nothing has been asked yet" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("fault", "code"), [("500", 3), ("401", 4), ("refusal", 3)])
def test_a_turn_that_fails_is_told_and_forgotten(chat: Chat, place: Workplace, fault: str, code: int) -> None:
    done = chat(f"[[fault:{fault}]]", "[[say:fine]]", **HELPED)
    assert (done.returncode, done.stdout) == (code, "fine\n")
    assert "error: " in done.stderr
    assert len(place.new_requests()[-1].body["messages"]) == 2


# --- commands ---------------------------------------------------------------------------------------------------


def test_spans_show_what_went_in_and_came_out(chat: Chat) -> None:
    done = chat("it is green", "/spans", target="twice")
    assert "    label (prompt)  default  " in done.stderr
    assert '      in:  {"ticket": "it is green"}' in done.stderr
    assert "      out: green" in done.stderr


def test_inputs_are_set_and_shown(chat: Chat, place: Workplace) -> None:
    done = chat("/inputs name=Bob", "/inputs", "hi", "/inputs nme=Eve", **HELPED)
    assert place.new_requests()[0].body["messages"][0]["content"] == "You help Bob."
    assert "  name = Bob\n  history is asked" in done.stderr
    assert "did you mean 'name'?" in done.stderr


def test_saved_turns_are_the_cases_of_a_dataset(chat: Chat, place: Workplace) -> None:
    file = "datasets/talks.jsonl"
    chat("[[say:One.]]", "[[fault:500]]", "[[say:Two.]]", f"/save {file}", **HELPED)
    place.write("datasets/talks.dataset.yaml", "inputs: {history: messages, name: string}\n")
    place.write("experiments/talks.experiment.yaml", "dataset: talks\nvariants: {plain: {prompt: help}}\n")
    assert check_workspace(place.workspace()) == []
    place.new_requests()
    run = place.run("talks").run
    assert (run.n_done, run.n_errors, place.new_requests()) == (2, 0, [])  # paid for in the chat
    cases = [json.loads(line) for line in (place.root / file).read_text().splitlines()]
    assert [len(case["inputs"]["history"]) for case in cases] == [1, 3]
    assert cases[1]["metadata"] == {"target": "help", "model": "default", "answer": "Two."}


def test_no_file_is_written_over(chat: Chat, place: Workplace) -> None:
    done = chat("red", "/save llmops.yaml", "/save", "/save no/such/folder", "/save ok.jsonl")
    assert "llmops.yaml is there already" in done.stderr
    assert "say where" in done.stderr
    assert "No such file" in done.stderr
    assert "1 case in ok.jsonl" in done.stderr
    assert "models" in (place.root / "llmops.yaml").read_text()


def test_help_names_every_command_and_a_slip_gets_the_nearest(chat: Chat) -> None:
    done = chat("/help", "/modle x", " /red", "/quit", "blue")
    for command in ("/reset", "/model NAME", "/inputs", "/fresh", "/spans", "/save FILE", "/quit"):
        assert command in done.stderr
    assert "did you mean '/model'?" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("target", "options", "said"),
    [
        ("experiments/sort", (), "a --chat is with a prompt or chain"),
        ("prompts/sort", ("--json",), "--json goes without --chat"),
        ("prompts/sort", ("--limit", "1"), "--limit belongs to an experiment"),
        ("prompts/none", (), "no prompt is called 'none'"),
        ("prompts/sort", ("--model", "nobody"), "no model 'nobody'"),
    ],
)
def test_what_cannot_be_talked_to_is_told(
    chat: Chat, target: str, options: tuple[str, ...], said: str
) -> None:
    done = chat("red", target=target, options=options)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_bytes_that_are_no_text_and_a_closed_input_end_no_chat(place: Workplace) -> None:
    place.write("lines", "")
    (place.root / "lines").write_bytes(b"red \xff\xfe\nblue")
    with (place.root / "lines").open() as lines:
        done = llmops("run", "prompts/sort", "--chat", cwd=place.root, more=place.environment, stdin=lines)
    assert (done.returncode, done.stdout) == (0, "red\nblue\n")


# --- what comes over the wire -----------------------------------------------------------------------------------

EVIL = "\x1b]0;owned\x07\x1b[2Jred\u202e \x1b[31m::set-env name=x::y \x9b6n"

texts = st.text(alphabet=st.sampled_from("ab \n\x1b[]0;\x07\u202e:#"), max_size=60)


@given(texts, st.lists(st.integers(0, 60), max_size=8))
def test_pieces_of_an_answer_are_as_harmless_as_the_whole(text: str, cuts: list[int]) -> None:
    shown: list[str] = []
    written = Written(shown.append)
    ends = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    for start, end in pairwise(ends):
        written.tell(text[start:end])
    written.finish(text)
    assert all(piece == printable(piece) for piece in shown)
    assert not set("\x1b\x07\u202e") & set("".join(shown))


def test_a_key_in_pieces_is_never_seen() -> None:
    register_environment({"MODEL_KEY": KEY}, ["MODEL_KEY"])
    shown: list[str] = []
    written = Written(shown.append)
    answer = f"your key is {KEY}, keep it"
    for letter in answer:
        written.tell(letter)
    written.finish(scrub(answer))
    assert "keep it\n" in "".join(shown)
    assert KEY[:8] not in "".join(shown)
    assert "".join(shown).count("your key is") == 1


def test_an_answer_after_a_try_that_failed_is_shown_whole() -> None:
    shown: list[str] = []
    written = Written(shown.append)
    written.tell("the answer is for")
    written.tell("the answer is forty two")
    written.finish("the answer is forty two")
    assert "".join(shown).splitlines()[-1] == "the answer is forty two"


def test_a_model_cannot_drive_the_terminal_of_a_pipe(chat: Chat) -> None:
    done = chat(f"[[say:{EVIL}]]", "/spans", **HELPED)
    assert not set("\x1b\x07\x9b\u202e") & set(done.stdout + done.stderr)
    assert "\n::" not in done.stdout


# --- in a terminal ----------------------------------------------------------------------------------------------


@pytest.fixture
def streaming(place: Workplace) -> Workplace:
    place.edit("llmops.yaml", "    model: m\n", "    model: m\n    stream: true\n")
    return place


def test_a_person_chats_in_a_terminal(streaming: Workplace) -> None:
    arguments = ("run", "help", "--chat", "--input", "name=Ada")
    with in_terminal(*arguments, cwd=streaming.root, more=streaming.environment) as terminal:
        assert "help on default; /help, Ctrl-D to end" in terminal.wait_for("you> ")
        terminal.type("[[say:Hello to you, Ada.]]")
        terminal.wait_for("\r\nHello to you, Ada.\r\n")
        terminal.wait_for("  help  default  ")
        terminal.wait_for("you> ")
        terminal.press("d")
        assert terminal.ended() == 0


def test_what_a_streaming_model_says_is_seen_once_and_without_sequences(streaming: Workplace) -> None:
    streaming.write(
        "prompts/evil.prompt.yaml",
        "inputs: {n: string}\nmessages:\n  - {role: user, content: "
        + json.dumps("{{ n }} [[say:" + EVIL + "]]")
        + "}\n",
    )
    with in_terminal("run", "evil", "--chat", cwd=streaming.root, more=streaming.environment) as terminal:
        terminal.wait_for("you> ")
        terminal.type("go")
        shown = terminal.wait_for("  evil  default")
        terminal.wait_for("you> ")
        terminal.press("d")
        assert terminal.ended() == 0
    assert shown.count("red") == 1
    assert not {"\x1b]0", "\x1b[2J", "\x1b[31m", "\x9b"} & {
        shown[at : at + n] for at in range(len(shown)) for n in (1, 3, 4, 5)
    }
    assert "\u202e" not in shown


def test_interrupting_ends_the_turn_and_twice_the_chat(place: Workplace) -> None:
    arguments = ("run", "help", "--chat", "--input", "name=Ada")
    with in_terminal(*arguments, cwd=place.root, more=place.environment) as terminal:
        terminal.wait_for("you> ")
        terminal.type("[[wait:60000]] slow")
        while not place.server.received:
            assert terminal.process.poll() is None
        terminal.press("c")
        terminal.wait_for("interrupted; once more")
        terminal.wait_for("you> ")
        terminal.type("[[say:Still here.]]")
        terminal.wait_for("Still here.\r\n")
        terminal.wait_for("you> ")
        terminal.interrupt_until("interrupted; once more")
        terminal.interrupt_until("never shown")
        assert terminal.ended() == 130
    assert "Traceback" not in terminal.shown
    assert (
        len(place.new_requests()[-1].body["messages"]) == 2
    )  # the turn that was ended is no part of the talk
