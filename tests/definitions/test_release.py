"""Releases: which version an alias points at, and what is no release."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmops.definitions.release import Release, current, read_releases
from llmops.errors import DefinitionError

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
