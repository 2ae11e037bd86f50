"""How near an output is to what was expected, by the vectors that a model gives both texts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llmops.definitions.base import Definition, Name
from llmops.errors import EvaluatorError
from llmops.evaluators.base import Asking, Judgement, Subject
from llmops.evaluators.texts import expected_of, kind_of, shown
from llmops.models import model_version
from llmops.models.tokens import estimate_request_tokens
from llmops.records import EmbeddingRequest, ModelVersion

if TYPE_CHECKING:
    from llmops.definitions.dataset import Case
    from llmops.definitions.workspace import Workspace


class Cosine:
    """The cosine of the vectors of output and expected, -1 to 1; of several accepted answers the nearest counts.

    All texts of one output go in one request. What it means is the model's affair: compare it with itself only.
    """

    class Options(Definition):
        """model: of llmops.yaml, one that embeds."""

        model: Name

    version = "1"
    low: float | None = -1.0
    high: float | None = 1.0
    needs_expected = True

    def __init__(self, model: ModelVersion) -> None:
        self._model = model

    @classmethod
    def open_in(cls, options: Options, workspace: Workspace) -> Cosine:
        """Return the evaluator with its model resolved; UsageError when there is none of that name."""
        return cls(model_version(options.model, workspace.model(options.model)))

    @property
    def models(self) -> Mapping[str, ModelVersion]:
        """The one model it asks."""
        return {self._model.name: self._model}

    @property
    def prompts(self) -> Mapping[str, str]:
        """None: vectors need no prompt."""
        return {}

    @property
    def meaning(self) -> Mapping[str, Any]:
        """Its model."""
        return {"model": self._model.identity}

    def least_tokens(self, case: Case) -> int | None:
        """Return the estimate for the accepted answers alone."""
        try:
            return estimate_request_tokens(EmbeddingRequest(inputs=_accepted(case.id, case.expected)))
        except EvaluatorError:
            return 0

    async def judge(self, subject: Subject, asking: Asking) -> Judgement:
        """Return the cosine.

        Raises EvaluatorError when one of the texts is none, is empty, or cannot be sent.
        """
        output = _text(f"case {subject.case_id!r}: the output", subject.output)
        accepted = _accepted(subject.case_id, expected_of(subject))
        answer = await asking.embed(self._model.name, EmbeddingRequest(inputs=(output, *accepted)))
        first, *others = answer.reply.vectors
        found = [cosine(first, other) for other in others]
        known = [(value, text) for value, text in zip(found, accepted, strict=True) if value is not None]
        if not known:
            return Judgement(None, "a vector of zeros has no direction", call_ids=(answer.call_id,))
        value, nearest = max(known, key=lambda pair: pair[0])
        reason = f"nearest to {shown(nearest)}" if len(accepted) > 1 else None
        return Judgement(value, reason, call_ids=(answer.call_id,))


def cosine(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return the cosine of the angle between two vectors of one length; None when one of them is all zeros."""
    norms = math.hypot(*first), math.hypot(*second)
    if not all(norms):
        return None
    products = math.fsum((a / norms[0]) * (b / norms[1]) for a, b in zip(first, second, strict=True))
    return max(-1.0, min(1.0, products))


def _accepted(case_id: str, expected: Any) -> tuple[str, ...]:
    if not isinstance(expected, (list, tuple)):
        return (_text(f"case {case_id!r}: expected", expected),)
    if not expected:
        raise EvaluatorError(f"case {case_id!r}: expected is an empty list")
    return tuple(_text(f"case {case_id!r}: an accepted answer", each) for each in expected)


def _text(what: str, value: Any) -> str:
    if not isinstance(value, str):
        raise EvaluatorError(f"{what} is of type {kind_of(value)}, and only text has a vector here")
    if not value.strip():
        raise EvaluatorError(f"{what} is empty")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise EvaluatorError(f"{what} holds half a character (a lone surrogate)") from error
    return value
