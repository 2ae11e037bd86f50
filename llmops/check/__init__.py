"""Workspace -> findings: what is wrong with definitions, references, templates and data, before anything runs.

Reads files only. It needs no key, no model and no network, and it never executes the project's own Python.
Whatever can be found at once is told at once: one broken file hides no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial

from llmops.check.chains import check_chain
from llmops.check.datasets import check_dataset
from llmops.check.experiments import check_experiment, find_notes
from llmops.check.indexes import check_index, index_notes
from llmops.check.models import check_project
from llmops.check.prompts import check_prompt
from llmops.check.releases import check_releases
from llmops.definitions.base import is_name
from llmops.definitions.reference import FOLDERS, Kind
from llmops.definitions.release import PATH as RELEASES
from llmops.definitions.workspace import PROJECT_FILE, Workspace
from llmops.errors import DefinitionError, Finding, LlmopsError

_CHECKS: Mapping[Kind, Callable[[Workspace, str], list[Finding]]] = {
    "prompt": check_prompt,
    "chain": check_chain,
    "index": check_index,
    "dataset": check_dataset,
    "experiment": check_experiment,
}


def check_workspace(workspace: Workspace, targets: Sequence[tuple[Kind, str]] | None = None) -> list[Finding]:
    """Return every finding in the given definitions, or in the whole project, in the order of path and line."""
    found: list[Finding] = []
    if targets is None:
        found += _caught(PROJECT_FILE, lambda: check_project(workspace))
        found += _caught(RELEASES, lambda: check_releases(workspace))
        for kind, folder in FOLDERS.items():
            found += _caught(folder, partial(_check_kind, workspace, kind))
    else:
        found += _caught(PROJECT_FILE, lambda: _loads(workspace.project))
        found += _check_each(workspace, targets)
    return sorted(set(found), key=lambda each: (each.path, each.line or 0, each.column or 0, each.message))


def find_workspace_notes(
    workspace: Workspace, targets: Sequence[tuple[Kind, str]] | None = None
) -> Iterator[str]:
    """Yield what is no fault and yet good to know; of what is broken, the findings tell."""
    noted: Mapping[str, Callable[[Workspace, str], Iterable[str]]] = {
        "experiment": find_notes,
        "index": index_notes,
    }
    kinds: tuple[Kind, ...] = ("experiment", "index")
    wanted = [(kind, name) for kind in kinds for name in workspace.names(kind)]
    for kind, name in wanted if targets is None else targets:
        if kind in noted:
            with suppress(LlmopsError):
                yield from (f"{name}: {note}" for note in noted[kind](workspace, name))


def _check_kind(workspace: Workspace, kind: Kind) -> list[Finding]:
    """Return what is wrong in a kind's folder, with the files that no name leads to."""
    targets = [(kind, name) for name in workspace.names(kind) if is_name(name)]
    return [*_strays(workspace, kind), *_check_each(workspace, targets)]


def _check_each(workspace: Workspace, targets: Sequence[tuple[Kind, str]]) -> Iterator[Finding]:
    for kind, name in targets:
        yield from _caught(workspace.path(kind, name), partial(_CHECKS[kind], workspace, name))


def _caught(path: str, look: Callable[[], list[Finding]]) -> list[Finding]:
    """Turn what loading raises into findings, so that one broken file does not hide the others."""
    try:
        return look()
    except DefinitionError as error:
        return list(error.findings)
    except LlmopsError as error:
        return [Finding(path, None, None, str(error))]


def _loads(_: object) -> list[Finding]:
    """Say nothing of what could be loaded."""
    return []


def _strays(workspace: Workspace, kind: Kind) -> Iterator[Finding]:
    folder = FOLDERS[kind]
    for entry in workspace.tree.names(folder):
        path = f"{folder}/{entry}"
        if entry.endswith(f".{kind}.yaml"):
            if not is_name(entry.removesuffix(f".{kind}.yaml")):
                hint = "a name is letters, digits, '.', '_' and '-'"
                yield Finding(path, None, None, "no reference can lead to this file", hint)
        elif entry.endswith((".yaml", ".yml")):
            stem = entry.partition(".")[0] or "NAME"
            yield Finding(path, None, None, "this file is read by nobody", f"call it {stem}.{kind}.yaml")
