"""A run as a pandas frame, for notebooks: `load_frame("support_tickets")` in any folder of the project.

The columns are those of a Parquet file of rows. What the frame is looked at with is left to whoever has it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmops.definitions.workspace import find_root, load_workspace
from llmops.records import Row, Run
from llmops.report.flat_rows import FlatRows

if TYPE_CHECKING:
    import pandas as pd


_DTYPES = {"text": "string", "whole": "Int64", "number": "float64", "truth": "boolean"}
_FEW_VALUES = ("split", "slice", "status")


def load_frame(run: str | None = None, *, root: Path | None = None) -> pd.DataFrame:
    """Return a run of a project, one row a cell, as `run_frame` makes it.

    run: its id, or its experiment for the latest; None for the latest of all. root: of the project, by default the
    one that the working directory stands in.

    Raises UsageError when there is no such run or project, and StoreError when there is no store yet.
    """
    from llmops.stores.journal import open_journal

    root = find_root(Path.cwd()) if root is None else root
    url = load_workspace(root).project.store.url
    with closing(open_journal(url, root=root, create=False, environment=os.environ)) as journal:
        found = journal.named_run(run)
        return run_frame(journal.rows(found.id, with_spans=False), found)


def run_frame(rows: Iterable[Row], run: Run) -> pd.DataFrame:
    """Return rows of a run as a frame, one row a cell: what is absent is NA, and never 0.

    Whole numbers and truth values are nullable; `variant` is a category in the order of the experiment, the baseline
    among them as it stands there. Frames of two runs join on `case_id` (and `repeat`).
    `frame.attrs` has `run`, `experiment`, `dataset`, `dataset_version`, and `intervals`: by variant and metric the
    value, the ends, their level and the cases it stands on.
    """
    import pandas as pd

    table = FlatRows(rows, run)
    kinds = table.columns
    cells: dict[str, list[Any]] = {name: [] for name in kinds}
    for row in table:
        for values, cell in zip(cells.values(), row, strict=True):
            values.append(cell)
    frame = pd.DataFrame({name: pd.array(cells[name], dtype=_DTYPES[kind]) for name, kind in kinds.items()})
    for name in _FEW_VALUES:
        frame[name] = frame[name].astype("category")
    frame["variant"] = pd.Categorical(frame["variant"], categories=[variant.name for variant in run.variants])
    frame.attrs |= {
        "run": run.id,
        "experiment": run.experiment,
        "dataset": "/".join(filter(None, (run.dataset.name, run.dataset.split))),
        "dataset_version": run.dataset.version,
        "intervals": {variant: _intervals(run, variant) for variant in run.summary},
    }
    return frame


def _intervals(run: Run, variant: str) -> dict[str, dict[str, float | int | None]]:
    return {
        metric: {
            "value": figure.value,
            "low": figure.interval.low,
            "high": figure.interval.high,
            "level": figure.interval.level,
            "n": figure.n,
        }
        for metric, figure in run.summary[variant].items()
        if figure.interval is not None
    }
