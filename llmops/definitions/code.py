"""The project's own Python: read as source for identities and checks, and imported only to be called.

Functions for steps and evaluators stand in `chains/NAME.py`. They are loaded from the tree they were resolved
in, so that a chain at an older git revision runs that revision's code beside today's.
"""

from __future__ import annotations

import ast
import builtins
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from threading import RLock
from types import ModuleType
from typing import Any, NamedTuple

from llmops.definitions.base import identity_of
from llmops.definitions.trees import Tree
from llmops.errors import DefinitionError, Finding, LlmopsError, UsageError, nearest

FOLDER = "chains"
_MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")


class Source(NamedTuple):
    """A module of the project. name: dotted, from `chains/` on. package: the one its relative imports start in."""

    name: str
    path: str
    text: str
    package: str

    def absolute(self, name: str, level: int) -> str | None:
        """Return what an import in this module names, from `chains/` on; None when it climbs out of it."""
        if not level:
            return "" if name == FOLDER else name.removeprefix(f"{FOLDER}.")
        parts = self.package.split(".") if self.package else []
        if level - 1 > len(parts):
            return None
        return ".".join([*parts[: len(parts) - level + 1], *([name] if name else [])])


@dataclass
class Code:
    """The Python modules of one tree, by their dotted name; each is executed at most once."""

    tree: Tree
    _sources: dict[str, Source | None] = field(default_factory=dict)
    _modules: dict[str, ModuleType] = field(default_factory=dict)
    _identities: dict[str, str] = field(default_factory=dict)
    _lock: RLock = field(default_factory=RLock)  # functions run in threads, and may import when called

    def source(self, module: str) -> Source | None:
        """Return a module under `chains/`, or None when there is none of that name."""
        if module not in self._sources:
            self._sources[module] = self._find(module) if _MODULE.fullmatch(module) else None
        return self._sources[module]

    def _find(self, module: str) -> Source | None:
        stem = f"{FOLDER}/{module.replace('.', '/')}"
        for path, package in ((f"{stem}/__init__.py", module), (f"{stem}.py", module.rpartition(".")[0])):
            data = self.tree.read(path)
            if data is not None:
                return Source(module, path, decode(data, path), package)
        return None

    def function_node(self, reference: str) -> ast.FunctionDef | ast.AsyncFunctionDef:
        """Return the definition of MODULE:function as syntax; nothing is executed.

        Raises UsageError when the module or the function is missing, DefinitionError when it does not parse.
        """
        module, _, name = reference.partition(":")
        found = self.source(module)
        if found is None:
            known = [entry.removesuffix(".py") for entry in self.tree.names(FOLDER) if entry.endswith(".py")]
            path = f"{FOLDER}/{module.replace('.', '/')}.py"
            raise UsageError(f"no module {path}; {nearest(module, known) or 'write it there'}")
        functions = {
            node.name: node
            for node in parse(found.path, found.text).body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        if name not in functions:
            hint = nearest(name, functions) or f"functions there: {', '.join(functions) or 'none'}"
            raise UsageError(f"{found.path} has no function {name!r}; {hint}")
        return functions[name]

    def identity(self, module: str) -> str:
        """Return the hash of a module's source and of all project modules it imports, by syntax tree.

        Comments and formatting do not count. Installed packages are recorded with the run, not hashed.
        """
        if module not in self._identities:
            self._identities[module] = identity_of(self._syntax_of(module))
        return self._identities[module]

    def _syntax_of(self, module: str) -> dict[str, list[str]]:
        """Return the syntax of a module, of those above it, and of all of the project's that they import."""
        syntax: dict[str, list[str]] = {}
        waiting = [module]
        while waiting:
            name = waiting.pop()
            parent = name.rpartition(".")[0]
            if parent:
                waiting.append(parent)  # importing a.b executes a
            found = self.source(name)
            if found is not None and name not in syntax:
                tree = parse(found.path, found.text)
                syntax[name] = list(_syntax(tree))
                waiting += _imports(tree, found)
        return syntax

    def load(self, reference: str) -> Callable[..., Any]:
        """Return the function MODULE:function, executing its module.

        Raises UsageError when it is missing; whatever the module raises on import comes as UsageError too.
        """
        self.function_node(reference)
        module, _, name = reference.partition(":")
        function: Callable[..., Any] = getattr(self._module(module), name)
        return function

    def _is_own(self, name: str) -> bool:
        if not name:
            return True
        folder = f"{FOLDER}/{name.replace('.', '/')}"
        return self.source(name) is not None or (
            _MODULE.fullmatch(name) is not None
            and any(entry.endswith(".py") for entry in self.tree.names(folder))
        )

    def _module(self, name: str) -> ModuleType:
        """Return a module of the project, executed, with those above it; "" is `chains/` itself."""
        with self._lock:
            if name not in self._modules:
                found = self.source(name)
                above = self._module(name.rpartition(".")[0]) if name else None
                # Dataclasses look their module up by name; two trees may hold modules of the same name.
                module = ModuleType(f"llmops_project_{id(self):x}.{name}")
                self._modules[name] = sys.modules[module.__name__] = module
                if found is not None:
                    self._execute(module, found)
                if above is not None:
                    setattr(above, name.rpartition(".")[2], module)
            return self._modules[name]

    def _execute(self, module: ModuleType, source: Source) -> None:
        module.__file__ = self.tree.place(source.path)
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": partial(self._import, source)}
        try:
            code = compile(source.text, module.__file__, "exec", dont_inherit=True)
            exec(code, module.__dict__)  # noqa: S102 - the repository's own code, about to be called
        except (
            Exception,
            SystemExit,
        ) as error:  # whatever a project's module raises is a fault of that module
            del self._modules[source.name], sys.modules[module.__name__]
            if isinstance(error, LlmopsError):
                raise
            raise UsageError(f"{source.path} failed on import: {type(error).__name__}: {error}") from error

    def _import(
        self,
        importing: Source,
        name: str,
        globals: Mapping[str, object] | None = None,  # noqa: A002 - the signature of __import__
        locals: Mapping[str, object] | None = None,  # noqa: A002
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """Import for one of the project's modules: its neighbours from the same tree, all else as usual."""
        full = importing.absolute(name, level)
        if full is None or not self._is_own(full):
            if level:
                raise ImportError(f"no module {'.' * level}{name} beside {importing.path}")
            return builtins.__import__(name, globals, locals, fromlist or (), 0)
        module = self._module(full)
        for item in fromlist or ():
            inner = f"{full}.{item}" if full else item
            if not hasattr(module, item) and self._is_own(inner):
                self._module(inner)
        if fromlist:
            return module
        return self._module("" if name.startswith(f"{FOLDER}.") else full.partition(".")[0])


def decode(data: bytes, path: str) -> str:
    """Return Python source as text (DefinitionError when it is not UTF-8)."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        finding = Finding(path, None, None, f"byte {error.start} is not UTF-8", "save the file as UTF-8")
        raise DefinitionError(finding) from error


def parse(path: str, source: str) -> ast.Module:
    """Return Python source as syntax (DefinitionError with line and column when it is none)."""
    try:
        return ast.parse(source, path)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line, column = getattr(error, "lineno", None), getattr(error, "offset", None)
        message = getattr(error, "msg", str(error)) or "nested too deeply"
        raise DefinitionError(Finding(path, line, column, f"not Python: {message}")) from error


def _imports(tree: ast.Module, source: Source) -> Iterator[str]:
    """Yield every name under `chains/` that the imports of a module may mean; most are none of the project's."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield source.absolute(alias.name, 0) or ""
        elif isinstance(node, ast.ImportFrom):
            base = source.absolute(node.module or "", node.level)
            if base is not None:
                yield base
                yield from (f"{base}.{alias.name}" if base else alias.name for alias in node.names)


_FORMAL = frozenset({"ctx", "kind", "type_comment"})


def _syntax(tree: ast.AST) -> Iterator[str]:
    """Yield a syntax tree word by word, the same for every version of Python: `ast.dump` is not."""
    waiting: list[object] = [tree]
    while waiting:
        item = waiting.pop()
        if isinstance(item, ast.AST):
            yield type(item).__name__
            fields = [(name, value) for name, value in ast.iter_fields(item) if name not in _FORMAL]
            for name, value in reversed([pair for pair in fields if pair[1] is not None and pair[1] != []]):
                waiting += [_Word(")"), value, _Word(f"({name}")]
        elif isinstance(item, list):
            waiting += [_Word("]"), *reversed(item), _Word("[")]
        elif isinstance(item, _Word):
            yield item
        elif isinstance(item, int) and not isinstance(item, bool):
            yield f"{item:#x}"  # however long it is
        else:
            yield ascii(item)


class _Word(str):
    """A word of our own between those of the source."""
