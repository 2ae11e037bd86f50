"""Several rankings as one, by the ranks alone: scores of different kinds cannot be added up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from llmops.indexes.base import Hit, Query, Store
from llmops.indexes.ranking import DECIMALS

CONSTANT = 60
"""What is added to each rank: Cormack, Clarke and Buettcher (2009)."""

DEPTH = 50
"""How many of each ranking take part, at least; four times what is asked for, where that is more."""


class Fused:
    """Reciprocal rank fusion of stores: the sum of 1 / (60 + rank) over the rankings that hold a passage."""

    def __init__(self, stores: Sequence[Store]) -> None:
        self._stores = stores

    def search(self, query: Query, k: int, among: Sequence[int] | None = None) -> list[Hit]:
        """Return the k passages that stand highest in all rankings together."""
        return fuse([store.search(query, max(DEPTH, 4 * k), among) for store in self._stores], k)


def fuse(rankings: Sequence[Sequence[Hit]], k: int) -> list[Hit]:
    """Return the first k of several rankings as one."""
    scores: dict[int, float] = defaultdict(float)
    for ranking in rankings:
        for rank, hit in enumerate(ranking, 1):
            scores[hit.place] += 1 / (CONSTANT + rank)
    fused = [Hit(place, round(score, DECIMALS)) for place, score in scores.items()]
    return sorted(fused, key=lambda hit: (-hit.score, hit.place))[:k]
