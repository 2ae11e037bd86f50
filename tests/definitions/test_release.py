"""Releases: which version an alias points at, what is no release, and that nothing is changed unseen."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.definitions.base import identity_of
from llmops.definitions.release import (
    AuditedRelease,
    Release,
    current,
    in_force,
    not_rolled_back,
    read_releases,
    with_release,
)
from llmops.errors import DefinitionError, Finding

FIRST, SECOND = "a" * 64, "b" * 64


def line(**fields: Any) -> bytes:
    move = {"kind": "prompt", "name": "support", "alias": "production", "identity": FIRST, **fields}
    return json.dumps(move).encode() + b"\n"


def test_the_last_line_wins() -> None:
    moves = read_releases(line() + line(identity=SECOND) + line(alias="staging"))
    found = current(moves, "prompt", "support", "production")
    assert found is not None
    assert found.identity == SECOND
    assert len(moves) == 3


@pytest.mark.parametrize(
    "asked", [("chain", "support", "production"), ("prompt", "x", "production"), ("prompt", "support", "x")]
)
def test_an_alias_belongs_to_one_kind_and_name(asked: tuple[str, str, str]) -> None:
    assert current(read_releases(line()), *asked) is None


def test_a_release_has_the_model_and_parameters_it_was_judged_with_and_evidence_is_passed_over() -> None:
    (release,) = read_releases(
        line(model="nemo", parameters={"temperature": 0}, evidence={"run": "r"}, approved_by="x")
    )
    assert isinstance(release, Release)
    assert (release.model, release.parameters) == ("nemo", {"temperature": 0})


def test_no_lines_are_no_releases() -> None:
    assert read_releases(b"") == []


def test_every_line_that_is_no_release_is_told_in_order() -> None:
    data = line(identity="abc") + b"{\n" + line(kind="dataset", name="a b") + line()
    with pytest.raises(DefinitionError) as caught:
        read_releases(data)
    found = [(finding.line, finding.message) for finding in caught.value.findings]
    assert [place for place, _ in found] == [1, 2, 3, 3]
    assert found[0][1].startswith("not a release: identity: does not have the form")
    assert "should be 'prompt' or 'chain'" in found[2][1]


# --- the chain of hashes ----------------------------------------------------------------------------------------


def fields(**changes: Any) -> dict[str, Any]:
    """Return what a line says beside its place in the chain."""
    evidence = {
        "verdict": "v",
        "outcome": "pass",
        "judged_at": "2026-05-04T12:00:00+00:00",
        "run": "sort-1",
        "experiment": "sort",
        "variant": "plain",
        "candidate": SECOND,
        "dataset": "tickets/test",
        "dataset_version": SECOND,
        "evaluators": {"exact_match": SECOND},
        "policy": {},
    }
    values = {
        "kind": "prompt",
        "name": "support",
        "alias": "production",
        "identity": FIRST,
        "action": "promote",
        "stage": "everyone",
        "reason": "größer: \u2028 \U0001f600",
        "author": "Ann <ann@example.invalid>",
        "approver": "Bob",
        "commit": "c",
        "created_at": "2026-05-04T12:00:00+00:00",
        "parameters": {"temperature": 0.7, "max_tokens": 8},
        "evidence": evidence,
    }
    return values | changes


def three_lines(start: bytes = b"") -> bytes:
    data, _ = with_release(start, fields())
    data, _ = with_release(data, fields(identity=SECOND))
    data, _ = with_release(data, fields(action="rollback", evidence=None))
    return data


def finding(data: bytes) -> Finding:
    with pytest.raises(DefinitionError) as caught:
        read_releases(data)
    return caught.value.findings[0]


def test_each_line_holds_the_hash_of_the_one_before_and_its_own() -> None:
    found = read_releases(three_lines())
    assert all(isinstance(each, AuditedRelease) for each in found)
    hashes = [each.hash for each in found if isinstance(each, AuditedRelease)]
    previous = [each.previous for each in found if isinstance(each, AuditedRelease)]
    assert previous == [sha256(b"").hexdigest(), *hashes[:2]]
    value = json.loads(three_lines().splitlines()[1])
    del value["hash"]
    assert identity_of(value) == hashes[1]


def test_every_byte_that_is_changed_removed_or_added_anywhere_is_found_with_its_line() -> None:
    data = three_lines()
    for place, byte in enumerate(data):
        line = data[:place].count(b"\n") + 1
        rest = data[place + 1 :]
        # A bit flipped, a blank, a line end, the byte gone, a blank before it.
        for change in (bytes([byte ^ 1]), b" ", b"\n", b"", b" " + bytes([byte])):
            tampered = data[:place] + change + rest
            if tampered != data:
                assert finding(tampered).line in (line, line + 1), (place, change)


@given(place=st.integers(0, 10_000), byte=st.binary(min_size=0, max_size=1), width=st.integers(0, 1))
def test_no_single_byte_of_any_value_can_stand_elsewhere(place: int, byte: bytes, width: int) -> None:
    data = three_lines()
    place %= len(data) + 1
    tampered = data[:place] + byte + data[place + width :]
    if tampered == data:
        assert len(read_releases(data)) == 3
    else:
        assert finding(tampered).line is not None


@pytest.mark.parametrize(
    ("order", "line"), [((1, 0, 2), 1), ((0, 2), 2), ((0, 0, 1, 2), 2), ((1, 2), 1), ((2, 1, 0), 1)]
)
def test_whole_lines_that_are_moved_removed_or_doubled_are_found(order: tuple[int, ...], line: int) -> None:
    lines = three_lines().splitlines(keepends=True)
    assert finding(b"".join(lines[place] for place in order)).line == line


def test_a_line_written_by_hand_after_the_first_of_promote_is_no_release() -> None:
    found = finding(three_lines() + line())
    assert found.line == 4
    assert "not written by `llmops promote`" in found.message


def test_lines_from_before_stay_readable_and_are_fixed_by_the_first_of_the_chain() -> None:
    before = b"\n" + line() + line(alias="staging", approved_by="x")
    data = three_lines(before.removesuffix(b"\n"))
    assert [type(each) for each in read_releases(data)] == [Release] * 2 + [AuditedRelease] * 3
    assert data.startswith(before)
    found = finding(data.replace(b'"x"', b'"y"', 1))
    assert found.line == 4
    assert "what stands before" in found.message


def test_a_line_must_read_before_it_is_written() -> None:
    for wrong in (
        {"stage": "everybody"},
        {"reason": ""},
        {"reason": "\ud800"},
        {"evidence": {"verdict": "v"}},
    ):
        with pytest.raises(DefinitionError):
            with_release(three_lines(), fields(**wrong))


def test_what_was_rolled_back_no_longer_stands() -> None:
    def standing(*moves: str) -> list[str]:
        data = b""
        for move in moves:
            change = {"action": "rollback"} if move == "back" else {"reason": move}
            data, _ = with_release(data, fields(**change))
        found = not_rolled_back(read_releases(data), "prompt", "support", "production")
        return [each.reason for each in found if isinstance(each, AuditedRelease)]

    assert standing("a", "b", "c") == ["a", "b", "c"]
    assert standing("a", "b", "c", "back") == ["a", "b"]
    assert standing("a", "b", "back", "c", "back", "back") == []
    assert standing("a", "b", "back", "c") == ["a", "c"]


def test_what_is_in_force_is_the_last_line_of_each_alias() -> None:
    found = in_force(read_releases(line() + line(alias="staging") + line(identity=SECOND)))
    assert [(each.alias, each.identity) for each in found] == [("production", SECOND), ("staging", FIRST)]


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ({"alias": "staging"}, True),
        ({"model": "x"}, False),
        ({"parameters": {"seed": 1}}, False),
        ({"identity": SECOND}, False),
    ],
)
def test_two_releases_are_the_same_when_they_mean_the_same_outputs(other: dict[str, Any], same: bool) -> None:
    one, another = read_releases(line() + line(**other))
    assert one.is_same(another) is same
    assert not one.is_same(None)
