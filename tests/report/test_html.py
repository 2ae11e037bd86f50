"""The page of a run: what it looks like, what it costs to make, and that nothing others wrote acts in it."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import Markup

from llmops.compare import compare_run, compare_variants
from llmops.compare.changes import Changes, PromptChange
from llmops.definitions.dataset import Case
from llmops.records import (
    DatasetVersion,
    ErrorInfo,
    EvaluatorVersion,
    Figure,
    Interval,
    ModelVersion,
    Output,
    Row,
    Run,
    RunStatus,
    Score,
    Source,
    Span,
    Status,
    Usage,
    Variant,
)
from llmops.report import texts
from llmops.report.comparison_page import comparison_page
from llmops.report.html import page, run_page, value_lines
from tests.report.hostile_verdicts import hostile_verdict
from tests.report.verdicts import failing

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
PAYLOADS: list[tuple[str, str]] = [
    (context, text) for context, text in json.loads(Path(__file__).with_name("payloads.json").read_text())
]

# What the page may be made of, whatever anybody wrote.
ELEMENTS = frozenset(
    """
    html head meta title style body main header footer section nav article h1 h2 h3 h4 p a ul ol li dl dt dd div span b
    small code table caption thead tbody tr th td details summary del ins svg line circle path rect text
    """.split()  # noqa: SIM905
)
ATTRIBUTES = frozenset(
    """
    lang charset http-equiv content name class id href scope colspan rowspan tabindex role dir open aria-label
    width height viewbox x y x1 x2 y1 y2 cx cy r d text-anchor
    """.split()  # noqa: SIM905
)


# --- a run with steps ---------------------------------------------------------------------------------------


@dataclass
class WithSteps:
    """The rows of an example with steps added where they are asked for, and how many were read of each."""

    made: Any
    n_read: dict[bool, int] = field(default_factory=lambda: {False: 0, True: 0})

    def find_run(self, run_id: str) -> Any:
        return self.made.find_run(run_id)

    def rows(self, run_id: str, *, variant: str | None = None, with_spans: bool = True) -> Iterator[Row]:
        for row in self.made.rows(run_id, variant=variant, with_spans=False):
            self.n_read[with_spans] += 1
            output = row.output.model_copy(update={"spans": steps(row)}) if with_spans else row.output
            yield row.model_copy(update={"output": output})


def steps(row: Row) -> tuple[Span, ...]:
    output = row.output
    assert output is not None
    usage = Usage(input_tokens=90, output_tokens=2, estimated=True)
    ask: dict[str, Any] = {
        "inputs": {"ticket": "Where?"},
        "model": "default",
        "usage": usage,
        "cost_usd": 0.0004,
    }
    crash: dict[str, Any] = {
        "status": Status.CRASHED,
        "error": ErrorInfo(kind="crashed", message="no such team"),
    }
    whole: dict[str, Any] = {"inputs": row.case.inputs, "output": output.value, "duration_s": 0.25}
    return (
        Span(index=0, parent=None, name="all", kind="chain", **whole),
        Span(
            index=1, parent=0, name="ask", kind="prompt", output="a team", start_s=0.05, duration_s=0.2, **ask
        ),
        Span(index=2, parent=1, name="pick", kind="python", inputs=[1, 2], start_s=0.2, **crash),
    )


def test_a_run_as_a_page(example: Callable[..., Any], golden: Callable[[str, str], None]) -> None:
    made = example(
        source=Source(commit="c0ffee" * 7, branch="main", dirty=True),
        slices={},
        finished_at=datetime(2026, 5, 4, 12, 1, tzinfo=UTC),
    )
    shown = run_page(made.run, made.run.comparisons, WithSteps(made), now=NOW)
    body = shown[shown.index("<main>") :]
    golden("run.html", re.sub(r"<article.*</article>", _few, body, flags=re.DOTALL))


def _few(articles: re.Match[str]) -> str:
    """Return the first of many cases: they all have one form."""
    return f"{articles[0].split('</article>')[0]}</article>\n…"


def test_what_there_is_to_say_comes_first_and_in_the_words_of_the_terminal(
    example: Callable[..., Any],
) -> None:
    from llmops.report.sentences import run_caveats, run_facts, run_headlines

    made = example(status=RunStatus.PARTIAL, n_done=68, cost_usd=None)
    shown = html.unescape(run_page(made.run, made.run.comparisons, WithSteps(made), now=NOW))
    said = [sentence.text for sentence in run_headlines(made.run, made.run.comparisons)]
    said += [sentence.text for sentence in run_caveats(made.run)]
    assert len(said) == 3, "a headline, what is missing, and what embedded is"
    places = [shown.index(text) for text in [*said, run_facts(made.run), "<table>"]]
    assert places == sorted(places)
    assert "cost unknown" in shown


def test_a_run_without_a_baseline_shows_its_slices_and_lowest_scores(example: Callable[..., Any]) -> None:
    made = example()
    shown = run_page(made.run, (), WithSteps(made), now=NOW)
    assert "Against the baseline" not in shown
    assert "<caption>Slices</caption>" in shown
    assert "<h3>exact_match: the lowest scores</h3>" in shown
    assert 'class="sides alone"' in shown
    assert 'class="sides"' not in shown


def test_a_run_that_nobody_judged_is_a_page_too(example: Callable[..., Any]) -> None:
    made = example(evaluators=(), summary={}, n_errors=0)
    shown = run_page(made.run, (), WithSteps(made), now=NOW)
    assert "nothing scored: there are no evaluators" in shown
    assert "<article" not in shown
    assert 'href="#cases"' not in shown


def test_differences_are_marked_on_both_sides(example: Callable[..., Any]) -> None:
    made = example()
    answers = {"zero-shot": "the parcel is lost", "few-shot": "the parcel is late"}
    made.kept = [
        row.model_copy(update={"output": row.output.model_copy(update={"value": answers[row.variant]})})
        for row in made.kept
    ]
    shown = run_page(made.run, made.run.comparisons, WithSteps(made), now=NOW)
    assert "the parcel is <del>lost</del>" in shown
    assert "the parcel is <ins>late</ins>" in shown


def test_of_many_cases_some_are_shown_and_the_rest_is_counted(example: Callable[..., Any]) -> None:
    made = example()
    shown = run_page(made.run, made.run.comparisons, WithSteps(made), now=NOW)
    better = re.split("<h3>", shown)[-2]
    assert better.startswith("exact_match: 27 cases better with few-shot</h3>")
    assert better.count("<article") == 25
    assert f"2 more; <code>llmops report {made.run.id} --rows FILE</code> has all." in better


def test_a_long_output_is_cut_and_says_so(example: Callable[..., Any]) -> None:
    made = example()
    made.kept = [
        row.model_copy(update={"output": row.output.model_copy(update={"value": "word " * 2_000})})
        for row in made.kept
    ]
    shown = run_page(made.run, made.run.comparisons, WithSteps(made), now=NOW)
    assert "6,000 more characters" in shown
    assert "word " * 801 not in shown


def test_steps_are_read_only_for_the_cases_shown(example: Callable[..., Any]) -> None:
    made = example()
    source = WithSteps(made)
    run_page(made.run, made.run.comparisons, source, now=NOW)
    last = 40
    assert source.n_read[True] <= 2 * last
    made.run = made.run.model_copy(update={"n_errors": 0, "evaluators": ()})
    source = WithSteps(made)
    run_page(made.run, (), source, now=NOW)
    assert source.n_read == {False: 80, True: 0}


@dataclass
class Endless:
    """As many rows as one likes, each made when it is asked for and 20,000 characters long."""

    run: Run
    n: int

    def find_run(self, run_id: str) -> Run | None:
        return self.run if run_id == self.run.id else None

    def rows(self, run_id: str, *, variant: str | None = None, with_spans: bool = True) -> Iterator[Row]:  # noqa: ARG002
        assert run_id == self.run.id
        for number in range(self.n):
            for name in ("zero-shot", "few-shot"):
                if variant in (None, name):
                    yield self._row(number, name)

    def numbers(self, run_id: str, *, variant: str) -> Iterator[Row]:
        return self.rows(run_id, variant=variant)

    def _row(self, number: int, variant: str) -> Row:
        case = Case(id=f"c{number}", inputs={"ticket": f"{number} " * 4_000}, expected="yes")
        output = Output(
            cell_id=f"{variant}{number}",
            value=f"{variant} " * 2_000,
            latency_s=number / 7 + 0.1,
            created_at=NOW,
        )
        value = float((number % 3 == 0) == (variant == "few-shot"))
        score = Score(evaluator="exact_match", evaluator_identity="e" * 64, value=value)
        return Row(variant=variant, repeat=0, case=case, output=output, scores=(score,))


def test_the_page_and_its_memory_do_not_grow_with_the_run(example: Callable[..., Any]) -> None:
    made = example()
    sizes, peaks = [], []
    for n in (200, 2_000):
        source = Endless(made.run, n)
        comparisons = tuple(compare_run(source, made.run, now=NOW))
        tracemalloc.start()
        shown = run_page(made.run, comparisons, source, now=NOW)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        sizes.append(len(shown))
    assert sizes[1] < sizes[0] * 1.1 < 2_000_000
    assert peaks[1] < peaks[0] + 2_000_000, "1,800 more cases have 80 million characters"


@pytest.mark.parametrize(
    ("value", "lines"),
    [
        ("a\nb", "a\nb"),
        (None, "null"),
        (3.5, "3.5"),
        ({"team": "配送"}, '{\n  "team": "配送"\n}'),
        ([], "[]"),
    ],
)
def test_a_value_is_shown_as_text_or_as_json(value: Any, lines: str) -> None:
    assert value_lines(value) == lines


def test_a_value_nested_deeper_than_python_goes_is_not_shown() -> None:
    value: Any = "x"
    for _ in range(100_000):
        value = [value]
    assert value_lines(value) == "(a value nested too deep to be shown)"


# --- the shell ----------------------------------------------------------------------------------------------


def test_a_body_that_is_no_markup_is_text() -> None:
    shown = page("<b>&", "<script>alert(1)</script>")  # type: ignore[arg-type]
    assert "<title>&lt;b&gt;&amp;</title>" in shown
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in shown
    assert "<script" not in shown


def test_the_policy_allows_the_one_style_and_nothing_else() -> None:
    shown = page("t", Markup("<p>x</p>"))
    policy = re.search('http-equiv="Content-Security-Policy" content="([^"]*)"', shown)
    style = re.search("<style>(.*?)</style>", shown, re.DOTALL)
    assert policy is not None
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert html.unescape(policy[1]) == (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    assert not re.search(r"@import|url\(|https?:", shown)
    assert 'name="referrer" content="no-referrer"' in shown
    assert 'name="color-scheme" content="light dark"' in shown


def _colours() -> Iterator[tuple[str, dict[str, str]]]:
    style = re.findall(r":root \{(.*?)\}", page("t", Markup()), re.DOTALL)
    for name, block in zip(("light", "dark", "print"), style, strict=True):
        yield name, dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block))


def _luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize(
    ("look", "colours"), list(_colours()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_text_has_the_contrast_of_wcag_aa(look: str, colours: dict[str, str]) -> None:
    shades = [f"{tone}-{level}" for tone in ("good", "bad") for level in (1, 2, 3)]
    pairs = [("ink", ground) for ground in ("paper", "raised", "sunk", "del", "ins", *shades)]
    pairs += [
        (ink, ground) for ink in ("soft", "accent", "good", "bad", "open") for ground in ("paper", "raised")
    ]
    pairs += [("soft", "sunk"), ("bad", "sunk")]
    pairs += [(tone, f"{tone}-{level}") for tone in ("good", "bad") for level in (1, 2, 3)]
    for ink, ground in pairs:
        low, high = sorted((_luminance(colours[ink]), _luminance(colours[ground])))
        assert (high + 0.05) / (low + 0.05) >= 4.5, f"{look}: {ink} on {ground}"


# --- the structure ------------------------------------------------------------------------------------------


class Outline(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.others: list[str] = []
        self.said: list[str] = []
        self.titles: list[str] = []
        self._inside: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_comment(self, data: str) -> None:
        self.others.append(data)

    def handle_pi(self, data: str) -> None:
        self.others.append(data)

    def unknown_decl(self, data: str) -> None:
        self.others.append(data)

    def handle_data(self, data: str) -> None:
        if "style" not in self._inside:
            self.said.append(data)
        if self._inside[-2:] == ["svg", "title"]:
            self.titles.append(data)

    @property
    def text(self) -> str:
        return "".join(self.said)

    def named(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in tags]


def assert_inert(outline: Outline) -> None:
    assert {tag for tag, _ in outline.elements} <= ELEMENTS
    assert {name for _, attributes in outline.elements for name in attributes} <= ATTRIBUTES
    assert outline.others == []
    for attributes in outline.named("a"):
        assert re.fullmatch("#[a-z]+", attributes["href"] or ""), (
            "links lead within the page, to places of our own"
        )


def test_the_page_can_be_read_without_seeing_it(example: Callable[..., Any]) -> None:
    made = example(slices={"few-shot": {}})
    for comparisons in (made.run.comparisons, ()):
        outline = Outline(run_page(made.run, comparisons, WithSteps(made), now=NOW))
        assert_inert(outline)
        headings = [int(tag[1]) for tag, _ in outline.elements if re.fullmatch("h[1-6]", tag)]
        assert headings[0] == 1
        assert headings.count(1) == 1
        assert all(after <= before + 1 for before, after in pairwise(headings)), "no level is left out"
        drawings = outline.named("svg")
        assert all(attributes["role"] == "img" for attributes in drawings)
        assert len(outline.titles) == len(drawings) > 0
        assert all(outline.titles)
        assert len(outline.named("caption")) == len(outline.named("table"))
        assert all(attributes.get("scope") for attributes in outline.named("th"))
        assert all(
            attributes["aria-label"] for attributes in outline.named("div") if "tabindex" in attributes
        )
        ids = [attributes["id"] for _, attributes in outline.elements if "id" in attributes]
        assert len(ids) == len(set(ids))
        assert {f"#{name}" for name in ids} >= {attributes["href"] for attributes in outline.named("a")}
        assert outline.named("html") == [{"lang": "en"}]


# --- what others wrote --------------------------------------------------------------------------------------


def hostile_run(payloads: Sequence[str]) -> tuple[Run, list[Row]]:
    """Return a run in which every text that anybody else can choose is one of the payloads, each as each."""
    said = [payload.encode("utf-8", "replace").decode() for payload in payloads]
    names = [f"{text} {number}" for number, text in enumerate(said)]
    base, other = names[0], names[-1] + "!"
    variants = tuple(
        _hostile_variant(name, is_baseline=name == base) for name in dict.fromkeys([base, other, *names])
    )
    judges = tuple(
        EvaluatorVersion(name=name, kind="classification", identity=name, low=0, high=1) for name in names
    )
    figure = Figure(
        value=0.5, kind="mean", n=3, interval=Interval(low=0.2, high=0.7, level=0.9), note=said[0]
    )
    labelled = {f"{judges[0].name}.f1.{text}": figure for text in said}
    figures = {judge.name: figure for judge in judges} | labelled | {"error_rate": figure}
    run = Run(
        id=said[0],
        experiment=said[0],
        identity="i" * 64,
        status=RunStatus.PARTIAL,
        created_at=NOW,
        dataset=DatasetVersion(name=said[0], split=said[0], version=said[0], n_cases=3, path=said[0]),
        variants=variants,
        evaluators=judges,
        repeats=2,
        seed=1,
        source=Source(commit=said[0], branch=said[0], dirty=True),
        n_cells=4,
        n_done=3,
        n_errors=1,
        summary=dict.fromkeys((base, other), figures),
        slices={base: {text: {judges[0].name: figure} for text in said}},
    )
    rows = [
        _hostile_row(number, name, payloads, judges, is_first=name == base)
        for number in range(len(payloads))
        for name in (base, other)
    ]
    return run, rows


def _hostile_variant(name: str, *, is_baseline: bool) -> Variant:
    return Variant(
        name=name,
        definition=name,
        reference=name,
        definition_identity=name,
        identity=name,
        models=(ModelVersion(name=name, provider="embedded", model=name, identity=name),),
        parameters={name: name},
        set={name: [name]},
        is_baseline=is_baseline,
    )


def _hostile_row(
    number: int, variant: str, payloads: Sequence[str], judges: Sequence[EvaluatorVersion], *, is_first: bool
) -> Row:
    payload = payloads[number]
    text = payload.encode("utf-8", "replace").decode()
    error = ErrorInfo(kind=text, message=text, step=text)
    fails = number == 0 and is_first
    span = Span(
        index=0,
        parent=None,
        name=text,
        kind="prompt",
        inputs={payload: payload},
        output=[payload],
        model=text,
        error=None if number % 2 else error,
    )
    output = Output(
        cell_id=f"{number}{variant}",
        value=None if fails else {payload: payload} if number % 4 == 3 else f"{payload} {variant}",
        status=Status.ERROR if fails else Status.OK,
        error=error if fails else None,
        valid=False,
        latency_s=float(number + is_first),
        returned_model=text,
        spans=(span,),
        created_at=NOW,
    )
    scores = [
        Score(
            evaluator=judge.name,
            evaluator_identity=judge.identity,
            value=float(is_first == (number % 2)),
            label=text,
            truth=text,
            rationale=text,
        )
        for judge in judges[:2]
    ]
    scores.append(Score(evaluator=judges[-1].name, evaluator_identity="x", error=text))
    case = Case(id=f"{text} {number}", inputs={text: payload}, expected=payload, slice=text)
    return Row(variant=variant, repeat=0, case=case, output=output, scores=tuple(scores))


@dataclass
class Kept:
    """A run and its rows, as a journal would give them."""

    run: Run
    kept: Sequence[Row]

    def find_run(self, run_id: str) -> Run | None:
        return self.run if run_id == self.run.id else None

    def rows(self, run_id: str, *, variant: str | None = None, with_spans: bool = True) -> Iterator[Row]:  # noqa: ARG002
        assert run_id == self.run.id
        return (row for row in self.kept if variant in (None, row.variant))

    def numbers(self, run_id: str, *, variant: str) -> Iterator[Row]:
        return self.rows(run_id, variant=variant)


def hostile_page(payloads: Sequence[str]) -> str:
    run, rows = hostile_run(payloads)
    source = Kept(run, rows)
    base, other, *_ = (variant.name for variant in run.variants)
    comparison = compare_variants(source, (run, base), (run, other), now=NOW)
    shown = run_page(run, [comparison], source, now=NOW)
    lines = ("--- a", "+++ b", *(f"{sign}{payload}" for payload in payloads for sign in " -+@"))
    changes = Changes(tuple(payloads), (PromptChange(payloads[0], payloads[-1], lines, payloads[0]),))
    shown += comparison_page([(comparison, changes)], source, now=NOW)
    return shown + run_page(run, (), source, now=NOW)


@cache
def outlines() -> list[Outline]:
    return [Outline(shown) for shown in hostile_pages()]


@cache
def hostile_pages() -> list[str]:
    """Return pages that show all payloads, few enough each to be shown as cases."""
    found = [text for _, text in PAYLOADS]
    return [hostile_page(found[first : first + 20]) for first in range(0, len(found), 20)]


def test_no_payload_changes_what_the_page_is_made_of_s08() -> None:
    assert len(PAYLOADS) >= 200
    for outline in outlines():
        assert_inert(outline)


def test_every_payload_is_shown_as_it_was_written() -> None:
    text = "".join(outline.text for outline in outlines())
    for _, payload in PAYLOADS:
        assert texts.visible(payload) in text


PIECES = st.sampled_from([text for _, text in PAYLOADS] + list("<>&\"'`=/ \n\x00\u202e\ud800{}%#-!]"))


@settings(max_examples=25)
@given(st.lists(st.lists(PIECES, min_size=1, max_size=4).map("".join), min_size=1, max_size=3))
def test_no_text_at_all_changes_what_the_page_is_made_of(payloads: list[str]) -> None:
    shown = hostile_page(payloads)
    assert_inert(Outline(shown))
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", shown)


# --- in a browser -------------------------------------------------------------------------------------------

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

# Each frame counts for itself; what waits for a hand gets one: every element is clicked, pointed at and focused.
HOOK = """
<script>
window.alert = () => HIT;
addEventListener("load", () => {
  if (window.name == "touched") return;
  window.name = "touched";
  for (const element of document.querySelectorAll("*:not(a[href^='#'])")) {
    for (const kind of ["mouseover", "mouseenter", "pointerover", "click"]) {
      if (kind == "click" && element.click) element.click();
      else element.dispatchEvent(new MouseEvent(kind, {bubbles: true}));
    }
    if (element.tabIndex >= 0 && element.focus) element.focus();
    if (element.tagName == "DETAILS") element.open = true;
  }
});
</script>
"""
CONTEXTS = {
    "text": "<div>{}</div>",
    "attribute": '<input value="{}">',
    "quoted": "<input value='{}'>",
    "bare": "<input value={}>",
    "script": '<script>var x = "{}";</script>',
    "style": "<style>b {{ content: '{}' }}</style>",
    "href": '<a href="{}">x</a>',
    "comment": "<!-- {} -->",
    "title": "<title>{}</title>",
    "textarea": "<textarea>{}</textarea>",
}


def dump_dom(path: Path, text: str) -> tuple[str, str]:
    """Return the tree that a browser makes of a page after all its scripts, as HTML, and its log."""
    path.write_text(text, encoding="utf-8")
    assert CHROMIUM is not None
    command = [
        *(CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *("--enable-logging=stderr", "--virtual-time-budget=5000", "--dump-dom"),
        *(f"--user-data-dir={path.parent / 'profile'}", path.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, errors="replace")
    return done.stdout, done.stderr


def without_policy(shown: str) -> str:
    """Return a page as if nothing forbade scripts: what is in it has to be harmless by itself."""
    bare, n = re.subn('<meta http-equiv="Content-Security-Policy"[^>]*>', "", shown)
    assert n == 1
    return bare


@in_browser
def test_the_payloads_do_run_where_nobody_escapes_them(tmp_path: Path) -> None:
    active = [(context, text) for context, text in PAYLOADS if context != "inert"]
    frames = [
        HOOK.replace("HIT", f"top.hit({number})")
        + CONTEXTS[context].format(text.encode("utf-8", "replace").decode())
        for number, (context, text) in enumerate(active)
    ]
    srcdocs = "".join(f'<iframe srcdoc="{html.escape(frame)}"></iframe>' for frame in frames)
    count = "<script>const found = new Set(); function hit(n) { found.add(n); document.title = found.size; }</script>"
    dom, _ = dump_dom(tmp_path / "naive.html", f"<!doctype html><title>0</title>{count}{srcdocs}")
    title = re.search(r"<title>(\d+)</title>", dom)
    assert title is not None
    assert int(title[1]) >= 200, f"{title[1]} of {len(active)} ran"


@in_browser
def test_no_payload_runs_in_the_page_even_without_its_policy_s08(tmp_path: Path) -> None:
    hook = HOOK.replace("HIT", "top.hit()")
    pages = [without_policy(_apart(shown)[0]) for shown in hostile_pages()]
    frames = [shown.replace("<head>", f"<head>{hook}", 1) for shown in pages]
    srcdocs = "".join(f'<iframe srcdoc="{html.escape(frame)}"></iframe>' for frame in frames)
    count = "<script>let n = 0; function hit() { document.title = ++n; }</script>"
    loaded = "<script>addEventListener('load', () => document.body.append('all ' + frames.length + ' loaded'))</script>"
    dom, _ = dump_dom(
        tmp_path / "pages.html", f"<!doctype html><title>0</title>{count}{loaded}<body>{srcdocs}</body>"
    )
    assert f"all {len(pages)} loaded" in dom
    assert "<title>0</title>" in dom


def _apart(shown: str) -> list[str]:
    """Return the two pages that `hostile_page` puts after one another."""
    return [f"<!doctype html>{part}" for part in shown.split("<!doctype html>")[1:]]


@in_browser
def test_a_browser_makes_of_the_page_what_was_meant(tmp_path: Path) -> None:
    shown = _apart(hostile_pages()[0])[0]
    dom, log = dump_dom(tmp_path / "page.html", shown)
    read = Outline(dom)
    assert_inert(read)
    assert [tag for tag, _ in read.elements] == [tag for tag, _ in Outline(shown).elements]
    assert "Content Security Policy" not in log, "the one style is the one that is allowed"


@in_browser
def test_a_style_or_script_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    body = "<script>document.title = 'ran'</script><style>p { color: red }</style>"
    dom, log = dump_dom(tmp_path / "page.html", page("t", Markup(body)))  # noqa: S704
    assert "<title>t</title>" in dom
    assert log.count("Content Security Policy") >= 2


# --- a verdict ----------------------------------------------------------------------------------------------


def test_a_verdict_stands_first_on_the_page(example: Callable[..., Any]) -> None:
    made = example()
    shown = run_page(made.run, made.run.comparisons, WithSteps(made), now=NOW, verdict=failing())
    outline = Outline(shown)
    assert_inert(outline)
    said = outline.text
    assert said.index("triage: fail: few-shot fails exact_match") < said.index("few-shot is better than")
    assert said.index("not_worse_than baseline") < said.index("Time, tokens and cost")
    headings = [int(tag[1]) for tag, _ in outline.elements if re.fullmatch("h[1-6]", tag)]
    assert headings[:3] == [1, 2, 3]
    assert all(after <= before + 1 for before, after in pairwise(headings)), "no level is left out"
    assert len(outline.named("caption")) == len(outline.named("table"))
    assert "could see" in said
    assert 'class="number word bad-ink">fail<' in shown


def test_what_others_wrote_in_a_verdict_is_text_on_the_page_S08(example: Callable[..., Any]) -> None:
    made = example()
    for _, text in PAYLOADS[::6]:
        whole = text.encode("utf-8", "replace").decode()
        assert_inert(
            Outline(run_page(made.run, (), WithSteps(made), now=NOW, verdict=hostile_verdict(whole)))
        )
