"""One conversion in progress: what is read, what became of it, and what will be written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmops.convert.account import Page
from llmops.convert.folder import Folder
from llmops.convert.keys import register_secrets
from llmops.convert.names import file_name
from llmops.convert.yaml_writer import write_yaml
from llmops.definitions.base import canonical
from llmops.definitions.documents import Document, Mark
from llmops.definitions.project import Project
from llmops.definitions.reference import FOLDERS, Kind
from llmops.definitions.yaml_reader import read_yaml
from llmops.errors import UsageError

DEFAULT_MODEL = "default"


@dataclass
class Job:
    """What converters are given. source: the file's name in `folder`; name: what is written is called so.

    files: path below the project to text. models: blocks for llmops.yaml, by name.
    """

    folder: Folder
    source: str
    name: str
    project: Project
    pages: list[Page] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    is_named: bool = False
    """Whether somebody asked for that name."""
    configured: Sequence[str] = ()
    """Keys of mappings in which services are configured: secrets stand there by name."""

    def read_yaml(self, path: str) -> Page:
        """Return a YAML or JSON file (DefinitionError when it is broken, UsageError when it is not there)."""
        if (known := self.page(path)) is not None:
            return known
        return self.open(read_yaml(self.folder.read(path), self.folder.path(path)))

    def open(self, document: Document) -> Page:
        """Return a page for a document, whose leaves are accounted for from now on; its keys stay secret."""
        register_secrets(document.value, within=self.configured)
        page = Page(document)
        self.pages.append(page)
        return page

    def page(self, path: str) -> Page | None:
        """Return the page of a file that has been read already."""
        shown = self.folder.path(path)
        return next((page for page in self.pages if page.document.path == shown), None)

    def read_text(self, path: str) -> tuple[Page, str]:
        """Return a text file as a page of one leaf, and its text."""
        text = self.folder.text(path)
        if (known := self.page(path)) is not None:
            return known, text
        return self.open(Document(self.folder.path(path), text, Mark(1, 1))), text

    def write(self, kind: Kind, name: str, value: Mapping[str, Any]) -> str:
        """Take in a definition to be written, and return its name, another one where it is taken."""
        taken = {path.rpartition("/")[2].partition(".")[0] for path in self.of(kind)}
        name = name if name not in taken else file_name(name, taken=taken)
        self.files[f"{FOLDERS[kind]}/{name}.{kind}.yaml"] = write_yaml(value, self.heading)
        return name

    def write_cases(
        self, name: str, definition: Mapping[str, Any], cases: Sequence[Mapping[str, Any]]
    ) -> str:
        """Take in a dataset with its cases, and return its name."""
        name = self.write("dataset", name, definition)
        rows = (json.dumps(case, ensure_ascii=False) for case in cases)
        self.files[f"{FOLDERS['dataset']}/{name}.jsonl"] = "".join(f"{row}\n" for row in rows)
        return name

    def of(self, kind: Kind) -> list[str]:
        """Return the paths of the definitions of a kind that will be written."""
        return [path for path in self.files if path.endswith(f".{kind}.yaml")]

    @property
    def heading(self) -> str:
        """The comment on the first line of what is written."""
        shown = "".join(sign if sign.isprintable() else "?" for sign in self.source)
        return f"converted from {shown} by llmops convert"

    def model(self, block: Mapping[str, Any]) -> tuple[str, bool]:
        """Return the model of llmops.yaml that a block describes, and whether it is there already.

        One that is not is asked of the default model until somebody adds its block.
        """
        for name, known in self.project.models.items():
            if (known.provider, known.model) == (block["provider"], block.get("model")):
                return name, True
        taken = {*self.project.models, *(key for key, other in self.models.items() if other != dict(block))}
        name = file_name(str(block.get("model") or block["provider"]), taken=taken)
        self.models[name] = dict(block)
        return self.default_model, False

    @property
    def default_model(self) -> str:
        """The model that prompts are asked of where theirs is not in llmops.yaml."""
        if DEFAULT_MODEL in self.project.models:
            return DEFAULT_MODEL
        if not self.project.models:
            raise UsageError("llmops.yaml has no model: write `models: {default: {provider: embedded}}`")
        return next(iter(self.project.models))

    @property
    def judge_model(self) -> str:
        """The model that judges: `judge` where llmops.yaml has one of that name."""
        return "judge" if "judge" in self.project.models else self.default_model


def same(first: object, second: object) -> bool:
    """Say whether two plain values are the same, true and 1 apart."""
    return canonical(first) == canonical(second)
