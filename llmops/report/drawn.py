"""Tables of a page whose rows carry a drawing: figures with their intervals, effects, slices, distributions.

The words in them are those of `grids`; what is added is where a value lies beside the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from llmops.definitions.experiment import MEASURED
from llmops.records import Comparison, Effect, Figure, Run
from llmops.report import charts, texts
from llmops.report.charts import Axis, Distribution
from llmops.report.grids import effects_grid, known_effects, known_figures, metrics_grid
from llmops.report.sentences import judgement

_SHARES = ("error_rate", "invalid_rate")


def metric_groups(run: Run) -> dict[str, Any]:
    """Return the table of metrics, its rows in one group a metric, each group on an axis of its own."""
    grid = metrics_grid(run)
    baselines = {variant.name for variant in run.variants if variant.is_baseline}
    groups = []
    together = zip(known_figures(run), grid.rows, strict=True)
    for metric, found in groupby(together, key=lambda row: row[0][0]):
        rows = list(found)
        axis = _axis(run, metric, [figure for (_, _, figure), _ in rows])
        standing = [figure.value for (_, name, figure), _ in rows if name in baselines]
        baseline = standing[0] if len(standing) == 1 else None
        groups.append(
            {
                "name": metric,
                "axis": None if axis is None else charts.axis_line(axis),
                "rows": [
                    {
                        "name": cells[1],
                        "is_baseline": name in baselines,
                        "cells": cells[2:],
                        "drawing": axis
                        and charts.whisker(
                            metric, figure, axis, baseline=baseline, is_baseline=name in baselines
                        ),
                    }
                    for (_, name, figure), cells in rows
                ],
            }
        )
    return {"header": grid.header[2:], "groups": groups, "notes": grid.notes}


def _axis(run: Run, metric: str, figures: Sequence[Figure]) -> Axis | None:
    """Return the axis of a metric; None where there is no interval to draw."""
    if not any(figure.interval for figure in figures):
        return None
    ends = [end for figure in figures for end in charts.figure_ends(figure)]
    within = (0.0, 1.0) if metric in _SHARES else _range(run, metric)
    if within is not None and not within[0] <= min(ends) <= max(ends) <= within[1]:
        within = None  # a part of a score may have a range of its own
    return charts.axis_of(ends, within)


def _range(run: Run, metric: str) -> tuple[float, float] | None:
    """Return the range of the evaluator that a metric is of."""
    name = metric.partition(".")[0]
    judge = next((judge for judge in run.evaluators if judge.name == name), None)
    if judge is None or judge.low is None or judge.high is None or judge.low >= judge.high:
        return None
    return judge.low, judge.high


# --- comparisons --------------------------------------------------------------------------------------------


def comparison_views(run: Run, comparison: Comparison) -> dict[str, Any]:
    """Return the effects of a comparison, each on the axis of its kind, and its slices as a table of heats."""
    grid, effects = effects_grid(comparison), known_effects(comparison)
    reaches: dict[str, float] = {}
    for effect in effects:
        reach = charts.effect_reach(effect, _unit(run, effect))
        reaches[effect.scale] = max(reaches.get(effect.scale, 0.0), reach)
    axes = {scale: charts.effect_axis(reach * 1.05) for scale, reach in reaches.items() if reach > 0}
    rows = [
        {
            "cells": cells,
            "tone": _TONES[judgement(effect)],
            "drawing": charts.effect_bar(effect, axes[effect.scale], _unit(run, effect))
            if effect.interval is not None and effect.scale in axes
            else None,
        }
        for effect, cells in zip(effects, grid.rows, strict=True)
    ]
    return {"grid": grid, "rows": rows, "slices": _heats(run, comparison)}


_TONES = {"better": "good", "worse": "bad", "": "open"}


def _unit(run: Run, effect: Effect) -> float:
    """Return the width of a metric's range, so that scores from 1 to 5 and shares lie on one axis."""
    found = _range(run, effect.metric)
    return 1.0 if found is None else found[1] - found[0]


def _heats(run: Run, comparison: Comparison) -> dict[str, Any] | None:
    """Return the effects within each slice, evaluators side by side, under those over all cases."""
    slices = {
        name: {effect.metric: effect for effect in effects if effect.n}
        for name, effects in comparison.slices.items()
    }
    metrics = list(dict.fromkeys(metric for effects in slices.values() for metric in effects))
    if not metrics:
        return None
    whole = {effect.metric: effect for effect in comparison.effects}
    table = {"all cases": whole, **{texts.one_line(name): effects for name, effects in slices.items()}}
    rows = [
        {"name": name, "cells": [_heat(run, effects.get(metric)) for metric in metrics]}
        for name, effects in table.items()
    ]
    return {"metrics": [texts.one_line(metric) for metric in metrics], "rows": rows}


_HEATS = (0.02, 0.1, 0.25)
"""Shares of a metric's range from which an effect is shown as slight, clear or strong."""


def _heat(run: Run, effect: Effect | None) -> dict[str, str] | None:
    """Return one effect with its shade: by its size, and slight as long as its interval holds no change."""
    if effect is None or effect.estimate is None:
        return None
    size = charts.effect_reach(effect.model_copy(update={"interval": None}), _unit(run, effect))
    level = sum(size >= least for least in _HEATS)
    word = judgement(effect)
    is_more = effect.estimate > texts.neutral(effect)
    is_good = is_more != (effect.lower_is_better or effect.metric in MEASURED)
    shade = f"{'good' if is_good else 'bad'}-{level if word else min(level, 1)}" if level else ""
    return {
        "shade": shade,
        "value": texts.effect_value(effect),
        "interval": texts.effect_interval(effect),
        "n": f"{effect.n:,}",
        "word": word,
    }


# --- distributions ------------------------------------------------------------------------------------------

_TITLES = {
    "latency_s": "seconds",
    "cost_usd": "USD",
    "input_tokens": "tokens in",
    "output_tokens": "tokens out",
}


def spread_views(run: Run, values: Mapping[str, Mapping[str, Sequence[float]]]) -> Iterator[dict[str, Any]]:
    """Yield each measure whose values differ: the distribution of each variant, all on one axis."""
    for measure, by_variant in values.items():
        found = _distributions(run, by_variant)
        low = min((one.least for one in found), default=0.0)
        high = max((one.most for one in found), default=0.0)
        if math.isclose(low, high):
            continue
        axis = charts.spread_axis(low, high, width=charts.HISTOGRAM_WIDTH)
        drawings = charts.histograms(measure, found, axis)
        rows = [
            {"found": one, "drawing": drawing, "cells": _cells(measure, one)}
            for one, drawing in zip(found, drawings, strict=True)
        ]
        line = charts.axis_line(axis)
        yield {"title": _TITLES[measure], "axis": line, "is_log": axis.is_log, "rows": rows}


def _distributions(run: Run, by_variant: Mapping[str, Sequence[float]]) -> list[Distribution]:
    from llmops.stats.intervals import quantile

    known = [variant for variant in run.variants if variant.name in by_variant]
    return [
        Distribution(
            variant.name,
            variant.is_baseline,
            values,
            *(quantile(values, q) for q in (0.0, 0.5, 0.95, 1.0)),
        )
        for variant in known
        if (values := by_variant[variant.name])
    ]


def _cells(measure: str, found: Distribution) -> list[str]:
    ends = (found.least, found.p50, found.p95, found.most)
    return [*(texts.quantity(measure, end) for end in ends), f"{len(found.values):,}"]
