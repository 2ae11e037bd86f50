"""Every face of a verdict, read back by a parser of its own, says the same of every gate and of the whole."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings

from llmops.cli.exits import Exit, verdict_exit
from llmops.records import Outcome, Row, Run, Verdict
from llmops.report.annotations import verdict_annotations
from llmops.report.comment import verdict_comment, verdict_note
from llmops.report.html import run_page
from llmops.report.junit import verdicts_junit
from llmops.report.plain import verdict_json, verdict_tags
from llmops.report.terminal import verdict_text
from llmops.report.verdict_texts import gate_texts, gravest_first
from tests.report.verdicts import NOW, failing, open_verdict, passing, verdicts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True)
class Read:
    """What a reader learns of one gate, in the characters of the face."""

    gate: str
    says: str
    effect: str
    ends: tuple[str, ...]
    n: str
    p_pass: str
    p_worse: str


def expected(verdict: Verdict) -> list[Read]:
    """Return what the record says, candidates that fail first; numbers as `gate_texts` rounds them."""
    return [wanted(gate) for candidate in gravest_first(verdict) for gate in candidate.gates]


def wanted(gate: Any) -> Read:
    said = gate_texts(gate)
    ends = numbers(said.interval)
    return Read(said.gate, gate.outcome.value, said.effect, ends, f"{gate.n:,}", said.p_pass, said.p_worse)


def numbers(text: str) -> tuple[str, ...]:
    """Return both ends of an interval."""
    found = re.match(r"\[(\S+), (\S+)\]", text)
    return found.groups() if found else ()


def of_cells(cells: list[str]) -> Read:
    gate, _, _, effect, interval, n, p_pass, p_worse, says = cells
    return Read(gate, says, effect, numbers(interval), n, p_pass, p_worse)


_SENTENCE = re.compile(
    r"(?P<says>pass|fail|inconclusive): (?P<gate>.*?): (?P<effect>\S+(?: s)?)(?: (?P<interval>\[.*?\]) at \S+%)?, "
    r"n (?P<n>[\d,]+)(?:, p pass (?P<p_pass>\S+?))?(?:, p worse (?P<p_worse>\S+?))?: .*"
)


def of_sentence(text: str) -> Read:
    found = _SENTENCE.fullmatch(text)
    assert found is not None, text
    parts = {name: value or "" for name, value in found.groupdict().items()}
    return Read(
        parts["gate"],
        parts["says"],
        parts["effect"],
        numbers(parts["interval"]),
        parts["n"],
        parts["p_pass"],
        parts["p_worse"],
    )


# --- a parser for each face ---------------------------------------------------------------------------------


def read_terminal(verdict: Verdict) -> tuple[str, list[Read]]:
    lines = verdict_text(verdict, None, width=400).splitlines()
    headline = re.match(r".*?: (pass|fail|inconclusive)(, which \w+ ?\w*)?: ", lines[0])
    assert headline is not None
    rows = []
    header: str | None = None
    for line in lines:
        if re.match(r"gate .* says$", line):
            header = line
        elif not line:
            header = None
        elif header is not None and re.search(r" (pass|fail|inconclusive)$", line) and len(line) > 60:
            rows.append(of_cells(cells_of(header, line)))
    return headline[1] + (headline[2] or ""), rows


def cells_of(header: str, line: str) -> list[str]:
    """Return the cells of a row whose columns end where their titles do, counted from the right."""
    titles = r"baseline|candidate|effect|\S*% interval|interval|n|p pass|p worse|says"
    ends = [len(header) - found.end() for found in re.finditer(rf"(?<= )({titles})(?= |$)", header)]
    assert len(ends) == 8
    cells = []
    for end in reversed(ends):
        rest = line[: len(line) - (end - 0)] if end else line
        cut = re.search(r"(\S(?:[^ ]| (?! ))*)?$", rest)
        assert cut is not None
        cells.append(cut[0])
    return [re.split(r"  ", line)[0].strip(), *reversed(cells)]


def read_markdown(text: str) -> tuple[str, list[Read]]:
    title = re.search(r"^### .*?: (pass|fail|inconclusive)(, which \w+ ?\w*)?$", text, re.MULTILINE)
    assert title is not None
    rows = []
    for line in re.findall(r"^\| (.*) \|$", text, re.MULTILINE):
        cells = [plain(cell.strip()) for cell in re.split(r"(?<!\\)\|", line)]
        if cells[-1] in set(Outcome):
            rows.append(of_cells(cells))
    return title[1] + (title[2] or ""), rows


def plain(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text).replace("\u200b", "").replace("&amp;", "&")


class Page(HTMLParser):
    """The first headline and the tables of the section `verdict`."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.headline = ""
        self.rows: list[list[str]] = []
        self._inside = self._in_headline = self._in_cell = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "section":
            self._inside = dict(attrs)["id"] == "verdict"
        self._in_headline = self._inside and "headline" in (dict(attrs).get("class") or "")
        if self._inside and tag == "tr":
            self.rows.append([])
        self._in_cell = self._inside and tag in {"td", "th"}
        if self._in_cell:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_headline = False
        self._inside = self._inside and tag != "section"

    def handle_data(self, data: str) -> None:
        if self._in_headline:
            self.headline += data
        if self._in_cell:
            self.rows[-1][-1] += data


class Spanless:
    """The rows of an example for a page, whose cases have no steps."""

    def __init__(self, made: Any) -> None:
        self.made = made
        self.run = made.run

    def rows(self, run_id: str, *, variant: str | None = None, with_spans: bool = True) -> Iterator[Row]:  # noqa: ARG002
        rows: Iterator[Row] = self.made.rows(run_id, variant=variant, with_spans=False)
        return rows

    def find_run(self, run_id: str) -> Run | None:
        found: Run | None = self.made.find_run(run_id)
        return found


def read_page(verdict: Verdict, made: Spanless) -> tuple[str, list[Read]]:
    page = Page(run_page(made.run, (), made, now=NOW, verdict=verdict))
    headline = re.match(r".*?: (pass|fail|inconclusive)(, which \w+ ?\w*)?: ", page.headline)
    assert headline is not None
    return headline[1] + (headline[2] or ""), [of_cells(row) for row in page.rows if row[-1] in set(Outcome)]


def read_junit(text: str) -> tuple[str, list[tuple[str, str | None]], list[Read]]:
    """Return the kind of the case `verdict`, those of the gates, and the gates in the output of the suite."""
    suite = ElementTree.fromstring(text)[0]  # noqa: S314 - our own
    tests = suite.findall("testcase")
    kinds = [(test.attrib["name"], test[0].tag if len(test) else None) for test in tests]
    for kind, count in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        assert int(suite.attrib[count]) == sum(found == kind for _, found in kinds)
    lines = (suite.findtext("system-out") or "").splitlines()[-len(kinds) + 1 :] if len(kinds) > 1 else []
    said = [of_sentence(line.partition(": ")[2]) for line in lines]
    return kinds[0][1] or "", kinds[1:], said


def read_annotations(lines: list[str]) -> Iterator[tuple[str, dict[str, str], str]]:
    """Yield level, properties and message, by the grammar of the runner."""
    for line in lines:
        found = re.fullmatch(r"::(error|warning|notice) ([^\r\n]*?)::([^\r\n]*)", line)
        assert found is not None, line
        pairs = (part.split("=", 1) for part in found[2].split(","))
        yield found[1], {name: unescaped(value) for name, value in pairs}, unescaped(found[3])


def unescaped(text: str) -> str:
    for sign, meant in (("%2C", ","), ("%3A", ":"), ("%0A", "\n"), ("%0D", "\r"), ("%25", "%")):
        text = text.replace(sign, meant)
    return text


# --- they agree ---------------------------------------------------------------------------------------------


def title_of(verdict: Verdict) -> str:
    weight = ", which blocks" if verdict.blocks else ", which only warns"
    return verdict.outcome.value + weight * (verdict.outcome is Outcome.INCONCLUSIVE)


def stops(verdict: Verdict) -> bool:
    return verdict.outcome is Outcome.FAIL or (verdict.outcome is Outcome.INCONCLUSIVE and verdict.blocks)


@given(verdicts())
@settings(max_examples=60)
def test_terminal_comment_note_and_json_say_the_same(verdict: Verdict) -> None:
    meant = title_of(verdict), expected(verdict)
    assert read_terminal(verdict) == meant
    assert read_markdown(verdict_comment(verdict, None)) == meant
    assert read_markdown(verdict_note(verdict)) == meant
    assert Verdict.model_validate_json(verdict_json(verdict)) == verdict


@given(verdicts())
@settings(max_examples=60)
def test_exit_code_junit_annotations_and_tags_say_the_same(verdict: Verdict) -> None:
    code = verdict_exit(verdict)
    assert (code is not Exit.DONE) == stops(verdict)
    in_order = [wanted(gate) for candidate in verdict.candidates for gate in candidate.gates]

    kind, kinds, said = read_junit(verdicts_junit([verdict]))
    assert {Exit.FAILED: "failure", Exit.INCONCLUSIVE: "error"}.get(code, "") == kind.replace("skipped", "")
    assert (kind == "") == (verdict.outcome is Outcome.PASS)
    assert said == in_order
    for (name, found), read in zip(kinds, in_order, strict=True):
        assert name == read.gate
        assert (found is None) == (read.says == "pass")
        assert (found == "failure") == (read.says == "fail" and not read.gate.endswith("(informs)"))

    (level, _, message), *gates = read_annotations(verdict_annotations(verdict))
    assert (level == "error") == stops(verdict)
    assert (level == "notice") == (verdict.outcome is Outcome.PASS)
    assert f": {title_of(verdict)}: " in message
    assert [of_sentence(text) for _, _, text in gates] == [read for read in in_order if read.says != "pass"]

    tags = verdict_tags(verdict)
    assert tags["llmops.gate"] == verdict.outcome
    assert [of_sentence(line) for line in tags["llmops.gates"].splitlines()] == in_order
    for candidate in verdict.candidates:
        assert verdict_tags(verdict, candidate)["llmops.gate"] == candidate.outcome


def test_the_page_of_the_run_says_the_same(example: Callable[..., Any]) -> None:
    made = Spanless(example())

    @given(verdicts())
    @settings(max_examples=15)
    def check(verdict: Verdict) -> None:
        assert read_page(verdict, made) == (title_of(verdict), expected(verdict))

    check()
    for verdict in (passing(), failing(), open_verdict()):
        assert read_page(verdict, made) == (title_of(verdict), expected(verdict))


def test_numbers_shown_are_those_of_the_record_and_never_look_like_the_margin() -> None:
    (gate,) = (gate for gate in open_verdict().candidates[0].gates if gate.margin)
    read = wanted(gate)
    assert (read.effect, read.ends, read.p_pass) == ("-0.020", ("-0.051", "0.012"), "0.0503")
    record = json.loads(verdict_json(open_verdict()))["candidates"][0]["gates"][1]
    assert round(record["interval"]["low"], 3) == float(read.ends[0]) < -record["margin"]
    assert record["p_pass"] == float(read.p_pass) > record["alpha"]


@pytest.mark.parametrize(
    ("made", "code"),
    [
        (passing(), 0),
        (failing(), 1),
        (open_verdict(blocks=False), 0),
        (open_verdict(blocks=True), 6),
    ],
)
def test_the_exit_code_is_that_of_the_verdict(made: Verdict, code: int) -> None:
    assert verdict_exit(made) == code
