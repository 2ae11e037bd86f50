"""An evaluator bound to its use in an experiment: its expressions worked out, its identity known, its faults caught.

Whatever keeps one evaluator from scoring one output becomes an absent score with its reason.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from llmops.definitions.base import identity_of
from llmops.definitions.dataset import Case
from llmops.definitions.experiment import EvaluatorUse
from llmops.definitions.templates import TemplateError, evaluate, parse_template
from llmops.definitions.workspace import Workspace
from llmops.errors import DefinitionError, EvaluatorError, Finding, LlmopsError
from llmops.evaluators import evaluator_class, open_evaluator
from llmops.evaluators.base import Evaluator, Judgement, Subject, Summary
from llmops.records import NOT_YET, EvaluatorVersion, Output, Score, Status

JUDGED = frozenset({Status.OK, Status.TRUNCATED})


@dataclass(frozen=True)
class BoundEvaluator:
    """An evaluator as an experiment uses it. identity: hash of all that determines its scores."""

    use: EvaluatorUse
    evaluator: Evaluator
    identity: str

    @property
    def name(self) -> str:
        """What its metric is called."""
        return self.use.name

    def version(self) -> EvaluatorVersion:
        """Return the record of it that a run keeps."""
        return EvaluatorVersion(
            name=self.name,
            kind=self.use.kind,
            identity=self.identity,
            low=self.evaluator.low,
            high=self.evaluator.high,
        )

    async def score(self, case: Case, output: Output) -> Score | None:
        """Return the score of one output; absent with its error when it could not be worked out.

        None when there is no output yet, because the call failed on the way. A chain that crashed by its own
        fault gets the lowest score there is, and so does a reply outside its declared format that has not
        what `output` asks for.
        """
        if output.status in NOT_YET:
            return None
        try:
            return await self._scored(case, output)
        except EvaluatorError as error:
            return self._absent(str(error))
        except TemplateError as error:
            return self._absent(f"expression: {error}")
        except Exception as error:  # noqa: BLE001 - one evaluator's fault must not end the run; it is recorded
            return self._absent(f"{type(error).__name__}: {error}")

    async def _scored(self, case: Case, output: Output) -> Score:
        why = f"no output: {output.error.message if output.error else output.status}"
        if output.status is Status.CRASHED:
            return await self._worst(case, why)
        if output.status not in JUDGED:
            return self._absent(why)
        try:
            subject = self._subject(case, output)
        except TemplateError as error:
            if output.valid is not False:
                raise
            return await self._worst(case, f"outside its declared format: {error}")
        return self._score(await self.evaluator.judge(subject))

    async def _worst(self, case: Case, why: str) -> Score:
        if self.evaluator.low is None:
            return self._absent(why)
        score = Score(
            evaluator=self.name, evaluator_identity=self.identity, value=self.evaluator.low, rationale=why
        )
        if not isinstance(self.evaluator, Summary):
            return score
        # One that sums up over all cases has to know what was expected of this one too.
        subject = Subject(case.id, case.inputs, None, self._expected(case), case.metadata, Status.CRASHED)
        judged = await self.evaluator.judge(subject)
        return score.model_copy(update={"label": judged.label, "truth": judged.truth})

    def _expected(self, case: Case) -> Any:
        """What is expected of a case that has no output to look at."""
        seen = {"expected": case.expected, "inputs": dict(case.inputs), "metadata": dict(case.metadata)}
        return _evaluated(self.use.expected, seen, case.expected)

    def _subject(self, case: Case, output: Output) -> Subject:
        expected: Any = case.expected
        value: Any = output.value
        if self.use.output is not None or self.use.expected is not None:
            steps = {span.name: {"output": span.output} for span in output.spans if span.parent == 0}
            seen = {
                "output": output.value,
                "expected": case.expected,
                "inputs": dict(case.inputs),
                "metadata": dict(case.metadata),
                "steps": steps,
            }
            value = _evaluated(self.use.output, seen, value)
            expected = _evaluated(self.use.expected, seen, expected)
        return Subject(
            case_id=case.id,
            inputs=case.inputs,
            output=value,
            expected=expected,
            metadata=case.metadata,
            status=output.status,
            spans=output.spans,
        )

    def _score(self, judgement: Judgement) -> Score:
        if judgement.value is None:
            return self._absent(judgement.rationale or "the evaluator gave no score")
        low, high = self.evaluator.low, self.evaluator.high
        low, high = -math.inf if low is None else low, math.inf if high is None else high
        if not (math.isfinite(judgement.value) and low <= judgement.value <= high):
            return self._absent(f"the evaluator gave {judgement.value}, which is no score of its range")
        return Score(
            evaluator=self.name,
            evaluator_identity=self.identity,
            value=judgement.value,
            label=judgement.label,
            truth=judgement.truth,
            parts=judgement.parts,
            sums=judgement.sums,
            rationale=judgement.rationale,
        )

    def _absent(self, error: str) -> Score:
        return Score(evaluator=self.name, evaluator_identity=self.identity, error=error)


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
            evaluators.append(_open(workspace, use))
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


def _open(workspace: Workspace, use: EvaluatorUse) -> BoundEvaluator:
    function = source = None
    if use.kind == "python":
        reference = str(use.options.get("function", ""))
        source = workspace.code.identity(reference.partition(":")[0])
        function = workspace.code.load(reference)
    evaluator = open_evaluator(use.kind, use.options, function=function)
    options = evaluator_class(use.kind).Options.model_validate(use.options)
    identity = identity_of(
        {
            "name": use.name,
            "kind": use.kind,
            "version": evaluator.version,
            "options": options.model_dump(mode="json", by_alias=True, exclude_defaults=True),
            "output": use.output,
            "expected": use.expected,
            "source": source,
        }
    )
    return BoundEvaluator(use, evaluator, identity)


def _options(use: EvaluatorUse) -> str:
    return f"options of {use.kind}: {', '.join(evaluator_class(use.kind).Options.model_fields) or 'none'}"


def _evaluated(source: str | None, seen: Mapping[str, Any], default: Any) -> Any:
    return default if source is None else evaluate(parse_template(source), seen)


@contextmanager
def ahead(evaluators: Iterable[BoundEvaluator]) -> Iterator[None]:
    """Get ready what summaries will need, beside the work of the block."""
    with ExitStack() as stack:
        for bound in evaluators:
            if isinstance(bound.evaluator, Summary):
                stack.enter_context(bound.evaluator.ahead())
        yield
