"""One variant of one run, as a history tells it: read from the run's record, or from what MLflow was told of it.

The second is `shipment.py` read backwards, and gives the same: what MLflow was not told stays unknown and is never
guessed. Tags, parameters and metrics are enough for that, so no file is fetched for each run.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from llmops.definitions.base import short
from llmops.definitions.reference import FOLDERS
from llmops.stores import tracking

if TYPE_CHECKING:
    from llmops.definitions.reference import Kind
    from llmops.records import Figure, Run, Variant

JOURNAL = "journal"
MLFLOW = "MLflow"

_VERSION = re.compile(r"([A-Za-z0-9_.-]+)@([0-9a-f]{12})(?:, |$)")
_EVALUATOR = re.compile(r"(.+?)@([0-9a-f]{12})(?:, |$)", re.DOTALL)
_LONGEST_NAME = 200


@dataclass(frozen=True, slots=True)
class Reading:
    """The figure of one evaluator. identity: of the evaluator. value, n: None where nobody knows."""

    evaluator: str
    identity: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """What was tried, when, on what, and what came of it. All identities are the twelve digits people see.

    place: of the variant within its run. prompts: the identity of each by name; numbers: MLflow's own of them.
    models: the identity of each by its name in llmops.yaml, None where MLflow does not say.
    n_cases: of the dataset. revision: of the run's record, which later ones replace.
    user: who delivered it. link: its page in MLflow. sources: who has it, `journal` and `MLflow`.
    """

    run_id: str
    place: int
    experiment: str
    variant: str
    identity: str
    began_at: datetime
    status: str
    definition: str
    definition_identity: str
    prompts: Mapping[str, str]
    models: Mapping[str, str | None]
    dataset: str
    dataset_version: str
    n_cases: int | None
    readings: tuple[Reading, ...]
    cost_usd: float | None
    commit: str | None
    dirty: bool
    sources: frozenset[str]
    revision: int = 0
    user: str | None = None
    numbers: Mapping[str, str] = field(default_factory=dict)
    link: str | None = None

    @property
    def began_ms(self) -> int:
        """Thousandths of a second since 1970, the most that MLflow keeps."""
        return tracking.milliseconds(self.began_at)

    def is_of(self, kind: Kind, name: str) -> bool:
        """Say whether it belongs to the history of an experiment, or of a prompt or chain tried in it."""
        if kind == "experiment":
            return self.experiment == name
        return self.definition == f"{FOLDERS[kind]}/{name}" or (kind == "prompt" and name in self.prompts)


# --- from a record ----------------------------------------------------------------------------------------


def entries_of(run: Run) -> Iterator[Entry]:
    """Yield an entry for each variant of a run, as the journal has it."""
    for place, variant in enumerate(run.variants):
        figures = run.summary.get(variant.name, {})
        cost = figures.get("cost_usd")
        yield Entry(
            run_id=run.id,
            place=place,
            experiment=run.experiment,
            variant=variant.name,
            identity=short(variant.identity),
            began_at=run.created_at,
            status=str(run.status),
            definition=variant.definition,
            definition_identity=short(variant.definition_identity),
            prompts={name: short(identity) for name, identity in variant.prompts.items()},
            models=_models(variant),
            dataset="/".join(filter(None, (run.dataset.name, run.dataset.split))),
            dataset_version=short(run.dataset.version),
            n_cases=run.dataset.n_cases,
            readings=tuple(
                _reading(judge.name, judge.identity, figures.get(judge.name)) for judge in run.evaluators
            ),
            cost_usd=None if cost is None else cost.value,
            commit=run.source.commit,
            dirty=run.source.dirty,
            sources=frozenset({JOURNAL}),
        )


def _models(variant: Variant) -> dict[str, str | None]:
    return {model.name: short(model.identity) for model in variant.models}


def _reading(evaluator: str, identity: str, figure: Figure | None) -> Reading:
    if figure is None:
        return Reading(evaluator, short(identity))
    low, high = (figure.interval.low, figure.interval.high) if figure.interval else (None, None)
    return Reading(evaluator, short(identity), figure.value, low, high, figure.n)


# --- from what MLflow was told ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Told:
    """One of MLflow's runs, as plain values. began_ms: since 1970. profile: of its dataset, as JSON."""

    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    began_ms: int
    profile: str = ""


def told_entry(experiment: str, variant: Told, run: Told, *, link: str) -> Entry | None:
    """Return the entry of a variant's run in MLflow and its parent; None where it was not delivered whole."""
    tags, params = variant.tags, variant.params
    if not {"llmops.run_id", "llmops.variant", "llmops.status", "llmops.definition"} <= tags.keys():
        return None
    metrics = {key: value for key, value in variant.metrics.items() if math.isfinite(value)}
    return Entry(
        run_id=tags["llmops.run_id"],
        place=max(0, variant.began_ms - run.began_ms - 1),
        experiment=experiment,
        variant=tags["llmops.variant"],
        identity=short(tags.get("llmops.variant_identity", "")),
        began_at=datetime.fromtimestamp(run.began_ms / 1000, UTC),
        status=tags["llmops.status"],
        definition=tags["llmops.definition"],
        definition_identity=short(tags.get("llmops.definition_identity", "")),
        prompts=dict(_VERSION.findall(params.get("prompts", ""))),
        models=_told_models(params),
        dataset=params.get("dataset", ""),
        dataset_version=params.get("dataset_version", ""),
        n_cases=_n_cases(variant.profile),
        readings=tuple(_told_readings(run.params.get("evaluators", ""), metrics)),
        cost_usd=metrics.get("cost_usd/total"),
        commit=tags.get("mlflow.source.git.commit"),
        dirty=tags.get("llmops.git_dirty") == "true",
        sources=frozenset({MLFLOW}),
        revision=_whole(tags.get("llmops.revision")) or 0,
        user=tags.get("mlflow.user"),
        numbers=_numbers(tags.get("mlflow.linkedPrompts")),
        link=link,
    )


def _told_models(params: Mapping[str, str]) -> dict[str, str | None]:
    names = [name for name in params.get("model", "").split(", ") if name]
    identities = params.get("model_identity", "").split(", ")
    if len(names) != len(identities):
        return dict.fromkeys(names)
    return dict(zip(names, identities, strict=True))


def _told_readings(evaluators: str, metrics: Mapping[str, float]) -> Iterator[Reading]:
    for name, identity in _EVALUATOR.findall(evaluators):
        found = tracking.own_metric(metrics, name)
        n = found.get("n")
        yield Reading(
            name,
            identity,
            found.get("value"),
            found.get("ci_low"),
            found.get("ci_high"),
            None if n is None else int(n),
        )


def _numbers(linked: str | None) -> dict[str, str]:
    """Return MLflow's version numbers of prompts by name, as its own tag tells them."""
    found = _json(linked)
    if not isinstance(found, list):
        return {}
    pairs = [(one.get("name"), one.get("version")) for one in found if isinstance(one, dict)]
    return {str(name): str(number)[:_LONGEST_NAME] for name, number in pairs if name and number}


def _n_cases(profile: str) -> int | None:
    found = _json(profile)
    n = found.get("num_rows") if isinstance(found, dict) else None
    return n if isinstance(n, int) else None


def _json(text: str | None) -> Any:
    try:
        return json.loads(text or "null")
    except (ValueError, RecursionError):
        return None


def _whole(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 12 else None
