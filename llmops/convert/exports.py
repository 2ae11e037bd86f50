"""Definitions as other tools' files: which there are, and what of ours was kept, approximated and dropped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module

from llmops.convert import Conversion, Converted
from llmops.convert.account import Page
from llmops.convert.names import file_name
from llmops.definitions.base import is_name
from llmops.definitions.reference import Kind
from llmops.definitions.workspace import Workspace, read_reference
from llmops.errors import UsageError

EXPORTS: Mapping[str, str] = {
    "mlflow": "llmops.convert.to_mlflow",
    "promptfoo": "llmops.convert.to_promptfoo",
}
FOLDER = "exports"

Export = Callable[[Workspace, Kind, str], tuple[dict[str, str], list[Page]]]
"""Files below a folder of their own, and the pages of the definitions that they come from."""


def export(
    to: str, workspace: Workspace, kind: Kind, reference: str, *, name: str | None = None
) -> Converted:
    """Return a definition as another tool's files, below `exports/NAME`.

    Raises UsageError for a version other than the work tree's, and for what has no counterpart at all.
    """
    target = read_reference(reference)
    if str(target) != target.name:
        raise UsageError(
            f"{reference}: what stands in the work tree is exported; write the name without @ or /"
        )
    if name is not None and not is_name(name):
        raise UsageError(f"{name!r} is no name: letters, digits, _ . and -")
    write: Export = import_module(EXPORTS[to]).export
    files, pages = write(workspace, kind, target.name)
    folder = f"{FOLDER}/{name or file_name(target.name)}"
    texts = {f"{folder}/{file}": text for file, text in files.items()}
    record = Conversion(
        format=to,
        source=workspace.path(kind, target.name),
        name=target.name,
        files=tuple(sorted(texts)),
        models={},
        notes=tuple(note for page in pages for note in page.notes()),
    )
    return Converted(record, texts)
