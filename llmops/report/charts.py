"""Drawings of a report as inline SVG: intervals on an axis, distributions, the steps of a case in time.

Each stands in a row of a table beside the numbers it shows, so that nothing is told by a drawing alone; colours come
from the page's classes. What is drawn comes in as numbers; text is escaped here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from llmops.records import Effect, Figure
from llmops.report import texts
from llmops.report.sentences import judgement

WIDTH = 280
_PAD = 8
"""Room for half a dot or half a number at both ends of an axis."""
_ROW = 22
_LOG_FROM = 20
"""An axis is logarithmic where the largest value is so many times the smallest."""
N_BINS = 40

_SVG = Markup(
    '<svg role="img" width="{width}" height="{height}" viewBox="0 0 {width} {height}" class="{look}">'
    "<title>{title}</title>{inside}</svg>"
)
_LINE = Markup('<line class="{look}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>')
_TEXT = Markup('<text x="{x}" y="14" text-anchor="middle">{text}</text>')
_DOT = Markup('<circle class="dot" cx="{x}" cy="{y}" r="4"/>')


def _svg(title: str, height: int, inside: Iterable[Markup], *, look: str = "", width: int = WIDTH) -> Markup:
    joined = Markup().join(inside)
    return _SVG.format(width=width, height=height, look=look, title=texts.visible(title), inside=joined)


def _vertical(look: str, x: float, top: float, bottom: float) -> Markup:
    return _LINE.format(look=look, x1=_at(x), y1=_at(top), x2=_at(x), y2=_at(bottom))


def _at(place: float) -> str:
    """Return a place in a drawing, to a tenth of a pixel."""
    return f"{place:.1f}".removesuffix(".0")


# --- axes ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Axis:
    """A horizontal axis. low < high; both above 0 where it is logarithmic."""

    low: float
    high: float
    is_log: bool = False
    width: int = WIDTH

    def x(self, value: float) -> float:
        """Return the place of a value; what lies outside the axis is drawn at its end."""
        low, high = self.low, self.high
        value = min(max(value, low), high)
        if self.is_log:
            low, high, value = map(math.log, (low, high, value))
        share = (value - low) / (high - low)
        return _PAD + (self.width - 2 * _PAD) * share

    def ticks(self) -> list[float]:
        """Return two to five round values within the axis."""
        if self.is_log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            every = max(1, math.ceil(len(powers) / 5))
            return [tick for power in powers[::every] if self.low <= (tick := 10.0**power) <= self.high]
        step = _round_step((self.high - self.low) / 4)
        first = math.ceil(self.low / step - 1e-9)
        return [tick for n in range(first, first + 6) if (tick := n * step) <= self.high + step * 1e-9]


def _round_step(step: float) -> float:
    """Return the next 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * n for n in (1, 2, 5, 10) if power * n >= step * (1 - 1e-9))


def axis_of(values: Iterable[float], within: tuple[float, float] | None = None) -> Axis | None:
    """Return an axis on which all values have room; None without values.

    within: the range the values can have. It is shown whole, unless they lie close together in it.
    """
    known = sorted(values)
    if not known:
        return None
    low, high = known[0], known[-1]
    if within is not None and high - low > (within[1] - within[0]) / 5:
        return Axis(*within)
    room = (high - low) / 3 or abs(high) / 10 or 0.5
    low, high = low - room, high + room
    if within is not None:
        low, high = max(low, within[0]), min(high, within[1])
    return Axis(low, high)


def spread_axis(low: float, high: float, *, width: int) -> Axis:
    """Return an axis for a distribution: logarithmic where it is wide."""
    if low > 0 and high / low > _LOG_FROM:
        return Axis(low, high, is_log=True, width=width)
    return Axis(low, high, width=width)


def axis_line(axis: Axis) -> Markup:
    """Return the numbers under the drawings of a column."""
    inside = []
    for tick in axis.ticks():
        inside += [
            _vertical("grid", axis.x(tick), 0, 4),
            _TEXT.format(x=_at(axis.x(tick)), text=f"{tick:.4g}"),
        ]
    scale = "logarithmic axis" if axis.is_log else "axis"
    ends = f"{scale} from {axis.low:.4g} to {axis.high:.4g}"
    return _svg(ends, 17, inside, width=axis.width)


# --- intervals ----------------------------------------------------------------------------------------------


def figure_ends(figure: Figure) -> list[float]:
    """Return what of a figure has to have room on an axis."""
    ends = [] if figure.interval is None else [figure.interval.low, figure.interval.high]
    return ends if figure.value is None else [*ends, figure.value]


def whisker(metric: str, figure: Figure, axis: Axis, *, baseline: float | None, is_baseline: bool) -> Markup:
    """Return a value as a dot on its interval, with a broken line where the baseline's value lies."""
    said = [texts.quantity(metric, figure.value), texts.interval(figure.interval)]
    title = " ".join(filter(None, said))
    if baseline is not None and not is_baseline:
        title += f", baseline {texts.quantity(metric, baseline)}"
    inside = [_vertical("grid", axis.x(end), 0, _ROW) for end in (axis.low, axis.high)]
    if baseline is not None:
        inside.append(_vertical("base", axis.x(baseline), 0, _ROW))
    ends = None if figure.interval is None else (figure.interval.low, figure.interval.high)
    inside += _dot_and_whisker(axis, figure.value, ends)
    return _svg(title, _ROW, inside, look="is-baseline" if is_baseline else "")


def _dot_and_whisker(axis: Axis, value: float | None, ends: tuple[float, float] | None) -> list[Markup]:
    middle = _ROW / 2
    drawn = []
    if ends is not None:
        left, right = map(axis.x, ends)
        drawn = [
            _LINE.format(look="whisker", x1=_at(left), y1=_at(middle), x2=_at(right), y2=_at(middle)),
            *(_vertical("whisker", end, middle - 4, middle + 4) for end in (left, right)),
        ]
    return drawn if value is None else [*drawn, _DOT.format(x=_at(axis.x(value)), y=_at(middle))]


_LOOKS = {"better": "is-good", "worse": "is-bad", "": "is-open"}


def effect_axis(reach: float) -> Axis:
    """Return the axis of effects, no change in its middle. reach: as `effect_reach`."""
    return Axis(-reach, reach)


def effect_reach(effect: Effect, unit: float = 1.0) -> float:
    """Return how far an effect or its interval is from no change, in `unit`s; of a ratio, its logarithm."""
    return max((abs(_distance(effect, end, unit)) for end in _effect_ends(effect)), default=0.0)


def _effect_ends(effect: Effect) -> list[float]:
    ends = [] if effect.interval is None else [effect.interval.low, effect.interval.high]
    return ends if effect.estimate is None else [effect.estimate, *ends]


def _distance(effect: Effect, value: float, unit: float) -> float:
    return math.log(max(value, 1e-9)) if effect.scale == "ratio" else value / unit


def effect_bar(effect: Effect, axis: Axis, unit: float = 1.0) -> Markup:
    """Return an effect as a dot on its interval, with a broken line at no change."""
    word = judgement(effect)
    title = f"{texts.effect_value(effect)} {texts.effect_interval(effect)}, no change at {texts.neutral(effect):g}"
    inside = [_vertical("base", axis.x(0), 0, _ROW)]
    places = [_distance(effect, end, unit) for end in _effect_ends(effect)]
    if places:
        ends = None if effect.interval is None else (places[-2], places[-1])
        inside += _dot_and_whisker(axis, None if effect.estimate is None else places[0], ends)
    return _svg(title, _ROW, inside, look=_LOOKS[word])


# --- distributions ------------------------------------------------------------------------------------------

HISTOGRAM_WIDTH = 400
_HISTOGRAM_HEIGHT = 40


@dataclass(frozen=True, slots=True)
class Distribution:
    """The values of one variant, in any order, at least one."""

    name: str
    is_baseline: bool
    values: Sequence[float]
    least: float
    p50: float
    p95: float
    most: float


def bin_counts(values: Sequence[float], axis: Axis) -> list[int]:
    """Return how many values lie in each of `N_BINS` parts of an axis that have the same width as drawn."""
    counts = [0] * N_BINS
    inner = axis.width - 2 * _PAD
    for value in values:
        place = int((axis.x(value) - _PAD) / inner * N_BINS)
        counts[min(place, N_BINS - 1)] += 1
    return counts


def histograms(metric: str, found: Sequence[Distribution], axis: Axis) -> list[Markup]:
    """Return each distribution with its middle as a line and its slow end as a broken one.

    The same height means the same share of values in all of them.
    """
    counts = [bin_counts(one.values, axis) for one in found]
    tallest = max(max(bins) / len(one.values) for one, bins in zip(found, counts, strict=True))
    return [
        _histogram(metric, one, axis, [n / len(one.values) / tallest for n in bins])
        for one, bins in zip(found, counts, strict=True)
    ]


def _histogram(metric: str, found: Distribution, axis: Axis, heights: Sequence[float]) -> Markup:
    bottom = _HISTOGRAM_HEIGHT - 1
    step = (axis.width - 2 * _PAD) / N_BINS
    bars = "".join(
        f"M{_at(_PAD + place * step)} {bottom}v{_at(-tall)}h{_at(step)}v{_at(tall)}z"
        for place, height in enumerate(heights)
        if (tall := height and max(1.0, bottom * height))
    )
    inside = [
        _LINE.format(look="grid", x1=_PAD, y1=bottom, x2=axis.width - _PAD, y2=bottom),
        Markup('<path class="bars" d="{}"/>').format(bars),
        _vertical("p50", axis.x(found.p50), 0, _HISTOGRAM_HEIGHT),
        _vertical("p95", axis.x(found.p95), 0, _HISTOGRAM_HEIGHT),
    ]
    middle, slow = (texts.quantity(metric, value) for value in (found.p50, found.p95))
    title = f"{metric} of {found.name}: p50 {middle}, p95 {slow}"
    look = "is-baseline" if found.is_baseline else ""
    return _svg(title, _HISTOGRAM_HEIGHT, inside, look=look, width=axis.width)


def time_bar(start_s: float, duration_s: float, whole_s: float) -> Markup:
    """Return when within a case one step ran."""
    width = 120
    scale = width / whole_s if whole_s > 0 else 0.0
    left = min(start_s * scale, width - 1.0)
    length = min(max(duration_s * scale, 1.0), width - left)
    box = Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>')
    inside = [box.format("track", 0, 5, width, 4), box.format("spent", _at(left), 3, _at(length), 8)]
    title = f"from {texts.seconds(start_s)}, for {texts.seconds(duration_s)}"
    return _svg(title, 14, inside, width=width)
