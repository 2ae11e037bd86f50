"""The file of releases: every line as it was written, and nothing less than what git has of it."""

from __future__ import annotations

from contextlib import suppress

from llmops.definitions.release import PATH
from llmops.definitions.workspace import Workspace
from llmops.errors import DefinitionError, Finding, UsageError


def check_releases(workspace: Workspace) -> list[Finding]:
    """Return where the file of releases is not as it was written or committed; nothing where there is none.

    The chain of hashes finds what was changed inside; that its last lines are gone, or that all of it was written
    anew, only git can tell.
    """
    try:
        workspace.releases  # noqa: B018 - reading is the check
    except DefinitionError as error:
        return list(error.findings)
    with suppress(UsageError):  # no git, no repository, or no commit yet
        committed = workspace.at("HEAD").tree.read(PATH) or b""
        data = workspace.tree.read(PATH) or b""
        if not data.startswith(committed):
            line = _first_difference(committed, data)
            message = (
                "this line is not the one that is committed: releases are added, never changed or removed"
            )
            return [Finding(PATH, line, None, message, f"`git diff {PATH}` shows it")]
    return []


def _first_difference(committed: bytes, data: bytes) -> int:
    """Return the first line, from 1, in which the file is other than what is committed."""
    pairs = zip(committed.split(b"\n"), data.split(b"\n"), strict=False)
    same = 0
    for one, other in pairs:
        if one != other:
            break
        same += 1
    return same + 1
