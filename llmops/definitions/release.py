"""Releases: which version an alias points at, read from `experiments/releases.jsonl`, last line wins.

The file is an audit trail. Each line that `promote` writes holds the hash of the line before and its own, so that
whoever reads the file finds what was changed since; lines from before the first of them are read as they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, ConfigDict, Field

from llmops.definitions.base import Definition, Int, Name, canonical, identity_of
from llmops.definitions.build import build
from llmops.definitions.documents import Document
from llmops.definitions.jsonl_reader import read_jsonl
from llmops.errors import DefinitionError, Finding

PATH = "experiments/releases.jsonl"

Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Stage = Literal["supervised", "staff", "everyone"]
STAGES: Mapping[Stage, str] = {
    "supervised": "a person approves every output before it is used",
    "staff": "only our own people get its outputs",
    "everyone": "whoever asks gets its outputs",
}
"""The stages of a rollout, most careful first, and what each means."""

_RESTORE = "`git log -p experiments/releases.jsonl` says who; bring back what was committed"


class Release(Definition):
    """One move of an alias. Evidence and approval stand beside these fields and are not needed to follow it."""

    model_config = ConfigDict(extra="ignore")

    kind: Literal["prompt", "chain"]
    name: Name
    alias: str
    identity: Digest
    model: Name | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)

    def is_same(self, other: Release | None) -> bool:
        """Say whether the other one means the same outputs."""
        return other is not None and _meaning(self) == _meaning(other)


def _meaning(release: Release) -> tuple[str, str, str, str | None, str]:
    return release.kind, release.name, release.identity, release.model, canonical(release.parameters)


class Evidence(Definition):
    """What a release stands on: the verdict on one candidate, the run it judged, and with which versions.

    candidate: identity of the variant, model and parameters included. evaluators: identities by name.
    policy: what decided besides the gates, and what was asked of the promotion, by name.
    """

    verdict: str
    outcome: Literal["pass"]
    judged_at: AwareDatetime
    run: str
    experiment: Name
    variant: str
    candidate: Digest
    dataset: str
    dataset_version: Digest
    evaluators: dict[str, Digest]
    policy: dict[str, str]


class AuditedRelease(Release):
    """A line as `promote` writes it.

    action: `rollback` takes the alias back to the release before. commit: where the work tree stood in git.
    author: who changed it last. evidence: None only where a rollback restores a line that has none.
    previous: hash of the line before; of all that stands before, in the first such line. hash: of all other fields.
    """

    model_config = ConfigDict(extra="forbid")

    action: Literal["promote", "rollback"]
    stage: Stage
    reason: str = Field(min_length=1)
    author: str
    approver: str
    commit: str
    created_at: AwareDatetime
    evidence: Evidence | None
    line: Int = Field(ge=1)
    previous: Digest
    hash: Digest


def read_releases(data: bytes) -> list[Release]:
    """Return the releases in the order of the file.

    Raises DefinitionError with every line that is none, else with the first one that is not as it was written.
    """
    releases: list[Release] = []
    findings: list[Finding] = []
    values: dict[int, Mapping[str, Any]] = {}
    try:
        for line, value in read_jsonl(data, PATH):
            values[line] = value
            try:
                model = AuditedRelease if _is_audited(value) else Release
                releases.append(build(model, Document(PATH, value)))
            except DefinitionError as error:
                findings += _on_line(line, error)
    except DefinitionError as error:
        findings += error.findings
    findings = findings or list(_broken_link(data, values))
    if findings:
        raise DefinitionError(sorted(findings, key=lambda finding: finding.line or 0))
    return releases


def _is_audited(value: Mapping[str, Any]) -> bool:
    return "hash" in value or "previous" in value


def _on_line(line: int, error: DefinitionError) -> Iterator[Finding]:
    for finding in error.findings:
        yield Finding(PATH, line, None, f"not a release: {finding.message}", finding.hint)


def _broken_link(data: bytes, values: Mapping[int, Mapping[str, Any]]) -> Iterator[Finding]:
    """Yield the first line of the chain that is not as it was written; what comes after it says nothing."""
    before = hashlib.sha256()
    link: str | None = None
    for number, raw in enumerate(BytesIO(data), 1):
        value = values.get(number, {})
        if link is None and not _is_audited(value):
            before.update(raw)
            continue
        if problem := _problem(raw, value, number, link or before.hexdigest()):
            yield Finding(PATH, number, None, problem, _RESTORE)
            return
        link = value["hash"]


def _problem(raw: bytes, value: Mapping[str, Any], number: int, previous: str) -> str | None:
    if not _is_audited(value):
        return "this line was not written by `llmops promote`, as those before it were"
    rest = {key: item for key, item in value.items() if key != "hash"}
    if raw != _encoded(value) or value["hash"] != identity_of(rest):
        return "this line was changed after it was written"
    if value["previous"] != previous or value["line"] != number:
        return "what stands before this line was changed, moved or removed after it was written"
    return None


def _encoded(value: Mapping[str, Any]) -> bytes:
    return f"{canonical(value)}\n".encode(
        "utf-8", "surrogatepass"
    )  # half a character is refused when it is read


def with_release(data: bytes, fields: Mapping[str, Any]) -> tuple[bytes, AuditedRelease]:
    """Return the file with one more line, and what stands there. fields: all but the line's place in the chain.

    Raises DefinitionError when the line, or one before it, does not read.
    """
    releases = read_releases(data)
    last = releases[-1] if releases else None
    if data and not data.endswith(b"\n"):
        data += b"\n"
    linked = last.hash if isinstance(last, AuditedRelease) else hashlib.sha256(data).hexdigest()
    line = {**fields, "line": data.count(b"\n") + 1, "previous": linked}
    longer = data + _encoded({**line, "hash": identity_of(line)})
    written = read_releases(longer)[-1]
    assert isinstance(written, AuditedRelease)  # noqa: S101 - it has a hash
    return longer, written


def current(releases: Iterable[Release], kind: str, name: str, alias: str) -> Release | None:
    """Return the release an alias points at now, or None."""
    found = None
    for release in releases:
        if (release.kind, release.name, release.alias) == (kind, name, alias):
            found = release
    return found


def in_force(releases: Iterable[Release]) -> list[Release]:
    """Return what each alias points at now, in the order in which the aliases were first set."""
    found = {(release.kind, release.name, release.alias): release for release in releases}
    return list(found.values())


def not_rolled_back(releases: Iterable[Release], kind: str, name: str, alias: str) -> list[Release]:
    """Return what an alias has pointed at, oldest first, without what was rolled back; the last is in force."""
    found: list[Release] = []
    for release in releases:
        if (release.kind, release.name, release.alias) != (kind, name, alias):
            continue
        if isinstance(release, AuditedRelease) and release.action == "rollback":
            del found[-1:]
        else:
            found.append(release)
    return found
