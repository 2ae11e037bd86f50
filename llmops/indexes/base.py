"""What indexes are made of: documents that are cut into passages, and what finds passages again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

VERSION = "indexes@1"
"""Version of our own code behind what an index finds; part of the version of every index."""


@dataclass(frozen=True, slots=True)
class Document:
    """A text with a name of its own. has_headings: lines that begin with # are headings, as in Markdown."""

    id: str
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    has_headings: bool = False


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document. source: the document's name. around: the headings above it, which are searched too."""

    id: str
    source: str
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    around: str = ""

    @property
    def searched(self) -> str:
        """What a query is held against."""
        return f"{self.around}\n{self.text}" if self.around else self.text


class Hit(NamedTuple):
    """A passage found: its place among all, and its score, the higher the nearer."""

    place: int
    score: float


class Query(NamedTuple):
    """What is asked. vector: of the text, where the model of the index has made one."""

    text: str
    vector: Any = None


class Store(Protocol):
    """What ranks passages. Ties stand in the order of the passages."""

    def search(self, query: Query, k: int, among: Sequence[int] | None = None) -> list[Hit]:
        """Return the k nearest passages, best first; fewer when no more have anything in common with the query.

        among: places of the passages that may be returned, ascending; None for all.
        """
