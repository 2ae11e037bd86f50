"""Other tools' files <-> definitions: what is kept, approximated and dropped is told key by key.

Reads one file and what it names beside it, runs nothing in it, and returns the files to write. Writing them is left to
whoever asks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from llmops.convert.account import Fate, Note
from llmops.convert.folder import Folder
from llmops.convert.job import Job
from llmops.convert.names import file_name
from llmops.definitions.base import Definition, is_name
from llmops.definitions.project import Project
from llmops.definitions.yaml_reader import read_yaml
from llmops.errors import UsageError, nearest
from llmops.secrets import scrub, scrub_data

__all__ = ["FORMATS", "Conversion", "Converted", "Fate", "Note", "convert_file", "recognise"]

FORMATS: Mapping[str, str] = {
    "github": "llmops.convert.github",
    "openai-evals": "llmops.convert.openai_evals",
    "promptflow": "llmops.convert.promptflow",
    "promptfoo": "llmops.convert.promptfoo",
    "prompty": "llmops.convert.prompty",
}
"""Formats that are read, and the module that reads each."""
_GENERAL = frozenset({"promptfooconfig", "flow", "flow.dag", "samples", "config"})
"""Names of files that say nothing; then the folder's name is taken."""
_ENDINGS = (
    ".prompt.yaml",
    ".prompt.yml",
    ".prompty",
    ".dag.yaml",
    ".dag.yml",
    ".yaml",
    ".yml",
    ".jsonl",
    ".json",
)


class Conversion(Definition):
    """What a conversion came to. format: read or written. files: paths below the project, in order.

    models: blocks that llmops.yaml lacks, by name. notes: what became of every leaf of every file that was read.
    """

    format: str
    source: str
    name: str
    files: tuple[str, ...]
    models: dict[str, Any]
    notes: tuple[Note, ...]

    def count(self, fate: Fate) -> int:
        """Return how many leaves had a fate."""
        return sum(note.fate is fate for note in self.notes)


@dataclass(frozen=True)
class Converted:
    """A conversion and the text of each of its files."""

    record: Conversion
    texts: Mapping[str, str]


def convert_file(
    path: Path, project: Project, *, form: str | None = None, name: str | None = None
) -> Converted:
    """Return what another tool's file comes to in a project.

    form: one of FORMATS; by default the file tells. name: what is written is called; by default the file's own.

    Raises UsageError for a file that cannot be read or is of no known format, DefinitionError with the line for one
    that is broken or has no counterpart at all.
    """
    if name is not None and not is_name(name):
        raise UsageError(f"{name!r} is no name: letters, digits, _ . and -")
    shown = path.parent.as_posix()
    folder = Folder(path.parent, "" if shown == "." else shown)
    found = form or recognise(folder, path.name)
    if found not in FORMATS:
        hint = nearest(found, FORMATS) or f"known: {', '.join(FORMATS)}"
        raise UsageError(f"no format is called {found!r}; {hint}")
    job = Job(folder, path.name, name or _name(path), project, is_named=name is not None)
    convert: Callable[[Job], None] = import_module(FORMATS[found]).convert
    convert(job)
    notes = [note for page in job.pages for note in page.notes()]
    record = Conversion(
        format=found,
        source=path.as_posix(),
        name=job.name,
        files=tuple(sorted(job.files)),
        models=scrub_data(job.models),
        notes=tuple(
            note.model_copy(update={"key": scrub(note.key), "how": scrub(note.how)}) for note in notes
        ),
    )
    return Converted(record, {file: scrub(text) for file, text in job.files.items()})


def _name(path: Path) -> str:
    """Return the name that a file gives to what is made of it."""
    stem = path.name
    for ending in _ENDINGS:
        if stem.lower().endswith(ending):
            stem = stem[: -len(ending)]
            break
    if stem.lower() in _GENERAL:
        stem = path.resolve().parent.name
    return file_name(stem)


def recognise(folder: Folder, name: str) -> str:
    """Return the format of a file, by its name and its keys (UsageError where it is none)."""
    if name.endswith(".prompty"):
        return "prompty"
    if name.endswith(".jsonl"):
        return "openai-evals"
    if not name.endswith((".yaml", ".yml", ".json")):
        raise UsageError(
            f"{folder.path(name)}: {', '.join(FORMATS)} are read, and by its name this is none of them"
        )
    value = read_yaml(folder.read(name), folder.path(name)).value
    keys = set(value) if isinstance(value, dict) else set()
    if isinstance(value, dict) and any(
        isinstance(v, dict) and "evals." in str(v.get("class")) for v in value.values()
    ):
        return "openai-evals"
    for form, needed in (("promptflow", {"nodes"}), ("promptfoo", {"prompts"}), ("github", {"messages"})):
        if needed <= keys:
            return form
    raise UsageError(f"{folder.path(name)}: no file of {', '.join(FORMATS)}; --from FORMAT says which it is")
