"""A project's definitions, loaded on demand from one tree, and every reference between them resolved.

Loading checks what one file can tell; `check.py` looks at what only several together can.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

from llmops.definitions.base import Definition, identity_of
from llmops.definitions.build import build
from llmops.definitions.chain import Chain, Use
from llmops.definitions.code import Code
from llmops.definitions.dataset import Dataset, DatasetDefinition, read_cases
from llmops.definitions.documents import BOM, Document
from llmops.definitions.experiment import EvaluatorUse, Experiment
from llmops.definitions.expressions import chain_findings, experiment_findings, prompt_findings
from llmops.definitions.flat_files import SUFFIXES
from llmops.definitions.images import Images, ImageStore
from llmops.definitions.index import Index, Source, folder_of, matches
from llmops.definitions.project import ModelDefinition, Project
from llmops.definitions.prompt import Prompt
from llmops.definitions.recorded import RecordedFile, read_recorded
from llmops.definitions.reference import FOLDERS, Kind, Reference, parse_reference
from llmops.definitions.release import PATH as RELEASES
from llmops.definitions.release import Release, current, read_releases
from llmops.definitions.trees import (
    GitTree,
    Tree,
    WorkTree,
    find_commits,
    resolve_revision,
    shallow_note,
)
from llmops.definitions.yaml_reader import read_yaml
from llmops.errors import DefinitionError, Finding, LlmopsError, UsageError, nearest

PROJECT_FILE = "llmops.yaml"
MODELS: dict[Kind, type[Definition]] = {
    "prompt": Prompt,
    "chain": Chain,
    "index": Index,
    "dataset": DatasetDefinition,
    "experiment": Experiment,
}
MAX_NESTED_CHAINS = 30
T = TypeVar("T")
D = TypeVar("D", bound=Definition)

_SAYS_SOMETHING = re.compile(rb"^[ \t]*[^#\s]", re.MULTILINE)


@dataclass(frozen=True)
class Resolved:
    """What a reference names: the workspace it stands in, its name there, and the release if it was an alias."""

    workspace: Workspace
    kind: Kind
    name: str
    release: Release | None = None


@dataclass(eq=False)
class Workspace:
    """The definitions of one tree. root: the folder of llmops.yaml; today's is the work tree's workspace.

    skip_bad, allow_empty: of today's; what to do with cases that are wrong, and with a dataset or split of none.
    """

    root: Path
    tree: Tree
    _today: Workspace | None = None
    skip_bad: bool = False
    allow_empty: bool = False
    _cache: dict[tuple[str, str], Any] = field(default_factory=dict)
    _broken: dict[tuple[str, str], DefinitionError] = field(default_factory=dict)
    _revisions: dict[str, Workspace] = field(default_factory=dict)
    _blobs: dict[str, bytes] = field(default_factory=dict)
    _loading: list[str] = field(default_factory=list)
    _image_store: ImageStore = field(default_factory=ImageStore)

    @cached_property
    def project(self) -> Project:
        """What llmops.yaml says; defaults when there is none, or it says nothing."""
        return build(Project, self.project_document)

    @cached_property
    def project_document(self) -> Document:
        """llmops.yaml, parsed; an empty mapping when there is none, or it says nothing."""
        data = self.tree.read(PROJECT_FILE) or b""
        if not _SAYS_SOMETHING.search(data.removeprefix(BOM)):
            return Document(PROJECT_FILE, {})
        return read_yaml(data, PROJECT_FILE)

    @cached_property
    def code(self) -> Code:
        """The project's own Python in this tree."""
        return Code(self.tree)

    @cached_property
    def images(self) -> Images:
        """The images in this tree, and those that any tree of the project has shown."""
        return Images(self.tree, self.today._image_store, self.today._read_shown)

    def _read_shown(self) -> None:
        """Read the datasets whose cases show images, for one whose case is known from a store alone."""
        for name in self.names("dataset"):
            with suppress(LlmopsError):
                if "image" in self.dataset_definition(name).inputs.values():
                    self.dataset(name)

    def model(self, name: str) -> ModelDefinition:
        """Return a model of today's llmops.yaml (UsageError when it has none of that name)."""
        models = self.today.project.models
        if name not in models:
            hint = nearest(name, models) or f"models there: {', '.join(models)}"
            raise UsageError(f"llmops.yaml has no model {name!r}; {hint}")
        return models[name]

    @property
    def today(self) -> Workspace:
        """The workspace of the work tree, where datasets under test and evaluators come from."""
        return self._today or self

    def names(self, kind: Kind) -> list[str]:
        """Return the names of all definitions of a kind, sorted."""
        suffix = f".{kind}.yaml"
        return [
            entry.removesuffix(suffix) for entry in self.tree.names(FOLDERS[kind]) if entry.endswith(suffix)
        ]

    def path(self, kind: Kind, name: str) -> str:
        """Return where a definition of that kind and name stands, relative to the root."""
        return f"{FOLDERS[kind]}/{name}.{kind}.yaml"

    def document(self, kind: Kind, name: str) -> Document:
        """Return a definition's file, parsed (UsageError when there is none, with the nearest name)."""
        return self._once(f"{kind}-document", name, lambda: self._read(kind, name))

    def _read(self, kind: Kind, name: str) -> Document:
        path = self.path(kind, name)
        data = self.tree.read(path)
        if data is None:
            raise self._unknown(kind, name)
        return read_yaml(data, path)

    def _unknown(self, kind: Kind, name: str) -> UsageError:
        known = self.names(kind)
        hint = nearest(name, known) or (
            f"there are: {', '.join(known)}" if known else f"write {self.path(kind, name)}"
        )
        return UsageError(f"no {kind} is called {name!r} in {self.tree.label}; {hint}")

    def prompt(self, name: str) -> Prompt:
        """Return a prompt, its templates parsed and their variables declared."""
        return self._checked(Prompt, "prompt", name, prompt_findings)

    def chain(self, name: str) -> Chain:
        """Return a chain whose templates parse and whose graph has no cycle."""
        return self._checked(Chain, "chain", name, chain_findings)

    def experiment(self, name: str) -> Experiment:
        """Return an experiment whose own expressions parse."""
        return self._checked(Experiment, "experiment", name, experiment_findings)

    def dataset(self, name: str) -> Dataset:
        """Return a dataset with its cases, each checked against the definition."""
        return self._once("dataset", name, lambda: self._dataset(name))

    def read_datasets(self) -> list[Dataset]:
        """Return the datasets of this tree whose cases have been read."""
        return [value for value in self._cache.values() if isinstance(value, Dataset)]

    def dataset_definition(self, name: str) -> DatasetDefinition:
        """Return what the definition says, its cases unread."""
        return self.unchecked(DatasetDefinition, "dataset", name)

    def unchecked(self, model: type[D], kind: Kind, name: str) -> D:
        """Return a definition as it is written: of the right shape, its templates unread."""
        return self._once(f"{kind}-unchecked", name, lambda: build(model, self.document(kind, name)))

    def _dataset(self, name: str) -> Dataset:
        definition = self.dataset_definition(name)
        place = self.document("dataset", name).path
        there = self.tree.names(FOLDERS["dataset"])
        files = [f"{FOLDERS['dataset']}/{name}{suffix}" for suffix in SUFFIXES if f"{name}{suffix}" in there]
        if len(files) > 1:
            message = f"its cases stand in more than one file: {' and '.join(files)}"
            raise DefinitionError(Finding(place, None, None, message, "keep one of them"))
        data = self.tree.open(files[0]) if files else None
        if data is None:
            message = f"its cases are missing: no {FOLDERS['dataset']}/{name}.jsonl, .csv or .parquet"
            raise DefinitionError(Finding(place, None, None, message))
        with data:
            return read_cases(
                name,
                data,
                files[0],
                definition,
                images=self.images,
                skip_bad=self.today.skip_bad,
                allow_empty=self.today.allow_empty,
            )

    def index(self, name: str) -> Index:
        """Return an index; what stands in its sources is read by whoever builds it."""
        return self.unchecked(Index, "index", name)

    def source_files(self, source: Source) -> list[str]:
        """Return the paths of the files that a source of an index names, sorted."""
        found: set[str] = set()
        for glob in source.globs:
            folder = folder_of(glob)
            paths = self._once("paths", folder, partial(self.tree.paths, folder))
            found.update(path for path in paths if matches(glob, path))
        return sorted(found)

    def recorded(self, path: str) -> RecordedFile:
        """Return the outputs that another system gave, from their file (UsageError when there is none)."""
        return self._once("recorded", path, lambda: self._recorded(path))

    def _recorded(self, path: str) -> RecordedFile:
        data = self.tree.open(path)
        if data is None:
            folder, _, name = path.rpartition("/")
            hint = nearest(name, self.tree.names(folder or ".")) or "it is relative to llmops.yaml"
            raise UsageError(f"no file {path} in {self.tree.label}; {hint}")
        with data:
            return read_recorded(data, path)

    def _checked(
        self, model: type[D], kind: Kind, name: str, findings: Callable[[D, Document], list[Finding]]
    ) -> D:
        def make() -> D:
            value = self.unchecked(model, kind, name)
            if found := findings(value, self.document(kind, name)):
                raise DefinitionError(found)
            return value

        return self._once(kind, name, make)

    def remember(self, what: str, name: str, make: Callable[[], T]) -> T:
        """Return what `make` gives, once for all who ask this workspace for the same."""
        return self._once(what, name, make)

    def _once(self, what: str, name: str, make: Callable[[], T]) -> T:
        key = (what, name)
        if key in self._broken:
            raise self._broken[key]
        if key not in self._cache:
            try:
                self._cache[key] = make()
            except DefinitionError as error:
                self._broken[key] = error
                raise
        found: T = self._cache[key]
        return found

    # --- references ---------------------------------------------------------------------------------------

    def at(self, revision: str) -> Workspace:
        """Return the workspace as it stands at a git revision (UsageError when git knows none)."""
        return self._at_commit(resolve_revision(self.root, revision))

    def _at_commit(self, commit: str) -> Workspace:
        today = self.today
        if commit not in today._revisions:
            tree = GitTree(self.root, commit, today._blobs)
            today._revisions[commit] = Workspace(self.root, tree, today)
        return today._revisions[commit]

    @cached_property
    def releases(self) -> list[Release]:
        """Every move of an alias, oldest first."""
        data = self.today.tree.read(RELEASES)
        return [] if data is None else read_releases(data)

    def resolve(self, kind: Kind, text: str) -> Resolved:
        """Return what a reference names.

        Raises UsageError when no such name, alias, identity or revision is known, with what is.
        """
        reference = read_reference(text)
        if reference.split and kind != "dataset":
            raise UsageError(f"{text}: a {kind} has no splits")
        if reference.alias:
            return self.released(kind, reference.name, reference.alias)
        if reference.identity:
            return Resolved(self._with_identity(kind, reference), kind, reference.name)
        workspace = self.at(reference.revision) if reference.revision else self
        if reference.name not in workspace.names(kind):
            raise workspace._unknown(kind, reference.name)
        return Resolved(workspace, kind, reference.name)

    def released(self, kind: Kind, name: str, alias: str) -> Resolved:
        """Return where the release stands that an alias of a prompt or chain points at now; raises as `release`."""
        release = self.release(kind, name, alias)
        workspace = self._with_identity(kind, Reference(name, identity=release.identity))
        return Resolved(workspace, kind, name, release)

    def release(self, kind: Kind, name: str, alias: str) -> Release:
        """Return the release an alias points at now.

        Raises UsageError when no such alias was ever set.
        """
        release = current(self.today.releases, kind, name, alias)
        if release is None:
            known = sorted({r.alias for r in self.today.releases if (r.kind, r.name) == (kind, name)})
            hint = f"no release of it stands in {RELEASES}"
            if known:
                hint = nearest(alias, known) or f"its aliases: {', '.join(known)}"
            raise UsageError(f"{name}@{alias}: no such alias; {hint}")
        return release

    def _with_identity(self, kind: Kind, reference: Reference) -> Workspace:
        wanted = reference.identity or ""
        if self.today._stands(kind, reference.name, wanted):
            return self.today
        unknown = f"{reference}: no {kind} of that identity stands here"
        try:
            commits = find_commits(self.root, self._folders())
        except UsageError as error:
            raise UsageError(f"{unknown}, and there is no history to look in: {error}") from error
        for commit in commits:
            then = self._at_commit(commit)
            if then._stands(kind, reference.name, wanted):
                return then
        note = shallow_note(self.root)
        raise UsageError(f"{unknown} or in git's history" + (f"; {note}" if note else ""))

    def _folders(self) -> set[str]:
        """Return the folders in which an identity can change: those of definitions, and of what indexes read."""
        indexes = [self.today.index(name) for name in self.today.names("index")]
        read = {folder_of(glob) for index in indexes for each in index.sources for glob in each.globs}
        return {*FOLDERS.values(), *(folder or "." for folder in read)}

    def _stands(self, kind: Kind, name: str, wanted: str) -> bool:
        """Return whether a definition of that identity stands in this tree; a broken or absent one is another."""
        try:
            return name in self.names(kind) and self.identity(kind, name).startswith(wanted)
        except LlmopsError:
            return False

    def cases(self, text: str) -> tuple[Dataset, str | None]:
        """Return the dataset a reference names, and its split.

        Raises UsageError when the dataset has no such split.
        """
        found = self.resolve("dataset", text)
        split = read_reference(text).split
        dataset = found.workspace.dataset(found.name)
        if split and split not in dataset.split_names and not self.today.allow_empty:
            hint = nearest(split, dataset.split_names)
            known = f"its splits: {', '.join(dataset.split_names) or 'none'}"
            raise UsageError(f"dataset {found.name} has no split {split!r}; {hint or known}")
        return dataset, split

    # --- identities ---------------------------------------------------------------------------------------

    def identity(self, kind: Kind, name: str) -> str:
        """Return the SHA-256 of a definition's meaning with that of everything it refers to."""
        return self._once(f"{kind}-identity", name, lambda: self._identity(kind, name))

    def _identity(self, kind: Kind, name: str) -> str:
        if kind == "prompt":
            return self.prompt_identity(self.prompt(name))
        if kind == "chain":
            with self._inside(name):
                return self.chain_identity(self.chain(name))
        if kind == "index":
            return self._index_identity(self.index(name))
        if kind == "dataset":
            return self.dataset(name).version()
        return identity_of(self.experiment(name).meaning())

    def _index_identity(self, index: Index) -> str:
        """Hash what is written and the files named, not what stands outside the project."""
        files = {path: self._digest(path) for source in index.sources for path in self.source_files(source)}
        return identity_of({"index": index.meaning(), "files": files})

    def _digest(self, path: str) -> str:
        digest = hashlib.sha256()
        with self.tree.open_path(path) as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
        return digest.hexdigest()

    @contextmanager
    def _inside(self, chain: str) -> Iterator[None]:
        """Refuse chains that use one another in a circle, or too deep for anyone to follow."""
        if chain in self._loading:
            circle = [*self._loading[self._loading.index(chain) :], chain]
            raise UsageError(f"chains use one another in a circle: {' -> '.join(circle)}")
        if len(self._loading) >= MAX_NESTED_CHAINS:
            raise UsageError(f"chains use one another more than {MAX_NESTED_CHAINS} deep")
        self._loading.append(chain)
        try:
            yield
        finally:
            self._loading.pop()

    def prompt_identity(self, prompt: Prompt) -> str:
        """Return the identity of a prompt, the cases of its examples and the images it names included."""
        shown = None
        if prompt.examples is not None and prompt.examples.k:
            dataset, split = self.cases(prompt.examples.source)
            shown = dataset.version(split)
        images = self.images_of(prompt)
        return identity_of(
            {"prompt": prompt.meaning(), "examples": shown, **({"images": images} if images else {})}
        )

    def images_of(self, prompt: Prompt) -> dict[str, str]:
        """Return the hash of each image that a prompt names, by its path (UsageError for one that is wrong)."""
        return {source: self.images.look_at(source).sha256 for source in prompt.images}

    def chain_identity(self, chain: Chain) -> str:
        """Return the identity of a chain, with those of the prompts, chains and code of its steps."""
        used = {step.id: self.step_identity(step) for step in chain.steps}
        return identity_of({"chain": chain.meaning(), "uses": used})

    def step_identity(self, use: Use) -> str:
        """Return the identity of what a verb names; a release counts with its model and parameters."""
        if use.retrieve is not None:
            index = self.resolve("index", use.retrieve.index)
            return index.workspace.identity("index", index.name)
        if use.body is not None:
            inside = [self.step_identity(inner.use) for inner in use.body.uses()]
            return identity_of(inside + ([] if use.guard is None else self._judged_by(use.guard.evaluators)))
        if use.python is not None:
            return self.code.identity(use.python.partition(":")[0])
        kind: Kind = "prompt" if use.prompt is not None else "chain"
        found = self.resolve(kind, use.target)
        identity = found.workspace.identity(kind, found.name)
        if found.release is None:
            return identity
        return identity_of([identity, found.release.model, found.release.parameters])

    def _judged_by(self, evaluators: Sequence[EvaluatorUse]) -> list[str]:
        """Return the identities of the functions and prompts that evaluators name."""
        found = []
        for use in evaluators:
            if use.kind == "python":
                found.append(self.code.identity(str(use.options.get("function", "")).partition(":")[0]))
            elif prompt := use.options.get("prompt"):
                resolved = self.resolve("prompt", str(prompt))
                found.append(resolved.workspace.identity("prompt", resolved.name))
        return found

    def __repr__(self) -> str:
        return f"Workspace({self.tree.label})"


def load_workspace(root: Path) -> Workspace:
    """Return the workspace of the project at a folder."""
    return Workspace(root, WorkTree(root))


def find_root(start: Path) -> Path:
    """Return the nearest folder at or above `start` that is a project.

    Raises UsageError when there is none.
    """
    for folder in (start, *start.parents):
        if (folder / PROJECT_FILE).is_file():
            return folder
    raise UsageError(f"no {PROJECT_FILE} here or above: run `llmops init` to start a project")


def read_reference(text: str) -> Reference:
    """Return the parts of a reference (UsageError when it is none)."""
    try:
        return parse_reference(text)
    except ValueError as error:
        raise UsageError(str(error)) from error
