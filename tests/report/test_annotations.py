"""A verdict as remarks on lines of a pull request: where they stand, and that no text makes a command of its own."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from llmops.records import Outcome, Place
from llmops.report.annotations import MOST, verdict_annotations
from tests.report.hostile_verdicts import PAYLOADS, hostile_verdict
from tests.report.test_verdict_faces import read_annotations
from tests.report.verdicts import candidate, failing, open_verdict, passing

LINE = re.compile(
    r"::(error|warning|notice) file=[^,\r\n]*?(,line=\d+(,col=\d+)?)?,title=[^,:\r\n]*::[^\r\n]*"
)


def test_a_regression_is_remarked_on_the_line_of_the_prompt_that_changed() -> None:
    assert verdict_annotations(failing(), folder="apps/triage") == [
        "::error file=apps/triage/prompts/few-shot.prompt.yaml,line=9,title=triage%3A fail"
        "::triage: fail: few-shot fails exact_match",
        "::error file=apps/triage/prompts/few-shot.prompt.yaml,line=9,title=triage%2C few-shot against zero-shot"
        "::fail: exact_match not_worse_than baseline, margin 0.05: -0.12 [-0.18, -0.07] at 90%25, n 200, "
        "p pass 0.990, p worse <0.001: few-shot is worse than zero-shot by more than chance",
        "::notice file=apps/triage/prompts/few-shot.prompt.yaml,line=9,title=triage%2C few-shot against zero-shot"
        "::inconclusive: latency_s not_worse_than baseline, relative, margin 0.10 (informs): x1.05 [0.98, 1.12] at "
        "90%25, n 198, p pass 0.090, p worse 0.140: the interval holds both no change and a loss of 10 %25",
    ]


def test_without_a_changed_line_it_stands_at_the_gate_and_without_a_gate_in_the_experiment() -> None:
    whole, gate = read_annotations(verdict_annotations(open_verdict()))
    assert (whole[0], whole[1]["file"], whole[1]["line"]) == (
        "warning",
        "experiments/triage.experiment.yaml",
        "1",
    )
    assert (gate[0], gate[1]["line"], gate[1]["col"]) == ("warning", "15", "5")
    (alone,) = read_annotations(verdict_annotations(failing(candidates=(), place=Place(path="e.yaml"))))
    assert (alone[0], alone[1]) == ("error", {"file": "e.yaml", "title": "triage: fail"})


def test_what_blocks_is_an_error_and_what_only_warns_a_warning() -> None:
    for blocks, level in ((True, "error"), (False, "warning")):
        made = open_verdict(blocks=blocks)
        assert [found[0] for found in read_annotations(verdict_annotations(made))] == [level, level]
    assert [line.split()[0] for line in verdict_annotations(passing())] == ["::notice", "::notice"]


def test_no_more_of_a_level_than_are_shown() -> None:
    gates = failing().candidates[0].gates
    made = failing(candidates=(candidate(Outcome.FAIL, *gates * 20),))
    levels = [line.split()[0] for line in verdict_annotations(made)]
    assert levels.count("::error") == levels.count("::notice") == MOST
    assert levels[0] == "::error"


def test_what_others_wrote_makes_no_command_S10() -> None:
    for text in PAYLOADS:
        for line in verdict_annotations(hostile_verdict(text), folder=text):
            assert LINE.fullmatch(line), line
            assert not re.search("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]", line)
            assert "##[" not in line
            assert line.count("::") >= 2


def test_neither_cases_nor_outputs_are_in_them_S10() -> None:
    made = failing()
    ids = [flip.case_id for gate in made.candidates[0].gates for flip in (*gate.regressed, *gate.improved)]
    assert len(ids) == 4
    said = "\n".join(verdict_annotations(made))
    assert not any(case_id in said for case_id in ids)


@given(st.text(max_size=30))
@settings(max_examples=60)
def test_any_text_comes_back_by_the_grammar_of_the_runner(text: str) -> None:
    made = hostile_verdict(text.encode("utf-8", "replace").decode())
    found = list(read_annotations(verdict_annotations(made)))
    assert len(found) == 5
    assert [properties["line"] for _, properties, _ in found if "line" in properties] == ["1", "1", "3", "3"]
