"""What MLflow has of an experiment, a prompt or a chain, whoever delivered it: a colleague, a CI, this project.

Variants are found by the tags of a delivery, then the runs they belong to; nothing is fetched for each of them alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from llmops.stores import tracking
from llmops.stores.entries import Told, told_entry
from llmops.stores.mlflow.connection import Connection, pages

if TYPE_CHECKING:
    from llmops.definitions.reference import Kind
    from llmops.stores.entries import Entry

AT_ONCE = 50  # so that a server under load still shows a sign of life every few seconds

_RUN_ID = re.compile(r"[0-9a-f]{32}")


def read_entries(
    connection: Connection, kind: Kind, name: str, progress: Callable[[str], None]
) -> Iterator[Entry]:
    """Yield what MLflow has of a name; the rest is as in `MlflowStore.entries`."""
    progress("experiments")
    experiments = _experiments(connection.client, name if kind == "experiment" else None)
    variants = list(_runs(connection.client, experiments, _filter(kind, name), progress))
    runs = dict(_parents(connection.client, experiments, variants, progress))
    for variant in variants:
        run = runs.get(variant.data.tags.get("mlflow.parentRunId", ""))
        if run is not None:
            experiment_id = str(variant.info.experiment_id)
            page = tracking.page_url(connection.uri, tracking.run_page(experiment_id, variant.info.run_id))
            found = told_entry(experiments[experiment_id], _told(variant), _told(run), link=page)
            if found is not None and found.is_of(kind, name):
                yield found


def _experiments(client: Any, name: str | None) -> dict[str, str]:
    """Return the names of the experiments to look in by their ids: the one of a name, else all."""
    if name is not None:
        found = client.get_experiment_by_name(name)
        return {str(found.experiment_id): name} if found and found.lifecycle_stage == "active" else {}
    names: dict[str, str] = {}
    token = None
    while True:
        page = client.search_experiments(page_token=token)
        names |= {str(one.experiment_id): one.name for one in page}
        token = page.token
        if not token:
            return names


def _filter(kind: Kind, name: str) -> str:
    """Return MLflow's words for the variants in question; a prompt counts wherever it is used.

    `_` stands for any character here, so more may be found than is meant.
    """
    if kind == "experiment":
        return "tags.`llmops.variant` LIKE '%'"
    if kind == "prompt":
        return f"params.prompts LIKE '%{name}@%'"
    return f"tags.`llmops.definition` = 'chains/{name}'"


def _runs(
    client: Any, experiments: Iterable[str], wanted: str, progress: Callable[[str], None]
) -> Iterator[Any]:
    token = None
    ids = list(experiments)
    while ids:
        page = client.search_runs(ids, wanted, max_results=AT_ONCE, page_token=token)
        yield from page
        progress("runs")
        token = page.token
        if not token:
            return


def _parents(
    client: Any, experiments: Iterable[str], variants: Iterable[Any], progress: Callable[[str], None]
) -> Iterator[tuple[str, Any]]:
    ids = {variant.data.tags.get("mlflow.parentRunId", "") for variant in variants}
    known = sorted(key for key in ids if _RUN_ID.fullmatch(key))
    for some in pages(known, AT_ONCE):
        quoted = ", ".join(f"'{key}'" for key in some)
        found = _runs(client, experiments, f"attributes.run_id IN ({quoted})", progress)
        yield from ((run.info.run_id, run) for run in found)


def _told(run: Any) -> Told:
    inputs = run.inputs.dataset_inputs if run.inputs is not None else []
    profile = inputs[0].dataset.profile if inputs else None
    return Told(run.data.tags, run.data.params, run.data.metrics, run.info.start_time, profile or "")
