"""The file of releases, written: whole or not at all, by one process at a time, and only onto what its writer has read.

What a line says, and that it was never changed, is left to `definitions/release.py`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from llmops.definitions.release import PATH
from llmops.errors import StoreError, StoreHeldError
from llmops.stores.sqlite import hold_file

if TYPE_CHECKING:
    from llmops.definitions.workspace import Workspace


def replace_releases(workspace: Workspace, before: bytes, after: bytes) -> None:
    """Put the longer file in the place of what was read; whoever reads meanwhile sees the one or the other.

    Raises StoreHeldError when another promotion is at work or was quicker, StoreError when it cannot be written.
    """
    held = workspace.root / ".llmops" / "releases"
    path = (workspace.root / PATH).resolve()  # a link stays one
    try:
        held.parent.mkdir(exist_ok=True)
        path.parent.mkdir(exist_ok=True)
        with hold_file(held):
            if (workspace.tree.read(PATH) or b"") != before:
                raise StoreHeldError(
                    f"{PATH} was changed by another promotion: look at it, then promote again"
                )
            _replace(path, after)
    except OSError as error:
        raise StoreError(f"{PATH} cannot be written: {error.strerror}; nothing was promoted") from error


def _replace(path: Path, data: bytes) -> None:
    beside = path.with_name(f".{path.name}.new")  # one that a kill left is written over
    with beside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    _settle(path.parent)


def _settle(folder: Path) -> None:
    """Bring the new name onto the disk, before anybody says that it is there."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
