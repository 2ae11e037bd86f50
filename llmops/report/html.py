"""A run as one page that holds all it needs: no script, nothing loaded from elsewhere, nothing to click but folds.

The words are those of `sentences` and `grids`, the drawings those of `charts`, the cases those of `pairs`; the layout
stands in the templates and `page.css`. Text that others wrote enters as text nodes only: templates escape whatever is
no `Markup`, and nothing but these templates and `charts` makes any.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from llmops.definitions.base import short
from llmops.definitions.images import without_images
from llmops.records import Comparison, ErrorInfo, Output, Row, Run, Score, Span, Verdict
from llmops.report import charts, texts
from llmops.report.cases import Source, failed_cases
from llmops.report.differences import Pieces, mark
from llmops.report.drawn import comparison_views, metric_groups, spread_views
from llmops.report.grids import Grid, blame_grid, classes_grids, costs_grid, run_slices_grid
from llmops.report.pairs import N_WORST, Pair, flipped_and_worst
from llmops.report.pairs import Side as PairSide
from llmops.report.sentences import repetitions, run_caveats, run_facts, run_headlines
from llmops.report.survey import survey_run
from llmops.report.verdict_texts import (
    TONES,
    gate_details,
    gate_texts,
    gates_grid,
    gravest_first,
    ungated_grid,
    verdict_caveats,
    verdict_facts,
    verdict_headline,
    verdict_where,
)

LONGEST_ANSWER = 4_000
"""Characters of an input, an expected value or an output that are shown."""
LONGEST_VALUE = 1_000
"""Characters of what went into a step or came out of it."""
MOST_STEPS = 40
"""Steps of one case that are shown."""
_DEEPEST = 6
"""Steps inside others are set in no further."""
_TOO_DEEP = "(a value nested too deep to be shown)"


def page(title: str, body: Markup) -> str:
    """Return a whole page around a body; a plain `str` as body would be escaped.

    Its one style is allowed by its hash, and nothing else is allowed to load or to run.
    """
    style = _style()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return _render("page.html.jinja", title=title, body=body, style=style, style_source=f"sha256-{digest}")


def fragment(template: str, **values: Any) -> Markup:
    """Return what a template of this package makes of values: text in them is made visible and escaped."""
    return Markup(_render(template, **values))  # noqa: S704  the template has escaped it


def _render(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("llmops", "report"),
        autoescape=True,
        finalize=_finalize,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _finalize(value: Any) -> Any:
    """Return what a template is to print: of text that is no markup, only characters that show."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else texts.visible(value)


@cache
def _style() -> Markup:
    return Markup(resources.files("llmops.report").joinpath("page.css").read_text(encoding="utf-8"))  # noqa: S704


# --- a run --------------------------------------------------------------------------------------------------


def run_page(
    run: Run,
    comparisons: Sequence[Comparison],
    rows: Source,
    *,
    now: datetime,
    verdict: Verdict | None = None,
) -> str:
    """Return all there is to say of a run and its cases to look at, as one page.

    comparisons: of its candidates with their baseline. rows: read once without the steps of cases, and for the cases
    that are shown with them. now: when the page is made. verdict: what gates say of the run, first on the page.
    """
    judged = {comparison.candidate.variant for comparison in comparisons}
    survey = survey_run(
        run, rows, judged=judged or {variant.name for variant in run.variants}, n_worst=N_WORST
    )
    galleries = flipped_and_worst(run, comparisons, rows, survey.worst)
    body = fragment(
        "run.html.jinja",
        run=run,
        verdict=None if verdict is None else _verdict(verdict),
        headlines=run_headlines(run, comparisons),
        caveats=list(run_caveats(run)),
        facts_line=run_facts(run),
        facts=list(_facts(run)),
        variants=_variants_grid(run),
        metrics=metric_groups(run),
        costs=costs_grid(run),
        more=list(_more_grids(run, comparisons)),
        comparisons=[comparison_views(run, comparison) for comparison in comparisons],
        spreads=list(spread_views(run, survey.values)),
        errors=failed_cases(run, rows),
        galleries=[
            {
                "title": gallery.title,
                "n_more": gallery.n_more,
                "cases": [case_view(run, pair) for pair in gallery.pairs],
            }
            for gallery in galleries
        ],
        created=time_text(run.created_at),
        now=time_text(now),
    )
    return page(run.id, body)


def _verdict(verdict: Verdict) -> dict[str, Any]:
    """Return what the template shows of a verdict."""
    return {
        "headline": verdict_headline(verdict),
        "caveats": list(verdict_caveats(verdict)),
        "facts": "; ".join(filter(None, (verdict_facts(verdict), verdict_where(verdict)))),
        "tones": TONES,
        "candidates": [
            {
                "grid": gates_grid(candidate),
                "ungated": ungated_grid(candidate),
                "gates": [(gate_texts(gate).gate, list(gate_details(gate))) for gate in candidate.gates],
            }
            for candidate in gravest_first(verdict)
        ],
    }


def _more_grids(run: Run, comparisons: Sequence[Comparison]) -> Iterator[Grid]:
    grids = [blame_grid(run), *([] if comparisons else [run_slices_grid(run)]), *classes_grids(run)]
    return (grid for grid in grids if grid.rows)


def time_text(time: datetime) -> str:
    """Return a time as pages say it."""
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _facts(run: Run) -> Iterator[tuple[str, str]]:
    """Yield what was run on what, and what it took, as label and text."""
    split = f"/{run.dataset.split}" if run.dataset.split else ""
    yield "run", run.id + (f" (fresh {run.fresh})" if run.fresh else "")
    yield "identity", short(run.identity)
    yield "experiment", run.experiment
    yield "status", f"{run.status}: {run.n_done:,} of {texts.count(run.n_cells, 'cell')}"
    skipped = f", {texts.count(run.dataset.n_skipped, 'wrong row')} left out" if run.dataset.n_skipped else ""
    yield "dataset", f"{run.dataset.name}{split}, {texts.count(run.dataset.n_cases, 'case')}{skipped}"
    yield "dataset version", f"{short(run.dataset.version)} ({run.dataset.path})"
    yield "git", _commit(run)
    yield "seed", f"{run.seed}" + (f", {run.repeats} repeats" if run.repeats > 1 else "")
    yield "started", time_text(run.created_at)
    yield (
        "finished",
        "not yet" if run.finished_at is None else f"{time_text(run.finished_at)}, {run.wall_s:,.1f} s",
    )
    yield "calls", f"{run.n_calls:,} sent, {run.n_reused:,} reused{repetitions(run)}"
    yield "cost", texts.UNKNOWN if run.cost_usd is None else f"{texts.usd(run.cost_usd)} USD"
    judges = (f"{judge.name} ({judge.kind}, {short(judge.identity)})" for judge in run.evaluators)
    yield "evaluators", ", ".join(judges) or "none"


def _commit(run: Run) -> str:
    source = run.source
    if source.commit is None:
        return "outside a repository"
    branch = f" on {source.branch}" if source.branch else ""
    return f"{short(source.commit)}{branch}" + (", with changes not committed" if source.dirty else "")


def _variants_grid(run: Run) -> Grid:
    rows = tuple(
        (
            variant.name + (" (baseline)" if variant.is_baseline else ""),
            variant.reference,
            short(variant.definition_identity),
            ", ".join(f"{model.name}: {model.provider} {model.model}" for model in variant.models) or "none",
            _settings(variant.parameters) or "as they stand",
            _settings(variant.set) or "nothing",
            short(variant.identity),
        )
        for variant in run.variants
    )
    header = ("variant", "what", "version", "models", "parameters", "set", "identity")
    return Grid("What was tried", header, rows, n_names=len(header))


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {texts.value_text(value)}" for name, value in values.items())


# --- cases --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shown:
    """A value as a page shows it. is_data: JSON, not prose. n_left: characters that are not shown."""

    pieces: Pieces | str
    is_data: bool = False
    n_left: int = 0


def _shown(value: Any, most: int) -> Shown:
    text = value_lines(value)
    return Shown(text[:most], is_data=not isinstance(value, str), n_left=max(0, len(text) - most))


def value_lines(value: Any) -> str:
    """Return a value to be read: text as it is, images in words, else JSON over several lines."""
    try:
        shown = without_images(value)
        if isinstance(shown, str):
            return shown
        return json.dumps(shown, ensure_ascii=False, default=str, indent=2)
    except RecursionError:
        return _TOO_DEEP


def case_view(run: Run, pair: Pair) -> dict[str, Any]:
    """Return what the template shows of a case."""
    case = pair.case
    asked = []
    if case is not None:
        asked = [(name, _shown(value, LONGEST_ANSWER)) for name, value in case.inputs.items()]
        asked.append(("expected", _shown(case.expected, LONGEST_ANSWER)))
    outputs = [None if side.row is None else side.row.output for side in pair.sides]
    answers = _answers(outputs)
    return {
        "pair": pair,
        "slice": None if case is None else case.slice,
        "asked": asked,
        "sides": [_side(run, side, answer) for side, answer in zip(pair.sides, answers, strict=True)],
    }


def _answers(outputs: Sequence[Output | None]) -> list[Shown | None]:
    """Return the outputs; of two, with the words marked that only one of them has."""
    shown = [
        None if output is None or output.error is not None else _shown(output.value, LONGEST_ANSWER)
        for output in outputs
    ]
    if len(shown) == 2 and shown[0] is not None and shown[1] is not None:
        marked = mark(str(shown[0].pieces), str(shown[1].pieces))
        if marked is not None:
            return [
                Shown(pieces, one.is_data, one.n_left)
                for pieces, one in zip(marked, (shown[0], shown[1]), strict=True)
            ]
    return shown


def _side(run: Run, side: PairSide, answer: Shown | None) -> dict[str, Any]:
    row = side.row
    output = None if row is None else row.output
    role = side.role + (", first repeat" if run.repeats > 1 else "")
    return {
        "name": side.name,
        "role": role.removeprefix(", "),
        "blame": None if row is None else _blamed(run, row),
        "answer": answer,
        "error": None if output is None else _error(output.error),
        "is_invalid": output is not None and output.valid is False,
        "scores": [] if row is None else [_score(score) for score in row.scores],
        "steps": None if row is None or output is None else _steps(output, row.case.inputs),
    }


def _blamed(run: Run, row: Row) -> str | None:
    """Return the step that a wrong case comes from."""
    blame = run.blame.get(row.variant)
    return None if blame is None else blame.by_case().get(row.case.id)


def _score(score: Score) -> dict[str, Any]:
    value = "not scored" if score.value is None else texts.quantity(score.evaluator, score.value)
    label = f"found {score.label}" if score.label is not None else None
    why = score.error or score.rationale
    said = [part for part in (label, why) if part]
    return {
        "name": score.evaluator,
        "value": value,
        "why": _shown("; ".join(said), LONGEST_VALUE) if said else None,
    }


def _steps(output: Output, inputs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the steps of a case in time, with how deep each stands inside others."""
    spans = output.spans[:MOST_STEPS]
    if not spans:
        return None
    whole = max(span.start_s + span.duration_s for span in spans)
    depths: dict[int, int] = {}
    steps = []
    for span in spans:
        depths[span.index] = 0 if span.parent is None else depths.get(span.parent, 0) + 1
        steps.append(
            {
                "span": span,
                "depth": min(depths[span.index], _DEEPEST),
                "said": ", ".join(_said(span)),
                "took": texts.seconds(span.duration_s),
                "bar": charts.time_bar(span.start_s, span.duration_s, whole),
                "inputs": None if span.inputs == inputs else _shown(span.inputs, LONGEST_VALUE),
                "output": None if span.output == output.value else _shown(span.output, LONGEST_VALUE),
                "error": _error(span.error),
            }
        )
    return {"all": steps, "n_left": len(output.spans) - len(spans), "said": _took(output)}


def _error(error: ErrorInfo | None) -> Shown | None:
    return None if error is None else _shown(f"{error.kind}: {error.message}", LONGEST_VALUE)


def _said(span: Span) -> Iterator[str]:
    """Yield what there is to say of a step but for its time."""
    yield span.kind
    if span.model is not None:
        yield span.model
    yield span.status
    if span.usage is not None:
        about = "about " if span.usage.estimated else ""
        yield f"{about}{span.usage.input_tokens:,} tokens in, {span.usage.output_tokens:,} out"
    if span.cost_usd is not None:
        yield f"{texts.usd(span.cost_usd)} USD"


def _took(output: Output) -> str:
    parts = [texts.count(len(output.spans), "step")]
    if output.latency_s is not None:
        parts.append(texts.seconds(output.latency_s))
    if output.input_tokens is not None and output.output_tokens is not None:
        parts.append(f"{texts.count(output.input_tokens + output.output_tokens, 'token')}")
    if output.cost_usd is not None:
        parts.append(f"{texts.usd(output.cost_usd)} USD")
    return ", ".join(parts)
