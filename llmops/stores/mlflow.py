"""Runs as MLflow shows them: the one file that imports mlflow, and it does so only once something is written.

A run goes in bulk, is read back, and only then counts as finished. Everything is found again by tags and
hashes of content, so that writing twice, or on after a kill, adds nothing twice.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmops.errors import LlmopsError, StoreError
from llmops.records import RunStatus
from llmops.stores import tracking
from llmops.stores.shipment import MISSING_LABEL, REPORT_FILE, RUN_FILE

if TYPE_CHECKING:
    from datetime import datetime

    from llmops.records import Variant
    from llmops.stores.shipment import PromptText, Shipment
    from llmops.stores.traces import CaseTrace, Mark, Step

TRACES_AT_ONCE = 100
BYTES_AT_ONCE = 4_000_000
PAGE = 500
TOLD_EVERY = 10
WRITERS = 4  # more at a time and MLflow's server drops writes: its pool of connections locks itself up
SAMPLE = 3  # traces of a variant whose steps are read back; scores are read back from all
MAX_PROMPT_TEXT = 90_000  # MLflow refuses prompts of more than 100,000 characters, JSON and all

# Any: mlflow's own classes, which only this file knows and which come without types.
Client = Any

_SETTINGS = {  # before the import, because mlflow reads some of them only there; the user's own win
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "64",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
}
_FORCED = {  # the asynchronous way drops traces without a word; a pickle is code of whoever wrote it
    "MLFLOW_ENABLE_ASYNC_TRACE_LOGGING": "false",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_MODEL_CATALOG_URI": "",  # prices are ours or unknown, and are not fetched from the network
}
_STATUSES = {RunStatus.COMPLETE: "FINISHED"}
_KINDS = {"case": "CHAIN", "prompt": "CHAT_MODEL", "chain": "CHAIN", "python": "TOOL"}
_SPANS_WRITTEN = "mlflow.trace.spansLocation"
_EXPERIMENTS_OF_PROMPT = "_mlflow_experiment_ids"


@dataclass(frozen=True)
class MlflowIds:
    """How a run is called in MLflow. variants: the run of each, by name; n_traces: cases shown, over all."""

    experiment_id: str
    run_id: str
    variants: Mapping[str, str]
    n_traces: int


def open_mlflow(uri: str, *, environment: Mapping[str, str]) -> MlflowStore:
    """Return the store behind a tracking URI; mlflow is imported and a new database made, which takes seconds.

    environment: its variables for MLflow are set in this process's own, where mlflow looks for them.

    Raises StoreError when it cannot be opened.
    """
    os.environ.update(_FORCED)
    given = {name: value for name, value in environment.items() if name.startswith("MLFLOW_")}
    for name, value in {**_SETTINGS, **given}.items():
        os.environ.setdefault(name, value)
    secrets = tracking.secrets_of(uri, environment)
    with _translated(uri, secrets):
        _write_ahead(uri)
        import mlflow
        from mlflow.tracing.client import TracingClient

        logging.getLogger("alembic").setLevel(logging.ERROR)
        mlflow.set_tracking_uri(uri)  # registering a prompt links it by way of the global address
        store = MlflowStore(uri, secrets, mlflow.MlflowClient(uri), TracingClient(uri))
        if tracking.database_path(uri) is not None:
            _spare_the_disk(store.tracing.store.engine)
        return store


def _write_ahead(uri: str) -> None:
    """Let SQLite write ahead: a quarter of the waiting, and readers do not stop it."""
    path = tracking.database_path(uri)
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with suppress(sqlite3.OperationalError):  # somebody reads just now: then it is only slower
            _on_database(path, "PRAGMA journal_mode = WAL")


def _on_database(path: str, statement: str) -> None:
    with closing(sqlite3.connect(path, timeout=2)) as connection:
        connection.execute(statement)


def _spare_the_disk(engine: Client) -> None:
    """Let commits wait for the disk together: what is lost with the power is delivered again."""
    from sqlalchemy import event

    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = NORMAL"))
    engine.dispose()  # connections made before


@contextmanager
def _translated(uri: str, secrets: Sequence[str]) -> Iterator[None]:
    """Turn whatever goes wrong in mlflow, its drivers and its HTTP client into StoreError, without secrets."""
    try:
        yield
    except LlmopsError:
        raise
    except Exception as error:  # noqa: BLE001 - mlflow lets through what its stores, drivers and sockets raise
        text = tracking.scrub(f"{type(error).__name__}: {error}".strip(), secrets)
        message = f"MLflow at {tracking.shown(uri)}: {tracking.shorten(text, 500, whole='--debug')}"
        raise StoreError(message) from (None if secrets else error)


@dataclass(frozen=True)
class MlflowStore:
    """An MLflow that runs are written to. Made by `open_mlflow`; used from one thread."""

    uri: str
    secrets: Sequence[str] = field(repr=False)
    client: Client = field(repr=False)
    tracing: Client = field(repr=False)

    def close(self) -> None:
        """Close the connections to a database; mlflow itself would keep them as long as the process lives."""
        if tracking.database_path(self.uri) is not None:
            self.tracing.store.engine.dispose()
            self.client._get_registry_client().store.engine.dispose()

    def deliver(self, shipment: Shipment, progress: Callable[[str], None]) -> MlflowIds:
        """Write a run, read it back, and return how it is called there.

        progress: called with what is being done, at least once a second on a server that answers.

        Raises StoreError when MLflow fails, or gives back other than what was written.
        """
        with _translated(self.uri, self.secrets):
            ids = _Writing(self, shipment, progress).write()
            if (path := tracking.database_path(self.uri)) is not None:
                _on_database(path, "PRAGMA wal_checkpoint")  # onto the disk, before anybody says so
            return ids


class _Writing:
    """The writing of one run."""

    def __init__(self, store: MlflowStore, shipment: Shipment, progress: Callable[[str], None]) -> None:
        self.store = store
        self.client = store.client
        self.shipment = shipment
        self.run = shipment.run
        self.progress = progress
        self.experiment_id = ""
        self.prompts: dict[tuple[str, str], str] = {}  # the version in MLflow of each prompt that has one
        self.problems: dict[tuple[str, str], str] = {}

    def write(self) -> MlflowIds:
        self.progress("experiment")
        self.experiment_id = self._experiment()
        self._mirror_prompts()
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

    def _experiment(self) -> str:
        import mlflow

        name = self.run.experiment
        found = self.client.get_experiment_by_name(name)
        if found is not None and found.lifecycle_stage != "active":
            raise StoreError(
                f"experiment {name} was deleted in MLflow; take it back: "
                f"`mlflow experiments restore --experiment-id {found.experiment_id}`"
            )
        if found is None:
            path = tracking.database_path(self.store.uri)
            # Without a server MLflow would put files below whatever folder it is called from.
            place = None if path is None else (Path(path).parent / "mlartifacts" / name).as_uri()
            experiment_id = str(self.client.create_experiment(name, artifact_location=place))
        else:
            experiment_id = str(found.experiment_id)
        known = found.tags if found is not None else {}
        about = str(self.run.experiment_definition.get("description") or "")
        wanted = {"mlflow.experimentKind": "genai_development", "mlflow.note.content": about}
        for key, text in wanted.items():
            value = tracking.shorten(text, tracking.MAX_TAG, whole=RUN_FILE)
            if value and known.get(key) != value:
                self.client.set_experiment_tag(experiment_id, key, value)
        mlflow.set_experiment(experiment_id=experiment_id)
        return experiment_id

    def _known_runs(self) -> dict[str | None, str]:
        """Return the MLflow runs of this run that are there already, by variant; the parent is under None."""
        wanted = f"tags.`llmops.run_id` = '{self.run.id}'"
        found = self.client.search_runs([self.experiment_id], wanted, order_by=["attributes.start_time DESC"])
        return {run.data.tags.get("llmops.variant"): run.info.run_id for run in found}

    def _begin(self, name: str, tags: Mapping[str, str], place: int = 0) -> str:
        tags = {"llmops.run_id": self.run.id, **tags}
        start = _ms(self.run.created_at) + place
        run = self.client.create_run(self.experiment_id, start_time=start, tags=tags, run_name=name)
        return str(run.info.run_id)

    def _write_parent(self, parent: str, variants: Mapping[str, str]) -> None:
        self.progress("report")
        tags = self._run_tags() | {"mlflow.note.content": self._note(variants)}
        self._log(parent, self.shipment.run_parameters(), self.shipment.run_metrics(), tags)
        self._log_files(parent, self.shipment.files)
        self._end(parent)

    def _note(self, variants: Mapping[str, str]) -> str:
        """The report, and where to look at the cases side by side."""
        lines = []
        for candidate, baseline in self.shipment.baselines.items():
            page = tracking.compare_page(
                self.experiment_id, candidate=variants[candidate], baseline=variants[baseline]
            )
            lines.append(f"[{_label(candidate)} beside {_label(baseline)}, case by case]({page})\n\n")
        links = "".join(lines)
        links = links if len(links) < tracking.MAX_TAG // 2 else ""
        return links + tracking.shorten(
            self.shipment.report, tracking.MAX_TAG - len(links), whole=REPORT_FILE
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
        finished = self.run.finished_at or self.run.created_at
        # A run that is not complete may go on: it has ended, but it has not finished.
        self.client.set_terminated(run_id, _STATUSES.get(self.run.status, "KILLED"), _ms(finished))

    # --- one variant --------------------------------------------------------------------------------------

    def _write_variant(self, variant: Variant, parent: str, variants: Mapping[str, str]) -> int:
        self.progress(f"{variant.name}: figures")
        run_id = variants[variant.name]
        model_id = self._model(variant, run_id)
        self._log_inputs(run_id, model_id)
        tags = self._run_tags() | self.shipment.variant_labels(variant, self.problems) | self._linked(variant)
        tags |= self._place_among(variant, parent, variants)
        metrics = self.shipment.variant_metrics(variant)
        self._log(run_id, self.shipment.variant_parameters(variant), metrics, tags, model_id)
        wanted, written = self._write_traces(variant, run_id, model_id)
        self._log_files(run_id, [self.shipment.rows[variant.name]])
        self.progress(f"{variant.name}: reading back")
        self._read_back(variant, run_id, wanted, written)
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

    def _linked(self, variant: Variant) -> dict[str, str]:
        """Return the tag by which MLflow knows the prompts of a run, a model or a trace."""
        linked = [
            {"name": name, "version": self.prompts[name, identity]}
            for name, identity in variant.prompts.items()
            if (name, identity) in self.prompts
        ]
        return {"mlflow.linkedPrompts": json.dumps(linked)} if linked else {}

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

    # --- what several runs share --------------------------------------------------------------------------

    def _mirror_prompts(self) -> None:
        for key, prompt in self.shipment.prompts.items():
            self.progress(f"prompt {key[0]}")
            if isinstance(prompt, str):
                self.problems[key] = prompt
            else:
                self._mirror_prompt(key, prompt)

    def _mirror_prompt(self, key: tuple[str, str], prompt: PromptText) -> None:
        """Find the version with this content, or register it: MLflow itself never looks whether it is there."""
        from mlflow.exceptions import MlflowException

        try:
            known = self.client.get_prompt(prompt.name)
            versions = self.client.search_prompt_versions(prompt.name) if known is not None else []
            found = next((v for v in versions if v.tags.get("llmops.sha256") == prompt.identity), None)
            if found is None:
                found = self._register(prompt)
                _wait_for_links()
                known = self.client.get_prompt(prompt.name)
            self.prompts[key] = str(found.version)
            self._show_prompt_here(prompt.name, known.tags)
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            self.problems[key] = str(error)  # its name belongs to a model, for one

    def _register(self, prompt: PromptText) -> Any:
        room = MAX_PROMPT_TEXT // max(1, len(prompt.messages))
        template = [
            {
                "role": message["role"],
                "content": tracking.shorten(message["content"], room, whole=prompt.path),
            }
            for message in prompt.messages
        ]
        tags = {"llmops.sha256": prompt.identity, "llmops.path": prompt.path}
        return self.client.register_prompt(
            prompt.name,
            template,
            commit_message=tracking.shorten(prompt.message, 1_000, whole=prompt.path),
            tags=tags | ({"llmops.commit": prompt.commit} if prompt.commit else {}),
            response_format=dict(prompt.response_format) if prompt.response_format else None,
            model_config=_model_config(prompt),
        )

    def _show_prompt_here(self, name: str, tags: Mapping[str, str]) -> None:
        """Let the experiment's list of prompts have it."""
        ids = [key for key in tags.get(_EXPERIMENTS_OF_PROMPT, "").split(",") if key]
        if self.experiment_id not in ids:
            value = f",{','.join([*ids, self.experiment_id])},"
            self.client.set_prompt_tag(name, _EXPERIMENTS_OF_PROMPT, value)

    def _model(self, variant: Variant, run_id: str) -> str:
        """Return MLflow's model of a variant: one for all runs in which the same is tried."""
        found = self.client.search_logged_models(
            [self.experiment_id], filter_string=f"tags.`llmops.variant_identity` = '{variant.identity}'"
        )
        tags = {"mlflow.model.isExternal": "true", "llmops.variant_identity": variant.identity}
        tags |= {"llmops.definition": variant.definition} | self._linked(variant)
        if found:
            model = found[0]
            changed = {key: value for key, value in tags.items() if model.tags.get(key) != value}
            if changed:
                self.client.set_logged_model_tags(model.model_id, changed)
        else:
            kind, _, name = variant.definition.partition("s/")
            params = tracking.parameter_values(self.shipment.variant_parameters(variant), whole=RUN_FILE)
            params |= {"identity": variant.identity, "definition_identity": variant.definition_identity}
            model = self.client.create_logged_model(
                self.experiment_id,
                name=name.replace(".", "-"),  # MLflow takes no dot here; the tag has the name as it is
                source_run_id=run_id,
                tags=tags,
                params=params,
                model_type=kind,
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
        for some in _pages(self._metrics(run_id, metrics, known.metrics, model_id), PAGE):
            self.client.log_batch(run_id, metrics=some)
        for some in _pages(fresh, 100):
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
        at, step = _ms(self.run.finished_at or self.run.created_at), self.shipment.revision
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

    def _expect(self, what: str, written: object, found: object) -> None:
        if written == found:
            return
        if isinstance(written, dict) and isinstance(found, dict):
            key = next(key for key in written if written[key] != found[key])
            what, written, found = f"{what}: {key}", written[key], found[key]
        raise StoreError(
            f"MLflow at {tracking.shown(self.store.uri)} gave back other {what} of run {self.run.id} than was "
            f"written: {str(found)[:100]!r} for {str(written)[:100]!r}; the run stays waiting"
        )

    # --- traces -------------------------------------------------------------------------------------------

    def _write_traces(
        self, variant: Variant, run_id: str, model_id: str
    ) -> tuple[set[str], dict[str, CaseTrace]]:
        """Write the traces that are missing and delete those no longer true.

        Return the ids of all that should be there now, and those that were written.
        """
        there = self._traces(run_id)
        wanted: set[str] = set()
        written: dict[str, CaseTrace] = {}
        metadata = {
            "mlflow.sourceRun": run_id,
            "mlflow.modelId": model_id,
            "mlflow.trace_schema.version": "3",
        }
        tags = self._linked(variant)
        batch: list[CaseTrace] = []
        for trace in self.shipment.traces(variant.name):
            trace_id = _trace_id(trace)
            wanted.add(trace_id)
            if trace_id in there and _is_whole(there[trace_id], trace):
                continue
            batch.append(trace)
            written[trace_id] = trace
            if len(batch) >= TRACES_AT_ONCE or sum(one.size for one in batch) >= BYTES_AT_ONCE:
                self._write_batch(batch, metadata, tags)
                batch = []
                self.progress(f"{variant.name}: {len(wanted)} cases")
        self._write_batch(batch, metadata, tags)
        self._delete([info for key, info in there.items() if key not in wanted])
        return wanted, written

    def _write_batch(
        self, batch: Sequence[CaseTrace], metadata: Mapping[str, str], tags: Mapping[str, str]
    ) -> None:
        if not batch:
            return
        infos = [self._trace_info(trace, metadata, tags) for trace in batch]
        tracing = self.store.tracing
        if tracking.database_path(self.store.uri) is not None:
            with _remembered(tracing.store, self.experiment_id):
                self._each(map(tracing.start_trace, infos))
        else:
            with ThreadPoolExecutor(WRITERS) as pool:
                self._each(pool.map(tracing.start_trace, infos))
        tracing.log_spans(self.experiment_id, [span for trace in batch for span in _spans(trace)])

    def _each(self, started: Iterable[Any]) -> None:
        for place, _ in enumerate(started):
            if place % TOLD_EVERY == 0:
                self.progress("cases")

    def _trace_info(self, trace: CaseTrace, metadata: Mapping[str, str], tags: Mapping[str, str]) -> Any:
        from mlflow.entities.trace_info import TraceInfo
        from mlflow.entities.trace_location import TraceLocation
        from mlflow.entities.trace_state import TraceState

        case = trace.steps[0]
        return TraceInfo(
            trace_id=_trace_id(trace),
            trace_location=TraceLocation.from_experiment_id(self.experiment_id),
            request_time=case.start_ns // 1_000_000,
            execution_duration=(case.end_ns - case.start_ns) // 1_000_000,
            state=TraceState.ERROR if trace.failed else TraceState.OK,
            client_request_id=trace.case_id,
            request_preview=trace.request,
            response_preview=trace.response,
            trace_metadata=dict(metadata),
            tags={"mlflow.traceName": trace.name, **tags, **trace.labels},
            assessments=[self._assessment(trace, mark, metadata["mlflow.sourceRun"]) for mark in trace.marks],
        )

    def _assessment(self, trace: CaseTrace, mark: Mark, run_id: str) -> Any:
        from mlflow.entities import AssessmentError, AssessmentSource, Expectation, Feedback

        source = AssessmentSource(
            "CODE", mark.source or tracking.shorten(self.shipment.dataset, 250, whole=RUN_FILE)
        )
        at = trace.steps[0].end_ns // 1_000_000
        common: dict[str, Any] = {"name": mark.name, "trace_id": _trace_id(trace), "source": source}
        common |= {"create_time_ms": at, "last_update_time_ms": at}
        if mark.source is None:
            found = Expectation(value=mark.value, **common)
        else:
            common["metadata"] = {"mlflow.assessment.sourceRunId": run_id}
            error = AssessmentError("SCORER_ERROR", mark.error) if mark.error is not None else None
            found = Feedback(value=mark.value, rationale=mark.reason, error=error, **common)
        # Our own id: a request that is sent again after its reply was lost then adds nothing.
        found.assessment_id = _mark_id(trace, mark)
        return found

    def _traces(self, run_id: str) -> dict[str, Any]:
        """Return what MLflow says of the traces of a run, by id."""
        found: dict[str, Any] = {}
        token = None
        while True:
            page = self.client.search_traces(
                locations=[self.experiment_id],
                run_id=run_id,
                include_spans=False,
                max_results=PAGE,
                page_token=token,
            )
            found |= {trace.info.trace_id: trace.info for trace in page}
            token = page.token
            if not token:
                return found
            self.progress("reading")

    def _delete(self, infos: Sequence[Any]) -> None:
        """Delete traces that no longer hold, except those on which somebody else has said something."""
        stale = [info.trace_id for info in infos if not _is_annotated(info)]
        for some in _pages(stale, TRACES_AT_ONCE):
            self.progress("removing what changed")
            self.client.delete_traces(self.experiment_id, trace_ids=list(some))

    def _read_back(
        self, variant: Variant, run_id: str, wanted: set[str], written: Mapping[str, CaseTrace]
    ) -> None:
        """See that all cases are there, and of those just written every score and some steps."""
        there = self._traces(run_id)
        self._expect(f"number of cases of {variant.name}", len(wanted), len(wanted & there.keys()))
        for trace_id, trace in written.items():
            marks = {_mark_id(trace, mark): (mark.name, mark.value, mark.error) for mark in trace.marks}
            found = {mark.assessment_id: _said(mark) for mark in there[trace_id].assessments}
            self._expect(f"scores of case {trace.case_id}", marks, {key: found.get(key) for key in marks})
        keys = list(written)
        for trace_id in keys[:: max(1, len(keys) // SAMPLE)]:
            spans = self.client.get_trace(trace_id).data.spans
            self._expect(f"steps of {trace_id}", len(written[trace_id].steps), len(spans))


def _is_whole(info: Any, trace: CaseTrace) -> bool:
    """Say whether both writes of a trace went through: its scores, then its steps."""
    marks = {mark.assessment_id for mark in info.assessments}
    return _SPANS_WRITTEN in info.tags and marks.issuperset(_mark_id(trace, mark) for mark in trace.marks)


@contextmanager
def _remembered(store: Client, experiment_id: str) -> Iterator[None]:
    """Spare a database the question, asked for each trace, what experiment this is: a third of the work."""
    experiment = store.get_experiment(experiment_id)
    store.get_experiment = lambda _: experiment
    try:
        yield
    finally:
        del store.get_experiment


def _pages(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _label(name: str) -> str:
    """Return a name that cannot end the Markdown link it stands in."""
    return re.sub(r"[^\w .@/:-]", "·", name)


def _wait_for_links() -> None:
    """Let the thread end in which mlflow links a new prompt to the experiment: it writes what we write next."""
    for thread in threading.enumerate():
        if thread.name.startswith("link_prompt_to_experiment_thread"):
            thread.join()


def _is_annotated(info: Any) -> bool:
    return any(mark.source.source_type != "CODE" for mark in info.assessments)


def _said(mark: Any) -> tuple[str, Any, str | None]:
    error = None if mark.error is None else mark.error.error_message
    return mark.name, mark.value, error


def _trace_id(trace: CaseTrace) -> str:
    return f"tr-{trace.key:032x}"


def _mark_id(trace: CaseTrace, mark: Mark) -> str:
    text = json.dumps([trace.key, mark.name, mark.source])
    return f"a-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def _spans(trace: CaseTrace) -> Iterator[Any]:
    from mlflow.entities import Span
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags

    def context(place: int) -> Any:
        digest = hashlib.sha256(f"{trace.key}/{place}".encode()).digest()
        return SpanContext(trace.key, int.from_bytes(digest[:8], "big") or 1, False, TraceFlags(1))

    for place, step in enumerate(trace.steps):
        status, events = Status(StatusCode.OK), list[Any]()
        if step.error is not None:
            status = Status(StatusCode.ERROR, step.error)
            about = {"exception.type": step.error.partition(":")[0], "exception.message": step.error}
            events.append(Event("exception", about, timestamp=step.end_ns))
        yield Span(
            ReadableSpan(
                name=step.name,
                context=context(place),
                parent=None if step.parent is None else context(step.parent),
                attributes={key: json.dumps(value) for key, value in _attributes(trace, step).items()},
                start_time=step.start_ns,
                end_time=step.end_ns,
                events=events,
                status=status,
                resource=Resource.get_empty(),  # the default puts `service.name: unknown_service` on each trace
            )
        )


def _attributes(trace: CaseTrace, step: Step) -> dict[str, Any]:
    found: dict[str, Any] = {
        "mlflow.traceRequestId": _trace_id(trace),
        "mlflow.spanType": _KINDS[step.kind],
        "mlflow.spanInputs": step.inputs,
        "mlflow.spanOutputs": step.output,
        "mlflow.llm.model": step.model,
        "mlflow.llm.provider": step.provider,
        **{f"llmops.{key}": value for key, value in step.extra.items()},
    }
    if step.input_tokens is not None and step.output_tokens is not None:
        found["mlflow.chat.tokenUsage"] = {
            "input_tokens": step.input_tokens,
            "output_tokens": step.output_tokens,
            "total_tokens": step.input_tokens + step.output_tokens,
        }
    if step.cost_usd is not None:
        found["mlflow.llm.cost"] = {"total_cost": step.cost_usd}
    return {key: value for key, value in found.items() if value is not None}


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


def _ms(time: datetime) -> int:
    return int(time.timestamp() * 1000)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
