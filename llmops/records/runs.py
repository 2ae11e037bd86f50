"""One carrying out of an experiment: what was tried, on what and judged by what, each by its identity; and the sum."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from llmops.records.base import SCHEMA_VERSION, Record
from llmops.records.cases import Verb
from llmops.records.comparisons import Comparison
from llmops.records.figures import Blame, Figure


class ModelVersion(Record):
    """The model a variant asks: the name in llmops.yaml, the provider's own name, and its identity."""

    name: str
    provider: str
    model: str
    identity: str


class StepVersion(Record):
    """One step of a chain, resolved. reads: the steps whose outputs it reads.

    parts: identity of each thing that determines its output beside these, by what people call it (`words`, `model`).
    """

    id: str
    verb: Verb
    reads: tuple[str, ...] = ()
    parts: Mapping[str, str]


class Variant(Record):
    """One thing tried in a run, resolved: the same identity means the same outputs.

    definition: `prompts/NAME`, `chains/NAME`, or the file of a recorded one. reference: as written, with its `@` part.
    definition_identity: of the prompt or chain with all it refers to. identity: with model, parameters, `set`.
    group: the cell of the matrix it stands in; comparisons stay within a group.
    prompts: identity of each prompt it uses, by name. response_format: of a prompt that declares one.
    steps: of a chain, each after those it needs, else in the order of the file.
    """

    name: str
    definition: str
    reference: str
    definition_identity: str
    identity: str
    models: tuple[ModelVersion, ...]
    parameters: Mapping[str, Any] = Field(default_factory=dict)
    set: Mapping[str, Any] = Field(default_factory=dict)
    group: str = ""
    prompts: Mapping[str, str] = Field(default_factory=dict)
    response_format: Mapping[str, Any] | None = None
    is_baseline: bool = False
    steps: tuple[StepVersion, ...] = ()

    @property
    def kind(self) -> Literal["prompt", "chain", "recorded"]:
        """What was tried; recorded outputs never stand in the folders of the other two."""
        match self.definition.partition("/")[0]:
            case "prompts":
                return "prompt"
            case "chains":
                return "chain"
        return "recorded"


class DatasetVersion(Record):
    """The cases a run was made on. version: SHA-256 of their content.

    n_skipped: rows of the whole file that were wrong and are left out.
    schema_identity: of the types its inputs and answers are declared with; None of runs that did not note it.
    """

    name: str
    split: str | None
    version: str
    schema_identity: str | None = None
    n_cases: int
    n_skipped: int = 0
    path: str


class EvaluatorVersion(Record):
    """An evaluator as it judged. low, high: the range of its scores, None where it is open.

    models: those it asks. prompts: identity of each prompt it asks them with, by name; one that has any is a judge.
    """

    name: str
    kind: str
    identity: str
    low: float | None = None
    high: float | None = None
    lower_is_better: bool = False
    models: tuple[ModelVersion, ...] = ()
    prompts: Mapping[str, str] = Field(default_factory=dict)


class RunStatus(StrEnum):
    """How far a run has come."""

    RUNNING = "running"
    PARTIAL = "partial"  # some cells have no output or score yet; running again goes on
    COMPLETE = "complete"
    STOPPED = "stopped"  # by budget, access or quota


class Source(Record):
    """Where the definitions came from in git; None outside a repository."""

    commit: str | None = None
    branch: str | None = None
    dirty: bool = False


class Run(Record):
    """One carrying out of an experiment. `identity` is the hash of all that determines it.

    fresh: 0 for the first carrying out of this identity, counted up by `--fresh`.
    summary: by variant, by metric name. slices: by variant, slice, metric name.
    comparisons: of each candidate with its baseline.
    n_cells counts variants x cases x repeats; n_done those with an output; n_errors outputs that are errors;
    n_unscored those with an output that some evaluator has still to judge.
    n_calls, cost_usd: requests sent and money spent by this run itself, those of judges included, reused replies
    not counted; cost_usd is None when a price is unknown. The metric `cost_usd` is what the outputs cost.
    replayed: identity of the recordings that answered in place of models, None where models did. Such a run says
    what came with the files: it is no evidence of what the models do now.
    n_retried, n_repeated, n_unknown, hidden_usd: as in `Spent`. After a kill n_calls counts what is known to have been
    sent; what may have been sent besides is in n_unknown, and the truth lies between n_calls and their sum.
    answered_by: by variant, the models that the services said had answered, which may not be those asked for.
    blame: by variant, of those whose steps have scores of their own.
    """

    schema_version: int = SCHEMA_VERSION
    id: str
    experiment: str
    identity: str
    fresh: int = 0
    replayed: str | None = None
    status: RunStatus
    created_at: datetime
    finished_at: datetime | None = None
    dataset: DatasetVersion
    variants: tuple[Variant, ...]
    evaluators: tuple[EvaluatorVersion, ...]
    repeats: int
    seed: int
    source: Source = Source()
    experiment_definition: Mapping[str, Any] = Field(default_factory=dict)
    n_cells: int
    n_done: int = 0
    n_errors: int = 0
    n_unscored: int = 0
    n_calls: int = 0
    n_retried: int = 0
    n_repeated: int = 0
    n_unknown: int = 0
    n_reused: int = 0
    cost_usd: float | None = 0.0
    hidden_usd: float | None = 0.0
    wall_s: float = 0.0
    summary: Mapping[str, Mapping[str, Figure]] = Field(default_factory=dict)
    slices: Mapping[str, Mapping[str, Mapping[str, Figure]]] = Field(default_factory=dict)
    answered_by: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    blame: Mapping[str, Blame] = Field(default_factory=dict)
    comparisons: tuple[Comparison, ...] = ()
