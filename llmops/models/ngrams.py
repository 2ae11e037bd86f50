"""Hashed word and character n-grams, and the nearest of many texts by them.

The `embedded` model reads with them and `similar` few-shot selection chooses with them. Nothing is learnt and
nothing is stored: the same text has the same features in every process, on every Python and every machine.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

BITS = 18
DIMENSION = 1 << BITS
HALF_BITS = BITS - 1  # characters hash into the lower half of the indices, words into the upper
CHARACTER_SIZES = (3, 4, 5)
FNV_OFFSET, FNV_PRIME = 2166136261, 16777619  # FNV-1a, 32 bits, over code points
SPREAD = 0x9E3779B97F4A7C15  # 2**64 by the golden ratio: Knuth's multiplicative hashing
DECIMALS = 9  # similarities closer than this are ties: sums may differ by an ulp between machines

WORD = re.compile(r"[^\W_]+")


def words(text: str) -> list[str]:
    """Return the words of a text, NFKC and case-folded; an underscore separates, as in names of labels."""
    return WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def features(text: str) -> tuple[Ints, Floats]:
    """Return a text's features as (indices, weights), indices ascending, unique, below DIMENSION.

    Words and pairs of neighbouring words, and runs of 3 to 5 characters inside each word with a space at
    both ends. A weight is 1 + log of the times the feature occurs.
    """
    _, indices, weights = _count([text])
    return indices, weights


def vectors(texts: Sequence[str], size: int) -> Floats:
    """Return one vector of length 1 a text, shape (n, size): its features, folded by hash and signed.

    The signs keep what falls together from adding up: Weinberger et al. (2009). A text without any feature (no
    letter, no digit) is the first unit vector, so that every text is as near to itself as can be.
    """
    import numpy as np

    rows, indices, weights = _count(texts)
    mixed = (indices.astype(np.uint64) * np.uint64(SPREAD)) >> np.uint64(32)
    columns = (mixed >> np.uint64(1)).astype(np.int64) % size
    signs = 1.0 - 2.0 * (mixed & np.uint64(1)).astype(np.float64)
    flat = np.bincount(rows * size + columns, weights * signs, minlength=len(texts) * size)
    found = flat.reshape(len(texts), size)
    norms = np.sqrt(np.square(found).sum(axis=1))
    found[norms == 0, 0] = norms[norms == 0] = 1.0
    normed: Floats = found / norms[:, np.newaxis]
    return normed


class Neighbours:
    """A pool of texts that can be asked which of them are nearest to another text.

    Cosine of tf-idf weighted features; the idf comes from the pool itself and is smoothed as if one more text
    held every feature, so a pool of one works. A query touches only the texts that share features with it.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        import numpy as np

        rows, columns, weights = _count(texts)
        order = np.argsort(columns, kind="stable")
        columns = columns[order]
        starts = _starts(columns)
        self._n = len(texts)
        self._rows = rows[order]
        self._terms = columns[starts]
        self._ends = np.append(starts, len(columns))
        frequency = np.diff(self._ends)
        self._idf = np.log((1 + self._n) / (1 + frequency)) + 1
        values = weights[order] * np.repeat(self._idf, frequency)
        norms = np.sqrt(np.bincount(self._rows, values * values, minlength=self._n))
        self._values = values / norms[self._rows]

    def __len__(self) -> int:
        return self._n

    def similarities(self, text: str) -> Floats:
        """Return the cosine of a text with each text of the pool, shape (n,), 0 to 1.

        A text without any feature (no letter, no digit) is at 0 from everything.
        """
        import numpy as np

        indices, weights = features(text)
        if not len(indices) or not len(self._terms):
            return np.zeros(self._n)
        places = np.minimum(np.searchsorted(self._terms, indices), len(self._terms) - 1)
        known = self._terms[places] == indices
        weights = weights * np.where(known, self._idf[places], np.log(1 + self._n) + 1)
        weights = weights[known] / np.sqrt(weights @ weights)
        starts = self._ends[places[known]]
        lengths = self._ends[places[known] + 1] - starts
        before = np.cumsum(lengths) - lengths
        postings = np.arange(lengths.sum()) + np.repeat(starts - before, lengths)
        products = self._values[postings] * np.repeat(weights, lengths)
        return np.round(np.bincount(self._rows[postings], products, minlength=self._n), DECIMALS)

    def nearest(self, text: str, k: int, exclude: Collection[int] = ()) -> list[tuple[int, float]]:
        """Return the k nearest texts as (position, cosine), nearest first, ties by position.

        exclude: positions never returned. Fewer than k come back only when no more are left.
        """
        import numpy as np

        similarities = self.similarities(text)
        left = np.ones(self._n, dtype=bool)
        left[list(exclude)] = False
        candidates = np.flatnonzero(left)
        k = min(k, len(candidates))
        if k <= 0:
            return []
        found = similarities[candidates]
        candidates = candidates[found >= np.partition(found, len(found) - k)[len(found) - k]]
        candidates = candidates[np.argsort(-similarities[candidates], kind="stable")][:k]
        return [(int(place), float(similarities[place])) for place in candidates]


def _count(texts: Sequence[str]) -> tuple[Ints, Ints, Floats]:
    """Return (row, index, weight) of every feature of every text, by row, then by index."""
    import numpy as np

    split = [words(text) for text in texts]
    keys = np.concatenate([*_word_keys(split), *_character_keys(split)])
    keys.sort()
    starts = _starts(keys)
    times = np.diff(np.append(starts, len(keys)))
    keys = keys[starts]
    return keys >> BITS, keys & (DIMENSION - 1), 1 + np.log(times)


def _word_keys(split: Sequence[Sequence[str]]) -> Iterator[Ints]:
    """Yield row and index, packed into one number, of each word and each pair of neighbours."""
    import numpy as np

    hashes: list[int] = []
    sizes: list[int] = []
    for of_text in split:
        hashes += [zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in of_text]
        hashes += [zlib.crc32(" ".join(pair).encode("utf-8", "surrogatepass")) for pair in pairwise(of_text)]
        sizes.append(max(0, 2 * len(of_text) - 1))
    rows = np.repeat(np.arange(len(split), dtype=np.int64), np.array(sizes, dtype=np.int64))
    yield rows << BITS | _fold(np.array(hashes, dtype=np.int64)) | 1 << HALF_BITS


def _character_keys(split: Sequence[Sequence[str]]) -> Iterator[Ints]:
    """Yield row and index, packed into one number, of each run of characters, one array a size.

    All texts are hashed at once: FNV-1a of a run is that of the run one shorter, and one step more.
    """
    import numpy as np

    flat = [word for of_text in split for word in of_text]
    lengths = np.array([len(word) + 2 for word in flat], dtype=np.int64)
    word_of = np.repeat(np.arange(len(flat)), lengths)
    n_words = np.array([len(of_text) for of_text in split], dtype=np.int64)
    row_of = np.repeat(np.arange(len(split), dtype=np.int64), n_words)[word_of]
    padded = "".join(f" {word} " for word in flat)
    codes = np.frombuffer(padded.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint32)
    hashes = np.full(len(codes), FNV_OFFSET, dtype=np.uint32)
    for size in range(1, max(CHARACTER_SIZES) + 1):
        n_runs = max(0, len(codes) - size + 1)
        hashes = (hashes[:n_runs] ^ codes[size - 1 :]) * np.uint32(FNV_PRIME)
        if size in CHARACTER_SIZES:
            inside = word_of[:n_runs] == word_of[size - 1 :]
            yield row_of[:n_runs][inside] << BITS | _fold(hashes[inside].astype(np.int64))


def _fold(hashes: Ints) -> Ints:
    """Return 32-bit hashes folded to the bits of half the dimension, as FNV's authors advise."""
    return (hashes ^ (hashes >> 15)) & ((1 << HALF_BITS) - 1)


def _starts(ascending: Ints) -> Ints:
    """Return the positions at which a new value begins."""
    import numpy as np

    return np.flatnonzero(np.diff(ascending, prepend=-1))
