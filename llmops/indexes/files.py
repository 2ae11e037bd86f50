"""Where built indexes lie: a folder for each version, whole or not there, whoever is killed or builds beside.

Each is made in a folder of its own and moved into place by one rename; of two builders of the same version the
second finds the first one's, and they are equal.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmops.errors import StoreError

HOME = ".llmops/indexes"
ABOUT = "about.json"
DIGITS = 16
KEPT = 8
"""Versions of an index beside the newest, for baselines at older revisions."""

ABANDONED_S = 86_400.0
_BUILDING = ".building-"


def home(root: Path, name: str) -> Path:
    """Return where all indexes of a project lie, which is there then. Raises StoreError where it cannot be."""
    found = root / HOME
    try:
        found.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"index {name} cannot be written below {HOME}: {error}") from error
    return found


def find_built(root: Path, name: str, version: str) -> Path | None:
    """Return the folder of a version that is there and whole; one that is not is removed."""
    folder = _folder(root, name, version)
    about = read_about(folder)
    if about is None:
        shutil.rmtree(folder, ignore_errors=True)
        return None
    return folder


def read_about(folder: Path) -> dict[str, Any] | None:
    """Return what a folder says of itself; None unless all its files are there, each as long as it was."""
    try:
        about: dict[str, Any] = json.loads((folder / ABOUT).read_bytes())
        sizes = {name: (folder / name).stat().st_size for name in about["files"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return about if sizes == about["files"] else None


def build(root: Path, name: str, version: str, write: Callable[[Path], dict[str, Any]]) -> Path:
    """Return the folder of a version once `write` has filled it. write: returns what is to be said of it.

    Raises StoreError where the disk does not let us.
    """
    folder = _folder(root, name, version)
    try:
        place = home(root, name)
        _sweep(place, name, folder)
        made = place / f"{_BUILDING}{uuid.uuid4().hex}"
        made.mkdir()
        try:
            about = write(made)
            files = {
                each.relative_to(made).as_posix(): each.stat().st_size
                for each in sorted(made.rglob("*"))
                if each.is_file()
            }
            said = json.dumps({**about, "files": files}, indent=1, ensure_ascii=False)
            (made / ABOUT).write_text(said + "\n", encoding="utf-8")
            _settle(made)
            _move(made, folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    except OSError as error:
        raise StoreError(f"index {name} cannot be written below {HOME}: {error}") from error
    return folder


def newest(root: Path, name: str) -> list[Path]:
    """Return the folders of all versions of an index that are there, the last used first."""
    found = [path for path in (root / HOME).glob(f"{name}-*") if len(path.name) == len(name) + 1 + DIGITS]
    return sorted(found, key=lambda path: (-_used_at(path), path.name))


def note_use(folder: Path) -> None:
    """Remember that a version is in use, so that others are removed before it."""
    try:
        os.utime(folder)
    except OSError:  # a disk that is read only, or somebody has just removed it: nothing depends on it
        return


def _folder(root: Path, name: str, version: str) -> Path:
    return root / HOME / f"{name}-{version[:DIGITS]}"


def _move(made: Path, folder: Path) -> None:
    try:
        made.rename(folder)
    except OSError:
        if read_about(folder) is None:
            raise


def _settle(folder: Path) -> None:
    """Have everything on the disk before the rename is: a version that is there is whole."""
    for path in (*folder.rglob("*"), folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _sweep(place: Path, name: str, wanted: Path) -> None:
    """Remove versions that have long not been used, and what killed builders left."""
    for path in newest(place.parent.parent, name)[KEPT:]:
        if path != wanted:
            shutil.rmtree(path, ignore_errors=True)
    for path in place.glob(f"{_BUILDING}*"):
        if time.time() - _used_at(path) > ABANDONED_S:
            shutil.rmtree(path, ignore_errors=True)


def _used_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
