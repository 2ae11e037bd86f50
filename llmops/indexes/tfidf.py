"""Words weighted by how rare they are, as sparse vectors of length 1: exact cosine by inverted lists.

Nothing is learnt but how many passages have a word, so the weights of all change a little with each that comes or
goes: they are worked out anew, which takes less time than to keep them.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmops.indexes.base import Hit, Query
from llmops.indexes.ranking import best
from llmops.models.ngrams import words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

AT_ONCE = 20_000
_ARRAYS = ("terms", "ends", "idf", "rows", "values")


class TfIdf:
    """The passages of an index by the words they have. In a folder, it is what `write` left there."""

    def __init__(self, folder: Path) -> None:
        import numpy as np

        self._terms, self._ends, self._idf, self._rows, self._values = (
            np.load(folder / f"tfidf-{name}.npy", mmap_mode="r") for name in _ARRAYS
        )
        self._n = int(np.load(folder / "tfidf-n.npy")[0])

    @staticmethod
    def write(folder: Path, texts: Sequence[str]) -> None:
        """Write the inverted lists of texts: a weight is (1 + log of the times) * idf, the idf smoothed."""
        import numpy as np

        terms, rows, times = _count(texts)
        order = np.argsort(terms, kind="stable")
        terms, rows = terms[order], rows[order]
        starts = np.flatnonzero(np.diff(terms.astype(np.int64), prepend=-1))
        ends = np.append(starts, len(terms)).astype(np.int64)
        frequency = np.diff(ends)
        idf = np.log((1 + len(texts)) / (1 + frequency)) + 1
        values = (1 + np.log(times[order])) * np.repeat(idf, frequency)
        norms = np.sqrt(np.bincount(rows, values * values, minlength=len(texts)))
        values /= norms[rows]
        made = (terms[starts], ends, idf, rows.astype(np.int32), values.astype(np.float32))
        for name, array in zip(_ARRAYS, made, strict=True):
            np.save(folder / f"tfidf-{name}.npy", array)
        np.save(folder / "tfidf-n.npy", np.array([len(texts)]))

    def search(self, query: Query, k: int, among: Sequence[int] | None = None) -> list[Hit]:
        """Return the k passages of the highest cosine; none of those that share no word with the query."""
        import numpy as np

        asked, _, times = _count([query.text])
        if not len(self._terms):
            return []
        places = np.minimum(np.searchsorted(self._terms, asked), len(self._terms) - 1)
        known = self._terms[places] == asked
        if not known.any():
            return []
        weights = (1 + np.log(times)) * np.where(known, self._idf[places], np.log(1 + self._n) + 1)
        weights = weights[known] / np.sqrt(weights @ weights)
        scores = np.zeros(self._n)
        for place, weight in zip(places[known], weights, strict=True):
            start, end = self._ends[place], self._ends[place + 1]
            scores[self._rows[start:end]] += (
                self._values[start:end] * weight
            )  # a passage stands once in a list
        return best(scores, k, among, above=0.0)


class _Hashes(dict[str, int]):
    def __missing__(self, word: str) -> int:
        found = self[word] = zlib.crc32(word.encode("utf-8", "surrogatepass"))
        return found


def _count(texts: Sequence[str]) -> tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[Any]]:
    """Return (word, row, times) of every word of every text, by row."""
    import numpy as np

    hashes = _Hashes()
    parts: list[Any] = []
    for start in range(0, len(texts), AT_ONCE):
        split = [[hashes[word] for word in words(text)] for text in texts[start : start + AT_ONCE]]
        sizes = np.array([len(each) for each in split], dtype=np.int64)
        rows = np.repeat(np.arange(start, start + len(split), dtype=np.int64), sizes)
        keys = rows << 32 | np.array([word for each in split for word in each], dtype=np.int64)
        keys.sort()
        first = np.flatnonzero(np.diff(keys, prepend=-1))
        parts.append((keys[first], np.diff(np.append(first, len(keys)))))
    keys = np.concatenate([part[0] for part in parts]) if parts else np.zeros(0, dtype=np.int64)
    times = np.concatenate([part[1] for part in parts]) if parts else np.zeros(0, dtype=np.int64)
    return (keys & 0xFFFFFFFF).astype(np.uint32), keys >> 32, times
