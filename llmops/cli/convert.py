"""`llmops convert`: other tools' files in and out, with what was kept, approximated and dropped."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llmops.cli.exits import Exit
from llmops.cli.session import Session, json_option, open_session, print_record, say
from llmops.definitions.reference import FOLDERS, Kind
from llmops.errors import UsageError

if TYPE_CHECKING:
    from llmops.convert import Conversion, Converted, Note

EXPORTS: Mapping[str, tuple[Kind, ...]] = {"promptfoo": ("experiment",), "mlflow": ("prompt", "chain")}
"""What is written for other tools, and from which kinds."""
_INDEX = re.compile(r"\[\d+\]")


@click.command("convert")
@click.argument("file")
@click.option("--from", "format_", metavar="FORMAT", help="Format of FILE, where the file does not tell.")
@click.option("--to", type=click.Choice(list(EXPORTS)), help="Write for another tool; FILE is ours.")
@click.option("--name", metavar="NAME", help="What is written is called so.")
@click.option("--force", is_flag=True, help="Overwrite files that are already there.")
@json_option
def command(
    file: str, format_: str | None, to: str | None, name: str | None, force: bool, as_json: bool
) -> int:
    """Convert FILE into definitions of this project: prompty, GitHub Models, promptfoo, prompt flow, OpenAI Evals.

    Says of every key of FILE, and of the files beside it that it names, whether it was kept, approximated or dropped.
    With --to, FILE is an experiment (promptfoo), or a prompt or chain (mlflow), and exports/NAME is written.
    """
    session = open_session()
    converted = _converted(session, file, format_, to, name)
    _write(session, converted, force=force)
    findings = [] if to else _findings(session, converted.record)
    if as_json:
        print_record(converted.record)
    else:
        _tell(converted.record)
    for finding in findings:
        say(finding)
    return Exit.WRONG if findings else Exit.DONE


def _converted(
    session: Session, file: str, format_: str | None, to: str | None, name: str | None
) -> Converted:
    if to is None:
        from llmops.convert import convert_file

        path = Path(file)
        if not path.is_file():
            raise UsageError(f"no file {file}")
        return convert_file(path, session.workspace.project, form=format_, name=name)
    if format_ is not None:
        raise UsageError(
            "--from is the format of another tool's file, and --to writes one from ours: give one"
        )
    from llmops.convert.exports import export

    kind, reference = session.target(file, EXPORTS[to])
    return export(to, session.workspace, kind, reference, name=name)


def _write(session: Session, converted: Converted, *, force: bool) -> None:
    """Write all files, or none where one of them is there already and nobody asked to overwrite it."""
    from llmops.cli.files import write_text
    from llmops.definitions.trees import WorkTree

    tree = WorkTree(session.root)
    places = {file: tree.inside(file) for file in converted.texts}
    for file, place in places.items():
        if place.is_dir():
            raise UsageError(f"{file} is a folder")
        if place.exists() and not force:
            raise UsageError(
                f"{file} is already there: --force overwrites it, --name NAME writes under another name"
            )
    for file, place in places.items():
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{file} cannot be written: {error.strerror}") from error
        write_text(place, converted.texts[file])


def _findings(session: Session, record: Conversion) -> list[str]:
    """Return what `llmops check` says of what was written: nothing, or the conversion is at fault."""
    from llmops.check import check_workspace

    targets: list[tuple[Kind, str]] = []
    for file in record.files:
        for kind, folder in FOLDERS.items():
            if file.startswith(f"{folder}/") and file.endswith(f".{kind}.yaml"):
                targets.append((kind, file.removeprefix(f"{folder}/").removesuffix(f".{kind}.yaml")))
    return [str(finding) for finding in check_workspace(session.workspace, targets)]


# --- text -------------------------------------------------------------------------------------------------------


def _tell(record: Conversion) -> None:
    from llmops.convert import Fate
    from llmops.report.texts import one_line, printable

    counts = ", ".join(f"{record.count(fate)} {fate}" for fate in Fate)
    click.echo(one_line(f"{record.source} ({record.format}): {counts}"))
    for fate in Fate:
        shown = [note for note in record.notes if note.fate is fate]
        if shown:
            click.echo(f"\n{fate}")
            for line in _lines(shown):
                click.echo(f"  {one_line(line)}")
    click.echo("\nwritten")
    for file in record.files:
        click.echo(f"  {file}")
    if record.models:
        from llmops.convert.yaml_writer import write_yaml

        click.echo("\nto add to llmops.yaml")
        for line in write_yaml({"models": record.models}).splitlines():
            click.echo(f"  {printable(line)}")
    if now := _next(record):
        click.echo(f"\nnow: {now}")


def _lines(notes: list[Note]) -> Iterator[str]:
    """Yield notes as `FILE:LINE KEY: how`, those that differ in the index of a list only told once."""
    groups: dict[tuple[str, str, str], list[Note]] = {}
    for note in notes:
        groups.setdefault((note.path, _INDEX.sub("[*]", note.key), note.how), []).append(note)
    for (_, key, how), same in groups.items():
        first = same[0]
        place = first.path if first.line is None else f"{first.path}:{first.line}"
        shown = f"{key} ({len(same)}x)" if len(same) > 1 else first.key
        yield f"{place} {shown}: {how}"


def _next(record: Conversion) -> str | None:
    """Return what can be done at once with what was written."""
    kinds: tuple[Kind, ...] = ("experiment", "chain", "prompt")
    for kind in kinds:
        for file in record.files:
            if file.endswith(f".{kind}.yaml") and file.startswith(FOLDERS[kind]):
                verb = "run" if kind == "experiment" else "check"
                return f"llmops {verb} {file.removesuffix(f'.{kind}.yaml')}"
    return "python " + record.files[0] if record.format == "mlflow" else None
