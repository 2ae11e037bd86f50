"""Vectors of a fixed length, one a passage: exact cosine by one product with all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
"""Vectors that are made, or read, in one go."""

Known = Callable[[Sequence[str]], Mapping[str, Any]]
"""Gives the vectors that are there already of some of the texts."""


class Dense:
    """The passages of an index by their vectors. In a folder, it is what `write_vectors` left there."""

    def __init__(self, folder: Path) -> None:
        import numpy as np

        self.vectors: NDArray[Any] = np.load(folder / FILE, mmap_mode="r")

    def search(self, query: Query, k: int, among: Sequence[int] | None = None) -> list[Hit]:
        """Return the k passages of the highest cosine; none that are not alike at all."""
        vector = hashed([query.text])[0] if query.vector is None else query.vector
        return best(self.vectors @ normed(vector), k, among, above=0.0)

    def rows(self, places: Sequence[int]) -> Any:
        """Return the vectors of passages, shape (len(places), size), in their order."""
        return self.vectors[list(places)]


def write_vectors(folder: Path, blocks: Iterable[Any]) -> None:
    """Write vectors, given as arrays of shape (n, size), each at length 1 and in single precision."""
    import numpy as np

    np.save(folder / FILE, np.concatenate([normed(block) for block in blocks]))


def hashed_blocks(texts: Sequence[str], known: Known) -> Iterator[Any]:
    """Yield the vectors of texts in their order, as `hashed` makes them, so many at once as are bearable."""
    for start in range(0, len(texts), AT_ONCE):
        block = texts[start : start + AT_ONCE]
        yield hashed(block, known(block))


def hashed(texts: Sequence[str], known: Mapping[str, Any] | None = None) -> Any:
    """Return a vector a text by its words and characters, shape (n, DIMENSIONS); those known are not made again."""
    import numpy as np

    from llmops.models.ngrams import vectors

    made = np.zeros((len(texts), DIMENSIONS), dtype=np.float32)
    unknown = [place for place, text in enumerate(texts) if text not in (known or {})]
    made[unknown] = vectors([texts[place] for place in unknown], DIMENSIONS)
    for place, text in enumerate(texts if known else ()):
        if known and text in known:
            made[place] = known[text]
    return made


def normed(vectors: Any) -> Any:
    """Return vectors, the last axis theirs, at length 1 and in single precision; those of nothing stay so."""
    import numpy as np

    found = np.asarray(vectors, dtype=np.float32)
    norms = np.sqrt(np.square(found, dtype=np.float64).sum(axis=-1, keepdims=True))
    return (found / np.where(norms == 0, 1.0, norms)).astype(np.float32)
