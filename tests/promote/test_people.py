"""Who changed what is asked of git, and who may be one person counts as one."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmops.definitions.workspace import load_workspace
from llmops.errors import EvidenceError, UsageError
from llmops.promote.people import (
    find_approver,
    find_authors,
    is_same_person,
    refuse_own_approval,
    source_paths,
)
from llmops.records import ModelVersion, Variant
from tests.promoted import CHAIN, Scene

PROMPT = "prompts/sort.prompt.yaml"


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Ann Lee <ann@work.invalid>", "ANN LEE <other@home.invalid>", True),
        ("Ann Lee <ann@work.invalid>", "Somebody <ann@work.invalid>", True),
        ("Ann Lee <ann@work.invalid>", "ann@home.invalid", True),
        ("Ann Lee <ann@work.invalid>", "@ann", True),
        ("A <7130+ann@users.noreply.github.com>", "ann", True),
        ("A <ann+llmops@work.invalid>", "ann", True),
        ("Ann Lee <ann@work.invalid>", "Bob <bob@work.invalid>", False),
        ("Ann Lee <ann@work.invalid>", "annette", False),
        ("Ann Lee <ann@work.invalid>", " <@>", False),
    ],
)
def test_names_and_addresses_tell_people_apart(one: str, other: str, same: bool) -> None:
    assert is_same_person(one, other) is same
    assert is_same_person(other, one) is same


def test_authors_are_those_who_changed_the_files_since(scene: Scene) -> None:
    first = scene.git("rev-parse", "HEAD")
    for who, text in (("Bob", "a word"), ("Cleo", "one small word")):
        scene.edit("one word" if who == "Bob" else "a word", text)
        scene.commit(who=who)
    scene.write("README.md", "unrelated")
    scene.commit(who="Dan")
    bob, cleo = "Bob <bob@example.invalid>", "Cleo <cleo@example.invalid>"
    assert find_authors(scene.root, [PROMPT], first) == [cleo, bob]
    assert find_authors(scene.root, [PROMPT], None) == [cleo]
    assert find_authors(scene.root, [PROMPT], scene.git("rev-parse", "HEAD")) == [cleo]
    everybody = [cleo, bob, "Ann Author <ann@example.invalid>"]
    assert find_authors(scene.root, [PROMPT], "0" * 40) == everybody  # gone after a rebase


def test_the_cases_that_a_prompt_shows_and_the_code_beside_a_chain_have_authors_too(scene: Scene) -> None:
    examples = '  - {examples: {from: tickets, k: 1}, user: "{{ ticket }}", assistant: "{{ expected }}"}\n'
    scene.edit("messages:\n", f"messages:\n{examples}")
    scene.write("chains/label.chain.yaml", CHAIN)
    resolved = load_workspace(scene.root).resolve("chain", "label")
    variant = Variant(
        name="v",
        definition="chains/label",
        reference="label",
        definition_identity="a" * 64,
        identity="b" * 64,
        models=(ModelVersion(name="m", provider="p", model="m", identity="c" * 64),),
        prompts={"sort": "d" * 64},
    )
    found = source_paths(resolved, variant)
    assert {PROMPT, "chains", "datasets/tickets.jsonl", "datasets/tickets.dataset.yaml"} <= set(found)


def test_a_history_that_is_cut_short_cannot_say_who_changed_what(
    scene: Scene, tmp_path_factory: pytest.TempPathFactory
) -> None:
    scene.edit("one word", "a word")
    scene.commit(who="Bob")
    shallow = tmp_path_factory.mktemp("shallow") / "clone"
    scene.git("clone", "-q", "--depth", "1", f"file://{scene.root}", str(shallow))
    with pytest.raises(UsageError, match="fetch-depth: 0"):
        refuse_own_approval(shallow, ["Bob"], "Ann")
    refuse_own_approval(scene.root, ["Bob"], "Ann")
    with pytest.raises(EvidenceError, match="Bob cannot approve: Bob changed it"):
        refuse_own_approval(scene.root, ["Cleo", "Bob"], "Bob")


def test_who_approves_is_named_or_known_to_git(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_approver(scene.root, " Bob ") == "Bob"
    monkeypatch.setenv("GIT_COMMITTER_NAME", "Cleo van Dyk")
    monkeypatch.setenv("GIT_COMMITTER_EMAIL", "cleo@example.invalid")
    assert find_approver(scene.root, None) == "Cleo van Dyk <cleo@example.invalid>"
    monkeypatch.setenv("GIT_COMMITTER_NAME", "")
    monkeypatch.setenv("GIT_COMMITTER_EMAIL", "")
    with pytest.raises(UsageError, match="who approves"):
        find_approver(scene.root, "  ")
