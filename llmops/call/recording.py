"""A run's replies -> recordings: what its cells and scores stand on is read from the journal and laid down for git."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmops.call.caller import call_identity
from llmops.call.deployments import is_replayed
from llmops.records import CallState, ModelVersion, Repeat, Row, Run, RunStatus, repeat_of
from llmops.stores.recordings import Recording, Recordings

if TYPE_CHECKING:
    from llmops.stores.journal import Journal


@dataclass(frozen=True)
class Recorded:
    """What recording a run came to. n_failed: steps without a reply, which no replay can repeat."""

    recordings: Recordings
    n_failed: int


def record_run(journal: Journal, run: Run, before: Callable[[], Recordings], shown: str) -> Recorded:
    """Return the recordings of an experiment with those of a run's calls; `embedded` needs none.

    before: reads the recordings there are. A part of a run adds to them; a complete run needs no others, so that
    what no variant asks any more goes.
    """
    recordings = Recordings(shown) if run.status is RunStatus.COMPLETE else before()
    asked = {model.identity: model for model in _models(run) if is_replayed(model)}
    names = {model.name for model in asked.values()}
    n_failed = 0
    for row in journal.rows(run.id):
        spans = row.output.spans if row.output is not None else ()
        n_failed += sum(span.call_id is None and span.model in names for span in spans)
        for call_id, repeat in _call_ids(row):
            call = journal.find_call(call_id)
            if call is None or call.state is not CallState.ANSWERED or call.reply is None:
                continue
            if call.model_identity in asked:
                # As number 0, whatever `--fresh` made of it: where it is replayed nothing has run before.
                key = call_identity(call.model_identity, call.request, repeat, 0)
                recording = Recording(
                    key,
                    asked[call.model_identity].name,
                    call.model_identity,
                    repeat,
                    call.request,
                    call.reply,
                )
                recordings.add(recording)
    return Recorded(recordings, n_failed)


def _models(run: Run) -> Iterator[ModelVersion]:
    for variant in run.variants:
        yield from variant.models
    for evaluator in run.evaluators:
        yield from evaluator.models


def _call_ids(row: Row) -> Iterator[tuple[str, Repeat]]:
    """Yield the calls of a cell, with which answer each asked for."""
    spans = row.output.spans if row.output is not None else ()
    for span in spans:
        if span.call_id is not None:
            yield span.call_id, repeat_of(span, spans, row.repeat)
    for score in row.scores:
        yield from ((call_id, row.repeat) for call_id in score.call_ids)
