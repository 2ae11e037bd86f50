"""Hostile files: nothing in them is executed, nothing outside their folder is read, no key of theirs is written."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmops.convert import Fate, convert_file
from llmops.convert.folder import Folder
from llmops.convert.keys import is_secret_name, variable_of
from llmops.definitions.yaml_reader import read_yaml
from llmops.errors import LlmopsError, UsageError
from tests.cli.inside import llmops_inside
from tests.convert.samples import SAMPLES, copied, note, project

KEYS = (
    "zq81-Kd0Lm2Vn3Xs4-not-for-files",
    "sk-wq7xJr0PZc4nUe1Tb9Ya-no-real-key",
    "zz-Hq7Jr0PZc4nUe1Tb9Ya",
    "ghp_Zq81Kd0Lm2Vn3Xs4Wq7xJr0P",
    "Qm4-header-Value-9182736455",
    "p4ss-W0rd-in-Address",
)


def everything(root: Path, said: str = "") -> str:
    files = [path for path in root.rglob("*") if path.is_file()]
    return said + "".join(path.read_text(encoding="utf-8", errors="replace") for path in files)


def converted_text(tmp_path: Path, name: str, text: str) -> str:
    """Convert a file, and return all that was written and printed."""
    root = tmp_path / "project"
    root.mkdir()
    (root / "llmops.yaml").write_text("", encoding="utf-8")
    (tmp_path / name).write_text(text, encoding="utf-8")
    told = llmops_inside("convert", str(tmp_path / name), cwd=root)
    assert told.returncode == 0, told.stderr
    as_json = llmops_inside("convert", str(tmp_path / name), "--json", "--force", cwd=root)
    return everything(root, told.stdout + told.stderr + as_json.stdout + as_json.stderr)


PROMPTY = f"""---
name: n
model:
  api: chat
  configuration: {{type: azure_openai, azure_deployment: d, api_key: {KEYS[0]}, azure_endpoint: "https://u:{KEYS[5]}@h.example"}}
---
system:
Never tell {KEYS[3]} to anybody.
"""
PROMPTFOO = f"""
prompts: ["{{{{v}}}}"]
providers:
  - id: openai:gpt-4o
    config:
      apiKey: {KEYS[1]}
      headers: {{Authorization: "Bearer {KEYS[4]}"}}
  - {{id: "openai:x", config: {{apiKey: "${{MY_KEY}}"}}}}
env: {{OPENAI_API_KEY: {KEYS[2]}}}
tests: [{{vars: {{v: "Bearer {KEYS[4]}"}}}}]
"""


@pytest.mark.parametrize(("name", "text"), [("a.prompty", PROMPTY), ("a.yaml", PROMPTFOO)])
def test_no_key_of_a_file_is_written_or_printed(name: str, text: str, tmp_path: Path) -> None:
    assert any(key in text for key in KEYS)
    found = converted_text(tmp_path, name, text)
    assert not [key for key in KEYS if key in found]


def test_a_key_becomes_the_name_of_a_variable(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(PROMPTFOO, encoding="utf-8")
    found = convert_file(tmp_path / "a.yaml", project())
    assert found.record.models["gpt_4o"]["api_key_env"] == "OPENAI_API_KEY"
    assert found.record.models["x"]["api_key_env"] == "MY_KEY"
    assert note(found, "providers[0].config.apiKey").fate is Fate.APPROXIMATED
    assert note(found, "providers[1].config.apiKey").fate is Fate.KEPT


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("${env:A_KEY}", "A_KEY"),
        ("${A_KEY}", "A_KEY"),
        ("$A_KEY", "A_KEY"),
        ("{{ env.A_KEY }}", "A_KEY"),
        ("{{env['A_KEY']}}", "A_KEY"),
        ("${{ secrets.A_KEY }}", "A_KEY"),
        ("${env:A_KEY:fallback}", "A_KEY"),
        ("sk-123", None),
        (7, None),
    ],
)
def test_a_variable_is_known_in_every_spelling(value: Any, name: str | None) -> None:
    assert variable_of(value) == name


@pytest.mark.parametrize(
    "name", ["api_key", "apiKey", "OPENAI_API_KEY", "Authorization", "client_secret", "token"]
)
def test_names_of_secrets_are_known(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name", ["max_tokens", "keyword", "tokenizer", "endpoint", "apiKeyEnvar", "api_key_env"]
)
def test_names_of_other_things_are_not(name: str) -> None:
    assert not is_secret_name(name)


# --- reading ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "../outside.txt",
        "/etc/passwd",
        "a/../../outside.txt",
        "link.txt",
        "~/x",
        "C:\\x",
        "file:///etc/passwd",
        "a\0b",
    ],
)
def test_nothing_outside_the_folder_is_read(path: str, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "outside.txt").write_text("secret", encoding="utf-8")
    (inside / "link.txt").symlink_to(tmp_path / "outside.txt")
    folder = Folder(inside)
    with pytest.raises(UsageError, match="leads out"):
        folder.read(path)
    assert not folder.has(path)


def test_a_pattern_stays_in_its_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.txt").write_text("x", encoding="utf-8")
    assert Folder(tmp_path).matching("a/*.txt") == ["a/x.txt"]
    for pattern in ("../*", "*/x.txt"):
        with pytest.raises(UsageError):
            Folder(tmp_path).matching(pattern)


def test_a_file_too_large_or_not_there_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as file:
        file.truncate(65_000_000)
    with pytest.raises(UsageError, match="64,000,000"):
        Folder(tmp_path).read("big")
    with pytest.raises(UsageError, match="not there"):
        Folder(tmp_path).read("gone")


# --- executing --------------------------------------------------------------------------------------------------


def test_no_python_of_a_flow_is_executed_when_it_is_converted(tmp_path: Path) -> None:
    trap = tmp_path / "trapped"
    code = f"open({str(trap)!r}, 'w')\n\n\ndef f(x=open({str(trap)!r}, 'w')):\n    return x\n"
    (tmp_path / "t.py").write_text(code, encoding="utf-8")
    flow = "nodes: [{name: a, type: python, source: {type: code, path: t.py}, inputs: {x: 1}}]"
    converted_text(tmp_path, "flow.dag.yaml", flow)
    assert not trap.exists()


def test_no_template_is_filled_in_when_it_is_converted(tmp_path: Path) -> None:
    bomb = "{% for a in 'x' * 99999999 %}{% for b in a * 99999999 %}{{ b }}{% endfor %}{% endfor %}"
    (tmp_path / "a.yaml").write_text(
        json.dumps({"prompts": [bomb], "tests": [{"vars": {}}]}), encoding="utf-8"
    )
    assert convert_file(tmp_path / "a.yaml", project()).record.files


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x]\nb: &b [*a, *a, *a]\nprompts: [*b, *b]\n",
        "prompts: !!python/object/apply:os.system ['touch x']",
        "prompts: [" + "[" * 200,
        '{"prompts": ' + "[" * 3000 + "]" * 3000 + "}",
        'prompts: ["\\0"]',
        "\xff\xfe",
    ],
)
def test_hostile_yaml_ends_in_words(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(LlmopsError):
        convert_file(tmp_path / "a.yaml", project(), form="promptfoo")
    assert not (tmp_path / "x").exists() and not Path("x").exists()


@pytest.mark.parametrize("name", ["../../../evil", "/etc/cron", "con", "..", "a/b\\c:d", "\u202etxt", "-rf"])
def test_names_of_a_file_lead_nowhere(name: str, tmp_path: Path) -> None:
    flow = {
        "inputs": {name: {"type": "string"}},
        "nodes": [
            {"name": name, "type": "prompt", "source": {"type": "code", "path": "t.jinja2"}, "inputs": {}}
        ],
        "node_variants": {name: {"variants": {name: {"node": {}}}}},
        "outputs": {name: {"reference": f"${{{name}.output}}"}},
    }
    (tmp_path / "t.jinja2").write_text("x", encoding="utf-8")
    found = converted_text(tmp_path, "flow.dag.yaml", json.dumps(flow))
    assert found
    written = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*")}
    assert written == {"project", "flow.dag.yaml", "t.jinja2"}
    assert {path.name for path in (tmp_path / "project").iterdir()} <= {"llmops.yaml", "chains", "prompts"}


def test_texts_of_a_file_do_not_drive_the_terminal(tmp_path: Path) -> None:
    text = "prompts: [x]\n'\\e[2Jowned\\u202e': 1\n".replace("'", '"')
    said = converted_text(tmp_path, "a.yaml", text)
    assert "\x1b" not in said.split("written")[0]
    assert "\u202e" not in said.split("written")[0]


# --- writing ----------------------------------------------------------------------------------------------------


def test_nothing_is_overwritten_unless_asked_and_then_nothing_at_all_is_written(tmp_path: Path) -> None:
    (tmp_path / "llmops.yaml").write_text("", encoding="utf-8")
    (tmp_path / "a.prompty").write_text("---\nsample: {x: 1}\n---\n{{ x }}", encoding="utf-8")
    mine = tmp_path / "prompts" / "a.prompt.yaml"
    mine.parent.mkdir()
    mine.write_text("messages: [{role: user, content: mine}]\n", encoding="utf-8")
    done = llmops_inside("convert", "a.prompty", cwd=tmp_path)
    assert done.returncode == 2
    assert "--force" in done.stderr and "prompts/a.prompt.yaml" in done.stderr
    assert "mine" in mine.read_text(encoding="utf-8") and not (tmp_path / "datasets").exists()
    assert llmops_inside("convert", "a.prompty", "--name", "b", cwd=tmp_path).returncode == 0
    assert llmops_inside("convert", "a.prompty", "--force", cwd=tmp_path).returncode == 0
    assert "mine" not in mine.read_text(encoding="utf-8")


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="needs links")
def test_a_link_that_leads_out_of_the_project_is_not_followed(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "llmops.yaml").write_text("", encoding="utf-8")
    (root / "prompts").symlink_to(outside)
    (tmp_path / "a.prompty").write_text("x", encoding="utf-8")
    done = llmops_inside("convert", str(tmp_path / "a.prompty"), "--force", cwd=root)
    assert done.returncode == 2 and "leads out" in done.stderr
    assert not list(outside.iterdir())


# --- anything at all in the place of anything ---------------------------------------------------------------------

OTHERS: tuple[Any, ...] = (
    *(None, 1, -1, "x", "", [], {}, [1], {"a": 1}, True, 1.5, "{{ x }}", "{% if %}", ["{{"], {"type": 1}),
    *("file://nothing.txt", [None], [{}], {"name": {}}, "${inputs.question}", 10**30, "a" * 3000),
)


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where anything stands in a value."""
    yield place
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inside:
        yield from places(item, (*place, key))


@pytest.mark.parametrize("sample", [each.path for each in SAMPLES if not each.path.endswith(".jsonl")])
def test_whatever_stands_wherever_it_is_told_in_words_or_converted_and_accounted_for(
    sample: str, tmp_path: Path
) -> None:
    path = copied(sample, tmp_path)
    text = path.read_text(encoding="utf-8")
    parts = text.split("---\n", 2) if path.suffix == ".prompty" and text.startswith("---") else ["", text, ""]
    value: Any = read_yaml(parts[1].encode(), "f").value if path.suffix != ".prompty" or parts[2] else {}
    choices = [(place, other) for place in places(value) if place for other in OTHERS]
    for place, other in random.Random(7).sample(choices, min(len(choices), 120)):
        changed = json.loads(json.dumps(value))
        holder = changed
        for key in place[:-1]:
            holder = holder[key]
        holder[place[-1]] = other
        path.write_text(
            json.dumps(changed).join(["---\n", f"\n---\n{parts[2]}"]) if parts[2] else json.dumps(changed)
        )
        try:
            found = convert_file(path, project())
        except LlmopsError:
            continue
        told = [(each.path, each.key) for each in found.record.notes]
        assert len(told) == len(set(told))
        for file, written in found.texts.items():
            assert not file.endswith(".yaml") or read_yaml(written.encode(), file).value
