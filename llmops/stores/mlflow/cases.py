"""The cases of a variant as MLflow shows them: a trace each, with its steps, and scores as assessments.

Written in bulk, each trace before its steps, and read back. Ids are hashes of what is shown, so that writing
twice, or on after a kill, adds nothing twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from llmops.stores import tracking
from llmops.stores.mlflow.connection import PAGE, Client, Connection, pages
from llmops.stores.shipment import RUN_FILE

if TYPE_CHECKING:
    from llmops.stores.shipment import Shipment
    from llmops.stores.traces import CaseTrace, Mark, Step

TRACES_AT_ONCE = 100
BYTES_AT_ONCE = 4_000_000
TOLD_EVERY = 10
WRITERS = 4  # more at a time and MLflow's server drops writes: its pool of connections locks itself up
SAMPLE = 3  # traces of a variant whose steps are read back; scores are read back from all

_KINDS = {
    "case": "CHAIN",
    "prompt": "CHAT_MODEL",
    "chain": "CHAIN",
    "python": "TOOL",
    "retrieve": "RETRIEVER",
    "agent": "AGENT",
    "tool": "TOOL",
    "http": "TOOL",
    "map": "CHAIN",
    "converse": "CHAIN",
    "branch": "CHAIN",
    "vote": "CHAIN",
    "guard": "GUARDRAIL",
    "recorded": "UNKNOWN",
}
_OURS = "llmops.score"  # what tells our judges' scores from what others say of a trace
_SPANS_WRITTEN = "mlflow.trace.spansLocation"


class CaseWriter:
    """The writing of the cases of one run."""

    def __init__(
        self, connection: Connection, shipment: Shipment, experiment_id: str, progress: Callable[[str], None]
    ) -> None:
        self.connection = connection
        self.client = connection.client
        self.shipment = shipment
        self.experiment_id = experiment_id
        self.progress = progress
        self._expect = partial(connection.expect, shipment.run.id)

    def write(
        self, variant: str, run_id: str, model_id: str, tags: Mapping[str, str]
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
        batch: list[CaseTrace] = []
        for trace in self.shipment.traces(variant):
            trace_id = _trace_id(trace)
            wanted.add(trace_id)
            if trace_id in there and _is_whole(there[trace_id], trace):
                continue
            batch.append(trace)
            written[trace_id] = trace
            if len(batch) >= TRACES_AT_ONCE or sum(one.size for one in batch) >= BYTES_AT_ONCE:
                self._write_batch(batch, metadata, tags)
                batch = []
                self.progress(f"{variant}: {len(wanted)} cases")
        self._write_batch(batch, metadata, tags)
        self._delete([info for key, info in there.items() if key not in wanted])
        return wanted, written

    def _write_batch(
        self, batch: Sequence[CaseTrace], metadata: Mapping[str, str], tags: Mapping[str, str]
    ) -> None:
        if not batch:
            return
        infos = [self._trace_info(trace, metadata, tags) for trace in batch]
        tracing = self.connection.tracing
        if self.connection.path is not None:
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
            "LLM_JUDGE" if mark.by_judge else "CODE",
            mark.source or tracking.shorten(self.shipment.dataset, 250, whole=RUN_FILE),
        )
        at = trace.steps[0].end_ns // 1_000_000
        common: dict[str, Any] = {"name": mark.name, "trace_id": _trace_id(trace), "source": source}
        common |= {"create_time_ms": at, "last_update_time_ms": at}
        if mark.source is None:
            found = Expectation(value=mark.value, **common)
        else:
            common["metadata"] = {"mlflow.assessment.sourceRunId": run_id, _OURS: "true"}
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
        for some in pages(stale, TRACES_AT_ONCE):
            self.progress("removing what changed")
            self.client.delete_traces(self.experiment_id, trace_ids=list(some))

    def read_back(
        self, variant: str, run_id: str, wanted: set[str], written: Mapping[str, CaseTrace]
    ) -> None:
        """See that all cases are there, and of those just written every score and some steps."""
        there = self._traces(run_id)
        self._expect(f"number of cases of {variant}", len(wanted), len(wanted & there.keys()))
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


def _is_annotated(info: Any) -> bool:
    return any(
        mark.source.source_type != "CODE" and _OURS not in (mark.metadata or {}) for mark in info.assessments
    )


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
        "mlflow.spanOutputs": _documents(step.output) if step.kind == "retrieve" else step.output,
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


def _documents(output: Any) -> Any:
    """Return passages as MLflow shows them and gives them to its judges; what is none as it is."""
    passages = output.get("passages") if isinstance(output, dict) else None
    if not isinstance(passages, list) or not all(isinstance(each, dict) for each in passages):
        return output
    return [
        {
            "page_content": each.get("text"),
            "metadata": {
                "doc_uri": each.get("source"),
                "score": each.get("score"),
                **(each.get("metadata") or {}),
            },
            "id": each.get("id"),
        }
        for each in passages
    ]
