"""How an extracted answer is scored in question answering: SQuAD's exact match, and the F1 of shared words.

Both read text as the official evaluation script of SQuAD 2.0 does (Rajpurkar et al. 2018, `evaluate-v2.0.py`), on
answers that can be unanswerable too; scores run from 0 to 1 where the script prints percent.
"""

from __future__ import annotations

import re
import string
from collections import Counter

from llmops.definitions.base import Definition
from llmops.evaluators.base import Judgement, Subject
from llmops.evaluators.texts import accepted_texts, output_text, shown

_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def squad_words(text: str) -> list[str]:
    """Return the words of an answer: lower case, without ASCII punctuation and without a, an, the."""
    return _ARTICLES.sub(" ", text.lower().translate(_WITHOUT_PUNCTUATION)).split()


class SquadExactMatch:
    """1 when the output has the same words in the same order as an accepted answer, 0 otherwise.

    Words as in `squad_words`. `expected` is a text, or a list of accepted answers of which the best counts. An
    empty text, or an empty list, says that there is no answer: then an output without words is right.
    """

    class Options(Definition):
        """There are none."""

    version = "1"
    low: float | None = 0.0
    high: float | None = 1.0
    needs_expected = True

    def __init__(self, options: Options) -> None:
        self.options = options

    @staticmethod
    def parts(_: Options) -> tuple[str, ...]:
        """Return the parts of its scores: there are none."""
        return ()

    async def judge(self, subject: Subject) -> Judgement:
        """Return 1 or 0.

        Raises EvaluatorError when the output is no text, or `expected` neither a text nor a list of texts.
        """
        found, answers = squad_words(output_text(subject)), _answers(subject)
        if found in answers:
            return Judgement(1.0)
        return Judgement(0.0, _difference(subject, answers))


class TokenF1:
    """How many words an output shares with an accepted answer: F1 of precision and recall, 0 to 1.

    Words as in `squad_words`, counted as often as both have them. `expected` is a text, or a list of accepted
    answers of which the best counts. An empty text, or an empty list, says that there is no answer: then an
    output without words has 1 and any other 0.
    """

    class Options(Definition):
        """There are none."""

    version = "1"
    low: float | None = 0.0
    high: float | None = 1.0
    needs_expected = True

    def __init__(self, options: Options) -> None:
        self.options = options

    @staticmethod
    def parts(_: Options) -> tuple[str, ...]:
        """Return the parts of its scores: there are none."""
        return ()

    async def judge(self, subject: Subject) -> Judgement:
        """Return the best F1.

        Raises EvaluatorError when the output is no text, or `expected` neither a text nor a list of texts.
        """
        found, answers = squad_words(output_text(subject)), _answers(subject)
        best = max(_f1(found, answer) for answer in answers)
        return Judgement(best, None if best == 1 else _difference(subject, answers))


def _answers(subject: Subject) -> list[list[str]]:
    """Return the words of each accepted answer; a single empty list where there is no answer to find."""
    answers = [squad_words(text) for text in accepted_texts(subject)]
    return [answer for answer in answers if answer] or [[]]


def _f1(found: list[str], answer: list[str]) -> float:
    if not found or not answer:
        return float(found == answer)
    n_shared = (Counter(found) & Counter(answer)).total()
    if n_shared == 0:
        return 0.0
    # The official script's order of operations, to the last bit.
    precision, recall = n_shared / len(found), n_shared / len(answer)
    return (2 * precision * recall) / (precision + recall)


def _difference(subject: Subject, answers: list[list[str]]) -> str:
    said = shown(output_text(subject))
    if answers == [[]]:
        return f"{said}, where there is no answer"
    if len(answers) > 1:
        return f"{said} has not all the words of any of the {len(answers)} accepted answers, or others too"
    return f"{said}, expected {shown(' '.join(answers[0]))}"
