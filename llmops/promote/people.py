"""Who changed a definition, by git, and who approves it: two people, where the project asks for that."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from llmops.definitions.flat_files import SUFFIXES
from llmops.definitions.index import folder_of
from llmops.definitions.reference import FOLDERS, parse_reference
from llmops.definitions.trees import git, shallow_note
from llmops.errors import EvidenceError, UsageError
from llmops.indexes.snapshots import indexes_used

if TYPE_CHECKING:
    from pathlib import Path

    from llmops.definitions.workspace import Resolved
    from llmops.records import Variant

_PERSON = re.compile(r"(?P<name>[^<>]*)<(?P<address>[^<>@]*)(?:@[^<>]*)?>")
_NUMBER = re.compile(r"^\d+\+")
"""What GitHub puts before the name in an address that hides the real one."""


def find_approver(root: Path, given: str | None) -> str:
    """Return who approves: whom the command names, else who git says we are.

    Raises UsageError when nobody is named and git does not know.
    """
    if given is not None and given.strip():
        return given.strip()
    try:
        identity = git(root, "var", "GIT_COMMITTER_IDENT").decode(errors="replace")
    except UsageError as error:
        raise UsageError(f"who approves? --approver NAME, or tell git: {error}") from error
    return identity.rpartition(" ")[0].rpartition(" ")[0]  # without the time


def find_authors(root: Path, paths: Sequence[str], since: str | None) -> list[str]:
    """Return who changed files after a commit, the last one first; where nobody did, who changed them last."""
    told = ["log", "--format=%aN <%aE>"]
    found: list[str] = []
    if since is not None:
        try:
            found = git(root, *told, f"{since}..HEAD", "--", *paths).decode(errors="replace").splitlines()
        except UsageError:  # the commit is gone, after a rebase for one
            found = git(root, *told, "--", *paths).decode(errors="replace").splitlines()
    if not found:
        found = git(root, *told, "--max-count=1", "--", *paths).decode(errors="replace").splitlines()
    return list(dict.fromkeys(found))


def source_paths(resolved: Resolved, variant: Variant) -> list[str]:
    """Return the files a variant is made of.

    A chain's is its whole folder, because any code there may be in it, and those in which its indexes look.
    """
    workspace = resolved.workspace
    paths = [
        workspace.path(resolved.kind, resolved.name),
        *(workspace.path("prompt", p) for p in variant.prompts),
    ]
    if resolved.kind == "chain":
        paths.append(FOLDERS["chain"])
        paths += [
            folder_of(glob) or "."
            for index in sorted(indexes_used(workspace, "chain", resolved.name))
            for source in workspace.index(index).sources
            for glob in source.globs
        ]
    for name in variant.prompts:
        if name in workspace.names("prompt") and (examples := workspace.prompt(name).examples) is not None:
            dataset = parse_reference(examples.source).name
            folder = FOLDERS["dataset"]
            paths += [workspace.path("dataset", dataset), *(f"{folder}/{dataset}{each}" for each in SUFFIXES)]
    return list(dict.fromkeys(paths))


def refuse_own_approval(root: Path, authors: Sequence[str], approver: str) -> None:
    """Raise EvidenceError where an author approves; UsageError where git's history is too short to say."""
    if note := shallow_note(root):
        raise UsageError(f"separation of duties needs to know who changed what; {note}")
    for author in authors:
        if is_same_person(author, approver):
            raise EvidenceError(
                f"{approver} cannot approve: {author} changed it, and llmops.yaml asks for separation of duties; "
                "let somebody else promote it, or name who approved: --approver"
            )


def is_same_person(one: str, other: str) -> bool:
    """Say whether two may be one person: by name, address, or the name before the @; in doubt they are."""
    return bool(set(_handles(one)) & set(_handles(other)))


def _handles(person: str) -> Iterator[str]:
    """Yield by what somebody may be known: `Ann Lee <7+ann@users.noreply.github.com>` is ann too."""
    person = person.strip().casefold()
    found = _PERSON.fullmatch(person)
    names = [found["name"], found["address"]] if found else [person.lstrip("@").partition("@")[0]]
    for name in names:
        if handle := _NUMBER.sub("", name.strip()).partition("+")[0]:
            yield handle
