"""Gates of every kind on one run, and what several of them come to together."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.gate import gravest, outcome_of, together
from llmops.gate.judging import Judged
from llmops.gate.looks import level_of
from llmops.records import GateResult, Looks, Outcome, Verdict
from llmops.stats.noninferiority import judge_pairs
from llmops.stats.outcome import Rule
from tests.gated import EXPERIMENT, FILES, HARM, NEUTRAL, Repository
from tests.workplace import jsonl

GATES = """gates:
  - {metric: exact_match, not_worse_than: baseline, margin: 0.08, relative: true}
  - {metric: exact_match, not_worse_than: baseline, margin: 0.05, method: betting}
  - {metric: exact_match, not_worse_than: baseline, method: score}
  - {metric: latency_s, not_worse_than: baseline, margin: 60}
  - {metric: output_tokens, not_worse_than: baseline}
  - {metric: output_tokens, at_most: 50}
  - {metric: output_tokens.p95, at_most: 50}
  - {metric: output_tokens.p95, not_worse_than: baseline}
  - {metric: output_tokens.sum, at_most: 5}
  - {metric: classification.macro_f1, not_worse_than: baseline}
  - {metric: classification.macro_f1, at_least: 0.5, method: bootstrap}
  - {metric: classification.macro_f1, not_worse_than: baseline, method: bootstrap}
  - {metric: cost_usd, not_worse_than: baseline}
  - {metric: error_rate, not_worse_than: baseline}
"""


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Verdict]:
    """Give the verdicts on a neutral and a harmful edit, by every kind of gate."""
    found = {}
    for name, edit in (("neutral", NEUTRAL), ("harmful", HARM)):
        repository = Repository(tmp_path_factory.mktemp(name))
        text = (repository.root / EXPERIMENT).read_text(encoding="utf-8")
        text = text[: text.index("gates:")].replace("[exact_match]", "[exact_match, classification]")
        repository.write(EXPERIMENT, text + GATES)
        repository.edit(*edit)
        found[name], _ = repository.verdict()
    return found


def by_gate(verdict: Verdict) -> dict[str, GateResult]:
    return {gate.gate: gate for gate in verdict.candidates[0].gates}


def test_a_neutral_edit_passes_every_gate_that_decides(places: dict[str, Verdict]) -> None:
    gates = by_gate(places["neutral"])
    assert {
        gate.gate: gate.outcome for gate in gates.values() if gate.blocks and gate.outcome != "pass"
    } == {}
    assert places["neutral"].outcome is Outcome.PASS


def test_figures_that_are_no_means_inform(places: dict[str, Verdict]) -> None:
    informing = [name for name, gate in by_gate(places["neutral"]).items() if not gate.blocks]
    assert informing == [
        "output_tokens.p95 not_worse_than baseline",
        "output_tokens.sum at_most 5",
        "classification.macro_f1 not_worse_than baseline",
    ]
    told = by_gate(places["neutral"])
    assert (
        "`method: bootstrap` lets it block" in told["classification.macro_f1 not_worse_than baseline"].reason
    )
    assert "bootstrap" not in told["output_tokens.sum at_most 5"].reason
    assert told["output_tokens.sum at_most 5"].outcome is Outcome.INCONCLUSIVE


def test_bootstrap_lets_a_figure_block_and_says_that_it_is_approximate(places: dict[str, Verdict]) -> None:
    harmful = by_gate(places["harmful"])
    gate = harmful["classification.macro_f1 not_worse_than baseline, method bootstrap"]
    assert (gate.outcome, gate.blocks, gate.method) == (Outcome.FAIL, True, "bootstrap (approximate)")
    assert gate.candidate is not None and gate.baseline is not None and gate.estimate is not None
    assert gate.estimate == pytest.approx(gate.candidate - gate.baseline)
    floor = harmful["classification.macro_f1 at_least 0.5, method bootstrap"]
    assert floor.candidate == gate.candidate == floor.estimate


def test_open_metrics_are_ratios_unless_the_margin_is_in_their_units(places: dict[str, Verdict]) -> None:
    gates = by_gate(places["neutral"])
    ratio = gates["output_tokens not_worse_than baseline"]
    assert (ratio.scale, ratio.margin, ratio.method) == ("ratio", 0.10, "cluster-robust t")
    seconds = gates["latency_s not_worse_than baseline, margin 60"]
    assert (seconds.scale, seconds.margin) == ("difference", 60)


def test_a_quantile_is_judged_by_the_cases_beyond_it_and_shown_in_its_units(
    places: dict[str, Verdict],
) -> None:
    gate = by_gate(places["neutral"])["output_tokens.p95 at_most 50"]
    assert gate.outcome is Outcome.PASS
    assert gate.estimate is not None and 1 <= gate.estimate <= 50
    assert gate.p_pass == pytest.approx(0.95**90, rel=1e-6), "no case beyond: a binomial tail"


def test_a_relative_margin_is_shown_in_units_of_the_score(places: dict[str, Verdict]) -> None:
    gate = by_gate(places["harmful"])["exact_match not_worse_than baseline, margin 0.08 of it"]
    assert gate.baseline == 1.0 and gate.margin == pytest.approx(0.08)
    assert gate.outcome is Outcome.FAIL
    assert [flip.case_id for flip in gate.regressed] == [f"c{number:03}" for number in range(1, 90, 3)]


def test_the_methods_that_are_asked_for_are_used(places: dict[str, Verdict]) -> None:
    gates = by_gate(places["neutral"])
    assert gates["exact_match not_worse_than baseline, margin 0.05, method betting"].method == "betting"
    assert gates["exact_match not_worse_than baseline, method score"].method == "score"


def test_every_gate_stands_on_its_line(places: dict[str, Verdict]) -> None:
    lines = [gate.place.line for gate in places["neutral"].candidates[0].gates if gate.place]
    assert lines == list(range(lines[0] or 0, (lines[0] or 0) + 14))


# --- together -----------------------------------------------------------------------------------------------


def judged(losses: int, *, blocks: bool = True) -> Judged:
    """Return a gate on 100 cases of which so many got worse."""
    before, after = np.ones(100), np.ones(100)
    after[:losses] = 0
    outcome = judge_pairs(before, after, Rule(0.05, 0.0, 1.0))
    result = GateResult(
        metric="m", gate="m", outcome=Outcome(outcome.verdict), reason=str(outcome.reason), blocks=blocks
    )
    return Judged(result, outcome)


def test_a_regression_has_to_stand_out_among_all_gates() -> None:
    alone = together({("v", 0): judged(5)}, 0.05)["v", 0]
    assert alone.outcome is Outcome.FAIL  # 2^-5 = 0.031
    among = together({("v", 0): judged(5), ("v", 1): judged(3), ("w", 0): judged(3)}, 0.05)
    assert among["v", 0].outcome is Outcome.INCONCLUSIVE
    assert among["v", 0].p_worse_adjusted == pytest.approx(3 * 2**-5)
    assert "not among 3 gates together" in among["v", 0].reason


def test_facts_take_no_part_in_the_adjustment() -> None:
    fact = Judged(GateResult(metric="cost_usd", gate="c", outcome=Outcome.PASS, reason="within"))
    found = together({("v", 0): judged(5), ("v", 1): fact}, 0.05)
    assert (found["v", 0].outcome, found["v", 1]) == (Outcome.FAIL, fact.result)


OUTCOMES = st.lists(st.sampled_from(list(Outcome)), max_size=5)


@given(OUTCOMES, OUTCOMES)
def test_what_informs_decides_nothing(deciding: list[Outcome], informing: list[Outcome]) -> None:
    gates = [
        GateResult(metric="m", gate="m", outcome=outcome, reason="", blocks=blocks)
        for outcomes, blocks in ((deciding, True), (informing, False))
        for outcome in outcomes
    ]
    assert outcome_of(gates) is gravest(deciding)
    assert (outcome_of(gates) is Outcome.PASS) == (set(deciding) == {Outcome.PASS})


@given(st.integers(1, 40))
def test_all_tries_together_stay_below_twice_alpha(n_tries: int) -> None:
    levels = [level_of(0.05, Looks(n_fresh=n)) for n in range(n_tries)]
    assert levels[0] == 0.05 and sum(levels) < 0.10


# --- repeats, clusters, cells of a matrix -------------------------------------------------------------------


def test_repeats_are_collapsed_before_anything_else(tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    repository.edit("baseline: git:main", "baseline: git:main\nrepeats: 3", EXPERIMENT)
    repository.edit(*HARM)
    verdict, _ = repository.verdict()
    gate = verdict.candidates[0].gates[0]
    assert (gate.n, gate.repeats, len(gate.regressed)) == (90, (3, 3), 30)
    assert verdict.n_calls == 3 * 180


def test_six_customers_pass_nothing_however_many_tickets_they_wrote(tmp_path: Path) -> None:
    text = FILES["datasets/tickets.jsonl"]
    lines = [json.loads(line) for line in text.splitlines()]
    for number, line in enumerate(lines):
        line["metadata"]["customer"] = f"k{number % 6}"
    repository = Repository(
        tmp_path,
        **{
            "datasets/tickets.jsonl": jsonl(lines),
            "datasets/tickets.dataset.yaml": FILES["datasets/tickets.dataset.yaml"]
            + "cluster: metadata.customer\n",
        },
    )
    repository.edit(*NEUTRAL)
    verdict, _ = repository.verdict()
    gate = verdict.candidates[0].gates[0]
    assert (gate.outcome, gate.n_clusters) == (Outcome.INCONCLUSIVE, 6)
    assert "too few effective clusters" in gate.reason


def test_each_cell_of_the_matrix_is_a_candidate_beside_the_baseline_of_its_cell(tmp_path: Path) -> None:
    repository = Repository(tmp_path)
    repository.edit(
        "  plain: {prompt: sort}",
        "  old: {prompt: sort}\n  new: {prompt: sort, parameters: {max_tokens: 7}}\n"
        "matrix: {parameters.temperature: [0, 0.1]}",
        EXPERIMENT,
    )
    repository.edit("baseline: git:main", "baseline: old", EXPERIMENT)
    verdict, _ = repository.verdict()
    found = {
        each.candidate.variant: each.baseline.variant if each.baseline else None
        for each in verdict.candidates
    }
    assert found == {"new/0": "old/0", "new/0.1": "old/0.1"}


def test_a_figure_of_no_cases_decides_nothing_and_blocks_F64(tmp_path: Path) -> None:
    repository = Repository(tmp_path, **{"datasets/tickets.jsonl": ""})
    repository.edit("[exact_match]", "[exact_match, classification]", EXPERIMENT)
    repository.edit(
        "{metric: error_rate, at_most: 0.01}",
        "{metric: classification.macro_f1, at_least: 0.1, method: bootstrap}",
        EXPERIMENT,
    )
    verdict, _ = repository.verdict("--allow-empty")
    assert [(gate.outcome, gate.blocks) for gate in verdict.candidates[0].gates] == [
        (Outcome.INCONCLUSIVE, True)
    ] * 2
