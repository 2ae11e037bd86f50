"""The JSON Schemas for editors: made from the models, and right about files that are right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from llmops.definitions.editors import editor_schema
from llmops.definitions.yaml_reader import read_yaml

ROOT = Path(__file__).parent.parent.parent
KINDS = ("project", "prompt", "chain", "index", "dataset", "experiment")
STARTER = ROOT / "llmops/cli/starter"


def files_of(kind: str) -> list[Path]:
    found = [path for top in (ROOT, STARTER) for path in top.glob(f"*/*.{kind}.yaml")]
    return found if kind != "project" else [ROOT / "llmops.yaml", STARTER / "llmops.yaml"]


def validator_of(kind: str) -> Draft202012Validator:
    schema = json.loads(editor_schema(kind))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.mark.parametrize("kind", KINDS)
def test_the_files_in_the_package_are_what_the_models_say(kind: str, request: pytest.FixtureRequest) -> None:
    path = ROOT / "llmops/schemas" / f"{kind}.schema.json"
    if request.config.getoption("--update-golden"):
        path.write_text(editor_schema(kind), encoding="utf-8")
    assert path.read_text(encoding="utf-8") == editor_schema(kind), "--update-golden rewrites it"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "index"])
def test_the_files_of_the_example_and_of_a_new_project_are_right(kind: str) -> None:
    files = files_of(kind)
    assert files
    for path in files:
        value = read_yaml(path.read_bytes(), path.name).value
        assert [error.message for error in validator_of(kind).iter_errors(value)] == []


WRONG: list[tuple[str, Any]] = [
    ("project", {"modles": {}}),
    ("project", {"models": {"m": {"provider": "x", "limits": {"rpm": 0}}}}),
    ("prompt", {"messages": []}),
    ("prompt", {"messages": [{"role": "tool", "content": "a"}]}),
    ("prompt", {"messages": [{"role": "user", "content": "a"}], "parameters": {"temperature": 3}}),
    ("chain", {"steps": [{"prompt": "x"}]}),
    ("chain", {"steps": [{"id": "a", "prompt": "x", "arguments": {}}], "extra": 1}),
    ("chain", {"steps": [{"id": "a", "retrieve": {"index": "docs"}}]}),
    ("index", {"sources": []}),
    ("index", {"sources": [{"files": "*.md"}], "embedder": "tf-idf"}),
    ("index", {"sources": [{"files": "*.md"}], "chunker": {"by": "page"}}),
    ("dataset", {"kind": "few-shot"}),
    ("experiment", {"dataset": "d"}),
    ("experiment", {"dataset": "d", "variants": {"a": {"prompt": "p"}}, "evaluators": [5]}),
    ("experiment", {"dataset": "d", "variants": {"a": {"prompt": "p"}}, "evaluators": [{"a": {}, "b": {}}]}),
]


@pytest.mark.parametrize(("kind", "value"), WRONG, ids=str)
def test_a_slip_shows_in_the_editor(kind: str, value: Any) -> None:
    assert not validator_of(kind).is_valid(value)


@pytest.mark.parametrize(
    "value",
    [
        {"dataset": "d", "variants": {"a": {"prompt": "p", "x-why": 1}}, "x-note": "y"},
        {
            "dataset": "d",
            "variants": {"a": {"chain": "c"}},
            "evaluators": ["a", {"b": {"k": 1}}, {"python": "m:f"}],
        },
    ],
)
def test_notes_and_every_form_of_an_evaluator_are_right(value: Any) -> None:
    assert validator_of("experiment").is_valid(value)
