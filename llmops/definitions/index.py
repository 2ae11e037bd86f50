"""An index: where passages come from, how documents are cut into them, and how they are found again.

It says only what is wanted; reading, building and searching belong to `indexes/`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from llmops.addresses import HTTP_URL
from llmops.definitions.base import Bool, Definition, Float, Int, Name, meaning_of
from llmops.definitions.project import Variable

Format = Literal["text", "markdown", "html", "jsonl", "csv"]
FORMATS: dict[str, Format] = {
    ".txt": "text",
    ".text": "text",
    ".rst": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
    ".jsonl": "jsonl",
    ".csv": "csv",
}
"""How a file is read, by the end of its name."""

MAX_STARS = 3
"""In one name of a pattern: what it takes to match one grows with each."""

Scalar = str | Int | Float | Bool
_QUERY = re.compile(r"\s*(?:select|with)\b", re.IGNORECASE)
_PART = re.compile(r"[^\\/:\x00-\x1f\x7f]+")


def _check_glob(glob: str) -> str:
    parts = glob.split("/")
    if not all(_PART.fullmatch(part) and part not in {".", ".."} for part in parts):
        raise ValueError(
            f"{glob!r} is no pattern inside the project: write it relative to llmops.yaml, with /"
        )
    if any("**" in part and part != "**" for part in parts) or parts[-1] == "**":
        raise ValueError(f"{glob!r}: ** stands alone between two /, for folders, as in docs/**/*.md")
    if any(part.count("*") > MAX_STARS for part in parts if part != "**"):
        raise ValueError(f"{glob!r}: a name has at most {MAX_STARS} *")
    return glob


def _check_page(url: str) -> str:
    found = HTTP_URL.fullmatch(url)
    if found is None or found["user"]:
        raise ValueError("write http(s)://HOST[:PORT][/PATH], without user name, password, query or spaces")
    return url


Glob = Annotated[str, AfterValidator(_check_glob)]
Page = Annotated[str, AfterValidator(_check_page)]


class Source(Definition):
    """Where documents come from: files of the project, a query to a database, or a page of the web.

    files: a pattern, or several; `*` stays within a folder, `**/` is any number of folders.
    sql: a query, each row of which is a document; database: a file of SQLite in the project; url_env: the variable
    that holds the URL of any other.
    format: of files and of a page; None goes by the end of the name.
    text, id: the columns of JSONL, CSV and rows that hold a document's text and its name; the others are metadata.
    labels: metadata that every document of the source has.
    """

    files: Glob | tuple[Glob, ...] | None = None
    sql: str | None = Field(default=None, min_length=1)
    http: Page | None = None
    database: str | None = None
    url_env: Variable | None = None
    format: Format | None = None
    text: str = "text"
    id: str = "id"
    labels: dict[str, Scalar] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_of_each(self) -> Source:
        given = [key for key in ("files", "sql", "http") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"a source has exactly one of files, sql, http, this one has {len(given)}")
        if (self.database is not None) + (self.url_env is not None) != (self.sql is not None):
            raise ValueError("a query has one of database and url_env, and nothing else has them")
        if self.sql is not None and not _QUERY.match(self.sql):
            raise ValueError("a query begins with SELECT or WITH: it reads and changes nothing")
        if self.sql is not None and self.format is not None:
            raise ValueError("what a query gives has no format")
        return self

    @property
    def globs(self) -> tuple[str, ...]:
        """The patterns of its files; none for what stands elsewhere."""
        return (self.files,) if isinstance(self.files, str) else self.files or ()

    @property
    def place(self) -> str:
        """How messages call it."""
        return self.http or ", ".join(self.globs) or f"the query to {self.url_env or self.database}"


class Chunker(Definition):
    """How documents are cut into passages of at most `size` tokens, or words where it goes by words.

    by: `words` and `tokens` cut evenly, each passage repeating `overlap` of the one before; `paragraph` joins
    neighbours; `heading` takes each section of Markdown or HTML; `document` cuts nothing.
    """

    by: Literal["words", "tokens", "paragraph", "heading", "document"] = "paragraph"
    size: Int = Field(default=200, ge=1, le=100_000)
    overlap: Int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _overlap_is_less(self) -> Chunker:
        if self.overlap and self.by not in {"words", "tokens"}:
            raise ValueError(f"passages by {self.by} do not overlap; only those by words or tokens do")
        if self.overlap >= self.size:
            raise ValueError(f"an overlap of {self.overlap} leaves nothing new in a passage of {self.size}")
        return self


class ModelEmbedder(Definition):
    """Vectors of a model of llmops.yaml. dimensions: None is the model's own."""

    model: Name
    dimensions: Int | None = Field(default=None, ge=1, le=16_384)


class Index(Definition):
    """What `chains/indexes/NAME.index.yaml` says.

    embedder: what makes vectors: `tfidf` of words, `hashing` of words and runs of characters, or a model.
    store: `fts` ranks by words (BM25), `vectors` by cosine, `lancedb` too, on the disk; `fused` by the ranks of both.
    """

    description: str | None = None
    sources: tuple[Source, ...] = Field(min_length=1)
    chunker: Chunker = Field(default_factory=Chunker)
    embedder: Literal["none", "tfidf", "hashing"] | ModelEmbedder = "none"
    store: Literal["fts", "vectors", "fused", "lancedb"] = "fts"

    @model_validator(mode="after")
    def _store_has_vectors(self) -> Index:
        if (self.store == "fts") != (self.embedder == "none"):
            wanted = "needs an embedder" if self.embedder == "none" else "has no use for an embedder"
            raise ValueError(f"the store {self.store} {wanted}; fts goes without, the others with one")
        if self.store == "lancedb" and self.embedder == "tfidf":
            raise ValueError(
                "the store lancedb has no use for tfidf, whose vectors have a number a word: take the embedder hashing "
                "or a model, or the store vectors"
            )
        return self

    def meaning(self) -> dict[str, Any]:
        """Return the fields that can change what is found; the description aside."""
        return meaning_of(self, without={"description"})


def matches(glob: str, path: str) -> bool:
    """Say whether a path is one that a pattern means; hidden names are only where they are written."""
    parts = [_part(part) for part in glob.split("/")]
    reached = {0}  # parts of the pattern that what has been read can be the beginning of
    for name in path.split("/"):
        reached = {next_ for at in _skipped(parts, reached) for next_ in _step(parts, at, name)}
    return len(parts) in reached


def _skipped(parts: Sequence[re.Pattern[str] | None], reached: set[int]) -> set[int]:
    """Return where one can be without reading on: `**` may be no folder at all."""
    found = set(reached)
    for at, part in enumerate(parts):
        if part is None and at in found:
            found.add(at + 1)
    return found


def _step(parts: Sequence[re.Pattern[str] | None], at: int, name: str) -> Iterator[int]:
    if at == len(parts):
        return
    part = parts[at]
    if part is None:
        if not name.startswith("."):
            yield at
    elif part.fullmatch(name):
        yield at + 1


@cache
def _part(part: str) -> re.Pattern[str] | None:
    """Return what one name has to be like; None for any number of folders."""
    if part == "**":
        return None
    hidden = "" if part.startswith(".") else r"(?!\.)"
    words = {"*": "[^/]*", "?": "[^/]"}
    return re.compile(hidden + "".join(words.get(letter, re.escape(letter)) for letter in part))


def folder_of(glob: str) -> str:
    """Return the deepest folder that everything a pattern can match stands in; "" is the project itself."""
    parts = glob.split("/")[:-1]
    wild = next((place for place, part in enumerate(parts) if "*" in part or "?" in part), len(parts))
    return "/".join(parts[:wild])
