"""`llmops render`: show the messages a prompt becomes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from llmops.cli.exits import Exit
from llmops.cli.session import Session, complete_names, json_option, open_session, print_record
from llmops.definitions.dataset import Case
from llmops.definitions.images import described_url, without_images
from llmops.definitions.schemas import InputTypes, schema_of
from llmops.errors import UsageError, nearest
from llmops.records import ImagePart, Message


@click.command("render")
@click.argument("prompt", shell_complete=complete_names("prompt"))
@click.option("--input", "inputs", multiple=True, metavar="K=V", help="An input by name; @FILE reads a file.")
@click.option("--case", "case", metavar="DATASET:ID", help="Take the inputs of a case.")
@click.option("--set", "paths", multiple=True, metavar="PATH=V", help="As in a variant: examples.k=0.")
@json_option
def command(
    prompt: str, inputs: tuple[str, ...], case: str | None, paths: tuple[str, ...], as_json: bool
) -> int:
    """Show the messages that PROMPT becomes for given inputs or a case, with a token estimate."""
    from llmops.models.tokens import estimate_input_tokens
    from llmops.report.texts import printable
    from llmops.steps import open_program
    from llmops.steps.overrides import Overrides
    from llmops.steps.prompt import PromptProgram

    session = open_session()
    _, name = session.target(prompt, ("prompt",))
    overrides = Overrides(paths=read_paths(paths))
    program = open_program(session.workspace.resolve("prompt", name), overrides, seed=0)
    assert isinstance(program, PromptProgram)  # noqa: S101 - the kind was asked for
    found = find_case(session, case) if case else None
    declared = program.renderer.prompt.inputs
    values = {**(found.inputs if found else {}), **given_inputs(session, inputs, declared)}
    _refuse_missing(prompt, declared, values)
    messages = program.renderer.messages(
        values, case_id=found.id if found else None, cluster=found.cluster if found else None
    )
    tokens = estimate_input_tokens(messages)
    if as_json:
        print_record(
            {
                "messages": [
                    without_images(message.model_dump(exclude_defaults=True)) for message in messages
                ],
                "estimated_tokens": tokens,
            }
        )
        return Exit.DONE
    for message in messages:
        click.echo(f"--- {message.role}")
        click.echo(printable(_shown(message)))
    click.echo(f"--- about {tokens:,} tokens in {len(messages)} messages")
    return Exit.DONE


def _shown(message: Message) -> str:
    """Return the text of a message, with words where an image stands."""
    if isinstance(message.content, str):
        return message.content
    return "\n".join(
        described_url(part.image) if isinstance(part, ImagePart) else part.text for part in message.content
    )


def given_inputs(session: Session, pairs: tuple[str, ...], declared: InputTypes) -> dict[str, Any]:
    """Return inputs given as K=V, as a case would hold them; errors as for `read_inputs`.

    An image is a file of the project, seen from the working directory, or a data URL.
    """
    values = read_inputs(pairs, declared)
    for name in values:
        if declared[name] == "image":
            path = _in_project(values[name], session.root)
            values[name] = session.workspace.images.look_at(path).value()
    return values


def read_inputs(pairs: tuple[str, ...], declared: InputTypes) -> dict[str, Any]:
    """Return inputs given as K=V, each as its declared type: text as it is, anything else as JSON.

    Raises UsageError for a name that is not declared or a value that does not fit.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        name, text = _pair(pair)
        if name not in declared:
            hint = nearest(name, declared) or f"inputs: {', '.join(declared) or 'none'}"
            raise UsageError(f"no input is called {name!r}; {hint}")
        if text.startswith("@"):
            text = _read(text[1:])
        values[name] = text if schema_of(declared[name]).get("type") == "string" else _json(name, text)
    return values


def _in_project(text: str, root: Path) -> str:
    """Return a path as seen from the project's root; a data URL, and what leads elsewhere, as it is."""
    full = Path.cwd() / text
    return full.relative_to(root).as_posix() if full.is_relative_to(root) and ":" not in text[:12] else text


def _read(path: str) -> str:
    try:
        with click.open_file(path, encoding="utf-8") as stream:
            return str(stream.read())
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: byte {error.start} is not UTF-8") from error


def _refuse_missing(prompt: str, declared: InputTypes, values: Mapping[str, Any]) -> None:
    missing = [name for name in declared if name not in values]
    if missing:
        wanted = " ".join(f"--input {name}=..." for name in missing)
        raise UsageError(f"{prompt} needs {wanted}, or --case DATASET:ID")


def read_paths(pairs: tuple[str, ...]) -> dict[str, Any]:
    """Return `set` paths given as PATH=V; a value that is JSON is taken as such, anything else as text."""
    paths: dict[str, Any] = {}
    for pair in pairs:
        name, text = _pair(pair)
        try:
            paths[name] = json.loads(text)
        except (ValueError, RecursionError):
            paths[name] = text
    return paths


def _json(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"input {name!r} is not text, so its value is JSON: {error}") from error


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"{text!r}: write NAME=VALUE")
    return name, value


def find_case(session: Session, text: str) -> Case:
    """Return the case that DATASET:ID names; an id may hold colons, and so may DATASET as NAME@git:REV.

    Raises UsageError when there is none.
    """
    reference, colon, case_id = text.partition(":")
    if colon and reference.endswith("@git"):
        revision, colon, case_id = case_id.partition(":")
        reference = f"{reference}:{revision}"
    if not colon:
        raise UsageError(f"{text!r}: write DATASET:ID")
    dataset, split = session.workspace.cases(reference)
    for case in dataset.of(split):
        if case.id == case_id:
            return case
    hint = nearest(case_id, (case.id for case in dataset.of(split)))
    raise UsageError(f"{reference} has no case {case_id!r}" + (f"; {hint}" if hint else ""))
