"""Which cases a page shows, how many of each, and what is kept of all the others while they pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from llmops.report import pairs
from llmops.report.pairs import flipped_and_worst
from llmops.report.survey import Bad, survey_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llmops.records import Row


class Steps:
    """Rows of an example, which have no steps, asked for with or without."""

    def __init__(self, made: Any) -> None:
        self.made = made

    def rows(self, run_id: str, *, variant: str | None = None, with_spans: bool = True) -> Iterator[Row]:  # noqa: ARG002
        yield from self.made.rows(run_id, variant=variant, with_spans=False)

    def find_run(self, run_id: str) -> Any:
        return self.made.find_run(run_id)


def survey(made: Any, n_worst: int = pairs.N_WORST, *judged: str) -> Any:
    return survey_run(made.run, Steps(made), judged=judged or ("few-shot",), n_worst=n_worst)


def test_flipped_cases_stand_side_by_side_and_are_not_among_the_lowest_again(
    example: Callable[..., Any],
) -> None:
    made = example()
    found = flipped_and_worst(made.run, made.run.comparisons, Steps(made), survey(made).worst)
    worse, better, lowest = found
    assert worse.title == "exact_match: 1 case worse with few-shot"
    assert [pair.case_id for pair in worse.pairs] == ["t-0005"]
    assert worse.pairs[0].said == "exact_match 1.000 → 0.000, worse"
    assert [(side.name, side.role) for side in worse.pairs[0].sides] == [
        ("zero-shot", "baseline"),
        ("few-shot", "candidate"),
    ]
    assert (len(better.pairs), better.n_more) == (25, 2)
    flipped = {pair.case_id for gallery in (worse, better) for pair in gallery.pairs}
    assert lowest.title == "exact_match: the lowest scores, but for those above"
    assert [pair.case_id for pair in lowest.pairs] == ["t-0012", "t-0019", "t-0026", "t-0033"]
    assert not flipped & {pair.case_id for pair in lowest.pairs}
    assert all(len(pair.sides) == 2 for pair in lowest.pairs)


def test_without_a_baseline_each_low_score_stands_alone(example: Callable[..., Any]) -> None:
    made = example()
    worst = survey(made, pairs.N_WORST, "zero-shot", "few-shot").worst
    (lowest,) = flipped_and_worst(made.run, (), Steps(made), worst)
    assert len(lowest.pairs) == pairs.MOST
    assert lowest.pairs[0].said == "exact_match 0.000 with zero-shot"
    assert [(side.name, side.role) for side in lowest.pairs[0].sides] == [("zero-shot", "")]


def test_many_comparisons_share_the_room(example: Callable[..., Any]) -> None:
    made = example()
    comparison = made.run.comparisons[0]
    for n in (1, 2, 4, 50, 200):
        found = flipped_and_worst(made.run, [comparison] * n, Steps(made), ())
        shown = sum(len(gallery.pairs) for gallery in found)
        assert shown <= 200
        assert max(len(gallery.pairs) for gallery in found) <= pairs.MOST
        assert all(len(gallery.pairs) + gallery.n_more in (1, 27) for gallery in found)


def test_a_case_whose_rows_are_gone_is_named_all_the_same(example: Callable[..., Any]) -> None:
    made = example()
    made.kept = []
    worse, *_ = flipped_and_worst(made.run, made.run.comparisons, Steps(made), ())
    assert worse.pairs[0].case is None
    assert [side.row for side in worse.pairs[0].sides] == [None, None]


def test_measures_are_kept_by_variant_and_what_is_unknown_is_left_out(example: Callable[..., Any]) -> None:
    made = example()
    seen = survey(made)
    assert {name: len(values) for name, values in seen.values["latency_s"].items()} == {
        "zero-shot": 39,
        "few-shot": 40,
    }
    assert seen.values["cost_usd"] == {}
    assert set(seen.values["input_tokens"]["few-shot"]) == {90.0}


@pytest.mark.parametrize("n_worst", [1, 3, 100])
def test_the_worst_are_the_same_however_few_are_kept_meanwhile(
    example: Callable[..., Any], n_worst: int
) -> None:
    made = example()
    made.kept = made.kept * 30
    everything = survey(made, 1_000, "zero-shot", "few-shot").worst
    assert survey(made, n_worst, "zero-shot", "few-shot").worst == everything[:n_worst]
    assert everything == sorted(everything)


def test_where_less_is_better_the_highest_scores_are_the_worst(example: Callable[..., Any]) -> None:
    made = example()
    judge = made.run.evaluators[0].model_copy(update={"lower_is_better": True})
    made.run = made.run.model_copy(update={"evaluators": (judge,)})
    worst = survey(made).worst
    assert worst[0] == Bad(-1.0, "t-0000", "few-shot", 1.0)
    assert {bad.value for bad in worst} == {1.0}, "0 is the best there is"
    (lowest,) = flipped_and_worst(made.run, (), Steps(made), worst)
    assert lowest.title == "exact_match: the highest scores"


def test_a_run_that_nobody_judged_has_no_worst(example: Callable[..., Any]) -> None:
    made = example(evaluators=())
    assert survey(made).worst == []
    assert flipped_and_worst(made.run, (), Steps(made), ()) == []
