"""Columns of a flat file -> the fields of a case: by the dataset's `columns`, or by the names themselves.

Text cells of a CSV become what the dataset declares. Whether a case is right is left to `dataset`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

from llmops.definitions.documents import MAX_FINDINGS, brief
from llmops.definitions.json_schema import TYPES
from llmops.definitions.jsonl_reader import parse_value
from llmops.definitions.schemas import InputTypes, Schema, checker, schema_of
from llmops.errors import DefinitionError, Finding, nearest

Convert = Callable[[Any], object]

_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_GOLD = ("expected", "label", "answer", "target", "output", "category", "gold", "team")
_MANY = 10


class _Target(NamedTuple):
    """Where a column's values go. name: within `inputs` or `metadata`; None for a field of its own, or all of them."""

    column: str
    field: str
    name: str | None
    convert: Convert | None


class Columns:
    """Where the columns of one CSV or Parquet file go in a case.

    An absent value (an empty cell, a null) leaves an input out, unless the input is declared to take null, and
    leaves metadata out; an empty cell of an input that is declared as text is the empty text.
    """

    def __init__(
        self,
        names: Sequence[str],
        path: str,
        *,
        mapping: Mapping[str, str],
        inputs: InputTypes,
        expected: Schema | None,
    ) -> None:
        """names: of the columns, in order. Raises DefinitionError when they do not make a case."""
        self._schemas = {f"inputs.{name}": schema_of(kind) for name, kind in inputs.items()}
        self._schemas["expected"] = expected or {}
        self._nullable = {name for name, kind in inputs.items() if checker(schema_of(kind))(None) is None}
        self._of_text = path.lower().endswith(".csv")
        self._targets = [
            self._target(column, target) for column, target in _placed(names, path, mapping, inputs)
        ]

    def fields(self, row: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """Return the fields of the case in a row, and what is wrong with values that cannot be converted."""
        fields: dict[str, Any] = {"id": None, "inputs": {}, "expected": None, "metadata": {}}
        faults = []
        for column, field, name, convert in self._targets:
            value = row[column]
            try:
                value = value if convert is None else convert(value)
            except ValueError as error:
                faults.append(f"column {brief(column)}: {error}")
                continue
            if name is not None:
                fields[field][name] = value
            elif isinstance(value, dict) and field in {"inputs", "metadata"}:
                fields[field] |= value
            elif value is not None or field in {"id", "expected"}:
                fields[field] = value
        self._leave_out(fields)
        return fields, faults

    def _leave_out(self, fields: dict[str, Any]) -> None:
        inputs, metadata = fields["inputs"], fields["metadata"]
        if isinstance(inputs, dict) and None in inputs.values():
            fields["inputs"] = {k: v for k, v in inputs.items() if v is not None or k in self._nullable}
        if isinstance(metadata, dict) and None in metadata.values():
            fields["metadata"] = {key: value for key, value in metadata.items() if value is not None}

    def _target(self, column: str, target: str) -> _Target:
        field, _, name = target.partition(".")
        schema = self._schemas.get(target, {})
        convert = _from_text(schema) if self._of_text else _from_value(schema)
        return _Target(column, field, name or None, convert)


# --- which column goes where ----------------------------------------------------------------------------------


def _placed(
    names: Sequence[str], path: str, mapping: Mapping[str, str], inputs: InputTypes
) -> list[tuple[str, str]]:
    """Return column and target, `inputs.NAME` and the like, of each column that goes anywhere."""
    line = 1 if path.lower().endswith(".csv") else None
    if not mapping:
        if message := _misnamed(names):
            raise DefinitionError(Finding(path, line, None, message, _suggestion(names, inputs)))
        return [(name, name) for name in names if not name.startswith("x-")]
    known = set(names)
    found = [
        Finding(
            path, line, None, f"no column is called {brief(column)}", nearest(column, names) or _shown(names)
        )
        for column in mapping.values()
        if column not in known
    ]
    if found:
        raise DefinitionError(found[:MAX_FINDINGS])
    used = set(mapping.values())
    others = ((name, name if _is_field(name) else f"metadata.{name}") for name in names if name not in used)
    return [(column, target) for column, target in others if target not in mapping] + [
        (column, target) for target, column in mapping.items()
    ]


def _is_field(name: str) -> bool:
    head, _, rest = name.partition(".")
    return name in {"id", "expected", "inputs", "metadata"} or (head in {"inputs", "metadata"} and bool(rest))


def _misnamed(names: Sequence[str]) -> str | None:
    """Return what keeps columns from being the fields of a case by their own names, None when nothing does."""
    unknown = [name for name in names if not _is_field(name) and not name.startswith("x-")]
    if unknown:
        return f"{_listed(unknown)}: no field of a case is called so; they are id, expected, inputs.NAME, metadata.NAME"
    if not any(name == "inputs" or name.startswith("inputs.") for name in names):
        return "no column is an input, as inputs.NAME is"
    return None if "id" in names else "no column is called id"


def _suggestion(names: Sequence[str], inputs: InputTypes) -> str:
    """Return the mapping to write, as near to the names as can be guessed."""
    free = [name for name in names if not _is_field(name) and not name.startswith("x-")]
    guessed: dict[str, str] = {}

    def guess(target: str, words: Iterable[str]) -> None:
        fitting = {name.lower(): name for name in free if name not in guessed.values()}
        close = (get_close_matches(word, fitting, n=1) for word in words)
        if match := next((found[0] for found in close if found), None):
            guessed[target] = fitting[match]

    for name in inputs:
        guess(f"inputs.{name}", (name.lower(),))
    if "expected" not in names:
        guess("expected", _GOLD)
    if "id" not in names:
        guess("id", ("id", "nr", "uid", "key", "number", "case_id"))
        guessed.setdefault("id", "COLUMN")
    if not any(target.startswith("inputs.") for target in guessed):
        wanted = next(iter(inputs), "NAME")
        left = [name for name in free if name not in guessed.values()]
        guessed[f"inputs.{wanted}"] = left[0] if left else "COLUMN"
    written = ", ".join(f"{target}: {_yaml(column)}" for target, column in sorted(guessed.items()))
    return f"map them in the dataset's definition, what stays becomes metadata: columns: {{{written}}}"


def _yaml(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) else f'"{name}"'


def _shown(names: Sequence[str]) -> str:
    return f"columns: {_listed(names)}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MANY:,} more" if len(names) > _MANY else ""
    return ", ".join(map(brief, names[:_MANY])) + more


# --- what a cell stands for -----------------------------------------------------------------------------------


def _types(schema: Mapping[str, Any]) -> frozenset[str]:
    """Return the types that a schema allows, those of its listed values where it names none; empty for any."""
    said = schema.get("type")
    if isinstance(said, str):
        return frozenset({said})
    if isinstance(said, list):
        return frozenset(said)
    listed = schema.get("enum", [schema["const"]] if "const" in schema else [])
    return frozenset(name for name, fits in TYPES.items() if any(map(fits, listed)))


def _from_value(schema: Mapping[str, Any]) -> Convert | None:
    """Return what makes 5.0 the whole number it is declared as: columns with nulls often hold floats."""
    types = _types(schema)
    return _whole if "integer" in types and "number" not in types else None


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _from_text(schema: Mapping[str, Any]) -> Convert:
    """Return what makes of a cell's text a value of the declared type; text stays text."""
    types = _types(schema)
    if "string" in types:
        return str
    if not types:
        return lambda text: text or None
    whole = _from_value(schema)

    def convert(text: str) -> object:
        if not text.strip():
            return None
        value = _value_of(text.strip(), types)
        return whole(value) if whole else value

    return convert


def _value_of(word: str, types: frozenset[str]) -> object:
    if types & {"integer", "number"} and _NUMBER.fullmatch(word):
        return _number(word)
    if "boolean" in types and word.lower() in {"true", "false"}:
        return word.lower() == "true"
    try:
        if types & {"array", "object", "null"}:
            return parse_value(word)
    except ValueError as error:
        raise ValueError(f"{brief(word)} is no JSON that can be taken: {error}") from error
    wanted = " or ".join(sorted(types))
    hint = "; write 1.5 for 1,5" if types & {"number"} and "," in word else ""
    raise ValueError(f"{brief(word)} is not of type {wanted}{hint}")


def _number(word: str) -> int | float:
    if word.lstrip("+-").isdigit():
        return int(word)  # past 4,300 digits a ValueError that says so
    number = float(word)
    if not math.isfinite(number):
        raise ValueError(f"{brief(word)}: infinity and NaN are refused")
    return number
