"""What `compare` is asked -> pairs of variants: runs by name, and versions by reference as one experiment tried them.

Reads runs from the journal, identities from the workspace and git; writes nothing and runs nothing: of a version that
was never tried it says which command would try it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from llmops.compare import variant_of
from llmops.definitions.reference import FOLDERS, Reference
from llmops.definitions.trees import GitTree
from llmops.definitions.workspace import Workspace, read_reference
from llmops.errors import UsageError, nearest

if TYPE_CHECKING:
    from llmops.definitions.release import Release
    from llmops.records import Run, Variant
    from llmops.stores.journal import Journal

Kind = Literal["prompt", "chain"]

_KINDS: tuple[Kind, ...] = ("prompt", "chain")
_NUMBER = re.compile(r"(?P<name>[^@/]+)@(?P<number>[0-9]{1,11})")


@dataclass(frozen=True, slots=True)
class Side:
    """What one argument names: a run, and those of its variants that may be meant. text: as it was written."""

    text: str
    run: Run
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a prompt or chain. identity: the whole of it or its first digits. release: if an alias named it.

    at: the revision it was asked for at, as written.
    """

    kind: Kind
    name: str
    identity: str
    release: Release | None = None
    at: str | None = None

    @property
    def definition(self) -> str:
        """What it is a version of, as records have it."""
        return f"{FOLDERS[self.kind]}/{self.name}"


@dataclass(frozen=True)
class Finder:
    """Finds the sides of a comparison.

    experiment: in which references were tried; without it, a side is a run. identity_of: the identity of the prompt of
    a name that MLflow has under a number.
    """

    journal: Journal
    workspace: Workspace
    experiment: str | None
    identity_of: Callable[[str, int], str]

    def find(self, text: str) -> Side:
        """Return what a text names: `RUN:VARIANT`, `RUN`, or with an experiment a reference.

        Raises UsageError when there is no such run or variant, or the version has not been tried.
        """
        head, colon, variant = text.partition(":")
        if colon and "@" not in head:
            run = self.journal.named_run(head)
            return Side(text, run, (variant_of(run, variant).name,))
        if self.experiment is None:
            return self._run(text)
        run_of_id = self.journal.find_run(text)
        return _whole(text, run_of_id) if run_of_id is not None else self._tried(self.experiment, text)

    def _run(self, text: str) -> Side:
        folder, slash, name = text.partition("/")
        is_version = "@" in text or (slash and folder in FOLDERS.values())
        if not is_version:
            is_version = self._is_known(name or folder) and not self.journal.runs(
                text, with_comparisons=False
            )
        if is_version and self.journal.find_run(text) is None:
            raise UsageError(f"{text!r} names a version, not a run: add --in EXPERIMENT, where it was tried")
        return _whole(text, self.journal.named_run(text))

    def _is_known(self, name: str) -> bool:
        return any(name in self.workspace.names(kind) for kind in _KINDS)

    # --- versions -----------------------------------------------------------------------------------------

    def _tried(self, experiment: str, text: str) -> Side:
        if not self._runs:
            known = sorted({run.experiment for run in self.journal.runs(with_comparisons=False)})
            hint = nearest(experiment, known) or f"`llmops run {experiment}` runs it"
            raise UsageError(f"no experiment called {experiment!r} has run here; {hint}")
        version = self._version(text)
        for run in self._runs:
            if names := tried_in(run, version):
                return Side(text, run, names)
        raise UsageError(
            f"{text} has not been tried in {experiment}: {self._how_to_try(experiment, version)}"
        )

    @cached_property
    def _runs(self) -> list[Run]:
        """The runs of the experiment, the one begun last first."""
        return self.journal.runs(self.experiment, with_comparisons=False)

    def _version(self, text: str) -> Version:
        folder, slash, rest = text.partition("/")
        kind = next((kind for kind in _KINDS if slash and folder == FOLDERS[kind]), None)
        written = text if kind is None else rest
        if (number := _NUMBER.fullmatch(written)) is not None:
            if kind == "chain":
                raise UsageError(
                    f"{text}: MLflow numbers the versions of prompts; name an identity or git:REV"
                )
            return Version("prompt", number["name"], self.identity_of(number["name"], int(number["number"])))
        reference = read_reference(written)
        kind = kind or self._kind(text, reference)
        if reference.identity:
            return Version(kind, reference.name, reference.identity)
        if reference.alias:
            release = self.workspace.release(kind, reference.name, reference.alias)
            return Version(kind, reference.name, release.identity, release)
        found = self.workspace.resolve(kind, written)
        identity = found.workspace.identity(kind, reference.name)
        return Version(kind, reference.name, identity, at=reference.revision)

    def _kind(self, text: str, reference: Reference) -> Kind:
        """Return whether a name is that of a prompt or of a chain: by the files, then by what was tried."""
        tree = self.workspace.at(reference.revision) if reference.revision else self.workspace
        tried = {variant.definition for run in self._runs for variant in run.variants}
        found = [kind for kind in _KINDS if reference.name in tree.names(kind)] or [
            kind for kind in _KINDS if f"{FOLDERS[kind]}/{reference.name}" in tried
        ]
        if len(found) > 1:
            raise UsageError(f"{text!r} is a prompt and a chain: write prompts/{text} or chains/{text}")
        return found[0] if found else "prompt"

    def _how_to_try(self, experiment: str, version: Version) -> str:
        """Return what would try a version, or why nothing can."""
        at = version.identity if version.at is None else f"git:{version.at}"
        try:
            tree = self.workspace.resolve(version.kind, f"{version.name}@{at}").workspace.tree
        except UsageError as error:
            return str(error)
        run = f"`llmops run {experiment}`"
        file = self.workspace.path("experiment", experiment)
        written = self.workspace.experiment(experiment)
        if not any(
            use.kind == version.kind and read_reference(use.target).name == version.name
            for use in written.variants.values()
            if use.recorded is None
        ):
            return f"add a variant `{{{version.kind}: {version.name}}}` to {file}, then {run}"
        where = _place(version, tree.commit if isinstance(tree, GitTree) else None)
        if where is None or where == written.baseline:
            return f"{run} tries it"
        return f"write `baseline: {where}` in {file}, then {run}"


def _whole(text: str, run: Run) -> Side:
    return Side(text, run, tuple(variant.name for variant in run.variants))


def _place(version: Version, commit: str | None) -> str | None:
    """Return how a baseline names a version, None for one that stands in the work tree."""
    if version.release is not None:
        return f"alias:{version.release.alias}"
    if version.at is not None:
        return f"git:{version.at}"
    return commit and f"git:{commit[:12]}"


def tried_in(run: Run, version: Version) -> tuple[str, ...]:
    """Return the variants of a run that try a version: those of it, or else chains that use the prompt."""
    own = [
        variant.name
        for variant in run.variants
        if variant.definition == version.definition
        and variant.definition_identity.startswith(version.identity)
        and _is_as_released(variant, version.release)
    ]
    if own or version.kind != "prompt":
        return tuple(own)
    return tuple(
        variant.name
        for variant in run.variants
        if variant.kind == "chain" and variant.prompts.get(version.name, "").startswith(version.identity)
    )


def _is_as_released(variant: Variant, release: Release | None) -> bool:
    """Say whether a variant has the model and parameters of a release; a chain's steps may have others."""
    if release is None or variant.kind != "prompt":
        return True
    names = {model.name for model in variant.models}
    is_asked = release.model is None or release.model in names
    return is_asked and all(variant.parameters.get(key) == value for key, value in release.parameters.items())


# --- pairs ------------------------------------------------------------------------------------------------


def pair_sides(baseline: Side, candidate: Side) -> list[tuple[str, str]]:
    """Return the variants to compare, baseline and candidate, in the order of the candidate's run.

    Where each side means one variant, these; otherwise those of one name, and where no name is on both sides,
    a variant and its baseline of elsewhere (`few` and `few@git:main`).

    Raises UsageError when nothing is left to compare, or both sides are the same.
    """
    if baseline.run.id == candidate.run.id and baseline.names == candidate.names:
        names = ", ".join(candidate.names)
        hint = "" if len(candidate.names) == 1 else ": write RUN:VARIANT on both sides"
        raise UsageError(f"both sides are {names} of run {candidate.run.id}{hint}")
    if len(baseline.names) == len(candidate.names) == 1:
        return [(baseline.names[0], candidate.names[0])]
    is_one_run = baseline.run.id == candidate.run.id
    pairs = [
        (old, new) for new in candidate.names for old in baseline.names if old == new and not is_one_run
    ] or [
        (old, new)
        for new in candidate.names
        for old in baseline.names
        if old != new and _base(old) == _base(new)
    ]
    if not pairs:
        sides = "; ".join(f"{side.text} has {', '.join(side.names)}" for side in (baseline, candidate))
        raise UsageError(f"no variant of one name is on both sides, write RUN:VARIANT: {sides}")
    return pairs


def _base(name: str) -> str:
    """Return the name of a variant without where it stands."""
    return name.partition("@")[0]
