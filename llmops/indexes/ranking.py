"""The best of many scores, the same on every machine: scores that differ by less than rounding are ties."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llmops.indexes.base import Hit

if TYPE_CHECKING:
    from numpy.typing import NDArray

DECIMALS = 6  # single precision has seven; the last may differ between machines


def best(
    scores: NDArray[Any], k: int, among: Sequence[int] | None, *, above: float | None = None
) -> list[Hit]:
    """Return the k highest scores, best first, ties in the order of the passages.

    among: the places that count. above: what a score has to be more than.
    """
    import numpy as np

    rounded = np.round(scores.astype(np.float64), DECIMALS)
    counting = np.arange(len(rounded)) if among is None else np.asarray(among, dtype=np.int64)
    found = rounded[counting]
    if above is not None:
        counting, found = counting[found > above], found[found > above]
    k = min(k, len(counting))
    if not k:
        return []
    near = found >= np.partition(found, len(found) - k)[len(found) - k]
    counting, found = counting[near], found[near]
    order = np.argsort(-found, kind="stable")[:k]
    return [Hit(int(counting[place]), float(found[place])) for place in order]
