"""The models of the project as a run uses them: opened, limited, and left alone once they are out of reach."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from llmops.call.limits import Limiter
from llmops.definitions.project import ModelDefinition, Price
from llmops.definitions.workspace import Workspace
from llmops.errors import AccessError, ModelError, RequestError, UsageError
from llmops.models import open_model
from llmops.models.absent import AbsentModel
from llmops.models.base import Model
from llmops.records import ModelVersion

SAME_REFUSALS = 3
"""So many requests refused with the same words, and none answered: the parameters are wrong, not the cases."""


@dataclass
class Deployment:
    """One model of the project as a run uses it. stopped: why it is not asked any more.

    proven: one request has come back, whatever it brought. The first goes alone, under the lock `probe`, so that
    a wrong name, address or key costs one request and not as many as are in flight.
    answered: there has been a reply. refusals: how often each message said that a request is wrong, before that.
    """

    version: ModelVersion
    definition: ModelDefinition
    model: Model
    limiter: Limiter
    stopped: AccessError | None = None
    proven: bool = False
    answered: bool = False
    refusals: Counter[str] = field(default_factory=Counter)
    probe: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def price(self) -> Price | None:
        """US dollars for a million tokens; None when unknown."""
        return self.definition.pricing()

    def note_failure(self, error: ModelError) -> None:
        """Stop asking when the model is out of reach, or takes no request of ours for one and the same reason."""
        if isinstance(error, AccessError):
            self.stopped = error
        elif isinstance(error, RequestError) and error.kind == RequestError.kind and not self.answered:
            self.refusals[str(error)] += 1
            if self.refusals[str(error)] == SAME_REFUSALS:
                self.stopped = AccessError(
                    f"{error}; so said of the first {SAME_REFUSALS}, and it is asked no more"
                )


def open_deployments(
    workspace: Workspace,
    versions: Mapping[str, ModelVersion],
    environment: Mapping[str, str],
    *,
    concurrency: int | None = None,
    replaying: bool = False,
) -> dict[str, Deployment]:
    """Return models by name, ready to be asked. concurrency: in flight for each, None as declared.

    replaying: recordings answer in place of models, so that these need neither address nor key.

    Raises UsageError naming every variable that is missing.
    """
    deployments: dict[str, Deployment] = {}
    problems: list[str] = []
    for name, version in versions.items():
        definition = _with_concurrency(workspace.model(name), concurrency)
        model: Model
        try:
            is_absent = replaying and is_replayed(version)
            model = AbsentModel(name) if is_absent else open_model(name, definition, environment)
        except UsageError as error:
            problems.append(str(error))
            continue
        deployments[name] = Deployment(version, definition, model, Limiter(definition.limits, time.monotonic))
    if problems:
        raise UsageError("\n".join(problems))
    return deployments


def is_replayed(version: ModelVersion) -> bool:
    """Say whether recordings can stand for a model; `embedded` needs none, it answers the same everywhere."""
    return version.provider != "embedded"


def _with_concurrency(definition: ModelDefinition, concurrency: int | None) -> ModelDefinition:
    if concurrency is None:
        return definition
    limits = definition.limits.model_copy(update={"concurrency": concurrency})
    return definition.model_copy(update={"limits": limits})
