"""An evaluator bound to its use in an experiment: its expressions worked out, its identity known, its faults caught.

Whatever keeps one evaluator from scoring one output becomes an absent score with its reason.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from pydantic import ValidationError

from llmops.call import Stopping
from llmops.definitions.base import identity_of, without_none
from llmops.definitions.dataset import Case
from llmops.definitions.experiment import EvaluatorUse
from llmops.definitions.templates import TemplateError, evaluate, parse_template
from llmops.definitions.workspace import Workspace
from llmops.errors import (
    BudgetError,
    DefinitionError,
    EvaluatorError,
    Finding,
    LlmopsError,
    ModelError,
    RefusalError,
    StoreError,
)
from llmops.evaluators import asks_models, evaluator_class, open_asking_evaluator, open_evaluator
from llmops.evaluators.base import Asking, AskingEvaluator, Evaluator, Judgement, Subject, Summary
from llmops.records import NOT_YET, EvaluatorVersion, ModelVersion, Output, Score, Status

JUDGED = frozenset({Status.OK, Status.TRUNCATED})


@dataclass(frozen=True)
class BoundEvaluator:
    """An evaluator as an experiment uses it. identity: hash of all that determines its scores."""

    use: EvaluatorUse
    evaluator: Evaluator | AskingEvaluator
    identity: str

    @property
    def name(self) -> str:
        """What its metric is called."""
        return self.use.name

    @property
    def pass_at(self) -> float | None:
        """The score at which a case passes, the best there is unless the experiment says; None where none is best."""
        best = self.evaluator.low if lower_is_better(self.evaluator) else self.evaluator.high
        return best if self.use.pass_at is None else self.use.pass_at

    @cached_property
    def asking(self) -> AskingEvaluator | None:
        """The evaluator if it asks models. Found out once: the look takes longer than most scores."""
        return self.evaluator if isinstance(self.evaluator, AskingEvaluator) else None

    @property
    def models(self) -> Mapping[str, ModelVersion]:
        """The models it asks, by name."""
        return self.asking.models if self.asking else {}

    @property
    def prompts(self) -> Mapping[str, str]:
        """Identity of each prompt it asks them with, by name."""
        return self.asking.prompts if self.asking else {}

    def version(self) -> EvaluatorVersion:
        """Return the record of it that a run keeps."""
        return EvaluatorVersion(
            name=self.name,
            kind=self.use.kind,
            identity=self.identity,
            low=self.evaluator.low,
            high=self.evaluator.high,
            lower_is_better=lower_is_better(self.evaluator),
            models=tuple(self.models.values()),
            prompts=self.prompts,
        )

    async def score(self, case: Case, output: Output, asking: Asking | None = None) -> Score | None:
        """Return the score of one output; absent with its error when it could not be worked out.

        None when there is no output yet, because the call failed on the way. A chain that crashed by its own
        fault gets the lowest score there is, and so does a reply outside its declared format that has not
        what `output` asks for.

        asking: the way to the models; an evaluator that asks some needs it.

        Raises ModelError, BudgetError, Stopping and StoreError when a model has not answered: there is no score
        yet, and a later run asks again.
        """
        if output.status in NOT_YET:
            return None
        try:
            return await self._scored(case, output, asking)
        except RefusalError as error:
            return self._absent(f"the model did not take it: {error}")
        except (ModelError, BudgetError, Stopping, StoreError):
            raise
        except EvaluatorError as error:
            return self._absent(str(error))
        except TemplateError as error:
            return self._absent(f"expression: {error}")
        except Exception as error:  # noqa: BLE001 - one evaluator's fault must not end the run; it is recorded
            return self._absent(f"{type(error).__name__}: {error}")

    async def _scored(self, case: Case, output: Output, asking: Asking | None) -> Score:
        status = self._status(output)
        if status not in JUDGED:
            why = f"no output: {output.error.message if output.error else output.status}"
            return await self._worst(case, why) if status is Status.CRASHED else self._absent(why)
        try:
            subject = self._subject(case, output, status)
        except TemplateError as error:
            if output.valid is not False:
                raise
            return await self._worst(case, f"outside its declared format: {error}")
        return self._score(await self.judge(subject, asking))

    def _status(self, output: Output) -> Status:
        """How what is judged ended: the output, or the step looked at where the chain failed elsewhere."""
        if output.status in JUDGED or self.use.step is None:
            return output.status
        own = (span.status for span in output.spans if span.parent == 0 and span.name == self.use.step)
        return next(own, output.status)

    async def judge(self, subject: Subject, asking: Asking | None) -> Judgement:
        """Return the judgement as the evaluator gives it; raises as that does."""
        if self.asking is None:
            return await cast(Evaluator, self.evaluator).judge(subject)
        if asking is None:
            raise EvaluatorError("it asks a model, and no model can be asked here")
        return await self.asking.judge(subject, asking)

    async def _worst(self, case: Case, why: str) -> Score:
        if self.evaluator.low is None:
            return self._absent(why)
        score = Score(
            evaluator=self.name, evaluator_identity=self.identity, value=self.evaluator.low, rationale=why
        )
        if isinstance(self.evaluator, AskingEvaluator) or not isinstance(self.evaluator, Summary):
            return score
        # One that sums up over all cases has to know what was expected of this one too.
        subject = Subject(case.id, case.inputs, None, self._expected(case), case.metadata, Status.CRASHED)
        judged = await self.evaluator.judge(subject)
        known = {"label": judged.label, "truth": judged.truth, "sums": judged.sums}
        worst = {"value": judged.value} if lower_is_better(self.evaluator) else {}
        return score.model_copy(update={**known, **worst})

    def _expected(self, case: Case) -> Any:
        """What is expected of a case that has no output to look at."""
        seen = {"expected": case.expected, "inputs": dict(case.inputs), "metadata": dict(case.metadata)}
        return _evaluated(self.use.expected, seen, case.expected)

    def _subject(self, case: Case, output: Output, status: Status) -> Subject:
        expected: Any = case.expected
        value: Any = output.value
        if self.use.picked is not None or self.use.expected is not None:
            steps = {span.name: span.given() for span in output.spans if span.parent == 0}
            seen = {
                "output": output.value,
                "expected": case.expected,
                "inputs": dict(case.inputs),
                "metadata": dict(case.metadata),
                "steps": steps,
            }
            value = _evaluated(self.use.picked, seen, value)
            expected = _evaluated(self.use.expected, seen, expected)
        return Subject(
            case_id=case.id,
            inputs=case.inputs,
            output=value,
            expected=expected,
            metadata=case.metadata,
            status=status,
            spans=output.spans,
            cluster=case.cluster,
        )

    def _score(self, judgement: Judgement) -> Score:
        call_ids = judgement.call_ids
        if judgement.value is None:
            return self._absent(judgement.rationale or "the evaluator gave no score", call_ids)
        low, high = self.evaluator.low, self.evaluator.high
        low, high = -math.inf if low is None else low, math.inf if high is None else high
        if not (math.isfinite(judgement.value) and low <= judgement.value <= high):
            why = f"the evaluator gave {judgement.value}, which is no score of its range"
            return self._absent(why, call_ids)
        return Score(
            evaluator=self.name,
            evaluator_identity=self.identity,
            value=judgement.value,
            label=judgement.label,
            truth=judgement.truth,
            parts=judgement.parts,
            sums=judgement.sums,
            call_ids=call_ids,
            rationale=judgement.rationale,
        )

    def _absent(self, error: str, call_ids: tuple[str, ...] = ()) -> Score:
        return Score(evaluator=self.name, evaluator_identity=self.identity, error=error, call_ids=call_ids)


def bind_evaluators(workspace: Workspace, experiment_name: str) -> tuple[BoundEvaluator, ...]:
    """Return the evaluators of an experiment, ready to score.

    Raises DefinitionError with the place of each evaluator that does not fit.
    """
    experiment = workspace.experiment(experiment_name)
    document = workspace.document("experiment", experiment_name)
    evaluators: list[BoundEvaluator] = []
    findings: list[Finding] = []
    for index, use in enumerate(experiment.evaluators):
        try:
            evaluators.append(open_bound(workspace, use))
        except ValidationError as error:
            for problem in error.errors():
                place = ("evaluators", index, use.kind, *problem["loc"])
                key = ".".join(map(str, problem["loc"]))
                findings.append(
                    document.finding(place, f"{use.name}: {key}: {problem['msg']}", _options(use))
                )
        except (LlmopsError, ValueError) as error:
            findings.append(document.finding(("evaluators", index), str(error)))
    if findings:
        raise DefinitionError(findings)
    return tuple(evaluators)


def open_bound(workspace: Workspace, use: EvaluatorUse) -> BoundEvaluator:
    """Return an evaluator ready to score; `python` imports the project's own code.

    Raises ValidationError for options that do not fit, and what resolving and opening raise.
    """
    evaluator: Evaluator | AskingEvaluator
    function = source = None
    if use.kind == "python":
        reference = str(use.options.get("function", ""))
        source = workspace.code.identity(reference.partition(":")[0])
        function = workspace.code.load(reference)
    if asks_models(use.kind):
        evaluator = open_asking_evaluator(use.kind, use.options, workspace)
    else:
        evaluator = open_evaluator(use.kind, use.options, function=function)
    identity = identity_of(
        {
            "name": use.name,
            "kind": use.kind,
            "version": evaluator.version,
            "options": _meaning(use, evaluator),
            "output": use.output,
            "expected": use.expected,
            "source": source,
            **without_none({"step": use.step, "pass_at": use.pass_at}),
        }
    )
    return BoundEvaluator(use, evaluator, identity)


def _meaning(use: EvaluatorUse, evaluator: Evaluator | AskingEvaluator) -> Mapping[str, Any]:
    if isinstance(evaluator, AskingEvaluator):
        return evaluator.meaning
    options = evaluator_class(use.kind).Options.model_validate(use.options)
    meaning: dict[str, Any] = options.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return meaning


def _options(use: EvaluatorUse) -> str:
    return f"options of {use.kind}: {', '.join(evaluator_class(use.kind).Options.model_fields) or 'none'}"


def _evaluated(source: str | None, seen: Mapping[str, Any], default: Any) -> Any:
    return default if source is None else evaluate(parse_template(source), seen)


def lower_is_better(evaluator: Evaluator | AskingEvaluator) -> bool:
    """Say whether a lower score of this evaluator is a better one."""
    return bool(getattr(evaluator, "lower_is_better", False))


@contextmanager
def ahead(evaluators: Iterable[BoundEvaluator]) -> Iterator[None]:
    """Get ready what summaries will need, beside the work of the block."""
    with ExitStack() as stack:
        for bound in evaluators:
            if isinstance(bound.evaluator, Summary):
                stack.enter_context(bound.evaluator.ahead())
        yield
