"""What an agent's model is told of a tool: name, description and a JSON Schema, read from what the tool uses.

Functions are read as source, from type hints and docstring, and never imported. `check` shows every problem with its
line, and whoever opens an agent refuses the first.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from llmops.definitions.chain import TOOL_NAME, Tool
from llmops.definitions.reference import Kind
from llmops.definitions.schemas import InputTypes, schema_of
from llmops.definitions.workspace import Workspace
from llmops.errors import nearest

_PLAIN = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "None": {"type": "null"},
    "list": {"type": "array"},
    "dict": {"type": "object"},
    "Any": {},
    "object": {},
}
_LISTS = frozenset({"list", "Sequence", "Iterable"})
_MAPPINGS = frozenset({"dict", "Mapping"})
_KNOWN = (
    "str, int, float, bool, None, list[...], dict[str, ...], Literal[...], Annotated[...] and unions of these"
)
_SAID = re.compile(r"^\s*(?::param\s+)?\*{0,2}(?P<name>\w+)(?:\s*\([^)]*\))?\s*:\s+(?P<text>\S.*)$")
_SECTION = re.compile(r"^\s*(?:Args|Arguments|Parameters|Returns|Raises|Yields|Examples?)\s*:\s*$")


class Problem(NamedTuple):
    """What is wrong with a tool. location: of the key below the tool that says it."""

    location: tuple[str | int, ...]
    message: str
    hint: str | None = None


@dataclass(frozen=True)
class ToolSpec:
    """What is told of a tool. schema: of its arguments, an object.

    passed: those of them that go on to the function, prompt or chain as they are, beside what `with` gives.
    """

    name: str
    description: str
    schema: Mapping[str, Any]
    passed: frozenset[str] = frozenset()
    problems: tuple[Problem, ...] = ()


@dataclass
class _Taken:
    """What a function, prompt or chain takes. problems: by input, why its type cannot be told."""

    name: str
    description: str
    properties: dict[str, dict[str, Any]] = field(default_factory=dict)
    required: set[str] = field(default_factory=set)
    problems: dict[str, str] = field(default_factory=dict)
    takes_any: bool = False
    undescribed: str = "give it a `description`, from which the model learns when to call it"


def describe_tool(workspace: Workspace, tool: Tool) -> ToolSpec:
    """Return what a model is told of a tool, with all that is wrong with it.

    Raises UsageError or DefinitionError where what it uses does not exist or is broken.
    """
    taken = _taken(workspace, tool)
    fixed = set(tool.arguments)
    name = tool.name or taken.name
    problems = list(_told_problems(tool, taken, name))
    if tool.inputs is not None:
        schema = _object_of({key: schema_of(kind) for key, kind in tool.inputs.items()}, set(tool.inputs))
        passed = {key for key in tool.inputs if key in taken.properties or taken.takes_any} - fixed
    else:
        open_to_model = {key: said for key, said in taken.properties.items() if key not in fixed}
        schema = _object_of(open_to_model, taken.required - fixed)
        passed = set(open_to_model)
        problems += [
            Problem((tool.verb,), message) for key, message in taken.problems.items() if key not in fixed
        ]
    if tool.body is None:
        problems += _given_problems(tool, taken, passed | fixed)
    return ToolSpec(name, tool.description or taken.description, schema, frozenset(passed), tuple(problems))


def _taken(workspace: Workspace, tool: Tool) -> _Taken:
    if tool.python is not None:
        return _function(tool.python, workspace.code.function_node(tool.python))
    if tool.body is not None:
        return _Taken("", "")
    kind: Kind = "prompt" if tool.prompt is not None else "chain"
    found = workspace.resolve(kind, tool.target)
    definition = getattr(found.workspace, kind)(found.name)
    types: InputTypes = definition.inputs
    properties = {name: schema_of(type_) for name, type_ in types.items()}
    return _Taken(found.name, definition.description or "", properties, set(properties))


def _told_problems(tool: Tool, taken: _Taken, name: str) -> Iterator[Problem]:
    if not name:
        yield Problem((tool.verb,), f"a tool that is {tool.verb} has no name of its own", "write `name:`")
    elif not re.fullmatch(TOOL_NAME, name):
        hint = "letters, digits, _ and -, at most 64: give it such a `name`"
        yield Problem((tool.verb,), f"no service takes {name!r} for the name of a tool", hint)
    if not (tool.description or taken.description):
        yield Problem((tool.verb,), f"nothing says what the tool {name or tool.verb} does", taken.undescribed)
    if tool.body is not None and tool.inputs is None:
        hint = "write `inputs: {NAME: TYPE}`; its templates see them"
        yield Problem((tool.verb,), f"nothing says what the model gives the tool {name or tool.verb}", hint)


def _given_problems(tool: Tool, taken: _Taken, given: set[str]) -> Iterator[Problem]:
    for key in sorted(taken.required - given):
        yield Problem((tool.verb,), f"{tool.target} needs {key!r}, and neither `inputs` nor `with` gives it")
    for key in () if taken.takes_any else tool.arguments:
        if key not in taken.properties:
            hint = nearest(key, taken.properties) or f"it takes: {', '.join(taken.properties) or 'nothing'}"
            yield Problem(("with", key), f"{tool.target} takes no {key!r}", hint)


def _object_of(properties: Mapping[str, Any], required: set[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": [name for name in properties if name in required],
        "additionalProperties": False,
    }


# --- functions ----------------------------------------------------------------------------------------------------


def _function(reference: str, node: ast.FunctionDef | ast.AsyncFunctionDef) -> _Taken:
    """Return what a function takes, by its hints, and what its docstring says of it."""
    docstring = ast.get_docstring(node) or ""
    arguments = node.args
    names = [argument.arg for argument in (*arguments.args, *arguments.kwonlyargs)]
    description, said = _read_docstring(docstring, names)
    taken = _Taken(node.name, description, takes_any=arguments.kwarg is not None)
    taken.undescribed = "give the function a docstring: the model learns from it when to call it"
    defaults = _defaults(arguments)
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
        name = argument.arg
        schema = _hint_schema(argument.annotation)
        if argument in arguments.posonlyargs:
            taken.problems[name] = f"{reference} takes {name!r} by position only; inputs are given by name"
        elif argument.annotation is None:
            taken.problems[name] = f"{reference} gives {name!r} no type, so nobody can tell the model"
        elif schema is None:
            hint = ast.unparse(argument.annotation)
            taken.problems[name] = f"{reference}: {name}: {hint} is no type that JSON has; there are {_KNOWN}"
        told = {"description": said[name]} if name in said else {}
        taken.properties[name] = {**told, **(schema or {}), **defaults.get(name, {})}
        if name not in defaults:
            taken.required.add(name)
    return taken


def _defaults(arguments: ast.arguments) -> dict[str, dict[str, Any]]:
    """Return what a schema says of each parameter that has a default: which, where it is written as plain data."""
    positional = [*arguments.posonlyargs, *arguments.args]
    pairs: list[tuple[ast.arg, ast.expr | None]] = [
        *zip(positional[len(positional) - len(arguments.defaults) :], arguments.defaults, strict=True),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    found: dict[str, dict[str, Any]] = {}
    for argument, default in pairs:
        if default is not None:
            is_plain = isinstance(default, ast.Constant) and isinstance(
                default.value, str | int | float | None
            )
            found[argument.arg] = {"default": ast.literal_eval(default)} if is_plain else {}
    return found


def _read_docstring(docstring: str, names: Sequence[str]) -> tuple[str, dict[str, str]]:
    """Return what a docstring says of the function, and of each parameter that a line `name: text` speaks of."""
    about: list[str] = []
    said: dict[str, str] = {}
    current = None
    for line in docstring.splitlines():
        match = _SAID.match(line)
        if match and match["name"] in names:
            current = match["name"]
            said[current] = match["text"].strip()
        elif _SECTION.match(line):
            current = ""  # what follows is for programmers
        elif not line.strip() and current:
            current = None
        elif current:
            said[current] += f" {line.strip()}"
        elif current is None:
            about.append(line.strip())
    return re.sub(r"\n{2,}", "\n", "\n".join(about)).strip(), said


def _hint_schema(hint: ast.expr | None) -> dict[str, Any] | None:
    """Return the JSON Schema of a type hint; None where there is none."""
    if isinstance(hint, ast.Constant):
        return _of_constant(hint)
    if isinstance(hint, ast.Name | ast.Attribute):
        found = _PLAIN.get(_last_name(hint))
        return None if found is None else dict(found)
    if isinstance(hint, ast.BinOp) and isinstance(hint.op, ast.BitOr):
        return _any_of([hint.left, hint.right])
    if isinstance(hint, ast.Subscript):
        inside = hint.slice
        return _of_subscript(
            _last_name(hint.value), inside.elts if isinstance(inside, ast.Tuple) else [inside]
        )
    return None


def _of_constant(hint: ast.Constant) -> dict[str, Any] | None:
    if hint.value is None:
        return {"type": "null"}
    if not isinstance(hint.value, str):
        return None
    try:
        return _hint_schema(ast.parse(hint.value, mode="eval").body)  # a hint in quotes
    except (SyntaxError, ValueError, RecursionError):
        return None


def _last_name(hint: ast.expr) -> str:
    return hint.attr if isinstance(hint, ast.Attribute) else getattr(hint, "id", "")


def _of_subscript(name: str, inside: list[ast.expr]) -> dict[str, Any] | None:
    if name == "Literal":
        return _of_literal(inside)
    if name == "Annotated":
        return _of_annotated(inside)
    if name in {"Optional", "Union"}:
        return _any_of([*inside, ast.Constant(None)] if name == "Optional" else inside)
    part = _hint_schema(inside[-1])
    if name in _LISTS and part is not None:
        return {"type": "array", **({"items": part} if part else {})}
    is_object = name in _MAPPINGS and len(inside) == 2 and _hint_schema(inside[0]) == {"type": "string"}
    if is_object and part is not None:
        return {"type": "object", **({"additionalProperties": part} if part else {})}
    return None


def _of_literal(inside: list[ast.expr]) -> dict[str, Any] | None:
    values = [item.value for item in inside if isinstance(item, ast.Constant)]
    is_plain = all(isinstance(value, str | int | None) for value in values)
    return {"enum": values} if len(values) == len(inside) and is_plain else None


def _of_annotated(inside: list[ast.expr]) -> dict[str, Any] | None:
    """Return the schema of the type, described by the first text that stands beside it."""
    schema = _hint_schema(inside[0])
    told = [
        item.value for item in inside[1:] if isinstance(item, ast.Constant) and isinstance(item.value, str)
    ]
    return {**schema, "description": told[0]} if schema is not None and told else schema


def _any_of(hints: Sequence[ast.expr]) -> dict[str, Any] | None:
    schemas = [_hint_schema(hint) for hint in hints]
    flat: list[dict[str, Any]] = []
    for schema in schemas:
        if schema is None:
            return None
        flat += schema["anyOf"] if set(schema) == {"anyOf"} else [schema]
    if {} in flat:
        return {}
    kinds = [schema.get("type") for schema in flat]
    if all(set(schema) == {"type"} for schema in flat):
        return {"type": kinds}
    return {"anyOf": flat}
