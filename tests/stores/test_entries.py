"""A line of a history is the same, whether it is read from the record of a run or from what MLflow was told of it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmops.definitions.base import identity_of
from llmops.records import (
    DatasetVersion,
    EvaluatorVersion,
    Figure,
    Interval,
    ModelVersion,
    Run,
    RunStatus,
    Source,
    Variant,
)
from llmops.stores import tracking
from llmops.stores.entries import JOURNAL, MLFLOW, Entry, Told, entries_of, told_entry
from llmops.stores.shipment import RUN_FILE, Shipment

NAMES = st.from_regex(r"[A-Za-z0-9_.-]{1,12}", fullmatch=True).filter(lambda name: name not in {".", ".."})
IDENTITIES = st.integers().map(identity_of)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
BEGAN = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


Kind = Literal["mean", "sum", "statistic"]
KINDS: tuple[Kind, ...] = ("mean", "sum", "statistic")


@st.composite
def figures(draw: st.DrawFn, metric: str) -> Figure:
    value = draw(st.none() | NUMBERS)
    interval = None if value is None else draw(st.none() | st.just(Interval(low=-1.5, high=2.5, level=0.9)))
    kind: Kind = "sum" if metric == "cost_usd" else draw(st.sampled_from(KINDS))
    return Figure(value=value, kind=kind, n=draw(st.integers(0, 10**9)), interval=interval)


@st.composite
def variants(draw: st.DrawFn, name: str) -> Variant:
    prompts = draw(st.dictionaries(NAMES, IDENTITIES, max_size=3))
    kind = draw(st.sampled_from(["prompts", "chains"]))
    return Variant(
        name=name,
        definition=f"{kind}/{draw(NAMES)}",
        reference="x",
        definition_identity=draw(IDENTITIES),
        identity=draw(IDENTITIES),
        models=tuple(
            ModelVersion(name=model, provider="embedded", model="m", identity=draw(IDENTITIES))
            for model in draw(st.lists(NAMES, unique=True, max_size=3))
        ),
        prompts=prompts,
    )


@st.composite
def runs(draw: st.DrawFn) -> Run:
    names = draw(st.lists(NAMES, unique=True, min_size=1, max_size=3))
    judges = draw(st.lists(NAMES, unique=True, max_size=3))
    parts = [f"{judge}.{part}" for judge in judges for part in ("mean", "n", "ci_low", "value", "f1.x")]
    metrics = [*judges, *parts, "cost_usd", "latency_s", "latency_s.p95"]
    began = BEGAN + timedelta(milliseconds=draw(st.integers(0, 10**11)))
    return Run(
        id=f"sort-{draw(IDENTITIES)[:8]}",
        experiment="sort",
        identity=draw(IDENTITIES),
        status=draw(st.sampled_from(RunStatus)),
        created_at=began,
        dataset=DatasetVersion(
            name=draw(NAMES),
            split=draw(st.none() | NAMES),
            version=draw(IDENTITIES),
            n_cases=draw(st.integers(0, 10**6)),
            path="datasets/x.jsonl",
        ),
        variants=tuple(draw(variants(name)) for name in names),
        evaluators=tuple(
            EvaluatorVersion(name=judge, kind="exact_match", identity=draw(IDENTITIES)) for judge in judges
        ),
        repeats=1,
        seed=0,
        source=Source(
            commit=draw(st.none() | IDENTITIES.map(lambda text: text[:40])), dirty=draw(st.booleans())
        ),
        n_cells=1,
        summary={
            name: {metric: draw(figures(metric)) for metric in draw(st.sets(st.sampled_from(metrics)))}
            for name in names
        },
    )


def shipment_of(run: Run) -> Shipment:
    return Shipment(
        run=run,
        revision=3,
        report="",
        prompts={},
        baselines={},
        models={},
        files=[],
        rows={},
        traces=lambda _: iter(()),
    )


def told_entries(run: Run) -> Iterator[Entry | None]:
    """Yield the entries that come of what a delivery writes, without an MLflow between."""
    shipment = shipment_of(run)
    began_ms = int(run.created_at.timestamp() * 1000)
    params = tracking.parameter_values(shipment.run_parameters(), whole=RUN_FILE)
    parent = Told({}, params, shipment.run_metrics(), began_ms)
    for place, variant in enumerate(run.variants):
        tags = shipment.run_labels() | shipment.variant_labels(variant, {})
        tags |= {"llmops.run_id": run.id, "llmops.variant": variant.name}
        tags |= {"mlflow.source.git.commit": run.source.commit} if run.source.commit else {}
        child = Told(
            tags,
            tracking.parameter_values(shipment.variant_parameters(variant), whole=RUN_FILE),
            shipment.variant_metrics(variant),
            began_ms + place + 1,
            json.dumps({"num_rows": run.dataset.n_cases}),
        )
        yield told_entry(run.experiment, child, parent, link="")


@settings(max_examples=50)
@given(runs())
def test_what_mlflow_was_told_gives_the_entry_of_the_record(run: Run) -> None:
    for ours, told in zip(entries_of(run), told_entries(run), strict=True):
        assert told is not None
        assert (ours.sources, told.sources) == (frozenset({JOURNAL}), frozenset({MLFLOW}))
        assert told.revision == 3
        assert dataclasses.replace(told, sources=ours.sources, revision=0, link=None) == ours


def whole_tags() -> dict[str, str]:
    return {
        "llmops.run_id": "sort-1",
        "llmops.variant": "plain",
        "llmops.status": "complete",
        "llmops.definition": "prompts/sort",
    }


@pytest.mark.parametrize("absent", whole_tags())
def test_a_delivery_that_broke_off_is_no_entry_and_nothing_is_guessed(absent: str) -> None:
    tags = {key: value for key, value in whole_tags().items() if key != absent}
    parent = Told({}, {}, {}, 0)
    assert told_entry("sort", Told(tags, {}, {}, 1), parent, link="") is None
    found = told_entry("sort", Told(whole_tags(), {}, {}, 1), parent, link="")
    assert found is not None
    assert (found.n_cases, found.cost_usd, found.commit, found.user) == (None, None, None, None)
    assert (found.readings, found.models, found.prompts, found.numbers) == ((), {}, {}, {})


def test_a_figure_that_was_known_once_is_unknown() -> None:
    metrics = {"exact_match/mean": math.nan, "exact_match/n": 0.0, "cost_usd/total": math.nan}
    parent = Told({}, {"evaluators": f"exact_match@{'e' * 12}"}, {}, 0)
    found = told_entry("sort", Told(whole_tags(), {}, metrics, 1), parent, link="")
    assert found is not None
    assert (found.readings[0].value, found.readings[0].n, found.cost_usd) == (None, 0, None)


@pytest.mark.parametrize(
    ("tags", "profile"),
    [
        ({"mlflow.linkedPrompts": '[1, {}, {"name": 3}]'}, "[]"),
        ({"mlflow.linkedPrompts": "{"}, '{"num_rows": "many"}'),
        ({"mlflow.linkedPrompts": "[" * 100_000}, "[" * 100_000),
        ({"llmops.revision": "9" * 5_000}, ""),
    ],
)
def test_what_somebody_else_wrote_into_a_tag_is_left_out(tags: dict[str, str], profile: str) -> None:
    child = Told(whole_tags() | tags, {}, {}, 1, profile)
    found = told_entry("sort", child, Told({}, {}, {}, 0), link="")
    assert found is not None
    assert (found.numbers, found.n_cases, found.revision) == ({}, None, 0)


@pytest.mark.parametrize(
    ("kind", "name", "is_of"),
    [
        ("experiment", "sort", True),
        ("experiment", "rank", False),
        ("chain", "rank", True),
        ("prompt", "rank", False),
        ("prompt", "inner", True),
    ],
)
def test_an_entry_belongs_to_its_experiment_its_chain_and_each_prompt_in_it(
    kind: Any, name: str, is_of: bool
) -> None:
    tags = whole_tags() | {"llmops.definition": "chains/rank"}
    params = {"prompts": f"inner@{'a' * 12}, other@{'b' * 12}"}
    found = told_entry("sort", Told(tags, params, {}, 1), Told({}, {}, {}, 0), link="")
    assert found is not None
    assert found.is_of(kind, name) is is_of
