"""Cases that look as if they belonged together, of a dataset that declares no cluster: verdicts would be too sure.

Looked at are metadata and ids that name a source, long inputs that stand in several cases, and inputs that are nearly
the same. None of it is a fault, and a gate treats such cases as independent until a cluster is declared.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING
from zlib import crc32

if TYPE_CHECKING:
    from llmops.definitions.dataset import Case, Dataset

MOST_CASES = 5_000
"""Cases that are looked at: a dataset of clusters shows them early, and nobody waits for more."""
_SOURCES = re.compile(
    "id|docs?|document|url|file|page|article|conversation|session|thread|dialog(ue)?|user|customer|patient|author"
)
_MAYBE = re.compile("source|origin|group|family|parent|account")
_MANY = 10  # values from which on a source is one, and no category
_WORDS = re.compile(r"[^\W_]+")
_STEM = re.compile(r"(?P<stem>.*\d.*?)[-_.#/:](?:\d{1,4}|[A-Za-z])")
_LONG = 80  # characters of an input that is a source, and no label or command
_SHINGLE = 4
_ALIKE = 0.8
_LEAST_SHARE = 0.05


def undeclared_clusters(dataset: Dataset, split: str | None) -> list[str]:
    """Return in what cases of a split look as if they belonged together, a sentence each.

    None once a cluster is declared.
    """
    if dataset.definition.cluster is not None:
        return []
    cases = list(islice(dataset.of(split), MOST_CASES))
    advice = "declare `cluster:`, or intervals and verdicts are too sure"
    return [
        f"cases may not be independent: {n:,} of {len(cases):,} {what}; {advice}"
        for what, n in signs_of(cases)
        if n >= max(2, _LEAST_SHARE * len(cases))
    ]


def signs_of(cases: Sequence[Case]) -> Iterator[tuple[str, int]]:
    """Yield what cases share with another, and how many do."""
    for key in sorted({key for case in cases for key in case.metadata}):
        values = [case.metadata.get(key) for case in cases]
        if _is_source(key, {value for value in values if isinstance(value, (str, int))}):
            yield f"share metadata.{key} with another", _n_shared(values)
    stems = [found["stem"] if (found := _STEM.fullmatch(case.id)) else None for case in cases]
    counts = Counter(stem for stem in stems if stem is not None)
    if len(counts) > 1 and sum(n > 1 for n in counts.values()) > 1:
        yield "have an id that counts on from another's", _n_shared(stems)
    for name in sorted({name for case in cases for name in case.inputs}):
        values = [case.inputs.get(name) for case in cases]
        n = _n_shared([value if isinstance(value, str) and len(value) >= _LONG else None for value in values])
        yield f"share the whole inputs.{name} with another", n
    yield "have inputs nearly the same as another's", _n_alike(cases)


def _is_source(key: str, values: set[str | int]) -> bool:
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key).lower())
    is_one = any(map(_SOURCES.fullmatch, words)) and len(values) > 1
    return is_one or (any(map(_MAYBE.fullmatch, words)) and len(values) >= _MANY)


def _n_shared(values: Iterable[object]) -> int:
    """Return how many of the values stand more than once; None, and what cannot be counted, does not count."""
    counts = Counter(value for value in values if isinstance(value, (str, int)))
    return sum(n for n in counts.values() if n > 1)


def _n_alike(cases: Sequence[Case]) -> int:
    """Return how many cases have inputs that are, but for a few words, those of another."""
    alike: set[int] = set()
    buckets: dict[int, list[int]] = defaultdict(list)
    texts = [_shingles(case) for case in cases]
    for place, shingles in enumerate(texts):
        if not shingles:
            continue
        bucket = buckets[min(shingles)]  # texts that share nearly all of them nearly always share the least
        for other in bucket:
            if len(shingles & texts[other]) >= _ALIKE * len(shingles | texts[other]):
                alike |= {place, other}
                break
        else:
            bucket.append(place)
    return len(alike)


def _shingles(case: Case) -> frozenset[int]:
    """Return the runs of words in a case's inputs, as numbers."""
    found: set[int] = set()
    for name, value in sorted(case.inputs.items()):
        words = _WORDS.findall(str(value).casefold())
        last = max(1, len(words) - _SHINGLE + 1)
        found.update(
            crc32(" ".join([name, *words[at : at + _SHINGLE]]).encode("utf-8", "surrogatepass"))
            for at in range(last)
        )
    return frozenset(found)
