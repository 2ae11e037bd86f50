"""What is read back from MLflow for a history, from a real store: all that was delivered whole, and no guess."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from llmops.stores.entries import MLFLOW, Entry, entries_of
from llmops.stores.mlflow import history, open_mlflow
from tests.mirrored_run import PROMPT, Mirror

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:mlflow"),
    pytest.mark.filterwarnings("ignore::FutureWarning:mlflow"),
]


@pytest.fixture(autouse=True)
def user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    monkeypatch.setenv("LOGNAME", "anna")
    return "anna"


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    with closing(Mirror(tmp_path)) as made:
        yield made


def read(mirror: Mirror, kind: Any = "experiment", name: str = "triage") -> list[Entry]:
    with closing(open_mlflow(mirror.address, environment={})) as store:
        return store.entries(kind, name, lambda _: None)


def by_variant(entries: list[Entry]) -> dict[tuple[str, str], Entry]:
    return {(entry.run_id, entry.variant): entry for entry in entries}


def test_mlflow_tells_a_run_as_the_journal_does_and_by_whom(mirror: Mirror, user: str) -> None:
    run = mirror.whole_run(n_cases=3)
    (delivered,) = mirror.sync()
    told = by_variant(read(mirror))
    assert len(told) == 2
    for ours in entries_of(run):
        found = told[ours.run_id, ours.variant]
        assert (found.sources, found.user, found.numbers, found.revision) == (
            frozenset({MLFLOW}),
            user,
            {"triage": "1"},
            1,
        )
        assert (found.link or "").endswith(f"/runs/{delivered.ids['variants'][ours.variant]}")
        about: dict[str, Any] = {
            "user": None,
            "numbers": {},
            "revision": 0,
            "link": None,
            "sources": ours.sources,
        }
        assert dataclasses.replace(found, **about) == ours


def test_a_run_that_was_delivered_again_is_told_as_it_stands_and_once(mirror: Mirror) -> None:
    mirror.whole_run(n_cases=2, hostile=False)
    mirror.sync()
    mirror.mirrored_run(n_cases=2, hostile=False).save()
    mirror.sync()
    assert [entry.revision for entry in read(mirror)] == [2, 2]


def test_pages_of_any_size_give_every_run(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    for fresh in range(3):
        mirror.whole_run(n_cases=1, hostile=False, fresh=fresh)
    mirror.sync()
    whole = by_variant(read(mirror))
    monkeypatch.setattr(history, "AT_ONCE", 2)
    assert by_variant(read(mirror)) == whole
    assert len(whole) == 6


def test_a_prompt_is_found_in_every_experiment_and_no_other_of_a_like_name(mirror: Mirror) -> None:
    mirror.whole_run(n_cases=1, hostile=False)
    mirror.edit_prompt(PROMPT.replace("of the team", "of one team"))
    mirror.whole_run(n_cases=1, hostile=False, fresh=1)
    mirror.sync()
    found = read(mirror, "prompt")
    assert {entry.definition_identity for entry in found} == {
        entry.prompts["triage"] for entry in read(mirror)
    }
    assert len({entry.definition_identity for entry in found}) == 2
    for kind, name in (
        ("prompt", "tr_age"),
        ("prompt", "riage"),
        ("chain", "triage"),
        ("experiment", "tr_age"),
    ):
        assert read(mirror, kind, name) == []


def test_a_chain_is_found_by_its_name(mirror: Mirror) -> None:
    mirror.whole_run(n_cases=1, hostile=False)
    (delivered,) = mirror.sync()
    mirror.client.set_tag(delivered.ids["variants"]["few-shot"], "llmops.definition", "chains/rank")
    assert [entry.variant for entry in read(mirror, "chain", "rank")] == ["few-shot"]


def test_what_was_deleted_in_mlflow_is_gone(mirror: Mirror) -> None:
    mirror.whole_run(n_cases=1, hostile=False)
    (delivered,) = mirror.sync()
    mirror.client.delete_run(delivered.ids["variants"]["few-shot"])
    assert [entry.variant for entry in read(mirror)] == ["zero-shot"]
    mirror.client.delete_experiment(delivered.ids["experiment_id"])
    assert read(mirror) == read(mirror, "prompt") == []


class Killed(BaseException):
    """What no code catches."""


def test_of_a_delivery_that_was_killed_only_what_is_whole_is_told(mirror: Mirror) -> None:
    mirror.whole_run(n_cases=2, hostile=False)

    def kill(stage: str) -> None:
        if stage == "few-shot: figures":
            raise Killed

    with pytest.raises(Killed):
        mirror.sync(progress=kill)
    (found,) = read(mirror)
    assert (found.variant, found.definition) == ("zero-shot", "prompts/triage")
    assert found.readings == ()  # the run itself, which names its evaluators, has not arrived


def test_runs_of_others_and_tags_that_somebody_changed_do_no_harm(mirror: Mirror) -> None:
    mirror.whole_run(n_cases=1, hostile=False)
    (delivered,) = mirror.sync()
    experiment_id, variants = delivered.ids["experiment_id"], delivered.ids["variants"]
    mirror.client.create_run(experiment_id, run_name="by hand")
    mirror.client.create_run(experiment_id, tags={"llmops.variant": "half", "llmops.run_id": "x"})
    mirror.client.set_tag(variants["zero-shot"], "mlflow.parentRunId", "x') OR attributes.run_id != ('")
    mirror.client.set_tag(variants["few-shot"], "mlflow.linkedPrompts", '{"name": 1')
    (found,) = read(mirror)
    assert (found.variant, found.numbers) == ("few-shot", {})


def test_one_who_has_no_name_on_this_machine_delivers_all_the_same(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(_: int) -> None:
        raise KeyError("getpwuid(): uid not found")

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    mirror.whole_run(n_cases=1, hostile=False)
    assert [found.error for found in mirror.sync()] == [None]
    assert {entry.user for entry in read(mirror)} == {None}
