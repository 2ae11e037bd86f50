"""`llmops init`: start a project that runs at once."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import click

from llmops.cli.exits import Exit
from llmops.cli.session import json_option, print_record, say
from llmops.errors import UsageError

IGNORED = ".gitignore"
RENAMED = {"gitignore": IGNORED}
"""A file of that name in the package itself would hide its neighbours from git and from the wheel."""


@click.command("init")
@click.argument("directory", default=".", type=click.Path(file_okay=False, path_type=Path))
@json_option
def command(directory: Path, as_json: bool) -> int:
    """Start a project in DIRECTORY: a prompt, a chain, a dataset and an experiment that run at once.

    Files that are already there are never overwritten: then nothing is written at all.
    """
    starter = dict(_starter(files("llmops.cli").joinpath("starter")))
    missing = _unignored(directory / IGNORED, starter)
    if (directory / IGNORED).exists():
        del starter[IGNORED]
    _refuse_to_overwrite(directory, starter)
    for name, data in starter.items():
        _write(directory / name, data)
    for line in missing:
        say(f"note: add {line} to {directory / IGNORED}")
    if as_json:
        print_record({"directory": str(directory), "written": list(starter)})
        return Exit.DONE
    for name in starter:
        click.echo(f"  {directory / name}")
    where = "" if directory == Path() else f"cd {shlex.quote(str(directory))} && "
    click.echo(f"now: {where}llmops run review_mood")
    return Exit.DONE


def _starter(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, bytes]]:
    """Yield the path and the bytes of every file of the starter project."""
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            if entry.name != "__pycache__":
                yield from _starter(entry, f"{prefix}{entry.name}/")
        else:
            yield prefix + RENAMED.get(entry.name, entry.name), entry.read_bytes()


def _unignored(path: Path, starter: Mapping[str, bytes]) -> list[str]:
    """Return what a `.gitignore` that is already there lacks: keys must not be committed unawares."""
    if not path.is_file():
        return []
    known = {
        line.strip().strip("/") for line in path.read_text(encoding="utf-8", errors="replace").split("\n")
    }
    return [line for line in starter[IGNORED].decode().split() if line.strip("/") not in known]


def _refuse_to_overwrite(directory: Path, names: Mapping[str, bytes]) -> None:
    for name in names:
        path = directory / name
        folders = (
            folder for folder in path.parents if folder != directory and folder.is_relative_to(directory)
        )
        found = next((place for place in (path, *folders) if _is_taken(place, is_folder=place != path)), None)
        if found is not None:
            raise UsageError(f"{found} is already there; llmops init overwrites nothing")


def _is_taken(place: Path, *, is_folder: bool) -> bool:
    return (place.exists() or place.is_symlink()) and not (is_folder and place.is_dir())


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise UsageError(
            f"{error.filename}: {error.strerror}; llmops init needs a folder it can write"
        ) from error
