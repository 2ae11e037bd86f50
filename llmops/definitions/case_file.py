"""A case, and any number of them: few stay in memory, many lie in a temporary file that no one else sees.

Where cases come from and what is wrong with them is left to `dataset`.
"""

from __future__ import annotations

import hashlib
import marshal
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, overload

from pydantic import Field

from llmops.definitions.base import Definition, canonical, identity_of
from llmops.definitions.spool import Spool

_MOST_KEPT = 1_000
_MOST_KEPT_CHARACTERS = 1 << 20
"""Below both, cases stay in memory: most datasets are small, and examples are shown again and again."""


class Case(Definition):
    """One `inputs` with what is expected of it. split, slice, cluster: as the definition derives them."""

    id: str
    inputs: Mapping[str, Any]
    expected: Any = None
    metadata: Mapping[str, Any] = Field(default_factory=dict)
    split: str | None = None
    slice: str | None = None
    cluster: str | None = None

    def content(self) -> str:
        """Return everything in the case, as canonical JSON."""
        return canonical(
            (self.id, self.inputs, self.expected, self.metadata, self.split, self.slice, self.cluster)
        )

    def key(self) -> str:
        """Return the hash of everything in the case."""
        return key_of(self.content())

    def input_key(self) -> str:
        """Return the hash of what can change an output: gold answers and metadata cannot."""
        return identity_of([self.id, self.inputs, self.cluster])


def key_of(content: str) -> str:
    """Return the key of the case that has this content."""
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


class CaseFile(Sequence[Case]):
    """Cases on disk, read back one at a time: 8 bytes of memory each, and 4 more in a part of them.

    The file is gone with the last object that reads it. May be read from several threads.
    """

    def __init__(self, spool: Spool, starts: Sequence[int], places: Sequence[int]) -> None:
        self._spool = spool
        self._starts = starts
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Case: ...
    @overload
    def __getitem__(self, index: slice) -> CaseFile: ...
    def __getitem__(self, index: int | slice) -> Case | CaseFile:
        if isinstance(index, slice):
            return CaseFile(self._spool, self._starts, self._places[index])
        place = self._places[index]
        start = self._starts[place]
        return _unpacked(self._spool.read(start, self._starts[place + 1] - start))

    def at(self, places: Sequence[int]) -> CaseFile:
        """Return the cases that stand at some places of all that are in the file."""
        return CaseFile(self._spool, self._starts, places)


def cases_at(cases: Sequence[Case], places: Sequence[int]) -> Sequence[Case]:
    """Return the cases at some places, in that order."""
    return cases.at(places) if isinstance(cases, CaseFile) else tuple(cases[place] for place in places)


class CaseWriter:
    """Takes cases in, one after the other, and gives them back as a sequence."""

    def __init__(self) -> None:
        self._kept: list[Case] = []
        self._n_characters = 0
        self._spool: Spool | None = None
        self._starts = array("Q", [0])

    def add(self, case: Case, n_characters: int) -> None:
        """Take in a case. n_characters: of its content.

        Raises StoreError when the disk cannot take it.
        """
        if self._spool is not None:
            self._write(self._spool, [case])
            return
        self._kept.append(case)
        self._n_characters += n_characters
        if len(self._kept) > _MOST_KEPT or self._n_characters > _MOST_KEPT_CHARACTERS:
            self._spool = Spool()
            self._write(self._spool, self._kept)
            self._kept = []

    def finish(self) -> Sequence[Case]:
        """Return all cases, in the order in which they came."""
        if self._spool is None:
            return tuple(self._kept)
        self._spool.flush()
        return CaseFile(self._spool, self._starts, range(len(self._starts) - 1))

    def _write(self, spool: Spool, cases: Iterable[Case]) -> None:
        for case in cases:
            data = _packed(case)
            self._starts.append(spool.write(data) + len(data))


def _packed(case: Case) -> bytes:
    """Return a case as bytes, by marshal: this process alone reads them, and nothing else is as quick and as exact."""
    parts: Any = (case.id, case.inputs, case.expected, case.metadata, case.split, case.slice, case.cluster)
    return marshal.dumps(parts)


def _unpacked(data: bytes) -> Case:
    parts = marshal.loads(data)  # noqa: S302 - our own bytes
    id_, inputs, expected, metadata, split, slice_, cluster = parts
    return Case(
        id=id_,
        inputs=inputs,
        expected=expected,
        metadata=metadata,
        split=split,
        slice=slice_,
        cluster=cluster,
    )
