"""Vectors of a fixed length, one a passage: exact cosine by one product with all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmops.indexes.base import Hit, Query
from llmops.indexes.ranking import best

if TYPE_CHECKING:
    from numpy.typing import NDArray

FILE = "vectors.npy"
DIMENSIONS = 512
"""Of hashed words and runs of characters."""

AT_ONCE = 2_000


class Dense:
    """The passages of an index by their vectors. In a folder, it is what `write_vectors` left there."""

    def __init__(self, folder: Path) -> None:
        import numpy as np

        self.vectors: NDArray[Any] = np.load(folder / FILE, mmap_mode="r")

    def search(self, query: Query, k: int, among: Sequence[int] | None = None) -> list[Hit]:
        """Return the k passages of the highest cosine; none that are not alike at all."""
        vector = hashed([query.text])[0] if query.vector is None else query.vector
        return best(self.vectors @ _normed(vector), k, among, above=0.0)


def write_vectors(folder: Path, vectors: Any) -> None:
    """Write vectors, shape (n, size), each at length 1 and in single precision."""
    import numpy as np

    np.save(folder / FILE, _normed(vectors))


def hashed(texts: Sequence[str], known: Mapping[str, Any] | None = None) -> Any:
    """Return a vector a text by its words and characters, shape (n, DIMENSIONS); those known are not made again."""
    import numpy as np

    from llmops.models.ngrams import vectors

    made = np.zeros((len(texts), DIMENSIONS), dtype=np.float32)
    unknown = [place for place, text in enumerate(texts) if text not in (known or {})]
    for start in range(0, len(unknown), AT_ONCE):
        places = unknown[start : start + AT_ONCE]
        made[places] = vectors([texts[place] for place in places], DIMENSIONS)
    for place, text in enumerate(texts if known else ()):
        if known and text in known:
            made[place] = known[text]
    return made


def _normed(vectors: Any) -> Any:
    import numpy as np

    found = np.asarray(vectors, dtype=np.float32)
    norms = np.sqrt(np.square(found, dtype=np.float64).sum(axis=-1, keepdims=True))
    return (found / np.where(norms == 0, 1.0, norms)).astype(np.float32)
