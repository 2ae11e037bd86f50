"""Verdicts as JUnit XML, which every CI system shows: one suite an experiment, one case a gate of a candidate.

What is shown where: GitLab lists `failure` and `error` as failed and `skipped` as skipped, in the merge request too.
Azure DevOps counts both as failed, with message and text, and `skipped` as not executed. GitHub reads no JUnit of its
own; the actions that do show all three apart. So `failure` is a gate that fails; `error` one that cannot say and by
policy blocks, for no system lets it pass; `skipped` one that cannot say and only warns, or that informs and does not
pass.
The case `verdict` says what all gates come to, so that the file is as red as the exit code even where no gate could be
judged. The elements are those that the schema of Ant and the one of Jenkins both allow.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Literal
from xml.sax.saxutils import escape, quoteattr

from llmops.records import GateResult, Outcome, Verdict
from llmops.report.texts import printable
from llmops.report.verdict_texts import (
    gate_details,
    gate_texts,
    sides,
    ungated_grid,
    verdict_caveats,
    verdict_facts,
    verdict_headline,
    verdict_where,
)

Kind = Literal["failure", "error", "skipped"]
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that no XML 1.0 document may hold, not even as references."""


@dataclass(frozen=True, slots=True)
class _Test:
    """One case of a suite; kind is None for one that passes."""

    name: str
    place: str
    said: str
    text: str
    kind: Kind | None
    says: Outcome


def verdicts_junit(verdicts: Sequence[Verdict]) -> str:
    """Return the file; a CI step that publishes it fails exactly where a verdict fails, or is open and blocks."""
    suites = "".join(_suite(place, verdict) for place, verdict in enumerate(verdicts))
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites>\n{suites}</testsuites>\n'


def _suite(place: int, verdict: Verdict) -> str:
    tests = list(_tests(verdict))
    counted = {
        "tests": len(tests),
        "failures": sum(test.kind == "failure" for test in tests),
        "errors": sum(test.kind == "error" for test in tests),
        "skipped": sum(test.kind == "skipped" for test in tests),
    }
    attributes = {
        "id": place,
        "package": "llmops",
        "name": _token(verdict.experiment),
        "timestamp": f"{verdict.created_at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}",
        "hostname": "llmops",
        **counted,
        "time": 0,
    }
    said = [verdict_headline(verdict).text, *(sentence.text for sentence in verdict_caveats(verdict))]
    about = filter(None, (verdict_facts(verdict), verdict_where(verdict)))
    lines = [*said, *about, *(f"{test.place}: {test.said}" for test in tests[1:])]
    for grid in map(ungated_grid, verdict.candidates):
        for row in grid.rows:
            cells = zip(grid.header[1:], row[1:], strict=True)
            lines.append(
                f"{grid.title}: {row[0]}: {', '.join(f'{title} {cell}' for title, cell in cells if cell)}"
            )
    return (
        f"<testsuite {_attributes(attributes)}>\n<properties>\n{_property('verdict', verdict.outcome)}"
        f"{_property('blocks', str(verdict.blocks).lower())}{_property('id', verdict.id)}</properties>\n"
        f"{''.join(map(_case, tests))}"
        f"<system-out>{_text(chr(10).join(lines))}</system-out>\n<system-err></system-err>\n</testsuite>\n"
    )


def _tests(verdict: Verdict) -> Iterator[_Test]:
    """Yield the whole verdict, then each gate of each candidate."""
    headline = verdict_headline(verdict).text
    kind = _kind(verdict, verdict.outcome, decides=True)
    yield _Test("verdict", verdict.experiment, headline, verdict_facts(verdict), kind, verdict.outcome)
    for candidate in verdict.candidates:
        for gate in candidate.gates:
            said = gate_texts(gate)
            kind = _kind(verdict, gate.outcome, decides=gate.blocks)
            yield _Test(said.gate, sides(candidate), said.sentence, _lines(gate), kind, gate.outcome)


def _kind(verdict: Verdict, outcome: Outcome, *, decides: bool) -> Kind | None:
    if outcome is Outcome.PASS:
        return None
    if not decides:
        return "skipped"
    if outcome is Outcome.FAIL:
        return "failure"
    return "error" if verdict.outcome is Outcome.INCONCLUSIVE and verdict.blocks else "skipped"


def _lines(gate: GateResult) -> str:
    return "\n".join(f"{label}: {text}" for label, text in gate_details(gate))


def _case(test: _Test) -> str:
    attributes = _attributes({"name": _token(test.name), "classname": _token(test.place), "time": 0})
    if test.kind is None:
        return f"<testcase {attributes}/>\n"
    what = {"message": test.said} | ({} if test.kind == "skipped" else {"type": test.says})
    inside = f"<{test.kind} {_attributes(what)}>{_text(test.text)}</{test.kind}>"
    return f"<testcase {attributes}>{inside}</testcase>\n"


def _property(name: str, value: str) -> str:
    return f"<property {_attributes({'name': name, 'value': value})}/>\n"


def _attributes(values: Mapping[str, object]) -> str:
    return " ".join(f"{name}={quoteattr(_clean(str(value)))}" for name, value in values.items())


def _token(text: str) -> str:
    """Return a name that is not empty, as the schemas ask."""
    return " ".join(_clean(text).split()) or "-"


def _text(text: str) -> str:
    return escape(_clean(text))


def _clean(text: str) -> str:
    """Return text that XML may hold and that shows as it is."""
    return _NO_XML.sub("\ufffd", printable(text))
