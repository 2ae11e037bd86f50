"""A prompt: messages as templates over declared inputs, with few-shot examples as a structure of their own."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator

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


class TextMessage(Definition):
    """A message whose content is one template."""

    role: Literal["system", "user", "assistant"]
    content: str


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


def _which(value: Any) -> str:
    has_examples = "examples" in value if isinstance(value, dict) else isinstance(value, ExamplesBlock)
    return "examples" if has_examples else "message"


MessageTemplate = Annotated[
    Annotated[ExamplesBlock, Tag("examples")] | Annotated[TextMessage, Tag("message")],
    Discriminator(_which),
]


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
    def examples(self) -> Examples | None:
        """The examples block's settings, if there is one."""
        for message in self.messages:
            if isinstance(message, ExamplesBlock):
                return message.examples
        return None

    def meaning(self) -> dict[str, Any]:
        """Return the fields that can change what is sent; the description aside."""
        return meaning_of(self, without={"description"})
