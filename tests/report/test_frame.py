"""A run as a frame: typed columns, what is absent is NA, and the run it came from goes with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from llmops.errors import StoreError, UsageError
from llmops.report.frame import load_frame, run_frame
from llmops.report.rows import write_rows
from tests.model_server import ModelServer
from tests.workplace import Workplace


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    place = Workplace(tmp_path, ModelServer())
    place.write("llmops.yaml", "")
    yield place


def test_a_frame_has_the_columns_of_a_parquet_file_with_nullable_types(
    tmp_path: Path, example: Callable[..., Any]
) -> None:
    made = example()
    frame = run_frame(made.kept, made.run)
    path = tmp_path / "rows.parquet"
    write_rows(made.kept, path, run=made.run)
    assert list(frame.columns) == list(pd.read_parquet(path).columns)
    types = {
        name: str(frame.dtypes[name]) for name in ("repeat", "case_id", "valid", "latency_s", "input_tokens")
    }
    assert types == {
        "repeat": "Int64",
        "case_id": "string",
        "valid": "boolean",
        "latency_s": "float64",
        "input_tokens": "Int64",
    }
    assert list(frame["variant"].cat.categories) == ["zero-shot", "few-shot"]
    assert len(frame) == 80


def test_what_is_absent_is_na_and_no_zero(example: Callable[..., Any]) -> None:
    made = example()
    frame = run_frame(made.kept, made.run)
    failed = frame[frame["status"] == "error"]
    assert list(failed["case_id"]) == ["t-0003"]
    assert failed[["output", "exact_match", "input_tokens", "latency_s", "valid"]].isna().all(axis=None)
    assert frame["exact_match"].count() == 79
    assert list(failed["error_kind"]) == ["timeout"]


def test_a_frame_remembers_its_run_and_the_intervals(example: Callable[..., Any]) -> None:
    made = example()
    attrs = run_frame(made.kept, made.run).attrs
    assert {name: attrs[name] for name in ("run", "experiment", "dataset", "dataset_version")} == {
        "run": "triage-1a2b3c4d",
        "experiment": "triage",
        "dataset": "tickets/test",
        "dataset_version": "v" * 64,
    }
    assert attrs["intervals"]["few-shot"]["exact_match"] == {
        "value": 0.85,
        "low": pytest.approx(0.75),
        "high": pytest.approx(0.9),
        "level": 0.9,
        "n": 40,
    }
    assert "cost_usd" not in attrs["intervals"]["few-shot"]


def test_variants_pivot_and_runs_join_by_case(example: Callable[..., Any]) -> None:
    made = example()
    frame = run_frame(made.kept, made.run)
    side_by_side = frame.pivot(index="case_id", columns="variant", values="exact_match")
    assert side_by_side.shape == (40, 2)
    assert side_by_side["few-shot"].mean() == pytest.approx(
        frame.loc[frame["variant"] == "few-shot", "exact_match"].mean()
    )
    few = frame[frame["variant"] == "few-shot"]
    joined = few.merge(
        frame[frame["variant"] == "zero-shot"], on=["case_id", "repeat"], suffixes=("", "_before")
    )
    assert len(joined) == 40
    assert set(joined["run"]) == {"triage-1a2b3c4d"}


def test_the_frame_of_a_run_is_found_by_id_by_experiment_or_as_the_latest(place: Workplace) -> None:
    run = place.run().run
    frames = [load_frame(name, root=place.root) for name in (run.id, "sort", None)]
    assert [frame.attrs["run"] for frame in frames] == [run.id] * 3
    (figure,) = {frame["exact_match"].mean() for frame in frames}
    assert figure == pytest.approx(run.summary["plain"]["exact_match"].value)


def test_the_project_is_the_one_around_the_notebook(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.run()
    folder = place.root / "notebooks"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert len(load_frame("sort")) == 6


def test_a_run_that_is_not_there_is_told_with_what_is(place: Workplace) -> None:
    with pytest.raises(StoreError, match="no store here yet"):
        load_frame(root=place.root)
    place.run()
    with pytest.raises(UsageError, match="did you mean 'sort'"):
        load_frame("sotr", root=place.root)
