"""How long an output is: in characters, words, or tokens as they are estimated without a tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from pydantic import Field, model_validator

from llmops.definitions.base import Definition, Int
from llmops.evaluators.base import Judgement, Subject
from llmops.evaluators.texts import as_text
from llmops.models.tokens import estimate_tokens

_COUNTS: Mapping[str, Callable[[str], int]] = {
    "characters": len,
    "words": lambda text: len(text.split()),
    "tokens": estimate_tokens,
}


class Length:
    """1 when the output is as long as asked for, 0 otherwise; what is no text counts as its JSON."""

    class Options(Definition):
        """at_least, at_most: both ends are allowed. unit: tokens are our own estimate."""

        at_least: Int = Field(default=0, ge=0)
        at_most: Int | None = Field(default=None, ge=0)
        unit: Literal["characters", "words", "tokens"] = "characters"

        @model_validator(mode="after")
        def _asks_something(self) -> Length.Options:
            if not self.at_least and self.at_most is None:
                raise ValueError("say at_least, at_most, or both")
            if self.at_most is not None and self.at_most < self.at_least:
                raise ValueError("at_most is below at_least, and nothing fits")
            return self

    version = "1"
    low: float | None = 0.0
    high: float | None = 1.0
    needs_expected = False

    def __init__(self, options: Options) -> None:
        self.options = options

    async def judge(self, subject: Subject) -> Judgement:
        """Return 1 or 0, and how long the output is."""
        options = self.options
        found = _COUNTS[options.unit](as_text(subject.output))
        fits = options.at_least <= found and (options.at_most is None or found <= options.at_most)
        return Judgement(float(fits), f"{found} {options.unit}")
