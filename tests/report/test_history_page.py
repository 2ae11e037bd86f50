"""The page of a history: each metric of each variant over its runs, told in words too, and the tables of the text."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.report.history import History, history_text
from llmops.report.history_page import HEIGHT, WIDTH, Scale, history_page
from tests.report.history_lines import HOSTILE, entry, history, reading

NOW = datetime(2026, 6, 1, 9, 30, tzinfo=UTC)
NEW = {"definition_identity": "f" * 12, "identity": "2" * 12}


def page_of(found: History) -> str:
    return history_page(found, now=NOW)


def drawings(found: History) -> list[ElementTree.Element]:
    found_ = re.findall(r"<svg.*?</svg>", page_of(found), re.DOTALL)
    return [ElementTree.fromstring(svg) for svg in found_]  # noqa: S314 - our own page


def title_of(drawing: ElementTree.Element) -> str:
    return drawing.findtext("title") or ""


def count(drawing: ElementTree.Element, tag: str, look: str) -> int:
    return sum(one.get("class") == look for one in drawing.iter(tag))


def test_a_page_holds_the_words_of_the_text() -> None:
    found = history(entry(0), entry(1, **NEW), entry(2, variant="few-shot", user="anna"))
    page = page_of(found)
    for word in set(re.findall(r"[\w.-]{3,}", history_text(found, width=120))) - {"the", "same", "all"}:
        assert word in page
    assert "Made by llmops, 2026-06-01 09:30 UTC" in page
    assert page.count("<h1>") == 1


def test_each_metric_of_each_variant_is_a_line_that_is_told_in_words() -> None:
    values = (0.5, 0.4, 0.75)
    lines = [
        entry(day, variant=name, readings=(reading(value), reading(3.0, evaluator="tone")))
        for day, value in enumerate(values)
        for name in ("plain", "few-shot")
    ]
    found = drawings(history(*lines))
    assert [title_of(one).partition(",")[0] for one in found] == [
        f"{metric} of {name}" for metric in ("exact_match", "tone") for name in ("few-shot", "plain")
    ]
    assert title_of(found[0]) == (
        "exact_match of few-shot, 3 runs: from 0.500 [0.40, 0.60] on 2026-05-04 12:00 to 0.750 [0.65, 0.85] on "
        "2026-05-06 12:00, lowest 0.400, highest 0.750"
    )
    for one in found:
        assert (count(one, "circle", "dot"), count(one, "path", "whisker"), count(one, "path", "bars")) == (
            3,
            1,
            1,
        )
        assert one.get("role") == "img"


@pytest.mark.parametrize(
    ("change", "n_joined", "n_marks"),
    [
        ({}, 1, 0),
        (NEW, 1, 1),
        ({"models": {"other": "9" * 12}}, 1, 0),
        ({"dataset_version": "9" * 12}, 0, 0),
        ({"readings": (reading(0.6, identity="9" * 12),)}, 0, 0),
    ],
)
def test_dots_are_joined_only_where_they_were_measured_alike(
    change: dict[str, Any], n_joined: int, n_marks: int
) -> None:
    (found,) = drawings(history(entry(0), entry(1, **change)))
    assert count(found, "path", "whisker") == n_joined
    assert count(found, "line", "whisker") == (0 if n_joined else 2)
    assert count(found, "line", "base") == n_marks


def test_another_evaluator_that_changed_does_not_part_the_dots_of_this_one() -> None:
    tones = [reading(3.0, evaluator="tone", identity=digit * 12) for digit in "12"]
    first, second = (entry(day, readings=(reading(0.5), tone)) for day, tone in enumerate(tones))
    exact, tone = drawings(history(first, second))
    assert (count(exact, "path", "whisker"), count(tone, "path", "whisker")) == (1, 0)


def test_runs_of_all_variants_stand_at_the_same_places() -> None:
    late = history(entry(0), entry(1), entry(2), entry(2, variant="few-shot"))
    few, plain = drawings(late)
    places = [[dot.get("cx") for dot in one.iter("circle")] for one in (few, plain)]
    assert places[0] == places[1][-1:]


@given(st.lists(st.floats(-1e6, 1e6) | st.none(), min_size=1, max_size=6))
def test_everything_drawn_lies_within_the_drawing(values: list[float | None]) -> None:
    lines = [entry(day, readings=(reading(value),)) for day, value in enumerate(values)]
    for one in drawings(history(*lines)):
        for dot in one.iter("circle"):
            assert 0 <= float(dot.get("cx", "-1")) <= WIDTH
            assert 0 <= float(dot.get("cy", "-1")) <= HEIGHT


def test_a_higher_value_stands_higher_and_a_run_alone_in_the_middle() -> None:
    scale = Scale(3, 0.0, 1.0)
    assert scale.y(1.0) < scale.y(0.5) < scale.y(0.0)
    assert scale.x(0) < scale.x(1) < scale.x(2)
    assert Scale(1, 0.0, 1.0).x(0) == scale.x(1)


def test_a_value_nobody_knows_is_not_drawn() -> None:
    assert drawings(history(entry(0, readings=(reading(None),)))) == []
    (found,) = drawings(history(entry(0), entry(1, readings=(reading(None),)), entry(2)))
    assert title_of(found).startswith("exact_match of plain, 2 runs")


def test_a_variant_of_several_experiments_says_of_which() -> None:
    found = drawings(history(entry(0), entry(1, experiment="rank", run_id="rank-1"), kind="prompt"))
    assert ["rank: plain" in title_of(found[0]), "sort: plain" in title_of(found[1])] == [True, True]


class Structure(HTMLParser):
    """The tags of a page with the names of their attributes, in their order; a drawing's places are left out."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, ...]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, *sorted(name for name, _ in attrs)))


def page_of_names(name: str) -> str:
    bad = entry(
        0, variant=name, user=name, status=name, dataset=name, readings=(reading(0.5, evaluator=name),)
    )
    return page_of(history(bad, entry(1)))


@given(st.text() | st.sampled_from([HOSTILE, "</style><script>", '"><svg onload=x>']))
def test_no_name_changes_what_a_page_is_made_of(name: str) -> None:
    page = page_of_names(f"x{name}")
    assert Structure(page).found == Structure(page_of_names("plain-name")).found
    assert not {"\x1b", "\x07", "\u202e"} & set(page)
    page.encode()  # half a character would not go into a file
