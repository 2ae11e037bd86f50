"""Azure OpenAI by deployment and dated api-version: the protocol of `openai.py` at another address.

For resources and deployments that are not on `/openai/v1` yet. `model` is the deployment's name. There is no
information to ask for: the service tells of models, and not which of them a deployment is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmops.errors import UsageError
from llmops.models.access import resolve_access
from llmops.models.base import Ability
from llmops.models.openai import ABILITIES, PARAMETERS, SETTINGS, OpenAIService

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmops.definitions.project import ModelDefinition
    from llmops.records import EmbeddingRequest, Embeddings, ModelInfo, Reply, Request


class AzureOpenAIModel:
    """One deployment of an Azure OpenAI resource."""

    version = "azure_openai@1"
    abilities = ABILITIES - {Ability.INFO}
    settings = SETTINGS | {"api_version"}
    parameters = PARAMETERS

    def __init__(self, name: str, definition: ModelDefinition, environment: Mapping[str, str]) -> None:
        if definition.api_version is None:
            raise UsageError(
                f"model {name!r} has no api_version; give the dated one of the resource in llmops.yaml, such as "
                "2024-10-21, or take provider: openai with an endpoint that ends in /openai/v1"
            )
        # No own hosts: every Azure resource has a name of its own, and anyone can register one.
        access = resolve_access(name, definition, environment, default_endpoint=None, own_hosts=())
        self._service = OpenAIService(definition, access, self.abilities, takes_newer=True)

    async def complete(self, request: Request, *, call_id: str, timeout_s: float) -> Reply:
        """Send one request and return its reply; see `base.Model`."""
        return await self._service.complete(request, call_id, timeout_s)

    async def embed(self, request: EmbeddingRequest, *, call_id: str, timeout_s: float) -> Embeddings:
        """Send one request and return its vectors; see `base.Model`."""
        return await self._service.embed(request, call_id, timeout_s)

    async def find(self, request: Request, *, call_id: str, timeout_s: float) -> Reply | None:
        """Return the reply kept for a call; see `base.Model`."""
        return await self._service.find(request, call_id, timeout_s)

    async def info(self, *, timeout_s: float) -> ModelInfo:
        """Raise RequestError: the service says nothing of a deployment."""
        return await self._service.info(timeout_s)

    async def close(self) -> None:
        """Close the connections."""
        await self._service.close()
