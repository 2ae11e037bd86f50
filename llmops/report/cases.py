"""Which cases to look at: those that flipped, or those scored worst, each with what was asked and answered.

Reads outputs from the journal, once over each variant and no further than the last case wanted.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from llmops.definitions.dataset import Case
from llmops.records import Comparison, Effect, Flip, Row, Run
from llmops.report import texts

MOST = 5


class Source(Protocol):
    """Where runs and their rows are read from: the journal."""

    def rows(self, run_id: str, *, variant: str | None = None, with_spans: bool = True) -> Iterable[Row]:
        """Yield the rows of a run, or of one of its variants, first repeats first."""

    def find_run(self, run_id: str) -> Run | None:
        """Return the run of an id."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One case as a report shows it: a heading, and labelled lines under it, all printable."""

    heading: str
    lines: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Gallery:
    """Cases shown for one reason, worst first."""

    title: str
    cases: tuple[Shown, ...]


def run_galleries(run: Run, comparisons: Sequence[Comparison], source: Source) -> list[Gallery]:
    """Return the cases to look at in a run: errors, then flips, or the lowest scores without a comparison."""
    evaluators = [evaluator.name for evaluator in run.evaluators]
    galleries = failed_cases(run, source)
    for comparison in comparisons:
        galleries += flipped_cases(comparison, evaluators, source)
    return galleries if comparisons else galleries + worst_cases(run, source)


def flipped_cases(comparison: Comparison, evaluators: Sequence[str], source: Source) -> list[Gallery]:
    """Return the cases that got worse and those that got better, on the first evaluator that tells any apart.

    At most five each, largest change first.
    """
    effect = telling_effect(comparison, evaluators)
    if effect is None:
        return []
    kinds = {"worse": effect.regressed, "better": effect.improved}
    wanted = {flip.case_id for flips in kinds.values() for flip in flips[:MOST]}
    sides = (comparison.baseline, comparison.candidate)
    rows = [first_rows(source, side.run_id, side.variant, wanted) for side in sides]
    names = texts.side_names(comparison)
    galleries = []
    for word, flips in kinds.items():
        n = texts.count(len(flips), "case")
        title = f"{texts.one_line(effect.metric)}: {n} {word} with {names[1]}{_of(len(flips))}"
        found = [(flip, [side.get(flip.case_id) for side in rows]) for flip in flips[:MOST]]
        labels = names if sides[0].variant != sides[1].variant else ("baseline", "candidate")
        galleries.append(Gallery(title, tuple(_flipped(flip, effect, labels, pair) for flip, pair in found)))
    return [gallery for gallery in galleries if gallery.cases]


def telling_effect(comparison: Comparison, evaluators: Sequence[str]) -> Effect | None:
    """Return the effect on the first evaluator that tells any cases apart."""
    scored = (effect for effect in comparison.effects if effect.metric in evaluators)
    return next((effect for effect in scored if effect.improved or effect.regressed), None)


def _of(n: int) -> str:
    return f", the {MOST} largest changes" if n > MOST else ""


def _flipped(flip: Flip, effect: Effect, names: Sequence[str], rows: Sequence[Row | None]) -> Shown:
    before, after = (texts.quantity(effect.metric, value) for value in (flip.baseline, flip.candidate))
    case = next((row.case for row in rows if row is not None), None)
    answers = list(zip(names, texts.from_difference(*map(_answer, rows)), strict=True))
    lines = answers if case is None else [*_question(case), *answers]
    return Shown(f"{texts.one_line(flip.case_id)}  {before} -> {after}", tuple(lines))


def worst_cases(run: Run, source: Source) -> list[Gallery]:
    """Return at most five outputs with the worst scores of the first evaluator, none with its best score."""
    if not run.evaluators:
        return []
    evaluator = run.evaluators[0]
    sign, best = (-1, evaluator.low) if evaluator.lower_is_better else (1, evaluator.high)
    scored = (
        (sign * score.value, row.case.id, row.variant, row.repeat, row, score.rationale)
        for row in source.rows(run.id, with_spans=False)
        for score in row.scores
        if score.evaluator == evaluator.name and score.value is not None
    )
    below = (found for found in scored if best is None or found[0] < sign * best)
    shown = []
    for value, case_id, variant, _, row, why in heapq.nsmallest(MOST, below, key=lambda found: found[:4]):
        score = texts.quantity(evaluator.name, sign * value)
        reason = [("why", texts.one_line(why))] if why else []
        lines = (*_question(row.case), ("output", _answer(row)), *reason)
        shown.append(Shown(f"{texts.one_line(case_id)}  {texts.one_line(variant)}  {score}", lines))
    which = "highest" if evaluator.lower_is_better else "lowest"
    return [Gallery(f"{texts.one_line(evaluator.name)}: the {which} scores", tuple(shown))] if shown else []


def failed_cases(run: Run, source: Source) -> list[Gallery]:
    """Return one case for each kind of error, the most frequent first, and how often each was met."""
    if not run.n_errors:
        return []
    kinds: Counter[str] = Counter()
    examples: dict[str, tuple[tuple[str, str], ...]] = {}
    for row in source.rows(run.id, with_spans=False):
        error = None if row.output is None else row.output.error
        if error is not None:
            kinds[error.kind] += 1
            place = f"{texts.one_line(row.variant)} on {texts.one_line(row.case.id)}"
            examples.setdefault(error.kind, (("first", place), ("says", texts.one_line(error.message))))
    cells = texts.count(run.n_cells, "cell")
    shown = [
        Shown(f"{texts.one_line(kind)}  {n:,} of {cells}", examples[kind])
        for kind, n in kinds.most_common(MOST)
    ]
    return [Gallery("Errors", tuple(shown))] if shown else []


def first_rows(
    source: Source, run_id: str, variant: str, wanted: Iterable[str], *, with_spans: bool = False
) -> dict[str, Row]:
    """Return the first repeat of each wanted case, and read no further."""
    left = set(wanted)
    found: dict[str, Row] = {}
    for row in source.rows(run_id, variant=variant, with_spans=with_spans):
        if row.case.id in left:
            found[row.case.id] = row
            left.discard(row.case.id)
        if not left:
            break
    return found


def _question(case: Case) -> list[tuple[str, str]]:
    inputs = next(iter(case.inputs.values())) if len(case.inputs) == 1 else dict(case.inputs)
    return [("input", texts.value_text(inputs)), ("expected", texts.value_text(case.expected))]


def _answer(row: Row | None) -> str:
    output = None if row is None else row.output
    if output is None:
        return "(no output)"
    if output.error is not None:
        return f"({texts.one_line(output.error.kind)}: {texts.one_line(output.error.message)})"
    return texts.value_text(output.value)
