"""What became of every leaf of the files that are converted: kept, approximated or dropped, with its line.

A converter settles what it understands; whatever is left is dropped by name. So nothing can be lost in silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from llmops.definitions.base import Definition
from llmops.definitions.documents import Document, Location

UNKNOWN = "llmops has nothing like it"


class Fate(StrEnum):
    """What became of a key and its value."""

    KEPT = "kept"
    APPROXIMATED = "approximated"
    DROPPED = "dropped"


class Note(Definition):
    """What became of one leaf: the file and line it stands on, its key from the top, and how or why."""

    path: str
    line: int | None
    key: str
    fate: Fate
    how: str


class _Settled(NamedTuple):
    fate: Fate
    how: str


class Page:
    """One file and what became of its leaves."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self._order = list(leaves(document.value))
        self._spans = _spans(self._order)
        self._settled: dict[tuple[str | int, ...], _Settled] = {}

    @property
    def value(self) -> Any:
        """The file's plain value."""
        return self.document.value

    def keep(self, location: Location, how: str) -> None:
        """Say that what stands at a location means the same in what is written."""
        self._settle(location, Fate.KEPT, how)

    def approximate(self, location: Location, how: str) -> None:
        """Say that what stands at a location is there in what is written, and not quite the same."""
        self._settle(location, Fate.APPROXIMATED, how)

    def drop(self, location: Location, why: str) -> None:
        """Say that what stands at a location is not in what is written."""
        self._settle(location, Fate.DROPPED, why)

    def _settle(self, location: Location, fate: Fate, how: str) -> None:
        """Settle all leaves at or below a location that nothing has been said of yet."""
        start, end = self._spans.get(tuple(location), (0, 0))
        for leaf in self._order[start:end]:
            self._settled.setdefault(leaf, _Settled(fate, how))

    def line(self, location: Location) -> int | None:
        """Return the line on which something stands."""
        position = self.document.position(location)
        return position[0] if position else None

    def notes(self) -> Iterator[Note]:
        """Yield what became of each leaf, in the order of the file; what nobody settled is dropped."""
        for leaf in self._order:
            fate, how = self._settled.get(leaf, _Settled(Fate.DROPPED, UNKNOWN))
            yield Note(path=self.document.path, line=self.line(leaf), key=shown_key(leaf), fate=fate, how=how)


def _spans(order: Sequence[tuple[str | int, ...]]) -> dict[tuple[str | int, ...], tuple[int, int]]:
    """Return for each place from where to where its leaves stand among all, which are in the order of the file."""
    spans: dict[tuple[str | int, ...], tuple[int, int]] = {}
    for index, leaf in enumerate(order):
        for length in range(len(leaf) + 1):
            start, _ = spans.get(leaf[:length], (index, index))
            spans[leaf[:length]] = (start, index + 1)
    return spans


def leaves(value: object, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the location of every scalar and every empty list or mapping inside a value."""
    inside: Iterable[tuple[str | int, Any]] = ()
    if isinstance(value, dict):
        inside = value.items()
    elif isinstance(value, list):
        inside = enumerate(value)
    n_inside = 0
    for key, item in inside:
        n_inside += 1
        yield from leaves(item, (*place, key))
    if not n_inside:
        yield place


def shown_key(location: Sequence[str | int]) -> str:
    """Return a location as people write it: `messages[0].content`."""
    text = ""
    for item in location:
        text += f"[{item}]" if isinstance(item, int) else f".{item}" if text else item
    return text or "(all of it)"
