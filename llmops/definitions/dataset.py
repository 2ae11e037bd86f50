"""A dataset: cases in a file, and beside it what they are, how they are split and what holds them together."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator

from llmops.definitions.base import Definition, Float, Int, Name, canonical, identity_of
from llmops.definitions.documents import MAX_FINDINGS, brief, kind_of, refusal
from llmops.definitions.jsonl_reader import read_jsonl
from llmops.definitions.schemas import InputTypes, Schema, checker, schema_of
from llmops.errors import DefinitionError, Finding, nearest


def _check_field(path: str) -> str:
    head, _, rest = path.partition(".")
    if path not in {"id", "expected"} and not (head in {"inputs", "expected", "metadata"} and rest):
        raise ValueError(f"{path!r} is no field of a case: write metadata.NAME, inputs.NAME, expected or id")
    return path


FieldPath = Annotated[str, AfterValidator(_check_field)]
"""Where in a case a value stands: `metadata.split`."""


class Case(Definition):
    """One `inputs` with what is expected of it. split, slice, cluster: as the definition derives them."""

    id: str
    inputs: Mapping[str, Any]
    expected: Any = None
    metadata: Mapping[str, Any] = Field(default_factory=dict)
    split: str | None = None
    slice: str | None = None
    cluster: str | None = None

    def key(self) -> str:
        """Return the hash of everything in the case."""
        parts = (self.id, self.inputs, self.expected, self.metadata, self.split, self.slice, self.cluster)
        return identity_of(parts)

    def input_key(self) -> str:
        """Return the hash of what can change an output: gold answers and metadata cannot."""
        return identity_of([self.id, self.inputs, self.cluster])


class Slices(Definition):
    """Which slice a case is in, and how many cases each needs in every split that is evaluated."""

    by: FieldPath
    at_least: dict[str, Annotated[Int, Field(ge=1)]] = Field(default_factory=dict)


class DatasetDefinition(Definition):
    """What `datasets/NAME.dataset.yaml` says.

    columns: for flat files, `inputs.NAME`, `expected`, `id` or `metadata.NAME` to the column's name.
    splits: `{by: PATH}`, or shares of the whole by hash of cluster and id.
    """

    description: str | None = None
    kind: Literal["evaluation", "few_shot", "grounding", "preference"] = "evaluation"
    inputs: InputTypes = Field(default_factory=dict)
    expected: Schema | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    splits: dict[Name, str | Float] = Field(default_factory=dict)
    slices: Slices | None = None
    cluster: FieldPath | None = None
    license: str | None = None
    origin: str | None = None

    @field_validator("splits")
    @classmethod
    def _shares(cls, splits: dict[str, str | float]) -> dict[str, str | float]:
        by = splits.get("by")
        if isinstance(by, str):
            if len(splits) > 1:
                raise ValueError("write {by: PATH} or shares, not both")
            _check_field(by)
            return splits
        shares = [share for share in splits.values() if not isinstance(share, str)]
        if len(shares) < len(splits) or not all(0 < share <= 1 for share in shares):
            raise ValueError("write {by: PATH}, or a share between 0 and 1 for each name")
        if shares and abs(sum(shares) - 1) > 1e-9:
            raise ValueError(f"the shares add up to {sum(shares):g}, not to 1")
        return splits

    @field_validator("columns")
    @classmethod
    def _name_fields(cls, columns: dict[str, str]) -> dict[str, str]:
        for target in columns:
            head, _, rest = target.partition(".")
            if target not in {"id", "expected"} and not (head in {"inputs", "metadata"} and rest):
                raise ValueError(f"{target!r} is none of id, expected, inputs.NAME, metadata.NAME")
        if columns and not any(target.startswith("inputs.") for target in columns):
            raise ValueError("no column is an input; write inputs.NAME: COLUMN")
        return columns


@dataclass(frozen=True)
class Dataset:
    """The cases of a dataset, in the order of the file. path: of the data file, as people type it."""

    name: str
    path: str
    definition: DatasetDefinition
    cases: tuple[Case, ...]

    @cached_property
    def split_names(self) -> tuple[str, ...]:
        """The names of the splits that have cases, sorted."""
        return tuple(sorted({case.split for case in self.cases if case.split is not None}))

    def of(self, split: str | None) -> tuple[Case, ...]:
        """Return the cases of a split, or all."""
        return self.cases if split is None else tuple(case for case in self.cases if case.split == split)

    def input_names(self, split: str | None = None) -> frozenset[str]:
        """Return the names of the inputs that every case of a split has."""
        if self.definition.inputs:
            return frozenset(self.definition.inputs)
        cases = self.of(split)
        return frozenset.intersection(*(frozenset(case.inputs) for case in cases)) if cases else frozenset()

    def version(self, split: str | None = None) -> str:
        """Return the SHA-256 over the content of a split's cases, in the order of the file."""
        digest = hashlib.sha256()
        for case in self.of(split):
            digest.update(case.key().encode())
        return digest.hexdigest()


def read_cases(name: str, data: bytes, path: str, definition: DatasetDefinition) -> Dataset:
    """Return the dataset in the bytes of a JSONL file.

    Raises DefinitionError with every line that is wrong, at most twenty, and how many more there are.
    """
    problems = _Problems(path)
    maker = _CaseMaker(definition, problems)
    seen = _Ids(problems)
    cases = []
    try:
        for line, value in read_jsonl(data, path):
            case = maker.make(line, value)
            if case is not None:
                seen.add(line, case.id)
                cases.append(case)
    except DefinitionError as error:
        problems.join(error)
    if not cases and not problems:
        problems.add(None, "the dataset has no cases", "write one JSON object a line, with an id and inputs")
    problems.raise_any()
    return Dataset(name, path, definition, tuple(cases))


class _Problems:
    """Findings of one data file, in the order of its lines, listed up to a cap and counted beyond it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._listed: list[Finding] = []
        self._counts: list[Finding] = []
        self._n_unlisted = 0

    def __len__(self) -> int:
        return len(self._listed) + self._n_unlisted

    def add(self, line: int | None, message: str, hint: str | None = None) -> None:
        if len(self._listed) < MAX_FINDINGS:
            self._listed.append(Finding(self._path, line, None, message, hint))
        else:
            self._n_unlisted += 1

    def join(self, error: DefinitionError) -> None:
        """Take in what the reader of the lines has found, and how many more it has counted."""
        self._listed += [finding for finding in error.findings if finding.line is not None]
        self._counts += [finding for finding in error.findings if finding.line is None]

    def raise_any(self) -> None:
        if self._listed or self._counts:
            listed = refusal(self._listed, self._n_unlisted).findings if self._listed else ()
            raise DefinitionError([*listed, *self._counts])


class _Ids:
    """Refuses ids that are the same, or differ only in what eyes and file systems do not see."""

    def __init__(self, problems: _Problems) -> None:
        self._problems = problems
        self._lines: dict[str, tuple[str, int]] = {}

    def add(self, line: int, case_id: str) -> None:
        folded = case_id if case_id.isascii() else unicodedata.normalize("NFC", case_id)
        earlier = self._lines.setdefault(folded.strip().casefold(), (case_id, line))
        if earlier[1] == line:
            return
        same = (
            ""
            if earlier[0] == case_id
            else f" as {brief(earlier[0])}: they differ only in case, form or spaces"
        )
        self._problems.add(
            line, f"id {brief(case_id)} stands already on line {earlier[1]}{same}", "ids are unique"
        )


_FIELDS = ("id", "inputs", "expected", "metadata")
_SMALL = (str, int, float)


class _CaseMaker:
    """Makes a case of a line's object, or says what is wrong with it."""

    def __init__(self, definition: DatasetDefinition, problems: _Problems) -> None:
        self._definition = definition
        self._problems = problems
        self._checkers = {name: checker(schema_of(kind)) for name, kind in definition.inputs.items()}
        self._expected = None if definition.expected is None else checker(definition.expected)
        self._slice = definition.slices.by if definition.slices else None
        by = definition.splits.get("by")
        self._split = by if isinstance(by, str) else None
        # In the order of their names: how the file is written must not decide who goes where.
        shares = [] if self._split else sorted(definition.splits.items())
        self._shares = [(name, float(share)) for name, share in shares]

    def make(self, line: int, value: dict[str, Any]) -> Case | None:
        before = len(self._problems)
        shape = self._flat if self._definition.columns else self._nested
        fields = shape(line, value)
        if fields is None:
            return None
        inputs, expected = fields["inputs"], fields["expected"]
        if len(inputs) != len(self._checkers) or inputs.keys() != self._checkers.keys():
            self._check_names(line, fields)
        for name, problem_of in self._checkers.items():
            if name in inputs and (problem := problem_of(inputs[name])):
                self._problems.add(line, f"case {brief(fields['id'])}: input {name!r}: {problem}")
        if self._expected is not None and (problem := self._expected(expected)):
            what = "expected is missing" if expected is None else f"expected {problem}"
            self._problems.add(line, f"case {brief(fields['id'])}: {what}")
        slice_name = self._label(line, fields, self._slice)
        cluster = self._label(line, fields, self._definition.cluster)
        split = (
            self._label(line, fields, self._split) if self._split else self._share(cluster or fields["id"])
        )
        if len(self._problems) > before:
            return None
        return Case.model_construct(**fields, split=split, slice=slice_name, cluster=cluster)

    def _nested(self, line: int, value: dict[str, Any]) -> dict[str, Any] | None:
        for key in value:
            if key not in _FIELDS and not key.startswith("x-"):
                hint = nearest(key, _FIELDS) or f"known keys: {', '.join(_FIELDS)}"
                self._problems.add(line, f"unknown key {brief(key)}", hint)
                return None
        inputs, metadata = value.get("inputs"), value.get("metadata", {})
        if not isinstance(inputs, dict):
            hint = 'write "inputs": {"NAME": ...}, or map `columns`'
            self._problems.add(line, "a case has its inputs by name", hint)
            return None
        if not isinstance(metadata, dict):
            self._problems.add(line, f"metadata is an object, not {kind_of(metadata)}")
            return None
        return self._with_id(
            line,
            {
                "id": value.get("id"),
                "inputs": inputs,
                "expected": value.get("expected"),
                "metadata": metadata,
            },
        )

    def _flat(self, line: int, value: dict[str, Any]) -> dict[str, Any] | None:
        columns = self._definition.columns
        mapped = set(columns.values())
        rest = {key: item for key, item in value.items() if key not in mapped}
        fields: dict[str, Any] = {
            "id": rest.pop("id", None),
            "inputs": {},
            "expected": rest.pop("expected", None),
        }
        nested = rest.pop("metadata", None) if isinstance(rest.get("metadata"), dict) else None
        fields["metadata"] = {**rest, **(nested or {})}
        for target, column in columns.items():
            if column not in value:
                hint = nearest(column, value) or f"columns of this line: {', '.join(map(brief, value))}"
                self._problems.add(line, f"no column is called {brief(column)}", hint)
                return None
            head, _, name = target.partition(".")
            if name:
                fields[head][name] = value[column]
            else:
                fields[head] = value[column]
        return self._with_id(line, fields)

    def _with_id(self, line: int, fields: dict[str, Any]) -> dict[str, Any] | None:
        case_id = fields["id"]
        if isinstance(case_id, int) and not isinstance(case_id, bool):
            fields["id"] = case_id = str(case_id)
        if isinstance(case_id, str) and case_id.strip():
            return fields
        is_wrong = case_id is not None and not isinstance(case_id, str)
        message = (
            f"an id is text or a whole number, not {kind_of(case_id)}" if is_wrong else "the case has no id"
        )
        self._problems.add(line, message, 'give each case an "id" that stays the same for good')
        return None

    def _check_names(self, line: int, fields: dict[str, Any]) -> None:
        case_id, inputs, declared = fields["id"], fields["inputs"], self._checkers
        for name in inputs if declared else ():
            if name not in declared:
                hint = nearest(name, declared) or f"declared: {', '.join(declared)}"
                self._problems.add(line, f"case {brief(case_id)}: input {brief(name)} is not declared", hint)
        for name in declared:
            if name not in inputs:
                self._problems.add(line, f"case {brief(case_id)}: input {name!r} is missing")

    def _label(self, line: int, fields: Mapping[str, Any], path: str | None) -> str | None:
        """Return the text or number at a path; None where there is none, or nothing but spaces."""
        if path is None:
            return None
        value: object = fields
        for part in path.split("."):
            if not isinstance(value, Mapping) or part not in value:
                return None
            value = value[part]
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, _SMALL):
            self._problems.add(
                line, f"case {brief(fields['id'])}: {path} is {kind_of(value)}, not text or a number"
            )
            return None
        return str(value) if not isinstance(value, str) or value.strip() else None

    def _share(self, key: str) -> str | None:
        """Return the split that the hash of a cluster or id falls into: the same for good."""
        if not self._shares:
            return None
        digest = hashlib.sha256(canonical(["split", key]).encode("utf-8", "surrogatepass")).digest()
        place = int.from_bytes(digest[:8], "big") / 2**64
        for name, share in self._shares:
            place -= share
            if place < 0:
                return name
        return self._shares[-1][0]


_MARKS = re.compile(r"""[\s.,;:!?"'`“”„‘’‚«»‹›…¡¿()\[\]{}]+""")


def near_equal(value: Any) -> Any:
    """Return the form under which two inputs count as the same: texts without case, spaces and punctuation.

    Signs that carry a meaning stay, so that "3 - 2" is not "3 + 2"; a text of nothing else is left as it is.
    """
    if isinstance(value, str):
        return _MARKS.sub(" ", unicodedata.normalize("NFKC", value).casefold()).strip() or value
    if isinstance(value, Mapping):
        return {key: near_equal(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [near_equal(item) for item in value]
    return value


def leaks(shown: Iterable[Case], evaluated: Iterable[Case]) -> list[tuple[str, str, str]]:
    """Return (shown id, evaluated id, why) for cases that would let a model see what it is tested on.

    The same inputs, but for case and punctuation, or the same cluster on both sides.
    """
    by_text: dict[str, str] = {}
    by_cluster: dict[str, str] = {}
    for case in shown:
        by_text.setdefault(canonical(near_equal(case.inputs)), case.id)
        if case.cluster is not None:
            by_cluster.setdefault(case.cluster, case.id)
    found = []
    for case in evaluated:
        twin = by_text.get(canonical(near_equal(case.inputs)))
        if twin is not None:
            found.append((twin, case.id, "same inputs"))
        elif case.cluster is not None and case.cluster in by_cluster:
            found.append((by_cluster[case.cluster], case.id, f"same cluster {brief(case.cluster)}"))
    return found
