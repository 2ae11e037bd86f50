"""Definitions as other tools' files: what promptfoo would read, and a model that the real MLflow logs and loads."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmops.convert import Converted, Fate, convert_file
from llmops.convert.exports import export
from llmops.convert.pyfunc import predict
from llmops.definitions.templates import parse_template, render_text
from llmops.definitions.workspace import load_workspace
from llmops.errors import LlmopsError, UsageError
from tests.cli.command import environment
from tests.cli.inside import llmops_inside
from tests.convert.samples import keys_in, note, project

ROOT = Path(__file__).parents[2]
FILES = {
    "llmops.yaml": """
models:
  default: {provider: embedded}
  gpt: {provider: openai, model: gpt-4o, api_key_env: OPENAI_API_KEY}
  own: {provider: azure_openai, model: dep, endpoint_env: MY_AZURE, api_key_env: AZ_KEY, api_version: 2024-10-21}
""",
    "prompts/mood.prompt.yaml": """
description: Mood of a guest
inputs: {review: string}
parameters: {temperature: 0}
messages:
  - {role: system, content: "Answer good or bad. {{ '{{' }} is no sign."}
  - examples: {from: few, k: 2, select: first}
    user: "{{ review }}"
    assistant: "{{ expected }}"
  - {role: user, content: "{{ review }}"}
""",
    "prompts/plain.prompt.yaml": """
inputs: {review: string}
messages:
  - {role: user, content: "{% if review %}{{ review | tojson }}{% endif %}"}
""",
    "prompts/tone.prompt.yaml": """
inputs: {output: string}
messages:
  - {role: system, content: Grade for kindness.}
  - {role: user, content: "{{ output }}"}
""",
    "datasets/few.dataset.yaml": "inputs: {review: string}\n",
    "datasets/few.jsonl": '{"id": "f1", "inputs": {"review": "lovely {{ x }}"}, "expected": "good"}\n'
    '{"id": "f2", "inputs": {"review": "awful"}, "expected": "bad"}\n',
    "datasets/cases.dataset.yaml": "inputs: {review: string, tags: array}\n",
    "datasets/cases.jsonl": '{"id": "c1", "inputs": {"review": "so {{ nice }}", "tags": ["a"]}, "expected": "good"}\n'
    '{"id": "c2", "inputs": {"review": "so bad", "tags": []}, "expected": "bad", "metadata": {"day": 2}}\n',
    "chains/card.py": "def shout(text):\n    return text.upper()\n",
    "chains/card.chain.yaml": """
inputs: {review: string}
steps:
  - {id: mood, prompt: mood, with: {review: "{{ review }}"}}
  - {id: card, python: "card:shout", with: {text: "{{ mood.output }}"}}
outputs: {card: "{{ card.output }}"}
""",
    "experiments/moods.experiment.yaml": """
description: Which mood?
dataset: cases
variants:
  shown: {prompt: mood, parameters: {max_tokens: 5}}
  bare: {prompt: mood, set: {examples.k: 0}}
  plain: {prompt: plain, model: gpt}
  own: {prompt: plain, model: own}
  card: {chain: card}
repeats: 3
seed: 7
evaluators:
  - exact_match
  - contains: {any: [good, bad], ignore_case: true}
  - regex: {name: whole, pattern: "good|bad", mode: fullmatch}
  - json_schema: {schema: {type: object}}
  - judge: {name: kind, prompt: tone, scale: [1, 5]}
  - token_f1
  - exact_match: {name: part, output: "{{ output }}"}
  - exact_match: {name: shouted, expected: "{{ expected | upper }}"}
  - exact_match: {name: stepped, expected: "{{ steps.x }}"}
gates:
  - {metric: exact_match, at_least: 0.5}
  - {metric: latency_s.p95, at_most: 2.0}
budget: {calls: 100}
""",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def configuration(root: Path) -> tuple[dict[str, Any], Converted]:
    found = export("promptfoo", load_workspace(root), "experiment", "moods")
    return yaml.safe_load(found.texts["exports/moods/promptfooconfig.yaml"]), found


# --- promptfoo --------------------------------------------------------------------------------------------------


def test_every_prompt_variant_is_a_provider_that_asks_its_prompt_alone(root: Path) -> None:
    config, found = configuration(root)
    providers = {each["label"]: each for each in config["providers"]}
    assert {name: (each["id"], each["prompts"]) for name, each in providers.items()} == {
        "shown": ("echo", ["mood"]),
        "bare": ("echo", ["mood_2"]),
        "plain": ("openai:chat:gpt-4o", ["plain"]),
        "own": ("azure:chat:dep", ["plain"]),
    }
    assert providers["own"]["config"] == {
        "apiHost": "{{env.MY_AZURE}}",
        "apiKeyEnvar": "AZ_KEY",
        "apiVersion": "2024-10-21",
    }
    assert note(found, "variants.card.chain").fate is Fate.DROPPED
    assert config["evaluateOptions"] == {"repeat": 3}
    assert config["defaultTest"] == {"options": {"disableVarExpansion": True}}, (
        "a list of values is one value here"
    )


def test_prompts_are_chats_with_their_examples(root: Path) -> None:
    config, _ = configuration(root)
    raws = {each["label"]: json.loads(each["raw"]) for each in config["prompts"]}
    assert [message["role"] for message in raws["mood"]] == ["system", *(["user", "assistant"] * 2), "user"]
    assert raws["mood"][1]["content"] == "{% raw %}lovely {{ x }}{% endraw %}", (
        "data is no template over there either"
    )
    assert len(raws["mood_2"]) == 2
    assert raws["plain"][0]["content"] == "{% if review %}{{ review | dump }}{% endif %}"


def test_every_case_is_a_test_with_what_evaluators_assert(root: Path) -> None:
    config, found = configuration(root)
    first, second = config["tests"]
    assert first["vars"] == {"review": "{% raw %}so {{ nice }}{% endraw %}", "tags": ["a"]}
    assert second["metadata"] == {"day": 2}
    assert second["assert"] == [
        {"type": "equals", "value": "bad", "metric": "exact_match"},
        {"type": "icontains-any", "value": ["good", "bad"], "metric": "contains"},
        {"type": "regex", "value": "^(?:good|bad)$", "metric": "whole"},
        {"type": "is-json", "value": {"type": "object"}, "metric": "json_schema"},
        {"type": "llm-rubric", "value": "Grade for kindness.", "metric": "kind"},
        {"type": "equals", "value": "BAD", "metric": "shouted"},
        {"type": "latency", "threshold": 2000.0},
    ]
    for index, fate in enumerate(
        (Fate.KEPT, Fate.KEPT, Fate.KEPT, Fate.KEPT, Fate.APPROXIMATED, Fate.DROPPED)
    ):
        told = [n.fate for n in found.record.notes if n.key.startswith(f"evaluators[{index}]")]
        assert set(told) == {fate}, index


def test_every_key_of_ours_has_a_fate_too(root: Path) -> None:
    _, found = configuration(root)
    paths = {each.path for each in found.record.notes}
    assert paths == {
        "prompts/mood.prompt.yaml",
        "prompts/plain.prompt.yaml",
        "experiments/moods.experiment.yaml",
    }
    for path in paths:
        told = {each.key: each.line for each in found.record.notes if each.path == path}
        assert told == keys_in(root / path)


def test_what_is_exported_comes_back_as_it_was(root: Path, tmp_path: Path) -> None:
    _, found = configuration(root)
    path = tmp_path / "back" / "promptfooconfig.yaml"
    path.parent.mkdir()
    path.write_text(found.texts["exports/moods/promptfooconfig.yaml"], encoding="utf-8")
    back = convert_file(path, project())
    rows = [json.loads(line) for line in back.texts["datasets/back.jsonl"].splitlines()]
    assert [row["inputs"]["review"] for row in rows][1] == "so bad"
    prompt = yaml.safe_load(back.texts["prompts/back.prompt.yaml"])
    texts = [render_text(parse_template(m["content"]), {"review": "R"}) for m in prompt["messages"]]
    assert texts == ["Answer good or bad. {{ is no sign.", "lovely {{ x }}", "good", "awful", "bad", "R"]


def test_an_experiment_of_chains_alone_is_refused(root: Path) -> None:
    path = root / "experiments" / "only.experiment.yaml"
    path.write_text("dataset: cases\nvariants: {card: {chain: card}}\n", encoding="utf-8")
    with pytest.raises(UsageError, match="prompt"):
        export("promptfoo", load_workspace(root), "experiment", "only")


@pytest.mark.parametrize("reference", ["moods@git:HEAD", "moods@production", "nothing"])
def test_only_what_stands_in_the_work_tree_is_exported(reference: str, root: Path) -> None:
    with pytest.raises(LlmopsError):
        export("promptfoo", load_workspace(root), "experiment", reference)


# --- MLflow -----------------------------------------------------------------------------------------------------


def test_a_model_from_code_stands_on_its_own_files(root: Path) -> None:
    found = export("mlflow", load_workspace(root), "chain", "card")
    assert set(found.texts) == {
        f"exports/card/{file}"
        for file in (
            "model.py",
            "project/llmops.yaml",
            "project/chains/card.chain.yaml",
            "project/chains/card.py",
            "project/prompts/mood.prompt.yaml",
            "project/datasets/few.dataset.yaml",
            "project/datasets/few.jsonl",
        )
    }
    compile(found.texts["exports/card/model.py"], "model.py", "exec")
    assert set(found.record.notes[0].model_dump()) == {"path", "line", "key", "fate", "how"}


@pytest.mark.parametrize(("kind", "name"), [("chains", "card"), ("prompts", "mood")])
def test_mlflow_logs_and_loads_it_and_it_answers_as_llmops_run_does(
    kind: str, name: str, root: Path, tmp_path: Path
) -> None:
    done = llmops_inside("convert", f"{kind}/{name}", "--to", "mlflow", cwd=root)
    assert done.returncode == 0, done.stderr
    assert f"now: python exports/{name}/model.py" in done.stdout
    here = llmops_inside("run", f"{kind}/{name}", "--input=review=awful", "--json", cwd=root)
    folder = tmp_path / "elsewhere"
    shutil.move(root / "exports" / name, folder)
    (root / "prompts" / "mood.prompt.yaml").unlink()
    code = (
        "import sys, json, mlflow\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "import pandas\n"
        "from model import log\n"
        "with mlflow.start_run():\n"
        "    uri = log().model_uri\n"
        "model = mlflow.pyfunc.load_model(uri)\n"
        "rows = [{'review': 'awful'}, {'review': 'lovely'}]\n"
        "print(json.dumps([model.predict(rows), model.predict(pandas.DataFrame(rows))]))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        cwd=tmp_path,
        env=environment(MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/mlflow.db", PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    by_rows, by_frame = json.loads(ran.stdout.splitlines()[-1])
    assert by_rows == by_frame
    assert by_rows[0] == json.loads(here.stdout)["value"]
    assert by_rows[0] != by_rows[1]


def test_a_row_that_fails_is_told_by_its_number(root: Path) -> None:
    (root / "chains" / "card.py").write_text(
        "def shout(text):\n    raise ValueError(text)\n", encoding="utf-8"
    )
    with pytest.raises(LlmopsError, match=r"row 0.*ValueError"):
        predict(str(root), "chain", "card", [{"review": "awful"}])
    with pytest.raises(LlmopsError, match="mappings"):
        predict(str(root), "chain", "card", ["awful"])
    assert predict(str(root), "prompt", "mood", {"review": "awful"}) == ["bad"]
