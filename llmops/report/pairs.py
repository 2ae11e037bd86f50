"""Which cases a page shows, baseline and candidate side by side: those that flipped, and those that scored worst.

Says which, and reads only their rows with the steps that led to them; how they look is left to `html`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from llmops.definitions.dataset import Case
from llmops.records import Comparison, Effect, Flip, Row, Run
from llmops.records import Side as Place
from llmops.report import texts
from llmops.report.cases import Source, first_rows, telling_effect
from llmops.report.sentences import Tone
from llmops.report.survey import Bad

MOST = 25
"""Cases in one gallery."""
_MOST_IN_ALL = 100
"""Cases of all comparisons together; each gets an equal share."""
N_WORST = MOST + 2 * _MOST_IN_ALL
"""Worst scores that are needed to show `MOST` of them, however many of their cases are shown as flipped."""


@dataclass(frozen=True, slots=True)
class Side:
    """What one variant gave for a case. role: its part in the comparison, empty where there is none."""

    name: str
    role: str
    row: Row | None


@dataclass(frozen=True, slots=True)
class Pair:
    """A case as one or two variants answered it. said: what became of its score."""

    case_id: str
    said: str
    tone: Tone
    sides: tuple[Side, ...]

    @property
    def case(self) -> Case | None:
        """The case, where any side has it."""
        return next((side.row.case for side in self.sides if side.row is not None), None)


@dataclass(frozen=True, slots=True)
class Gallery:
    """Cases shown for one reason. n_more: how many more there are."""

    title: str
    pairs: tuple[Pair, ...]
    n_more: int = 0


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A pair whose rows are still to be read."""

    case_id: str
    said: str
    tone: Tone
    places: tuple[tuple[Place, str], ...]


@dataclass(frozen=True, slots=True)
class _Plan:
    title: str
    wanted: tuple[_Wanted, ...]
    n_more: int = 0


def flipped_and_worst(
    run: Run, comparisons: Sequence[Comparison], source: Source, worst: Sequence[Bad]
) -> list[Gallery]:
    """Return the cases that got worse, those that got better, and of the rest those with the worst scores.

    worst: more of them than are shown, since those that flipped are left out. Each variant is read once, no further
    than its last case wanted.
    """
    evaluators = [evaluator.name for evaluator in run.evaluators]
    plans = [
        plan
        for comparison in comparisons[:_MOST_IN_ALL]
        for plan in _flips(comparison, evaluators, _share(len(comparisons)))
    ]
    flipped = {wanted.case_id for plan in plans for wanted in plan.wanted}
    plans += _bad_scores(run, comparisons, [bad for bad in worst if bad.case_id not in flipped])
    find = _read(plans, source)
    return [
        Gallery(plan.title, tuple(_pair(wanted, find) for wanted in plan.wanted), plan.n_more)
        for plan in plans
    ]


def flipped(comparison: Comparison, source: Source, *, most: int) -> list[Gallery]:
    """Return the cases that got worse and those that got better, at most so many of each, without their steps."""
    metrics = [effect.metric for effect in comparison.effects]
    plans = list(_flips(comparison, metrics, most))
    find = _read(plans, source, with_spans=False)
    return [
        Gallery(plan.title, tuple(_pair(wanted, find) for wanted in plan.wanted), plan.n_more)
        for plan in plans
    ]


def _share(n_comparisons: int) -> int:
    return max(1, min(MOST, _MOST_IN_ALL // (2 * n_comparisons)))


def _flips(comparison: Comparison, evaluators: Sequence[str], most: int) -> Iterable[_Plan]:
    effect = telling_effect(comparison, evaluators)
    if effect is None:
        return
    kinds: tuple[tuple[Tone, str, tuple[Flip, ...]], ...] = (
        ("bad", "worse", effect.regressed),
        ("good", "better", effect.improved),
    )
    places = _places(comparison)
    name = texts.side_names(comparison)[1]
    for tone, word, flips in kinds:
        if flips:
            title = f"{texts.one_line(effect.metric)}: {texts.count(len(flips), 'case')} {word} with {name}"
            wanted = tuple(
                _Wanted(flip.case_id, _change(effect, flip, word), tone, places) for flip in flips[:most]
            )
            yield _Plan(title, wanted, len(flips) - len(wanted))


def _change(effect: Effect, flip: Flip, word: str) -> str:
    before, after = (texts.quantity(effect.metric, value) for value in (flip.baseline, flip.candidate))
    return f"{texts.one_line(effect.metric)} {before} → {after}, {word}"


def _places(comparison: Comparison) -> tuple[tuple[Place, str], ...]:
    return (comparison.baseline, "baseline"), (comparison.candidate, "candidate")


def _bad_scores(run: Run, comparisons: Sequence[Comparison], worst: Sequence[Bad]) -> list[_Plan]:
    if not worst:
        return []
    metric = run.evaluators[0].name
    pairs = {comparison.candidate.variant: _places(comparison) for comparison in comparisons}
    alone = {
        variant.name: Place(
            run_id=run.id, variant=variant.name, definition=variant.definition, identity=variant.identity
        )
        for variant in run.variants
    }
    wanted = tuple(
        _Wanted(
            bad.case_id,
            f"{texts.one_line(metric)} {texts.quantity(metric, bad.value)} with {texts.one_line(bad.variant)}",
            "plain",
            pairs.get(bad.variant, ((alone[bad.variant], ""),)),
        )
        for bad in worst[:MOST]
    )
    besides = ", but for those above" if comparisons else ""
    which = "highest" if run.evaluators[0].lower_is_better else "lowest"
    return [_Plan(f"{texts.one_line(metric)}: the {which} scores{besides}", wanted)]


Finder = Callable[[Place, str], Row | None]


def _read(plans: Sequence[_Plan], source: Source, *, with_spans: bool = True) -> Finder:
    """Read the rows of all that is wanted and return how to find one."""
    ids: dict[tuple[str, str], set[str]] = {}
    for wanted in (wanted for plan in plans for wanted in plan.wanted):
        for place, _ in wanted.places:
            ids.setdefault((place.run_id, place.variant), set()).add(wanted.case_id)
    rows = {key: first_rows(source, *key, case_ids, with_spans=with_spans) for key, case_ids in ids.items()}
    return lambda place, case_id: rows[place.run_id, place.variant].get(case_id)


def _pair(wanted: _Wanted, find: Finder) -> Pair:
    sides = tuple(Side(place.variant, role, find(place, wanted.case_id)) for place, role in wanted.places)
    return Pair(wanted.case_id, wanted.said, wanted.tone, sides)
