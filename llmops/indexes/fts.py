"""Passages and their words in one SQLite file: full text by FTS5, ranked by BM25, and the passages themselves.

English words count by their stems; the writing of Chinese, Japanese and Korean by its characters. Words that stand in
very many passages are left out of a query where rarer ones are enough, so that no query ranks them all.
"""

from __future__ import annotations

import json
import re
import sqlite3
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmops.indexes.base import Hit, Passage, Query
from llmops.indexes.ranking import DECIMALS
from llmops.models.ngrams import words

FILE = "passages.db"
MAX_RANKED = 20_000
"""Passages that the words of a query may stand in, added up; the rarest word counts in any case."""

MAX_WORDS = 64
"""Of a query, the rarest; a question has ten or twenty."""

_LISTED_SHARE = 0.002  # of the passages, which a word has to be in for its number to be kept
_UNSPACED = re.compile(r"([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff])")

_SCHEMA = """
CREATE TABLE passages (place INTEGER PRIMARY KEY, id TEXT, source TEXT, text TEXT, metadata TEXT, around TEXT);
CREATE TABLE facts (key TEXT, value TEXT, place INTEGER);
CREATE VIRTUAL TABLE fts USING fts5(text, content='', tokenize='porter unicode61 remove_diacritics 2');
INSERT INTO fts(fts, rank) VALUES ('automerge', 0);
"""
_SCRATCH = """
CREATE VIRTUAL TABLE asked USING fts5(word, tokenize='porter unicode61 remove_diacritics 2');
CREATE VIRTUAL TABLE stems USING fts5vocab(asked, instance);
"""


def write_passages(folder: Path, passages: Iterable[Passage]) -> int:
    """Write passages with their words into a new file and return how many there are."""
    with _opened(folder / FILE) as connection:
        connection.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;" + _SCHEMA)
        connection.execute("BEGIN")
        n = 0
        for n, passage in enumerate(passages, 1):
            _write(connection, n - 1, passage)
        connection.execute("INSERT INTO fts(fts) VALUES ('optimize')")
        connection.execute("CREATE INDEX facts_by_value ON facts (key, value)")
        connection.execute("CREATE VIRTUAL TABLE temp.vocabulary USING fts5vocab(main, fts, row)")
        connection.execute(
            "CREATE TABLE common AS SELECT term, doc AS n FROM vocabulary WHERE doc > ?", (n * _LISTED_SHARE,)
        )
        connection.execute("COMMIT")
    return n


class _opened:  # noqa: N801 - used as a function
    """A connection that is closed in the end."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)

    def __enter__(self) -> sqlite3.Connection:
        return self._connection

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def _write(connection: sqlite3.Connection, place: int, passage: Passage) -> None:
    metadata = json.dumps(passage.metadata, ensure_ascii=False)
    row = (place, passage.id, passage.source, passage.text, metadata, passage.around)
    connection.execute("INSERT INTO passages VALUES (?, ?, ?, ?, ?, ?)", row)
    connection.execute("INSERT INTO fts (rowid, text) VALUES (?, ?)", (place, _spaced(passage.searched)))
    facts = [(key, json.dumps(value), place) for key, value in passage.metadata.items()]
    connection.executemany("INSERT INTO facts VALUES (?, ?, ?)", facts)


def _spaced(text: str) -> str:
    """Return a text as it is indexed: in its usual form, with a space around each character of its own."""
    return _UNSPACED.sub(r" \1 ", unicodedata.normalize("NFKC", text))


class FullText:
    """The passages of an index in their file, and their ranking by BM25. Read only, and from any thread in turn."""

    def __init__(self, folder: Path) -> None:
        uri = f"{(folder / FILE).absolute().as_uri()}?mode=ro&immutable=1"
        self._connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
        self._n: dict[str, int] = dict(self._connection.execute("SELECT term, n FROM common").fetchall())
        self._scratch = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._scratch.executescript(_SCRATCH)

    def search(self, query: Query, k: int, among: Sequence[int] | None = None) -> list[Hit]:
        """Return the k passages of the highest BM25; none of those that share no counting word with the query."""
        asked = " OR ".join(f'"{word}"' for word in self._counting(words(_spaced(query.text))))
        if not asked:
            return []
        only, wanted = "", [asked]
        if among is not None:
            only = "AND +rowid IN (SELECT value FROM json_each(?))"
            wanted.append(json.dumps(list(among)))
        # The words of the query are quoted and none has a quote in it; everything else is bound.
        found = self._connection.execute(
            f"SELECT rowid, -rank FROM fts WHERE fts MATCH ? {only} ORDER BY rank, rowid LIMIT ?",  # noqa: S608
            (*wanted, k),
        )
        hits = [Hit(place, round(score, DECIMALS)) for place, score in found]
        return sorted(hits, key=lambda hit: (-hit.score, hit.place))

    def _counting(self, asked: Sequence[str]) -> list[str]:
        """Return the words that are looked for, in the order of the query: the rarest, as many as are bearable."""
        unique = list(dict.fromkeys(asked))
        numbers = self._numbers(unique)
        chosen: set[str] = set()
        total = 0
        for word in sorted(unique, key=lambda each: numbers[each])[:MAX_WORDS]:
            total += numbers[word]
            if chosen and total > MAX_RANKED:
                break
            chosen.add(word)
        return [word for word in unique if word in chosen]

    def _numbers(self, asked: Sequence[str]) -> dict[str, int]:
        """Return in about how many passages each word stands; 0 where these are few."""
        self._scratch.executemany("INSERT INTO asked (rowid, word) VALUES (?, ?)", list(enumerate(asked)))
        stems = self._scratch.execute("SELECT doc, term FROM stems").fetchall()
        self._scratch.execute("DELETE FROM asked")
        found = dict.fromkeys(asked, 0)
        for place, stem in stems:
            found[asked[place]] = max(found[asked[place]], self._n.get(stem, 0))
        return found

    def read(self, places: Sequence[int]) -> dict[int, Passage]:
        """Return passages by their places."""
        found = self._connection.execute(
            "SELECT place, id, source, text, metadata, around FROM passages "
            "WHERE place IN (SELECT value FROM json_each(?))",
            (json.dumps(list(places)),),
        )
        return {
            place: Passage(name, source, text, json.loads(metadata), around)
            for place, name, source, text, metadata, around in found
        }

    def all(self) -> Iterable[Passage]:
        """Yield all passages in their order."""
        rows = self._connection.execute(
            "SELECT id, source, text, metadata, around FROM passages ORDER BY place"
        )
        for name, source, text, metadata, around in rows:
            yield Passage(name, source, text, json.loads(metadata), around)

    def among(self, where: Mapping[str, Any]) -> list[int] | None:
        """Return the places of the passages whose metadata is as asked, ascending; None when nothing is asked."""
        found: set[int] | None = None
        for key, value in where.items():
            values = value if isinstance(value, list) else [value]
            rows = self._connection.execute(
                "SELECT place FROM facts WHERE key = ? AND value IN (SELECT value FROM json_each(?))",
                (key, json.dumps([json.dumps(each) for each in values])),
            )
            places = {place for (place,) in rows}
            found = places if found is None else found & places
        return None if found is None else sorted(found)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
        self._scratch.close()
