"""`llmops doctor`: what is missing on this machine or in this project, one fix a line."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from llmops.cli.exits import Exit
from llmops.cli.promote import opened_mlflow
from llmops.cli.session import Session, json_option, open_session, print_record
from llmops.definitions.reference import FOLDERS
from llmops.definitions.release import PATH as RELEASES
from llmops.errors import LlmopsError

if TYPE_CHECKING:
    from llmops.definitions.project import ModelDefinition
    from llmops.definitions.release import Release
    from llmops.stores.journal import Journal
    from llmops.stores.mlflow import MlflowStore

PACKAGES = ("mlflow", "openai", "azure-ai-inference", "sqlalchemy", "scikit-learn", "pandas")
ROOM_BYTES = 500e6
AZURE_NOTICE = (
    "Microsoft retired the azure-ai-inference SDK on 2026-08-26",
    "provider: openai, with the endpoint https://RESOURCE.services.ai.azure.com/openai/v1",
)


@dataclass(frozen=True)
class Diagnosis:
    """One thing looked at. fix: what to do, None when nothing is to be done."""

    what: str
    state: Literal["ok", "warning", "missing"]
    detail: str
    fix: str | None = None


@click.command("doctor")
@json_option
def command(as_json: bool) -> int:
    """Say what is missing on this machine or in this project, one fix a line. Exits 2 when something is."""
    from llmops.report.texts import printable

    found = list(diagnose())
    if as_json:
        print_record([asdict(diagnosis) for diagnosis in found])
    else:
        for diagnosis in found:
            click.echo(printable(f"{diagnosis.state:<8} {diagnosis.what}: {diagnosis.detail}"))
            if diagnosis.fix:
                click.echo(printable(f"         fix: {diagnosis.fix}"))
    return Exit.WRONG if any(diagnosis.state == "missing" for diagnosis in found) else Exit.DONE


def diagnose() -> Iterator[Diagnosis]:
    """Yield everything worth knowing, the machine first; nothing is made or changed."""
    yield from _machine()
    try:
        session = open_session()
    except LlmopsError as error:
        yield Diagnosis("project", "missing", str(error).partition(":")[0], "llmops init")
        return
    yield Diagnosis("project", "ok", str(session.root))
    if not any((folder / ".git").exists() for folder in (session.root, *session.root.parents)):
        yield Diagnosis("history", "warning", "not a git repository: runs name no commit", "git init")
    yield _folder(session.root)
    try:
        models = session.workspace.project.models
    except LlmopsError as error:
        yield Diagnosis("llmops.yaml", "missing", str(error), "correct it; llmops check tells more")
        return
    yield Diagnosis("llmops.yaml", "ok", f"models: {', '.join(models) or 'none'}")
    yield from _models(session)
    yield _store(session)
    yield _tracking(session)
    yield from _releases(session)


def _machine() -> Iterator[Diagnosis]:
    python = ".".join(map(str, sys.version_info[:3]))
    yield Diagnosis("python", "ok", f"{python} at {sys.executable}")
    yield diagnose_sqlite(sqlite3.sqlite_version_info)
    if shutil.which("git"):
        yield Diagnosis("git", "ok", "found")
    else:
        yield Diagnosis("git", "warning", "not found: references name@git:REV do not work", "install git")
    for package in PACKAGES:
        try:
            yield Diagnosis(package, "ok", version(package))
        except PackageNotFoundError:
            yield Diagnosis(package, "missing", "not installed", f"pip install {package}")


def diagnose_sqlite(found: tuple[int, ...]) -> Diagnosis:
    """Say whether a version of SQLite has the fault for which one process alone writes at a time."""
    from llmops.stores.sqlite import known_fault

    fault = known_fault(found)
    if fault is None:
        return Diagnosis("sqlite", "ok", ".".join(map(str, found)))
    return Diagnosis(
        "sqlite",
        "warning",
        fault,
        "a Python built on SQLite 3.51.3 or newer, when there is one",
    )


def _folder(root: Path) -> Diagnosis:
    if not os.access(root, os.W_OK):
        return Diagnosis("disk", "missing", f"{root} cannot be written", f"chmod u+w {root}")
    free = shutil.disk_usage(root).free
    detail = f"{free / 1e9:.1f} GB free"
    return (
        Diagnosis("disk", "ok", detail)
        if free > ROOM_BYTES
        else Diagnosis("disk", "warning", detail, "make room")
    )


def _models(session: Session) -> Iterator[Diagnosis]:
    models = session.workspace.project.models
    for name, model in models.items():
        yield _model(name, model, session.environment)
    if any(model.provider == "azure_inference" for model in models.values()):
        yield Diagnosis("azure", "warning", *AZURE_NOTICE)


def _model(name: str, model: ModelDefinition, environment: Mapping[str, str]) -> Diagnosis:
    from llmops.models import open_model

    what = f"model {name}"
    named = (model.endpoint_env, model.api_key_env)
    unset = [variable for variable in named if variable and not environment.get(variable, "").strip()]
    if unset:
        fix = "export " + " ".join(f"{variable}=..." for variable in unset)
        return Diagnosis(what, "missing", f"{' and '.join(unset)} not set", fix)
    try:
        open_model(name, model, environment)
    except LlmopsError as error:
        return _broken(what, error, "correct it in llmops.yaml")
    except ImportError as error:
        return Diagnosis(what, "missing", str(error), f"pip install {error.name}")
    return Diagnosis(what, "ok", model.provider)


def _broken(what: str, error: LlmopsError, fix: str) -> Diagnosis:
    """Return a diagnosis from an error; most say themselves, behind a semicolon, what to do."""
    detail, _, to_do = str(error).partition("; ")
    return Diagnosis(what, "missing", detail, to_do or fix)


def _store(session: Session) -> Diagnosis:
    url = session.workspace.project.store.url
    try:
        journal = _journal(session)
    except LlmopsError as error:
        return _broken("store", error, "name another store in llmops.yaml")
    if journal is None:
        return Diagnosis("store", "ok", f"{url}, made by the first run")
    with closing(journal):
        return Diagnosis("store", "ok", f"{url}, runs: {len(journal.runs(with_comparisons=False))}")


def _journal(session: Session) -> Journal | None:
    """Return the journal, None where no run has made one yet."""
    return session.journal(create=False) if session.has_journal() else None


def _tracking(session: Session) -> Diagnosis:
    from llmops.stores import tracking

    try:
        uri = tracking.resolve_uri(session.tracking_uri, root=session.root, environment=session.environment)
    except LlmopsError as error:
        return _broken("tracking", error, "correct tracking in llmops.yaml")
    target = tracking.shown(uri)
    try:
        tracking.check_reachable(uri)
    except LlmopsError as error:
        detail = str(error).partition("; ")[0]
        return Diagnosis("tracking", "warning", detail, "start it, then llmops sync")
    n_waiting = _n_waiting(session, target)
    if n_waiting:
        return Diagnosis("tracking", "warning", f"{target}, runs not there yet: {n_waiting}", "llmops sync")
    return Diagnosis("tracking", "ok", target)


def _n_waiting(session: Session, target: str) -> int:
    try:
        journal = _journal(session)
    except LlmopsError:  # told as the state of the store
        return 0
    if journal is None:
        return 0
    with closing(journal):
        return len(journal.deliveries.waiting(target))


# --- releases -----------------------------------------------------------------------------------------------


def _releases(session: Session) -> Iterator[Diagnosis]:
    """Yield whether the file of releases is as it was written, and whether MLflow's aliases follow it."""
    from llmops.check.releases import check_releases
    from llmops.definitions.release import in_force

    if session.workspace.tree.read(RELEASES) is None:
        return
    findings = check_releases(session.workspace)
    if findings:
        yield Diagnosis("releases", "missing", str(findings[0]).partition("\n")[0], findings[0].hint)
        return
    releases = in_force(session.workspace.releases)
    yield Diagnosis("releases", "ok", f"aliases: {len(releases)}")
    try:
        with opened_mlflow(session) as store:
            yield from (_alias(session, store, release) for release in releases)
    except LlmopsError as error:
        yield Diagnosis("aliases", "warning", str(error).partition("; ")[0], "start it, then llmops doctor")


def _alias(session: Session, store: MlflowStore, release: Release) -> Diagnosis:
    from llmops.promote.projection import find_drift

    what = f"alias {FOLDERS[release.kind]}/{release.name}@{release.alias}"
    found = find_drift(session.workspace, store, release)
    if found.drift is None:
        return Diagnosis(what, "ok", f"MLflow's {found.where}")
    fix = f"llmops promote {FOLDERS[release.kind]}/{release.name} --to {release.alias} --repair"
    return Diagnosis(what, "warning", f"MLflow has drifted from {RELEASES}: {found.drift}", fix)
