"""A prompt: messages as templates over declared inputs, with few-shot examples as a structure of their own."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from llmops.definitions.base import Definition, Float, Int, Name, meaning_of
from llmops.definitions.reference import ReferenceText
from llmops.definitions.schemas import PromptInputTypes, Schema

StopText = Annotated[str, Field(min_length=1)]
Select = Literal["first", "random", "balanced", "similar"]


class Parameters(Definition):
    """Sampling parameters under llmops' own names; the provider translates them."""

    temperature: Float | None = Field(default=None, ge=0, le=2)
    top_p: Float | None = Field(default=None, gt=0, le=1)
    max_tokens: Int | None = Field(default=None, ge=1)
    seed: Int | None = None
    stop: StopText | Annotated[tuple[StopText, ...], Field(min_length=1)] | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None

    def given(self) -> dict[str, Any]:
        """Return the parameters that are set, JSON-able."""
        return self.model_dump(mode="json", exclude_none=True)


class TextTemplate(Definition):
    """A piece of text in a message that has other parts too."""

    text: str


class ImageTemplate(Definition):
    """An image in a message: a file of the project, a data URL, or an input of type `image` as `{{ NAME }}`."""

    image: Annotated[str, Field(min_length=1)]

    @property
    def constant(self) -> str | None:
        """The image that the prompt itself names; None where a case does."""
        return None if "{{" in self.image or "{%" in self.image else self.image


PartTemplate = Annotated[
    Annotated[TextTemplate, Tag("text")] | Annotated[ImageTemplate, Tag("image")],
    Discriminator(lambda value: _which(value, "image", ImageTemplate) or "text"),
]


class TextMessage(Definition):
    """A message whose content is one template, or parts: texts, and images where the user speaks."""

    role: Literal["system", "user", "assistant"]
    content: str | Annotated[tuple[PartTemplate, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _images_of_users(self) -> TextMessage:
        if self.role != "user" and any(isinstance(part, ImageTemplate) for part in self.parts):
            raise ValueError(f"models take images from the user, not from {self.role}")
        return self

    @property
    def parts(self) -> tuple[TextTemplate | ImageTemplate, ...]:
        """Its content in parts."""
        return (TextTemplate(text=self.content),) if isinstance(self.content, str) else self.content


class ConversationBlock(Definition):
    """Where earlier turns stand. conversation: a template that gives messages of user and assistant."""

    conversation: str


class Examples(Definition):
    """Which cases of another dataset are shown. k = 0 shows none."""

    source: ReferenceText = Field(alias="from")
    k: Int = Field(ge=0, le=1000)
    select: Select = "first"


class ExamplesBlock(Definition):
    """Where the examples stand, and how one becomes a user and an assistant turn."""

    examples: Examples
    user: str
    assistant: str


def _which(value: Any, key: str, kind: type[Definition]) -> str | None:
    has_key = key in value if isinstance(value, dict) else isinstance(value, kind)
    return key if has_key else None


def _which_message(value: Any) -> str:
    block = _which(value, "examples", ExamplesBlock) or _which(value, "conversation", ConversationBlock)
    return block or "message"


MessageTemplate = Annotated[
    Annotated[ExamplesBlock, Tag("examples")]
    | Annotated[ConversationBlock, Tag("conversation")]
    | Annotated[TextMessage, Tag("message")],
    Discriminator(_which_message),
]


def as_written(message: ExamplesBlock | ConversationBlock | TextMessage) -> tuple[str, str]:
    """Return a message's role, or which block it is, and its text as it stands in the file."""
    if isinstance(message, ExamplesBlock):
        shown = message.examples
        head = f"{shown.k} of {shown.source}, {shown.select}; each as"
        return "examples", f"{head}\nuser: {message.user}\nassistant: {message.assistant}"
    if isinstance(message, ConversationBlock):
        return "conversation", message.conversation
    if isinstance(message.content, str):
        return message.role, message.content
    parts = (part.text if isinstance(part, TextTemplate) else _named(part) for part in message.content)
    return message.role, "\n".join(parts)


def _named(part: ImageTemplate) -> str:
    return f"[image {part.image if len(part.image) < 200 else 'data:...'}]"


class Prompt(Definition):
    """What `prompts/NAME.prompt.yaml` says. model: a name of llmops.yaml."""

    description: str | None = None
    inputs: PromptInputTypes = Field(default_factory=dict)
    model: Name = "default"
    parameters: Parameters = Field(default_factory=Parameters)
    messages: tuple[MessageTemplate, ...] = Field(min_length=1)
    response_format: Schema | None = None

    @field_validator("messages")
    @classmethod
    def _one_examples_block(cls, messages: tuple[MessageTemplate, ...]) -> tuple[MessageTemplate, ...]:
        n_blocks = sum(isinstance(message, ExamplesBlock) for message in messages)
        if n_blocks > 1:
            raise ValueError("a prompt has at most one examples block")
        if n_blocks == len(messages):
            raise ValueError("a prompt needs at least one message besides its examples")
        return messages

    @property
    def images(self) -> tuple[str, ...]:
        """The images that the prompt itself names, each once."""
        parts = (
            part for message in self.messages if isinstance(message, TextMessage) for part in message.parts
        )
        named = (part.constant for part in parts if isinstance(part, ImageTemplate))
        return tuple(dict.fromkeys(source for source in named if source is not None))

    @property
    def shows_images(self) -> bool:
        """Whether some message has an image."""
        messages = (message for message in self.messages if isinstance(message, TextMessage))
        return any(isinstance(part, ImageTemplate) for message in messages for part in message.parts)

    @property
    def examples(self) -> Examples | None:
        """The examples block's settings, if there is one."""
        for message in self.messages:
            if isinstance(message, ExamplesBlock):
                return message.examples
        return None

    def meaning(self) -> dict[str, Any]:
        """Return the fields that can change what is sent; the description aside."""
        return meaning_of(self, without={"description"})
