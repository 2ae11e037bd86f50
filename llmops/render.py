"""From a prompt and a case to messages: templates filled, examples chosen and set as turns, images put in.

Reads a prompt, the cases its examples come from and the images it shows; returns what goes to a model. Calls nothing,
writes nothing. Roles and parts stand in the prompt before anything is filled in, so text from a case can never forge
one; a conversation from a case is spoken by user and assistant alone.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from llmops.definitions.case_file import Case, cases_at
from llmops.definitions.images import Images, is_image
from llmops.definitions.prompt import (
    ConversationBlock,
    Examples,
    ExamplesBlock,
    ImageTemplate,
    Prompt,
    TextMessage,
)
from llmops.definitions.schemas import MESSAGES, InputTypes, check_of, checker
from llmops.definitions.templates import Template, TemplateError, evaluate, parse_template, render_text
from llmops.errors import StepError, UsageError
from llmops.records import ImagePart, Message, Part, Request, TextPart

if TYPE_CHECKING:
    from llmops.models.ngrams import Neighbours

Checks = Mapping[str, Callable[[object], str | None]]


class Renderer:
    """A prompt made ready to be rendered many times: templates parsed, its pool of examples at hand.

    prompt: with all overrides applied. pool: the cases examples are chosen from, in the order of their file.
    seed: of the experiment; `random` and `balanced` draw by it. images: of the tree the prompt stands in.
    """

    def __init__(
        self, prompt: Prompt, pool: Sequence[Case] = (), *, seed: int = 0, images: Images | None = None
    ) -> None:
        self.prompt = prompt
        self.pool = pool
        self._images = images
        self._examples = Selection(prompt.examples, pool, seed) if prompt.examples else None
        self._checks = checks_of(prompt.inputs)
        self._parts = tuple(map(_part, prompt.messages))

    def messages(
        self, inputs: Mapping[str, Any], *, case_id: str | None = None, cluster: str | None = None
    ) -> tuple[Message, ...]:
        """Return the messages for the given inputs.

        case_id, cluster: of the case they come from; it and its cluster are never shown as examples.

        Raises StepError for a missing or mistyped input, an undefined variable, text no model can be sent, an image
        that is not at hand, or a conversation in which the assistant has the last word.
        """
        values = declared_inputs(self._checks, inputs)
        messages: list[Message] = []
        for part in self._parts:
            if isinstance(part, Turns):
                messages += self._turns(part, values, case_id, cluster)
            elif isinstance(part, Conversation):
                messages += _spoken(part, values)
            elif isinstance(part.content, Template):
                messages.append(Message(role=part.role, content=_filled(part.content, values)))
            else:
                content = tuple(self._message_part(each, values) for each in part.content)
                messages.append(Message(role=part.role, content=content))
        if isinstance(self._parts[-1], Conversation) and messages and messages[-1].role == "assistant":
            raise StepError(
                "the conversation ends with the assistant, so nothing is asked; give it up to a user's turn"
            )
        return tuple(messages)

    def _message_part(self, part: Template | ImageTemplate, values: Mapping[str, Any]) -> Part:
        if isinstance(part, Template):
            return TextPart(text=_filled(part, values))
        try:
            return ImagePart(image=self._image(part, values))
        except UsageError as error:
            raise StepError(str(error)) from error

    def _image(self, part: ImageTemplate, values: Mapping[str, Any]) -> str:
        if self._images is None:
            raise UsageError("there are no images here")
        if part.constant is not None:
            return self._images.data_url(self._images.look_at(part.constant).value())
        value = _evaluated(_parsed(part.image), values)
        if not isinstance(value, Mapping) or not is_image(value):
            raise UsageError(f"image: {part.image} gives no image")
        return self._images.data_url(value)

    def request(
        self,
        inputs: Mapping[str, Any],
        parameters: Mapping[str, Any],
        *,
        case_id: str | None = None,
        cluster: str | None = None,
    ) -> Request:
        """Return the whole request for the given inputs; errors as for `messages`."""
        return Request(
            messages=self.messages(inputs, case_id=case_id, cluster=cluster),
            parameters=parameters,
            response_format=self.prompt.response_format,
        )

    def _turns(
        self, turns: Turns, values: Mapping[str, Any], case_id: str | None, cluster: str | None
    ) -> list[Message]:
        if self._examples is None:
            return []
        messages = []
        for example in self._examples.choose(values, case_id=case_id, cluster=cluster):
            shown = {**example.inputs, "expected": example.expected}
            messages.append(Message(role="user", content=_filled(turns.user, shown)))
            messages.append(Message(role="assistant", content=_filled(turns.assistant, shown)))
        return messages


def checks_of(declared: InputTypes) -> Checks:
    """Return for each declared input what says why a value is not of its type."""
    return {name: check_of(kind) for name, kind in declared.items()}


def declared_inputs(checks: Checks, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs that a prompt or chain declares, and no other.

    Raises StepError naming one that is missing or not of its declared type.
    """
    values = {}
    for name, check in checks.items():
        if name not in inputs:
            raise StepError(f"input {name!r} is missing")
        if problem := check(inputs[name]):
            raise StepError(f"input {name!r}: {problem}")
        values[name] = inputs[name]
    return values


class Said(NamedTuple):
    """A message before it is filled in; its role and what parts it has are settled already."""

    role: Literal["system", "user", "assistant"]
    content: Template | tuple[Template | ImageTemplate, ...]


class Conversation(NamedTuple):
    """Where messages of user and assistant go that an input gives."""

    template: Template


class Turns(NamedTuple):
    """The two messages that each example becomes."""

    user: Template
    assistant: Template


def _part(message: TextMessage | ExamplesBlock | ConversationBlock) -> Said | Turns | Conversation:
    if isinstance(message, ExamplesBlock):
        return Turns(_parsed(message.user), _parsed(message.assistant))
    if isinstance(message, ConversationBlock):
        return Conversation(_parsed(message.conversation))
    if isinstance(message.content, str):
        return Said(message.role, _parsed(message.content))
    parts = (part if isinstance(part, ImageTemplate) else _parsed(part.text) for part in message.content)
    return Said(message.role, tuple(parts))


def _parsed(source: str) -> Template:
    """Parse without the line end that a block of YAML brings; those in the values are the values' own."""
    return parse_template(source.removesuffix("\n"))


def _filled(template: Template, values: Mapping[str, Any]) -> str:
    try:
        return _sendable(render_text(template, values))
    except TemplateError as error:
        raise StepError(str(error)) from error


def _sendable(text: str) -> str:
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise StepError(f"the text holds half a character (a lone surrogate) at {error.start}") from error
    return text


def _evaluated(template: Template, values: Mapping[str, Any]) -> object:
    try:
        return evaluate(template, values)
    except TemplateError as error:
        raise StepError(str(error)) from error


def _spoken(part: Conversation, values: Mapping[str, Any]) -> list[Message]:
    """Return the messages of a conversation; only a user and an assistant speak in one."""
    turns = _evaluated(part.template, values)
    if problem := checker(MESSAGES)(turns):
        raise StepError(f"conversation: {problem}")
    assert isinstance(turns, list)  # noqa: S101 - the check says so
    return [Message(role=turn["role"], content=_sendable(turn["content"])) for turn in turns]


class Selection:
    """Which cases of a pool are shown for a given input: seeded, ties by id, never the case or its cluster."""

    def __init__(self, examples: Examples, pool: Sequence[Case], seed: int) -> None:
        self._k = examples.k
        self._select = examples.select
        self._seed = seed
        self._pool = pool if examples.select == "first" else cases_at(pool, _by_id(pool))

    def choose(self, inputs: Mapping[str, Any], *, case_id: str | None, cluster: str | None) -> list[Case]:
        """Return at most k cases; `similar` puts the nearest last, next to the question."""
        if not self._k:
            return []
        hidden = self._hidden(case_id, cluster)
        if self._select == "similar":
            nearest = self._neighbours.nearest(_text(inputs), self._k, exclude=hidden)
            return [self._pool[index] for index, _ in reversed(nearest)]
        order = {"first": range(len(self._pool)), "random": self._shuffled, "balanced": self._balanced}
        shown = (self._pool[index] for index in order[self._select] if index not in hidden)
        return [case for case, _ in zip(shown, range(self._k), strict=False)]

    def _hidden(self, case_id: str | None, cluster: str | None) -> set[int]:
        hidden = set(self._by_cluster.get(cluster, ())) if cluster is not None else set()
        if case_id in self._by_id:
            hidden.add(self._by_id[case_id])
        return hidden

    @cached_property
    def _by_id(self) -> dict[str | None, int]:
        return {case.id: index for index, case in enumerate(self._pool)}

    @cached_property
    def _by_cluster(self) -> dict[str, list[int]]:
        groups: dict[str, list[int]] = {}
        for index, case in enumerate(self._pool):
            if case.cluster is not None:
                groups.setdefault(case.cluster, []).append(index)
        return groups

    @cached_property
    def _shuffled(self) -> Sequence[int]:
        order = array("I", range(len(self._pool)))
        random.Random(self._seed).shuffle(order)  # noqa: S311 - a seeded draw, not a secret
        return order

    @cached_property
    def _balanced(self) -> Sequence[int]:
        """One of each expected answer in turn, answers in order, cases in the seeded order."""
        groups: dict[str, list[int]] = {}
        for index in self._shuffled:
            groups.setdefault(_text(self._pool[index].expected), []).append(index)
        queues = [groups[key] for key in sorted(groups)]
        longest = max((len(queue) for queue in queues), default=0)
        return [queue[place] for place in range(longest) for queue in queues if place < len(queue)]

    @cached_property
    def _neighbours(self) -> Neighbours:
        from llmops.models.ngrams import Neighbours

        return Neighbours([_text(case.inputs) for case in self._pool])


def _by_id(pool: Sequence[Case]) -> array[int]:
    """Return the places of the cases in the order of their ids."""
    ids = [case.id for case in pool]
    return array("I", sorted(range(len(ids)), key=ids.__getitem__))


def _text(value: object) -> str:
    """The words of a value, for likeness: texts of a mapping in the order of its keys."""
    if isinstance(value, Mapping):
        return "\n".join(_text(value[key]) for key in sorted(value))
    if isinstance(value, list | tuple):
        return "\n".join(_text(item) for item in value)
    return "" if value is None else str(value)
