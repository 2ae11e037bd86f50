"""What is told of a run in MLflow: its parameters, figures and labels, by the names they get there.

Plain values; `mlflow` writes them, `traces.py` says what is shown of single cases.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmops.definitions.base import short
from llmops.stores import tracking

if TYPE_CHECKING:
    from pathlib import Path

    from llmops.records import Run, Variant
    from llmops.stores.traces import CaseTrace

RUN_FILE = "run.json"
REPORT_FILE = "report.md"
MISSING_LABEL = "llmops.prompts_missing"


@dataclass(frozen=True)
class PromptText:
    """A prompt as it stood when it ran. path, commit: where; commit is None when git does not have it."""

    name: str
    identity: str
    messages: Sequence[Mapping[str, str]]
    response_format: Mapping[str, Any] | None
    model: str
    parameters: Mapping[str, Any]
    path: str
    commit: str | None
    message: str


@dataclass(frozen=True)
class Shipment:
    """All that is written of one run.

    revision: of the run's record; later ones replace earlier figures.
    report: Markdown on the whole run. prompts: by name and identity, or why there is no text.
    baselines: of each candidate, by the names of the variants. models: what the services called themselves.
    files: of the run as a whole. rows: each variant's file with all its rows.
    traces: yields what is shown of the single cases of a variant.
    verdict: what gates said last, as labels by variant, "" for the run as a whole; verdict_note: the same as Markdown.
    """

    run: Run
    revision: int
    report: str
    prompts: Mapping[tuple[str, str], PromptText | str]
    baselines: Mapping[str, str]
    models: Mapping[str, Sequence[str]]
    files: Sequence[Path]
    rows: Mapping[str, Path]
    traces: Callable[[str], Iterator[CaseTrace]]
    verdict: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    verdict_note: str = ""

    @property
    def dataset(self) -> str:
        """The dataset as people refer to it, with its split."""
        return "/".join(filter(None, (self.run.dataset.name, self.run.dataset.split)))

    def run_parameters(self) -> dict[str, str]:
        """Return what determined the run as a whole."""
        run = self.run
        return {
            "seed": str(run.seed),
            "repeats": str(run.repeats),
            "dataset": self.dataset,
            "dataset_version": run.dataset.version,
            "identity": run.identity,
            "evaluators": ", ".join(f"{v.name}@{short(v.identity)}" for v in run.evaluators),
        }

    def run_metrics(self) -> dict[str, float]:
        """Return the totals of the run; what nobody knows is left out."""
        run = self.run
        totals = {
            "cells": run.n_cells,
            "cells_done": run.n_done,
            "errors": run.n_errors,
            "calls": run.n_calls,
            "calls_reused": run.n_reused,
            "wall_s": run.wall_s,
            "cost_usd/total": run.cost_usd,
        }
        return {name: float(value) for name, value in totals.items() if value is not None}

    def run_labels(self) -> dict[str, str]:
        """Return what is to be found again of a run and of each of its variants."""
        run = self.run
        return {
            "llmops.identity": run.identity,
            "llmops.fresh": str(run.fresh),
            "llmops.status": str(run.status),
            "llmops.revision": str(self.revision),
            "llmops.git_dirty": str(run.source.dirty).lower(),
            **self.verdict.get("", {}),
        }

    def variant_parameters(self, variant: Variant) -> dict[str, str]:
        """Return what determined a variant."""
        models = {model.name: model for model in variant.models}.values()
        found = {
            "variant": variant.name,
            variant.kind: variant.reference,
            "prompts": ", ".join(f"{name}@{short(key)}" for name, key in variant.prompts.items()),
            "model": ", ".join(model.name for model in models),
            "provider": ", ".join(dict.fromkeys(model.provider for model in models)),
            "provider_model": ", ".join(dict.fromkeys(model.model for model in models)),
            "model_identity": ", ".join(short(model.identity) for model in models),
            "dataset": self.dataset,
            "dataset_version": short(self.run.dataset.version),
        }
        found |= {f"parameters.{key}": _text(value) for key, value in variant.parameters.items()}
        found |= {f"set.{key}": _text(value) for key, value in variant.set.items()}
        return {key: value for key, value in found.items() if value}

    def variant_metrics(self, variant: Variant) -> dict[str, float]:
        """Return the figures of a variant, and under `slice/NAME/` those of its slices."""
        names = [version.name for version in self.run.evaluators]
        found = tracking.metric_values(self.run.summary.get(variant.name, {}), names)
        for slice_name, figures in self.run.slices.get(variant.name, {}).items():
            prefix = f"slice/{tracking.safe_name(slice_name)}/"
            found |= tracking.metric_values(figures, names, prefix=prefix)
        return found

    def variant_labels(self, variant: Variant, missing: Mapping[tuple[str, str], str]) -> dict[str, str]:
        """Return what is to be found again of a variant, beside what is told of its run.

        missing: why a prompt, by name and identity, has no version in MLflow.
        """
        found = {
            **self.verdict.get(variant.name, {}),
            "llmops.variant_identity": variant.identity,
            "llmops.definition": variant.definition,
            "llmops.definition_identity": variant.definition_identity,
            "llmops.is_baseline": str(variant.is_baseline).lower(),
            "llmops.returned_models": ", ".join(self.models.get(variant.name, ())),
            MISSING_LABEL: "; ".join(
                f"{name}@{short(identity)}: {missing[name, identity]}"
                for name, identity in variant.prompts.items()
                if (name, identity) in missing
            ),
        }
        return {key: value for key, value in found.items() if value}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
