"""Two people who run one experiment into one MLflow server: each has runs, rows and figures of their own there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from llmops.records import Run
from llmops.report.history import merge
from llmops.stores.entries import Entry, entries_of
from llmops.stores.mlflow import open_mlflow
from llmops.sync import Delivered
from tests.faults.mlflow_server import MlflowServer, mlflow_server
from tests.mirrored_run import NOW, Mirror

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow"),
    pytest.mark.filterwarnings("ignore::FutureWarning:mlflow"),
]
N_CASES = 6


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


def carry_out(mirror: Mirror, seconds: float, failing: int) -> Run:
    """Let somebody carry the same experiment out, begun so much later, with another case that fails."""
    run = mirror.mirrored_run(n_cases=N_CASES, hostile=False, begun=NOW + timedelta(seconds=seconds))
    run.begin()
    run.carry_out(range(N_CASES), failing=(failing,))
    return run.save()


def delivered(mirror: Mirror) -> Delivered:
    (found,) = mirror.sync()
    assert found.error is None, found.error
    return found


def failed(mirror: Mirror, found: Delivered) -> set[str]:
    traces = mirror.traces(found, "few-shot")
    assert len(traces) == N_CASES
    return {case_id for case_id, trace in traces.items() if str(trace.info.state.value) == "ERROR"}


def test_the_second_persons_run_is_neither_refused_nor_mixed_with_the_first(
    tmp_path: Path, server: MlflowServer
) -> None:
    with (
        closing(Mirror(tmp_path / "ann", uri=server.uri)) as ann,
        closing(Mirror(tmp_path / "bob", uri=server.uri)) as bob,
    ):
        runs = carry_out(ann, 0, 1), carry_out(bob, 0.005, 4)
        assert runs[0].id == runs[1].id
        first, second = delivered(ann), delivered(bob)
        assert first.ids["run_id"] != second.ids["run_id"]
        assert set(first.ids["variants"].values()).isdisjoint(second.ids["variants"].values())
        assert (failed(ann, first), failed(bob, second)) == ({"t-00001"}, {"t-00004"})

        bob.journal.save_run(runs[1].model_copy(update={"n_errors": 2}))
        again = delivered(bob)
        assert again.ids == second.ids, "what is delivered again is found again"
        for one, n_errors in ((first, 1), (second, 2)):
            parent = ann.client.get_run(one.ids["run_id"])
            assert parent.data.metrics["errors"] == n_errors
            assert parent.data.tags["llmops.run_id"] == runs[0].id
        assert failed(ann, first) == {"t-00001"}
        assert_told_apart(ann, runs)


def assert_told_apart(mirror: Mirror, runs: tuple[Run, Run]) -> None:
    """See that a history has the runs of both, and one's own once."""
    with closing(open_mlflow(mirror.address, environment={})) as store:
        told: list[Entry] = store.entries("experiment", "triage", lambda _: None)
    everything = merge(entries_of(runs[0]), told)
    begun: list[Any] = [(entry.began_at, entry.variant) for entry in everything]
    ours, theirs = (run.created_at for run in runs)
    assert begun == [(at, name) for at in (theirs, ours) for name in ("zero-shot", "few-shot")]
