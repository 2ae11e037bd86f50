"""Aliases in MLflow, where people look: they follow the file of releases, and say whether they still do.

A prompt's alias is MLflow's own. A chain is a model there, which has none: a tag on it says that an alias points at it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmops.definitions.release import AuditedRelease
from llmops.errors import StoreError
from llmops.stores.mlflow.prompts import SHA256, register_prompt

if TYPE_CHECKING:
    from llmops.definitions.release import Release
    from llmops.stores.mlflow.connection import Client
    from llmops.stores.shipment import PromptText

ALIAS_TAG = "llmops.alias."
RELEASE_TAG = "llmops.release."
"""Before the alias, in the tag of a prompt's version: the hash of the line that moved it there."""


@dataclass(frozen=True)
class Published:
    """What an alias points at. where: in MLflow's words. identity: of the definition, None where no tag says it.

    messages: of a prompt, as MLflow would give them to whoever loads it.
    """

    where: str
    identity: str | None
    messages: Sequence[Mapping[str, str]] | None = None


class Aliases:
    """The aliases of one MLflow."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def published(self, release: Release) -> Published | None:
        """Return what MLflow's alias of a release's name points at, None where there is no such alias."""
        if release.kind == "prompt":
            return self._published_prompt(release.name, release.alias)
        models = self._models(release, f"tags.`{ALIAS_TAG}{release.alias}` = 'true'")
        if len(models) > 1:
            return Published(f"{len(models)} models", None)
        return next(
            (Published(f"model {m.model_id}", m.params.get("definition_identity")) for m in models), None
        )

    def _published_prompt(self, name: str, alias: str) -> Published | None:
        from mlflow.exceptions import MlflowException

        if self.client.get_prompt(name) is None:
            return None
        try:
            found = self.client.get_prompt_version_by_alias(name, alias)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            return None
        return _published(found)

    def point(self, release: Release, text: PromptText | None) -> None:
        """Let MLflow's alias point at what a release says. text: of a prompt, registered where it is not there yet.

        Raises StoreError when a chain was never delivered.
        """
        if release.kind == "prompt" and text is not None:
            self._point_prompt(release, text)
        else:
            self._point_chain(release)

    def _point_prompt(self, release: Release, text: PromptText) -> None:
        known = self.client.get_prompt(text.name)
        versions = self.client.search_prompt_versions(text.name) if known is not None else []
        found = next((each for each in versions if each.tags.get(SHA256) == text.identity), None)
        version = found or register_prompt(self.client, text)
        self.client.set_prompt_alias(text.name, release.alias, int(version.version))
        if isinstance(release, AuditedRelease):
            tag = f"{RELEASE_TAG}{release.alias}"
            self.client.set_prompt_version_tag(text.name, str(version.version), tag, release.hash)

    def _point_chain(self, release: Release) -> None:
        candidate = _evidence(release).candidate
        models = self._models(release, f"tags.`llmops.variant_identity` = '{candidate}'")
        if not models:
            raise StoreError(
                f"{release.name} as released is not there; `llmops sync`, then `llmops promote {release.name} "
                f"--to {release.alias} --repair`"
            )
        tag = f"{ALIAS_TAG}{release.alias}"
        for other in self._models(release, f"tags.`{tag}` = 'true'"):
            if other.model_id != models[0].model_id:
                self.client.delete_logged_model_tag(other.model_id, tag)
        self.client.set_logged_model_tags(models[0].model_id, {tag: "true"})

    def _models(self, release: Release, wanted: str) -> list[Any]:
        """Return the chain's models for which a condition holds, in whichever experiment."""
        wanted += f" AND tags.`llmops.definition` = 'chains/{release.name}'"
        ids = [str(one.experiment_id) for one in self.client.search_experiments()]
        return list(self.client.search_logged_models(ids, filter_string=wanted))


def _evidence(release: Release) -> Any:
    if isinstance(release, AuditedRelease) and release.evidence is not None:
        return release.evidence
    raise StoreError(
        f"{release.name}@{release.alias}: its line does not say which model it is; promote it anew"
    )


def _published(version: Any) -> Published:
    template = version.template
    messages = (
        [{"role": "", "content": template}] if isinstance(template, str) else [dict(one) for one in template]
    )
    return Published(f"version {version.version}", version.tags.get(SHA256), messages)
