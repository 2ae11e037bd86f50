"""Where the files of a candidate differ from its baseline's: the lines that a reviewer is pointed to.

Texts are compared as they stand in the work tree and in git; a baseline that stands nowhere points to the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

from llmops.definitions.reference import parse_reference
from llmops.errors import LlmopsError
from llmops.records import Place, Variant

if TYPE_CHECKING:
    from llmops.definitions.reference import Kind
    from llmops.definitions.workspace import Workspace

_MOST_LINES = 5_000


def changed_places(workspace: Workspace, candidate: Variant, baseline: Variant | None) -> tuple[Place, ...]:
    """Return the first line that differs of each prompt and chain that does, prompts first."""
    if baseline is None or candidate.definition_identity == baseline.definition_identity:
        return ()
    return tuple(_places(workspace, candidate, baseline))


def _places(workspace: Workspace, candidate: Variant, baseline: Variant) -> Iterator[Place]:
    then = _tree_of(workspace, baseline)
    for name, identity in candidate.prompts.items():
        if baseline.prompts.get(name) != identity:
            yield _place(workspace, then, "prompt", name)
    if candidate.kind == "chain":
        name = candidate.definition.partition("/")[2]
        place = _place(workspace, then, "chain", name)
        if then is not workspace and place.line is not None:
            yield place


def _tree_of(workspace: Workspace, baseline: Variant) -> Workspace:
    """Return the files as they stood for the baseline; today's where nobody can tell any more."""
    try:
        reference = parse_reference(baseline.reference)
        text = (
            baseline.reference if reference.revision else f"{reference.name}@{baseline.definition_identity}"
        )
        kind: Kind = "chain" if baseline.kind == "chain" else "prompt"
        return workspace.resolve(kind, text).workspace
    except (LlmopsError, ValueError):
        return workspace


def _place(workspace: Workspace, then: Workspace, kind: Kind, name: str) -> Place:
    path = workspace.path(kind, name)
    try:
        now, before = workspace.tree.read(path), then.tree.read(path)
    except LlmopsError:
        return Place(path=path)
    if now is None or before is None or now == before:
        return Place(path=path)
    return Place(path=path, line=_first_change(before, now))


def _first_change(before: bytes, now: bytes) -> int | None:
    """Return the first line, from 1, that is not as it was; None where nobody would wait for the answer."""
    old, new = (text.decode("utf-8", "replace").splitlines() for text in (before, now))
    if max(len(old), len(new)) > _MOST_LINES:
        return None
    for tag, _, _, start, _ in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag != "equal":
            return min(start + 1, max(len(new), 1))
    return None
