"""Evaluators: a case and its output go in, a score comes out. One file a family, imported when first used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmops.definitions.kinds import Kinds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llmops.definitions.workspace import Workspace
    from llmops.evaluators.base import AskingEvaluator, Evaluator

EVALUATORS: Mapping[str, str] = {
    "bleu": "llmops.evaluators.translation:Bleu",
    "chrf": "llmops.evaluators.translation:Chrf",
    "classification": "llmops.evaluators.classification:Classification",
    "contains": "llmops.evaluators.exact:Contains",
    "cosine": "llmops.evaluators.cosine:Cosine",
    "exact_match": "llmops.evaluators.exact:ExactMatch",
    "json_schema": "llmops.evaluators.json_checks:JsonSchema",
    "json_valid": "llmops.evaluators.json_checks:JsonValid",
    "judge": "llmops.evaluators.judge:Judge",
    "length": "llmops.evaluators.length:Length",
    "number": "llmops.evaluators.number:Number",
    "python": "llmops.evaluators.python:PythonEvaluator",
    "regex": "llmops.evaluators.regex:Regex",
    "retrieval": "llmops.evaluators.retrieval:Retrieval",
    "rouge": "llmops.evaluators.rouge:Rouge",
    "squad_exact_match": "llmops.evaluators.overlap:SquadExactMatch",
    "ter": "llmops.evaluators.translation:Ter",
    "token_f1": "llmops.evaluators.overlap:TokenF1",
}
_KINDS = Kinds("evaluator", "llmops.evaluators", EVALUATORS)


def evaluators() -> dict[str, str]:
    """Return every kind of evaluator and its `module:Class`, those of other packages included."""
    return _KINDS.known()


def evaluator_class(kind: str) -> Any:
    """Return the class behind a kind; its `Options` are the fields that a YAML block may set.

    Raises UsageError as `Kinds.load` says.
    """
    return _KINDS.load(kind)


def open_evaluator(
    kind: str, options: Mapping[str, Any], *, function: Callable[..., Any] | None = None
) -> Evaluator:
    """Return an evaluator of a kind that asks no model, ready to judge.

    options: the kind's own keys; `name`, `output` and `expected` have been taken off.
    function: what `python` calls, loaded from its reference; no other kind takes one.

    Raises UsageError for an unknown kind, pydantic's ValidationError for options that do not fit, and
    ValueError for a function that cannot be called as its parameters say.
    """
    found = evaluator_class(kind)
    own = found.Options.model_validate(dict(options))
    evaluator: Evaluator = found(own) if function is None else found(own, function)
    return evaluator


def open_asking_evaluator(kind: str, options: Mapping[str, Any], workspace: Workspace) -> AskingEvaluator:
    """Return an evaluator of a kind that asks models, which it finds in a workspace with its prompt.

    Raises as `open_evaluator` does, and what resolving the prompt and the models raises.
    """
    found = evaluator_class(kind)
    evaluator: AskingEvaluator = found.open_in(found.Options.model_validate(dict(options)), workspace)
    return evaluator


def asks_models(kind: str) -> bool:
    """Say whether evaluators of a kind ask models; UsageError as `Kinds.load` says."""
    return hasattr(evaluator_class(kind), "open_in")
