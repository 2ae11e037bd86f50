"""How much of a reference summary an output has: ROUGE by rouge-score, Google's replica of the original.

rouge-score (extra `text`) is imported when a first output is judged: the nltk it needs for its stemmer takes seconds
to import, though it loads no data. Texts are read as English: words of a-z and 0-9, nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

from pydantic import Field, field_validator

from llmops.definitions.base import Definition
from llmops.errors import EvaluatorError
from llmops.evaluators.base import Judgement, Subject
from llmops.evaluators.extras import import_extra, installed_version
from llmops.evaluators.texts import output_text, reference_texts

_EXTRA = "text"
Variant = Literal["rouge1", "rouge2", "rougeL", "rougeLsum"]
_WORD = re.compile("[a-z0-9]+")
# The longest common subsequence takes a table of words by words: this many are seconds.
_MOST_PAIRS = 10_000_000


class Rouge:
    """ROUGE F1 of an output, 0 to 1: its value is `rougeL`, or else the first variant; each variant is a part.

    rouge1, rouge2: words and pairs of words in common. rougeL: their longest common subsequence. rougeLsum: that,
    line by line. `expected` is a reference or a list of them: for each variant the one with the best F1 counts.
    """

    class Options(Definition):
        """use_stemmer: compare words by Porter's stem. with_precision_and_recall: as further parts."""

        variants: tuple[Variant, ...] = Field(
            default=("rouge1", "rouge2", "rougeL", "rougeLsum"), min_length=1
        )
        use_stemmer: bool = False
        with_precision_and_recall: bool = False

        @field_validator("variants")
        @classmethod
        def _differ(cls, variants: tuple[str, ...]) -> tuple[str, ...]:
            if len(set(variants)) < len(variants):
                raise ValueError("name each variant once")
            return variants

    low: float | None = 0.0
    high: float | None = 1.0
    needs_expected = True

    def __init__(self, options: Options) -> None:
        self.options = options

    @property
    def version(self) -> str:
        """Ours and rouge-score's.

        Raises UsageError when rouge-score is not installed.
        """
        return f"1+rouge-score-{installed_version('rouge-score', _EXTRA)}"

    @staticmethod
    def parts(options: Options) -> tuple[str, ...]:
        """Return the parts of its scores."""
        further = ("_precision", "_recall") if options.with_precision_and_recall else ()
        return tuple(f"{variant}{end}" for end in ("", *further) for variant in options.variants)

    async def judge(self, subject: Subject) -> Judgement:
        """Return the score; an output without words has 0.

        Raises EvaluatorError when the output is no text, `expected` no text or list of texts, or one of them has
        no word that ROUGE reads.
        """
        output, references = output_text(subject), reference_texts(subject)
        for reference in references:
            n_words = len(_WORD.findall(reference.lower()))
            if not n_words:
                raise EvaluatorError(f"case {subject.case_id!r}: a reference has no word of a-z or 0-9")
            if n_words * len(_WORD.findall(output.lower())) > _MOST_PAIRS:
                raise EvaluatorError(
                    f"case {subject.case_id!r}: output and reference are too long to compare"
                )
        parts = self._found(output, references)
        main = "rougeL" if "rougeL" in self.options.variants else self.options.variants[0]
        return Judgement(parts[main], parts=parts)

    @cached_property
    def _scorer(self) -> Any:
        scorers = import_extra("rouge_score.rouge_scorer", _EXTRA)
        return scorers.RougeScorer(list(self.options.variants), use_stemmer=self.options.use_stemmer)

    def _found(self, output: str, references: Sequence[str]) -> dict[str, float]:
        scores = self._scorer.score_multi(references, output)
        wanted = self.parts(self.options)
        found: dict[str, float] = {}
        for variant in self.options.variants:
            precision, recall, f1 = map(float, scores[variant])
            found |= {variant: f1, f"{variant}_precision": precision, f"{variant}_recall": recall}
        return {name: found[name] for name in wanted}
