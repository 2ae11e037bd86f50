"""From evidence to a release: one more line in the file of releases, which is what an alias means.

Reads today's files, the journal's verdicts and git; writes that one line. MLflow's alias follows it (`projection`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from llmops.check.releases import check_releases
from llmops.definitions.base import without_none
from llmops.definitions.reference import parse_reference
from llmops.definitions.release import (
    PATH,
    AuditedRelease,
    Release,
    Stage,
    current,
    not_rolled_back,
    read_releases,
    with_release,
)
from llmops.definitions.trees import resolve_revision
from llmops.definitions.workspace import Resolved
from llmops.errors import DefinitionError, EvidenceError, LlmopsError, UsageError
from llmops.promote.evidence import Candidate, find_candidate
from llmops.promote.people import find_approver, find_authors, refuse_own_approval, source_paths
from llmops.secrets import scrub_told
from llmops.steps import open_program
from llmops.steps.overrides import Overrides
from llmops.stores.releases import replace_releases

if TYPE_CHECKING:
    from llmops.definitions.reference import Kind
    from llmops.definitions.workspace import Workspace
    from llmops.stores.journal import Journal


@dataclass(frozen=True)
class Order:
    """What is to be released. reason, approver: None for the verdict's own reason, and for whoever git says we are."""

    kind: Kind
    name: str
    alias: str
    variant: str | None = None
    stage: Stage = "everyone"
    reason: str | None = None
    approver: str | None = None


@dataclass(frozen=True)
class Moved:
    """What an alias points at now, and before. is_new: whether a line was written for it."""

    release: Release
    before: Release | None
    is_new: bool = True


def promote(workspace: Workspace, journal: Journal, order: Order, *, now: datetime) -> Moved:
    """Let an alias point at the variant that passed, as it stands in the files now.

    Raises EvidenceError when nothing allows it, UsageError when it is not clear what is meant or it is not in git,
    DefinitionError when the file of releases is not as it was written, StoreHeldError when another was quicker.
    """
    _check_alias(order)
    found = find_candidate(workspace, journal, order.kind, order.name, order.variant, now=now)
    data, before, _ = _read(workspace, order)
    release, resolved = _release(workspace, order, found)
    if release.is_same(before) and getattr(before, "stage", order.stage) == order.stage:
        assert before is not None  # noqa: S101 - it is the same as something
        return Moved(before, before, is_new=False)
    commit = _committed(resolved, release)
    approver = find_approver(workspace.root, order.approver)
    since = before.commit if isinstance(before, AuditedRelease) else None
    authors = find_authors(workspace.root, source_paths(resolved, found.variant), since)
    if workspace.project.promotion.separation_of_duties:
        refuse_own_approval(workspace.root, authors, approver)
    assert found.verdict is not None  # noqa: S101 - it passed
    fields = {
        **_pointer(release),
        "action": "promote",
        "stage": order.stage,
        "reason": order.reason or found.verdict.reason,
        "author": authors[0] if authors else "unknown",
        "approver": approver,
        "commit": commit,
        "created_at": now.isoformat(),
        "evidence": _evidence(workspace, found),
    }
    return Moved(_written(workspace, data, fields), before)


def roll_back(workspace: Workspace, order: Order, *, now: datetime) -> Moved:
    """Let an alias point at the release before the one in force, as a line of its own; it needs a reason.

    Nobody else need approve: what stands behind the alias then was approved before.

    Raises UsageError when there is none before, or it is lost to git; the rest is as in `promote`.
    """
    _check_alias(order)
    if order.reason is None or not order.reason.strip():
        raise UsageError("a rollback says why: --reason TEXT")
    data, before, standing = _read(workspace, order)
    if before is None or len(standing) < 2:
        what = "was never set" if before is None else "has no release before the one in force"
        raise UsageError(f"{order.name}@{order.alias} {what}: there is nothing to roll back to")
    release = standing[-2]
    workspace.resolve(order.kind, f"{release.name}@{release.identity}")
    approver = find_approver(workspace.root, order.approver)
    audited = release if isinstance(release, AuditedRelease) else None
    fields = {
        **_pointer(release),
        "action": "rollback",
        "stage": audited.stage if audited else "everyone",
        "reason": order.reason,
        "author": audited.author if audited else "unknown",
        "approver": approver,
        "commit": resolve_revision(workspace.root, "HEAD"),
        "created_at": now.isoformat(),
        "evidence": audited.evidence.model_dump(mode="json") if audited and audited.evidence else None,
    }
    return Moved(_written(workspace, data, fields), before)


def find_release(workspace: Workspace, order: Order) -> Release:
    """Return what an alias points at by the file of releases (UsageError when it was never set)."""
    found = workspace.released(order.kind, order.name, order.alias).release
    assert found is not None  # noqa: S101 - an alias was resolved
    return found


# --- the file ---------------------------------------------------------------------------------------------------


def _check_alias(order: Order) -> None:
    """Refuse what no reference could name, and what MLflow keeps for itself (UsageError)."""
    try:
        is_alias = parse_reference(f"{order.name}@{order.alias}").alias == order.alias
    except ValueError:
        is_alias = False
    is_kept = order.alias.lower() == "latest" or (order.alias[:1] in "vV" and order.alias[1:].isdigit())
    if not is_alias or is_kept:
        raise UsageError(
            f"{order.alias!r} is no alias: a word like production, not latest, v1 or an identity"
        )


def _read(workspace: Workspace, order: Order) -> tuple[bytes, Release | None, list[Release]]:
    """Return the file of releases, what an alias points at there, and what it did but for what was taken back."""
    if findings := check_releases(workspace):
        raise DefinitionError(findings)
    data = workspace.tree.read(PATH) or b""
    releases, which = read_releases(data), (order.kind, order.name, order.alias)
    return data, current(releases, *which), not_rolled_back(releases, *which)


def _written(workspace: Workspace, data: bytes, fields: dict[str, Any]) -> AuditedRelease:
    told = {key: scrub_told(value) if isinstance(value, str) else value for key, value in fields.items()}
    longer, release = with_release(data, told)
    replace_releases(workspace, data, longer)
    return release


def _pointer(release: Release) -> dict[str, Any]:
    fields = ("kind", "name", "alias", "identity", "model", "parameters")
    return without_none({name: getattr(release, name) for name in fields})


# --- what is released -------------------------------------------------------------------------------------------


def _release(workspace: Workspace, order: Order, found: Candidate) -> tuple[Release, Resolved]:
    """Return the release that means what was judged, and where its definition stands."""
    tried, variant = found.trial.definition, found.variant
    resolved = workspace.resolve(order.kind, tried.target)
    own = Overrides(tried.model, tried.parameters.given())
    if resolved.release is not None:
        own = own.over(Overrides(resolved.release.model, resolved.release.parameters))
    if order.kind == "prompt":
        own = Overrides(variant.models[0].name, variant.parameters)
    release = Release(
        kind=order.kind,  # type: ignore[arg-type]  # experiments try nothing else
        name=order.name,
        alias=order.alias,
        identity=variant.definition_identity,
        model=own.model,
        parameters=dict(own.parameters),
    )
    program = open_program(replace(resolved, release=release), Overrides(), seed=found.plan.run.seed)
    if program.identity != variant.identity:
        raise EvidenceError(
            f"{found.label} is not {order.name} with a model and parameters: nothing to release"
        )
    return release, resolved


def _committed(resolved: Resolved, release: Release) -> str:
    """Return the commit of the work tree; a release that git does not have could be found by nobody else.

    Raises UsageError when the definition as judged is not committed, or there is no repository.
    """
    workspace = resolved.workspace
    head = resolve_revision(workspace.root, "HEAD")
    if workspace is workspace.today:
        try:
            stands = workspace.at(head).identity(resolved.kind, release.name)
        except LlmopsError:
            stands = ""
        if stands != release.identity:
            path = workspace.path(resolved.kind, release.name)
            raise UsageError(
                f"{path}, or what it uses, is not committed as it was judged: git commit it first"
            )
    return head


def _evidence(workspace: Workspace, found: Candidate) -> dict[str, Any]:
    verdict, run = found.verdict, found.plan.run
    assert verdict is not None  # noqa: S101 - it passed
    promotion = workspace.project.promotion
    return {
        "verdict": verdict.id,
        "outcome": str(found.outcome),
        "judged_at": verdict.created_at.isoformat(),
        "run": verdict.run_id,
        "experiment": verdict.experiment,
        "variant": found.trial.name,
        "candidate": found.variant.identity,
        "dataset": "/".join(filter(None, (run.dataset.name, run.dataset.split))),
        "dataset_version": run.dataset.version,
        "evaluators": {each.name: each.identity for each in run.evaluators},
        "policy": {
            **verdict.policy,
            "promotion.max_age_days": str(promotion.max_age_days),
            "promotion.separation_of_duties": str(promotion.separation_of_duties).lower(),
        },
    }
