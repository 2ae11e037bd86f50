"""A model that is not there: under `--replay only` its recordings answer, and no address or key of it is read."""

from __future__ import annotations

from llmops.errors import ModelError, RecordingError
from llmops.models.base import Ability
from llmops.records import EmbeddingRequest, Embeddings, ModelInfo, Reply, Request


class AbsentModel:
    """Stands where a model would; whoever asks it all the same is told so, and nothing is sent."""

    version = ""
    abilities: frozenset[Ability] = frozenset()
    settings: frozenset[str] = frozenset()
    parameters: frozenset[str] = frozenset()

    def __init__(self, name: str) -> None:
        self._name = name

    async def complete(self, request: Request, *, call_id: str, timeout_s: float) -> Reply:  # noqa: ARG002 - the protocol's
        """Raise RecordingError."""
        raise self._refusal()

    async def embed(self, request: EmbeddingRequest, *, call_id: str, timeout_s: float) -> Embeddings:  # noqa: ARG002 - the protocol's
        """Raise RecordingError."""
        raise self._refusal()

    async def find(self, request: Request, *, call_id: str, timeout_s: float) -> Reply | None:  # noqa: ARG002 - the protocol's
        """Raise RecordingError."""
        raise self._refusal()

    async def info(self, *, timeout_s: float) -> ModelInfo:  # noqa: ARG002 - the protocol's
        """Raise RecordingError."""
        raise self._refusal()

    async def close(self) -> None:
        """Do nothing: nothing was opened."""

    def _refusal(self) -> ModelError:
        return RecordingError(f"model {self._name!r} is not asked in a replay", model=self._name, sent=False)
