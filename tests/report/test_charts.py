"""Drawings show values where they lie, say in words what they show, and hold whatever numbers come."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.records import Effect, Figure, Interval
from llmops.report import charts
from llmops.report.charts import Axis, Distribution

FINITE = st.floats(-1e12, 1e12, allow_subnormal=False)
SPANS = st.tuples(FINITE, FINITE).filter(lambda ends: ends[1] - ends[0] > 1e-6 * max(map(abs, ends)))


def places(drawing: str, element: str, *names: str) -> list[tuple[float, ...]]:
    found = re.findall(f"<{element} [^>]*>", drawing)
    return [
        tuple(float(re.search(f' {name}="([^"]*)"', one)[1]) for name in names)  # type: ignore[index]
        for one in found
    ]


def figure(value: float | None, low: float, high: float) -> Figure:
    return Figure(value=value, kind="mean", n=9, interval=Interval(low=low, high=high, level=0.9))


@given(SPANS, st.lists(FINITE, min_size=2))
def test_larger_values_lie_further_right_and_none_outside(
    ends: tuple[float, float], values: list[float]
) -> None:
    axis = Axis(*ends)
    drawn = [axis.x(value) for value in sorted(values)]
    assert drawn == sorted(drawn)
    assert all(axis.x(ends[0]) <= x <= axis.x(ends[1]) for x in drawn)
    assert 0 < axis.x(ends[0]) < axis.x(ends[1]) < axis.width


@given(SPANS)
def test_an_axis_has_a_few_round_numbers_within_it(ends: tuple[float, float]) -> None:
    axis = Axis(*ends)
    ticks = axis.ticks()
    slack = (ends[1] - ends[0]) * 1e-6
    assert 1 <= len(ticks) <= 6
    assert all(ends[0] - slack <= tick <= ends[1] + slack for tick in ticks)


def test_a_wide_distribution_has_an_axis_of_powers_of_ten() -> None:
    axis = charts.spread_axis(0.02, 30, width=400)
    assert axis.is_log
    assert axis.ticks() == pytest.approx([0.1, 1, 10])
    assert axis.x(1) - axis.x(0.1) == pytest.approx(axis.x(10) - axis.x(1))
    assert not charts.spread_axis(0, 30, width=400).is_log, "0 has no logarithm"
    assert not charts.spread_axis(2, 30, width=400).is_log
    assert len(charts.spread_axis(1e-9, 1e9, width=400).ticks()) <= 6


def test_the_range_of_a_score_is_shown_whole_unless_values_lie_close_together() -> None:
    assert charts.axis_of([0.3, 0.7], (0, 1)) == Axis(0, 1)
    for values, ends in (([0.9, 0.96], (0.88, 0.98)), ([0.97, 1.0], (0.96, 1)), ([0.0, 0.03], (0, 0.04))):
        axis = charts.axis_of(values, (0, 1))
        assert axis is not None
        assert (axis.low, axis.high) == pytest.approx(ends)
    assert charts.axis_of([5.0], None) == Axis(4.5, 5.5)
    assert charts.axis_of([0.0], None) == Axis(-0.5, 0.5)
    assert charts.axis_of([], (0, 1)) is None


def test_a_whisker_ends_where_the_interval_ends_and_the_baseline_is_marked() -> None:
    axis = Axis(0, 1)
    drawing = charts.whisker("f1", figure(0.6, 0.5, 0.8), axis, baseline=0.25, is_baseline=False)
    assert "<title>0.600 [0.50, 0.80], baseline 0.250</title>" in drawing
    dot, base = (
        places(drawing, *where)[0] for where in (('circle class="dot"', "cx"), ('line class="base"', "x1"))
    )
    line, *_ = places(drawing, 'line class="whisker"', "x1", "x2")
    drawn = [*dot, *line, *base]
    assert drawn == pytest.approx([axis.x(value) for value in (0.6, 0.5, 0.8, 0.25)], abs=0.05)
    own = charts.whisker("f1", figure(0.25, 0.2, 0.3), axis, baseline=0.25, is_baseline=True)
    assert 'class="is-baseline"' in own
    assert "<title>0.250 [0.20, 0.30]</title>" in own
    nobody = charts.whisker(
        "f1", Figure(value=None, kind="mean", n=0), axis, baseline=None, is_baseline=False
    )
    assert "<title>unknown</title>" in nobody
    assert "circle" not in nobody


def effect(estimate: float, low: float, high: float, **fields: Any) -> Effect:
    ends = Interval(low=low, high=high, level=0.9)
    given: dict[str, Any] = {"metric": "f1", "scale": "difference", "baseline": 1, "candidate": 1}
    return Effect(**given | {"estimate": estimate, "interval": ends} | fields)


@pytest.mark.parametrize(
    ("shown", "look", "side"),
    [
        (effect(0.2, 0.1, 0.3), "is-good", 1),
        (effect(-0.2, -0.3, -0.1), "is-bad", -1),
        (effect(0.1, -0.1, 0.3), "is-open", 1),
        (effect(2.0, 1.5, 3.0, scale="ratio", metric="latency_s"), "is-bad", 1),
        (effect(0.5, 0.4, 0.8, scale="ratio", metric="latency_s"), "is-good", -1),
        (effect(0.2, 0.1, 0.3, lower_is_better=True), "is-bad", 1),
    ],
)
def test_an_effect_lies_on_its_side_of_no_change_and_looks_as_it_is_judged(
    shown: Effect, look: str, side: int
) -> None:
    axis = charts.effect_axis(charts.effect_reach(shown))
    drawing = charts.effect_bar(shown, axis)
    ((dot,),) = places(drawing, 'circle class="dot"', "cx")
    ((base,),) = places(drawing, 'line class="base"', "x1")
    assert base == axis.width / 2
    assert math.copysign(1, dot - base) == side
    assert f'class="{look}"' in drawing


def test_a_ratio_and_its_inverse_reach_equally_far() -> None:
    double = effect(2.0, 2.0, 2.0, scale="ratio")
    half = effect(0.5, 0.5, 0.5, scale="ratio")
    assert (
        charts.effect_reach(double) == pytest.approx(charts.effect_reach(half)) == pytest.approx(math.log(2))
    )
    assert charts.effect_reach(effect(1.0, 0.0, 2.0), unit=4.0) == 0.5


@given(st.lists(st.floats(0, 1e9), min_size=2).filter(lambda values: max(values) > min(values) + 1e-3))
def test_every_value_is_in_one_bin(values: list[float]) -> None:
    axis = charts.spread_axis(min(values), max(values), width=400)
    counts = charts.bin_counts(values, axis)
    assert len(counts) == charts.N_BINS
    assert sum(counts) == len(values)
    assert counts[0] >= 1 <= counts[-1]


def test_histograms_mark_the_middle_and_the_slow_end_and_share_one_height() -> None:
    axis = charts.spread_axis(1, 5, width=400)
    narrow = Distribution("a <b>", is_baseline=True, values=[1.0] * 10, least=1, p50=1, p95=1, most=1)
    wide = Distribution("b", is_baseline=False, values=[1.0] * 5 + [5.0] * 5, least=1, p50=3, p95=5, most=5)
    first, second = charts.histograms("latency_s", [narrow, wide], axis)
    assert "<title>latency_s of a &lt;b&gt;: p50 1.000 s, p95 1.000 s</title>" in first
    assert 'class="is-baseline"' in first
    assert places(second, 'line class="p50"', "x1") == [(axis.x(3),)]
    assert places(second, 'line class="p95"', "x1") == [(axis.x(5),)]
    heights = [re.findall(r"v(-?[\d.]+)h", drawing) for drawing in (first, second)]
    assert heights == [["-39"], ["-19.5", "-19.5"]]


def test_a_step_lies_where_it_ran_within_its_case() -> None:
    where = ("rect", "x", "width")
    assert places(charts.time_bar(1.0, 2.0, 4.0), *where) == [(0.0, 120.0), (30.0, 60.0)]
    assert places(charts.time_bar(0.0, 0.0, 0.0), *where)[1] == (0.0, 1.0), "no time is still a step"
    assert places(charts.time_bar(4.0, 0.0, 4.0), *where)[1] == (119.0, 1.0)


def test_the_numbers_of_an_axis_are_said_too() -> None:
    drawing = charts.axis_line(Axis(0.001, 10, is_log=True))
    assert "<title>logarithmic axis from 0.001 to 10</title>" in drawing
    assert re.findall("<text[^>]*>([^<]*)<", drawing) == ["0.001", "0.01", "0.1", "1", "10"]
