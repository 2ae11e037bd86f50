"""`llmops.yaml`: models, tracking and store. The only file with endpoints; secrets only by variable name."""

from __future__ import annotations

import datetime as dt
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, Strict, model_validator

from llmops.definitions.base import Bool, Definition, Float, Int, Name, identity_of, without_none

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PASSWORD = re.compile(r"://[^/?#]*:[^/?#]+@|[?&](?:password|passwd|pwd|token|key)=", re.IGNORECASE)


def _check_variable(name: str) -> str:
    if not _VARIABLE.fullmatch(name):
        raise ValueError("this names an environment variable; the value itself never stands in a file")
    return name


def _check_url(url: str) -> str:
    if _PASSWORD.search(url):
        raise ValueError(
            "a password never stands in a file; a database takes it from PGPASSWORD or ~/.pgpass, MLflow from "
            "MLFLOW_TRACKING_PASSWORD"
        )
    return url


Variable = Annotated[str, AfterValidator(_check_variable)]
Url = Annotated[str, AfterValidator(_check_url)]


class Limits(Definition):
    """What may be asked of one deployment. rpm, tpm: requests and tokens a minute; attempts: of one call."""

    rpm: Int | None = Field(default=None, ge=1)
    tpm: Int | None = Field(default=None, ge=1)
    concurrency: Int = Field(default=16, ge=1, le=4096)
    timeout_s: Float = Field(default=60.0, gt=0)
    attempts: Int = Field(default=5, ge=1, le=20)


class Price(Definition):
    """US dollars for a million tokens."""

    input_per_mtok: Float = Field(ge=0)
    output_per_mtok: Float = Field(ge=0)


class Card(Definition):
    """What is known of a model beyond its address, for choosing one."""

    license: str | None = None
    open_weights: Bool | None = None
    modalities: tuple[str, ...] = ()
    context_tokens: Int | None = Field(default=None, ge=1)
    hosting: str | None = None
    params_b: Float | None = Field(default=None, gt=0)
    active_params_b: Float | None = Field(default=None, gt=0)
    regions: tuple[str, ...] = ()
    retires: Annotated[dt.date, Strict()] | None = None


class ModelDefinition(Definition):
    """One deployment under a name of the project's own.

    endpoint, endpoint_env: the base URL, or the variable that holds it. model: the provider's name for it.
    api_key_env: the variable that holds the key; `auth: entra` signs in to Azure without one.
    api_version: of the protocol, where the provider has dated ones.
    stream: ask for the reply piece by piece, which measures the time to the first token.
    client: what sends; the same goes over the wire, at fifteen times the cost through the provider's own SDK.
    fallback: the model that answers prompts while this one cannot, another deployment of the same as a rule.
    """

    provider: str
    model: str | None = None
    endpoint: str | None = None
    endpoint_env: Variable | None = None
    api_key_env: Variable | None = None
    auth: Literal["entra"] | None = None
    api_version: str | None = None
    stream: Bool = False
    client: Literal["lean", "sdk"] = "lean"
    on_unknown: Literal["retry", "reconcile", "fail"] = "retry"
    fallback: Name | None = None
    limits: Limits = Field(default_factory=Limits)
    price: Price | None = None
    card: Card | None = None

    @model_validator(mode="after")
    def _one_of_each(self) -> ModelDefinition:
        if self.endpoint and self.endpoint_env:
            raise ValueError("give endpoint or endpoint_env, not both")
        if self.auth and self.api_key_env:
            raise ValueError("give api_key_env or auth, not both: who signs in to Entra ID needs no key")
        return self

    def pricing(self) -> Price | None:
        """Return the price, None when nobody said; `embedded` runs here and costs nothing."""
        if self.price is None and self.provider == "embedded":
            return Price(input_per_mtok=0.0, output_per_mtok=0.0)
        return self.price

    def identity(self, version: str) -> str:
        """Return the hash of what can change a reply; limits, price, card and keys cannot.

        version: of our code for this provider. The endpoint counts as written, so a variable's name and
        not its value: the same deployment behind two addresses is one model.
        """
        counting = {"provider", "model", "endpoint", "endpoint_env", "api_version"}
        fields = self.model_dump(mode="json", include=counting)
        return identity_of({**without_none(fields), "version": version})


class Tracking(Definition):
    """Where MLflow is; `MLFLOW_TRACKING_URI` wins over it."""

    uri: Url = "sqlite:///mlflow.db"


class Store(Definition):
    """Where the journal is: any SQLAlchemy URL; a relative SQLite path starts at llmops.yaml."""

    url: Url = "sqlite:///.llmops/store.db"


class Promotion(Definition):
    """What a promotion asks for. max_age_days: of the verdict it stands on.

    separation_of_duties: who changed a prompt or chain since its last release may not approve the next.
    """

    max_age_days: Int = Field(default=7, ge=1)
    separation_of_duties: Bool = False


class Project(Definition):
    """What `llmops.yaml` says; a project without the file has the embedded model and local stores.

    hosts: what may be asked of those that `http` steps ask.
    """

    models: dict[Name, ModelDefinition] = Field(
        default_factory=lambda: {"default": ModelDefinition(provider="embedded")}
    )
    tracking: Tracking = Field(default_factory=Tracking)
    store: Store = Field(default_factory=Store)
    promotion: Promotion = Field(default_factory=Promotion)
    hosts: dict[str, Limits] = Field(default_factory=dict)

    def in_turn(self, model: str) -> list[str]:
        """Return the names of a model and its fallbacks in the order they are asked, each once."""
        names = [model]
        while (definition := self.models.get(names[-1])) and definition.fallback:
            if definition.fallback in names:
                break
            names.append(definition.fallback)
        return names
