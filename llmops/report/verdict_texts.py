"""What there is to say of a verdict: the sentences, tables and figures that all its faces share.

Terminal, comment, page, JUnit, annotations and MLflow's tags lay out what stands here and word nothing of their own,
so that they agree by construction. All texts are printable and of one line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from llmops.definitions.base import short
from llmops.records import CandidateVerdict, Comparison, Effect, GateResult, Outcome, Side, Verdict
from llmops.report import texts
from llmops.report.grids import Grid
from llmops.report.sentences import Sentence, Tone

TONES: Mapping[Outcome, Tone] = {Outcome.PASS: "good", Outcome.FAIL: "bad", Outcome.INCONCLUSIVE: "open"}
_GRAVEST = (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS)
_COLUMNS = ("gate", "baseline", "candidate", "effect", "interval", "n", "p pass", "p worse", "says")
_REPLAYED = (
    "replies are those of recordings that came with the files: this verdict promotes nothing, and a run that asks the "
    "models has to confirm it"
)
_AGAIN = "asking again is no new evidence"
_Q = "q: the share of false alarms among all that look as much worse (Benjamini-Hochberg); nothing here decides"
_MOST_NAMES = 5
_LINK = re.compile(r"https?://[A-Za-z0-9._~:/?#@!&'*+,;=%\[\]-]+")
_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class GateTexts:
    """One gate in words and figures, the same characters on every face; empty where there is nothing to show."""

    gate: str
    says: Outcome
    effect: str
    interval: str
    level: str
    n: str
    baseline: str
    candidate: str
    p_pass: str
    p_worse: str
    reason: str

    @property
    def figures(self) -> str:
        """Effect, interval, cases and p-values in a row."""
        interval = f"{self.interval} at {self.level}" if self.interval else ""
        parts = [" ".join(filter(None, (self.effect, interval))), f"n {self.n}"]
        parts += [f"p pass {self.p_pass}"] * bool(self.p_pass) + [f"p worse {self.p_worse}"] * bool(
            self.p_worse
        )
        return ", ".join(parts)

    @property
    def sentence(self) -> str:
        """All that has room in one line."""
        return f"{self.says}: {self.gate}: {self.figures}: {self.reason}"


def gate_texts(gate: GateResult) -> GateTexts:
    """Return what is said of a gate."""
    effect, near = effect_of(gate), _near(gate)
    p_worse = gate.p_worse if gate.p_worse_adjusted is None else gate.p_worse_adjusted
    return GateTexts(
        gate=texts.one_line(gate.gate) + ("" if gate.blocks else " (informs)"),
        says=gate.outcome,
        effect=_figure(gate) if gate.scale is None else texts.effect_value(effect, *near),
        interval=texts.effect_interval(effect, *near),
        level="" if gate.interval is None else f"{gate.interval.level * 100:.4g}%",
        n=f"{gate.n:,}",
        baseline="" if gate.baseline is None else texts.quantity(gate.metric, gate.baseline),
        candidate="" if gate.candidate is None else texts.quantity(gate.metric, gate.candidate),
        p_pass=_probability(gate.p_pass, gate.alpha),
        p_worse=_probability(p_worse, gate.alpha),
        reason=texts.one_line(gate.reason),
    )


def effect_of(gate: GateResult) -> Effect:
    """Return what a gate judged as an effect; a figure that is compared with nothing as a difference."""
    return Effect(
        metric=gate.metric,
        scale=gate.scale or "difference",
        baseline=gate.baseline,
        candidate=gate.candidate,
        estimate=gate.estimate,
        interval=gate.interval,
        n=gate.n,
        n_clusters=gate.n_clusters,
        n_missing=gate.n_missing,
        lower_is_better=gate.lower_is_better,
        improved=gate.improved,
        regressed=gate.regressed,
    )


def _near(gate: GateResult) -> tuple[float, ...]:
    """Return the values which decide: rounding must not make an end of the interval look like one of them."""
    if gate.scale is None:
        return () if gate.limit is None else (gate.limit,)
    margin = gate.margin or 0.0
    return (1 + margin, 1 / (1 + margin)) if gate.scale == "ratio" else (margin, -margin)


def _figure(gate: GateResult) -> str:
    """Return the figure that a limit is asked of, with all its digits where it would wrongly look like the limit."""
    shown = texts.quantity(gate.metric, gate.estimate)
    if gate.estimate is None or gate.limit is None or gate.estimate == gate.limit:
        return shown
    return f"{gate.estimate:.10g}" if shown == texts.quantity(gate.metric, gate.limit) else shown


def _probability(value: float | None, alpha: float | None) -> str:
    if value is None:
        return ""
    if 0 < value < 0.0005:
        return "<0.001"
    is_close = alpha is not None and value != alpha and f"{value:.3f}" == f"{alpha:.3f}"
    return f"{value:.10g}" if is_close else f"{value:.3f}"


# --- the whole ----------------------------------------------------------------------------------------------


def verdict_title(verdict: Verdict) -> str:
    """Return the experiment and what is said of it; of an inconclusive one, also whether it blocks."""
    weight = (", which blocks" if verdict.blocks else ", which only warns") * _is_open(verdict)
    return f"{texts.one_line(verdict.experiment)}: {verdict.outcome}{weight}"


def _is_open(verdict: Verdict) -> bool:
    return verdict.outcome is Outcome.INCONCLUSIVE


def verdict_headline(verdict: Verdict) -> Sentence:
    """Return the one sentence to read where there is time for one."""
    text = f"{verdict_title(verdict)}: {texts.one_line(verdict.reason)}"
    return Sentence(text, TONES[verdict.outcome])


def verdict_caveats(verdict: Verdict) -> Iterator[Sentence]:
    """Yield what a reader has to know before believing the verdict."""
    if verdict.replayed:
        yield Sentence(f"replayed ({short(texts.one_line(verdict.replayed))}): {_REPLAYED}", "open")
    looks = verdict.looks
    if looks.n_verdicts > 1 or looks.n_fresh:
        fresh = f", paid for anew {looks.n_fresh:,} of them" if looks.n_fresh else ""
        judged = f"judged {texts.count(looks.n_verdicts, 'time')} on the same identities{fresh}"
        yield Sentence(f"{judged}: {_AGAIN}", "open")
    if looks.n_held_out is not None:
        yield Sentence(
            f"the held-out split has been looked at {texts.count(looks.n_held_out, 'time')}", "open"
        )
    if verdict.quarantined:
        n = texts.count(len(verdict.quarantined), "case")
        yield Sentence(f"{n} in quarantine as flaky, not counted: {_names(verdict.quarantined)}", "open")
    yield from (Sentence(texts.one_line(warning), "open") for warning in verdict.warnings)
    if verdict.source.dirty:
        yield Sentence("judged with changes that are not committed", "open")
    for candidate in verdict.candidates:
        if candidate.baseline_age_s is not None and candidate.baseline_age_s >= _DAY_S:
            days = texts.count(int(candidate.baseline_age_s // _DAY_S), "day")
            yield Sentence(f"{sides(candidate)}: the baseline's oldest reply is {days} old", "open")
        yield from _history(candidate)


def _history(candidate: CandidateVerdict) -> Iterator[Sentence]:
    """Yield with how many runs of its baseline a candidate was compared, where it was not one."""
    if candidate.n_stale:
        runs = texts.count(candidate.n_stale, "earlier run")
        yield Sentence(
            f"{sides(candidate)}: the baseline's history is stale: its newest run differs from {runs}, which are "
            "left out; did the provider change the model?",
            "bad",
        )
    if candidate.n_history:
        flaky = ""
        if candidate.n_flaky:
            cases = texts.count(candidate.n_flaky, "flaky case")
            flaky = f"; {cases}, by that history, ran {candidate.flaky_repeats} times on the candidate"
        yield Sentence(
            f"{sides(candidate)}: scores are compared with the mean of {candidate.n_history:,} runs of the baseline"
            f"{flaky}"
        )


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(map(texts.one_line, names[:_MOST_NAMES])) + more


def verdict_facts(verdict: Verdict) -> str:
    """Return which verdict it is, on what, and at what cost."""
    dataset = verdict.dataset
    name = texts.one_line("/".join(filter(None, (dataset.name, dataset.split))))
    cases = f"{texts.count(dataset.n_cases, 'case')} of {name} ({short(texts.one_line(dataset.version))})"
    run = f"run {texts.one_line(verdict.run_id)}"
    if verdict.baseline_run_id is not None:
        run += f" against run {texts.one_line(verdict.baseline_run_id)}"
    cost = "cost unknown" if verdict.cost_usd is None else f"{texts.usd(verdict.cost_usd)} USD"
    saved = f" ({verdict.n_calls_saved:,} saved by stopping early)" if verdict.n_calls_saved else ""
    calls = texts.count(verdict.n_calls, "call")
    return f"verdict {short(texts.one_line(verdict.id))}: {cases}; {run}; {calls}{saved}, {cost}"


def verdict_where(verdict: Verdict) -> str:
    """Return where its cases stand side by side, empty where nobody knows."""
    link = safe_link(verdict.link)
    return "" if link is None else f"case by case in MLflow: {link}"


def safe_link(link: str | None) -> str | None:
    """Return a link that leads to the web and nowhere else, without a name or password in it; else None."""
    if link is None or len(link) > 2_000 or _LINK.fullmatch(link) is None:
        return None
    try:
        parts = urlsplit(link)
    except ValueError:
        return None
    return link if parts.hostname and "@" not in parts.netloc else None


# --- candidates ---------------------------------------------------------------------------------------------


def gravest_first(verdict: Verdict) -> list[CandidateVerdict]:
    """Return the candidates, those that fail first, otherwise in their order."""
    return sorted(verdict.candidates, key=lambda candidate: _GRAVEST.index(candidate.outcome))


def candidate_title(candidate: CandidateVerdict) -> str:
    """Return a candidate with what it is compared with, and what is said of it."""
    return f"{sides(candidate)}: {candidate.outcome}"


def sides(candidate: CandidateVerdict) -> str:
    """Return a candidate with what it is compared with; versions of one variant are told apart by identity."""
    name = texts.one_line(candidate.candidate.variant)
    if candidate.baseline is None:
        return name
    other = texts.one_line(candidate.baseline.variant)
    if other != name:
        return f"{name} against {other}"
    return f"{name} ({_digits(candidate.candidate)}) against itself ({_digits(candidate.baseline)})"


def _digits(side: Side) -> str:
    return short(texts.one_line(side.identity))


def gates_grid(candidate: CandidateVerdict) -> Grid:
    """Return the gates of a candidate as a table, with what is to be known of each below."""
    found = [(gate, gate_texts(gate)) for gate in candidate.gates]
    levels = {said.level for _, said in found if said.level}
    level = next(iter(levels)) if len(levels) == 1 else ""
    rows = tuple(_row(said, with_level=len(levels) > 1) for _, said in found)
    header = tuple(f"{level} interval" if title == "interval" and level else title for title in _COLUMNS)
    notes = tuple(note for gate, _ in found for note in _notes(gate))
    return Grid(candidate_title(candidate), header, rows, n_names=1, notes=notes, n_spare=2)


def ungated_grid(candidate: CandidateVerdict) -> Grid:
    """Return what changed of the scores that no gate asks about; without rows where there is nothing."""
    rows = []
    for gate in candidate.ungated:
        said = gate_texts(gate)
        figures = said.baseline, said.candidate, said.effect, said.interval, said.n, said.p_worse
        rows.append((texts.one_line(gate.gate), *figures, _probability(gate.q_worse, None)))
    levels = {gate_texts(gate).level for gate in candidate.ungated} - {""}
    interval = f"{levels.pop()} interval" if len(levels) == 1 else "interval"
    header = ("not gated", "baseline", "candidate", "effect", interval, "n", "p worse", "q")
    title = f"{sides(candidate)}: asked by no gate"
    return Grid(title, header, tuple(rows), n_names=1, notes=(_Q,), n_spare=2)


def _row(said: GateTexts, *, with_level: bool) -> tuple[str, ...]:
    interval = f"{said.interval} at {said.level}" if with_level and said.interval else said.interval
    before = (said.gate, said.baseline, said.candidate, said.effect, interval)
    return (*before, said.n, said.p_pass, said.p_worse, said.says.value)


def _notes(gate: GateResult) -> Iterator[str]:
    """Yield why a gate does not pass, and what it could have seen."""
    said = gate_texts(gate)
    reason = "" if gate.outcome is Outcome.PASS else said.reason
    remark = "; ".join(filter(None, (reason, settling(gate))))
    if remark:
        yield f"{said.gate}: {remark}"


def settling(gate: GateResult) -> str:
    """Return what a gate could have seen on its cases, and of an inconclusive one how many would settle it."""
    parts = []
    if gate.outcome is Outcome.INCONCLUSIVE and gate.n_needed is not None:
        parts.append(f"about {texts.count(gate.n_needed, 'case')} would settle it")
    seen = {
        f"pass a margin of {_change(gate, gate.smallest_margin)}": gate.smallest_margin,
        f"prove a regression of {_change(gate, gate.smallest_regression)}": gate.smallest_regression,
    }
    can = " and ".join(text for text, value in seen.items() if value is not None)
    if can:
        parts.append(f"{texts.count(gate.n, 'case')} can {can}, four times in five")
    return "; ".join(parts)


def _change(gate: GateResult, value: float | None) -> str:
    if value is None:
        return texts.UNKNOWN
    return f"{value:.1%}" if gate.scale == "ratio" else texts.quantity(gate.metric, value)


def gate_details(gate: GateResult) -> Iterator[tuple[str, str]]:
    """Yield all that a gate stands on, as label and text."""
    yield "reason", texts.one_line(gate.reason)
    if gate.slice is not None:
        yield "slice", texts.one_line(gate.slice)
    if gate.limit is not None:
        yield "limit", f"{gate.limit:.10g}"
    if gate.margin is not None:
        yield "margin", f"{gate.margin:.2%}" if gate.scale == "ratio" else f"{gate.margin:.10g}"
    if gate.method is not None:
        alpha = "" if gate.alpha is None else f", alpha {gate.alpha:.6g}"
        yield "method", texts.one_line(gate.method) + alpha
    if gate.p_worse_adjusted is not None and gate.p_worse is not None:
        yield "p worse", f"{_probability(gate.p_worse, gate.alpha)} before Holm's adjustment"
    yield "cases", ", ".join(_cases(gate))
    if gate.look is not None:
        yield "look", f"{gate.look}" + ("" if gate.n_looks is None else f" of {gate.n_looks}")
    seen = settling(gate)
    if seen:
        yield "could see", seen
    if gate.improved or gate.regressed:
        yield "changed", f"{len(gate.regressed):,} worse, {len(gate.improved):,} better"


def _cases(gate: GateResult) -> Iterator[str]:
    yield f"{gate.n:,} judged"
    if gate.n_missing:
        yield f"{gate.n_missing:,} left out for want of a score"
    if gate.n_clusters is not None:
        effective = "" if gate.effective_clusters is None else f" ({gate.effective_clusters:.1f} effective)"
        yield f"{texts.count(gate.n_clusters, 'cluster')}{effective}"
    if gate.repeats != (1, 1):
        yield f"{gate.repeats[0]} runs of each for the baseline and {gate.repeats[1]} for the candidate"


def changes(verdict: Verdict, candidate: CandidateVerdict) -> Comparison | None:
    """Return a candidate's gates as the comparison whose flipped cases are shown, what fails first.

    None where no gate compares.
    """
    if candidate.baseline is None:
        return None
    gates = sorted(candidate.gates, key=lambda gate: _GRAVEST.index(gate.outcome))
    return Comparison(
        created_at=verdict.created_at,
        baseline=candidate.baseline,
        candidate=candidate.candidate,
        dataset=verdict.dataset.name,
        n_cases=verdict.dataset.n_cases,
        effects=tuple(effect_of(gate) for gate in gates),
    )
