"""Prompts as versions in MLflow's registry, one for each content: MLflow itself never looks whether it is there.

Found again by the hash of the content, which a tag holds; the numbers are MLflow's own and differ between servers.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from llmops.secrets import scrub_data
from llmops.stores import tracking

if TYPE_CHECKING:
    from llmops.records import Variant
    from llmops.stores.mlflow.connection import Client
    from llmops.stores.shipment import PromptText, Shipment

MAX_PROMPT_TEXT = 90_000  # MLflow refuses prompts of more than 100,000 characters, JSON and all

SHA256 = "llmops.sha256"
_EXPERIMENTS_OF_PROMPT = "_mlflow_experiment_ids"


class PromptMirror:
    """The prompts of one shipment in the registry.

    versions: of each prompt that has one there, by name and identity. problems: why another has none.
    """

    def __init__(self, client: Client, experiment_id: str) -> None:
        self.client = client
        self.experiment_id = experiment_id
        self.versions: dict[tuple[str, str], str] = {}
        self.problems: dict[tuple[str, str], str] = {}

    def mirror(self, shipment: Shipment, progress: Callable[[str], None]) -> None:
        """Find the version of each prompt, or register it."""
        for key, prompt in shipment.prompts.items():
            progress(f"prompt {key[0]}")
            if isinstance(prompt, str):
                self.problems[key] = prompt
            else:
                self._mirror_prompt(key, prompt)

    def _mirror_prompt(self, key: tuple[str, str], prompt: PromptText) -> None:
        from mlflow.exceptions import MlflowException

        try:
            known = self.client.get_prompt(prompt.name)
            versions = self.client.search_prompt_versions(prompt.name) if known is not None else []
            found = next((v for v in versions if v.tags.get(SHA256) == prompt.identity), None)
            if found is None:
                found = register_prompt(self.client, prompt)
                known = self.client.get_prompt(prompt.name)
            self.versions[key] = str(found.version)
            self._show_prompt_here(prompt.name, known.tags)
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            self.problems[key] = str(error)  # its name belongs to a model, for one

    def _show_prompt_here(self, name: str, tags: Mapping[str, str]) -> None:
        """Let the experiment's list of prompts have it."""
        ids = [key for key in tags.get(_EXPERIMENTS_OF_PROMPT, "").split(",") if key]
        if self.experiment_id not in ids:
            value = f",{','.join([*ids, self.experiment_id])},"
            self.client.set_prompt_tag(name, _EXPERIMENTS_OF_PROMPT, value)

    def linked(self, variant: Variant) -> dict[str, str]:
        """Return the tag by which MLflow knows the prompts of a run, a model or a trace."""
        linked = [
            {"name": name, "version": self.versions[name, identity]}
            for name, identity in variant.prompts.items()
            if (name, identity) in self.versions
        ]
        return {"mlflow.linkedPrompts": json.dumps(linked)} if linked else {}


def register_prompt(client: Client, prompt: PromptText) -> Any:
    """Return a new version with the text of a prompt."""
    room = MAX_PROMPT_TEXT // max(1, len(prompt.messages))
    template = [
        {"role": message["role"], "content": tracking.shorten(message["content"], room, whole=prompt.path)}
        for message in prompt.messages
    ]
    tags = {SHA256: prompt.identity, "llmops.path": prompt.path}
    found = client.register_prompt(
        prompt.name,
        template,
        commit_message=tracking.shorten(prompt.message, 1_000, whole=prompt.path),
        tags=tags | ({"llmops.commit": prompt.commit} if prompt.commit else {}),
        response_format=scrub_data(dict(prompt.response_format)) if prompt.response_format else None,
        model_config=_model_config(prompt),
    )
    _wait_for_links()
    return found


def _wait_for_links() -> None:
    """Let the thread end in which mlflow links a new prompt to the experiment: it writes what we write next."""
    for thread in threading.enumerate():
        if thread.name.startswith("link_prompt_to_experiment_thread"):
            thread.join()


def _model_config(prompt: PromptText) -> dict[str, Any]:
    """Return a prompt's model and parameters by MLflow's names."""
    given = dict(prompt.parameters)
    config: dict[str, Any] = {"model_name": prompt.model}
    for key in ("temperature", "top_p", "max_tokens"):
        if key in given:
            config[key] = given.pop(key)
    if (stop := given.pop("stop", None)) is not None:
        config["stop_sequences"] = [stop] if isinstance(stop, str) else list(stop)
    return config | ({"extra_params": given} if given else {})
