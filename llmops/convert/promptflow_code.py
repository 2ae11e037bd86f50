"""The Python of a flow, read as source and never executed: copied into the project without prompt flow's own names."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from llmops.convert.account import Page
from llmops.convert.job import Job
from llmops.convert.names import identifier
from llmops.definitions.code import parse
from llmops.definitions.yaml_reader import plain_value
from llmops.errors import DefinitionError, UsageError

MAX_MODULES = 50
_SPELLED = frozenset({"int", "float", "bool"})
_TEXT = '''

def {name}(**values):
    """Return the text of the node {name}."""
    return render_text(parse_template({template}), values)
'''
_STUB = '''

def {name}(**values):
    """Stand in for the node {name}, a tool that llmops does not have."""
    raise NotImplementedError({said})
'''


class Function(NamedTuple):
    """A function that a step calls. names: what it takes, None for anything. kinds: annotations, by name."""

    name: str
    names: frozenset[str] | None
    kinds: Mapping[str, str]

    @property
    def connections(self) -> frozenset[str]:
        """What it takes that are connections."""
        return frozenset(name for name, kind in self.kinds.items() if "Connection" in kind)

    def value(self, name: str, told: Any) -> Any:
        """Return a constant as the number or truth value that it spells, where the function takes one."""
        if not isinstance(told, str) or self.kinds.get(name) not in _SPELLED:
            return told
        try:
            found = plain_value(told.strip().lower())
        except ValueError:
            return told
        return told if isinstance(found, str | None) else found

    def takes(self, name: str) -> bool:
        """Say whether it takes something of a name."""
        return self.names is None or name in self.names


def function_of(text: str) -> Function | None:
    """Return the function of a module that a node calls: the one marked as a tool, else the last."""
    tree = ast.parse(text)
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    marked = [node for node in functions if any(_is_tool(each) for each in node.decorator_list)]
    if not functions:
        return None
    node = (marked or functions)[-1]
    arguments = [*node.args.args, *node.args.kwonlyargs]
    kinds = {each.arg: ast.unparse(each.annotation) for each in arguments if each.annotation}
    names = None if node.args.kwarg else frozenset(each.arg for each in arguments)
    return Function(node.name, names, kinds)


def _is_tool(decorator: ast.expr) -> bool:
    target = decorator.func if isinstance(decorator, ast.Call) else decorator
    return (isinstance(target, ast.Name) and target.id == "tool") or (
        isinstance(target, ast.Attribute) and target.attr == "tool"
    )


@dataclass
class Modules:
    """The Python files of one flow, in a package of the project named after it."""

    job: Job
    page: Page
    _copied: dict[str, str] = field(default_factory=dict)
    _own: dict[str, str] = field(default_factory=dict)

    @property
    def package(self) -> str:
        """What the package is called."""
        return identifier(f"{self.job.name}_nodes")

    def text(self, name: str, template: str) -> str:
        """Take in a function that fills a template, and return its reference."""
        return self._add(name, _TEXT, template=repr(template))

    def stub(self, name: str, kind: str) -> str:
        """Take in a function that raises, and return its reference."""
        said = f"node {name} was a tool of type {kind} in prompt flow: write it here"
        return self._add(name, _STUB, said=repr(said))

    def _add(self, name: str, code: str, **values: str) -> str:
        name = identifier(name)
        self._own[name] = code.format(name=name, **values)
        return f"{self.package}.own:{name}"

    def copy(self, path: str) -> tuple[str, str] | None:
        """Return the dotted name of a file's copy, and its source as it was; None, and why, where it cannot be."""
        stem = path.removesuffix(".py").rpartition("/")[2]
        if not path.endswith(".py") or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", stem) or stem == "own":
            self._note_path(path, "no Python file of a name that can be imported")
            return None
        try:
            page, text = self.job.read_text(path)
            tree = parse(page.document.path, text)
        except (UsageError, DefinitionError) as error:
            self._note_path(path, str(error).partition("\n")[0])
            return None
        name = f"{self.package}.{stem}"
        if path in self._copied:
            page.keep((), f"chains/{name.replace('.', '/')}.py")
            return name, text
        self._copied[path] = ""
        folder = path.rpartition("/")[0]
        self._copied[path], said = self._freed(text, tree, folder)
        self.job.files[f"chains/{self.package}/{stem}.py"] = f"# {self.job.heading}\n{self._copied[path]}"
        if said:
            page.approximate((), f"chains/{name.replace('.', '/')}.py; {'; '.join(said)}")
        else:
            page.keep((), f"chains/{name.replace('.', '/')}.py")
        return name, text

    def _note_path(self, path: str, why: str) -> None:
        for index, node in enumerate(self.page.value["nodes"]):
            if isinstance(node, dict) and (node.get("source") or {}).get("path") == path:
                self.page.drop(("nodes", index, "source"), why)

    def _freed(self, text: str, tree: ast.Module, folder: str) -> tuple[str, list[str]]:
        """Return source without prompt flow's decorator, its imports of neighbours relative; and what was changed."""
        lines = text.split("\n")
        said: list[str] = []
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for each in node.decorator_list:
                    if _is_tool(each):
                        _blank(lines, each)
                        said.append("without @tool")
            elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "promptflow":
                kept = [alias for alias in node.names if alias.name != "tool"]
                if not kept:
                    _blank(lines, node)
                else:
                    said.append(
                        "it needs the package promptflow for " + ", ".join(alias.name for alias in kept)
                    )
            elif isinstance(node, ast.Import | ast.ImportFrom):
                self._bring(node, lines, folder, said)
        return "\n".join(lines), list(dict.fromkeys(said))

    def _bring(
        self, node: ast.Import | ast.ImportFrom, lines: list[str], folder: str, said: list[str]
    ) -> None:
        """Copy the neighbour that an import names, and import it from beside."""
        names = (
            [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        )
        path = f"{folder}/{names[0]}.py" if folder else f"{names[0]}.py"
        if len(names) != 1 or "." in names[0] or not names[0] or not self.job.folder.has(path):
            return
        if len(self._copied) >= MAX_MODULES or (path not in self._copied and self.copy(path) is None):
            said.append(f"{names[0]} could not be copied")
            return
        if isinstance(node, ast.ImportFrom) and not node.level:
            line = lines[node.lineno - 1]
            lines[node.lineno - 1] = re.sub(rf"\bfrom\s+{names[0]}\b", f"from .{names[0]}", line, count=1)
        elif isinstance(node, ast.Import):
            line = lines[node.lineno - 1]
            lines[node.lineno - 1] = re.sub(
                rf"\bimport\s+{names[0]}\b", f"from . import {names[0]}", line, count=1
            )
        said.append(f"{names[0]} imported from beside")

    def write(self) -> None:
        """Write the functions that stand in for nodes without a Python file."""
        if not self._own:
            return
        texts = "".join(self._own.values())
        needs = (
            "\nfrom llmops.definitions.templates import parse_template, render_text\n"
            if "render_text" in texts
            else ""
        )
        head = f'# {self.job.heading}\n"""What nodes without a Python file of their own do."""\n'
        self.job.files[f"chains/{self.package}/own.py"] = head + needs + texts


def _blank(lines: list[str], node: ast.AST) -> None:
    """Empty the lines on which a statement or a decorator stands; what it was stays as a comment."""
    first = getattr(node, "lineno", 1) - 1
    for index in range(first, getattr(node, "end_lineno", first + 1) or first + 1):
        lines[index] = re.sub(r"^(\s*)(.*)$", r"\1# \2", lines[index])
