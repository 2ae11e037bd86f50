"""What was recorded that is most like a request, and in what the two differ; for messages alone.

Two requests are compared field by field (`messages[0].content`, `parameters.temperature`), so that one changed word
is found in the field it stands in, and shown with the few words around it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import SequenceMatcher
from typing import Any

from llmops.definitions.base import canonical, short
from llmops.records import Call
from llmops.stores.recordings import Asked, request_fields

AROUND = 4
"""Words and gaps shown on either side of what differs."""
MOST_PIECES = 24
MOST_COMPARED = 400  # of words and gaps, from the first that differs: time grows with the square of it
MOST_CHARACTERS = 100
MOST_NAMED = 3

_PIECES = re.compile(r"\s+|\S+")
_MODEL = "model"

Leaves = Mapping[str, str]


class Nearest:
    """Finds what is most like a request among what was recorded, which is read once."""

    def __init__(self, recorded: Iterable[Asked]) -> None:
        pool: dict[str, str] = {}  # prompts repeat: each text is kept once
        self._kept = [
            (asked.model, asked.model_identity, _pooled(_leaves_of(asked), pool)) for asked in recorded
        ]

    def difference(self, call: Call) -> str | None:
        """Return in what the nearest recording differs from a call, None when there is no recording at all.

        The nearest is of the same model first, then with the fewest fields that differ, then with the most words
        in common.
        """
        if not self._kept:
            return None
        wanted = _leaves_of(Asked(call.model, call.model_identity, request_fields(call.request)))
        ranks = [
            (identity != call.model_identity, model != call.model, len(wanted.items() ^ leaves.items()))
            for model, identity, leaves in self._kept
        ]
        best = min(ranks)
        ties = [leaves for rank, (*_, leaves) in zip(ranks, self._kept, strict=True) if rank == best]
        found = ties[0] if len(ties) == 1 else max(ties, key=lambda leaves: _likeness(wanted, leaves))
        return _told(found, wanted)


def _leaves_of(asked: Asked) -> dict[str, str]:
    return {
        **dict(_leaves(asked.request, "")),
        _MODEL: canonical(f"{asked.model} ({short(asked.model_identity)})"),
    }


def _leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield the path and the JSON of everything in plain data that has no parts."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple) and value:
        for place, item in enumerate(value):
            yield from _leaves(item, f"{path}[{place}]")
    else:
        yield path, canonical(value)


def _pooled(leaves: Leaves, pool: dict[str, str]) -> Leaves:
    return {pool.setdefault(path, path): pool.setdefault(text, text) for path, text in leaves.items()}


def _likeness(wanted: Leaves, leaves: Leaves) -> float:
    """Return the share of words in common, over the fields that both have and that differ."""
    shared = total = 0
    for path, text in wanted.items():
        other = leaves.get(path, text)
        if other != text:
            ours, theirs = set(text.split()), set(other.split())
            shared += 2 * len(ours & theirs)
            total += len(ours) + len(theirs)
    return shared / total if total else 0.0


# --- in words ---------------------------------------------------------------------------------------------


def _told(recorded: Leaves, now: Leaves) -> str:
    paths = [path for path in {**now, **recorded} if recorded.get(path) != now.get(path)]
    if not paths:
        return "it was recorded for fewer repeats"
    first, *others = paths
    then, today = _shown(recorded.get(first), now.get(first))
    named = ", ".join(others[:MOST_NAMED])
    more = f" and {len(others) - MOST_NAMED} more" if len(others) > MOST_NAMED else ""
    also = f"; and in {named}{more}" if others else ""
    return f"the nearest differs in {first}: {then} recorded, {today} now{also}"


def _shown(recorded: str | None, now: str | None) -> tuple[str, str]:
    """Return both values in short, texts around the first words that differ."""
    then, today = (None if text is None else json.loads(text) for text in (recorded, now))
    if isinstance(then, str) and isinstance(today, str):
        then, today = _around_difference(then, today)
        return _quoted(then), _quoted(today)
    return tuple("nothing" if text is None else _cut(text) for text in (recorded, now))  # type: ignore[return-value]


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _cut(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}..."


def _around_difference(then: str, today: str) -> tuple[str, str]:
    """Return the first words in which two texts differ, with those around them."""
    a, b = _PIECES.findall(then), _PIECES.findall(today)
    start = next(
        (place for place, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )
    before = max(0, start - AROUND)
    matcher = SequenceMatcher(
        None, a[start : start + MOST_COMPARED], b[start : start + MOST_COMPARED], autojunk=False
    )
    _, _, end_a, _, end_b = next(code for code in matcher.get_opcodes() if code[0] != "equal")
    return _window(a, before, start + end_a), _window(b, before, start + end_b)


def _window(pieces: list[str], start: int, end: int) -> str:
    end = min(end + AROUND, start + MOST_PIECES, len(pieces))
    text = _cut("".join(pieces[start:end]).strip())
    return f"{'...' if start else ''}{text}{'...' if end < len(pieces) and not text.endswith('...') else ''}"
