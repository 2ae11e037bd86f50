"""Figures against values worked out by hand, and what may not change them."""

from __future__ import annotations

import math
import random
import tracemalloc
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from llmops.definitions.dataset import Case
from llmops.definitions.experiment import EvaluatorUse
from llmops.evaluators import open_evaluator
from llmops.evaluators.bound import BoundEvaluator
from llmops.records import (
    CaseNumbers,
    Figure,
    Output,
    OutputNumbers,
    Row,
    RowNumbers,
    Score,
    ScoreNumbers,
    Status,
)
from llmops.score.summary import LEVEL, CaseIds, Column, Figures, Labels, Ledger, summarise_variant

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def evaluator(kind: str, **options: Any) -> BoundEvaluator:
    return BoundEvaluator(EvaluatorUse(kind=kind, name=kind), open_evaluator(kind, options), kind)


EXACT = evaluator("exact_match")
CLASSES = evaluator("classification")


def row(
    case_id: str,
    value: float | None = None,
    *,
    repeat: int = 0,
    cluster: str | None = None,
    slice_name: str | None = None,
    tried: bool = True,
    score: Score | None = None,
    **output: Any,
) -> Row:
    """Return a row with one score of exact_match, or the score that is given."""
    case = Case(id=case_id, inputs={}, cluster=cluster, slice=slice_name)
    known = {"cost_usd": 0.0, "latency_s": 1.0, "input_tokens": 10, **output}
    scored = score or (None if value is None else scored_as(value))
    return Row(
        variant="v",
        repeat=repeat,
        case=case,
        output=Output(cell_id=f"{case_id}.{repeat}", created_at=NOW, **known) if tried else None,
        scores=() if scored is None else (scored,),
    )


def scored_as(value: float | None, name: str = "exact_match", **more: Any) -> Score:
    return Score(evaluator=name, evaluator_identity=name, value=value, **more)


def figures_of(rows: Sequence[Row], *evaluators: BoundEvaluator) -> Figures:
    return summarise_variant(rows, evaluators or (EXACT,), seed=1)[0]


def ends(figure: Figure) -> tuple[float, float]:
    assert figure.interval is not None
    assert figure.interval.level == LEVEL
    return figure.interval.low, figure.interval.high


def test_a_mean_of_right_and_wrong_has_the_exact_interval() -> None:
    found = figures_of([row(f"c{n}", float(n < 7)) for n in range(10)])["exact_match"]
    assert (found.value, found.kind, found.n, found.n_missing) == (0.7, "mean", 10, 0)
    low, high = stats.beta.ppf(0.05, 7, 4), stats.beta.ppf(0.95, 8, 3)  # Clopper and Pearson
    assert ends(found) == pytest.approx((low, high))


def test_repeats_collapse_to_case_means_before_anything_else() -> None:
    rows = [
        row("a", 1.0),
        row("a", 0.0, repeat=1),
        row("a", 0.0, repeat=2),
        row("b", 1.0),
        row("b", 1.0, repeat=1),
    ]
    found = figures_of(rows)["exact_match"]
    assert found.value == pytest.approx((1 / 3 + 1) / 2)
    assert found.n == 2


def test_clusters_widen_the_interval() -> None:
    values = [float(n % 10 < 6) for n in range(40)]
    alone = figures_of([row(f"c{n}", value) for n, value in enumerate(values)])["exact_match"]
    grouped = [row(f"c{n:02}", value, cluster=f"k{int(value)}{n // 8}") for n, value in enumerate(values)]
    wide = figures_of(grouped)["exact_match"]
    assert wide.value == alone.value
    assert ends(wide)[0] < ends(alone)[0] and ends(wide)[1] > ends(alone)[1]


def test_an_absent_score_is_left_out_and_counted_and_never_0() -> None:
    absent = scored_as(None, error="no")
    failed = row("d", status=Status.ERROR, cost_usd=0.0)
    rows = [row("a", 1.0), row("b", 1.0), row("c", score=absent), failed, row("e", tried=False)]
    found = figures_of(rows)["exact_match"]
    assert (found.value, found.n, found.n_missing) == (1.0, 2, 2)


def test_a_case_with_one_score_of_two_repeats_is_not_missing() -> None:
    rows = [row("a", 1.0), row("a", repeat=1, score=scored_as(None, error="no"))]
    found = figures_of(rows)["exact_match"]
    assert (found.value, found.n, found.n_missing) == (1.0, 1, 0)


def test_nothing_scored_is_unknown() -> None:
    found = figures_of([row("a", score=scored_as(None, error="no"))])
    assert (found["exact_match"].value, found["exact_match"].interval) == (None, None)
    empty = figures_of([row("a", tried=False)])
    assert (empty["exact_match"].n, empty["exact_match"].n_missing) == (0, 0)
    assert empty["error_rate"].value is None
    assert "latency_s" not in empty


def test_errors_and_crashes_are_a_share_of_cells() -> None:
    rows = [
        row("a"),
        row("b", status=Status.ERROR),
        row("c", status=Status.CRASHED),
        row("d", status=Status.FILTERED),
    ]
    found = figures_of([*rows, row("e", tried=False)])["error_rate"]
    assert (found.value, found.kind, found.n) == (0.5, "share", 4)


def test_cost_is_a_sum_and_unknown_once_one_is_F26() -> None:
    rows = [row("a", cost_usd=0.25), row("b", cost_usd=0.5), row("b", repeat=1, cost_usd=0.125)]
    found = figures_of(rows)["cost_usd"]
    assert (found.value, found.kind, found.n) == (0.875, "sum", 3)
    unknown = figures_of([*rows, row("c", cost_usd=None)])["cost_usd"]
    assert unknown.value is None and unknown.note


def test_time_and_tokens_have_mean_median_tail_and_sum() -> None:
    seconds = [1.0, 2.0, 3.0, 4.0, 10.0]
    rows = [row(f"c{n}", latency_s=value) for n, value in enumerate(seconds)]
    rows.append(row("failed", latency_s=99.0, status=Status.ERROR))
    found = figures_of(rows)
    assert found["latency_s"].value == 4.0
    reach = stats.t.ppf(0.95, 4) * stats.tstd(seconds) / 5**0.5
    assert ends(found["latency_s"]) == pytest.approx((4 - reach, 4 + reach))
    assert found["latency_s.p50"].value == 3.0
    assert found["latency_s.p95"].value == pytest.approx(8.8)
    assert (found["latency_s.sum"].value, found["latency_s.sum"].kind) == (20.0, "sum")
    assert found["latency_s.p95"].n_missing == found["latency_s"].n_missing == 1
    assert found["input_tokens.sum"].value == 50
    assert "ttft_s" not in found


def test_what_keeps_no_format_is_a_share_of_those_that_have_one() -> None:
    rows = [row("a", valid=True), row("b", valid=False), row("c", valid=None), row("d", valid=True)]
    found = figures_of(rows)["invalid_rate"]
    assert found.value == pytest.approx(1 / 3)
    assert (found.kind, found.n) == ("share", 3)
    assert "invalid_rate" not in figures_of([row("a")])


def test_slices_are_summed_up_on_their_own() -> None:
    rows = [row(f"c{n}", float(n < 3), slice_name="easy" if n < 4 else "hard") for n in range(10)]
    slices = summarise_variant([*rows, row("none", 1.0)], [EXACT], seed=1).slices
    assert {name: (found["exact_match"].value, found["exact_match"].n) for name, found in slices.items()} == {
        "easy": (0.75, 4),
        "hard": (0.0, 6),
    }


def test_parts_have_figures_of_their_own() -> None:
    rows = [row(f"c{n}", score=scored_as(1.0, parts={"tone": n / 4})) for n in range(5)]
    found = figures_of(rows)["exact_match.tone"]
    assert (found.value, found.n) == (0.5, 5)


def classified(case_id: str, label: str, truth: str, repeat: int = 0) -> Row:
    score = scored_as(float(label == truth), "classification", label=label, truth=truth)
    return row(case_id, score=score, repeat=repeat)


def test_figures_over_all_cases_come_from_the_evaluator() -> None:
    rows = [classified("1", "a", "a"), classified("2", "b", "a"), classified("3", "b", "b")]
    failed = row("4", status=Status.ERROR)
    absent = row("5", score=scored_as(None, "classification", error="no label"))
    found = figures_of([*rows, failed, absent], CLASSES)
    assert found["classification.accuracy"].value == pytest.approx(2 / 3)
    assert found["classification.macro_f1"].value == pytest.approx(2 / 3)
    assert (found["classification.accuracy"].n, found["classification.accuracy"].n_missing) == (3, 2)


def test_corpus_figures_count_every_scored_row_and_miss_the_others() -> None:
    bleu = evaluator("bleu")
    known = (1.0, 4.0, 5.0, 3.0, 2.0, 1.0, 1.0, 4.0, 3.0, 2.0, 1.0)
    rows = [row(f"c{n}", score=scored_as(50.0 + n, "bleu", sums=known)) for n in range(3)]
    absent = row("c3", score=scored_as(None, "bleu", error="a reference is empty"))
    found = figures_of([*rows, absent, row("c4", status=Status.ERROR)], bleu)
    wanted = sacrebleu.BLEU.compute_bleu([9, 6, 3, 3], [12, 9, 6, 3], 12, 15, smooth_method="exp").score
    corpus = found["bleu.corpus"]
    assert (corpus.n, corpus.n_missing) == (3, 2)
    assert corpus.value == pytest.approx(wanted)
    assert corpus.note is not None
    assert corpus.note.startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert (found["bleu"].value, found["bleu"].n, found["bleu"].n_missing) == (51.0, 3, 2)


def test_a_ledger_keeps_what_sums_up_and_lets_the_rest_go() -> None:
    ledger = Ledger()
    said = scored_as(0.0, "classification", label="a", truth="b", sums=(1.0, 2.5), rationale="x" * 1000)
    ledger.add(3, said)
    assert (list(ledger.places), ledger.scores) == ([3], [(0.0, "a", "b", (1.0, 2.5))])


def test_ten_thousand_rows_of_sums_take_less_than_five_megabytes() -> None:
    """As they stand while a variant is summed up, here for the longest sums there are by default: chrF's."""
    ledger = Ledger()
    tracemalloc.start()
    for place in range(10_000):
        sums = tuple(float((place * order) % 97) for order in range(19))
        ledger.add(place, scored_as(float(place), "chrf", sums=sums, rationale="x" * 1000))
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert taken < 5_000_000


def test_a_row_more_takes_less_than_eighty_bytes_while_a_variant_is_summed_up() -> None:
    """The id, three scores, a time and a count of tokens, with all that is worked out on the way."""
    peak_of(1_000)  # what is imported on the way
    assert (peak_of(30_000) - peak_of(10_000)) / 20_000 < 80


def peak_of(n: int) -> int:
    def rows() -> Iterator[RowNumbers]:
        for number in range(n):
            scores = [
                ScoreNumbers(name, float(number % 3 > place), None, None, {}, ())
                for place, name in enumerate(("exact_match", "contains", "regex"))
            ]
            output = OutputNumbers("ok", None, number / 7, None, 10 + number % 40, 1, 0.0, None, False)
            yield RowNumbers(CaseNumbers(f"c-{number}", None, None, ""), output, scores)

    judges = [EXACT, evaluator("contains"), evaluator("regex", pattern="yes|no")]
    tracemalloc.start()
    try:
        summarise_variant(rows(), judges, seed=1)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


IDS = st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=4) | st.sampled_from(
    ["x" * 64, "x" * 65, "x" * 64 + "y", "\ud800", "é" * 40]
)


@given(st.lists(IDS, max_size=30))
def test_rows_are_grouped_by_their_ids_in_the_order_of_the_ids(names: list[str]) -> None:
    ids = CaseIds()
    for name in names:
        ids.append(name)
    first, places = ids.grouped()
    cases = [names[row] for row in first]
    assert [names.index(name) for name in cases] == first.tolist()
    assert (places is None) == (len(set(names)) == len(names))
    assert [cases[place] for place in (np.argsort(first) if places is None else places)] == names
    keys = [name.encode("utf-8", "surrogatepass") for name in cases]
    whole = [key for key in keys if len(key) <= 64]  # of longer ones the end is hashed
    assert whole == sorted(whole)


@given(st.lists(st.none() | st.sampled_from("abc"), max_size=40))
def test_labels_give_back_the_names_that_were_put_into_them(names: list[str | None]) -> None:
    labels = Labels()
    for place, name in enumerate(names):
        labels.put(place, name)
    known = {labels.number(name): name for name in labels.names}
    assert [known.get(int(number)) for number in labels.numbers(len(names))] == names
    assert labels.names == sorted({name for name in names if name is not None})


def test_figures_over_all_cases_say_when_they_count_repeats() -> None:
    once = figures_of([classified("1", "a", "a"), classified("2", "b", "b")], CLASSES)
    twice = figures_of([classified("1", "a", "a"), classified("1", "a", "a", 1)], CLASSES)
    assert "repeats" not in str(once["classification.accuracy"].note)
    assert "n counts repeats" in str(twice["classification.accuracy"].note)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=12), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(values: list[float], shuffle: random.Random) -> None:
    rows = [
        row(f"c{n % 5}", value, repeat=n // 5, cluster=f"k{n % 5 % 2}", latency_s=value + 1, cost_usd=value)
        for n, value in enumerate(values)
    ]
    turned = list(rows)
    shuffle.shuffle(turned)
    assert summarise_variant(turned, [EXACT], seed=1) == summarise_variant(rows, [EXACT], seed=1)


@given(st.lists(st.booleans(), min_size=1, max_size=30))
def test_an_interval_holds_its_mean_and_keeps_to_the_range(right: list[bool]) -> None:
    found = figures_of([row(f"c{n}", float(value)) for n, value in enumerate(right)])["exact_match"]
    low, high = ends(found)
    assert found.value is not None
    assert 0 <= low <= found.value <= high <= 1
    assert low < high


@given(st.lists(st.none() | st.floats(allow_nan=False) | st.sampled_from([0.0, 1.0]), max_size=700))
def test_a_column_gives_back_what_was_put_into_it(values: list[float | None]) -> None:
    check_column(values)


@pytest.mark.parametrize("n_different", [1, 254, 255, 256, 257, 600])
def test_a_column_holds_few_and_many_different_values(n_different: int) -> None:
    check_column([None if n % 7 == 3 else float(n % n_different) for n in range(1_500)])


def check_column(values: list[float | None]) -> None:
    column = Column()
    for place, value in enumerate(values):
        if value is not None:
            column.put(place, value)
    found = column.values(len(values))
    assert [None if math.isnan(value) else value for value in found.tolist()] == values


def test_parts_that_share_their_scores_range_have_its_interval() -> None:
    searched = evaluator("retrieval")
    rows = [
        row(f"c{n}", score=scored_as(1.0, "retrieval", parts={"hit_at_4": 1.0}), slice_name="a")
        for n in range(20)
    ]
    found = figures_of(rows, searched)
    assert ends(found["retrieval.hit_at_4"]) == ends(found["retrieval"])
    assert ends(found["retrieval.hit_at_4"])[0] == pytest.approx(0.05 ** (1 / 20))
