"""How close an output is to reference texts, as translation is measured: BLEU, chrF and TER by sacrebleu.

The score of an output is that of its own sentence, 0 to 100 as the field prints it; `EVALUATOR.corpus` is the figure
of the whole corpus, from what each score carries in `sums`, with sacrebleu's signature in its note. The mean of
sentence scores and the corpus figure are two different numbers: papers report the second.

sacrebleu (extra `text`) and numpy are imported when a first output is judged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from llmops.definitions.base import Definition
from llmops.errors import EvaluatorError
from llmops.evaluators.base import Judgement, Subject, Summed
from llmops.evaluators.extras import import_extra, installed_version
from llmops.evaluators.statistics import plain_value, resampled, rough_note, unknown_statistic
from llmops.evaluators.texts import output_text, reference_texts
from llmops.records import Figure

if TYPE_CHECKING:
    from sacrebleu import BLEU, CHRF, TER

    from llmops.stats.arrays import Floats
    from llmops.stats.bootstrap import Statistic

_EXTRA = "text"
# TER tries to move words about: 500 on both sides take seconds, 1,000 half a minute.
_MOST_WORDS_MOVED = 500


class _Sacrebleu:
    """What the three have in common; each gives its metric, what a sentence comes to, and the corpus figure."""

    low: float | None = 0.0
    high: float | None = 100.0
    lower_is_better = False
    needs_expected = True

    def __init__(self, options: Any) -> None:
        self.options = options

    @property
    def version(self) -> str:
        """Ours and sacrebleu's, which has changed scores before.

        Raises UsageError when sacrebleu is not installed.
        """
        return f"1+sacrebleu-{installed_version('sacrebleu', _EXTRA)}"

    async def judge(self, subject: Subject) -> Judgement:
        """Return the sentence score, with the sums for the corpus; the empty text has a score too.

        Raises EvaluatorError when the output is no text, or `expected` no text or list of texts, or one of
        them is empty.
        """
        references = reference_texts(subject)
        value, sums = self._sentence(output_text(subject), references)
        # sacrebleu's own rounding may leave 100.00000000000004.
        value = value if self.high is None else min(value, self.high)
        return Judgement(value, sums=(float(len(references)), *map(float, sums)))

    @staticmethod
    def parts(_: Any) -> tuple[str, ...]:
        """Return the metrics there are beside the mean of sentences."""
        return ("corpus",)

    def ahead(self) -> AbstractContextManager[None]:
        """Nothing has to be ready."""
        return nullcontext()

    def summarise(
        self, scores: Sequence[Summed], clusters: Sequence[str] | None, *, level: float, seed: int
    ) -> Mapping[str, Figure]:
        """Return `corpus`: the figure of all scored cases together, its signature as the note."""
        owners = clusters if clusters is not None else [""] * len(scores)
        kept = [row for row in zip(scores, owners, strict=True) if self.is_summed(row[0])]
        # The bootstrap draws cases by place: sorted, the order in which they came changes nothing.
        kept.sort(key=lambda row: (row[1], row[0].sums))
        n, n_missing = len(kept), len(scores) - len(kept)
        if not kept:
            return {"corpus": unknown_statistic(n_missing)}
        statistic = self.statistics([score for score, _ in kept])["corpus"]
        drawn = [cluster for _, cluster in kept] if clusters is not None else None
        notes = (self._signature({int(score.sums[0]) for score, _ in kept}), rough_note(n))
        figure = Figure(
            value=plain_value(statistic, n),
            kind="statistic",
            n=n,
            n_missing=n_missing,
            interval=resampled(statistic, n, clusters=drawn, level=level, seed=seed),
            note="; ".join(filter(None, notes)),
        )
        return {"corpus": figure}

    def is_summed(self, score: Summed) -> bool:
        """Say whether a score has the sums of its sentence."""
        return bool(score.sums)

    def statistics(self, scores: Sequence[Summed]) -> Mapping[str, Statistic]:
        """Return `corpus` as a function of weights of the scores, all of which have sums."""
        import numpy as np

        from llmops.stats.bootstrap import of_sums

        return {"corpus": of_sums(np.array([score.sums[1:] for score in scores]), self._figure())}

    def _signature(self, n_references: set[int]) -> str:
        """Return sacrebleu's signature of a corpus whose cases have so many references; `var` for several."""
        most = max(n_references)
        columns = [["a" if row < n else None for n in sorted(n_references)] for row in range(most)]
        metric = self._metric_of_corpus()
        metric.corpus_score(["a"] * len(n_references), columns)
        return str(metric.get_signature().format())

    def _metric_of_corpus(self) -> Any:
        raise NotImplementedError

    def _sentence(self, output: str, references: Sequence[str]) -> tuple[float, Sequence[float]]:
        raise NotImplementedError

    def _figure(self) -> Callable[[Floats], Floats]:
        raise NotImplementedError


class Bleu(_Sacrebleu):
    """BLEU of the output's sentence, 0 to 100, with effective order; `corpus` is BLEU of all outputs together.

    The metric `bleu` is the mean of sentence scores; `bleu.corpus` is what papers call BLEU. `expected` is a
    reference or a list of them.
    """

    class Options(Definition):
        """lowercase: compare without case. tokenize: by sacrebleu's name; those that need no further download."""

        lowercase: bool = False
        tokenize: Literal["13a", "char", "intl", "none", "zh"] = "13a"

    @cached_property
    def _metric(self) -> BLEU:
        return self._bleu(effective_order=True)

    def _metric_of_corpus(self) -> BLEU:
        return self._bleu(effective_order=False)

    def _bleu(self, *, effective_order: bool) -> BLEU:
        options = {"effective_order": effective_order, **self.options.model_dump()}
        metric: BLEU = import_extra("sacrebleu", _EXTRA).BLEU(**options)
        return metric

    def _sentence(self, output: str, references: Sequence[str]) -> tuple[float, Sequence[float]]:
        found = self._metric.sentence_score(output, references)
        return found.score, (found.sys_len, found.ref_len, *found.counts, *found.totals)

    def _figure(self) -> Callable[[Floats], Floats]:
        from llmops.stats.corpus import bleu

        return bleu


class Chrf(_Sacrebleu):
    """chrF of the output's sentence, 0 to 100; `corpus` is chrF of all outputs together.

    The metric `chrf` is the mean of sentence scores; `chrf.corpus` is what papers call chrF. `expected` is a
    reference or a list of them, of which the closest counts.
    """

    class Options(Definition):
        """lowercase: compare without case. word_order: 2 makes it chrF++, which counts words too."""

        lowercase: bool = False
        word_order: int = Field(default=0, ge=0, le=2)

    @cached_property
    def _metric(self) -> CHRF:
        return self._metric_of_corpus()

    def _metric_of_corpus(self) -> CHRF:
        metric: CHRF = import_extra("sacrebleu", _EXTRA).CHRF(**self.options.model_dump())
        return metric

    def _sentence(self, output: str, references: Sequence[str]) -> tuple[float, Sequence[float]]:
        # No public way gives the n-gram counts; tests pin this one down against public scores.
        counts = self._metric._extract_corpus_statistics([output], [[text] for text in references])
        return self._metric._aggregate_and_compute(counts).score, counts[0]

    def _figure(self) -> Callable[[Floats], Floats]:
        from llmops.stats.corpus import chrf

        return chrf


class Ter(_Sacrebleu):
    """Translation edit rate: edits for each 100 words of the reference, 0 and up, and the lower the better.

    The metric `ter` is the mean of sentence scores; `ter.corpus` is what papers call TER. `expected` is a
    reference or a list of them: the fewest edits, by their mean length. An output that crashed scores as the
    empty text does.
    """

    class Options(Definition):
        """lowercase: compare without case, as TER does by default."""

        lowercase: bool = True

    high: float | None = None
    lower_is_better = True

    @cached_property
    def _metric(self) -> TER:
        return self._metric_of_corpus()

    def _metric_of_corpus(self) -> TER:
        metric: TER = import_extra("sacrebleu", _EXTRA).TER(case_sensitive=not self.options.lowercase)
        return metric

    def _sentence(self, output: str, references: Sequence[str]) -> tuple[float, Sequence[float]]:
        n_words = min(len(output.split()), max(len(text.split()) for text in references))
        if n_words > _MOST_WORDS_MOVED:
            most = f"more than {_MOST_WORDS_MOVED} words"
            raise EvaluatorError(f"output and reference have {most} each: TER would search for minutes")
        found = self._metric.sentence_score(output, references)
        return found.score, (found.num_edits, found.ref_length)

    def _figure(self) -> Callable[[Floats], Floats]:
        from llmops.stats.corpus import ter

        return ter
