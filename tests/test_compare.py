"""Pairing, effects and flips against hand-made runs, on a real journal and by law."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmops.compare import compare_run, compare_variants
from llmops.compare.sides import Finder, Side, pair_sides
from llmops.definitions.base import identity_of
from llmops.definitions.dataset import Case
from llmops.definitions.workspace import load_workspace
from llmops.errors import UsageError
from llmops.records import (
    Comparison,
    DatasetVersion,
    Effect,
    EvaluatorVersion,
    Figure,
    Flip,
    Output,
    Row,
    Run,
    RunStatus,
    Score,
    Status,
    Variant,
)
from llmops.stats.intervals import geometric_ratio_interval, mean_interval_unbounded
from llmops.stats.paired import paired_interval
from llmops.stores.journal import Cell, Journal, open_journal
from tests.stores.samples import Batch, apply

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

NOW = datetime(2026, 5, 4, tzinfo=UTC)
LAW = settings(deadline=None, max_examples=40)
EXACT = EvaluatorVersion(name="exact", kind="exact_match", identity="e" * 64, low=0.0, high=1.0)
OPEN = EvaluatorVersion(name="length", kind="python", identity="f" * 64)


@dataclass
class Memory:
    """Runs and their rows, kept in the order they were given."""

    kept: dict[str, list[Row]] = field(default_factory=dict)

    def numbers(self, run_id: str, *, variant: str) -> Iterator[Row]:
        return (row for row in self.kept[run_id] if row.variant == variant)


def variant(name: str, **fields: Any) -> Variant:
    return Variant(
        name=name,
        definition="prompts/triage",
        reference="triage",
        definition_identity="d" * 64,
        identity=identity_of(name),
        models=(),
        **fields,
    )


def make_run(
    *variants: Variant,
    run_id: str = "triage-1",
    version: str = "v1",
    evaluators: Sequence[EvaluatorVersion] = (EXACT,),
    **fields: Any,
) -> Run:
    return Run(
        id=run_id,
        identity=identity_of(run_id),
        status=RunStatus.COMPLETE,
        created_at=NOW,
        dataset=DatasetVersion(
            name="tickets", split="test", version=version, n_cases=0, path="tickets.jsonl"
        ),
        variants=variants or (variant("old", is_baseline=True), variant("new")),
        evaluators=tuple(evaluators),
        repeats=1,
        seed=0,
        n_cells=0,
        **({"experiment": "triage"} | fields),
    )


def case(number: int, **fields: Any) -> Case:
    return Case(id=f"c{number:03}", inputs={"q": str(number)}, **({"expected": "yes"} | fields))


def row(
    name: str,
    of: Case,
    value: float | None = None,
    *,
    repeat: int = 0,
    parts: Mapping[str, float] | None = None,
    evaluator: EvaluatorVersion = EXACT,
    **output: Any,
) -> Row:
    score = Score(
        evaluator=evaluator.name,
        evaluator_identity=evaluator.identity,
        value=value,
        parts=parts or {},
        error="absent" if value is None else None,
    )
    cell_id = identity_of([name, of.id, repeat])
    fields: dict[str, Any] = {"value": "yes", "created_at": NOW} | output
    found = Output(cell_id=cell_id, **fields)
    return Row(variant=name, repeat=repeat, case=of, output=found, scores=(score,))


def two_sides(
    pairs: Iterable[tuple[float | None, float | None]],
    cases: Sequence[Case] | None = None,
    evaluator: EvaluatorVersion = EXACT,
) -> list[Row]:
    rows = []
    for number, (before, after) in enumerate(pairs):
        of = cases[number] if cases else case(number)
        rows.append(row("old", of, before, evaluator=evaluator))
        rows.append(row("new", of, after, evaluator=evaluator))
    return rows


def compare(rows: Sequence[Row], run: Run | None = None, **options: Any) -> Comparison:
    run = run or make_run()
    return compare_variants(Memory({run.id: list(rows)}), (run, "old"), (run, "new"), now=NOW, **options)


def effect_of(comparison: Comparison, metric: str) -> Effect:
    return next(effect for effect in comparison.effects if effect.metric == metric)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = open_journal("sqlite:///store.db", root=tmp_path)
    yield opened
    opened.close()


def store(journal: Journal, run: Run, rows: Sequence[Row] = ()) -> None:
    """Put a run and its rows where `llmops run` would have put them."""
    cells, outputs, scores = [], [], []
    for position, kept in enumerate(rows):
        assert kept.output is not None
        key, cell_id = kept.case.key(), kept.output.cell_id
        cells.append((Cell(position, kept.variant, kept.repeat, kept.case.id, key, cell_id), kept.case))
        outputs.append(kept.output)
        scores += [(cell_id, key, score) for score in kept.scores]
    journal.begin_run(run, cells)
    apply(journal, Batch(outputs=outputs, scores=scores))
    journal.save_run(run)


# --- one metric ---------------------------------------------------------------------------------------------


def test_effect_is_the_paired_difference_with_its_interval_and_flips(journal: Journal) -> None:
    run = make_run()
    store(journal, run, two_sides([(1, 1), (0, 1), (1, 0), (0, 1), (0, 0), (0.5, 1)]))
    comparison = compare_variants(journal, (run, "old"), (run, "new"), now=NOW)
    effect = effect_of(comparison, "exact")
    before, after = [1, 0, 1, 0, 0, 0.5], [1, 1, 0, 1, 0, 1]
    low, high = paired_interval(before, after, low=0, high=1, level=0.9)
    assert (effect.baseline, effect.candidate) == pytest.approx((2.5 / 6, 4 / 6))
    assert effect.estimate == pytest.approx(1.5 / 6)
    assert effect.interval is not None
    assert (effect.interval.low, effect.interval.high, effect.interval.level) == (low, high, 0.9)
    assert [flip.case_id for flip in effect.improved] == ["c001", "c003", "c005"]
    assert effect.regressed == (Flip(case_id="c002", baseline=1, candidate=0),)
    assert (effect.n, effect.n_missing, effect.n_clusters) == (6, 0, None)
    assert (comparison.n_cases, comparison.n_unpaired, comparison.dataset) == (6, 0, "tickets/test")
    assert comparison.candidate.variant == "new"
    assert comparison.baseline.identity == identity_of("old")


VALUES = st.floats(0, 1) | st.sampled_from([0.0, 0.5, 1.0])
PAIRS = st.lists(st.tuples(VALUES, VALUES | st.none()), min_size=1, max_size=12)


@LAW
@given(PAIRS, st.booleans())
def test_swapping_the_sides_flips_effect_interval_and_flips(
    pairs: list[tuple[float, float | None]], in_clusters: bool
) -> None:
    cases = [case(n, cluster=str(n // 2) if in_clusters else None) for n in range(len(pairs))]
    forth = effect_of(compare(two_sides(pairs, cases)), "exact")
    back = effect_of(compare(two_sides([(new, old) for old, new in pairs], cases)), "exact")
    assert (forth.n, forth.n_missing, forth.n_clusters) == (back.n, back.n_missing, back.n_clusters)
    assert [flip.case_id for flip in forth.improved] == [flip.case_id for flip in back.regressed]
    assert [flip.case_id for flip in forth.regressed] == [flip.case_id for flip in back.improved]
    if forth.estimate is None or forth.interval is None:
        assert back.estimate is None
        return
    assert back.estimate is not None
    assert back.interval is not None
    assert back.estimate == -forth.estimate
    assert (back.interval.low, back.interval.high) == (-forth.interval.high, -forth.interval.low)


@LAW
@given(PAIRS, st.floats(0.5, 0.9), st.floats(0.9, 0.99))
def test_wider_level_contains_the_narrower(
    pairs: list[tuple[float, float | None]], level: float, wider: float
) -> None:
    rows = two_sides(pairs)
    inner = effect_of(compare(rows, level=level), "exact").interval
    outer = effect_of(compare(rows, level=wider), "exact").interval
    if inner is None:
        assert outer is None
        return
    assert outer is not None
    assert outer.low <= inner.low + 1e-12
    assert outer.high >= inner.high - 1e-12


@LAW
@given(st.data(), st.lists(st.tuples(VALUES, VALUES, VALUES, st.floats(0.01, 9)), min_size=2, max_size=8))
def test_order_of_rows_changes_nothing(
    data: st.DataObject, values: list[tuple[float, float, float, float]]
) -> None:
    rows = []
    for number, (before, once, again, latency_s) in enumerate(values):
        of = case(number, slice=str(number % 2))
        rows.append(row("old", of, before, latency_s=latency_s))
        rows.append(row("new", of, once, latency_s=1.0))
        rows.append(row("new", of, again, repeat=1, latency_s=latency_s))
    assert compare(data.draw(st.permutations(rows))) == compare(rows)


def test_repeats_are_averaged_before_cases_are_counted() -> None:
    rows = []
    for number, (once, again) in enumerate([(1, 0), (1, 1), (0, 0)]):
        rows.append(row("old", case(number), 0.5))
        rows += [row("new", case(number), once), row("new", case(number), again, repeat=1)]
    effect = effect_of(compare(rows), "exact")
    low, high = paired_interval([0.5] * 3, [0.5, 1, 0], low=0, high=1, level=0.9)
    assert effect.n == 3
    assert effect.interval is not None
    assert (effect.interval.low, effect.interval.high) == (low, high)
    assert [flip.case_id for flip in effect.improved] == ["c001"]


def test_a_score_that_is_absent_is_missing_and_never_0() -> None:
    effect = effect_of(compare(two_sides([(1, 1), (1, None), (None, 0), (None, None)])), "exact")
    assert (effect.n, effect.n_missing, effect.estimate) == (1, 2, 0)
    assert (effect.baseline, effect.candidate) == (1, 1)
    assert effect.improved == effect.regressed == ()


def test_a_metric_without_any_pair_says_so() -> None:
    comparison = compare(two_sides([(1, None), (None, 0)]))
    assert effect_of(comparison, "exact").note == "no case has it on both sides"
    assert effect_of(comparison, "ttft_s").note == "not measured on either side"


def test_dust_of_floating_point_is_no_flip() -> None:
    rows = []
    for number in range(3):
        rows += [row("old", case(number), 0.1), row("old", case(number), 0.2, repeat=1)]
        rows += [row("new", case(number), 0.15), row("new", case(number), 0.15 + 1e-12, repeat=1)]
    effect = effect_of(compare(rows), "exact")
    assert effect.estimate == 0
    assert effect.improved == effect.regressed == ()


def test_flips_come_largest_first_and_ties_by_case_id() -> None:
    effect = effect_of(compare(two_sides([(0.2, 0.3), (0, 1), (0.5, 0.6), (0.1, 0.6)])), "exact")
    assert [flip.case_id for flip in effect.improved] == ["c001", "c003", "c000", "c002"]


def test_a_score_outside_the_range_of_its_evaluator_gives_no_effect() -> None:
    effect = effect_of(compare(two_sides([(0, 5), (1, 1)])), "exact")
    assert effect.estimate is None
    assert effect.interval is None
    assert "outside" in (effect.note or "")


def test_clusters_are_respected_and_cases_without_one_stand_alone() -> None:
    pairs = [(0, 1), (0, 1), (1, 0), (0, 0), (1, 1), (0, 1)]
    cases = [case(n, cluster=label) for n, label in enumerate(["a", "a", "b", "b", None, None])]
    effect = effect_of(compare(two_sides(pairs, cases)), "exact")
    before, after = zip(*pairs, strict=True)
    labels = ["a", "a", "b", "b", "c004", "c005"]
    low, high = paired_interval(before, after, low=0, high=1, level=0.9, clusters=labels)
    assert effect.n_clusters == 4
    assert effect.interval is not None
    assert (effect.interval.low, effect.interval.high) == (low, high)
    assert (low, high) != paired_interval(before, after, low=0, high=1, level=0.9)


def test_open_scores_above_0_are_compared_as_a_ratio() -> None:
    run = make_run(evaluators=[OPEN])
    pairs = [(10.0, 20.0), (5.0, 8.0), (7.0, 14.0)]
    effect = effect_of(compare(two_sides(pairs, evaluator=OPEN), run), "length")
    found = geometric_ratio_interval(*zip(*pairs, strict=True), level=0.9)
    assert found is not None
    assert effect.scale == "ratio"
    assert effect.interval is not None
    assert (effect.estimate, effect.interval.low, effect.interval.high) == pytest.approx(found)
    assert effect.baseline is not None
    assert effect.candidate is not None
    assert effect.candidate / effect.baseline == pytest.approx(effect.estimate)
    assert [flip.case_id for flip in effect.improved] == ["c000", "c002", "c001"]


def test_open_scores_that_reach_0_are_compared_as_a_difference_slices_too() -> None:
    run = make_run(evaluators=[OPEN])
    cases = [case(n, slice="zero" if n == 0 else "rest") for n in range(4)]
    pairs = [(0.0, 1.0), (3.0, -2.0), (1.0, 5.0), (2.0, 2.0)]
    comparison = compare(two_sides(pairs, cases, OPEN), run)
    effect = effect_of(comparison, "length")
    ends = mean_interval_unbounded([1, -5, 4, 0], level=0.9)
    assert effect.scale == "difference"
    assert effect.interval is not None
    assert (effect.interval.low, effect.interval.high) == ends
    assert [inside[0].scale for inside in comparison.slices.values()] == ["difference", "difference"]
    assert comparison.slices["zero"][0].note == "fewer than two cases or clusters: no interval"


def test_scores_too_far_apart_for_a_ratio_say_so() -> None:
    run = make_run(evaluators=[OPEN])
    effect = effect_of(compare(two_sides([(1e-300, 1e300), (1, 1)], evaluator=OPEN), run), "length")
    assert (effect.estimate, effect.interval) == (None, None)
    assert effect.note == "cases differ by too many orders of magnitude"


def test_parts_have_the_range_of_their_evaluator() -> None:
    before, after = [0.0, 1.0, 0.5], [0.5, 1.0, 1.0]
    rows = [row("old", case(n), 1, parts={"recall": value}) for n, value in enumerate(before)]
    rows += [row("new", case(n), 1, parts={"recall": value}) for n, value in enumerate(after)]
    effect = effect_of(compare(rows), "exact.recall")
    low, high = paired_interval(before, after, low=0, high=1, level=0.9)
    assert effect.interval is not None
    assert (effect.interval.low, effect.interval.high) == (low, high)
    assert [flip.case_id for flip in effect.improved] == ["c000", "c002"]


# --- what is measured unasked -------------------------------------------------------------------------------


def test_latency_is_a_ratio_over_the_cases_that_gave_an_output() -> None:
    rows = []
    for number, (before, after) in enumerate([(1.0, 2.0), (2.0, 2.0), (4.0, 6.0)]):
        rows.append(row("old", case(number), 1, latency_s=before))
        rows.append(row("new", case(number), 1, latency_s=after))
    rows.append(row("old", case(3), 1, latency_s=1.0))
    rows.append(row("new", case(3), None, latency_s=30.0, status=Status.ERROR))
    effect = effect_of(compare(rows), "latency_s")
    assert (effect.scale, effect.n, effect.n_missing) == ("ratio", 3, 1)
    assert effect.estimate == pytest.approx(math.pow(3.0, 1 / 3))
    assert effect.improved == effect.regressed == ()


def test_a_measure_of_0_has_no_ratio_and_says_so() -> None:
    rows = [row("old", case(0), 1, output_tokens=0), row("new", case(0), 1, output_tokens=4)]
    effect = effect_of(compare(rows), "output_tokens")
    assert (effect.estimate, effect.interval) == (None, None)
    assert (effect.baseline, effect.candidate) == (0, 4)
    assert effect.note == "1 cases have a 0: there is no ratio"


def test_an_output_that_becomes_invalid_is_a_regression() -> None:
    rows = []
    for number, (before, after) in enumerate([(True, False), (True, True), (False, True), (True, None)]):
        rows.append(row("old", case(number), 1, valid=before))
        rows.append(row("new", case(number), 1, valid=after))
    effect = effect_of(compare(rows), "invalid_rate")
    assert (effect.n, effect.n_missing, effect.estimate) == (3, 1, 0)
    assert [flip.case_id for flip in effect.regressed] == ["c000"]
    assert [flip.case_id for flip in effect.improved] == ["c002"]


def test_error_rate_and_cost_are_facts_of_the_runs_without_an_interval() -> None:
    unknown = Figure(value=None, kind="sum", n=2, note="no price")
    known = Figure(value=0.25, kind="sum", n=2)
    old = {"error_rate": Figure(value=0.5, kind="share", n=2), "cost_usd": known}
    new = {"error_rate": Figure(value=0.25, kind="share", n=4), "cost_usd": unknown}
    comparison = compare(two_sides([(1, 1)]), make_run(summary={"old": old, "new": new}))
    errors, cost = effect_of(comparison, "error_rate"), effect_of(comparison, "cost_usd")
    assert (errors.baseline, errors.candidate, errors.estimate) == (0.5, 0.25, -0.25)
    assert (errors.interval, errors.n, errors.note) == (None, 2, "over 2 and 4 cells")
    assert (cost.baseline, cost.candidate, cost.estimate, cost.note) == (0.25, None, None, "no price")
    assert effect_of(compare(two_sides([(1, 1)])), "cost_usd").note == "not summed up"


def test_slices_hold_the_evaluators_on_their_own_cases() -> None:
    cases = [case(n, slice=label) for n, label in enumerate(["edge", "essential", "edge", None])]
    pairs = [(0, 1), (1, 1), (1, 1), (1, 0)]
    rows = two_sides(pairs, cases)
    comparison = compare(rows)
    alone = compare([kept for kept in rows if kept.case.slice == "edge"])
    assert list(comparison.slices) == ["edge", "essential"]
    listed = effect_of(alone, "exact")
    assert [flip.case_id for flip in listed.improved] == ["c000"]
    assert comparison.slices["edge"] == (listed.model_copy(update={"improved": ()}),), (
        "flips stand with the whole"
    )


# --- two runs -----------------------------------------------------------------------------------------------


def compare_runs(old: Run, new: Run, old_rows: list[Row], new_rows: list[Row]) -> Comparison:
    memory = Memory({old.id: old_rows, new.id: new_rows})
    return compare_variants(memory, (old, "old"), (new, "new"), now=NOW)


def test_a_case_whose_content_differs_is_not_paired() -> None:
    old, new = make_run(), make_run(run_id="triage-2", version="v2")
    before = [row("old", case(n), 1) for n in range(4)]
    after = [row("new", case(n, expected="no" if n == 1 else "yes"), 1) for n in range(1, 5)]
    comparison = compare_runs(old, new, before, after)
    assert comparison.n_cases == 2
    assert comparison.n_unpaired == 3
    assert comparison.candidate.run_id == "triage-2"


def test_datasets_that_share_no_case_are_refused_with_the_reason() -> None:
    old, new = make_run(), make_run(run_id="triage-2", version="v2")
    with pytest.raises(UsageError, match="no case id is on both sides"):
        compare_runs(old, new, [row("old", case(1), 1)], [row("new", case(2), 1)])
    with pytest.raises(UsageError, match="the 1 cases of one id differ in content"):
        compare_runs(old, new, [row("old", case(1), 1)], [row("new", case(1, expected="no"), 1)])


def test_an_evaluator_that_judged_differently_is_refused_by_name() -> None:
    old = make_run()
    new = make_run(run_id="triage-2", evaluators=[EXACT.model_copy(update={"identity": "0" * 64})])
    with pytest.raises(UsageError, match="evaluator exact is not the same on both sides: triage-1"):
        compare_runs(old, new, [row("old", case(1), 1)], [row("new", case(1), 1)])


def test_an_evaluator_of_one_run_alone_is_missing_on_every_case() -> None:
    old, new = make_run(), make_run(run_id="triage-2", evaluators=[EXACT, OPEN])
    after = [row("new", case(1), 3, evaluator=OPEN)]
    effect = effect_of(compare_runs(old, new, [row("old", case(1), 1)], after), "length")
    assert (effect.n, effect.n_missing, effect.estimate) == (0, 1, None)


def test_a_variant_that_a_run_does_not_have_is_refused() -> None:
    with pytest.raises(UsageError, match="no variant 'new'; there are: old"):
        compare([row("old", case(1), 1)], make_run(variant("old")))


# --- which is compared with which ---------------------------------------------------------------------------


def paired_names(run: Run) -> list[tuple[str, str]]:
    rows = [row(kept.name, case(n), n % 2) for n in range(3) for kept in run.variants]
    found = compare_run(Memory({run.id: rows}), run, now=NOW)
    return [(comparison.baseline.variant, comparison.candidate.variant) for comparison in found]


def test_each_candidate_meets_the_baseline_of_its_cell_of_the_matrix() -> None:
    names = ["old/a", "old/b", "new/a", "new/b", "new/c"]
    run = make_run(
        *(variant(name, group=name[-1], is_baseline=name.startswith("old")) for name in names),
        experiment_definition={"baseline": "old"},
    )
    assert paired_names(run) == [("old/a", "new/a"), ("old/b", "new/b")]


def test_a_baseline_that_stands_once_serves_every_group() -> None:
    run = make_run(variant("new/a", group="a"), variant("old", is_baseline=True), variant("new/b", group="b"))
    assert paired_names(run) == [("old", "new/a"), ("old", "new/b")]


@pytest.mark.parametrize(("written", "where"), [("git:main", "git:main"), ("alias:live", "live")])
def test_a_variant_meets_itself_as_it_stands_elsewhere_or_nothing(written: str, where: str) -> None:
    run = make_run(
        variant(f"one@{where}", is_baseline=True),
        variant("one"),
        variant("two"),
        experiment_definition={"baseline": written},
    )
    assert paired_names(run) == [(f"one@{where}", "one")]


def test_a_run_without_a_baseline_has_no_comparison() -> None:
    assert paired_names(make_run(variant("one"), variant("two"))) == []


def test_compare_run_says_what_compare_variants_says(journal: Journal) -> None:
    run = make_run()
    store(journal, run, two_sides([(1, 1), (0, 1), (None, 1), (1, 0.5)]))
    assert compare_run(journal, run, now=NOW) == [
        compare_variants(journal, (run, "old"), (run, "new"), now=NOW)
    ]


def finder(journal: Journal, root: Path) -> Finder:
    def number(name: str, number: int) -> str:
        raise AssertionError("no number was asked for")

    return Finder(journal, load_workspace(root), None, number)


def test_a_side_is_found_by_run_id_or_by_the_latest_run_of_an_experiment(
    journal: Journal, tmp_path: Path
) -> None:
    first = make_run(variant("few@git:main", is_baseline=True), variant("few"), run_id="triage-1")
    second = make_run(run_id="triage-2")
    store(journal, first)
    store(journal, second)
    find = finder(journal, tmp_path).find
    assert find("triage-1:few@git:main") == Side("triage-1:few@git:main", first, ("few@git:main",))
    assert find("triage:new") == Side("triage:new", second, ("new",))
    assert find("triage-1") == Side("triage-1", first, ("few@git:main", "few"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("triag", "did you mean 'triage'"),
        ("triage:", "there are: old, new"),
        ("trage:new", "did you mean 'triage'"),
        ("triage-2:new", "did you mean 'triage-1'"),
        ("something else:new", "there are: "),
        ("triage:news", "did you mean 'new'"),
        ("triage@git:main", "add --in EXPERIMENT"),
        ("prompts/triage", "add --in EXPERIMENT"),
    ],
)
def test_a_side_that_is_not_there_is_refused_with_the_nearest_spelling(
    journal: Journal, tmp_path: Path, text: str, message: str
) -> None:
    store(journal, make_run())
    with pytest.raises(UsageError, match=message):
        finder(journal, tmp_path).find(text)


def side(run_id: str, *names: str) -> Side:
    return Side(run_id, make_run(*map(variant, names), run_id=run_id), names)


@pytest.mark.parametrize(
    ("baseline", "candidate", "pairs"),
    [
        (side("r-1", "a"), side("r-2", "b"), [("a", "b")]),
        (side("r-1", "a", "b"), side("r-2", "b"), [("b", "b")]),
        (side("r-1", "b"), side("r-2", "a", "b"), [("b", "b")]),
        (side("r-1", "a", "b", "gone"), side("r-2", "new", "b", "a"), [("b", "b"), ("a", "a")]),
        (side("r-1", "a", "a@main"), side("r-2", "a", "a@main"), [("a", "a"), ("a@main", "a@main")]),
        (side("r-1", "a@main", "b@main"), side("r-1", "a", "b"), [("a@main", "a"), ("b@main", "b")]),
    ],
)
def test_variants_are_paired_by_name(baseline: Side, candidate: Side, pairs: list[tuple[str, str]]) -> None:
    assert pair_sides(baseline, candidate) == pairs


@pytest.mark.parametrize(
    ("baseline", "candidate", "message"),
    [
        (side("r-1", "a", "b"), side("r-1", "a", "b"), "write RUN:VARIANT on both sides"),
        (side("r-1", "a"), side("r-1", "a"), "both sides are a of run r-1"),
        (side("r-1", "a", "b"), side("r-1", "b"), "no variant of one name"),
        (side("r-1", "a", "b"), side("r-2", "c", "d"), "r-1 has a, b; r-2 has c, d"),
    ],
)
def test_sides_without_a_pair_are_refused(baseline: Side, candidate: Side, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        pair_sides(baseline, candidate)


def test_other_schemas_on_either_side_are_refused_by_name_F72(journal: Journal) -> None:
    text = {"type": "string", "enum": ["yes", "no"]}
    run = make_run(
        variant("old", response_format=text),
        variant("same", response_format=dict(reversed(text.items()))),
        variant("none"),
        variant("new", response_format={"type": "string", "enum": ["yes", "no", "maybe"]}),
    )
    rows = [row(name, case(0), 1.0) for name in ("old", "same", "none", "new")]
    store(journal, run, rows)
    for name in ("same", "none"):
        assert compare_variants(journal, (run, "old"), (run, name), now=NOW).n_cases == 1
    with pytest.raises(UsageError, match=r"response_format is not the same on both sides: triage-1:old"):
        compare_variants(journal, (run, "old"), (run, "new"), now=NOW)
    typed = [_typed(run, identity) for identity in ("1" * 64, "2" * 64)]
    assert compare_variants(journal, (run, "old"), (typed[0], "same"), now=NOW).n_cases == 1
    with pytest.raises(UsageError, match="types of dataset tickets are not the same on both sides"):
        compare_variants(journal, (typed[0], "old"), (typed[1], "same"), now=NOW)


def _typed(run: Run, identity: str) -> Run:
    dataset = run.dataset.model_copy(update={"schema_identity": identity})
    return run.model_copy(update={"dataset": dataset})


# --- figures of all cases together, and scores of which less is better ------------------------------------------

TER = EvaluatorVersion(name="edits", kind="ter", identity="a" * 64, low=0.0, high=None, lower_is_better=True)
CLASSES = EvaluatorVersion(name="classes", kind="classification", identity="b" * 64, low=0.0, high=1.0)


def ter_rows(pairs: Iterable[tuple[float | None, float | None]], **fields: Any) -> list[Row]:
    """Rows of both sides with so many edits in ten words, None for an absent score."""
    rows = []
    for number, edits in enumerate(pairs):
        of = case(number, **{name: value[number] for name, value in fields.items()})
        for name, n in zip(("old", "new"), edits, strict=True):
            said = row(name, of, None if n is None else 10 * n, evaluator=TER)
            sums = () if n is None else (1.0, n, 10.0)
            rows.append(
                said.model_copy(update={"scores": (said.scores[0].model_copy(update={"sums": sums}),)})
            )
    return rows


def run_of(evaluator: EvaluatorVersion, **options: Any) -> Run:
    use = {"kind": evaluator.kind, "name": evaluator.name, "options": options}
    return make_run(evaluators=[evaluator], experiment_definition={"evaluators": [use]})


def test_less_is_better_of_ter() -> None:
    found = compare(ter_rows([(4, 2), (3, 3), (1, 5), (6, 0)]), run_of(TER))
    effect = effect_of(found, "edits")
    assert [flip.case_id for flip in effect.improved] == ["c003", "c000"]
    assert [flip.case_id for flip in effect.regressed] == ["c002"]
    assert (effect.scale, effect.estimate, effect.lower_is_better) == ("difference", -10.0, True)
    assert not effect_of(compare(two_sides([(0, 1)])), "exact").lower_is_better
    assert effect_of(compare(two_sides([(0, 1)])), "error_rate").lower_is_better


def test_a_score_that_is_open_at_one_end_is_compared_as_a_difference() -> None:
    assert effect_of(compare(ter_rows([(4, 2), (3, 3)]), run_of(TER)), "edits").scale == "difference"


def test_a_figure_of_all_cases_has_a_paired_interval_that_informs() -> None:
    pairs = [(n % 5 + 1.0, n % 4 + 0.0) for n in range(60)]
    effect = effect_of(compare(ter_rows([*pairs, (None, 2.0)]), run_of(TER)), "edits.corpus")
    before, after = (10 * sum(side) / 60 for side in zip(*pairs, strict=True))
    assert (effect.baseline, effect.candidate) == pytest.approx((before, after))
    assert effect.estimate == pytest.approx(after - before)
    assert effect.interval is not None
    assert effect.interval.low < after - before < effect.interval.high < 0
    assert (effect.n, effect.n_missing, effect.n_clusters) == (60, 1, None)
    assert (effect.note, effect.lower_is_better) == ("by resampling cases: it informs", True)
    assert effect.improved == effect.regressed == ()


def test_the_interval_of_a_figure_respects_clusters_and_says_when_it_is_rough() -> None:
    pairs = [(n % 4 + 1.0, (n % 4) * 2.0) for n in range(40)]
    alone = effect_of(compare(ter_rows(pairs), run_of(TER)), "edits.corpus")
    labels = [f"k{n % 4}" for n in range(40)]
    whole = effect_of(compare(ter_rows(pairs, cluster=labels), run_of(TER)), "edits.corpus")
    assert alone.interval is not None and whole.interval is not None
    assert whole.interval.high - whole.interval.low > 2 * (alone.interval.high - alone.interval.low)
    assert whole.n_clusters == 4
    assert whole.note == "by resampling cases: it informs; a rough interval: fewer than 50 cases"


def test_macro_f1_is_compared_over_the_classes_of_the_options() -> None:
    rows = []
    for number, (truth, old, new) in enumerate([("a", "a", "A"), ("b", "a", "b"), ("b", "b", "b")] * 20):
        for name, label in (("old", old), ("new", new)):
            said = row(name, case(number), float(label.lower() == truth), evaluator=CLASSES)
            classed = said.scores[0].model_copy(update={"label": label, "truth": truth})
            rows.append(said.model_copy(update={"scores": (classed,)}))
    effect = effect_of(compare(rows, run_of(CLASSES, labels=["a", "b"])), "classes.macro_f1")
    assert (effect.baseline, effect.candidate) == pytest.approx((2 / 3, 1.0))
    assert effect.interval is not None
    assert 0 < effect.interval.low < 1 / 3 < effect.interval.high
    apart = effect_of(compare(rows, run_of(CLASSES, normalise=False)), "classes.macro_f1")
    assert apart.candidate == pytest.approx(0.5)  # "A" is then no "a"


def test_figures_that_neither_run_can_work_out_have_no_effect() -> None:
    names = {effect.metric for effect in compare(ter_rows([(None, 1), (1, None)]), run_of(TER)).effects}
    assert "edits" in names and "edits.corpus" not in names


@pytest.mark.parametrize(
    "definition",
    [
        {},
        {"evaluators": [{"kind": "of_a_package_that_is_gone", "name": "edits"}]},
        {"evaluators": [{"kind": "ter", "name": "edits", "options": {"of_another_version": 1}}]},
        {"evaluators": [{"kind": "exact_match", "name": "edits"}]},
    ],
)
def test_an_evaluator_that_cannot_be_opened_any_more_costs_only_its_figure(
    definition: dict[str, Any],
) -> None:
    run = make_run(evaluators=[TER], experiment_definition=definition)
    names = {effect.metric for effect in compare(ter_rows([(1, 1)]), run).effects}
    assert "edits" in names and "edits.corpus" not in names
