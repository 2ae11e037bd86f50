"""Where two outputs differ, word by word, in an effort that is bounded whatever the two texts are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

_MOST_PAIRS = 100_000
"""Pairs of equal words that are worth looking at: two texts of 700 words of prose have about 10,000."""

# Chinese and Japanese put no space between words, so each character counts as one.
_IDEOGRAM = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_IDEOGRAM}]\s*|(?:(?![{_IDEOGRAM}])\w)+\s*|[^\w\s]\s*|\s+")


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a text, and whether the other text lacks it."""

    text: str
    is_changed: bool


Pieces = tuple[Piece, ...]


def mark(before: str, after: str) -> tuple[Pieces, Pieces] | None:
    """Return both texts in pieces, those only one of them has marked; joined, they are the texts.

    None when they differ in nothing, or when words repeat so often that comparing would take too long.
    """
    if before == after:
        return None
    old, new = _WORD.findall(before), _WORD.findall(after)
    if _pairs(old, new) > _MOST_PAIRS:
        return None
    changed_old, changed_new = [True] * len(old), [True] * len(new)
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    for start_old, start_new, size in matcher.get_matching_blocks():
        changed_old[start_old : start_old + size] = [False] * size
        changed_new[start_new : start_new + size] = [False] * size
    return _joined(old, changed_old), _joined(new, changed_new)


def _pairs(old: Sequence[str], new: Sequence[str]) -> int:
    """Return how many pairs of equal words there are, which is what one step of the comparison costs."""
    counts = Counter(new)
    return sum(n * counts[word] for word, n in Counter(old).items())


def _joined(words: Sequence[str], changed: Sequence[bool]) -> Pieces:
    pieces: list[Piece] = []
    start = 0
    for end in range(1, len(words) + 1):
        if end == len(words) or changed[end] != changed[start]:
            pieces.append(Piece("".join(words[start:end]), changed[start]))
            start = end
    return tuple(pieces)
