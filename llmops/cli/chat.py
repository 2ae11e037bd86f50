"""`llmops run TARGET --chat`: talk to a prompt or chain, line by line, and see the steps of each turn.

Answers go to standard output, all else to standard error. A turn is carried out, journalled and paid for as any other
call is; nothing a model says reaches the terminal but as plain text.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from io import StringIO, TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO
from uuid import uuid4

import click

from llmops.cli.exits import Exit, exit_of
from llmops.cli.render import given_inputs
from llmops.cli.session import Session, say, steady_clock, utc_now
from llmops.definitions.images import is_image
from llmops.definitions.schemas import InputTypes, schema_of
from llmops.errors import LlmopsError, UsageError, nearest
from llmops.records import Output, Status
from llmops.report.texts import printable
from llmops.report.turns import step_lines, turn_lines
from llmops.secrets import scrub

if TYPE_CHECKING:
    from llmops.definitions.workspace import Resolved
    from llmops.steps.base import Program

COMMANDS = {
    "/reset": "forget what was said",
    "/model NAME": "ask another model of llmops.yaml",
    "/inputs K=V": "set an input; alone, show those that are set",
    "/fresh": "pay for the next answer again",
    "/spans": "show the last turn's steps with what went in and came out",
    "/save FILE": "write the turns as cases, one JSON object a line",
    "/quit": "end the chat, as Ctrl-D does",
}
PROMPT = "you> "


@dataclass(frozen=True)
class Turn:
    """What was asked, with all inputs as a case would hold them, and what came of it."""

    inputs: Mapping[str, Any]
    output: Output
    model: str | None


@dataclass
class Chat:
    """One chat with a version of a prompt or chain. given: the inputs that no line asks for.

    is_fresh: every answer is paid for anew; is_next_fresh: the next one.
    """

    session: Session
    resolved: Resolved
    paths: Mapping[str, Any]
    model: str | None = None
    given: dict[str, Any] = field(default_factory=dict)
    is_fresh: bool = False
    is_next_fresh: bool = False
    history: list[dict[str, str]] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)

    @property
    def declared(self) -> InputTypes:
        """The inputs that the prompt or chain takes."""
        definition = getattr(self.resolved.workspace, self.resolved.kind)(self.resolved.name)
        inputs: InputTypes = definition.inputs
        return inputs

    @property
    def conversation(self) -> str | None:
        """The input that gets what was said before, if there is one."""
        return next(
            (name for name, kind in self.declared.items() if kind == "messages" and name not in self.given),
            None,
        )

    @property
    def asked(self) -> str | None:
        """The input that a line is; None where it is the last message of the conversation.

        Raises UsageError when it could be several, or nothing is left to ask.
        """
        free = [name for name in self.declared if name not in self.given and name != self.conversation]
        if len(free) > 1:
            wanted = " ".join(f"--input {name}=..." for name in free)
            raise UsageError(
                f"a line is one input, and {self.resolved.name} takes {len(free)}: give all but one of {wanted}"
            )
        if not free and self.conversation is None:
            raise UsageError(f"{self.resolved.name} has no input left that a line could be")
        return free[0] if free else None

    def open(self) -> Program:
        """Return what is talked to, with the model of now. Raises as `open_program` does."""
        from llmops.steps import open_program
        from llmops.steps.overrides import Overrides

        return open_program(self.resolved, Overrides(model=self.model, paths=self.paths), seed=0)

    def inputs_for(self, line: str) -> dict[str, Any]:
        """Return all inputs of a turn (UsageError for a line that is none of its type)."""
        inputs, asked = dict(self.given), self.asked
        if asked is not None:
            is_text = (
                schema_of(self.declared[asked]).get("type") == "string" and self.declared[asked] != "image"
            )
            inputs[asked] = (
                line if is_text else given_inputs(self.session, (f"{asked}={line}",), self.declared)[asked]
            )
        if self.conversation is not None:
            last = [{"role": "user", "content": line}] if asked is None else []
            inputs[self.conversation] = [*self.history, *last]
        return inputs

    def note(self, line: str, turn: Turn) -> None:
        """Remember a turn; only one that was answered becomes part of the conversation."""
        self.turns.append(turn)
        output = turn.output
        if output.error is None:
            answer = {"role": "assistant", "content": answer_of(output)}
            self.history += [{"role": "user", "content": line}, answer]

    def cases(self) -> list[dict[str, Any]]:
        """Return the turns as cases; what was answered is metadata, since nobody has said that it is right."""
        return [
            {
                "id": f"chat-{number}",
                "inputs": {name: self._written(value) for name, value in turn.inputs.items()},
                "metadata": {"target": self.resolved.name, "model": turn.model, "answer": turn.output.value},
            }
            for number, turn in enumerate(self.turns, 1)
            if turn.output.error is None
        ]

    def _written(self, value: Any) -> Any:
        """Return an input as a dataset's file has it: an image by where it stands."""
        if not is_image(value):
            return value
        inside = value["image"].removeprefix("datasets/")
        return inside if inside != value["image"] else self.session.workspace.images.data_url(value)


def answer_of(output: Output) -> str:
    """Return what was answered, as text."""
    value = output.value
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)


class Written:
    """An answer on its way to the terminal, a word at a time, so that no key and no sequence is seen in halves."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._heard = ""
        self._n_shown = 0

    def tell(self, text: str) -> None:
        """Show what has come, but for a last word that may go on."""
        self._heard += text
        end = max(self._heard.rfind(" "), self._heard.rfind("\n")) + 1
        if end > self._n_shown:
            self._write(printable(scrub(self._heard[self._n_shown : end])))
            self._n_shown = end

    def finish(self, answer: str) -> None:
        """Show what is left of an answer; all of it where what came was another, as after a try that failed."""
        if scrub(self._heard) == answer and self._n_shown:
            answer = scrub(self._heard[self._n_shown :])
        else:
            self.break_off()
        self._write(printable(answer) + "\n")

    def break_off(self) -> None:
        """End the line that is being written."""
        if self._n_shown:
            self._write("\n")


# --- the loop -----------------------------------------------------------------------------------------------


def chat(
    session: Session,
    resolved: Resolved,
    paths: Mapping[str, Any],
    inputs: tuple[str, ...],
    *,
    model: str | None,
    is_fresh: bool,
) -> int:
    """Talk until the input ends, and return the exit code: from a pipe, that of the worst turn.

    Raises UsageError where it is not clear which input a line is, and what opening the prompt or chain raises.
    """
    talk = Chat(session, resolved, paths, model, is_fresh=is_fresh)
    talk.given = given_inputs(session, inputs, talk.declared)
    talk.open()
    _ = talk.asked
    is_terminal = sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
    return _in_terminal(talk) if is_terminal else _from_pipe(talk)


def _from_pipe(talk: Chat) -> int:
    code: int = Exit.DONE
    for line in _lines():
        if _is_end(line):
            break
        try:
            code = max(code, _take(talk, line.strip()))
        except LlmopsError as error:
            say(_told(error))
            code = max(code, exit_of(error))
    return code


def _lines() -> TextIO:
    """Return standard input as text, in which bytes that are no UTF-8 become U+FFFD."""
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="replace")
    return sys.stdin or StringIO()  # None where it was closed


def _in_terminal(talk: Chat) -> int:
    """Ctrl-C ends a turn, once more with no line in between the chat; Ctrl-D ends it at once."""
    _edit_lines()
    say(f"{talk.resolved.name} on {', '.join(talk.open().models) or 'no model'}; /help, Ctrl-D to end")
    was_interrupted = False
    while True:
        try:
            line = input(PROMPT)
            was_interrupted = False
            if _is_end(line):
                return Exit.DONE
            _take(talk, line.strip())
        except EOFError:
            click.echo()
            return Exit.DONE
        except KeyboardInterrupt:
            click.echo()
            if was_interrupted:
                return Exit.INTERRUPTED
            was_interrupted = True
            say("(interrupted; once more, or Ctrl-D, ends the chat)")
        except UnicodeDecodeError:
            say("error: that line is not UTF-8")
        except LlmopsError as error:
            say(_told(error))


def _edit_lines() -> None:
    """Let lines be edited and called back where Python can; `input` looks for it by itself."""
    from contextlib import suppress

    with suppress(ImportError):
        import readline  # noqa: F401 - imported for what it does to `input`


def _is_end(line: str) -> bool:
    return line.strip() in {"/quit", "/exit"}


def _told(error: LlmopsError) -> str:
    return printable(scrub(f"error: {error}"))


def _take(talk: Chat, line: str) -> int:
    """Obey a command, or ask, and return an exit code. Raises LlmopsError for what cannot be done."""
    if not line:
        return Exit.DONE
    if line.startswith("/"):
        _obey(talk, *line.partition(" ")[::2])
        return Exit.DONE
    return _ask(talk, line)


def _ask(talk: Chat, line: str) -> int:
    inputs = talk.inputs_for(line)
    program = talk.open()
    is_live = sys.stdout.isatty() and _is_streamed(program)
    written = Written(_write)
    try:
        output, n_sent = _carried_out(talk, program, inputs, written.tell if is_live else None)
    except BaseException:
        written.break_off()
        raise
    talk.note(line, Turn(inputs, output, next(iter(program.models), None)))
    talk.is_next_fresh = False
    if output.error is None:
        written.finish(answer_of(output))
    else:
        written.break_off()
        say(printable(f"error: {output.error.kind}: {output.error.message}"))
    for told in turn_lines(output, n_sent):
        say(told)
    return _code_of(output)


def _code_of(output: Output) -> int:
    if output.error is None:
        return Exit.DONE
    return Exit.WRONG if output.status is Status.CRASHED else Exit.INCOMPLETE


def _carried_out(
    talk: Chat, program: Program, inputs: Mapping[str, Any], tell: Callable[[str], None] | None
) -> tuple[Output, int]:
    """Return the output, and how many requests it took. The journal is held for this turn alone."""
    from llmops.call.carrying import Settings
    from llmops.models.live import watching
    from llmops.run import run_once

    session, owner = talk.session, f"chat-{uuid4().hex}"
    settings = Settings(session.environment, steady_clock())
    is_fresh = talk.is_fresh or talk.is_next_fresh
    number = int(utc_now().timestamp() * 1e6) if is_fresh else 0
    with closing(session.journal()) as journal, journal.hold(owner):
        with nullcontext() if tell is None else watching(tell):
            output = asyncio.run(
                run_once(session.workspace, program, inputs, journal, settings, fresh=number)
            )
        spent = journal.account(owner)
    return output, 0 if spent is None else spent.n_calls


def _is_streamed(program: Program) -> bool:
    """Say whether what a model says is the answer as it is: that of one prompt, of text."""
    from llmops.steps.prompt import PromptProgram

    if not isinstance(program, PromptProgram):
        return False
    schema = program.renderer.prompt.response_format
    return schema is None or schema.get("type") == "string"


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


# --- commands -----------------------------------------------------------------------------------------------


def _obey(talk: Chat, command: str, rest: str) -> None:
    obeyed: Mapping[str, Callable[[Chat, str], None]] = {
        "/help": _help,
        "/reset": _reset,
        "/model": _model,
        "/inputs": _inputs,
        "/fresh": _fresh,
        "/spans": _spans,
        "/save": _save,
    }
    if command not in obeyed:
        hint = nearest(command, obeyed) or "see /help; a line that begins with / and a space is asked"
        raise UsageError(f"no command is called {command}; {hint}")
    obeyed[command](talk, rest.strip())


def _help(_talk: Chat, _: str) -> None:
    for command, says in COMMANDS.items():
        say(f"  {command:<14}{says}")


def _reset(talk: Chat, _: str) -> None:
    talk.history.clear()
    say("forgotten")


def _model(talk: Chat, name: str) -> None:
    if name:
        before, talk.model = talk.model, name
        try:
            talk.open()
        except LlmopsError:
            talk.model = before
            raise
    say(f"model {', '.join(talk.open().models) or 'none'}")


def _inputs(talk: Chat, pair: str) -> None:
    from llmops.report.texts import value_text

    if pair:
        before = dict(talk.given)
        talk.given |= given_inputs(talk.session, (pair,), talk.declared)
        try:
            _ = talk.asked
        except LlmopsError:
            talk.given = before
            raise
    for name, value in talk.given.items():
        say(f"  {name} = {value_text(value)}")
    say(f"  {talk.asked or talk.conversation} is asked")


def _fresh(talk: Chat, _: str) -> None:
    talk.is_next_fresh = True
    say("the next answer is paid for again")


def _spans(talk: Chat, _: str) -> None:
    if not talk.turns:
        raise UsageError("nothing has been asked yet")
    for told in step_lines(talk.turns[-1].output):
        say(told)


def _save(talk: Chat, name: str) -> None:
    if not name:
        raise UsageError("say where: /save FILE.jsonl")
    cases = talk.cases()
    lines = (scrub(json.dumps(case, ensure_ascii=False, allow_nan=False)) + "\n" for case in cases)
    try:
        with Path(name).open("x", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(lines)
    except FileExistsError:
        raise UsageError(f"{name} is there already; save under another name") from None
    except OSError as error:
        raise UsageError(f"{name} cannot be written: {error.strerror}") from error
    say(f"{len(cases)} case{'' if len(cases) == 1 else 's'} in {name}")
