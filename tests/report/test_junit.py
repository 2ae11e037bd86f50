"""Verdicts as JUnit: the golden files, their schema, and that any text may stand in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmops.records import Verdict
from llmops.report import texts
from llmops.report.junit import verdicts_junit
from tests.report.hostile_verdicts import PAYLOADS, hostile_verdict
from tests.report.verdicts import failing, open_verdict, passing, verdicts


@pytest.fixture(scope="module")
def schema() -> Any:
    """What the schemas of Ant and Jenkins both allow."""
    etree: Any = pytest.importorskip("lxml.etree", reason="lxml is not installed")
    return etree.XMLSchema(etree.parse(Path(__file__).with_name("junit.xsd")))


def valid(schema: Any, text: str) -> Any:
    from lxml import etree  # type: ignore[import-untyped]

    document = etree.fromstring(text.encode())
    schema.assertValid(document)
    return document


@pytest.mark.parametrize(
    ("name", "make"), [("pass", passing), ("fail", failing), ("inconclusive", open_verdict)]
)
def test_a_verdict_as_junit(
    name: str, make: Callable[[], Verdict], golden: Callable[[str, str], None], schema: Any
) -> None:
    text = verdicts_junit([make()])
    golden(f"verdict.{name}.xml", text)
    valid(schema, text)


def test_each_experiment_is_a_suite_of_its_own(schema: Any) -> None:
    document = valid(schema, verdicts_junit([passing(), failing(experiment="other")]))
    assert [suite.get("name") for suite in document] == ["triage", "other"]
    assert [suite.get("id") for suite in document] == ["0", "1"]
    valid(schema, verdicts_junit([]))


def test_what_is_open_is_an_error_only_where_it_blocks() -> None:
    kinds = {}
    for blocks in (False, True):
        suite = ElementTree.fromstring(verdicts_junit([open_verdict(blocks=blocks)]))[0]  # noqa: S314 - our own
        kinds[blocks] = [test[0].tag if len(test) else None for test in suite.findall("testcase")]
    assert kinds == {False: ["skipped", None, "skipped"], True: ["error", None, "error"]}


def test_a_gate_that_informs_never_fails_the_build() -> None:
    gates = passing().candidates[0].gates
    bad = gates[0].model_copy(update={"outcome": "fail", "blocks": False})
    judged = passing().candidates[0].model_copy(update={"gates": (bad,)})
    suite = ElementTree.fromstring(verdicts_junit([passing(candidates=(judged,))]))[0]  # noqa: S314 - our own
    assert suite.attrib["failures"] == suite.attrib["errors"] == "0"
    assert suite.attrib["skipped"] == "1"


def test_a_verdict_that_fails_without_a_gate_is_red_all_the_same() -> None:
    suite = ElementTree.fromstring(verdicts_junit([failing(candidates=())]))[0]  # noqa: S314 - our own
    assert suite.attrib["failures"] == "1"


def test_any_text_may_stand_in_the_file(schema: Any) -> None:
    for text in PAYLOADS:
        document = valid(schema, verdicts_junit([hostile_verdict(text)]))
        said = "".join(document.itertext()) + "".join(
            value for element in document.iter() for value in element.attrib.values()
        )
        assert said == texts.printable(said), "no escape sequence, no mark of direction, no command"
        cases = document.findall(".//testcase")
        assert [len(case) for case in cases] == [1] * 5


@given(verdicts(st.text(max_size=20)))
@settings(max_examples=40)
def test_any_verdict_is_valid(schema: Any, verdict: Verdict) -> None:
    valid(schema, verdicts_junit([verdict]))
