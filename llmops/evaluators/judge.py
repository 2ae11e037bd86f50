"""A model that scores an output by a rubric: its prompt is a prompt of the project, its call goes the one path.

One output at a time, one call each. Pairs, juries and calibration against people come on top of this.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from llmops.definitions.base import Definition, Float, Int, Name
from llmops.definitions.prompt import Parameters, Prompt
from llmops.definitions.reference import ReferenceText
from llmops.definitions.schemas import InputTypes
from llmops.errors import EvaluatorError, StepError, UsageError
from llmops.evaluators.base import Asking, Judgement, Subject
from llmops.evaluators.texts import kind_of, shown, storable
from llmops.models import model_version
from llmops.models.tokens import estimate_input_tokens
from llmops.records import Message, ModelVersion, Reply, Request, Status
from llmops.render import Renderer, checks_of

if TYPE_CHECKING:
    from llmops.definitions.dataset import Case
    from llmops.definitions.workspace import Workspace

MAX_RATIONALE = 4_000  # characters kept with the score; the whole reply is in the journal
_SCORE, _RATIONALE = "score", "rationale"
_NO_REPLY = {
    Status.FILTERED: "a content filter stopped the judge's reply",
    Status.REFUSED: "the judge refused to answer",
}


@dataclass(frozen=True)
class Asked:
    """A judge's prompt, made ready, with the model and parameters it is asked with.

    name, identity: of the prompt as it stands where its reference leads.
    """

    name: str
    identity: str
    renderer: Renderer
    model: ModelVersion
    parameters: Mapping[str, Any]


class Judge:
    """The score a model gives by a rubric, and its reason.

    The prompt's inputs come by name from the case's inputs, `output`, `expected` and `metadata`; what they hold
    is filled into its messages as data and can forge no role. The model is asked for an object of `rationale`
    and `score`, in this order, unless the prompt declares an object with a `score` itself.
    """

    class Options(Definition):
        """model: by default the prompt's own. parameters: over the prompt's own.

        scale: the lowest and the highest score; whole numbers where both ends are written so. choices: a score
        for each word that may be answered instead.
        """

        prompt: ReferenceText
        model: Name | None = None
        parameters: Parameters = Field(default_factory=Parameters)
        scale: tuple[Int | Float, Int | Float] | None = None
        choices: dict[str, Int | Float] | None = Field(default=None, min_length=2)

        @model_validator(mode="after")
        def _one_scale(self) -> Judge.Options:
            if (self.scale is None) == (self.choices is None):
                raise ValueError("give a scale such as [1, 5], or choices such as {good: 1, bad: 0}")
            if self.low >= self.high:
                raise ValueError("the lowest score must be below the highest")
            return self

        @property
        def low(self) -> float:
            """The lowest score."""
            return float(self.scale[0] if self.scale else min((self.choices or {}).values()))

        @property
        def high(self) -> float:
            """The highest score."""
            return float(self.scale[1] if self.scale else max((self.choices or {}).values()))

        @property
        def is_whole(self) -> bool:
            """Whether only whole numbers of the scale are scores."""
            return self.scale is not None and all(isinstance(end, int) for end in self.scale)

    version = "1"
    low: float | None
    high: float | None

    def __init__(self, options: Options, asked: Asked) -> None:
        self.options = options
        self.low, self.high = options.low, options.high
        self.needs_expected = _refuses_nothing(asked.renderer.prompt, "expected")
        self._asked = asked
        self._format = asked.renderer.prompt.response_format or _format(options)

    @classmethod
    def open_in(cls, options: Options, workspace: Workspace) -> Judge:
        """Return the judge with its prompt and model resolved.

        Raises UsageError for a prompt, model or format that does not fit, DefinitionError for a broken prompt.
        """
        resolved = workspace.resolve("prompt", options.prompt)
        prompt = resolved.workspace.prompt(resolved.name)
        _check_format(prompt, resolved.name)
        release = resolved.release
        model = options.model or (release.model if release else None) or prompt.model
        pool: Sequence[Case] = ()
        if prompt.examples is not None and prompt.examples.k:
            dataset, split = resolved.workspace.cases(prompt.examples.source)
            pool = dataset.of(split)
        parameters = {
            **prompt.parameters.given(),
            **(release.parameters if release else {}),
            **options.parameters.given(),
        }
        asked = Asked(
            name=resolved.name,
            identity=resolved.workspace.identity("prompt", resolved.name),
            renderer=Renderer(prompt, pool, images=resolved.workspace.images),
            model=model_version(model, workspace.model(model)),
            parameters=parameters,
        )
        return cls(options, asked)

    @property
    def models(self) -> Mapping[str, ModelVersion]:
        """The one model it asks."""
        return {self._asked.model.name: self._asked.model}

    @property
    def prompts(self) -> Mapping[str, str]:
        """Its one prompt."""
        return {self._asked.name: self._asked.identity}

    @property
    def inputs(self) -> InputTypes:
        """The inputs that its prompt declares."""
        return self._asked.renderer.prompt.inputs

    @property
    def shows_images(self) -> bool:
        """Whether it takes a model that sees."""
        return self._asked.renderer.prompt.shows_images

    @property
    def parameters(self) -> Mapping[str, Any]:
        """What its model is asked with."""
        return self._asked.parameters

    @property
    def meaning(self) -> Mapping[str, Any]:
        """Its prompt, model and parameters by what they are, and its scale."""
        return {
            "prompt": self._asked.identity,
            "model": self._asked.model.identity,
            "with": dict(self._asked.parameters),
            "scale": self.options.scale,
            "choices": self.options.choices,
        }

    def least_tokens(self, case: Case) -> int | None:
        """Return the estimate for an output without a word; None where that is none the prompt takes."""
        subject = Subject(case.id, case.inputs, "", case.expected, case.metadata, cluster=case.cluster)
        try:
            return estimate_input_tokens(self._messages(subject))
        except EvaluatorError:
            return None

    async def judge(self, subject: Subject, asking: Asking) -> Judgement:
        """Return the model's score and its reason, or why its reply is none.

        Raises EvaluatorError when the prompt cannot be filled in.
        """
        request = Request(
            messages=self._messages(subject),
            parameters=self._asked.parameters,
            response_format=self._format,
        )
        answer = await asking.ask(self._asked.model.name, request)
        value, rationale = self._read(answer.reply)
        return Judgement(value, rationale, call_ids=(answer.call_id,))

    def _messages(self, subject: Subject) -> tuple[Message, ...]:
        values = {
            "metadata": dict(subject.metadata),
            **subject.inputs,
            "output": subject.output,
            "expected": subject.expected,
        }
        try:
            return self._asked.renderer.messages(values, case_id=subject.case_id, cluster=subject.cluster)
        except StepError as error:
            raise EvaluatorError(f"prompt {self._asked.name}: {error}") from error

    def _read(self, reply: Reply) -> tuple[float | None, str | None]:
        """Return score and reason; without a score, why there is none."""
        if reply.status in _NO_REPLY:
            return None, _NO_REPLY[reply.status]
        said = _object(reply.text)
        if said is None:
            cut = ", cut off" if reply.status is Status.TRUNCATED else ""
            return None, f"the judge's reply is no JSON object{cut}: {shown(reply.text)}"
        if _SCORE not in said:
            return None, f"the judge's reply has no score: {shown(reply.text)}"
        value = self._value(said[_SCORE])
        if value is None:
            return None, f"the judge's score {shown(said[_SCORE])} is none of {self._scores()}"
        reason = said.get(_RATIONALE)
        return value, storable(reason)[:MAX_RATIONALE] if isinstance(reason, str) else None

    def _value(self, said: Any) -> float | None:
        if self.options.choices is not None:
            found = self.options.choices.get(said) if isinstance(said, str) else None
            return None if found is None else float(found)
        if kind_of(said) != "number" or not self.options.low <= said <= self.options.high:
            return None
        return None if self.options.is_whole and not float(said).is_integer() else float(said)

    def _scores(self) -> str:
        """What may be answered, in words."""
        if self.options.choices is not None:
            return ", ".join(map(shown, self.options.choices))
        kind = "the whole numbers" if self.options.is_whole else "the numbers"
        return f"{kind} from {self.options.low:g} to {self.options.high:g}"


def _refuses_nothing(prompt: Prompt, name: str) -> bool:
    """Say whether a prompt declares an input that null does not fit."""
    check = checks_of(prompt.inputs).get(name)
    return check is not None and check(None) is not None


def _format(options: Judge.Options) -> dict[str, Any]:
    """Return what is asked of the model: the reason first, so that the score follows from it."""
    score: dict[str, Any] = {"type": "string", "enum": list(options.choices or ())}
    if options.scale is not None:
        low, high = options.scale
        score = {"type": "integer" if options.is_whole else "number", "minimum": low, "maximum": high}
    return {
        "type": "object",
        "properties": {_RATIONALE: {"type": "string"}, _SCORE: score},
        "required": [_RATIONALE, _SCORE],
        "additionalProperties": False,
    }


def _check_format(prompt: Prompt, name: str) -> None:
    declared = prompt.response_format
    if declared is None:
        return
    properties = declared.get("properties")
    if not isinstance(properties, Mapping) or _SCORE not in properties:
        raise UsageError(
            f"the response_format of prompt {name} is no object with a {_SCORE!r}; leave it out, and a judge asks "
            f"for {_RATIONALE} and {_SCORE}"
        )


def _object(text: str) -> Mapping[str, Any] | None:
    """Return the JSON object that a reply is, in a code fence or without; None for anything else."""
    text = text.strip()
    if text.startswith("```") and text.endswith("```"):
        head, _, body = text[3:-3].partition("\n")
        text = body if head.strip() in {"", "json"} else text
    try:
        found = json.loads(text, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _finite(spelled: str) -> float:
    """Refuse what JSON itself does not have: NaN, infinity, and 1e999."""
    number = float(spelled)
    if not math.isfinite(number):
        raise ValueError(f"{spelled} is no number of JSON")
    return number
