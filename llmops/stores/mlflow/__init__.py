"""Runs as MLflow has them: the one folder that imports mlflow, and it does so only once something is asked of it.

`delivery` writes a run, with `prompts` and `cases`; `history` reads what became of a name; `aliases` follow releases.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmops.stores.mlflow.aliases import Aliases, Published
from llmops.stores.mlflow.connection import Connection, connect
from llmops.stores.mlflow.delivery import MlflowIds, deliver_run
from llmops.stores.mlflow.history import read_entries

if TYPE_CHECKING:
    from llmops.definitions.reference import Kind
    from llmops.definitions.release import Release
    from llmops.stores.entries import Entry
    from llmops.stores.shipment import PromptText, Shipment

__all__ = ["MlflowIds", "MlflowStore", "Published", "open_mlflow"]


def open_mlflow(uri: str, *, environment: Mapping[str, str]) -> MlflowStore:
    """Return the store behind a tracking URI; mlflow is imported and a new database made, which takes seconds.

    environment: its variables for MLflow are set in this process's own, where mlflow looks for them.

    Raises StoreError when it cannot be opened.
    """
    return MlflowStore(connect(uri, environment=environment))


@dataclass(frozen=True)
class MlflowStore:
    """An MLflow that runs are written to and read from. Made by `open_mlflow`; used from one thread."""

    connection: Connection

    @property
    def uri(self) -> str:
        """Where it is."""
        return self.connection.uri

    def close(self) -> None:
        """Close the connections to a database."""
        self.connection.close()

    def deliver(self, shipment: Shipment, progress: Callable[[str], None]) -> MlflowIds:
        """Write a run, read it back, and return how it is called there.

        progress: called with what is being done, at least once a second on a server that answers.

        Raises StoreError when MLflow fails, or gives back other than what was written.
        """
        with self.connection.translated():
            ids = deliver_run(self.connection, shipment, progress)
            self.connection.settle()
            return ids

    def entries(self, kind: Kind, name: str, progress: Callable[[str], None]) -> list[Entry]:
        """Return what was delivered here of an experiment, or of a prompt or chain in any experiment.

        progress: called with what is being done, at least after each answer of a server.

        Raises StoreError when MLflow fails.
        """
        with self.connection.translated():
            return list(read_entries(self.connection, kind, name, progress))

    def published(self, release: Release) -> Published | None:
        """Return what the alias of a release's name points at here, None without one; StoreError when MLflow fails."""
        with self.connection.translated():
            return Aliases(self.connection.client).published(release)

    def point(self, release: Release, text: PromptText | None) -> None:
        """Let the alias here point at a release; see `Aliases.point`. Raises StoreError when MLflow fails."""
        with self.connection.translated():
            Aliases(self.connection.client).point(release, text)
            self.connection.settle()
