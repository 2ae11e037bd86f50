"""What is wrong with a dataset: its cases, paths that reach nothing, and slices too thin where they count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from llmops.definitions.dataset import Dataset
from llmops.definitions.documents import Document
from llmops.definitions.experiment import Experiment
from llmops.definitions.reference import parse_reference
from llmops.definitions.workspace import Workspace
from llmops.errors import Finding, LlmopsError, nearest


def check_dataset(workspace: Workspace, name: str) -> list[Finding]:
    """Return what is wrong with a dataset."""
    dataset = workspace.dataset(name)
    document = workspace.document("dataset", name)
    found = list(_path_findings(dataset, document))
    for split in _evaluated_splits(workspace, name):
        if split is None or split in dataset.split_names:  # the experiment that asks for another says so
            found += _slice_findings(dataset, split, document)
    return found


def _path_findings(dataset: Dataset, document: Document) -> Iterator[Finding]:
    """Yield the finding of each path that no case has: a slip there would silently mean no clusters at all."""
    definition = dataset.definition
    by = definition.splits.get("by")
    paths = {
        "split": (("splits", "by"), by if isinstance(by, str) else None),
        "slice": (("slices", "by"), definition.slices.by if definition.slices else None),
        "cluster": (("cluster",), definition.cluster),
    }
    asked = [name for name, (_, path) in paths.items() if path is not None]
    lacking = _lacking(dataset, asked)
    for name in asked:
        place, path = paths[name]
        n_lacking, first = lacking[name]
        if path is not None and n_lacking == len(dataset.cases):
            yield document.finding(place, f"no case has {path}", nearest(path, _fields(dataset)))
        elif name == "split" and n_lacking:
            message = f"{n_lacking} cases are in no split, {first!r} the first: they have no {path}"
            yield document.finding(place, message)


def _lacking(dataset: Dataset, names: list[str]) -> dict[str, tuple[int, str]]:
    """Return for each of split, slice and cluster how many cases have none, and the id of the first."""
    found = dict.fromkeys(names, (0, ""))
    for case in dataset.cases if names else ():
        for name in names:
            if getattr(case, name) is None:
                n, first = found[name]
                found[name] = (n + 1, first if n else case.id)
    return found


def _fields(dataset: Dataset) -> list[str]:
    case = dataset.cases[0]
    return [*(f"metadata.{key}" for key in case.metadata), *(f"inputs.{key}" for key in case.inputs)]


def _slice_findings(dataset: Dataset, split: str | None, document: Document) -> Iterator[Finding]:
    slices = dataset.definition.slices
    if slices is None:
        return
    counts = Counter(case.slice for case in dataset.of(split))
    where = f"{dataset.name}/{split}" if split else dataset.name
    for name, least in slices.at_least.items():
        if counts[name] < least:
            known = [other for other in counts if other is not None]
            message = f"slice {name} of {where} has {counts[name]} cases, fewer than {least}"
            place = ("slices", "at_least", name)
            yield document.finding(place, message, None if counts[name] else nearest(name, known))


def _evaluated_splits(workspace: Workspace, name: str) -> list[str | None]:
    """Return the splits of today's dataset that some experiment evaluates."""
    splits: dict[str | None, None] = {}
    for other in workspace.names("experiment"):
        try:
            reference = parse_reference(workspace.unchecked(Experiment, "experiment", other).dataset)
        except LlmopsError:
            continue  # told where that experiment is checked
        if reference.name == name and not (reference.alias or reference.identity or reference.revision):
            splits[reference.split] = None
    return list(splits)
