"""Tables: what is in them, and that no mean stands without its interval and its cases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmops.records import Blame, Figure, StepBlame
from llmops.report.grids import (
    blame_grid,
    classes_grid,
    costs_grid,
    effects_grid,
    metrics_grid,
    run_grids,
    run_slices_grid,
    slices_grid,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def test_every_row_of_every_table_has_as_many_cells_as_the_header(example: Callable[..., Any]) -> None:
    made = example()
    for grid in [*run_grids(made.run, made.run.comparisons), *run_grids(made.run, ())]:
        assert {len(row) for row in grid.rows} == {len(grid.header)}


def test_a_mean_never_stands_without_its_interval_and_n(example: Callable[..., Any]) -> None:
    grid = metrics_grid(example().run)
    for row in grid.rows:
        found = dict(zip(grid.header, row, strict=True))
        assert int(found["n"]) > 0
        assert found["90% interval"] or found["metric"] == "error_rate"


def test_figures_of_single_classes_stand_in_a_table_of_their_own(example: Callable[..., Any]) -> None:
    made = example()
    assert not any("billing" in cell for row in metrics_grid(made.run).rows for cell in row)
    grid = classes_grid(made.run, "classification")
    assert grid.rows[0] == ("billing", "zero-shot", "0.333", "unknown", "0.500", "39")
    assert not any(row[0] == "shipping" for row in grid.rows), "a class told perfectly is not told worst"


def test_the_missing_have_a_column_only_where_there_are_any(example: Callable[..., Any]) -> None:
    made = example()
    assert metrics_grid(made.run).header[-1] == "missing"
    whole = made.run.model_copy(update={"summary": {"few-shot": made.run.summary["few-shot"]}})
    assert metrics_grid(whole).header[-1] == "n"


def test_time_to_first_text_has_a_column_only_where_it_was_measured(example: Callable[..., Any]) -> None:
    made = example()
    assert "first text p50" not in costs_grid(made.run).header
    first = {"ttft_s.p50": Figure(value=0.1, kind="quantile", n=40)}
    few = {**made.run.summary["few-shot"], **first}
    streamed = made.run.model_copy(update={"summary": {**made.run.summary, "few-shot": few}})
    grid = costs_grid(streamed)
    shown = {row[0]: row[grid.header.index("first text p50")] for row in grid.rows}
    assert shown == {"zero-shot": "unknown", "few-shot": "0.100 s"}


def test_effects_that_nobody_measured_are_left_out_and_remarks_are_made_once(
    example: Callable[..., Any],
) -> None:
    made = example()
    grid = effects_grid(made.run.comparisons[0])
    metrics = [row[0] for row in grid.rows]
    assert "ttft_s" not in metrics
    assert metrics[0] == "exact_match"
    assert metrics[-2:] == ["error_rate", "cost_usd"]
    assert grid.notes[:2] == (
        "exact_match, latency_s, input_tokens, output_tokens: 1 case on one side only, left out",
        "error_rate, cost_usd: over 39 and 40 cells",
    )


def test_cases_that_are_not_paired_and_clusters_stand_in_the_title(example: Callable[..., Any]) -> None:
    found = example().run.comparisons[0]
    effects = (found.effects[0].model_copy(update={"n_clusters": 12}), *found.effects[1:])
    changed = found.model_copy(update={"n_unpaired": 3, "effects": effects})
    assert effects_grid(changed).title == "few-shot against zero-shot: 40 cases in 12 clusters, 3 not paired"
    assert not any("clusters" in grid.title for grid in (effects_grid(found), slices_grid(found)))


def test_slices_of_a_run_without_a_comparison_are_figures(example: Callable[..., Any]) -> None:
    rows = run_slices_grid(example().run).rows
    assert rows == (("edge", "exact_match", "few-shot", "0.900", "[0.60, 1.00]", "10"),)


def test_a_narrowed_table_keeps_names_effect_interval_and_n(example: Callable[..., Any]) -> None:
    found = example().run.comparisons[0]
    for grid, n_names in ((effects_grid(found), 1), (slices_grid(found), 2)):
        narrow = grid.narrowed()
        assert narrow.header[n_names:] == ("effect", "90% interval", "n", "")
        assert [row[:n_names] for row in narrow.rows] == [row[:n_names] for row in grid.rows]
        assert [row[n_names:] for row in narrow.rows] == [row[n_names + 2 :] for row in grid.rows]
        assert narrow.narrowed() == narrow


def test_what_is_to_be_known_of_a_figure_stands_once_under_the_table(example: Callable[..., Any]) -> None:
    run = example().run
    note = "a rough interval: fewer than 50 cases"
    summary = {
        name: {metric: figure.model_copy(update={"note": note}) for metric, figure in figures.items()}
        for name, figures in run.summary.items()
    }
    (said,) = metrics_grid(run.model_copy(update={"summary": summary})).notes
    assert said.endswith(f": {note}")
    assert said.count("exact_match") == 1


def blamed(**changes: Any) -> Blame:
    steps = (
        StepBlame(step="find", share=0.75, case_ids=("a", "b\x1b[31m", "c", "d", "e", "f")),
        StepBlame(step=None, share=0.25, case_ids=("g", "h")),
    )
    return Blame(metric="token_f1", pass_at=0.5, n=40, n_wrong=8, steps=steps).model_copy(update=changes)


def test_the_steps_to_blame_stand_with_their_share_and_their_first_cases(example: Callable[..., Any]) -> None:
    grid = blame_grid(example(blame={"few-shot": blamed()}).run)
    assert grid.rows == (
        ("find", "few-shot", "6 of 8", "75%", "a, b, c, ..."),
        ("(no step's own score failed)", "few-shot", "2 of 8", "25%", "g, h"),
    )
    assert grid.notes == ("wrong: token_f1 below 0.500; from the first step whose own score failed",)
    assert blame_grid(example().run).rows == ()


def test_every_variant_has_its_own_blame_and_a_note_is_said_once(example: Callable[..., Any]) -> None:
    nothing = blamed(n_wrong=0, steps=(StepBlame(step="find", share=0.0, case_ids=()),))
    grid = blame_grid(example(blame={"zero-shot": nothing, "few-shot": blamed()}).run)
    assert grid.rows[0][:4] == ("find", "zero-shot", "0 of 0", "0%")
    assert len(grid.notes) == 1
    other = blame_grid(example(blame={"few-shot": blamed(lower_is_better=True)}).run)
    assert "token_f1 above 0.500" in other.notes[0]
