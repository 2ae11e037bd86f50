"""What an index file may say, and what is told of a slip with its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.definitions.build import build
from llmops.definitions.index import Index, folder_of, matches
from llmops.definitions.yaml_reader import read_yaml
from llmops.errors import DefinitionError


def index(text: str) -> Index:
    return build(Index, read_yaml(text.encode(), "i.yaml"))


def test_what_is_not_said_has_a_sensible_value() -> None:
    made = index("sources: [{files: docs/*.md}]")
    assert (made.chunker.by, made.embedder, made.store) == ("paragraph", "none", "fts")
    assert made.sources[0].globs == ("docs/*.md",)


def test_a_description_changes_no_meaning_and_all_else_does() -> None:
    texts = [
        "sources: [{files: a.md}]",
        "sources: [{files: b.md}]",
        "sources: [{files: a.md, labels: {x: 1}}]",
        "sources: [{files: a.md}]\nchunker: {size: 9}",
        "sources: [{files: a.md}]\nembedder: tfidf\nstore: fused",
    ]
    assert len({str(index(text).meaning()) for text in texts}) == len(texts)
    assert index(f"description: x\n{texts[0]}").meaning() == index(texts[0]).meaning()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sources: []", "1:1: sources: needs at least 1 of them"),
        ("sources: [{text: body}]", "a source has exactly one of files, sql, http, this one has 0"),
        ("sources: [{files: a.md, http: 'https://h/'}]", "this one has 2"),
        ("sources: [{file: a.md}]", "did you mean 'files'?"),
        ("sources: [{files: /etc/passwd}]", "is no pattern inside the project"),
        ("sources: [{files: ../x.md}]", "is no pattern inside the project"),
        ("sources: [{files: 'a\\x.md'}]", "is no pattern inside the project"),
        ("sources: [{files: docs/**}]", "** stands alone between two /"),
        ("sources: [{files: a**/x.md}]", "** stands alone between two /"),
        ("sources: [{sql: SELECT 1}]", "a query has one of database and url_env"),
        ("sources: [{files: a.md, url_env: DB}]", "a query has one of database and url_env"),
        ("sources: [{sql: SELECT 1, database: d.db, format: csv}]", "what a query gives has no format"),
        ("sources: [{sql: DROP TABLE x, database: d.db}]", "a query begins with SELECT or WITH"),
        ("sources: [{http: 'https://u:p@h/'}]", "write http(s)://HOST"),
        ("sources: [{http: 'file:///etc/passwd'}]", "write http(s)://HOST"),
        ("sources: [{files: a.md}]\nchunker: {size: 0}", "2:11: size: should be at least 1, not 0"),
        ("sources: [{files: a.md}]\nchunker: {by: words, size: 5, overlap: 5}", "leaves nothing new"),
        ("sources: [{files: a.md}]\nchunker: {overlap: 5}", "passages by paragraph do not overlap"),
        (
            "sources: [{files: a.md}]\nchunker: {by: heading, overlap: 5}",
            "passages by heading do not overlap",
        ),
        ("sources: [{files: a.md}]\nembedder: tf-idf\nstore: fused", "did you mean 'tfidf'?"),
        ("sources: [{files: a.md}]\nembedder: {modle: m}\nstore: fused", "did you mean 'model'?"),
        ("sources: [{files: a.md}]\nstore: fused", "the store fused needs an embedder"),
        ("sources: [{files: a.md}]\nstore: lancedb", "the store lancedb needs an embedder"),
        (
            "sources: [{files: a.md}]\nstore: lancedb\nembedder: tfidf",
            "the store lancedb has no use for tfidf",
        ),
        ("sources: [{files: a.md}]\nembedder: tfidf", "the store fts has no use for an embedder"),
    ],
)
def test_a_slip_is_told(text: str, said: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        index(text)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("glob", "path", "expected"),
    [
        ("docs/*.md", "docs/a.md", True),
        ("docs/*.md", "docs/x/a.md", False),
        ("docs/**/*.md", "docs/a.md", True),
        ("docs/**/*.md", "docs/x/y/a.md", True),
        ("docs/**/*.md", "docs/.x/a.md", False),
        ("**/*.md", "a.md", True),
        ("*.md", ".a.md", False),
        (".github/*.md", ".github/a.md", True),
        ("a?c.md", "abc.md", True),
        ("a?c.md", "a/c.md", False),
        ("a.md", "axmd", False),
        ("a[b].md", "a[b].md", True),
    ],
)
def test_patterns_match_as_they_do_in_a_shell(glob: str, path: str, expected: bool) -> None:
    assert matches(glob, path) is expected


@given(st.lists(st.sampled_from(["a", "*", "b*", "**", "?"]), min_size=1, max_size=4))
def test_everything_a_pattern_matches_stands_in_its_folder(parts: list[str]) -> None:
    glob = "/".join([*parts, "x.md"])
    path = "/".join(
        [*(part.replace("**", "a/b").replace("*", "c").replace("?", "d") for part in parts), "x.md"]
    )
    assert matches(glob, path)
    assert path.startswith(folder_of(glob))


def test_a_pattern_of_many_stars_is_matched_at_once_S17() -> None:
    assert not matches("/".join(["**"] * 40) + "/x.md", "a/" * 60 + "y.md")
    assert not matches("/".join(["**", "a"] * 20) + "/x.md", "a/" * 60 + "y.md")
    assert not matches("a*a*a*b.md", "a" * 250 + ".md")
    with pytest.raises(DefinitionError, match="at most 3"):
        index("sources: [{files: 'a*a*a*a*.md'}]")
