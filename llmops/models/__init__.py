"""Models: a request goes out, a reply comes back. One file a provider, imported when first used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmops.definitions.kinds import Kinds
from llmops.definitions.project import ModelDefinition
from llmops.errors import UsageError
from llmops.models.base import Model
from llmops.records import ModelVersion

PROVIDERS: Mapping[str, str] = {
    "azure_inference": "llmops.models.azure_inference:AzureInferenceModel",
    "azure_openai": "llmops.models.azure_openai:AzureOpenAIModel",
    "embedded": "llmops.models.embedded:EmbeddedModel",
    "openai": "llmops.models.openai:OpenAIModel",
}
SETTINGS = ("model", "endpoint", "endpoint_env", "api_key_env", "auth", "api_version", "stream", "client")
"""Fields of a definition that not every provider takes."""
_KINDS = Kinds("provider", "llmops.models", PROVIDERS)


def providers() -> dict[str, str]:
    """Return every provider's name and `module:Class`, those of other packages included."""
    return _KINDS.known()


def model_class(provider: str) -> Any:
    """Return the class behind a provider's name; UsageError as `Kinds.load` says."""
    return _KINDS.load(provider)


def model_version(name: str, definition: ModelDefinition) -> ModelVersion:
    """Return the version of a model: what it is called, and the hash of all that can change its replies."""
    version = model_class(definition.provider).version
    return ModelVersion(
        name=name,
        provider=definition.provider,
        model=definition.model or definition.provider,
        identity=definition.identity(version),
    )


def untaken_settings(definition: ModelDefinition) -> list[str]:
    """Return the fields that are set and mean nothing to the provider, which would be dropped in silence."""
    untaken = [key for key in SETTINGS if key not in model_class(definition.provider).settings]
    return [key for key in untaken if getattr(definition, key) != ModelDefinition.model_fields[key].default]


def open_model(name: str, definition: ModelDefinition, environment: Mapping[str, str]) -> Model:
    """Return the model of a definition, ready to be asked.

    environment: where `endpoint_env` and `api_key_env` are looked up.

    Raises UsageError naming the variable that is missing, empty or malformed, never its value, or the field
    that the provider does not take.
    """
    untaken = untaken_settings(definition)
    if untaken:
        raise UsageError(f"model {name!r}: {definition.provider} takes no {', '.join(untaken)}")
    model: Model = model_class(definition.provider)(name, definition, environment)
    return model
