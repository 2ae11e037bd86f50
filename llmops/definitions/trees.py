"""Where files are read from: the work tree, or git's objects at a revision, which touches no file."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

from llmops.definitions.base import is_name
from llmops.errors import UsageError, nearest
from llmops.secrets import without_secrets

MAX_HISTORY = 2000
"""Commits that are searched for an identity: those that touched a definition, newest first."""

_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)

# What a hook of another repository would have us read; the project's own is the one around its root.
_ELSEWHERE = (
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
)
# Plain words in English, no lock taken, and nothing fetched from anywhere.
_QUIETLY = {
    "LC_ALL": "C",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_LITERAL_PATHSPECS": "1",
}


class Tree(Protocol):
    """A folder of files that can be read by relative path."""

    @property
    def label(self) -> str:
        """How the tree is called in messages."""

    def read(self, path: str) -> bytes | None:
        """Return a file's bytes, or None when there is none. Raises UsageError for a path that leads outside."""

    def open(self, path: str) -> BinaryIO | None:
        """Return a file open for reading, for one too large to be held as bytes; otherwise as `read`."""

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder, sorted; none when it does not exist."""

    def paths(self, folder: str) -> list[str]:
        """Return the paths of all files below a folder, "" the root, sorted; links and hidden folders left out."""

    def open_path(self, path: str) -> BinaryIO:
        """Return a file that `paths` has named, open for reading, whatever characters its name has."""

    def place(self, path: str) -> str:
        """Return how a traceback names a file."""


@dataclass(frozen=True)
class WorkTree:
    """The files as they lie under the project's root."""

    root: Path
    label: str = "the work tree"

    def read(self, path: str) -> bytes | None:
        full = self.inside(path)
        try:
            return full.read_bytes() if full.is_file() else None
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from error

    def open(self, path: str) -> BinaryIO | None:
        full = self.inside(path)
        try:
            return full.open("rb") if full.is_file() else None
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from error

    def names(self, folder: str) -> list[str]:
        full = self.inside(folder)
        try:
            return sorted(entry.name for entry in full.iterdir() if entry.is_file()) if full.is_dir() else []
        except OSError as error:
            raise UsageError(f"{folder} cannot be read: {error.strerror}") from error

    def paths(self, folder: str) -> list[str]:
        top = self._within(folder)
        if top != self.root.resolve() / folder or not top.is_dir():
            return []  # it is a link, or stands below one, or is not there
        found = []
        for below, folders, files in os.walk(top, onerror=_refuse):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in files:
                full = Path(below, name)
                if full.is_file() and not full.is_symlink():
                    found.append((PurePosixPath(folder) / full.relative_to(top)).as_posix())
        return sorted(found)

    def open_path(self, path: str) -> BinaryIO:
        try:
            return self._within(path).open("rb")
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from error

    def place(self, path: str) -> str:
        return str(self.root / path)

    def inside(self, path: str) -> Path:
        """Return the full path of a relative one.

        Raises UsageError when it leads out of the project, by `..`, an absolute path or a link.
        """
        check_relative(path)
        return self._within(path)

    def _within(self, path: str) -> Path:
        try:
            full = (self.root / path).resolve()
        except (OSError, RuntimeError) as error:  # a circle of links is a RuntimeError before Python 3.13
            raise UsageError(f"{path!r} cannot be followed: {error}") from error
        if not full.is_relative_to(self.root.resolve()):
            raise UsageError(f"{path!r} leads out of the project")
        return full


def _refuse(error: OSError) -> None:
    raise UsageError(f"{error.filename} cannot be read: {error.strerror}") from error


@dataclass(frozen=True)
class GitTree:
    """The files as they stand at a commit of the repository that holds the project.

    blobs: content by object name, shared between the trees of one repository. Links are not followed.
    """

    root: Path
    commit: str
    blobs: dict[str, bytes] = field(default_factory=dict, repr=False, compare=False)
    _folders: dict[str, dict[str, str]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def label(self) -> str:
        """How the tree is called in messages."""
        return f"git:{self.commit[:12]}"

    @cached_property
    def _prefix(self) -> str:
        return os.fsdecode(git(self.root, "rev-parse", "--show-prefix")).removesuffix("\n")

    def _files(self, folder: str) -> dict[str, str]:
        """Return the object name of each regular file in a folder."""
        if folder not in self._folders:
            path = self._prefix if folder == "." else f"{self._prefix}{folder}/"
            command = ["ls-tree", "-z", "--full-tree", self.commit, *([path] if path else [])]
            self._folders[folder] = {
                os.fsdecode(file).rpartition("/")[2]: about.decode().split()[2]
                for about, _, file in (
                    entry.partition(b"\t") for entry in git(self.root, *command).split(b"\0")
                )
                if about.startswith(b"100")  # a regular file: no link, folder or module of another repository
            }
        return self._folders[folder]

    def read(self, path: str) -> bytes | None:
        check_relative(path)
        pure = PurePosixPath(path)
        name = self._files(str(pure.parent)).get(pure.name)
        return None if name is None else self._blob(name)

    def _blob(self, name: str) -> bytes:
        if name not in self.blobs:
            self.blobs[name] = git(self.root, "cat-file", "blob", name)
        return self.blobs[name]

    def open(self, path: str) -> BinaryIO | None:
        data = self.read(path)
        return None if data is None else BytesIO(data)

    def names(self, folder: str) -> list[str]:
        check_relative(folder)
        return sorted(self._files(folder))

    def paths(self, folder: str) -> list[str]:
        below = f"{folder}/" if folder else ""
        return sorted(
            path
            for path in self._below
            if path.startswith(below)
            and not any(part.startswith(".") for part in path[len(below) :].split("/")[:-1])
        )

    @cached_property
    def _below(self) -> dict[str, str]:
        """The object name of every regular file of the project, by path."""
        command = [
            "ls-tree",
            "-r",
            "-z",
            "--full-tree",
            self.commit,
            *([self._prefix] if self._prefix else []),
        ]
        return {
            os.fsdecode(file).removeprefix(self._prefix): about.decode().split()[2]
            for about, _, file in (entry.partition(b"\t") for entry in git(self.root, *command).split(b"\0"))
            if about.startswith(b"100")
        }

    def open_path(self, path: str) -> BinaryIO:
        return BytesIO(self._blob(self._below[path]))

    def place(self, path: str) -> str:
        return f"{self.label}:{path}"


def check_relative(path: str) -> None:
    """Refuse a path that is absolute, climbs, or names a device or another machine (UsageError).

    Paths are made of names: whatever else could mean one thing here and another to a file system, such as
    `%2f`, a backslash, a colon or a look-alike of a dot, has no place in one.
    """
    parts = path.split("/")
    if not all(is_name(part) and not _DEVICE.fullmatch(part) for part in parts):
        raise UsageError(f"{path!r} is no path inside the project: write it relative to llmops.yaml, with /")


def git(root: Path, *arguments: str) -> bytes:
    """Return what a git command prints.

    Raises UsageError in git's own words when it fails or git is missing.
    """
    environment = {key: value for key, value in without_secrets(os.environ).items() if key not in _ELSEWHERE}
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, check=False, env={**environment, **_QUIETLY})
    except FileNotFoundError as error:
        raise UsageError("git is not installed, and this needs the history") from error
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().removeprefix("fatal: ")
        raise UsageError(f"git {arguments[0]}: {reason}")
    return done.stdout


def resolve_revision(root: Path, revision: str) -> str:
    """Return the commit a revision names.

    Raises UsageError when git does not know it, and says when the history is missing or cut short.
    """
    try:
        found = git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    except UsageError as error:
        raise UsageError(f"git:{revision}: {_why_unknown(root, revision)}") from error
    return found.decode().strip()


def _why_unknown(root: Path, revision: str) -> str:
    try:
        if note := shallow_note(root):
            return f"git knows no such revision here; {note}"
        refs = git(root, "for-each-ref", "--format=%(refname:short)").decode(errors="replace").split()
    except UsageError as error:
        return str(error)
    remote = next((ref for ref in refs if ref.endswith(f"/{revision}")), None)
    hint = f"did you mean {remote!r}?" if remote else nearest(revision, refs)
    return "git knows no such revision here" + (f"; {hint}" if hint else "")


def shallow_note(root: Path) -> str | None:
    """Return what to do about a clone whose history is cut short, None when it is whole."""
    if git(root, "rev-parse", "--is-shallow-repository").strip() != b"true":
        return None
    return "this clone is shallow: `git fetch --unshallow` brings the history (fetch-depth: 0 in a workflow)"


def find_commits(root: Path, folders: Iterable[str]) -> list[str]:
    """Return the commits of all branches that touched one of the folders, newest first, at most MAX_HISTORY.

    Raises UsageError where there is no repository.
    """
    log = git(root, "rev-list", "--all", f"--max-count={MAX_HISTORY}", "--", *folders)
    return log.decode().split()
