"""The models of the project as a run uses them: opened, limited, and left alone once they are out of reach."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from llmops.call.limits import Limiter, Turn
from llmops.call.money import UNSAID_OUTPUT_TOKENS
from llmops.definitions.project import ModelDefinition, Price
from llmops.definitions.workspace import Workspace
from llmops.errors import (
    AccessError,
    ModelError,
    ModelTimeoutError,
    ParkedError,
    RateLimitError,
    RequestError,
    UnavailableError,
    UsageError,
)
from llmops.models import open_model
from llmops.models.absent import AbsentModel
from llmops.models.base import Model
from llmops.models.http import HOST, HttpHost, host_definition
from llmops.records import AnyRequest, ModelVersion, Request, Usage

SAME_REFUSALS = 3
"""So many requests refused with the same words, and none answered: the parameters are wrong, not the cases."""


@dataclass
class Deployment:
    """One model of the project as a run uses it. stopped: why it is not asked any more.

    proven: one request has come back, whatever it brought. The first goes alone, under the lock `probe`, so that
    a wrong name, address or key costs one request and not as many as are in flight.
    n_answered: replies so far. refusals: how often each message said that a request is wrong, before the first.
    longest_output: tokens of the longest reply so far.
    """

    version: ModelVersion
    definition: ModelDefinition
    model: Model
    limiter: Limiter
    stopped: AccessError | None = None
    proven: bool = False
    n_answered: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    longest_output: int = 0
    probe: asyncio.Lock = field(default_factory=asyncio.Lock)

    @cached_property
    def price(self) -> Price | None:
        """US dollars for a million tokens; None when unknown."""
        return self.definition.pricing()

    def tokens_at_most(self, request: AnyRequest, tokens: int) -> int:
        """Return what a request of so many tokens uses with its reply; where `max_tokens` is unsaid, by the longest."""
        if not isinstance(request, Request):
            return tokens
        return tokens + int(
            request.parameters.get("max_tokens") or self.longest_output or UNSAID_OUTPUT_TOKENS
        )

    def note_answer(self, turn: Turn, usage: Usage | None) -> None:
        """Learn from a reply."""
        self.n_answered += 1
        if usage is None:
            self.limiter.note_answer(turn)
        else:
            self.limiter.note_answer(turn, usage.input_tokens + usage.output_tokens)
            self.longest_output = max(self.longest_output, usage.output_tokens)

    def note_failure(self, turn: Turn, error: ModelError, *, patience_s: float) -> None:
        """Learn from a failure, and stop asking where going on would be of no use.

        patience_s: for so long a service may refuse everything before it is left for a later run.
        """
        if isinstance(error, RateLimitError):
            if self.limiter.note_refusal(turn, error.retry_after_s) > patience_s:
                self.park(f"{error}; it has done nothing else for {patience_s:.0f} s")
        elif isinstance(error, UnavailableError | ModelTimeoutError):
            self.limiter.note_failure(turn, error.retry_after_s)
            if self.limiter.breaker.is_hopeless:
                self.park(f"{error}; so it has said each time, and is asked no more in this run")
        else:
            self.limiter.note_answer(turn)
        if isinstance(error, AccessError):
            self.stopped = error
        elif isinstance(error, RequestError) and error.kind == RequestError.kind and not self.n_answered:
            self.refusals[str(error)] += 1
            if self.refusals[str(error)] == SAME_REFUSALS:
                self.stopped = AccessError(
                    f"{error}; so said of the first {SAME_REFUSALS}, and it is asked no more"
                )

    def park(self, why: str) -> None:
        """Ask no more in this run; what was asked before may still come home. The first reason is the one told."""
        self.stopped = self.stopped or ParkedError(why, model=self.version.name)


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
        is_host = version.provider == HOST
        limits = workspace.today.project.hosts
        declared = host_definition(version, limits) if is_host else workspace.model(name)
        definition = _with_concurrency(declared, concurrency)
        model: Model
        try:
            if replaying and is_replayed(version):
                model = AbsentModel(name)
            elif is_host:
                model = HttpHost(name, definition, environment)
            else:
                model = open_model(name, definition, environment)
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
