"""Documents in, passages out: cut evenly, at paragraphs or at headings, under names that stay when others change.

A size is in tokens as they are estimated everywhere, never above it, or in words.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from llmops.definitions.index import Chunker
from llmops.indexes.base import Document, Passage
from llmops.models.tokens import BYTES_A_TOKEN, TOKENS_A_WORD_TENTHS

_WORD = re.compile(r"\S{1,40}")  # what has no spaces, as Chinese or a long address, is cut all the same
_BLANK = re.compile(r"\n[^\S\n]*\n\s*")
_HEADING = re.compile(r"(#{1,6})[ \t]+(.*?)[ \t#]*$")
_FENCE = re.compile(r" {0,3}(```+|~~~+)")
_UNSAID = re.compile(r"[^\w\- ]")


def passages_of(documents: Iterable[Document], chunker: Chunker) -> Iterator[Passage]:
    """Yield the passages of all documents, in their order.

    Sections are called DOCUMENT#heading, as links are, and their further pieces DOCUMENT#heading/2; a document that
    is not cut has its own name; all others DOCUMENT#1, DOCUMENT#2 and so on.
    """
    for document in documents:
        if chunker.by == "document":
            yield Passage(document.id, document.id, document.text.strip(), document.metadata)
        elif chunker.by == "heading":
            yield from _section_passages(document, chunker)
        else:
            for number, text in enumerate(_pieces(document.text, chunker), 1):
                yield Passage(f"{document.id}#{number}", document.id, text, document.metadata)


def _pieces(text: str, chunker: Chunker) -> Iterator[str]:
    if chunker.by in {"words", "tokens"}:
        yield from _windows(text, chunker.size, chunker.overlap, by_words=chunker.by == "words")
    else:
        yield from _joined(text, chunker.size)


def _windows(text: str, size: int, overlap: int, *, by_words: bool) -> Iterator[str]:
    """Yield pieces of at most `size`, each beginning with the last `overlap` of the one before."""
    spans = [found.span() for found in _WORD.finditer(text)]
    costs = [1] * len(spans) if by_words else _tenths(text, spans)
    limit, kept = (size, overlap) if by_words else (size * 10, overlap * 10)
    start, end = 0, 0
    while end < len(spans):
        total, end = costs[start], start + 1
        while end < len(spans) and total + costs[end] <= limit:
            total += costs[end]
            end += 1
        yield text[spans[start][0] : spans[end - 1][1]]
        begin, total = end, 0
        while begin > start + 1 and total + costs[begin - 1] <= kept:
            begin -= 1
            total += costs[begin]
        start = begin


def _tenths(text: str, spans: Sequence[tuple[int, int]]) -> list[int]:
    """Return the tokens of each word with the space before it, in tenths: added up, no less than the estimate."""
    starts = [0, *(end for _, end in spans)]
    return [
        max(
            TOKENS_A_WORD_TENTHS,
            -(-10 * len(text[before:end].encode("utf-8", "surrogatepass")) // BYTES_A_TOKEN),
        )
        for before, (_, end) in zip(starts, spans, strict=False)
    ]


def _joined(text: str, size: int) -> Iterator[str]:
    """Yield paragraphs, neighbours together while they fit; one that is too long is cut evenly."""
    held: list[str] = []
    total = 0
    for paragraph in filter(None, (part.strip() for part in _BLANK.split(text))):
        cost = sum(_tenths(paragraph, [found.span() for found in _WORD.finditer(paragraph)])) + 5
        if held and total + cost > size * 10:
            yield "\n\n".join(held)
            held, total = [], 0
        if cost > size * 10:
            yield from _windows(paragraph, size, 0, by_words=False)
        else:
            held.append(paragraph)
            total += cost
    if held:
        yield "\n\n".join(held)


class _Section(NamedTuple):
    slug: str
    around: str
    text: str


def _section_passages(document: Document, chunker: Chunker) -> Iterator[Passage]:
    for section in _sections(document):
        named = {**document.metadata, "heading": section.around} if section.around else document.metadata
        for number, text in enumerate(_joined(section.text, chunker.size), 1):
            more = f"/{number}" if number > 1 else ""
            yield Passage(f"{document.id}#{section.slug}{more}", document.id, text, named, section.around)


def _sections(document: Document) -> Iterator[_Section]:
    """Yield each heading's own text; what stands under no heading first. A line of code is no heading."""
    slugs: Counter[str] = Counter()
    path: list[tuple[int, str]] = []
    lines: list[str] = []
    fence = ""

    def section() -> Iterator[_Section]:
        if text := "\n".join(lines).strip():
            slug = _slug(path[-1][1]) if path else "top"
            again = f"-{slugs[slug]}" if slugs[slug] else ""
            slugs[slug] += 1
            yield _Section(f"{slug}{again}", " > ".join(name for _, name in path), text)

    for line in document.text.splitlines():
        found = _FENCE.match(line)
        if found and (not fence or found[1].startswith(fence)):
            fence = "" if fence else found[1]
        heading = None if fence or not document.has_headings else _HEADING.fullmatch(line)
        if heading is None:
            lines.append(line)
            continue
        yield from section()
        lines.clear()
        path = [above for above in path if above[0] < len(heading[1])]
        path.append((len(heading[1]), heading[2]))
    yield from section()


def _slug(heading: str) -> str:
    """Return the part of a link that leads to a heading, as GitHub makes it."""
    return _UNSAID.sub("", heading.strip().lower()).replace(" ", "-") or "section"
