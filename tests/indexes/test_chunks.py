"""Cutting documents: nothing is lost, nothing is too long, and a passage keeps its name while others change."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.definitions.index import Chunker
from llmops.indexes.base import Document, Passage
from llmops.indexes.chunks import passages_of
from llmops.models.tokens import estimate_tokens

GUIDE = """Before any heading.

# Setup

Install it.

```sh
# no heading
make
```

## On a Mac

Use brew.

# Setup

Again.
## Empty
### Deep & odd: heading #
Text.
"""


def cut(text: str, *, has_headings: bool = False, **chunker: object) -> list[Passage]:
    document = Document("d", text, {"k": 1}, has_headings)
    return list(passages_of([document], Chunker.model_validate(chunker)))


TEXTS = st.text(st.sampled_from("ab漢é .\n\t"), max_size=300)
SIZES = st.integers(1, 12)


@given(TEXTS, SIZES, st.sampled_from(["words", "tokens", "paragraph", "document", "heading"]))
def test_every_character_that_is_seen_stands_in_some_passage_in_order(text: str, size: int, by: str) -> None:
    found = "".join(passage.text for passage in cut(text, by=by, size=size))
    assert "".join(found.split()) == "".join(text.split())


@given(TEXTS, SIZES, st.sampled_from(["tokens", "paragraph", "heading"]))
def test_no_passage_is_estimated_at_more_than_its_size_but_for_a_single_word(
    text: str, size: int, by: str
) -> None:
    for passage in cut(text, by=by, size=size):
        assert estimate_tokens(passage.text) <= size or len(passage.text) <= 40


@given(TEXTS, SIZES, st.integers(0, 11))
def test_passages_by_words_have_so_many_and_repeat_so_many(text: str, size: int, overlap: int) -> None:
    if overlap >= size:
        return
    found = [passage.text.split() for passage in cut(text, by="words", size=size, overlap=overlap)]
    longest = max((len(word) for word in text.split()), default=0)
    if longest <= 40:
        assert all(len(words) <= size for words in found)
        for first, second in pairwise(found):
            assert second[:overlap] == first[len(first) - overlap :]


@pytest.mark.parametrize("by", ["words", "tokens"])
def test_an_overlap_always_leads_on(by: str) -> None:
    text = "a " * 50
    assert len(cut(text, by=by, size=6, overlap=5)) <= 50


def test_sections_are_called_as_links_to_them_are() -> None:
    found = {passage.id: passage.text for passage in cut(GUIDE, has_headings=True, by="heading")}
    assert list(found) == ["d#top", "d#setup", "d#on-a-mac", "d#setup-1", "d#deep--odd-heading"]
    assert found["d#setup"] == "Install it.\n\n```sh\n# no heading\nmake\n```"


def test_the_headings_above_a_section_are_its_metadata_and_are_searched() -> None:
    mac = next(each for each in cut(GUIDE, has_headings=True, by="heading") if each.id == "d#on-a-mac")
    assert mac.metadata == {"k": 1, "heading": "Setup > On a Mac"}
    assert mac.searched == "Setup > On a Mac\nUse brew."


def test_the_pieces_of_a_long_section_are_numbered_from_its_second() -> None:
    text = "# A\n\n" + "\n\n".join(["one two three four five"] * 4)
    assert [each.id for each in cut(text, has_headings=True, by="heading", size=8)] == [
        "d#a",
        "d#a/2",
        "d#a/3",
        "d#a/4",
    ]


def test_a_text_without_headings_is_one_section() -> None:
    assert [each.id for each in cut("# one\n\ntwo", by="heading")] == ["d#top"]


def test_a_document_that_is_not_cut_has_its_own_name() -> None:
    (whole,) = cut("  one\n\ntwo ", by="document")
    assert (whole.id, whole.source, whole.text) == ("d", "d", "one\n\ntwo")


def test_what_has_no_spaces_is_cut_all_the_same() -> None:
    found = cut("漢" * 400, by="tokens", size=50)
    assert len(found) >= 400 * 3 / 4 / 50
    assert [each.id for each in found[:2]] == ["d#1", "d#2"]


def test_neighbouring_paragraphs_stand_together_while_they_fit() -> None:
    found = cut("one two\n\nthree\n \nfour five six seven nine", by="paragraph", size=7)
    assert [each.text for each in found] == ["one two\n\nthree", "four five six seven nine"]
