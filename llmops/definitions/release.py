"""Releases: which version an alias points at, read from `experiments/releases.jsonl`, last line wins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from llmops.definitions.base import Definition, Name
from llmops.definitions.build import build
from llmops.definitions.documents import Document
from llmops.definitions.jsonl_reader import read_jsonl
from llmops.errors import DefinitionError, Finding

PATH = "experiments/releases.jsonl"


class Release(Definition):
    """One move of an alias. Evidence and approval stand beside these fields and are not needed to follow it."""

    model_config = ConfigDict(extra="ignore")

    kind: Literal["prompt", "chain"]
    name: Name
    alias: str
    identity: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    model: Name | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)


def read_releases(data: bytes) -> list[Release]:
    """Return the releases in the order of the file.

    Raises DefinitionError with every line that is none.
    """
    releases: list[Release] = []
    findings: list[Finding] = []
    try:
        for line, value in read_jsonl(data, PATH):
            try:
                releases.append(build(Release, Document(PATH, value)))
            except DefinitionError as error:
                findings += _on_line(line, error)
    except DefinitionError as error:
        findings += error.findings
    if findings:
        raise DefinitionError(sorted(findings, key=lambda finding: finding.line or 0))
    return releases


def _on_line(line: int, error: DefinitionError) -> Iterator[Finding]:
    for finding in error.findings:
        yield Finding(PATH, line, None, f"not a release: {finding.message}", finding.hint)


def current(releases: Iterable[Release], kind: str, name: str, alias: str) -> Release | None:
    """Return the release an alias points at now, or None."""
    found = None
    for release in releases:
        if (release.kind, release.name, release.alias) == (kind, name, alias):
            found = release
    return found
