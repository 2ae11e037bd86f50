"""Which cases a report shows, in which order, and how little it reads for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmops.report.cases import failed_cases, flipped_cases, run_galleries, worst_cases

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llmops.records import Row


class Counted:
    """Rows of an example, and how many of them were read."""

    def __init__(self, made: Any) -> None:
        self.made = made
        self.n_read = 0

    def rows(self, run_id: str, *, variant: str | None = None, with_spans: bool = True) -> Iterator[Row]:
        for row in self.made.rows(run_id, variant=variant, with_spans=with_spans):
            self.n_read += 1
            yield row

    def find_run(self, run_id: str) -> Any:
        return self.made.find_run(run_id)


def test_flipped_cases_show_what_was_asked_and_both_answers(example: Callable[..., Any]) -> None:
    made = example()
    worse, better = flipped_cases(made.run.comparisons[0], ["exact_match"], made)
    assert worse.title == "exact_match: 1 case worse with few-shot"
    assert worse.cases[0].heading == "t-0005  1.000 -> 0.000"
    assert worse.cases[0].lines == (
        ("input", "Where is order 5? I have been waiting for it for so long now."),
        ("expected", "returns"),
        ("zero-shot", "returns"),
        ("few-shot", "配送 team 🚚"),
    )
    assert better.title == "exact_match: 27 cases better with few-shot, the 5 largest changes"
    assert len(better.cases) == 5


def test_no_more_is_read_than_the_cases_shown_need(example: Callable[..., Any]) -> None:
    made = example()
    counted = Counted(made)
    flipped_cases(made.run.comparisons[0], ["exact_match"], counted)
    assert counted.n_read == 2 * 8, "t-0007 is the last case shown, on both sides"
    counted = Counted(made)
    assert flipped_cases(made.run.comparisons[0], ["classification"], counted) == []
    assert counted.n_read == 0


def test_the_lowest_scores_come_first_and_full_marks_never(example: Callable[..., Any]) -> None:
    made = example()
    (gallery,) = worst_cases(made.run, made)
    headings = [shown.heading for shown in gallery.cases]
    assert headings == [
        "t-0001  zero-shot  0.000",
        "t-0002  zero-shot  0.000",
        "t-0004  zero-shot  0.000",
        "t-0005  few-shot  0.000",
        "t-0006  zero-shot  0.000",
    ]
    assert gallery.cases[1].lines[-1] == ("why", "'配送 team 🚚' is not 'returns'")
    made.kept = [row for row in made.kept if row.scores and row.scores[0].value == 1]
    assert worst_cases(made.run, made) == []
    assert worst_cases(example(evaluators=()).run, made) == []


def test_where_lower_is_better_the_highest_scores_are_the_worst(example: Callable[..., Any]) -> None:
    made = example()
    turned = made.run.evaluators[0].model_copy(update={"lower_is_better": True})
    (gallery,) = worst_cases(made.run.model_copy(update={"evaluators": (turned,)}), made)
    assert gallery.title == "exact_match: the highest scores"
    assert all(shown.heading.endswith("  1.000") for shown in gallery.cases)
    made.kept = [row for row in made.kept if row.scores and row.scores[0].value == 0]
    assert worst_cases(made.run.model_copy(update={"evaluators": (turned,)}), made) == []


def test_errors_are_counted_by_kind_with_the_first_of_each(example: Callable[..., Any]) -> None:
    made = example()
    (gallery,) = failed_cases(made.run, made)
    (shown,) = gallery.cases
    assert shown.heading == "timeout  1 of 80 cells"
    assert shown.lines == (("first", "zero-shot on t-0003"), ("says", "no reply in 60 s"))
    assert failed_cases(made.run.model_copy(update={"n_errors": 0}), made) == []


def test_an_answer_that_is_not_there_says_why(example: Callable[..., Any]) -> None:
    made = example()
    made.kept = [
        row.model_copy(update={"output": None})
        if (row.variant, row.case.id) == ("few-shot", "t-0005")
        else row
        for row in made.kept
    ]
    worse, _ = flipped_cases(made.run.comparisons[0], ["exact_match"], made)
    assert worse.cases[0].lines[-1] == ("few-shot", "(no output)")
    failed = next(row for row in made.kept if row.output is not None and row.output.error is not None)
    made.kept = [failed.model_copy(update={"case": row.case, "variant": row.variant}) for row in made.kept]
    worse, _ = flipped_cases(made.run.comparisons[0], ["exact_match"], made)
    assert worse.cases[0].lines[-1] == ("few-shot", "(timeout: no reply in 60 s)")


def test_a_run_shows_flips_or_else_its_lowest_scores(example: Callable[..., Any]) -> None:
    made = example()
    compared = [gallery.title for gallery in run_galleries(made.run, made.run.comparisons, made)]
    alone = [gallery.title for gallery in run_galleries(made.run, (), made)]
    assert [title.split(":")[0] for title in compared] == ["Errors", "exact_match", "exact_match"]
    assert alone == ["Errors", "exact_match: the lowest scores"]
