"""Whether an output names the right class, and what that comes to over all cases: F1, precision, recall.

The one evaluator whose figures are no means over cases. scikit-learn works them out, in `figures`; it and numpy
are imported when a summary is asked for, since neither a judgement nor `check` needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from llmops.definitions.base import Definition
from llmops.errors import EvaluatorError, nearest
from llmops.evaluators.base import Judgement, Subject, Summed
from llmops.evaluators.figures import Aside, ClassFigures, class_figures
from llmops.evaluators.statistics import resampled, rough_note
from llmops.evaluators.texts import as_text, expected_of, normal_form, shown, storable
from llmops.records import Figure, Interval, Status

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from llmops.stats.arrays import Floats
    from llmops.stats.bootstrap import Statistic

OTHER = "(other)"
"""The class of outputs that name none of the labels: always wrong, and in no average."""

_FAILED = {Status.ERROR, Status.CRASHED}
_LONGEST_LABEL = 200


@dataclass(frozen=True, slots=True)
class Classified:
    """Scored cases as codes: of each, the place of its truth and its label in `labels`.

    found: len(labels) stands for OTHER.
    """

    labels: tuple[str, ...]
    truth: tuple[int, ...]
    found: tuple[int, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each code."""
        return (*self.labels, OTHER)


class Classification:
    """1 when the output names the class that is expected, 0 otherwise; label and truth go with the score.

    The summary has `accuracy`, `macro_f1`, and `f1.LABEL`, `precision.LABEL`, `recall.LABEL`. Macro F1 is the
    plain mean of the F1 of all classes that some case expects, so that two variants on the same cases are
    averaged over the same classes; a wrong answer outside the labels costs its true class the recall.
    """

    class Options(Definition):
        """labels: the classes; without them those that the scored cases expect.

        normalise: labels, expected and output mean the same by their `texts.normal_form`.
        """

        labels: tuple[str, ...] | None = Field(default=None, min_length=2)
        normalise: bool = True

        @model_validator(mode="after")
        def _labels_differ(self) -> Classification.Options:
            seen: dict[str, str] = {}
            for label in self.labels or ():
                key = label_key(label, normalise=self.normalise)
                if key in seen:
                    raise ValueError(f"{seen[key]!r} and {label!r} are the same label")
                seen[key] = label
            if OTHER in seen.values():
                raise ValueError(f"{OTHER!r} is kept for answers that are none of the labels")
            return self

    version = "1"
    low: float | None = 0.0
    high: float | None = 1.0
    needs_expected = True

    def __init__(self, options: Options) -> None:
        self.options = options
        self._declared = {self._key(label): label for label in options.labels or ()}
        self._figures: Callable[[Sequence[int], Sequence[int], int], ClassFigures] = class_figures

    @contextmanager
    def ahead(self) -> Iterator[None]:
        """Have scikit-learn ready in a process of its own until the block ends: summaries then wait for less."""
        aside = Aside()
        self._figures = aside.figures
        try:
            yield
        finally:
            self._figures = class_figures
            aside.close()

    async def judge(self, subject: Subject) -> Judgement:
        """Return 1 or 0 with label and truth; OTHER for a case that failed, whatever it holds.

        Raises EvaluatorError when the case expects nothing, or what is none of the labels.
        """
        truth = self._truth(subject)
        label = OTHER if subject.status in _FAILED else self._label(subject.output, truth)
        if label == truth:
            return Judgement(1.0, label=label, truth=truth)
        return Judgement(0.0, f"{shown(label)} is not {shown(truth)}", label=label, truth=truth)

    def summarise(
        self, scores: Sequence[Summed], clusters: Sequence[str] | None, *, level: float, seed: int
    ) -> Mapping[str, Figure]:
        """Return accuracy, macro F1 and the figures of each label; scores without value or truth are missing.

        A figure that nobody knows, such as the precision of a label never given, has None as its value.
        """
        owners = clusters if clusters is not None else [""] * len(scores)
        kept = [row for row in zip(scores, owners, strict=True) if self.is_summed(row[0])]
        # The bootstrap draws cases by place: sorted, the order in which they came changes nothing.
        kept.sort(key=lambda row: (row[1], row[0].truth, row[0].label))
        n_missing = len(scores) - len(kept)
        if not kept:
            nobody_knows = Figure(value=None, kind="statistic", n=0, n_missing=n_missing)
            return {"accuracy": nobody_knows.model_copy(update={"kind": "share"}), "macro_f1": nobody_knows}
        cases = self.classify([score for score, _ in kept])
        drawn = [cluster for _, cluster in kept] if clusters is not None else None
        found = self._figures(cases.truth, cases.found, len(cases.labels))
        n = len(cases.truth)
        return {
            "accuracy": Figure(
                value=found.accuracy,
                kind="share",
                n=n,
                n_missing=n_missing,
                interval=_accuracy_interval(cases, drawn, level),
            ),
            "macro_f1": Figure(
                value=found.macro_f1,
                kind="statistic",
                n=n,
                n_missing=n_missing,
                interval=resampled(macro_f1_statistic(cases), n, clusters=drawn, level=level, seed=seed),
                note=rough_note(n),
            ),
            **_label_figures(cases, found, n_missing),
        }

    def is_summed(self, score: Summed) -> bool:
        """Say whether a score counts: it has a value, and a truth beside its label."""
        return score.value is not None and score.truth is not None

    def statistics(self, scores: Sequence[Summed]) -> Mapping[str, Statistic]:
        """Return macro F1 as a function of weights of the scores."""
        return {"macro_f1": macro_f1_statistic(self.classify(scores))}

    def confusion(self, scores: Sequence[Summed]) -> list[tuple[str, str, int]]:
        """Return how often each truth met each label, as (truth, label, count), sorted, without the zeros."""
        cases = self.classify([score for score in scores if self.is_summed(score)])
        if not cases.truth:
            return []
        matrix = self._figures(cases.truth, cases.found, len(cases.labels)).confusion
        rows = zip(cases.names, matrix, strict=True)
        cells = ((truth, *cell) for truth, row in rows for cell in zip(cases.names, row, strict=True))
        return [cell for cell in cells if cell[2]]

    def classify(self, scores: Sequence[Summed]) -> Classified:
        """Return scored cases as codes, in their order; a paired comparison asks for each side on its own.

        scores: all with a truth. Sides with the same truths have the same codes.
        """
        truths = [score.truth or "" for score in scores]
        labels = self._labels(truths)
        codes = {self._key(label): code for code, label in enumerate(labels)}
        found = [_code(score.label or OTHER, self._key(score.label or OTHER), codes) for score in scores]
        return Classified(labels, tuple(codes[self._key(truth)] for truth in truths), tuple(found))

    def _key(self, label: str) -> str:
        return label_key(label, normalise=self.options.normalise)

    def _labels(self, truths: Sequence[str]) -> tuple[str, ...]:
        """Return the declared labels, or else each class among the truths in the first of its spellings."""
        spellings = self._declared or {self._key(truth): truth for truth in sorted(truths, reverse=True)}
        return tuple(sorted(spellings.values()))

    def _truth(self, subject: Subject) -> str:
        text = storable(as_text(expected_of(subject))).strip()
        truth = self._declared.get(self._key(text)) if self._declared else text
        if truth is None:
            hint = nearest(text, self._declared.values()) or f"labels: {', '.join(self._declared.values())}"
            raise EvaluatorError(
                f"case {subject.case_id!r} expects {shown(text)}, none of the labels; {hint}"
            )
        if not 0 < len(truth) <= _LONGEST_LABEL or truth == OTHER:
            raise EvaluatorError(f"case {subject.case_id!r} expects {shown(text)}, which cannot be a label")
        return truth

    def _label(self, output: Any, truth: str) -> str:
        key = self._key(storable(as_text(output)))
        if key == self._key(truth):
            return truth
        return self._declared.get(key, OTHER) if self._declared else key[:_LONGEST_LABEL] or OTHER


def label_key(text: str, *, normalise: bool) -> str:
    """Return what the spellings of one label share: the normal form, or else the text, trimmed."""
    return normal_form(text) if normalise else text.strip()


def macro_f1_statistic(cases: Classified) -> Statistic:
    """Return macro F1 as a function of resampling weights, shape (rows, n), for `stats.bootstrap`.

    Each row is averaged over the classes expected in it, as the plain figure is over those expected at all.
    """
    import numpy as np

    from llmops.stats.bootstrap import macro_f1

    n_codes = len(cases.names)
    truth, found = np.asarray(cases.truth), np.asarray(cases.found)
    membership = (truth[:, np.newaxis] == np.arange(n_codes)).astype(np.float32)

    def statistic(weights: npt.NDArray[np.intp]) -> Floats:
        n_expected = np.count_nonzero(weights.astype(np.float32) @ membership, axis=1)
        # A class that a row does not expect has an F1 of 0 there, so the sum over all codes is the same.
        return np.asarray(macro_f1(truth, found, n_codes, weights) * n_codes / n_expected)

    return statistic


def _code(label: str, key: str, codes: Mapping[str, int]) -> int:
    return len(codes) if label == OTHER else codes.get(key, len(codes))


def _accuracy_interval(cases: Classified, clusters: Sequence[str] | None, level: float) -> Interval:
    from llmops.stats.intervals import mean_interval

    hits = [float(truth == found) for truth, found in zip(cases.truth, cases.found, strict=True)]
    low, high = mean_interval(hits, low=0.0, high=1.0, level=level, clusters=clusters)
    return Interval(low=low, high=high, level=level)


def _label_figures(cases: Classified, found: ClassFigures, n_missing: int) -> dict[str, Figure]:
    """Return precision over the cases given a label, recall over those that expect it, F1 over either."""
    codes = range(len(cases.labels))
    given = [sum(row[code] for row in found.confusion) for code in codes]
    either = [found.expected[code] + given[code] - found.confusion[code][code] for code in codes]
    table = {
        "f1": (found.f1, either),
        "precision": (found.precision, given),
        "recall": (found.recall, found.expected),
    }
    return {
        f"{name}.{label}": _label_figure(values[code], counts[code], n_missing)
        for name, (values, counts) in table.items()
        for code, label in enumerate(cases.labels)
    }


def _label_figure(value: float | None, n: int, n_missing: int) -> Figure:
    if n == 0:
        return Figure(value=None, kind="statistic", n=0, n_missing=n_missing, note="no case to tell from")
    return Figure(value=value, kind="statistic", n=n, n_missing=n_missing)
