"""What is said of a verdict: figures that do not look like their limits, caveats, and the faces they stand on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from rich.cells import cell_len

from llmops.records import Interval, Outcome, Verdict
from llmops.report.markdown import NOTE_LIMIT
from llmops.report.plain import policy_identity, verdict_json, verdict_tags
from llmops.report.terminal import verdict_text
from llmops.report.verdict_texts import changes, gate_details, gate_texts, settling, sides, verdict_caveats
from tests.report.hostile_verdicts import PAYLOADS, Rows, hostile_verdict
from tests.report.verdicts import COMPARED, FLOOR, LATENCY, candidate, failing, open_verdict, passing, side


@pytest.mark.parametrize(
    ("name", "make"), [("pass", passing), ("fail", failing), ("inconclusive", open_verdict)]
)
def test_a_verdict_in_a_terminal(
    name: str, make: Callable[[], Verdict], example: Callable[..., Any], golden: Callable[[str, str], None]
) -> None:
    golden(f"verdict.{name}.txt", verdict_text(make(), example()) + "\n")


@pytest.mark.parametrize("look", [{}, {"ascii_only": True}, {"colour": True}, {"width": 60}, {"width": 120}])
def test_any_terminal_shows_what_others_wrote_and_obeys_none_of_it(look: dict[str, Any]) -> None:
    for text in PAYLOADS[::3]:
        shown = verdict_text(hostile_verdict(text), Rows(text), **look)
        dull = re.sub("\x1b\\[[0-9;]*m", "", shown)
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", dull)
        assert not re.search(r"##\[|^\s*::", dull, re.MULTILINE)
        assert max(map(cell_len, dull.splitlines())) <= look.get("width", 80)
        if "ascii_only" in look:
            assert dull.isascii()


@pytest.mark.parametrize(
    ("gate", "effect", "interval"),
    [
        (COMPARED, "+0.01", "[-0.03, 0.04]"),
        (
            COMPARED.model_copy(update={"interval": Interval(low=-0.0503, high=0.04, level=0.9)}),
            "+0.0050",
            None,
        ),
        (LATENCY, "x1.05", "[0.98, 1.12]"),
        (
            LATENCY.model_copy(update={"interval": Interval(low=0.98, high=1.1003, level=0.9)}),
            "x1.0488",
            None,
        ),
        (FLOOR, "0.850", "[0.803, 0.890]"),
        (FLOOR.model_copy(update={"estimate": 0.79996}), "0.79996", None),
        (FLOOR.model_copy(update={"estimate": 0.8}), "0.800", None),
        (FLOOR.model_copy(update={"estimate": None, "interval": None}), "unknown", ""),
    ],
)
def test_no_figure_looks_like_what_decides_unless_it_is_that(
    gate: Any, effect: str, interval: str | None
) -> None:
    said = gate_texts(gate)
    assert said.effect == effect
    assert interval is None or said.interval == interval
    ends = [float(end) for end in re.findall(r"-?\d+\.\d+", said.interval)]
    limits = {gate.limit, gate.margin and -gate.margin, gate.margin and 1 + gate.margin}
    assert limits.isdisjoint(ends)


def test_what_is_open_says_what_would_settle_it_and_what_it_could_have_seen() -> None:
    unsure = open_verdict().candidates[0].gates[1]
    assert settling(unsure) == (
        "about 430 cases would settle it; 200 cases can pass a margin of 0.047 and prove a regression of 0.061, "
        "four times in five"
    )
    assert settling(COMPARED).startswith("200 cases can pass")
    assert settling(LATENCY).endswith("198 cases can pass a margin of 13.0%, four times in five")
    assert settling(FLOOR) == ""


def test_the_details_of_a_gate_say_all_that_it_stands_on() -> None:
    said = dict(gate_details(LATENCY))
    assert said["cases"] == (
        "198 judged, 2 left out for want of a score, 40 clusters (31.4 effective), "
        "8 runs of each for the baseline and 1 for the candidate"
    )
    assert said["margin"] == "10.00%"
    assert said["method"] == "exact, alpha 0.05"
    worse = dict(gate_details(failing().candidates[0].gates[1]))
    assert worse["changed"] == "3 worse, 1 better"
    assert worse["p worse"] == "<0.001 before Holm's adjustment"
    assert dict(gate_details(open_verdict().candidates[0].gates[1]))["look"] == "2 of 5"


def test_a_reader_is_told_what_to_mind() -> None:
    said = [sentence.text for sentence in verdict_caveats(open_verdict())]
    assert [text.split(":")[0].split(" (")[0] for text in said] == [
        "replayed",
        "judged 3 times on the same identities, paid for anew 1 of them",
        "the held-out split has been looked at 4 times",
        "2 cases in quarantine as flaky, not counted",
        "judged with changes that are not committed",
        "few-shot against zero-shot",
    ]
    assert said[-1].endswith("the baseline's oldest reply is 3 days old")
    assert not list(verdict_caveats(passing()))


def test_two_versions_of_one_variant_are_told_apart() -> None:
    old = side("few-shot").model_copy(update={"identity": "0" * 64})
    said = sides(candidate(Outcome.PASS, baseline=old))
    assert said == "few-shot (few-shot-few) against itself (000000000000)"
    assert sides(candidate(Outcome.PASS, baseline=None)) == "few-shot"


def test_the_cases_shown_are_those_of_the_gate_that_fails() -> None:
    made = failing()
    comparison = changes(made, made.candidates[0])
    assert comparison is not None
    assert [flip.case_id for flip in comparison.effects[0].regressed] == ["t-0005", "t-0012", "t-0019"]
    assert changes(made, candidate(Outcome.FAIL, baseline=None)) is None


# --- for machines -------------------------------------------------------------------------------------------


def test_json_is_the_record_and_no_command_whatever_stands_in_it_S10() -> None:
    for text in PAYLOADS:
        made = hostile_verdict(text)
        shown = verdict_json(made)
        assert Verdict.model_validate_json(shown) == made
        assert shown.isascii()
        assert not re.search(r"##\[|^\s*::", shown, re.MULTILINE)
        assert json.loads(shown)["schema_version"] == 1


def test_no_tag_is_longer_than_mlflow_keeps() -> None:
    long = failing(candidates=failing().candidates * 100, reason="r" * 9_000, id="i" * 9_000)
    tags = verdict_tags(long)
    assert max(map(len, tags.values())) == NOTE_LIMIT
    assert tags["llmops.gates"].endswith(" ...")
    assert tags["llmops.gate"] == "fail"
    assert all(re.fullmatch(r"llmops\.[a-z0-9_]+", name) for name in tags)


def test_a_policy_is_known_by_what_decides_and_by_nothing_else() -> None:
    assert policy_identity(passing()) == policy_identity(failing())
    assert policy_identity(passing()) != policy_identity(passing(policy={"on_inconclusive": "block"}))
    assert policy_identity(passing()) != policy_identity(open_verdict())
    assert re.fullmatch("[0-9a-f]{64}", policy_identity(passing()))
