"""Vectors in a table of LanceDB on the disk: exact cosine where they are more than the memory holds.

Lance scans the table and names the nearest; these few are then ranked as `dense` ranks all, so both find the same.
Passages and their words stay where those of every store are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from llmops.errors import StoreError
from llmops.evaluators.extras import import_extra
from llmops.indexes.base import Hit, Query
from llmops.indexes.dense import AT_ONCE, hashed, normed
from llmops.indexes.ranking import DECIMALS, best

TABLE = "vectors"
FOLDER = f"{TABLE}.lance"

SPARE = 16
"""Passages asked for beyond those wanted, so that most often all that tie with the last are among them."""

_CACHE_BYTES = 64 << 20  # what Lance may remember between queries; its own default is gigabytes
_SLACK = 2 * 10.0**-DECIMALS  # two passages that rank as equal are not further apart than this


def library() -> Any:
    """Return the library. Raises UsageError with what to install when it is not there."""
    return import_extra("lancedb", "lancedb")


class Lance:
    """The passages of an index by their vectors. In a folder, it is what `write_vectors` left there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            self._table = _connect(folder).open_table(TABLE)
        except (OSError, RuntimeError, ValueError) as error:
            raise _unreadable(folder, error) from error

    def search(self, query: Query, k: int, among: Sequence[int] | None = None) -> list[Hit]:
        """Return the k passages of the highest cosine; none that are not alike at all.

        Raises StoreError when the table cannot be read any more.
        """
        vector = normed(hashed([query.text])[0] if query.vector is None else query.vector)
        if not vector.any():
            return []
        try:
            return self._best(self._nearest(vector, k) if among is None else among, vector, k)
        except (OSError, RuntimeError, ValueError) as error:  # Lance has no errors of its own
            raise _unreadable(self._folder, error) from error

    def rows(self, places: Sequence[int]) -> Any:
        """Return the vectors of passages, shape (len(places), size), in their order."""
        import numpy as np

        taken = self._table.take_offsets(list(places)).select(["place", "vector"]).to_arrow()
        found = taken["place"].to_numpy()
        vectors = taken["vector"].combine_chunks().flatten().to_numpy().reshape(len(found), -1)
        order = np.argsort(found)  # they come in any
        return vectors[order[np.searchsorted(found, places, sorter=order)]]

    def _best(self, places: Sequence[int], vector: Any, k: int) -> list[Hit]:
        """Return the k best of passages, whose places ascend."""
        import numpy as np

        parts = (places[start : start + AT_ONCE] for start in range(0, len(places), AT_ONCE))
        scores = [self.rows(part) @ vector for part in parts]
        hits = best(np.concatenate(scores), k, None, above=0.0) if scores else []
        return [Hit(places[hit.place], hit.score) for hit in hits]

    def _nearest(self, vector: Any, k: int) -> list[int]:
        """Return the places of the k nearest and of all that may tie with the last of these, ascending."""
        limit = k + SPARE
        while True:
            found = self._scan(vector, limit)
            distances = found["_distance"].to_numpy()
            if len(distances) < limit or distances[limit - 1] - distances[max(k - 1, 0)] > _SLACK:
                return sorted(found["place"].to_pylist())
            limit *= 8

    def _scan(self, vector: Any, limit: int) -> Any:
        """Return (place, 1 - cosine) of the nearest passages, nearest first; none that are not alike at all."""
        asked = self._table.search(vector, vector_column_name="vector").distance_type("dot")
        alike = asked.distance_range(upper_bound=1.0).bypass_vector_index()
        return alike.select(["place", "_distance"]).limit(limit).to_arrow()


def write_vectors(folder: Path, blocks: Iterable[Any]) -> None:
    """Write vectors, given as arrays of shape (n, size), one array at a time in the memory."""
    import pyarrow as pa

    batches = _batches(blocks)
    first = next(batches)
    reader = pa.RecordBatchReader.from_batches(first.schema, chain([first], batches))
    try:
        _connect(folder).create_table(TABLE, reader)
    except (OSError, RuntimeError) as error:
        raise OSError(_said(error)) from error


def _batches(blocks: Iterable[Any]) -> Iterator[Any]:
    import numpy as np
    import pyarrow as pa

    start = 0
    for block in blocks:
        vectors = normed(block)
        n, size = vectors.shape
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), size)
        places = pa.array(np.arange(start, start + n, dtype=np.int64))
        yield pa.record_batch([places, column], names=["place", "vector"])
        start += n


def _unreadable(folder: Path, error: Exception) -> StoreError:
    return StoreError(f"the index in {folder} cannot be read; removed, it is built again: {_said(error)}")


def _said(error: Exception) -> str:
    return str(error).partition(", /")[0]  # what follows is a line of Lance's own source


def _connect(folder: Path) -> Any:
    lancedb = library()
    session = lancedb.Session(index_cache_size_bytes=_CACHE_BYTES, metadata_cache_size_bytes=_CACHE_BYTES)
    return lancedb.connect(folder.absolute(), session=session)
