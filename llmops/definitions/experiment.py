"""An experiment: variants, evaluators, gates and a budget over one split of one dataset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    GetJsonSchemaHandler,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema

from llmops.definitions.base import Bool, Definition, Float, Int, Name, canonical, meaning_of
from llmops.definitions.prompt import Parameters
from llmops.definitions.recorded import check_path
from llmops.definitions.reference import ReferenceText, parse_reference
from llmops.errors import nearest

BASELINE_PREFIXES = ("git:", "alias:")
MEASURED = (
    "error_rate",
    "invalid_rate",
    "unfiltered_rate",
    "latency_s",
    "ttft_s",
    "input_tokens",
    "output_tokens",
    "cost_usd",
)
MAX_TRIALS = 1000
_COMMON = ("name", "output", "expected", "step", "pass_at")
"""What may stand among the options of any evaluator."""


class VariantDefinition(Definition):
    """One thing to try: a prompt or a chain, with what it changes; or the outputs that another system gave.

    recorded: a file of outputs, relative to the project: scored, never called.
    """

    prompt: ReferenceText | None = None
    chain: ReferenceText | None = None
    recorded: Annotated[str, AfterValidator(check_path)] | None = None
    model: Name | None = None
    parameters: Parameters = Field(default_factory=Parameters)
    set: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_target(self) -> VariantDefinition:
        if [self.prompt, self.chain, self.recorded].count(None) != 2:
            raise ValueError("a variant has either a prompt, a chain, or recorded outputs")
        if self.recorded is not None and (self.model or self.parameters.given() or self.set):
            raise ValueError("recorded outputs are there already: model, parameters and set change nothing")
        return self

    @property
    def kind(self) -> Literal["prompt", "chain"]:
        """What it tries, unless it is recorded."""
        return "prompt" if self.prompt is not None else "chain"

    @property
    def target(self) -> str:
        """What it tries: the reference to it, or the file of recorded outputs."""
        return str(self.prompt or self.chain or self.recorded)


class EvaluatorUse(Definition):
    """One evaluator as an experiment uses it: `KIND`, `KIND: {options}`, or `python: MODULE:function`.

    output, expected: expressions that pick what is judged; by default the whole output and `expected`.
    step: of a chain, whose output is judged by default; the score is that step's own.
    pass_at: the score from which a case passes, where that is not the best there is: a report says which step failed.
    """

    kind: str
    name: Name
    output: str | None = None
    expected: str | None = None
    step: Name | None = None
    pass_at: Float | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: object) -> object:
        if isinstance(value, str):
            return {"kind": value, "name": value}
        if not isinstance(value, Mapping):
            raise ValueError("an evaluator is a name, or a name with its options")
        if "kind" in value:
            return value
        if len(value) != 1:
            raise ValueError("an evaluator is one name with its options; start each with its own '-'")
        ((kind, options),) = value.items()
        if kind == "python" and isinstance(options, str):
            options = {"function": options}
        if not isinstance(options, Mapping):
            raise ValueError(f"the options of {kind!r} are keys and values")
        common = {key: options[key] for key in _COMMON if key in options}
        rest = {key: options[key] for key in options if key not in common and not str(key).startswith("x-")}
        default = str(options.get("function", kind)).rpartition(":")[2] if kind == "python" else kind
        return {"kind": kind, "name": default, **common, "options": rest}

    @property
    def picked(self) -> str | None:
        """The expression of what is judged, None for the whole output."""
        return f"{{{{ steps.{self.step}.output }}}}" if self.step and self.output is None else self.output

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Return the schema of the forms that people write, not of the fields."""
        text = {"type": "string"}
        known = {**dict.fromkeys(_COMMON, text), "pass_at": {"type": "number"}}
        options = {"type": "object", "properties": known}
        one = {"type": "object", "minProperties": 1, "maxProperties": 1}
        forms = [text, {**one, "additionalProperties": {"anyOf": [text, options]}}]
        return {"description": "KIND, KIND: {options}, or python: MODULE:function", "anyOf": forms}


class Gate(Definition):
    """One limit, or one margin against the baseline, that a metric must keep."""

    metric: str
    at_least: Float | None = None
    at_most: Float | None = None
    not_worse_than: Literal["baseline"] | None = None
    margin: Float | None = Field(default=None, gt=0)
    relative: Bool = False
    slice: str | None = None
    variant: str | None = None
    method: Literal["exact", "score", "betting", "bootstrap"] | None = None

    @model_validator(mode="after")
    def _one_demand(self) -> Gate:
        demands = [self.at_least, self.at_most, self.not_worse_than]
        if sum(demand is not None for demand in demands) != 1:
            raise ValueError("a gate asks exactly one of at_least, at_most, not_worse_than")
        if self.not_worse_than is None and (self.margin is not None or self.relative):
            raise ValueError("margin and relative belong to not_worse_than")
        return self


class Budget(Definition):
    """What one run may spend. None is no limit."""

    usd: Float | None = Field(default=None, ge=0)
    calls: Int | None = Field(default=None, ge=0)
    wall_s: Float | None = Field(default=None, gt=0)


class Experiment(Definition):
    """What `experiments/NAME.experiment.yaml` says."""

    description: str | None = None
    dataset: ReferenceText
    variants: dict[Name, VariantDefinition] = Field(min_length=1)
    matrix: dict[str, list[str | Int | Float | Bool | None]] = Field(default_factory=dict)
    repeats: Int = Field(default=1, ge=1, le=1000)
    flaky_repeats: Int = Field(default=1, ge=1, le=100)
    seed: Int = 0
    evaluators: tuple[EvaluatorUse, ...] = ()
    baseline: str | None = None
    missing_baseline: Literal["fail", "create", "skip"] = "fail"
    gates: tuple[Gate, ...] = ()
    on_inconclusive: Literal["warn", "block"] | None = None
    budget: Budget = Field(default_factory=Budget)

    @field_validator("matrix")
    @classmethod
    def _axes(cls, matrix: dict[str, list[Any]], info: ValidationInfo) -> dict[str, list[Any]]:
        for key, values in matrix.items():
            if not values:
                raise ValueError(f"axis {key!r} has no values")
            if len({_shown(item) for item in values}) != len(values):
                raise ValueError(f"axis {key!r} names a value twice")
        n_trials = prod(map(len, matrix.values())) * len(info.data.get("variants", ()))
        if n_trials > MAX_TRIALS:
            raise ValueError(
                f"that makes {n_trials:,} variants; at most {MAX_TRIALS:,} fit in one experiment"
            )
        return matrix

    @field_validator("evaluators")
    @classmethod
    def _names_differ(cls, evaluators: tuple[EvaluatorUse, ...]) -> tuple[EvaluatorUse, ...]:
        seen: set[str] = set()
        for use in evaluators:
            if use.name in seen:
                raise ValueError(f"two evaluators are called {use.name!r}; give one of them a `name`")
            if use.name in MEASURED:
                raise ValueError(f"{use.name!r} is measured unasked; give the evaluator another `name`")
            seen.add(use.name)
        return evaluators

    @field_validator("baseline")
    @classmethod
    def _one_side(cls, baseline: str | None, info: ValidationInfo) -> str | None:
        variants = info.data.get("variants", {})
        if baseline is None or baseline in variants:
            return baseline
        if baseline.startswith(BASELINE_PREFIXES):
            parse_reference(f"any@{baseline.removeprefix('alias:')}")
        elif variants:
            hint = nearest(baseline, variants) or f"variants: {', '.join(variants)}"
            raise ValueError(f"{baseline!r} is no variant, nor git:REV or alias:NAME; {hint}")
        return baseline

    def meaning(self) -> dict[str, Any]:
        """Return the fields that can change a run or its verdict; description and budget aside."""
        return meaning_of(self, without={"description", "budget"})


@dataclass(frozen=True)
class Trial:
    """A variant of the experiment after the matrix: what is tried, under which name, in which group."""

    name: str
    group: str
    definition: VariantDefinition
    is_baseline: bool = False
    at: str | None = None
    """For a twin of a `git:` or `alias:` baseline: where it comes from."""


def expand(experiment: Experiment) -> Iterator[Trial]:
    """Yield the variants of an experiment, each multiplied by the axes of the matrix it does not fix itself."""
    for name, definition in experiment.variants.items():
        axes = [axis for axis in experiment.matrix if not fixes(definition, axis)]
        for values in product(*(experiment.matrix[axis] for axis in axes)):
            changed = definition
            shown = []
            for axis, value in zip(axes, values, strict=True):
                changed = _with_axis(changed, axis, value)
                if len(experiment.matrix[axis]) > 1:
                    shown.append(_shown(value))
            group = "/".join(shown)
            full = f"{name}/{group}" if group else name
            yield Trial(full, group, changed, is_baseline=name == experiment.baseline)


def fixes(definition: VariantDefinition, axis: str) -> bool:
    """Return whether a variant says itself what an axis of the matrix would set, or cannot be set at all."""
    head, _, key = axis.partition(".")
    if definition.recorded is not None or (axis == "model" and definition.model is not None):
        return True
    return axis in definition.set or (head == "parameters" and key in definition.parameters.given())


def _shown(value: object) -> str:
    """The value of an axis as it shows in a variant's name: text as it is, anything else as YAML has it."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 1.0 is 1
    return value if isinstance(value, str) else canonical(value)


def _with_axis(definition: VariantDefinition, axis: str, value: Any) -> VariantDefinition:
    if axis == "model":
        return definition.model_copy(update={"model": str(value)})
    return definition.model_copy(update={"set": {**definition.set, axis: value}})
