"""The way to one MLflow: its client, opened with settings of ours, and what goes wrong there as errors of ours.

What is written and what is read is left to the other files of this folder; mlflow itself, which takes seconds to
import, is met nowhere but here, and only once somebody asks for it.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmops.errors import LlmopsError, StoreError
from llmops.secrets import clean_cause, register_environment, scrub_told
from llmops.stores import tracking

# Any: mlflow's own classes, which only this folder knows and which come without types.
Client = Any

PAGE = 500

_SETTINGS = {  # before the import, because mlflow reads some of them only there; the user's own win
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "64",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
}
_FORCED = {  # the asynchronous way drops traces without a word; a pickle is code of whoever wrote it
    "MLFLOW_ENABLE_ASYNC_TRACE_LOGGING": "false",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_ALLOW_HTTP_REDIRECTS": "false",  # what is written goes where it was told to go
    "MLFLOW_MODEL_CATALOG_URI": "",  # prices are ours or unknown, and are not fetched from the network
}


@dataclass(frozen=True)
class Connection:
    """One MLflow. Made by `connect`; used from one thread."""

    uri: str
    client: Client = field(repr=False)
    tracing: Client = field(repr=False)

    @property
    def path(self) -> str | None:
        """The file of a database, None where a server is asked."""
        return tracking.database_path(self.uri)

    def close(self) -> None:
        """Close the connections to a database; mlflow itself would keep them as long as the process lives."""
        if self.path is not None:
            self.tracing.store.engine.dispose()
            self.client._get_registry_client().store.engine.dispose()

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn whatever goes wrong inside into StoreError."""
        with _translated(self.uri):
            yield

    def expect(self, run_id: str, what: str, written: object, found: object) -> None:
        """See that what was read back of a run is what was written; raises StoreError where it is not."""
        if written == found:
            return
        if isinstance(written, dict) and isinstance(found, dict):
            key = next(key for key in written if written[key] != found[key])
            what, written, found = f"{what}: {key}", written[key], found[key]
        raise StoreError(
            f"MLflow at {tracking.shown(self.uri)} gave back other {what} of run {run_id} than was "
            f"written: {str(found)[:100]!r} for {str(written)[:100]!r}; the run stays waiting"
        )

    def settle(self) -> None:
        """Bring what was written onto the disk, before anybody says so."""
        if self.path is not None:
            _on_database(self.path, "PRAGMA wal_checkpoint")


def connect(uri: str, *, environment: Mapping[str, str]) -> Connection:
    """Return the way to a tracking URI; mlflow is imported and a new database made, which takes seconds.

    environment: its variables for MLflow are set in this process's own, where mlflow looks for them.

    Raises StoreError when it cannot be opened.
    """
    os.environ.update(_FORCED)
    given = {name: value for name, value in environment.items() if name.startswith("MLFLOW_")}
    for name, value in {**_SETTINGS, **given}.items():
        os.environ.setdefault(name, value)
    register_environment({**environment, tracking.URI_VARIABLE: uri})
    with _translated(uri):
        _write_ahead(uri)
        import mlflow
        from mlflow.tracing.client import TracingClient

        logging.getLogger("alembic").setLevel(logging.ERROR)
        mlflow.set_tracking_uri(uri)  # registering a prompt links it by way of the global address
        found = Connection(uri, mlflow.MlflowClient(uri), TracingClient(uri))
        if tracking.database_path(uri) is not None:
            _spare_the_disk(found.tracing.store.engine)
        return found


def _write_ahead(uri: str) -> None:
    """Let SQLite write ahead: a quarter of the waiting, and readers do not stop it."""
    path = tracking.database_path(uri)
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with suppress(sqlite3.OperationalError):  # somebody reads just now: then it is only slower
            _on_database(path, "PRAGMA journal_mode = WAL")


def _on_database(path: str, statement: str) -> None:
    with closing(sqlite3.connect(path, timeout=2)) as connection:
        connection.execute(statement)


def _spare_the_disk(engine: Client) -> None:
    """Let commits wait for the disk together: what is lost with the power is delivered again."""
    from sqlalchemy import event

    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = NORMAL"))
    engine.dispose()  # connections made before


@contextmanager
def _translated(uri: str) -> Iterator[None]:
    """Turn whatever goes wrong in mlflow, its drivers and its HTTP client into StoreError, without secrets."""
    try:
        yield
    except LlmopsError:
        raise
    except Exception as error:  # noqa: BLE001 - mlflow lets through what its stores, drivers and sockets raise
        text = scrub_told(f"{type(error).__name__}: {error}".strip())
        message = f"MLflow at {tracking.shown(uri)}: {tracking.shorten(text, 500, whole='--debug')}"
        raise StoreError(message) from clean_cause(error)


def pages(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Yield the items in order, at most `size` at a time."""
    return (items[start : start + size] for start in range(0, len(items), size))
