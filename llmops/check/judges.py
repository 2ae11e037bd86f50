"""What is wrong with evaluators that ask models: their prompts, models and prices, and gates that no judge carries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llmops.check.models import image_findings, model_findings
from llmops.definitions.dataset import Case
from llmops.definitions.documents import Document, Location
from llmops.definitions.experiment import EvaluatorUse, Experiment
from llmops.definitions.workspace import Workspace
from llmops.errors import DefinitionError, Finding, UsageError, nearest
from llmops.evaluators import evaluator_class
from llmops.evaluators.base import AskingEvaluator
from llmops.evaluators.cosine import Cosine
from llmops.evaluators.judge import Judge
from llmops.models import model_class
from llmops.models.base import Ability
from llmops.render import checks_of

NO_JUDGE = "embedded"


def open_asking(
    workspace: Workspace, document: Document, place: Location, use: EvaluatorUse, options: Any
) -> AskingEvaluator:
    """Return an evaluator that asks models, its prompt and model resolved.

    Raises DefinitionError where it names one that does not exist, or where its prompt is broken.
    """
    if options.model is not None and (
        unknown := model_findings(workspace, document, place, options.model, {})
    ):
        raise DefinitionError(unknown)
    try:
        evaluator: AskingEvaluator = evaluator_class(use.kind).open_in(options, workspace)
    except UsageError as error:
        key = "prompt" if "prompt" in use.options else "model"
        raise DefinitionError(document.finding((*place, key), f"{use.name}: {error}")) from error
    return evaluator


def asking_findings(
    workspace: Workspace,
    document: Document,
    place: Location,
    use: EvaluatorUse,
    evaluator: AskingEvaluator,
    experiment: Experiment,
    cases: Sequence[Case] | None,
) -> Iterator[Finding]:
    """Yield what is wrong with an evaluator that asks models. cases: as in `evaluator_findings`."""
    yield from _price_findings(workspace, document, experiment, evaluator)
    if isinstance(evaluator, Cosine):
        yield from _vector_findings(document, place, evaluator)
    if isinstance(evaluator, Judge):
        for model in evaluator.models:
            yield from model_findings(workspace, document, place, model, evaluator.parameters)
            if evaluator.shows_images:
                yield from image_findings(workspace, document, place, model)
        yield from _gate_findings(document, use, experiment, evaluator)
        yield from _input_findings(document, (*place, "prompt"), use, evaluator, cases or ())


def _price_findings(
    workspace: Workspace, document: Document, experiment: Experiment, evaluator: AskingEvaluator
) -> Iterator[Finding]:
    for name in evaluator.models if experiment.budget.usd is not None else ():
        if workspace.model(name).pricing() is None:
            hint = f"give {name} a price in llmops.yaml, or budget calls"
            message = f"the budget is in USD, and model {name} has no price"
            yield document.finding(("budget", "usd"), message, hint)


def _vector_findings(document: Document, place: Location, evaluator: Cosine) -> Iterator[Finding]:
    for model in evaluator.models.values():
        if Ability.EMBEDDINGS not in model_class(model.provider).abilities:
            message = f"model {model.name} ({model.provider}) gives no embeddings"
            yield document.finding((*place, "model"), message)


def _gate_findings(
    document: Document, use: EvaluatorUse, experiment: Experiment, judge: Judge
) -> Iterator[Finding]:
    if NO_JUDGE not in {model.provider for model in judge.models.values()}:
        return
    for index, gate in enumerate(experiment.gates):
        if gate.metric == use.name or gate.metric.startswith(f"{use.name}."):
            hint = "give it a model that understands what it reads, or let it inform without a gate"
            message = f"{use.name} is judged by {NO_JUDGE}, which is no judge: no gate can stand on it"
            yield document.finding(("gates", index, "metric"), message, hint)


def _input_findings(
    document: Document, place: Location, use: EvaluatorUse, judge: Judge, cases: Sequence[Case]
) -> Iterator[Finding]:
    """Yield what the cases do not give to the judge's prompt, or not as it is wanted."""
    for name, problem_of in checks_of(judge.inputs).items():
        if name == "output" or (name == "expected" and use.expected is not None):
            continue  # known only once there is an output
        given = [(case, _given(case)) for case in cases]
        lacking = next((values for _, values in given if name not in values), None)
        if lacking is not None:
            known = sorted({*lacking, "output"})
            hint = nearest(name, known) or f"there are: {', '.join(known)}"
            message = f"the prompt of {use.name} needs an input {name!r} that no case and no judge has"
            yield document.finding(place, message, hint)
            continue
        said_of = ((case, values[name]) for case, values in given if values[name] is not None)
        misfit = next(((case, said) for case, value in said_of if (said := problem_of(value))), None)
        if misfit is not None:
            message = f"the prompt of {use.name}: input {name!r} of case {misfit[0].id!r}: {misfit[1]}"
            yield document.finding(place, message)


def _given(case: Case) -> Mapping[str, Any]:
    """What a judge's prompt gets of a case before there is an output."""
    return {"metadata": dict(case.metadata), **case.inputs, "expected": case.expected}
