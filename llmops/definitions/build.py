"""Plain values in, checked models out, or findings in people's words, each at its place in the file.

pydantic does the checking; here its complaints are traced back to the keys that people wrote.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import UnionType
from typing import Annotated, Any, Literal, TypeGuard, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError

from llmops.definitions.documents import Document, Location, brief, kind_of, refusal
from llmops.definitions.yaml_reader import plain_value
from llmops.errors import Finding, nearest

M = TypeVar("M", bound=BaseModel)
_THERE = object()


def build(model: type[M], document: Document, location: Location = (), value: object = _THERE) -> M:
    """Return the model that the plain value at a location of a document stands for.

    value: what to read instead of the value there, when the caller has rearranged it; positions are still
    looked for under `location`. Keys that start with `x-` are dropped wherever the model does not know them.

    Raises DefinitionError with one finding a fault; of a union only the branch that fits best is reported.
    """
    plain = _value_at(document.value, location) if value is _THERE else value
    while True:
        text = json.dumps(plain)
        try:
            # As JSON, because that is what a file holds: under strict, a list is then right for a tuple and a
            # text for a date or an enum, and still nothing is guessed.
            return model.model_validate_json(text)
        except ValidationError as error:
            faults = [_trace(model, plain, details) for details in _real_errors(error)]
        slimmer = json.loads(text)
        if not _drop_notes(slimmer, faults):
            break
        plain = slimmer
    best = _best_branches(faults)
    raise refusal([_fault_finding(fault, document, location) for fault in best])


def _real_errors(error: ValidationError) -> Iterator[Mapping[str, Any]]:
    """Yield what pydantic complains of, but for lists that it calls short because their items were wrong."""
    for details in error.errors(include_url=False):
        if details["type"] != "too_short" or len(details["input"]) < details["ctx"]["min_length"]:
            yield details


def _value_at(value: Any, location: Location) -> object:
    for item in location:
        value = value[item]
    return value


@dataclass(slots=True)
class _Fault:
    """One complaint of pydantic, traced to the user's own keys.

    details: as pydantic gives them: type, msg, input, ctx.
    place: keys and indexes as they stand in the file, without the labels that pydantic puts in for unions.
    around: the annotation of the mapping or list that holds the last key.
    unions: each union on the way, as pydantic's location of it, and the label of its branch.
    expected: what a value of quite another type should have been.
    """

    kind: str
    name: str
    details: Mapping[str, Any]
    place: list[str | int] = field(default_factory=list)
    around: object = None
    unions: dict[Location, str] = field(default_factory=dict)
    expected: str | None = None


def _trace(model: type[BaseModel], value: object, details: Mapping[str, Any]) -> _Fault:
    """Follow pydantic's location through the annotations and the value at once.

    Both are needed: after a union pydantic names the branch, which may well be called as a key is.
    """
    at: tuple[str | int, ...] = details["loc"]
    fault = _Fault(details["type"], str(at[-1]) if at else "", details, around=model)
    annotation: object = model
    is_missing = fault.kind == "missing"
    for index, item in enumerate(at):
        options = _options(annotation)
        if len(options) > 1:
            fault.unions[at[:index]] = str(item)
            annotation = _branch(options, str(item))
            continue
        fault.around = options[0]
        annotation = _annotation_inside(options[0], item)
        if not (is_missing and index == len(at) - 1):
            value = _descend(value, item, fault.place)
    if fault.kind.startswith("union_tag") and not isinstance(details["input"], dict):
        fault.expected = "a mapping"
    elif fault.kind == "union_tag_invalid":
        _descend(value, details["ctx"]["discriminator"].strip("'"), fault.place)
    elif fault.kind in ("literal_error", "enum"):
        fault.expected = details["ctx"]["expected"]
    else:
        fault.expected = _TYPES.get(fault.kind)
    return fault


def _options(annotation: object) -> tuple[object, ...]:
    """Return the branches of a union, None aside, or the annotation alone; branches keep their tags."""
    bare = _bare(annotation)
    if get_origin(bare) not in (Union, UnionType):
        return (bare,)
    branches = tuple(branch for branch in get_args(bare) if branch is not type(None))
    return branches if len(branches) > 1 else _options(branches[0])


def _bare(annotation: object) -> object:
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation


def _branch(options: Sequence[object], label: str) -> object:
    """Return the branch that pydantic calls so, by its tag or name, else by a name within the label."""
    words = set(re.findall(r"\w+", label))
    exact = (option for option in options if {label, label.partition("[")[0]} & _labels(option))
    within = (option for option in options if words & _labels(option))
    return next(exact, None) or next(within, None)


def _labels(option: object) -> set[str]:
    bare = _bare(option)
    tags = {m.tag for m in getattr(option, "__metadata__", ()) if isinstance(m, Tag)}
    if get_origin(bare) in (Union, UnionType):
        return tags.union(*map(_labels, get_args(bare)))
    names = {getattr(get_origin(bare) or bare, "__name__", "")}
    if _is_model(bare):
        literals = (f.annotation for f in bare.model_fields.values() if get_origin(f.annotation) is Literal)
        names.update(str(value) for literal in literals for value in get_args(literal))
    return tags | names


def _is_model(annotation: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _annotation_inside(annotation: object, item: str | int) -> object:
    if _is_model(annotation):
        if not annotation.__pydantic_fields_complete__:  # it names a model that stands below it in its file
            annotation.model_rebuild()
        fields = annotation.model_fields.items()
        return next((f.annotation for name, f in fields if item in (name, f.alias)), None)
    arguments = get_args(annotation)
    if isinstance(item, int) and arguments:
        is_fixed = get_origin(annotation) is tuple and arguments[-1] is not Ellipsis
        return arguments[min(item, len(arguments) - 1) if is_fixed else 0]
    return arguments[-1] if arguments else None


def _descend(value: Any, item: str | int, place: list[str | int]) -> Any:
    """Return the value under a key or index and note the way there.

    A model may have rearranged `{judge: {name: …}}` into `{kind: judge, name: …}` before its check: a key
    that is not there is then looked for one level down. What cannot be found leaves value and place alone.
    """
    if isinstance(value, dict):
        if item in value:
            place.append(item)
            return value[item]
        for key, inner in value.items():
            if isinstance(inner, dict) and item in inner:
                place += [key, item]
                return inner[item]
    elif isinstance(value, list) and isinstance(item, int) and item < len(value):
        place.append(item)
        return value[item]
    return value


def _drop_notes(value: Any, faults: Iterable[_Fault]) -> bool:
    """Take the `x-` keys that a model does not know out of the value; False when there are none."""
    found = False
    for fault in faults:
        if fault.kind == "extra_forbidden" and fault.name.startswith("x-") and fault.name in fault.place[-1:]:
            holder: Any = _value_at(value, fault.place[:-1])
            found |= holder.pop(fault.name, value) is not value
    return found


def _best_branches(faults: list[_Fault]) -> list[_Fault]:
    """Keep of each union the branch that fits best, outer unions first."""
    unions = sorted({union for fault in faults for union in fault.unions}, key=len)
    for union in unions:
        branches: dict[str, list[_Fault]] = {}
        for fault in faults:
            if union in fault.unions:
                branches.setdefault(fault.unions[union], []).append(fault)
        if not branches:
            continue
        wholes = [fault for branch in branches.values() for fault in branch if _is_whole(fault, union)]
        if len(wholes) == len(branches):
            expected = dict.fromkeys(str(fault.expected) for fault in wholes)
            best = [replace(wholes[0], expected=" or ".join(expected))]
        else:
            best = min(branches.values(), key=lambda branch: sum(_misfit(fault, union) for fault in branch))
        faults = [fault for fault in faults if union not in fault.unions] + best
    return faults


def _is_whole(fault: _Fault, union: Location) -> bool:
    return fault.expected is not None and len(fault.details["loc"]) == len(union) + 1


def _misfit(fault: _Fault, union: Location) -> int:
    """Return how strongly a fault speaks against its branch: a slip inside less than another shape."""
    if _is_whole(fault, union):
        return 100
    if fault.kind == "extra_forbidden":
        return 1 if nearest(fault.name, _known_keys(fault.around)) else 2
    return {"literal_error": 3, "missing": 2}.get(fault.kind, 1)


def _known_keys(annotation: object) -> list[str]:
    if not _is_model(annotation):
        return []
    return [field.alias or name for name, field in annotation.model_fields.items()]


_TYPES = {
    **dict.fromkeys(("string_type", "string_sub_type"), "text"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("list_type", "tuple_type", "set_type", "frozen_set_type"), "a list"),
    **dict.fromkeys(("dict_type", "mapping_type", "model_type", "model_attributes_type"), "a mapping"),
    **dict.fromkeys(("date_type", "date_parsing", "date_from_datetime_parsing"), "a date like 2027-06-30"),
}
_WORDS = {
    "greater_than_equal": "should be at least {ge}, not {given}",
    "greater_than": "should be more than {gt}, not {given}",
    "less_than_equal": "should be at most {le}, not {given}",
    "less_than": "should be less than {lt}, not {given}",
    "too_short": "needs at least {min_length} of them",
    "too_long": "has room for {max_length} of them",
    "string_too_short": "needs at least {min_length} characters",
    "string_too_long": "has room for {max_length} characters",
    "string_pattern_mismatch": "does not have the form {pattern}",
    "union_tag_invalid": "should be one of {expected_tags}, not {tag!r}",
    "union_tag_not_found": "{discriminator} is missing",
    "value_error": "{error}",
    "assertion_error": "{error}",
}


def _fault_finding(fault: _Fault, document: Document, location: Location) -> Finding:
    place = [*location, *fault.place]
    if fault.kind == "missing":
        is_item = isinstance(fault.details["loc"][-1], int)
        what = f"item {int(fault.name) + 1}" if is_item else f"the key {fault.name!r}"
        return document.finding(place, f"{what} is missing")
    if fault.kind == "extra_forbidden":
        known = _known_keys(fault.around)
        hint = nearest(fault.name, known) or (f"known keys: {', '.join(known)}" if known else None)
        return document.finding(place, f"unknown key {brief(fault.name)}", hint)
    message, hint = _fault_words(fault)
    return document.finding(place, f"{_subject(place)}{message}", hint)


def _subject(place: Location) -> str:
    """Return what a message is about: the last key, and the item of it."""
    key = next((item for item in reversed(place) if isinstance(item, str)), None)
    if not place:
        return ""
    item = f"item {place[-1] + 1}" if isinstance(place[-1], int) else ""
    return ", ".join(part for part in (key, item) if part) + ": "


def _fault_words(fault: _Fault) -> tuple[str, str | None]:
    given = fault.details["input"]
    if fault.expected:
        return f"should be {fault.expected}, not {kind_of(given)}", _type_hint(fault, given)
    if fault.kind in _WORDS:
        context = fault.details.get("ctx", {})
        said = {key: f"{limit:g}" if isinstance(limit, float) else limit for key, limit in context.items()}
        return _WORDS[fault.kind].format(**said, given=kind_of(given)), None
    return str(fault.details["msg"]), None


def _type_hint(fault: _Fault, given: object) -> str | None:
    if fault.kind in ("literal_error", "enum") and isinstance(given, str):
        return nearest(given, re.findall(r"'([^']*)'", str(fault.expected)))
    if fault.expected == "text" and isinstance(given, bool | int | float):
        return f'for text, use quotes: "{json.dumps(given)}"'
    if isinstance(given, str) and fault.kind.startswith(("int_", "float_", "bool_")):
        with suppress(ValueError):
            if isinstance(plain_value(given), bool | int | float):
                return "write it without quotes"
    return None
