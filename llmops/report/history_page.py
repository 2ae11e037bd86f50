"""A history as one page that holds all it needs: each metric of each variant over its runs, then every line.

The words are those of `history`, the shell and its looks those of `html`; the drawings of this page are made here.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from markupsafe import Markup

from llmops.report import texts
from llmops.report.history import (
    INTERVAL,
    History,
    Line,
    extent,
    interval_text,
    left_out,
    places_grid,
    reading_of,
    releases_grid,
    results_grid,
    shared,
    tried_grid,
    when,
)
from llmops.report.html import fragment, page
from llmops.stores.entries import Reading

WIDTH, HEIGHT = 264, 72
_LEFT, _RIGHT, _TOP, _BOTTOM = 38, 6, 9, 9
_NEW_VERSION = frozenset({"prompt", "chain"})

_SVG = Markup(
    '<svg role="img" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
    "<title>{title}</title>{inside}</svg>"
)
_VERTICAL = Markup('<line class="{look}" x1="{x}" y1="{top}" x2="{x}" y2="{bottom}"/>')
_LEVEL = Markup('<line class="grid" x1="{left}" y1="{y}" x2="{right}" y2="{y}"/>')
_NUMBER = Markup('<text x="{x}" y="{y}" text-anchor="end">{text}</text>')
_BAND = Markup('<path class="bars" opacity="0.4" d="{}"/>')
_PATH = Markup('<path class="whisker" fill="none" d="{}"/>')
_DOT = Markup('<circle class="dot" cx="{x}" cy="{y}" r="3"/>')


@dataclass(frozen=True, slots=True)
class Point:
    """One run of a variant. place: of the run among all runs of the page, from 0."""

    place: int
    line: Line
    reading: Reading
    value: float


@dataclass(frozen=True, slots=True)
class Scale:
    """Where a run and a value stand in a drawing."""

    n_runs: int
    low: float
    high: float

    def x(self, place: int) -> float:
        """Return where a run stands; a run that is alone stands in the middle."""
        share = place / (self.n_runs - 1) if self.n_runs > 1 else 0.5
        return round(_LEFT + 6 + share * (WIDTH - _LEFT - _RIGHT - 6), 1)

    def y(self, value: float) -> float:
        """Return how far from the top a value stands."""
        share = (value - self.low) / (self.high - self.low)
        return round(HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM), 1)


def history_page(history: History, *, now: datetime) -> str:
    """Return the history as one page. now: when it is made."""
    tables = (
        results_grid(history, len(history.metrics)),
        tried_grid(history),
        places_grid(history),
        releases_grid(history),
    )
    body = fragment(
        "history.html.jinja",
        title=history.title,
        extent=extent(history),
        left_out=left_out(history),
        groups=list(_groups(history)),
        interval=INTERVAL,
        same=shared(history),
        tables=[grid for grid in tables if grid.rows],
        now=f"{now.astimezone(UTC):%Y-%m-%d %H:%M} UTC",
    )
    return page(f"history of {history.title}", body)


# --- over time --------------------------------------------------------------------------------------------


def _groups(history: History) -> Iterator[dict[str, Any]]:
    """Yield for each metric its variants, each with its values over the runs."""
    runs = list(dict.fromkeys(line.entry.run_id for line in reversed(history.lines)))
    places = {run_id: place for place, run_id in enumerate(runs)}
    has_many = len({line.entry.experiment for line in history.lines}) > 1
    for metric in history.metrics:
        found = _points(history, metric, places)
        scale = _scale(chain(*found.values()), len(runs))
        rows = [
            _row(metric, f"{experiment}: {variant}" if has_many else variant, points, scale)
            for (experiment, variant), points in found.items()
        ]
        if rows:
            yield {"name": metric, "rows": rows}


def _points(history: History, metric: str, places: Mapping[str, int]) -> dict[tuple[str, str], list[Point]]:
    """Return the values of each variant, the oldest first."""
    found: dict[tuple[str, str], list[Point]] = defaultdict(list)
    for line in reversed(history.lines):
        reading = reading_of(line.entry, metric)
        if reading is not None and reading.value is not None:
            point = Point(places[line.entry.run_id], line, reading, reading.value)
            found[line.entry.experiment, line.entry.variant].append(point)
    return dict(sorted(found.items()))


def _scale(points: Iterator[Point], n_runs: int) -> Scale:
    """Return a scale from the lowest to the highest end of an interval, so that changes show."""
    ends = [end for point in points for end in (point.value, *(_ends(point.reading) or ()))]
    if not ends:
        return Scale(n_runs, 0.0, 1.0)
    low, high = min(ends), max(ends)
    step = 10.0 ** math.floor(math.log10(high - low or abs(high) or 1.0)) / 2
    low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    return Scale(n_runs, low, high if high > low else low + step)


def _ends(reading: Reading) -> tuple[float, float] | None:
    return None if reading.low is None or reading.high is None else (reading.low, reading.high)


def _row(metric: str, name: str, points: Sequence[Point], scale: Scale) -> dict[str, Any]:
    last = points[-1].reading
    return {
        "name": name,
        "drawing": draw(f"{metric} of {name}", metric, points, scale),
        "n_runs": f"{len(points):,}",
        "value": texts.quantity(metric, last.value),
        "interval": interval_text(last),
        "n": "" if last.n is None else f"{last.n:,}",
    }


# --- drawings ---------------------------------------------------------------------------------------------


def draw(title: str, metric: str, points: Sequence[Point], scale: Scale) -> Markup:
    """Return values as dots in the order of their runs, on a band of their intervals.

    points: at least one, the oldest first. Dots are joined as long as dataset and evaluator stayed the same; a broken
    line marks a new version of the prompt or chain.
    """
    inside = [*_frame(scale), *(_marker(point, scale) for point in points if _is_new(point))]
    for piece in pieces(points):
        inside += _band(piece, scale)
        if len(piece) > 1:
            inside.append(_PATH.format(_through([(point.place, point.value) for point in piece], scale)))
    inside += [_DOT.format(x=scale.x(point.place), y=scale.y(point.value)) for point in points]
    said = f"{title}, {_told(metric, points)}"
    return _SVG.format(width=WIDTH, height=HEIGHT, title=texts.visible(said), inside=Markup().join(inside))


def pieces(points: Sequence[Point]) -> list[list[Point]]:
    """Return the values in pieces within which they can be compared."""
    found: list[list[Point]] = []
    for point in points:
        if not found or _measured_with(point) != _measured_with(found[-1][-1]):
            found.append([])
        found[-1].append(point)
    return found


def _measured_with(point: Point) -> tuple[str, str, str]:
    return point.line.entry.dataset, point.line.entry.dataset_version, point.reading.identity


def _is_new(point: Point) -> bool:
    return bool(_NEW_VERSION & set(point.line.changed))


def _frame(scale: Scale) -> Iterator[Markup]:
    for value in (scale.low, scale.high):
        y = scale.y(value)
        yield _LEVEL.format(left=_LEFT, right=WIDTH - _RIGHT, y=y)
        yield _NUMBER.format(x=_LEFT - 6, y=y + 4, text=f"{value:.3g}")


def _marker(point: Point, scale: Scale) -> Markup:
    return _VERTICAL.format(look="base", x=scale.x(point.place), top=0, bottom=HEIGHT)


def _band(piece: Sequence[Point], scale: Scale) -> Iterator[Markup]:
    """Yield the intervals of a piece: between neighbours an area, alone a line."""
    known = [(point, ends) for point in piece if (ends := _ends(point.reading))]
    if len(known) == 1:
        point, (low, high) = known[0]
        yield _VERTICAL.format(look="whisker", x=scale.x(point.place), top=scale.y(high), bottom=scale.y(low))
    elif known:
        there = [(point.place, ends[1]) for point, ends in known]
        back = [(point.place, ends[0]) for point, ends in reversed(known)]
        yield _BAND.format(f"{_through([*there, *back], scale)}z")


def _through(places: Sequence[tuple[int, float]], scale: Scale) -> str:
    return "M" + "L".join(f"{scale.x(place)} {scale.y(value)}" for place, value in places)


def _told(metric: str, points: Sequence[Point]) -> str:
    """Return what the drawing shows."""
    ends = [points[0], points[-1]] if len(points) > 1 else [points[0]]
    said = [f"{_value(metric, point)} on {when(point.line.entry)}" for point in ends]
    if len(points) == 1:
        return f"one run: {said[0]}"
    low, high = (texts.quantity(metric, find(point.value for point in points)) for find in (min, max))
    return f"{len(points):,} runs: from {said[0]} to {said[1]}, lowest {low}, highest {high}"


def _value(metric: str, point: Point) -> str:
    return " ".join(filter(None, (texts.quantity(metric, point.value), interval_text(point.reading))))
