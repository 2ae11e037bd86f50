"""A verdict as a comment: the golden files, its limit, and that what others wrote shows and does nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from llmops.records import Flip, Outcome, Verdict
from llmops.report import texts
from llmops.report.comment import COMMENT_LIMIT, comment_marker, verdict_comment, verdict_note
from llmops.report.markdown import NOTE_LIMIT, html_text, joined, size
from llmops.report.verdict_texts import safe_link
from tests.report.hostile_verdicts import PAYLOADS, Rows, hostile_verdict
from tests.report.verdicts import candidate, failing, open_verdict, passing

OURS = {"details", "summary", "table", "tr", "th", "td"}
# What GitHub and GitLab make something of in text that stands in no code.
ALIVE = re.compile(r"@\w|#\d|\bGH-\d|://|\bwww\.|[!&%$]\d|~\w|\bmailto:", re.IGNORECASE)


@pytest.mark.parametrize(
    ("name", "make"), [("pass", passing), ("fail", failing), ("inconclusive", open_verdict)]
)
def test_a_verdict_as_a_comment(
    name: str, make: Callable[[], Verdict], example: Callable[..., Any], golden: Callable[[str, str], None]
) -> None:
    golden(f"verdict.{name}.md", verdict_comment(make(), example()))


# --- what others wrote --------------------------------------------------------------------------------------


class Elements(HTMLParser):
    """Elements, attributes, comments and text of the HTML in a comment."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.comments: list[str] = []
        self.others: list[str] = []
        self.said = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        self.tags.append(tag)

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    def handle_data(self, data: str) -> None:
        self.said += data

    def handle_decl(self, decl: str) -> None:
        self.others.append(decl)

    def handle_pi(self, data: str) -> None:
        self.others.append(data)

    def unknown_decl(self, data: str) -> None:
        self.others.append(data)


def tokens_of(text: str) -> Iterator[Token]:
    for token in MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text):
        yield token
        yield from token.children or ()


def assert_inert(text: str, link: str | None) -> list[Token]:
    """See that nothing but what we meant becomes HTML, a link or an image, and that nobody is called."""
    tokens = list(tokens_of(text))
    kinds = {token.type for token in tokens}
    assert kinds.isdisjoint({"image", "html_inline", "code_inline", "code_block", "hr", "blockquote_open"})
    assert "ordered_list_open" not in kinds
    assert sum(token.type == "heading_open" for token in tokens) == 1
    links = [token.attrs["href"] for token in tokens if token.type == "link_open"]
    assert set(links) <= {link}
    pieces = [Elements(token.content) for token in tokens if token.type == "html_block"]
    assert {tag for piece in pieces for tag in piece.tags} <= OURS
    assert not any(piece.attributes or piece.others for piece in pieces)
    assert sum(len(piece.comments) for piece in pieces) <= 1
    said = [piece.said for piece in pieces] + [token.content for token in tokens if token.type == "text"]
    for words in said:
        assert not ALIVE.search(words), words
    return tokens


@pytest.mark.parametrize("outcome", [Outcome.FAIL, Outcome.INCONCLUSIVE])
def test_what_others_wrote_does_nothing_in_a_comment_S09(outcome: Outcome) -> None:
    for text in PAYLOADS:
        made = hostile_verdict(text, outcome)
        shown = verdict_comment(made, Rows(text))
        tokens = assert_inert(shown, safe_link(text))
        fences = [token.content for token in tokens if token.type == "fence"]
        whole = texts.printable(text)
        assert sum(whole in fence for fence in fences) >= len(fences) - 4 >= 4, "no fence was broken"
        assert shown.startswith(f"{comment_marker(text)}\n### ")
        assert shown.count("<details>") == shown.count("\n</details>") > 0 or "details>" in text
        assert_inert(verdict_note(made), safe_link(text))
        assert not re.search(r"^\s*::|##\[", shown, re.MULTILINE), "nor does a log that it is printed into"
        outside = re.sub(r"^(`{3,})text\n.*?\n\1$", "", shown, flags=re.MULTILINE | re.DOTALL)
        assert not re.search(r"^\s*/", outside, re.MULTILINE), "nor what GitLab takes for a quick action"


@given(st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("`@#<>[]()!|\\~\n&:"), max_size=60))
@settings(max_examples=60)
def test_no_text_gets_out_of_its_place_S09(text: str) -> None:
    assert_inert(verdict_comment(hostile_verdict(text), Rows(text)), safe_link(text))


@given(st.text("@#:&<>!~%$1aw.\"'\\`", max_size=20))
def test_text_in_a_tag_is_dead_and_reads_the_same(text: str) -> None:
    shown = Elements(f"<p>{html_text(text)}</p>")
    assert shown.tags == ["p", "p"]
    assert shown.said.replace("\u200b", "") == text
    assert not ALIVE.search(f"- {shown.said}")


@pytest.mark.parametrize(
    "link",
    [
        "javascript:alert(1)",
        "http://a b",
        "https://evil.example/)[x](y",
        "https://me:secret@ci.example/",
        "https://me@ci.example",
        "https://x>\n<b>",
        "https://[::1",
        "//ci.example",
        "https://",
        "ftp://ci.example",
        "https://ci.example/" + "a" * 2_000,
        None,
    ],
)
def test_what_is_no_plain_link_to_the_web_is_no_link(link: str | None) -> None:
    assert safe_link(link) is None
    assert "](" not in verdict_comment(passing(link=link), None)


def test_a_link_is_kept_as_it_is() -> None:
    link = "https://ci.example/runs/7?a=1&b=2#step:3"
    assert safe_link(link) == link
    assert f"[Case by case in MLflow](<{link}>)" in verdict_comment(passing(link=link), None)


# --- its size -----------------------------------------------------------------------------------------------


def test_each_experiment_has_one_comment_whose_marker_ends_where_it_should() -> None:
    markers = {comment_marker(name) for name in ("triage", "triage-2", "a--", "x --> <b>", "x --> <i>", "")}
    assert len(markers) == 6
    for marker in markers:
        assert re.fullmatch(r"<!-- llmops-verdict: [A-Za-z0-9_.-]+ -->", marker)


@pytest.mark.parametrize("name", ["n", "🚚&|", "配<"])
def test_a_comment_is_never_longer_than_may_be(name: str) -> None:
    gate = failing().candidates[0].gates[1].model_copy(update={"gate": name * 1_000, "reason": name * 1_000})
    many = [candidate(Outcome.FAIL, *[gate] * 40) for _ in range(30)]
    made = failing(candidates=tuple(many), reason=name * 9_000, quarantined=(name * 3_000,) * 9)
    for shown, limit in ((verdict_comment(made, None), COMMENT_LIMIT), (verdict_note(made), NOTE_LIMIT)):
        assert size(shown) <= limit
        assert "The rest did not fit: [case by case in MLflow](<https://ci.example/" in shown[-200:]
    assert len(verdict_comment(made, None).encode("utf-16-le")) // 2 > COMMENT_LIMIT / 4


def test_a_table_too_long_keeps_what_fails() -> None:
    fine, worse, _ = failing().candidates[0].gates
    named = [fine.model_copy(update={"gate": f"gate {number} {'x' * 400}"}) for number in range(200)]
    shown = verdict_comment(failing(candidates=(candidate(Outcome.FAIL, *named, worse),)), None)
    assert "| exact\\_match not\\_worse\\_than baseline, margin 0.05 |" in shown
    assert "181 gates more" in shown
    assert size(shown) <= COMMENT_LIMIT


def test_cases_that_do_not_fit_are_left_out_whole() -> None:
    worse = failing().candidates[0].gates[1]
    flips = tuple(Flip(case_id=f"t-{number}", baseline=1.0, candidate=0.0) for number in range(12))
    judged = candidate(Outcome.FAIL, worse.model_copy(update={"regressed": flips, "improved": ()}))
    few = verdict_comment(failing(candidates=(judged,)), Rows("x" * 3_000, any_case=True))
    assert few.count("**Case ") == 10
    assert "2 more." in few
    assert "(2000 more characters)" in few.replace(",", "")
    many = verdict_comment(failing(candidates=(judged,) * 7), Rows("x" * 3_000, any_case=True))
    assert COMMENT_LIMIT * 0.9 < size(many) <= COMMENT_LIMIT
    assert many.count("<details>") == many.count("</details>")
    assert many.count("```text\n") * 2 == many.count("```")
    assert many.endswith(
        "\n\nThe rest did not fit: [case by case in MLflow](<https://ci.example/runs/7?a=1&b=2>)\n"
    )


def test_blocks_are_joined_in_the_longest_form_that_fits() -> None:
    blocks = [["a" * 50], ["b" * 60, "b" * 30], ["c" * 60], ["never"]]
    assert joined(blocks, "rest", 120) == f"{'a' * 50}\n\n{'b' * 30}\n\nrest\n"


@given(st.lists(st.lists(st.text("a🚚", max_size=30), min_size=1, max_size=3), max_size=6))
def test_what_is_joined_fits(blocks: list[list[str]]) -> None:
    assert size(joined(blocks, "rest", 60)) <= 60


@given(st.text(max_size=30))
def test_size_counts_as_the_strictest_service_does(text: str) -> None:
    whole = text.encode("utf-8", "replace").decode()
    assert size(whole) == len(whole.encode("utf-16-le")) // 2
