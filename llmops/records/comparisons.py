"""Two variants, case by case: how far each metric lies apart, how sure that is, and which cases flipped."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from pydantic import Field

from llmops.records.base import SCHEMA_VERSION, Record
from llmops.records.figures import Interval


class Flip(Record):
    """A case whose score differs between the two sides."""

    case_id: str
    baseline: float | None
    candidate: float | None


class Effect(Record):
    """Candidate less baseline on one metric, over the cases scored on both sides.

    estimate: mean difference, or the ratio of geometric means for open-ended metrics (`scale`).
    n_missing: cases scored on one side only. improved, regressed: flipped cases, largest change first.
    lower_is_better: of scores such as TER; of what is measured unasked less is better always.
    """

    metric: str
    scale: Literal["difference", "ratio"]
    baseline: float | None
    candidate: float | None
    estimate: float | None
    interval: Interval | None = None
    n: int = 0
    n_clusters: int | None = None
    n_missing: int = 0
    lower_is_better: bool = False
    improved: tuple[Flip, ...] = ()
    regressed: tuple[Flip, ...] = ()
    note: str | None = None


class Side(Record):
    """One side of a comparison: a variant of a run."""

    run_id: str
    variant: str
    definition: str
    identity: str


class Comparison(Record):
    """Two variants, paired by case. n_unpaired: cases present on one side, or whose content differs."""

    schema_version: int = SCHEMA_VERSION
    created_at: datetime
    baseline: Side
    candidate: Side
    dataset: str
    n_cases: int
    n_unpaired: int = 0
    effects: tuple[Effect, ...]
    slices: Mapping[str, tuple[Effect, ...]] = Field(default_factory=dict)
