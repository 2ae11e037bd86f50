"""A dataset: cases in a file, and beside it what they are, how they are split and what holds them together."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from array import array
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, BinaryIO, Literal

from pydantic import AfterValidator, Field, field_validator

from llmops.definitions.base import Definition, Float, Int, Name, canonical, identity_of
from llmops.definitions.case_file import Case, CaseWriter, cases_at, key_of
from llmops.definitions.columns import Columns
from llmops.definitions.documents import RowFindings, brief, kind_of
from llmops.definitions.flat_files import read_rows
from llmops.definitions.images import Images
from llmops.definitions.schemas import InputTypes, Schema, checker, schema_of
from llmops.errors import DefinitionError, Finding, RowsError, UsageError, nearest

__all__ = ["Case", "Dataset", "DatasetDefinition", "FieldPath", "Slices", "leaks", "near_equal", "read_cases"]


def _check_field(path: str) -> str:
    head, _, rest = path.partition(".")
    if path not in {"id", "expected"} and not (head in {"inputs", "expected", "metadata"} and rest):
        raise ValueError(f"{path!r} is no field of a case: write metadata.NAME, inputs.NAME, expected or id")
    return path


FieldPath = Annotated[str, AfterValidator(_check_field)]
"""Where in a case a value stands: `metadata.split`."""


class Slices(Definition):
    """Which slice a case is in, and how many cases each needs in every split that is evaluated."""

    by: FieldPath
    at_least: dict[str, Annotated[Int, Field(ge=1)]] = Field(default_factory=dict)


class DatasetDefinition(Definition):
    """What `datasets/NAME.dataset.yaml` says.

    columns: for flat files, `inputs.NAME`, `expected`, `id` or `metadata.NAME` to the column's name; without it a
        CSV or Parquet names its columns so itself. A CSV's cells are text until `inputs` and `expected` say otherwise:
        integers, numbers, booleans, and JSON for lists and objects. An empty cell is an absent value, but for an
        input or answer declared as text, where it is the empty text.
    splits: `{by: PATH}`, or shares of the whole by hash of cluster and id. held_out: split to how many runs gates may
        judge on it, since who looks often enough fits the split as well.
    """

    description: str | None = None
    kind: Literal["evaluation", "few_shot", "grounding", "preference"] = "evaluation"
    inputs: InputTypes = Field(default_factory=dict)
    expected: Schema | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    splits: dict[Name, str | Float] = Field(default_factory=dict)
    held_out: dict[Name, Int] = Field(default_factory=dict)
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

    @field_validator("held_out")
    @classmethod
    def _some_looks(cls, held_out: dict[str, int]) -> dict[str, int]:
        if any(n < 1 for n in held_out.values()):
            raise ValueError("a held-out split may be looked at once at least")
        return held_out

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


@dataclass(frozen=True, eq=False)
class Dataset:
    """The cases of a dataset, in the order of the file. path: of the data file, as people type it.

    splits: the places of the cases of each split that has any. versions: by split, None for the whole.
    n_skipped: rows that were wrong and are left out.
    """

    name: str
    path: str
    definition: DatasetDefinition
    cases: Sequence[Case]
    splits: Mapping[str, Sequence[int]]
    versions: Mapping[str | None, str]
    n_skipped: int = 0
    _views: dict[str, Sequence[Case]] = field(default_factory=dict, repr=False)

    @cached_property
    def split_names(self) -> tuple[str, ...]:
        """The names of the splits that have cases, sorted."""
        return tuple(sorted(self.splits))

    @property
    def schema_identity(self) -> str:
        """The SHA-256 of the types that inputs and answers are declared with."""
        return identity_of(self.definition.model_dump(mode="json", include={"inputs", "expected"}))

    def of(self, split: str | None) -> Sequence[Case]:
        """Return the cases of a split, or all; the same sequence each time."""
        if split is None:
            return self.cases
        if split not in self._views:
            self._views[split] = cases_at(self.cases, self.splits.get(split, ()))
        return self._views[split]

    def input_names(self, split: str | None = None) -> frozenset[str]:
        """Return the names of the inputs that every case of a split has."""
        if self.definition.inputs:
            return frozenset(self.definition.inputs)
        names: frozenset[str] | None = None
        for case in self.of(split):
            names = frozenset(case.inputs) if names is None else names.intersection(case.inputs)
        return names or frozenset()

    def version(self, split: str | None = None) -> str:
        """Return the SHA-256 over the content of a split's cases, in the order of the file."""
        return self.versions.get(split) or hashlib.sha256().hexdigest()


def read_cases(
    name: str,
    data: BinaryIO,
    path: str,
    definition: DatasetDefinition,
    *,
    images: Images | None = None,
    skip_bad: bool = False,
    allow_empty: bool = False,
) -> Dataset:
    """Return the dataset in a JSONL, CSV or Parquet file, read once from start to end.

    images: of the tree the file stands in, for inputs that are images; their paths start at the file's folder.
    skip_bad: leave out rows that are wrong, and count them. allow_empty: no cases are fine.

    Raises DefinitionError with every row that is wrong, at most twenty, and how many more there are.
    """
    problems = RowFindings()
    maker = _CaseMaker(definition, path, problems, images)
    ids = _Ids(path)
    gathering = _Gathering()
    try:
        for line, value in read_rows(data, path):
            case = maker.make(line, value)
            if case is not None:
                ids.add(line, case.id)
                gathering.add(case)
    except RowsError as error:
        problems.join(error)
    except DefinitionError as error:
        raise DefinitionError([*problems.refusal().findings, *error.findings]) from error
    doubles = set()
    for place, finding in ids.doubles(gathering.cases()):
        doubles.add(place)
        problems.add(finding)
    if not skip_bad:
        problems.raise_any()
    if doubles:
        gathering = gathering.without(doubles)
    if not gathering.n_cases and not allow_empty:
        hint = "write one JSON object a line" if path.endswith(".jsonl") else "write one row a case"
        none = Finding(path, None, None, "the dataset has no cases", f"{hint}, with an id and inputs")
        raise DefinitionError([*problems.refusal().findings, none])
    return gathering.dataset(name, path, definition, n_skipped=problems.n_rows)


class _Gathering:
    """Cases as they come, and what is known of all of them together."""

    def __init__(self) -> None:
        self._writer = CaseWriter()
        self._whole = hashlib.sha256()
        self._splits: dict[str, _Split] = {}
        self.n_cases = 0

    def add(self, case: Case) -> None:
        content = case.content()
        key = key_of(content).encode()
        self._writer.add(case, len(content))
        self._whole.update(key)
        if case.split is not None:
            split = self._splits.get(case.split)
            if split is None:
                split = self._splits[case.split] = _Split()
            split.places.append(self.n_cases)
            split.digest.update(key)
        self.n_cases += 1

    def cases(self) -> Sequence[Case]:
        return self._writer.finish()

    def without(self, places: Container[int]) -> _Gathering:
        """Return another that lacks the cases at some places."""
        rest = _Gathering()
        for place, case in enumerate(self.cases()):
            if place not in places:
                rest.add(case)
        return rest

    def dataset(self, name: str, path: str, definition: DatasetDefinition, *, n_skipped: int) -> Dataset:
        versions: dict[str | None, str] = {
            key: split.digest.hexdigest() for key, split in self._splits.items()
        }
        versions[None] = self._whole.hexdigest()
        splits = {key: split.places for key, split in self._splits.items()}
        return Dataset(name, path, definition, self.cases(), splits, versions, n_skipped)


class _Split:
    """Where the cases of a split stand, and the digest of their keys."""

    def __init__(self) -> None:
        self.places = array("I")
        self.digest = hashlib.sha256()


class _Ids:
    """Finds ids that are the same, or differ only in what eyes and file systems do not see: 20 bytes a case."""

    _AT_ONCE = 1 << 12

    def __init__(self, path: str) -> None:
        self._path = path
        self._hashes = array("q")
        self._lines = array("I")

    def add(self, line: int, case_id: str) -> None:
        self._hashes.append(hash(_folded(case_id)))
        self._lines.append(line)

    def doubles(self, cases: Sequence[Case]) -> Iterator[tuple[int, Finding]]:
        """Yield place and finding of each case whose id stands before it already; cases: in the order of `add`."""
        suspects = self._suspects()
        first: dict[str, int] = {}
        for place, hashed in enumerate(self._hashes if suspects else ()):
            if hashed in suspects:
                case_id = cases[place].id
                earlier = first.setdefault(_folded(case_id), place)
                if earlier != place:
                    yield place, self._finding(place, case_id, earlier, cases[earlier].id)

    def _suspects(self) -> set[int]:
        """Return the hashes that stand twice, looking at a share of all at a time to keep memory flat."""
        shares = [array("q") for _ in range(1 + len(self._hashes) // self._AT_ONCE)]
        for hashed in self._hashes:
            shares[hashed % len(shares)].append(hashed)
        found: set[int] = set()
        for share in shares:
            seen: set[int] = set()
            for hashed in share:
                (found if hashed in seen else seen).add(hashed)
        return found

    def _finding(self, place: int, case_id: str, earlier: int, earlier_id: str) -> Finding:
        differ = f" as {brief(earlier_id)}: they differ only in case, form or spaces"
        same = "" if earlier_id == case_id else differ
        message = f"id {brief(case_id)} stands already on line {self._lines[earlier]}{same}"
        return Finding(self._path, self._lines[place], None, message, "ids are unique")


def _folded(case_id: str) -> str:
    form = case_id if case_id.isascii() else unicodedata.normalize("NFC", case_id)
    return form.strip().casefold()


_FIELDS = ("id", "inputs", "expected", "metadata")
_SMALL = (str, int, float)


class _CaseMaker:
    """Makes a case of a line's object, or says what is wrong with it."""

    def __init__(
        self, definition: DatasetDefinition, path: str, problems: RowFindings, images: Images | None
    ) -> None:
        self._definition = definition
        self._path = path
        self._folder = path.rpartition("/")[0]
        self._problems = problems
        self._is_flat = not path.lower().endswith(".jsonl")
        self._columns: Columns | None = None
        self._checkers = {name: checker(schema_of(kind)) for name, kind in definition.inputs.items()}
        self._pictures = [name for name, kind in definition.inputs.items() if kind == "image"]
        self._images = images
        self._expected = None if definition.expected is None else checker(definition.expected)
        self._slice = definition.slices.by if definition.slices else None
        by = definition.splits.get("by")
        self._split = by if isinstance(by, str) else None
        # In the order of their names: how the file is written must not decide who goes where.
        shares = [] if self._split else sorted(definition.splits.items())
        self._shares = [(name, float(share)) for name, share in shares]

    def make(self, line: int, value: dict[str, Any]) -> Case | None:
        before = len(self._problems)
        fields = self._fields(line, value)
        if fields is None:
            return None
        inputs, expected = fields["inputs"], fields["expected"]
        if len(inputs) != len(self._checkers) or inputs.keys() != self._checkers.keys():
            self._check_names(line, fields)
        for name, problem_of in self._checkers.items():
            if name in inputs and (problem := problem_of(inputs[name])):
                self._say(line, f"case {brief(fields['id'])}: input {name!r}: {problem}")
        if self._pictures and len(self._problems) == before:
            self._look_at_images(line, fields)
        if self._expected is not None and (problem := self._expected(expected)):
            what = "expected is missing" if expected is None else f"expected {problem}"
            self._say(line, f"case {brief(fields['id'])}: {what}")
        slice_name = self._label(line, fields, self._slice)
        cluster = self._label(line, fields, self._definition.cluster)
        split = (
            self._label(line, fields, self._split) if self._split else self._share(cluster or fields["id"])
        )
        if len(self._problems) > before:
            return None
        return Case(**fields, split=split, slice=slice_name, cluster=cluster)

    def _look_at_images(self, line: int, fields: Mapping[str, Any]) -> None:
        """Put what is known of each image in the place of where it is."""
        inputs, images = fields["inputs"], self._images
        if images is None:
            return
        for name in self._pictures:
            try:
                inputs[name] = images.look_at(inputs[name], self._folder).value()
            except UsageError as error:
                self._say(line, f"case {brief(fields['id'])}: input {name!r}: {error}")

    def _say(self, line: int, message: str, hint: str | None = None) -> None:
        self._problems.add(Finding(self._path, line, None, message, hint))

    def _fields(self, line: int, value: dict[str, Any]) -> dict[str, Any] | None:
        if not self._is_flat:
            shape = self._flat if self._definition.columns else self._nested
            return shape(line, value)
        if self._columns is None:  # every row of such a file has the same
            told = self._definition
            self._columns = Columns(
                list(value), self._path, mapping=told.columns, inputs=told.inputs, expected=told.expected
            )
        fields, faults = self._columns.fields(value)
        for fault in faults:
            self._say(line, f"case {brief(str(fields['id']))}: {fault}")
        return None if faults else self._nested(line, fields)

    def _nested(self, line: int, value: dict[str, Any]) -> dict[str, Any] | None:
        for key in value:
            if key not in _FIELDS and not key.startswith("x-"):
                hint = nearest(key, _FIELDS) or f"known keys: {', '.join(_FIELDS)}"
                self._say(line, f"unknown key {brief(key)}", hint)
                return None
        inputs, metadata = value.get("inputs"), value.get("metadata", {})
        if not isinstance(inputs, dict):
            hint = 'write "inputs": {"NAME": ...}, or map `columns`'
            self._say(line, "a case has its inputs by name", hint)
            return None
        if not isinstance(metadata, dict):
            self._say(line, f"metadata is an object, not {kind_of(metadata)}")
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
                self._say(line, f"no column is called {brief(column)}", hint)
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
        self._say(line, message, 'give each case an "id" that stays the same for good')
        return None

    def _check_names(self, line: int, fields: dict[str, Any]) -> None:
        case_id, inputs, declared = fields["id"], fields["inputs"], self._checkers
        for name in inputs if declared else ():
            if name not in declared:
                hint = nearest(name, declared) or f"declared: {', '.join(declared)}"
                self._say(line, f"case {brief(case_id)}: input {brief(name)} is not declared", hint)
        for name in declared:
            if name not in inputs:
                self._say(line, f"case {brief(case_id)}: input {name!r} is missing")

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
            self._say(line, f"case {brief(fields['id'])}: {path} is {kind_of(value)}, not text or a number")
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


def leaks(shown: Sequence[Case], evaluated: Iterable[Case]) -> Iterator[tuple[str, str, str]]:
    """Yield (shown id, evaluated id, why) for cases that would let a model see what it is tested on.

    The same inputs, but for case and punctuation, or the same cluster on both sides.
    """
    by_text: dict[int, int] = {}
    by_cluster: dict[str, str] = {}
    for place, case in enumerate(shown):
        by_text.setdefault(hash(_near_text(case)), place)
        if case.cluster is not None:
            by_cluster.setdefault(case.cluster, case.id)
    for case in evaluated:
        text = _near_text(case)
        place = by_text.get(hash(text), -1)
        if place >= 0 and _near_text(twin := shown[place]) == text:
            yield twin.id, case.id, "same inputs"
        elif case.cluster is not None and case.cluster in by_cluster:
            yield by_cluster[case.cluster], case.id, f"same cluster {brief(case.cluster)}"


def _near_text(case: Case) -> str:
    return canonical(near_equal(case.inputs))
