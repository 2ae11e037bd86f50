"""What there is to say of a run or a comparison before any table: who is better, what is missing.

Sentences say no more than intervals do: without an interval clear of no change, nothing could be shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from llmops.definitions.base import short
from llmops.definitions.experiment import MEASURED
from llmops.records import Comparison, Effect, EvaluatorVersion, Figure, Run, RunStatus
from llmops.report import texts

NO_JUDGE = "asked of embedded, which is no judge: the numbers show that all runs, and nothing else"
REPLAYED = "replies and latency are those of recordings that came with the files; nothing was asked"
EMBEDDED = "embedded is not a language model: a baseline that needs no key"

_NAMED_OTHERWISE = frozenset({"azure_openai"})
"""Providers whose `model` is a deployment of the user's own naming."""
_LATEST = re.compile(r"[-:@]latest$")

Tone = Literal["good", "bad", "open", "plain"]


@dataclass(frozen=True, slots=True)
class Sentence:
    """One thing to say, and how it is meant."""

    text: str
    tone: Tone = "plain"


def judgement(effect: Effect) -> Literal["better", "worse", ""]:
    """Return what the interval of an effect shows; of some scores and of what is measured unasked, less is better."""
    if effect.interval is None:
        return ""
    neutral = texts.neutral(effect)
    is_more, is_less = effect.interval.low > neutral, effect.interval.high < neutral
    # The name too: comparisons stored before effects said so are shown as well.
    if effect.lower_is_better or effect.metric in MEASURED:
        is_more, is_less = is_less, is_more
    return "better" if is_more else "worse" if is_less else ""


def run_headlines(run: Run, comparisons: Sequence[Comparison]) -> list[Sentence]:
    """Return what a run comes to, one sentence a comparison; without any, its best variant."""
    names = [evaluator.name for evaluator in run.evaluators]
    if comparisons:
        return [comparison_headline(comparison, names) for comparison in comparisons]
    if not names:
        return [Sentence(f"{texts.count(run.n_done, 'output')}, nothing scored: there are no evaluators")]
    return [Sentence(_best(run, run.evaluators[0]))]


def _best(run: Run, evaluator: EvaluatorVersion) -> str:
    metric = evaluator.name
    known = [
        (figure, variant.name)
        for variant in run.variants
        if (figure := run.summary.get(variant.name, {}).get(metric)) and figure.value is not None
    ]
    if not known:
        return f"no {texts.one_line(metric)} could be worked out yet"
    best_of = min if evaluator.lower_is_better else max
    figure, name = best_of(known, key=lambda found: found[0].value or 0.0)
    if len(run.variants) == 1:
        return f"{texts.one_line(name)}: {_figure(metric, figure)}"
    best = f"{texts.one_line(name)}, {_figure(metric, figure)}"
    which = "lowest" if evaluator.lower_is_better else "highest"
    return f"{which} of {len(known)}, with no baseline to compare with: {best}"


def _figure(metric: str, figure: Figure) -> str:
    parts = (texts.one_line(metric), texts.quantity(metric, figure.value), texts.interval(figure.interval))
    return f"{' '.join(filter(None, parts))}, n {figure.n:,}"


def comparison_headline(comparison: Comparison, evaluators: Sequence[str]) -> Sentence:
    """Return whether the candidate is better, worse, both or neither, by its evaluators."""
    scored = [effect for effect in comparison.effects if effect.metric in evaluators]
    better = [effect for effect in scored if judgement(effect) == "better"]
    worse = [effect for effect in scored if judgement(effect) == "worse"]
    baseline, candidate = texts.side_names(comparison)
    if better and worse:
        text = f"{candidate} is better than {baseline} on {_effects(better)}, but worse on {_effects(worse)}"
        return Sentence(text, "open")
    if better or worse:
        word = "better" if better else "worse"
        tone: Tone = "good" if better else "bad"
        return Sentence(f"{candidate} is {word} than {baseline}: {_effects(better or worse)}", tone)
    known = [effect for effect in scored if effect.interval is not None]
    if known:
        text = f"no difference could be shown between {candidate} and {baseline}: {_effects(known)}"
        return Sentence(text, "open")
    why = next((effect.note for effect in scored if effect.note), None)
    return Sentence(f"{candidate} and {baseline} cannot be compared: {why or 'nothing was scored'}", "open")


def _effects(effects: Sequence[Effect]) -> str:
    """Return the first effect in full and the names of the others."""
    first, *others = effects
    name = texts.one_line(first.metric)
    said = f"{name} {texts.effect_value(first)} {texts.effect_interval(first)}, n {first.n:,}"
    rest = ", ".join(texts.one_line(effect.metric) for effect in others)
    return f"{said}; also {rest}" if rest else said


def run_caveats(run: Run) -> Iterator[Sentence]:
    """Yield what a reader has to know before believing a figure."""
    if run.status is not RunStatus.COMPLETE:
        n_open = run.n_cells - run.n_done
        what = (
            f"{texts.count(n_open, 'cell')} of {run.n_cells:,} without an output"
            if n_open
            else f"{texts.count(run.n_unscored, 'output')} still to be scored"
        )
        again = f"`llmops run {texts.one_line(run.experiment)}` goes on"
        yield Sentence(f"{run.status}: {what}; {again}", "bad")
    if run.replayed:
        yield Sentence(f"replayed ({short(run.replayed)}): {REPLAYED}", "open")
    embedded = [
        texts.one_line(variant.name)
        for variant in run.variants
        if any(model.provider == "embedded" for model in variant.models)
    ]
    if embedded:
        whose = "" if len(embedded) == len(run.variants) else f" ({', '.join(embedded)})"
        yield Sentence(f"{EMBEDDED}{whose}")
    yield from _answered_by_others(run)
    for comparison in run.comparisons:
        yield from comparison_caveats(comparison, [run])
    judged = [
        texts.one_line(evaluator.name)
        for evaluator in run.evaluators
        if evaluator.prompts and any(model.provider == "embedded" for model in evaluator.models)
    ]
    if judged:
        yield Sentence(f"{', '.join(judged)}: {NO_JUDGE}")


def _answered_by_others(run: Run) -> Iterator[Sentence]:
    told = []
    for variant in run.variants:
        asked = [model.model for model in variant.models if model.provider not in _NAMED_OTHERWISE]
        others = [
            name
            for name in run.answered_by.get(variant.name, ())
            if asked and len(asked) == len(variant.models) and not any(_is_same(name, each) for each in asked)
        ]
        if others:
            pairs = ", ".join(map(texts.one_line, asked)), ", ".join(map(texts.one_line, others))
            told.append(f"{texts.one_line(variant.name)} asked for {pairs[0]} and got {pairs[1]}")
    if told:
        yield Sentence(f"another model answered than was asked: {'; '.join(told)}", "bad")


def _is_same(returned: str, asked: str) -> bool:
    """Say whether a service's name for what answered may be that of what was asked, said more exactly."""
    exact, wanted = (name.casefold().rpartition("/")[2] for name in (returned, asked))
    return not wanted or exact.startswith(_LATEST.sub("", wanted))


def comparison_caveats(comparison: Comparison, runs: Sequence[Run]) -> Iterator[Sentence]:
    """Yield what makes two sides differ that asked for the same: the models which answered.

    runs: those of the sides.
    """
    found = []
    for side in (comparison.baseline, comparison.candidate):
        run = next((run for run in runs if run.id == side.run_id), None)
        variants = run.variants if run is not None else ()
        variant = next((variant for variant in variants if variant.name == side.variant), None)
        if run is None or variant is None:
            return
        found.append((variant, run.answered_by.get(variant.name, ())))
    (baseline, before), (candidate, after) = found
    same = sorted(model.identity for model in baseline.models) == sorted(
        model.identity for model in candidate.models
    )
    if same and before and after and before != after:
        sides = ((baseline, before), (candidate, after))
        said = "; ".join(
            f"{texts.one_line(variant.name)} by {', '.join(map(texts.one_line, names))}"
            for variant, names in sides
        )
        yield Sentence(f"the same model was asked, and different ones answered: {said}", "bad")


def run_facts(run: Run) -> str:
    """Return on what, how often, and at what cost a run was carried out."""
    size = f"{texts.count(run.dataset.n_cases, 'case')} of {_dataset(run)} ({short(run.dataset.version)})"
    repeats = f", {run.repeats} repeats" if run.repeats > 1 else ""
    work = f"{texts.count(run.n_calls, 'call')}, {run.n_reused:,} reused, {run.wall_s:,.1f} s"
    cost = "cost unknown" if run.cost_usd is None else f"{texts.usd(run.cost_usd)} USD"
    return f"{texts.one_line(run.id)}: {size}{repeats}; {work}, {cost}{repetitions(run)}"


def repetitions(run: Run) -> str:
    """Return what was sent more than once and what nobody learnt the outcome of, after a semicolon; often nothing."""
    hidden = "an unknown sum" if run.hidden_usd is None else f"{texts.usd(run.hidden_usd)} USD"
    parts = {
        texts.count(run.n_retried, "further try").replace("trys", "tries"): run.n_retried,
        f"{run.n_repeated:,} sent again for what may have been done": run.n_repeated,
        f"{texts.count(run.n_unknown, 'outcome')} unknown, at most {hidden} charged unseen": run.n_unknown,
    }
    return "".join(f"; {part}" for part, n in parts.items() if n)


def _dataset(run: Run) -> str:
    return texts.one_line("/".join(filter(None, (run.dataset.name, run.dataset.split))))
