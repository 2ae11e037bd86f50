"""A run as MLflow shows it: a parent run, one run a variant, written in bulk, read back, and only then finished.

Everything is found again by tags and hashes of content, so that writing twice, or on after a kill, adds nothing
twice. Prompts are left to `prompts.py`, single cases to `cases.py`.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmops.errors import StoreError
from llmops.records import RunStatus
from llmops.stores import tracking
from llmops.stores.mlflow.cases import CaseWriter
from llmops.stores.mlflow.connection import PAGE, Connection, pages
from llmops.stores.mlflow.prompts import PromptMirror
from llmops.stores.shipment import MISSING_LABEL, REPORT_FILE, RUN_FILE

if TYPE_CHECKING:
    from llmops.records import Run, Variant
    from llmops.stores.shipment import Shipment

_STATUSES = {RunStatus.COMPLETE: "FINISHED"}


@dataclass(frozen=True)
class MlflowIds:
    """How a run is called in MLflow. variants: the run of each, by name; n_traces: cases shown, over all."""

    experiment_id: str
    run_id: str
    variants: Mapping[str, str]
    n_traces: int


def deliver_run(connection: Connection, shipment: Shipment, progress: Callable[[str], None]) -> MlflowIds:
    """Write a run, read it back, and return how it is called there; the rest is as in `MlflowStore.deliver`."""
    progress("experiment")
    experiment_id = _experiment(connection, shipment.run)
    return _Writing(connection, shipment, experiment_id, progress).write()


class _Writing:
    """The writing of one run."""

    def __init__(
        self, connection: Connection, shipment: Shipment, experiment_id: str, progress: Callable[[str], None]
    ) -> None:
        self.connection = connection
        self.client = connection.client
        self.shipment = shipment
        self.run = shipment.run
        self.progress = progress
        self.experiment_id = experiment_id
        self.prompts = PromptMirror(self.client, self.experiment_id)
        self.cases = CaseWriter(connection, shipment, self.experiment_id, progress)
        self._expect = partial(connection.expect, self.run.id)

    def write(self) -> MlflowIds:
        self.prompts.mirror(self.shipment, self.progress)
        known = self._known_runs()
        parent = known.get(None) or self._begin(self.run.id, {})
        variants = {}
        for place, variant in enumerate(self.run.variants):
            tags = {"mlflow.parentRunId": parent, "mlflow.runType": "genai_evaluate"}
            name = tracking.shorten(variant.name, tracking.MAX_TAG, whole=RUN_FILE)
            variants[variant.name] = known.get(name) or self._begin(
                name, tags | {"llmops.variant": name}, place + 1
            )
        n_traces = 0
        for variant in self.run.variants:
            n_traces += self._write_variant(variant, parent, variants)
        self._write_parent(parent, variants)
        return MlflowIds(self.experiment_id, parent, variants, n_traces)

    # --- experiment and runs ------------------------------------------------------------------------------

    def _known_runs(self) -> dict[str | None, str]:
        """Return the MLflow runs of this run that are there already, by variant; the parent is under None.

        Two people who run one experiment have runs of one id: when each was begun tells them apart.
        """
        tags = self._own_tags().items()
        wanted = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags)
        found = self.client.search_runs([self.experiment_id], wanted, order_by=["attributes.start_time DESC"])
        return {run.data.tags.get("llmops.variant"): run.info.run_id for run in found}

    def _own_tags(self) -> dict[str, str]:
        return {"llmops.run_id": self.run.id, "llmops.begun_at": self.run.created_at.isoformat()}

    def _begin(self, name: str, tags: Mapping[str, str], place: int = 0) -> str:
        tags = {**self._own_tags(), **_who(), **tags}
        start = tracking.milliseconds(self.run.created_at) + place
        run = self.client.create_run(self.experiment_id, start_time=start, tags=tags, run_name=name)
        return str(run.info.run_id)

    def _write_parent(self, parent: str, variants: Mapping[str, str]) -> None:
        self.progress("report")
        tags = self._run_tags() | {"mlflow.note.content": self._note(variants)}
        self._log(parent, self.shipment.run_parameters(), self.shipment.run_metrics(), tags)
        self._log_files(parent, self.shipment.files)
        self._end(parent)

    def _note(self, variants: Mapping[str, str]) -> str:
        """What gates said, the report, and where to look at the cases side by side."""
        lines = []
        for candidate, baseline in self.shipment.baselines.items():
            page = tracking.compare_page(
                self.experiment_id, candidate=variants[candidate], baseline=variants[baseline]
            )
            lines.append(f"[{_label(candidate)} beside {_label(baseline)}, case by case]({page})\n\n")
        links = "".join(lines)
        links = links if len(links) < tracking.MAX_TAG // 2 else ""
        said = f"{self.shipment.verdict_note}\n\n" if self.shipment.verdict_note else ""
        return links + tracking.shorten(
            said + self.shipment.report, tracking.MAX_TAG - len(links), whole=REPORT_FILE
        )

    def _run_tags(self) -> dict[str, str]:
        source = self.run.source
        tags = self.shipment.run_labels() | {
            "mlflow.source.name": f"experiments/{self.run.experiment}.experiment.yaml",
            "mlflow.source.type": "LOCAL",
            "mlflow.source.git.commit": source.commit or "",
            "mlflow.source.git.branch": source.branch or "",
        }
        return {key: value for key, value in tags.items() if value}

    def _end(self, run_id: str) -> None:
        # A clock may have been set back since.
        begun = tracking.milliseconds(self.run.created_at) + len(self.run.variants)
        finished = max(tracking.milliseconds(self.run.finished_at or self.run.created_at), begun)
        # A run that is not complete may go on: it has ended, but it has not finished.
        self.client.set_terminated(run_id, _STATUSES.get(self.run.status, "KILLED"), finished)

    # --- one variant --------------------------------------------------------------------------------------

    def _write_variant(self, variant: Variant, parent: str, variants: Mapping[str, str]) -> int:
        self.progress(f"{variant.name}: figures")
        run_id = variants[variant.name]
        model_id = self._model(variant, run_id)
        self._log_inputs(run_id, model_id)
        tags = (
            self._run_tags()
            | self.shipment.variant_labels(variant, self.prompts.problems)
            | self.prompts.linked(variant)
        )
        tags |= self._place_among(variant, parent, variants)
        metrics = self.shipment.variant_metrics(variant)
        self._log(run_id, self.shipment.variant_parameters(variant), metrics, tags, model_id)
        wanted, written = self.cases.write(variant.name, run_id, model_id, self.prompts.linked(variant))
        self._log_files(run_id, [self.shipment.rows[variant.name]])
        self.progress(f"{variant.name}: reading back")
        self.cases.read_back(variant.name, run_id, wanted, written)
        self._end(run_id)
        return len(wanted)

    def _place_among(self, variant: Variant, parent: str, variants: Mapping[str, str]) -> dict[str, str]:
        """Say on a variant's page where the report is, and what it is to be seen beside."""
        page = tracking.run_page(self.experiment_id, parent)
        note = f"`{variant.reference}` in run [{self.run.id}]({page}), where the report is."
        baseline = self.shipment.baselines.get(variant.name)
        if baseline is None:
            return {"mlflow.note.content": note}
        run_ids = {"candidate": variants[variant.name], "baseline": variants[baseline]}
        beside = tracking.compare_page(self.experiment_id, **run_ids)
        note += f" [Beside {_label(baseline)}, case by case]({beside})"
        return {"mlflow.note.content": note, "llmops.baseline_run": run_ids["baseline"]}

    def _log_inputs(self, run_id: str, model_id: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelInput

        known = self.client.get_run(run_id).inputs
        dataset = self.run.dataset
        source = {"path": dataset.path, "split": dataset.split, "commit": self.run.source.commit}
        inputs = DatasetInput(
            Dataset(
                name=tracking.shorten(self.shipment.dataset, 500, whole=RUN_FILE),
                digest=dataset.version[:36],
                source_type="code",
                source=json.dumps(source),
                profile=json.dumps({"num_rows": dataset.n_cases}),
            ),
            tags=[InputTag("mlflow.data.context", "eval")],
        )
        self.client.log_inputs(
            run_id,
            datasets=[] if known.dataset_inputs else [inputs],
            models=[] if known.model_inputs else [LoggedModelInput(model_id)],
        )

    def _model(self, variant: Variant, run_id: str) -> str:
        """Return MLflow's model of a variant: one for all runs in which the same is tried."""
        found = self.client.search_logged_models(
            [self.experiment_id], filter_string=f"tags.`llmops.variant_identity` = '{variant.identity}'"
        )
        tags = {"mlflow.model.isExternal": "true", "llmops.variant_identity": variant.identity}
        tags |= {"llmops.definition": variant.definition} | self.prompts.linked(variant)
        if found:
            model = found[0]
            changed = {key: value for key, value in tags.items() if model.tags.get(key) != value}
            if changed:
                self.client.set_logged_model_tags(model.model_id, changed)
        else:
            name = variant.definition.rpartition("/")[2]
            params = tracking.parameter_values(self.shipment.variant_parameters(variant), whole=RUN_FILE)
            params |= {"identity": variant.identity, "definition_identity": variant.definition_identity}
            model = self.client.create_logged_model(
                self.experiment_id,
                name=name.replace(".", "-"),  # MLflow takes no dot here; the tag has the name as it is
                source_run_id=run_id,
                tags=tags,
                params=params,
                model_type=variant.kind,
            )
        if str(model.status) != "READY":
            self.client.finalize_logged_model(model.model_id, "READY")
        return str(model.model_id)

    # --- figures and files --------------------------------------------------------------------------------

    def _log(
        self,
        run_id: str,
        params: Mapping[str, str],
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        model_id: str | None = None,
    ) -> None:
        """Write figures, parameters and tags, and see that they are there."""
        from mlflow.entities import Param, RunTag

        known = self.client.get_run(run_id).data
        texts = tracking.parameter_values(params, whole=RUN_FILE)
        fresh = [Param(key, value) for key, value in texts.items() if key not in known.params]
        clean = {
            key: tracking.shorten(value, tracking.MAX_TAG, whole=RUN_FILE) for key, value in tags.items()
        }
        self.client.update_run(run_id, status="RUNNING")
        for some in pages(self._metrics(run_id, metrics, known.metrics, model_id), PAGE):
            self.client.log_batch(run_id, metrics=some)
        for some in pages(fresh, 100):
            self.client.log_batch(run_id, params=some)
        self.client.log_batch(run_id, tags=[RunTag(key, value) for key, value in clean.items()])
        if MISSING_LABEL in known.tags and MISSING_LABEL not in clean:
            self.client.delete_tag(run_id, MISSING_LABEL)
        there = self.client.get_run(run_id).data
        self._expect("metrics", dict(metrics), {key: there.metrics.get(key) for key in metrics})
        self._expect("parameters", texts, {key: there.params.get(key) for key in texts})
        self._expect("tags", clean, {key: there.tags.get(key) for key in clean})

    def _metrics(
        self, run_id: str, values: Mapping[str, float], known: Mapping[str, float], model_id: str | None
    ) -> list[Any]:
        """A figure that was known and is not any more becomes NaN: MLflow forgets none."""
        from mlflow.entities import Metric

        gone = {key: math.nan for key, old in known.items() if key not in values and not math.isnan(old)}
        at, step = tracking.milliseconds(self.run.finished_at or self.run.created_at), self.shipment.revision
        about: dict[str, Any] = {"run_id": run_id}
        if model_id is not None:
            about |= {"model_id": model_id, "dataset_name": self.shipment.dataset}
            about |= {"dataset_digest": self.run.dataset.version[:36]}
        return [Metric(key, value, at, step, **about) for key, value in {**values, **gone}.items()]

    def _log_files(self, run_id: str, files: Sequence[Path]) -> None:
        """Write files and see that they come back byte for byte."""
        for path in files:
            self.progress(f"file {path.name}")
            self.client.log_artifact(run_id, str(path))
            with tempfile.TemporaryDirectory(prefix="llmops-") as folder:
                back = Path(self.client.download_artifacts(run_id, path.name, folder))
                self._expect(f"file {path.name}", _digest(path), _digest(back))


def _experiment(connection: Connection, run: Run) -> str:
    import mlflow

    name = run.experiment
    found = connection.client.get_experiment_by_name(name)
    if found is not None and found.lifecycle_stage != "active":
        raise StoreError(
            f"experiment {name} was deleted in MLflow; take it back: "
            f"`mlflow experiments restore --experiment-id {found.experiment_id}`"
        )
    if found is None:
        path = connection.path
        # Without a server MLflow would put files below whatever folder it is called from.
        place = None if path is None else (Path(path).parent / "mlartifacts" / name).as_uri()
        experiment_id = str(connection.client.create_experiment(name, artifact_location=place))
    else:
        experiment_id = str(found.experiment_id)
    known = found.tags if found is not None else {}
    about = str(run.experiment_definition.get("description") or "")
    wanted = {"mlflow.experimentKind": "genai_development", "mlflow.note.content": about}
    for key, text in wanted.items():
        value = tracking.shorten(text, tracking.MAX_TAG, whole=RUN_FILE)
        if value and known.get(key) != value:
            connection.client.set_experiment_tag(experiment_id, key, value)
    mlflow.set_experiment(experiment_id=experiment_id)
    return experiment_id


def _who() -> dict[str, str]:
    """Return the tag by which MLflow knows who wrote a run; none where this process has no name."""
    from mlflow.tracking.context.default_context import DefaultRunContext

    with suppress(KeyError, OSError):
        return {"mlflow.user": DefaultRunContext().tags()["mlflow.user"]}
    return {}


def _label(name: str) -> str:
    """Return a name that cannot end the Markdown link it stands in."""
    return re.sub(r"[^\w .@/:-]", "·", name)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
