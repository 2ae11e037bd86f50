"""What stands outside the project, as it was when it was last taken: its documents, their hash, number and time.

Only `take` reaches out, and only a run calls it, before it plans; `check`, `render` and plans read what was taken. The
version of an index counts the hash, so that what has changed outside is asked again and what has not is not.
"""

from __future__ import annotations

import hashlib
import io
import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from llmops.definitions.base import identity_of
from llmops.definitions.chain import uses_of
from llmops.definitions.index import FORMATS, Format, Source
from llmops.definitions.reference import Kind, parse_reference
from llmops.definitions.workspace import Workspace
from llmops.errors import DefinitionError, StoreError, UsageError
from llmops.indexes.base import Document

FOLDER = ".llmops/indexes/snapshots"
_MEDIA: dict[str, Format] = {
    "text/html": "html",
    "text/markdown": "markdown",
    "text/plain": "text",
    "text/csv": "csv",
}


@dataclass(frozen=True)
class Snapshot:
    """What a source gave. hash: of its documents. taken_at: in ISO 8601. place: how messages call the source."""

    hash: str
    n_documents: int
    taken_at: str
    place: str


def is_outside(source: Source) -> bool:
    """Say whether a source stands outside the project's files."""
    return not source.globs


def find_snapshot(root: Path, source: Source) -> Snapshot | None:
    """Return what is known of a source as it was last taken; None before that."""
    try:
        with _path(root, source).open(encoding="utf-8") as file:
            return Snapshot(**json.loads(file.readline()))
    except (OSError, ValueError, TypeError):
        return None


def read_snapshot(root: Path, source: Source) -> Iterator[Document]:
    """Yield the documents of a source as it was last taken.

    Raises StoreError when the file is not what its first line says.
    """
    path = _path(root, source)
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            about = json.loads(file.readline())
            for line in file:
                digest.update(line)
                yield Document(**json.loads(line))
    except (OSError, ValueError, TypeError) as error:
        raise StoreError(f"{path} cannot be read: {error}; remove it, and run again") from error
    if digest.hexdigest() != about.get("hash"):
        raise StoreError(f"{path} is not what was taken; remove it, and run again")


def indexes_used(workspace: Workspace, kind: Kind, name: str, seen: frozenset[str] = frozenset()) -> set[str]:
    """Return the names of the indexes that an experiment or chain asks; `seen`: chains on the way to it."""
    found: set[str] = set()
    if kind == "experiment":
        for variant in workspace.experiment(name).variants.values():
            found |= {str(value) for key, value in variant.set.items() if key.endswith(".index")}
            if variant.chain is not None:
                found |= indexes_used(workspace, "chain", parse_reference(variant.chain).name)
    elif kind == "chain" and name not in seen:
        for use in (use for step in workspace.chain(name).steps for use in uses_of(step)):
            if use.retrieve is not None:
                found.add(parse_reference(use.retrieve.index).name)
            elif use.chain is not None:
                found |= indexes_used(workspace, "chain", parse_reference(use.chain).name, seen | {name})
    return found & set(workspace.names("index"))


def take(
    workspace: Workspace, name: str, environment: Mapping[str, str], utc_now: Callable[[], datetime]
) -> Iterator[str]:
    """Take every source of an index that stands outside; yield what to say of those that cannot be read now."""
    for source in workspace.index(name).sources:
        if is_outside(source):
            try:
                documents = list(_taken(workspace, source, environment))
            except (UsageError, DefinitionError) as error:
                before = find_snapshot(workspace.root, source)
                since = "nothing was taken before" if before is None else f"as of {before.taken_at} it stays"
                yield f"index {name}: {source.place}: {error}; {since}"
            else:
                _keep(workspace.root, source, documents, utc_now())


def _taken(workspace: Workspace, source: Source, environment: Mapping[str, str]) -> Iterator[Document]:
    from llmops.indexes.documents import read_as, row_documents

    if source.http is not None:
        from llmops.indexes.web import fetch

        data, media = fetch(source.http, environment)
        kind = source.format or FORMATS.get(PurePosixPath(source.http).suffix.lower()) or _MEDIA.get(media)
        if kind is None:
            raise UsageError(f"it is {media}, which is in no format that is read; give the source a format")
        yield from read_as(kind, io.BytesIO(data), source.http, source)
        return
    yield from row_documents(_rows(workspace, source, environment), source.place, source)


def _rows(
    workspace: Workspace, source: Source, environment: Mapping[str, str]
) -> Iterator[tuple[int, dict[str, object]]]:
    from llmops.definitions.trees import WorkTree
    from llmops.indexes.queries import ask_file, ask_url

    query = source.sql or ""
    if source.url_env is not None:
        return ask_url(source.url_env, query, environment)
    path = WorkTree(workspace.root).inside(source.database or "")
    if not path.is_file():
        raise UsageError(f"there is no file {source.database}")
    return ask_file(path, query)


def _keep(root: Path, source: Source, documents: list[Document], now: datetime) -> None:
    """Write documents down in place of those taken before, all or none."""
    lines = [
        json.dumps(_fields(each), ensure_ascii=False, sort_keys=True).encode() + b"\n" for each in documents
    ]
    digest = hashlib.sha256(b"".join(lines)).hexdigest()
    about = Snapshot(digest, len(lines), now.isoformat(timespec="seconds"), source.place)
    path = _path(root, source)
    made = path.with_name(f".{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with made.open("wb") as file:
            file.write(json.dumps(asdict(about), ensure_ascii=False).encode() + b"\n")
            file.writelines(lines)
        made.replace(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error}") from error


def _fields(document: Document) -> dict[str, Any]:
    return {**asdict(document), "metadata": dict(document.metadata)}


def _path(root: Path, source: Source) -> Path:
    return root / FOLDER / f"{identity_of(source.model_dump(mode='json'))[:16]}.jsonl"
