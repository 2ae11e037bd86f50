"""The file of flaky cases: entries about nothing that there is, and those whose time is over."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

from llmops.definitions.documents import Document
from llmops.definitions.quarantine import PATH, read_quarantine
from llmops.definitions.workspace import Workspace
from llmops.definitions.yaml_reader import read_yaml
from llmops.errors import Finding, LlmopsError, nearest


def check_quarantine(workspace: Workspace) -> list[Finding]:
    """Return the entries that name no experiment or no case of it; nothing where there is no file.

    Raises DefinitionError where it is not written as it should be: each case with an owner, a reason and an end.
    """
    quarantine, document = read_quarantine(workspace), _document(workspace)
    known = workspace.names("experiment")
    found: list[Finding] = []
    for place, each in enumerate(quarantine.cases):
        if each.experiment not in known:
            message = f"no experiment is called {each.experiment!r}"
            found.append(
                document.finding(("cases", place, "experiment"), message, nearest(each.experiment, known))
            )
            continue
        ids = _ids(workspace, each.experiment)
        if ids is not None and each.case not in ids:
            message = f"{each.experiment} has no case {each.case!r}"
            found.append(document.finding(("cases", place, "case"), message, nearest(each.case, sorted(ids))))
    return found


def quarantine_notes(workspace: Workspace, today: dt.date) -> Iterator[str]:
    """Yield the entries whose time is over: no fault of the file, which nobody changed, and yet to be cleared up.

    Raises DefinitionError as `check_quarantine` does.
    """
    document = _document(workspace)
    for place, each in enumerate(read_quarantine(workspace).cases):
        if today > each.until:
            line, _ = document.position(("cases", place)) or (None, None)
            yield (
                f"{PATH}:{line}: the quarantine of {each.case} in {each.experiment} ended on {each.until}, and it "
                f"counts again; {each.owner} may remove the line"
            )


def _document(workspace: Workspace) -> Document:
    return read_yaml(workspace.tree.read(PATH) or b"{}", PATH)


def _ids(workspace: Workspace, experiment: str) -> set[str] | None:
    """Return the ids of an experiment's cases; None where it, or its dataset, is broken, which is told elsewhere."""
    try:
        dataset, split = workspace.cases(workspace.experiment(experiment).dataset)
        return {case.id for case in dataset.of(split)}
    except LlmopsError:
        return None
