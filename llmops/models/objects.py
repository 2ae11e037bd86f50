"""A value for a JSON Schema, filled from a text by closeness: what `embedded` gives where JSON is asked for.

Valid for schemas of `type`, `properties`, `required`, `items`, `enum`, `const`, `anyOf`, `oneOf`, `allOf`,
local `$ref`, bounds of numbers, strings and arrays. Other keywords (`pattern`, `format`, ...) are not read:
what they ask may be missed, and the caller checks.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

MAX_DEPTH = 4  # below it only what is required is filled, so that a recursive schema ends
MAX_REQUIRED_DEPTH = 32  # one that requires itself without end cannot be met
NULL = {"type": "null"}
NUMBER = re.compile(r"(?<![\w.])[-−]?(?:\d{1,3}(?:,\d{3}){1,4}|\d{1,15})(?:\.\d{1,6})?(?!\w)", re.ASCII)
LETTERS = re.compile(r"[^\W\d_]{3,}")
NEGATION = re.compile(r"(?:\b(?:no|not|never|without|nor)|n['’]t)\W+(?:\w+\W+){0,2}$", re.IGNORECASE)
NEGATION_REACH = 40  # characters
STEM = 4  # letters by which words count as the same: "refund" and "refunded"
HOLLOW = frozenset(
    {"and", "are", "for", "has", "needs", "number", "should", "the", "value", "was", "whether"}
)


@dataclass(frozen=True)
class Source:
    """What values are filled from.

    text: where numbers and cues are looked for.
    shown: (user's text, value that was answered) of the example turns; narrowed to one property on the way.
    rank: names and shown answers to the names, closest first. quote: a hint to sentences, best first.
    """

    text: str
    shown: Sequence[tuple[str, Any]]
    rank: Callable[[Sequence[str], Sequence[tuple[str, str]]], list[str]]
    quote: Callable[[str], list[str]]

    def within(self, name: str) -> Source:
        """Return the source for one property: of the example turns, what they gave for it."""
        inner = [
            (text, value[name]) for text, value in self.shown if isinstance(value, dict) and name in value
        ]
        return replace(self, shown=inner)


def fill(schema: Mapping[str, Any], source: Source) -> Any:
    """Return a value of a schema, filled from a source; 0, false and "" where the source says nothing."""
    return _fill(schema, source, schema, "", 0)


def _fill(schema: Any, source: Source, root: Mapping[str, Any], name: str, depth: int) -> Any:
    schema = _resolve(schema, root, depth)
    if "const" in schema or "enum" in schema:
        return _choose([schema["const"]] if "const" in schema else schema["enum"], source)[0]
    kind = _kind(schema)
    if kind == "null" or depth > MAX_REQUIRED_DEPTH:
        return None
    if kind == "object":
        return _object(schema, source, root, depth)
    if kind == "array":
        return _array(schema, source, root, name, depth)
    if kind == "boolean":
        return _boolean(source, name)
    return _found(schema, source, f"{name} {schema.get('description', '')}", kind)


def _found(schema: Mapping[str, Any], source: Source, hint: str, kind: str) -> float | str | None:
    """Return the sentence or number that the text has for a hint; if none, null where that is allowed."""
    if kind == "string":
        sentences = source.quote(hint)
        return _string(schema, sentences[0]) if sentences else _nothing(schema, _string(schema, ""))
    whole = kind == "integer"
    number = number_near(source.text, hint)
    if number is None:
        return _nothing(schema, _bounded(schema, 0, whole=whole))
    return _bounded(schema, number, whole=whole)


def _nothing(schema: Mapping[str, Any], otherwise: float | str) -> float | str | None:
    return None if "null" in schema.get("type", ()) else otherwise


def _resolve(schema: Any, root: Mapping[str, Any], depth: int) -> dict[str, Any]:
    """Return a schema with `$ref`, `allOf` and one branch of `anyOf` or `oneOf` written into it.

    The branch is the first that is not null, and what it gives may then be null as well; deep down it is null
    itself, if that is one of them, so that a linked list ends.
    """
    found = dict(schema) if isinstance(schema, dict) else {}
    nullable = False
    for _ in range(MAX_DEPTH):
        branches = list(found.pop("allOf", []))
        if "$ref" in found:
            branches.append(_target(str(found.pop("$ref")), root))
        for word in ("anyOf", "oneOf"):
            options = sorted(found.pop(word, []), key=NULL.__eq__, reverse=depth >= MAX_DEPTH)
            branches += options[:1]
            nullable = nullable or NULL in options
        if not branches:
            break
        for branch in branches:
            found = {**branch, **found} if isinstance(branch, dict) else found
    return (
        {**found, "type": [found["type"], "null"]}
        if nullable and isinstance(found.get("type"), str)
        else found
    )


def _target(reference: str, root: Mapping[str, Any]) -> Any:
    found: Any = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        found = found.get(part, {}) if part and isinstance(found, dict) else found
    return found


def _kind(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), "null")
    if kind is None:
        kind = "object" if "properties" in schema else "array" if "items" in schema else "string"
    return str(kind)


def _object(schema: Mapping[str, Any], source: Source, root: Mapping[str, Any], depth: int) -> dict[str, Any]:
    properties = schema.get("properties", {})
    required = schema.get("required", [])
    names = [*properties, *(name for name in required if name not in properties)]
    return {
        name: _fill(properties.get(name, {}), source.within(name), root, name, depth + 1)
        for name in names
        if depth < MAX_DEPTH or name in required
    }


def _array(
    schema: Mapping[str, Any], source: Source, root: Mapping[str, Any], name: str, depth: int
) -> list[Any]:
    n_least = schema.get("minItems", 0)
    n_items = min(max(n_least, 1 if depth < MAX_DEPTH else 0), schema.get("maxItems", math.inf))
    if not n_items:
        return []
    items = _resolve(schema.get("items", {}), root, depth)
    if "enum" in items:
        found = _choose(items["enum"], source)
    elif _kind(items) == "string" and "const" not in items:
        found = [_string(items, sentence) for sentence in source.quote(name) or [""]]
    else:
        found = [_fill(items, source, root, name, depth + 1)]
    return [found[place % len(found)] for place in range(int(n_items))]


def _choose(allowed: Sequence[Any], source: Source) -> list[Any]:
    """Return the allowed values, closest first; what is no string is compared as it is written."""
    by_name = {str(value): value for value in allowed}
    ranked = source.rank(list(by_name), [(text, str(value)) for text, value in source.shown])
    return [by_name[name] for name in ranked]


def _string(schema: Mapping[str, Any], sentence: str) -> str:
    return sentence[: schema.get("maxLength")].ljust(schema.get("minLength", 0), ".")


def number_near(text: str, hint: str) -> float | None:
    """Return the number of a text nearest to a word of the hint, the first one where no word occurs."""
    places = _mentions(hint, text) or [0]
    found = [
        (min(abs(match.start() - place) for place in places), match.start(), match.group())
        for match in NUMBER.finditer(text)
    ]
    return float(min(found)[2].replace(",", "").replace("−", "-")) if found else None


def _bounded(schema: Mapping[str, Any], value: float, *, whole: bool) -> float:
    """Return the number of a schema that is closest to a value, as far as its bounds leave one."""
    low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
    if "exclusiveMinimum" in schema:
        above = schema["exclusiveMinimum"]
        low = max(low, math.floor(above) + 1 if whole else math.nextafter(above, math.inf))
    if "exclusiveMaximum" in schema:
        below = schema["exclusiveMaximum"]
        high = min(high, math.ceil(below) - 1 if whole else math.nextafter(below, -math.inf))
    step = schema.get("multipleOf", 1 if whole else None)
    if step is None:
        return max(min(value, float(high)), float(low))
    n_least = -math.inf if low == -math.inf else math.ceil(low / step)
    n_most = math.inf if high == math.inf else math.floor(high / step)
    bounded: float = max(min(round(value / step), n_most), n_least) * step
    return int(bounded) if whole else bounded


def _boolean(source: Source, name: str) -> bool:
    """Return what the nearest examples said, else whether the text has a word of the name, not denied."""
    if source.shown:
        ranked = source.rank(["True", "False"], [(text, str(value)) for text, value in source.shown])
        return ranked[0] == "True"
    before = (source.text[max(0, place - NEGATION_REACH) : place] for place in _mentions(name, source.text))
    return any(not NEGATION.search(words) for words in before)


def _mentions(hint: str, text: str) -> list[int]:
    """Return where words of a hint occur in a text, by their first letters."""
    said = {word[:STEM].casefold() for word in LETTERS.findall(hint) if word.casefold() not in HOLLOW}
    return [match.start() for match in LETTERS.finditer(text) if match.group()[:STEM].casefold() in said]
