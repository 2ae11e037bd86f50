"""Every store: the nearest passages first, ties in their order, and only those that are asked for."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.definitions.workspace import load_workspace
from llmops.indexes import OpenIndex, fts, open_index
from llmops.indexes.base import Hit, Passage, Query
from llmops.indexes.fused import fuse
from llmops.models.ngrams import words

Project = Callable[..., Path]

STORES = ("store: fts", "{store: vectors, embedder: tfidf}", "{store: vectors, embedder: hashing}",
          "{store: fused, embedder: tfidf}", "{store: fused, embedder: hashing}",
          "{store: lancedb, embedder: hashing}")  # fmt: skip
TEXTS = [
    "The robin sings at dawn in spring.",
    "An owl hunts at night.",
    "The pike hunts in still water.",
    "The pike hunts in still water.",
    "Bread is baked at dawn.",
]


@pytest.fixture
def opened(project: Project) -> Callable[..., OpenIndex]:
    """Return an index over texts, each a document of its own; further columns are metadata."""

    def opened(how: str, texts: list[str] = TEXTS, **columns: list[Any]) -> OpenIndex:
        import json

        rows = [
            {"id": f"t{place}", "text": text, **{key: values[place] for key, values in columns.items()}}
            for place, text in enumerate(texts)
        ]
        root = project(
            {
                "d/rows.jsonl": "".join(json.dumps(row) + "\n" for row in rows),
                "chains/indexes/docs.index.yaml": "sources: [{files: d/rows.jsonl}]\nchunker: {by: document}\n"
                + how.strip("{}").replace(", ", "\n"),
            }
        )
        return open_index(load_workspace(root), "docs")

    return opened


Opened = Callable[..., OpenIndex]


def found(index: OpenIndex, query: str, k: int = 3, **where: Any) -> list[str]:
    return [passage.id for passage, _ in index.find(Query(query), k, where)]


@pytest.mark.parametrize("how", STORES)
def test_the_nearest_passage_comes_first(opened: Opened, how: str) -> None:
    index = opened(how)
    assert found(index, "when does the robin sing", 1) == ["t0"]
    assert found(index, "owls at night", 1) == ["t1"]


@pytest.mark.parametrize("how", STORES)
def test_equal_passages_stand_in_their_order_with_equal_scores(opened: Opened, how: str) -> None:
    hits = opened(how).store.search(Query("pike in water"), 2)
    assert [hit.place for hit in hits] == [2, 3]
    assert (hits[0].score == hits[1].score) is ("fused" not in how)


@pytest.mark.parametrize("how", STORES)
def test_scores_fall_and_no_more_come_than_asked_for(opened: Opened, how: str) -> None:
    index = opened(how)
    scores = [score for _, score in index.find(Query("hunts at dawn in water"), 4, {})]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 4
    assert found(index, "pike", 0) == []


@pytest.mark.parametrize("how", STORES)
@pytest.mark.parametrize(
    "query", ["", "?!", '"', "'; DROP TABLE passages; --", "a" * 5000, "OR AND NOT *", "\0", "漢"]
)
def test_a_query_of_any_text_is_answered_S16(opened: Opened, how: str, query: str) -> None:
    index = opened(how)
    assert len(index.find(Query(query), 5, {})) <= 5
    assert found(index, "robin", 1) == ["t0"]


@pytest.mark.parametrize("how", STORES)
def test_only_passages_whose_metadata_is_as_asked_are_found(opened: Opened, how: str) -> None:
    index = opened(
        how, lang=["en", "de", "en", "de", "en"], year=[1, 2, 3, 4, 5], old=[True, False] * 2 + [True]
    )
    assert found(index, "pike hunts", 5, lang="de", year=4) == ["t3"]
    assert set(found(index, "pike hunts owl", 5, year=[2, 4])) == {"t1", "t3"}
    assert found(index, "pike", 5, lang="fr") == []
    assert found(index, "pike", 5, year="3") == []
    assert found(index, "pike", 1, old=True) == ["t2"]


@pytest.mark.parametrize(
    "how", [how for how in STORES if "lancedb" not in how]
)  # Lance names files by chance
def test_two_builds_of_the_same_are_equal_to_the_byte(opened: Opened, how: str, tmp_path: Path) -> None:
    def contents() -> dict[str, bytes]:
        opened(how)
        (folder,) = (tmp_path / ".llmops/indexes").iterdir()
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    first = contents()
    for path in (tmp_path / ".llmops/indexes").iterdir():
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    assert contents() == first


def test_the_writing_of_chinese_is_searched_by_its_characters(opened: Opened) -> None:
    index = opened("store: fts", ["知更鸟在黎明歌唱", "猫头鹰在夜间捕猎"])
    assert found(index, "猫头鹰", 1) == ["t1"]


def test_stems_and_accents_do_not_part_words(opened: Opened) -> None:
    index = opened("store: fts", ["A café opens.", "Robins are singing."])
    assert (found(index, "opening CAFE"), found(index, "sing robin")) == (["t0"], ["t1"])


def test_words_that_are_everywhere_are_left_out_where_rarer_ones_are_enough(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fts, "MAX_RANKED", 40)
    index = opened("store: fts", [f"the common word number{place}" for place in range(100)])
    assert found(index, "the common word number7", 5) == ["t7"]
    assert len(found(index, "the common word", 5)) == 5


@given(st.lists(st.sampled_from("abcd "), max_size=8).map("".join), st.data())
def test_bm25_is_that_of_the_formula(query: str, data: st.DataObject) -> None:
    """Robertson and Zaragoza (2009), with k1 = 1.2 and b = 0.75 as FTS5 has them."""
    import tempfile

    texts = data.draw(
        st.lists(
            st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=6), min_size=1, max_size=8
        )
    )
    passages = [Passage(str(place), "d", " ".join(each)) for place, each in enumerate(texts)]
    with tempfile.TemporaryDirectory() as name:
        fts.write_passages(Path(name), passages)
        index = fts.FullText(Path(name))
        hits = index.search(Query(query), 10)
        index.close()
    asked = dict.fromkeys(words(query))
    mean = sum(map(len, texts)) / len(texts)
    for hit in hits:
        times = Counter(texts[hit.place])
        expected = 0.0
        for word in asked:
            n = sum(word in each for each in texts)
            idf = max(math.log((len(texts) - n + 0.5) / (n + 0.5)), 1e-6)
            tf, long = times[word], 1 - 0.75 + 0.75 * len(texts[hit.place]) / mean
            expected += idf * tf * 2.2 / (tf + 1.2 * long)
        assert hit.score == pytest.approx(expected, abs=1e-5)


def test_fusing_adds_up_reciprocal_ranks() -> None:
    fused = fuse([[Hit(3, 9.0), Hit(1, 8.0)], [Hit(1, 0.9), Hit(2, 0.8)]], 3)
    assert fused == [Hit(1, round(1 / 62 + 1 / 61, 6)), Hit(3, round(1 / 61, 6)), Hit(2, round(1 / 62, 6))]


def test_tfidf_is_the_cosine_of_weighted_words(opened: Opened) -> None:
    index = opened("{store: vectors, embedder: tfidf}", ["a b", "b c c"])
    idf = {"a": math.log(3 / 2) + 1, "b": math.log(3 / 3) + 1, "c": math.log(3 / 2) + 1}
    passage = {"b": idf["b"], "c": (1 + math.log(2)) * idf["c"]}
    expected = passage["c"] / math.hypot(*passage.values())
    (hit,) = index.store.search(Query("c"), 2)
    assert hit.place == 1
    assert hit.score == pytest.approx(expected, abs=1e-6)
