"""A guard: what passes goes on as it is, and what does not is stopped, tried again, replaced or redacted, on record."""

from __future__ import annotations

import pytest

from llmops.definitions.chain import Redaction
from llmops.records import Output, Row, Status
from llmops.steps.guard import redacted
from tests.steps.flows import flown, spans_of, write_flow
from tests.workplace import Workplace, said

SHORT = "{regex: {name: short, pattern: '^.{0,12}$'}}"


def only(rows: list[Row]) -> Output:
    (row,) = rows
    assert row.output is not None
    return row.output


def guard(place: Workplace, body: str, **files: str) -> None:
    named = {name.replace("__", "/").replace("_yaml", ".yaml"): text for name, text in files.items()}
    write_flow(place, f"- id: safe\n  guard:\n{body}", files=named)


def test_a_value_that_passes_goes_on_as_it_is(place: Workplace) -> None:
    guard(place, "    value: '{{ ticket }}'\n    evaluators: [{contains: {any: [red]}}]")
    row = flown(place, "it is red")[0]
    assert row.output is not None
    assert (row.output.status, row.output.value) == (Status.OK, "it is red")
    whole, judged = spans_of(row, "guard")
    assert (whole.name, whole.output) == ("safe", "it is red")
    assert (judged.name, judged.parent, judged.output["score"]) == ("safe.contains[0]", whole.index, 1.0)


def test_a_value_that_fails_stops_the_case_with_a_status_of_its_own(place: Workplace) -> None:
    guard(place, "    value: '{{ ticket }}'\n    evaluators: [json_valid, {contains: {any: [red]}}]")
    row = flown(place, "blue")[0]
    output = only([row])
    assert (output.status, output.value) == (Status.GUARDED, None)
    assert output.error is not None
    assert (output.error.kind, output.error.step) == ("guarded", "safe")
    assert output.error.message.startswith("safe stopped the case: json_valid: ")
    assert [span.output["passed"] for span in spans_of(row, "guard")[1:]] == [False, False]
    (score,) = row.scores
    assert (score.value, score.error) == (None, f"no output: {output.error.message}")


def test_a_stopped_case_is_no_error_and_is_not_tried_again(place: Workplace) -> None:
    guard(place, "    value: '{{ ticket }}'\n    evaluators: [{contains: {any: [red]}}]")
    first = place.run("flow").run
    assert first.summary["plain"]["error_rate"].value == 0
    again = place.run("flow")
    assert (again.run.id, again.n_without_output) == (first.id, 0)


def test_retrying_tells_what_was_wrong_and_each_attempt_is_a_call_of_its_own(place: Workplace) -> None:
    guard(
        place,
        """
    do:
      prompt: say
      with: {text: "{% if attempt < 2 %}too much to say{% else %}[[say:ok]]{% endif %} {{ feedback }}"}
    evaluators: [{contains: {name: is_ok, any: [ok]}}]
    on_fail: retry
    n: 3
""",
    )
    row = flown(place, "x")[0]
    assert only([row]).value == "ok"
    asked = [said(received) for received in place.new_requests()]
    assert asked[0] == "too much to say "
    assert asked[1] == "too much to say is_ok: missing 'ok'"
    assert asked[2] == "[[say:ok]] is_ok: missing 'ok'"
    assert [span.number for span in spans_of(row, "prompt")] == [0, 1, 2]


def test_the_same_words_asked_again_are_answered_anew(place: Workplace) -> None:
    guard(
        place,
        """
    do: {prompt: say, with: {text: "{{ ticket }}"}}
    evaluators: [{contains: {any: [never]}}]
    on_fail: retry
""",
    )
    assert only(flown(place, "x")).status is Status.GUARDED
    keys = [received.call_id for received in place.new_requests()]
    assert len(set(keys)) == len(keys) == 3
    place.edit("chains/flow.chain.yaml", "on_fail: retry", "on_fail: retry\n      n: 4")
    flown(place)
    assert len(place.new_requests()) == 2, "two attempts more are two calls more"


def test_a_fallback_is_a_value_or_what_a_verb_gives(place: Workplace) -> None:
    head = f"    value: '{{{{ ticket }}}}'\n    evaluators: [{SHORT}]\n    on_fail: fallback\n    fallback: "
    guard(place, head + "{value: {said: '{{ ticket | length }}', by: nobody}}")
    assert only(flown(place, "much too long for that")).value == {"said": 22, "by": "nobody"}
    guard(place, head + "{do: {prompt: say, with: {text: '[[say:sorry]] {{ ticket }}'}}}")
    row = flown(place)[0]
    assert only([row]).value == "sorry"
    assert [span.name for span in spans_of(row, "prompt")] == ["safe[fallback]"]


def test_retries_that_are_used_up_give_the_fallback(place: Workplace) -> None:
    guard(
        place,
        f"""
    do: {{prompt: say, with: {{text: "[[say:a b c d e f g]]"}}}}
    evaluators: [{SHORT}]
    on_fail: retry
    n: 1
    fallback: {{value: nothing}}
""",
    )
    assert only(flown(place, "x")).value == "nothing"
    assert len(place.new_requests()) == 2


def test_what_is_redacted_is_looked_at_again(place: Workplace) -> None:
    guard(
        place,
        r"""
    value: {said: "{{ ticket }}"}
    evaluators: [{python: look:no_numbers}]
    on_fail: redact
    redact: [{pattern: '\d{4,}'}]
""",
        chains__look="",
    )
    place.write(
        "chains/look.py", "def no_numbers(output):\n    return not any(c.isdigit() for c in str(output))\n"
    )
    clean, dirty = flown(place, "card 12345678", "card 12345678 or 12")
    assert only([clean]).value == {"said": "card [redacted]"}
    assert only([dirty]).status is Status.GUARDED


def test_redacting_reaches_every_text_and_takes_the_replacement_as_it_is() -> None:
    redactions = [Redaction.model_validate({"pattern": "a(b*)", "with": r"\1"})]
    assert redacted({"abb": ["abb", {"x": "xab"}], "n": 5}, redactions) == {
        "abb": [r"\1", {"x": r"x\1"}],
        "n": 5,
    }


JUDGE = """
inputs: {output: string}
messages:
  - {role: user, content: '{{ output }} [[say:{"rationale": "so", "score": %s}]]'}
"""


@pytest.mark.parametrize(("grade", "status"), [(5, Status.OK), (4, Status.OK), (2, Status.GUARDED)])
def test_a_judge_decides_by_at_least_and_its_call_is_on_record(
    place: Workplace, grade: int, status: Status
) -> None:
    guard(
        place,
        """
    value: "{{ ticket }}"
    evaluators: [{judge: {name: tone, prompt: grade, model: other, scale: [1, 5]}}]
    at_least: {tone: 4}
""",
    )
    place.write("prompts/grade.prompt.yaml", JUDGE % grade)
    row = flown(place, "x")[0]
    output = only([row])
    assert output.status is status
    (asked,) = spans_of(row, "prompt")
    (received,) = place.new_requests()
    assert asked.call_id == received.call_id
    assert output.cost_usd == asked.cost_usd
    assert asked.cost_usd is not None


def test_no_model_is_asked_about_a_value_that_fails_already(place: Workplace) -> None:
    guard(
        place,
        """
    value: "{{ ticket }}"
    evaluators: [{judge: {name: tone, prompt: grade, model: other, scale: [1, 5]}}, {contains: {any: [red]}}]
""",
    )
    place.write("prompts/grade.prompt.yaml", JUDGE % 5)
    assert only(flown(place, "blue")).status is Status.GUARDED
    assert place.new_requests() == []


def test_an_evaluator_that_cannot_say_lets_nothing_pass(place: Workplace) -> None:
    guard(place, "    value: '{{ ticket }}'\n    evaluators: [{python: look:broken}]", chains__look="")
    place.write("chains/look.py", "def broken(output):\n    raise ValueError('no idea')\n")
    output = only(flown(place, "x"))
    assert output.status is Status.GUARDED
    assert output.error is not None
    assert "no idea" in output.error.message


def test_expressions_of_an_evaluator_see_the_chain_and_the_value(place: Workplace) -> None:
    guard(
        place,
        """
    value: {said: "{{ ticket }}"}
    evaluators: [{exact_match: {output: "{{ output.said | upper }}", expected: "{{ ticket | upper }}"}}]
""",
    )
    assert only(flown(place, "x")).status is Status.OK


def test_an_edited_function_of_an_evaluator_is_another_chain(place: Workplace) -> None:
    guard(place, "    value: '{{ ticket }}'\n    evaluators: [{python: look:ok}]", chains__look="")
    place.write("chains/look.py", "def ok(output):\n    return True\n")
    before = place.plan("flow").run.variants[0]
    place.write("chains/look.py", "def ok(output):\n    return False\n")
    after = place.plan("flow").run.variants[0]
    assert before.identity != after.identity
    assert before.definition_identity != after.definition_identity
