"""What commands share: the project they stand in, its environment, and how they print.

Settings are read here, once, from arguments and environment; nothing below reads either.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import click

from llmops.definitions.reference import FOLDERS, Kind, parse_reference
from llmops.definitions.workspace import Workspace, find_root, load_workspace
from llmops.errors import LlmopsError, UsageError, nearest
from llmops.secrets import register_environment

if TYPE_CHECKING:
    from pydantic import BaseModel

    from llmops.stores.journal import Journal

json_option = click.option("--json", "as_json", is_flag=True, help="Print the record and nothing else.")


@dataclass(frozen=True)
class Session:
    """One command's view of the project at or above the working directory."""

    root: Path
    environment: Mapping[str, str]

    @cached_property
    def workspace(self) -> Workspace:
        """The definitions of the work tree."""
        return load_workspace(self.root)

    def register_secrets(self) -> None:
        """Keep out of all output what the environment holds as secrets, and what llmops.yaml names as keys."""
        named: list[str | None] = []
        with suppress(LlmopsError):  # a broken file is told by whoever reads it, and names no key
            named = [model.api_key_env for model in self.workspace.project.models.values()]
        register_environment(self.environment, named)

    @property
    def tracking_uri(self) -> str:
        """Where MLflow is: `MLFLOW_TRACKING_URI`, else what llmops.yaml says."""
        return self.environment.get("MLFLOW_TRACKING_URI") or self.workspace.project.tracking.uri

    def journal(self, *, create: bool = True) -> Journal:
        """Return the project's journal, open (UsageError when there is none and none may be made)."""
        from llmops.stores.journal import open_journal

        if not create and not self.has_journal():
            raise UsageError("nothing has run here yet: `llmops run EXPERIMENT`")
        url = self.workspace.project.store.url
        if url.startswith("sqlite") and not self.has_journal():
            warn_of_sqlite()
        return open_journal(url, root=self.root, create=create, environment=self.environment)

    def local_journal(self) -> Journal:
        """Return a journal on this disk: the project's own, or the default where that is on a server."""
        from llmops.definitions.project import Store
        from llmops.stores.journal import open_journal

        url = self.workspace.project.store.url
        is_file = url.startswith("sqlite")
        return open_journal(url if is_file else Store().url, root=self.root, environment=self.environment)

    def has_journal(self) -> bool:
        """Say whether anything has run here."""
        from llmops.stores import has_store

        return has_store(self.workspace.project.store.url, root=self.root, environment=self.environment)

    def target(self, text: str, kinds: tuple[Kind, ...]) -> tuple[Kind, str]:
        """Return the kind and reference of a TARGET: a name, a name with its folder, or a file.

        Raises UsageError when there is none, or two kinds share the name.
        """
        kind, name = self._split(text)
        if kind is not None:
            if kind not in kinds:
                raise UsageError(f"{text}: expected one of {', '.join(FOLDERS[k] for k in kinds)}")
            return kind, name
        bare = parse_target(name)
        found = [kind for kind in kinds if bare in self.workspace.names(kind)]
        if len(found) > 1:
            ways = " or ".join(f"{FOLDERS[kind]}/{name}" for kind in found)
            raise UsageError(f"{name!r} names {' and '.join(found)}: write {ways}")
        if not found:
            known = [other for kind in kinds for other in self.workspace.names(kind)]
            hint = nearest(bare, known) or f"there are: {', '.join(known) or 'none'}"
            raise UsageError(f"no {' or '.join(kinds)} is called {name!r}; {hint}")
        return found[0], name

    def _split(self, text: str) -> tuple[Kind | None, str]:
        path = Path(text)
        if path.suffix == ".yaml" or path.is_absolute():
            full = path if path.is_absolute() else Path.cwd() / path
            if not full.is_file():
                raise UsageError(f"no file {text}")
            if not full.resolve().is_relative_to(self.root.resolve()):
                raise UsageError(f"{text} lies outside the project at {self.root}")
            text = full.resolve().relative_to(self.root.resolve()).as_posix()
        for kind, folder in FOLDERS.items():
            if text.startswith(f"{folder}/"):
                return kind, text.removeprefix(f"{folder}/").removesuffix(f".{kind}.yaml")
        return None, text


def take_sources(session: Session, kind: Kind, reference: str) -> None:
    """Take what indexes read outside the project, for what is about to be planned; say what cannot be read now."""
    from llmops.indexes.snapshots import indexes_used, take

    workspace = session.workspace
    try:
        names = sorted(indexes_used(workspace, kind, parse_target(reference)))
    except LlmopsError:
        return  # whoever plans says what is wrong
    for name in names:
        for note in take(workspace, name, session.environment, utc_now):
            say(f"note: {note}")


def parse_target(text: str) -> str:
    """Return the bare name of a reference given on the command line (UsageError when it is none)."""
    try:
        return parse_reference(text).name
    except ValueError as error:
        raise UsageError(str(error)) from error


def open_session(*, tell: Callable[[str], None] | None = None) -> Session:
    """Return the session of the project the command stands in (UsageError outside of one).

    tell: given what is wrong with its `.env`; by default it is said.
    """
    root = find_root(Path.cwd())
    session = Session(root, read_environment(root, tell or say))
    session.register_secrets()
    return session


def read_environment(root: Path, tell: Callable[[str], None]) -> dict[str, str]:
    """Return the environment, with what `.env` beside llmops.yaml adds; it overrides nothing.

    A `.env` that git tracks is left out, because a pull request could change it, and no `.env` says where keys
    may go: proxies and LLMOPS_SECRET_HOSTS come from the process alone.

    Raises UsageError when it cannot be read.
    """
    path = root / ".env"
    if not path.is_file():
        return dict(os.environ)
    if _is_tracked(root):
        tell("warning: .env is tracked by git and is not read; git rm --cached .env, and change its keys")
        return dict(os.environ)
    from dotenv import dotenv_values

    try:
        found = dotenv_values(path, interpolate=False, encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f".env cannot be read: {type(error).__name__}; save it as UTF-8") from error
    return {
        **{name: value for name, value in found.items() if value is not None and _may_set(name)},
        **os.environ,
    }


def _may_set(name: str) -> bool:
    return name != "LLMOPS_SECRET_HOSTS" and not name.lower().endswith("_proxy")


def _is_tracked(root: Path) -> bool:
    from llmops.definitions.trees import git

    try:
        return bool(git(root, "ls-files", "--", ".env"))
    except UsageError:
        return False


def warn_of_sqlite(version: tuple[int, ...] | None = None) -> None:
    """Say what is to be known of a SQLite, by default our own, before a store is made with it."""
    import sqlite3

    from llmops.stores.sqlite import known_fault

    if fault := known_fault(version or sqlite3.sqlite_version_info):
        say(f"note: SQLite {fault}")


def steady_clock() -> Callable[[], datetime]:
    """Return a clock that starts at the time it is now and never jumps, whatever is done to the machine's."""
    started, since = utc_now(), monotonic()
    return lambda: started + timedelta(seconds=monotonic() - since)


def utc_now() -> datetime:
    """Return the time, aware and in UTC."""
    return datetime.now(UTC)


def print_record(record: BaseModel | Any) -> None:
    """Print a record, or plain data, as JSON and nothing else; no line of it is a command to a CI runner."""
    if hasattr(record, "model_dump"):
        record = record.model_dump(mode="json", by_alias=True)
    click.echo(json.dumps(record, indent=2, ensure_ascii=True).replace("##[", "##\\u005b"))


@dataclass(frozen=True)
class Look:
    """How text is to look on standard output."""

    width: int
    colour: bool
    ascii_only: bool


def look() -> Look:
    """Return how wide, coloured and rich in signs the output may be; plain without a terminal."""
    terminal = sys.stdout.isatty()
    encoding = (sys.stdout.encoding or "ascii").lower().replace("-", "")
    width = click_width() if terminal else 80
    dumb = os.environ.get("TERM") == "dumb"
    colour = terminal and not dumb and "NO_COLOR" not in os.environ
    return Look(max(60, min(width, 120)), colour, not encoding.startswith("utf"))


def click_width() -> int:
    """Return the width of the terminal, in columns."""
    import shutil

    return shutil.get_terminal_size().columns


def say(text: str) -> None:
    """Print a line for people who watch, beside the result."""
    click.echo(text, err=True)


def complete_names(*kinds: Kind) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Return a completion of definition names for click."""

    def complete(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
        try:
            workspace = open_session().workspace
            names = [name for kind in kinds for name in workspace.names(kind)]
        except LlmopsError:
            return []
        return [name for name in names if name.startswith(incomplete)]

    return complete
