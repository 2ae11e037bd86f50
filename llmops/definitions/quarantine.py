"""Cases that are known to be flaky and count in no gate for a while: `experiments/quarantine.yaml`.

Each has an owner, a reason and an end, after which it counts again; more than a few are refused, since whoever may
take out cases could buy a pass.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, Strict

from llmops.definitions.base import Definition, Name
from llmops.definitions.build import build
from llmops.definitions.yaml_reader import read_yaml
from llmops.errors import DefinitionError, Finding

if TYPE_CHECKING:
    from llmops.definitions.workspace import Workspace

PATH = "experiments/quarantine.yaml"
MAX_SHARE = 0.05
"""Of the cases judged: beyond, the verdict would be on another dataset."""


class QuarantinedCase(Definition):
    """One case of one experiment. until: the last day on which it does not count."""

    experiment: Name
    case: str
    owner: str = Field(min_length=1)
    reason: str = Field(min_length=1)
    until: Annotated[dt.date, Strict()]


class Quarantine(Definition):
    """What the file says."""

    cases: tuple[QuarantinedCase, ...] = ()

    def of(self, experiment: str, today: dt.date) -> tuple[set[str], set[str]]:
        """Return the ids of an experiment's cases that do not count today, and of those whose time is over."""
        own = [each for each in self.cases if each.experiment == experiment]
        waiting = {each.case for each in own if today <= each.until}
        return waiting, {each.case for each in own} - waiting


def read_quarantine(workspace: Workspace) -> Quarantine:
    """Return what the file says, nothing when there is none (DefinitionError when it is wrong)."""
    data = workspace.tree.read(PATH)
    return Quarantine() if data is None else build(Quarantine, read_yaml(data, PATH))


def refuse_many(n: int, n_cases: int) -> None:
    """Refuse more cases than a verdict can do without (DefinitionError)."""
    if n > MAX_SHARE * n_cases:
        message = f"{n} of {n_cases} cases are in quarantine, and at most {MAX_SHARE:.0%} may be"
        raise DefinitionError(
            Finding(PATH, None, None, message, "mend them, or take them out of the dataset")
        )
