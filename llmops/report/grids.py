"""The tables of a report, as rows of short texts: every face of a run lays out the same ones.

A value never stands without the cases it was taken over, and a mean not without its interval.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from llmops.definitions.experiment import MEASURED
from llmops.records import Comparison, Effect, Figure, Run
from llmops.report import texts
from llmops.report.sentences import judgement

_CLASS_FIGURES = ("recall", "precision", "f1")
_WORST_CLASSES = 5
_FIRST_CASES = 3


@dataclass(frozen=True, slots=True)
class Grid:
    """A table.

    n_names: columns from the left that hold names; the others hold numbers and a word on them.
    n_spare: columns after the names that can go where there is no room.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    n_names: int
    notes: tuple[str, ...] = ()
    n_spare: int = 0

    def narrowed(self) -> Grid:
        """Return the table without the columns that can go."""
        first, last = self.n_names, self.n_names + self.n_spare
        header, *rows = (row[:first] + row[last:] for row in (self.header, *self.rows))
        return replace(self, header=header, rows=tuple(rows), n_spare=0)


def run_grids(run: Run, comparisons: Sequence[Comparison]) -> Iterator[Grid]:
    """Yield every table of a run that has rows, what matters most first."""
    grids = [metrics_grid(run), blame_grid(run), costs_grid(run)]
    for comparison in comparisons:
        grids += comparison_grids(comparison)
    if not comparisons:
        grids.append(run_slices_grid(run))
    grids += classes_grids(run)
    return (grid for grid in grids if grid.rows)


def comparison_grids(comparison: Comparison) -> list[Grid]:
    """Return the tables of a comparison: effects, and those within each slice."""
    return [effects_grid(comparison), slices_grid(comparison)]


# --- variants -----------------------------------------------------------------------------------------------


def metrics_grid(run: Run) -> Grid:
    """Return every figure that is a mean, a share or a statistic, variants side by side."""
    known = known_figures(run)
    has_missing = any(figure.n_missing for _, _, figure in known)
    rows = tuple(
        (texts.one_line(metric), texts.one_line(name), *_figure_cells(metric, figure, has_missing))
        for metric, name, figure in known
    )
    level = _level([figure for _, _, figure in known])
    header = ("metric", "variant", "value", f"{level} interval", "n", *(["missing"] if has_missing else []))
    remarks = [(metric, figure.note) for metric, _, figure in known if figure.note]
    return Grid("Metrics", header, rows, n_names=2, notes=tuple(_remarks(remarks)))


def known_figures(run: Run) -> list[tuple[str, str, Figure]]:
    """Return the rows of `metrics_grid` as records: metric, variant, figure."""
    figures = [
        (metric, variant.name, run.summary.get(variant.name, {}).get(metric))
        for metric in _metrics(run)
        for variant in run.variants
    ]
    return [(metric, name, figure) for metric, name, figure in figures if figure is not None]


def _metrics(run: Run) -> Iterator[str]:
    """Yield evaluators with their parts, then the shares of errors and of invalid outputs."""
    seen = dict.fromkeys(metric for figures in run.summary.values() for metric in figures)
    per_class = _class_prefixes(run)
    for metric in seen:
        if metric.partition(".")[0] not in MEASURED and not metric.startswith(per_class):
            yield metric
    yield from (metric for metric in ("error_rate", "invalid_rate", "unfiltered_rate") if metric in seen)


def _class_prefixes(run: Run) -> tuple[str, ...]:
    return tuple(f"{name}.{figure}." for name in _classifications(run) for figure in _CLASS_FIGURES)


def _classifications(run: Run) -> list[str]:
    return [evaluator.name for evaluator in run.evaluators if evaluator.kind == "classification"]


def _figure_cells(metric: str, figure: Figure, has_missing: bool) -> tuple[str, ...]:
    cells = texts.quantity(metric, figure.value), texts.interval(figure.interval), f"{figure.n:,}"
    return (*cells, f"{figure.n_missing:,}") if has_missing else cells


def _level(figures: Sequence[Figure]) -> str:
    return next((f"{figure.interval.level:.0%}" for figure in figures if figure.interval), "90%")


def costs_grid(run: Run) -> Grid:
    """Return what each variant took: seconds at the middle and at the slow end, tokens and money in all."""
    columns = {
        "latency p50": "latency_s.p50",
        "p95": "latency_s.p95",
        "first text p50": "ttft_s.p50",
        "tokens in": "input_tokens.sum",
        "tokens out": "output_tokens.sum",
        "USD": "cost_usd",
    }
    if not any("ttft_s.p50" in figures for figures in run.summary.values()):
        del columns["first text p50"]
    rows = []
    for variant in run.variants:
        figures = run.summary.get(variant.name, {})
        cells = [_quantity(metric, figures.get(metric)) for metric in columns.values()]
        n = figures.get("latency_s.p50", figures.get("cost_usd"))
        if n is not None:
            rows.append((texts.one_line(variant.name), *cells, f"{n.n:,}"))
    return Grid("Time, tokens and cost", ("variant", *columns, "n"), tuple(rows), n_names=1)


def _quantity(metric: str, figure: Figure | None) -> str:
    return texts.UNKNOWN if figure is None else texts.quantity(metric, figure.value)


def run_slices_grid(run: Run) -> Grid:
    """Return the evaluators' figures of each variant within each slice."""
    found = [
        (name, metric, variant.name, figure)
        for variant in run.variants
        for name, figures in run.slices.get(variant.name, {}).items()
        for metric, figure in figures.items()
    ]
    found.sort(key=lambda row: row[:2])
    rows = tuple(
        (*map(texts.one_line, (name, metric, variant)), *_figure_cells(metric, figure, has_missing=False))
        for name, metric, variant, figure in found
    )
    level = _level([figure for *_, figure in found])
    return Grid("Slices", ("slice", "metric", "variant", "value", f"{level} interval", "n"), rows, n_names=3)


def classes_grids(run: Run) -> list[Grid]:
    """Return a table of classes for each evaluator that sums up over classes."""
    return [classes_grid(run, name) for name in _classifications(run)]


def classes_grid(run: Run, evaluator: str) -> Grid:
    """Return the classes that each variant tells worst, lowest F1 first."""
    rows = []
    for variant in run.variants:
        figures = run.summary.get(variant.name, {})
        prefix = f"{evaluator}.f1."
        scored = [
            (figure.value, metric.removeprefix(prefix))
            for metric, figure in figures.items()
            if metric.startswith(prefix) and figure.value is not None and figure.value < 1
        ]
        for _, label in sorted(scored)[:_WORST_CLASSES]:
            found = [figures.get(f"{evaluator}.{name}.{label}") for name in _CLASS_FIGURES]
            n = found[0].n if found[0] is not None else 0
            cells = (_quantity(evaluator, figure) for figure in found)
            rows.append((texts.one_line(label), texts.one_line(variant.name), *cells, f"{n:,}"))
    title = f"{texts.one_line(evaluator)}: the classes told worst"
    return Grid(title, ("class", "variant", *_CLASS_FIGURES, "n"), tuple(rows), n_names=2)


def blame_grid(run: Run) -> Grid:
    """Return for each variant of a chain which steps its wrong cases come from, and the first of these cases."""
    rows: list[tuple[str, ...]] = []
    notes: dict[str, None] = {}
    for variant in run.variants:
        blame = run.blame.get(variant.name)
        if blame is None:
            continue
        bar = texts.quantity(blame.metric, blame.pass_at)
        side = "above" if blame.lower_is_better else "below"
        notes[
            f"wrong: {texts.one_line(blame.metric)} {side} {bar}; from the first step whose own score failed"
        ] = None
        for found in blame.steps:
            n = len(found.case_ids)
            name = "(no step's own score failed)" if found.step is None else texts.one_line(found.step)
            cells = texts.one_line(variant.name), f"{n:,} of {blame.n_wrong:,}", f"{found.share:.0%}"
            rows.append((name, *cells, _first(found.case_ids)))
    header = ("step", "variant", "wrong cases", "share", "")
    return Grid("Where wrong cases come from", header, tuple(rows), n_names=2, notes=tuple(notes))


def _first(case_ids: Sequence[str]) -> str:
    shown = ", ".join(map(texts.one_line, case_ids[:_FIRST_CASES]))
    return f"{shown}, ..." if len(case_ids) > _FIRST_CASES else shown


# --- comparisons --------------------------------------------------------------------------------------------


def effects_grid(comparison: Comparison) -> Grid:
    """Return every effect that something is known of."""
    shown = known_effects(comparison)
    notes = list(_notes(shown))
    rows = tuple((texts.one_line(effect.metric), *_effect_cells(effect)) for effect in shown)
    if any(effect.scale == "ratio" and effect.interval for effect in shown):
        notes.append("x: ratio of geometric means; its interval guards against no extremes but those seen")
    header = ("metric", *_effect_header(shown))
    return Grid(_title(comparison), header, rows, n_names=1, notes=tuple(notes), n_spare=2)


def known_effects(comparison: Comparison) -> list[Effect]:
    """Return the rows of `effects_grid` as records."""
    return [effect for effect in comparison.effects if effect.n or effect.n_missing]


def slices_grid(comparison: Comparison) -> Grid:
    """Return the effects on each evaluator within each slice."""
    found = [(name, effect) for name, effects in comparison.slices.items() for effect in effects if effect.n]
    rows = tuple(
        (*map(texts.one_line, (name, effect.metric)), *_effect_cells(effect)) for name, effect in found
    )
    header = ("slice", "metric", *_effect_header([effect for _, effect in found]))
    return Grid(f"{_sides(comparison)}, by slice", header, rows, n_names=2, n_spare=2)


def _sides(comparison: Comparison) -> str:
    return " against ".join(reversed(texts.side_names(comparison)))


def _title(comparison: Comparison) -> str:
    n_clusters = max((effect.n_clusters or 0 for effect in comparison.effects), default=0)
    clusters = f" in {texts.count(n_clusters, 'cluster')}" if n_clusters else ""
    unpaired = f", {comparison.n_unpaired:,} not paired" if comparison.n_unpaired else ""
    return f"{_sides(comparison)}: {texts.count(comparison.n_cases, 'case')}{clusters}{unpaired}"


def _effect_header(effects: Sequence[Effect]) -> tuple[str, ...]:
    level = next((f"{effect.interval.level:.0%}" for effect in effects if effect.interval), "90%")
    return "baseline", "candidate", "effect", f"{level} interval", "n", ""


def _effect_cells(effect: Effect) -> tuple[str, ...]:
    sides = (texts.quantity(effect.metric, value) for value in (effect.baseline, effect.candidate))
    return (
        *sides,
        texts.effect_value(effect),
        texts.effect_interval(effect),
        f"{effect.n:,}",
        judgement(effect),
    )


def _notes(effects: Sequence[Effect]) -> Iterator[str]:
    """Yield what is to be known of effects."""
    said: list[tuple[str, str]] = []
    for effect in effects:
        if effect.n_missing:
            said.append(
                (effect.metric, f"{texts.count(effect.n_missing, 'case')} on one side only, left out")
            )
        if effect.note:
            said.append((effect.metric, effect.note))
    return _remarks(said)


def _remarks(said: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield each remark once, with all metrics it is about. said: metric and remark."""
    remarks: dict[str, dict[str, None]] = {}
    for metric, remark in said:
        remarks.setdefault(texts.one_line(remark), {})[texts.one_line(metric)] = None
    yield from (f"{', '.join(metrics)}: {remark}" for remark, metrics in remarks.items())
