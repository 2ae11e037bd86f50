"""A history: every variant of every run once, the newest first, and what changed from one to the next."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.definitions.release import read_releases, with_release
from llmops.report.history import (
    INTERVAL,
    changes,
    history_record,
    history_text,
    merge,
    tell_history,
)
from llmops.score.summary import LEVEL
from llmops.stores.entries import JOURNAL, MLFLOW, Entry
from tests.report.history_lines import BEGAN, HOSTILE, entry, history, reading, told

ENTRIES = st.builds(
    lambda day, variant, sources, revision, user, status: entry(
        day, variant=variant, sources=frozenset({sources}), revision=revision, user=user, status=status
    ),
    st.integers(0, 3),
    st.sampled_from(["plain", "other", "half \ud800"]),
    st.sampled_from([JOURNAL, MLFLOW]),
    st.integers(0, 2),
    st.sampled_from([None, "anna", "ben"]),
    st.sampled_from(["complete", "partial"]),
)
SOURCES = st.lists(st.lists(ENTRIES, max_size=8), max_size=4)


# --- one list of several ----------------------------------------------------------------------------------


@given(SOURCES, st.randoms())
def test_the_order_of_the_sources_and_of_their_lines_does_not_matter(
    sources: list[list[Entry]], random: object
) -> None:
    shuffled = [list(source) for source in sources]
    for source in shuffled:
        random.shuffle(source)  # type: ignore[attr-defined]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert merge(*shuffled) == merge(*sources)


@given(SOURCES)
def test_no_line_is_told_twice_and_none_is_lost(sources: list[list[Entry]]) -> None:
    given_ = [(one.run_id, one.variant) for source in sources for one in source]
    merged = [(one.run_id, one.variant) for one in merge(*sources)]
    assert len(merged) == len(set(merged))
    assert set(merged) == set(given_)


@given(SOURCES)
def test_lines_stand_newest_first_and_merging_again_changes_nothing(sources: list[list[Entry]]) -> None:
    merged = merge(*sources)
    assert [one.began_at for one in merged] == sorted((one.began_at for one in merged), reverse=True)
    assert merge(merged) == merged


def test_a_run_in_both_is_the_journals_with_what_only_mlflow_knows() -> None:
    ours = entry(status="complete", began_at=BEGAN + timedelta(microseconds=1234))
    theirs = told(ours, status="partial", began_at=BEGAN + timedelta(milliseconds=1))
    for sources in ([ours], [theirs]), ([theirs], [ours]):
        (found,) = merge(*sources)
        assert found.sources == {JOURNAL, MLFLOW}
        assert (found.status, found.began_at) == (ours.status, ours.began_at)
        assert (found.user, found.numbers, found.link) == ("anna", {"sort": "7"}, "http://mlflow/1")


def test_of_two_deliveries_of_a_run_the_later_revision_holds() -> None:
    earlier, later = told(entry(), status="partial"), told(entry(), revision=2)
    assert [one.status for one in merge([later, earlier])] == ["complete"]


def test_a_name_that_mlflow_had_to_write_otherwise_is_the_same_variant() -> None:
    ours = entry(variant="half \ud800 a pair\0")
    (found,) = merge([ours], [told(ours, variant="half \\ud800 a pair\\u0000")])
    assert (found.variant, found.user) == (ours.variant, "anna")


# --- what changed -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, ()),
        ({"definition_identity": "f" * 12, "identity": "2" * 12}, ("prompt",)),
        ({"definition": "chains/sort", "identity": "2" * 12}, ("chain",)),
        ({"definition": "outputs/theirs.jsonl", "identity": "2" * 12}, ("outputs",)),
        ({"models": {"default": "f" * 12}, "identity": "2" * 12}, ("model",)),
        ({"models": {"other": "b" * 12}, "identity": "2" * 12}, ("model",)),
        ({"models": {"default": None}}, ()),
        ({"identity": "2" * 12}, ("parameters",)),
        ({"dataset_version": "f" * 12}, ("dataset",)),
        ({"dataset": "tickets/train"}, ("dataset",)),
        ({"readings": (reading(0.5, identity="f" * 12),)}, ("evaluators",)),
        ({"readings": ()}, ()),
        ({"commit": "f" * 40, "dirty": True, "status": "partial", "cost_usd": None}, ()),
        (
            {"definition_identity": "f" * 12, "identity": "2" * 12, "dataset": "other"},
            ("prompt", "dataset"),
        ),
    ],
)
def test_what_changed_is_told_and_what_is_unknown_is_not(
    change: dict[str, object], says: tuple[str, ...]
) -> None:
    assert changes(entry(), dataclasses.replace(entry(1), **change)) == says  # type: ignore[arg-type]


def test_a_line_is_compared_with_the_one_of_its_own_variant_and_experiment_before() -> None:
    new = {"definition_identity": "f" * 12, "identity": "2" * 12}
    found = history(
        entry(0),
        entry(1, variant="other", **new),
        entry(2, **new),
        entry(3, **new),
    )
    told_of = {(line.entry.began_at.day, line.entry.variant): line.changed for line in found.lines}
    assert told_of == {
        (4, "plain"): ("first",),
        (5, "other"): ("first",),
        (6, "plain"): ("prompt",),
        (7, "plain"): (),
    }
    elsewhere = entry(1, experiment="rank", run_id="rank-1", **new)
    both = history(entry(0), elsewhere, kind="prompt")
    assert [line.changed for line in both.lines] == [("first",), ("first",)]


def test_a_limit_leaves_out_the_oldest_and_still_says_what_changed() -> None:
    found = history(*(entry(day) for day in range(5)), limit=2)
    assert [line.entry.run_id for line in found.lines] == ["sort-00000004", "sort-00000003"]
    assert (found.n_older, [line.changed for line in found.lines]) == (3, [(), ()])
    assert "3 older lines left out: --limit 5 shows them" in history_text(found)


# --- the text ---------------------------------------------------------------------------------------------


def story() -> list[Entry]:
    new = {"definition_identity": "f" * 12, "prompts": {"sort": "f" * 12}, "identity": "2" * 12}
    readings = (reading(0.7), reading(3.25, evaluator="tone"))
    return [
        told(entry(0), user="anna"),
        *merge([entry(1)], [told(entry(1), user="ben")]),
        entry(2, **new, readings=readings, dirty=True),
        entry(2, **new, variant="few-shot", place=1, readings=readings, cost_usd=None, dirty=True),
        told(entry(3), **new, models={"default": "9" * 12}, dataset_version="8" * 12, numbers={"sort": "8"}),
    ]


def test_the_text_of_a_history(golden: Callable[[str, str], None]) -> None:
    golden("history.txt", history_text(history(*story())) + "\n")


def test_a_text_keeps_to_its_width_and_shows_as_many_metrics_as_fit() -> None:
    for width, n_metrics in ((80, 1), (120, 2)):
        text = history_text(history(*story()), width=width)
        assert max(map(len, text.splitlines())) <= width
        assert text.count(INTERVAL) == n_metrics
    assert "also measured: tone" in history_text(history(*story()), width=80)


def test_a_figure_never_stands_without_its_n_and_its_interval() -> None:
    text = history_text(history(entry(0), entry(1, readings=(reading(None),))))
    assert "0.500  [0.25, 0.75]  6" in text
    assert "unknown" in text
    assert f"{LEVEL:.0%} interval" == INTERVAL


def test_what_is_the_same_in_all_lines_is_said_once() -> None:
    text = history_text(history(entry(0), entry(1)))
    assert text.count("tickets/test") == text.count("a" * 12) == 1
    assert "On what, and by whom" not in text


def test_a_history_without_any_evaluator_is_shown_all_the_same() -> None:
    text = history_text(history(entry(0, readings=()), entry(1, readings=())))
    assert "sort-00000001" in text
    assert INTERVAL not in text


def test_the_history_of_a_prompt_tells_its_version_wherever_it_was_used() -> None:
    chain = entry(
        1, definition="chains/rank", prompts={"sort": "f" * 12, "x": "9" * 12}, numbers={"sort": "3"}
    )
    text = history_text(history(entry(0), chain, kind="prompt"))
    assert "chains/rank" in text
    assert f"{'f' * 12} v3" in text
    assert text.splitlines()[-1].endswith("a" * 12)
    assert len(history(entry(0), chain, kind="chain", name="rank").lines) == 1


@pytest.mark.parametrize("ascii_only", [False, True])
def test_hostile_names_are_inert_in_the_table(ascii_only: bool) -> None:
    bad = entry(
        0,
        variant=HOSTILE,
        status=HOSTILE,
        user=HOSTILE,
        dataset=HOSTILE,
        commit=HOSTILE,
        models={HOSTILE: "b" * 12},
        numbers={"sort": HOSTILE},
        readings=(reading(0.5, evaluator=HOSTILE),),
    )
    text = history_text(history(bad, entry(1)), ascii_only=ascii_only)
    assert not {"\x1b", "\x07", "\t", "\u202e", "\r"} & set(text)
    assert "::error" not in [line.strip()[:7] for line in text.splitlines()]
    assert text.isascii() or not ascii_only


def test_releases_are_told_with_who_when_and_why() -> None:
    data, _ = with_release(b"", release())
    data, _ = with_release(data, release(action="rollback", reason=HOSTILE, evidence=None, stage="staff"))
    data, _ = with_release(data, release(name="other"))
    found = read_releases(data)
    told = tell_history("prompt", "sort", merge([entry()]), found, limit=50)
    assert told.releases == (found[1], found[0])
    text = history_text(told, width=200)
    newest, oldest = text.partition("What was released")[2].splitlines()[2:4]
    assert oldest.split()[:7] == ["2026-05-04", "12:00", "production", "sort", "a" * 12, "everyone", "Bob"]
    assert "short answers" in oldest
    assert "rollback: a" in newest and "\x1b" not in text
    assert json.loads(json.dumps(history_record(told)))["releases"][1]["evidence"]["run"] == "sort-1"
    assert tell_history("experiment", "sort", merge([entry()]), found, limit=50).releases == (
        found[2],
        found[0],
    )
    assert "What was released" not in history_text(history(entry()))


def release(**changes: Any) -> dict[str, Any]:
    evidence = {
        "verdict": "v",
        "outcome": "pass",
        "judged_at": BEGAN.isoformat(),
        "run": "sort-1",
        "policy": {},
    }
    evidence |= {"experiment": "sort", "variant": "plain", "candidate": "b" * 64, "dataset": "tickets/test"}
    evidence |= {"dataset_version": "c" * 64, "evaluators": {}}
    about = {"kind": "prompt", "name": "sort", "alias": "production", "identity": "a" * 64, "commit": "d"}
    said = {
        "action": "promote",
        "stage": "everyone",
        "reason": "short answers",
        "author": "Ann",
        "approver": "Bob",
    }
    return {**about, **said, "created_at": BEGAN.isoformat(), "evidence": evidence, **changes}


def test_the_record_is_plain_json_with_every_line() -> None:
    record = json.loads(json.dumps(history_record(history(*story(), limit=3))))
    assert (record["kind"], record["name"], record["n_older"]) == ("experiment", "sort", 2)
    newest, *_ = record["lines"]
    assert newest["sources"] == ["MLflow"]
    assert newest["began_at"] == "2026-05-07T12:00:00+00:00"
    assert newest["changed"] == ["model", "dataset", "evaluators"]
    assert newest["readings"][0]["evaluator"] == "exact_match"
