"""`check`: everything that is wrong in a project, at once, with its place, and nothing executed on the way."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmops.check import check_workspace
from llmops.definitions.reference import Kind
from llmops.definitions.workspace import load_workspace
from llmops.errors import Finding

Project = Callable[..., Path]
Git = Callable[..., str]

PROMPT = """\
inputs: {q: string}
messages:
  - {role: system, content: Answer yes or no.}
  - examples: {from: cases/train, k: 2}
    user: "{{ q }}"
    assistant: "{{ expected }}"
  - {role: user, content: "{{ q }}"}
response_format: {type: string, enum: ["yes", "no"]}
"""
CHAIN = """\
inputs: {q: string}
steps:
  - {id: clean, python: "text:clean", with: {text: "{{ q }}"}}
  - {id: ask, prompt: ask, with: {q: "{{ clean.output }}"}}
outputs: {answer: "{{ ask.output }}"}
"""
EXPERIMENT = """\
dataset: cases/test
variants:
  none: {prompt: ask, set: {examples.k: 0}}
  some: {prompt: ask}
  chain: {chain: answer}
evaluators: [exact_match]
baseline: none
gates:
  - {metric: exact_match, at_least: 0.5}
"""
DATASET = """\
inputs: {q: string}
expected: {type: string, enum: ["yes", "no"]}
splits: {by: metadata.split}
slices: {by: metadata.slice, at_least: {easy: 2}}
cluster: metadata.who
"""


def row(n: int, split: str, **fields: Any) -> dict[str, Any]:
    metadata = {"split": split, "slice": "easy", "who": f"w{n}"}
    return {
        "id": f"c{n}",
        "inputs": {"q": f"question number {n}"},
        "expected": "yes",
        "metadata": metadata,
        **fields,
    }


def jsonl(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


ROWS = [row(1, "train"), row(2, "train"), row(3, "test"), row(4, "test")]
FILES = {
    "llmops.yaml": "models: {default: {provider: embedded}}\n",
    "prompts/ask.prompt.yaml": PROMPT,
    "chains/answer.chain.yaml": CHAIN,
    "chains/text.py": "open('executed', 'w')\ndef clean(*, text): return text\n",
    "datasets/cases.dataset.yaml": DATASET,
    "datasets/cases.jsonl": jsonl(*ROWS),
    "experiments/try.experiment.yaml": EXPERIMENT,
}


def findings(root: Path, *targets: tuple[Kind, str]) -> list[Finding]:
    return check_workspace(load_workspace(root), targets or None)


def told(project: Project, **changes: str | bytes) -> list[str]:
    """What is found when files of the right project are replaced; `prompts__ask` stands for its path."""
    paths = {
        path.partition(".")[0].replace("/", "__"): path
        for path in FILES
        if path != "datasets/cases.dataset.yaml"
    }
    paths |= {"datasets__cases": "datasets/cases.dataset.yaml", "cases": "datasets/cases.jsonl"}
    root = project({**FILES, **{paths.get(name, name): text for name, text in changes.items()}})
    return [str(finding) for finding in findings(root)]


def only(found: list[str]) -> str:
    assert len(found) == 1, found
    return found[0]


def test_a_right_project_has_no_findings_and_none_of_its_python_is_executed(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:  # S05
    root = project(FILES)
    monkeypatch.chdir(root)
    assert findings(root) == []
    assert not (root / "executed").exists()


def test_an_empty_project_is_right(project: Project) -> None:
    assert findings(project()) == []


def test_every_problem_of_a_project_is_told_at_once_in_the_order_of_path_and_line(project: Project) -> None:
    found = told(
        project,
        llmops="models:\n  default: {provider: embeded}\n",
        prompts__ask=PROMPT.replace("{{ q }}", "{{ p }}"),
        chains__answer=CHAIN.replace("text:clean", "txet:clean"),
        cases=jsonl(*ROWS, row(1, "test")),
        experiments__try=EXPERIMENT.replace("at_least: 0.5", "at_leats: 0.5"),
    )
    assert [line.partition(":")[0] for line in found] == [
        "chains/answer.chain.yaml",
        "datasets/cases.jsonl",
        "experiments/try.experiment.yaml",
        "llmops.yaml",
        "prompts/ask.prompt.yaml",
        "prompts/ask.prompt.yaml",
    ]
    assert "did you mean 'text'?" in found[0]
    assert "llmops.yaml:2:3: no provider is called 'embeded'; did you mean 'embedded'?" in found[3]


@pytest.mark.parametrize("path", ["prompts__ask", "chains__answer", "datasets__cases", "cases", "llmops"])
def test_a_broken_file_hides_no_other_and_is_told_once(project: Project, path: str) -> None:
    changes = {path: "{", "experiments__other": ""}
    root_changes = {"experiments/other.experiment.yaml": "dataset: nothing\nvariants: {a: {prompt: gone}}\n"}
    del changes["experiments__other"]
    found = told(project, **changes, **root_changes)
    assert [
        line
        for line in found
        if line.startswith("experiments/other.experiment.yaml:1:1: no dataset is called")
    ]
    assert [
        line
        for line in found
        if line.startswith("experiments/other.experiment.yaml:2:12: variant a: no prompt")
    ]
    assert len(found) == len(set(found)) == 3


def test_the_order_in_which_files_are_checked_changes_nothing(project: Project) -> None:
    root = project(
        {
            **FILES,
            "prompts/ask.prompt.yaml": PROMPT.replace("{{ q }}", "{{ p }}"),
            "datasets/cases.jsonl": "{\n",
        }
    )
    targets: list[tuple[Kind, str]] = [
        ("prompt", "ask"),
        ("chain", "answer"),
        ("dataset", "cases"),
        ("experiment", "try"),
    ]
    whole = findings(root)
    random.Random(5).shuffle(targets)
    assert findings(root, *targets) == whole


# --- llmops.yaml and what no name leads to ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("{provider: openai}", "llmops.yaml:2:3: model 'm' has no model; give the service's name for it"),
        ("{provider: azure_inference, endpoint_env: E}", "model 'm' has no key"),
        ("{provider: azure_inference, api_key_env: K}", "model 'm' has no endpoint"),
        ("{provider: openai, model: x, endpoint: ftp://h}", "write http(s)://HOST[:PORT][/PATH]"),
        ("{provider: openai, model: x, endpoint: 'http://u:p@h/v1'}", "without user name, password"),
        ("{provider: openai, model: x, endpoint: 'http://169.254.169.254/'}", "link-local"),
        (
            "{provider: openai, model: x, endpoint: 'http://far/v1', api_key_env: K}",
            "without encryption; use https",
        ),
        (
            "{provider: azure_openai, model: d, endpoint_env: E, api_key_env: K}",
            "model 'm' has no api_version",
        ),
        (
            "{provider: azure_inference, model: x, endpoint_env: E}",
            "with api_key_env in llmops.yaml, or sign in",
        ),
        ("{provider: openai, model: x, auth: entra}", "model 'm' has no endpoint"),
        (
            "{provider: openai, model: x, auth: entra, endpoint: 'http://far/v1'}",
            "would send a token of Entra ID without encryption",
        ),
        ("{provider: opnai}", "llmops.yaml:2:3: no provider is called 'opnai'; did you mean 'openai'?"),
    ],
)
def test_a_model_that_lacks_what_its_provider_needs_is_told(
    project: Project, model: str, said: str
) -> None:  # F76
    assert said in only(told(project, llmops=f"models:\n  m: {model}\n  default: {{provider: embedded}}\n"))


@pytest.mark.parametrize(
    ("provider", "key", "value"),
    [
        ("openai", "api_version", "'2024-10-21'"),
        ("azure_inference", "api_version", "'2024-10-21'"),
        ("embedded", "stream", "true"),
        ("embedded", "auth", "entra"),
        ("embedded", "endpoint_env", "E"),
    ],
)
def test_what_a_provider_does_not_take_is_told_at_its_line(
    project: Project, provider: str, key: str, value: str
) -> None:
    models = f"models:\n  m:\n    provider: {provider}\n    model: x\n    {key}: {value}\n"
    found = only(told(project, llmops=models + "  default: {provider: embedded}\n"))
    assert found.startswith(f"llmops.yaml:5:5: model 'm': {provider} takes no {key}\n    it takes: ")


@pytest.mark.parametrize(
    "model",
    [
        "{provider: openai, model: x}",
        "{provider: openai, model: x, endpoint_env: E, api_key_env: K}",
        "{provider: openai, model: x, endpoint: 'http://localhost:11434/v1'}",
        "{provider: openai, model: x, endpoint: 'https://models.example/v1', api_key_env: K}",
        "{provider: azure_inference, endpoint_env: E, api_key_env: K, model: x}",
        "{provider: azure_openai, endpoint_env: E, api_key_env: K, model: d, api_version: '2024-10-21'}",
        "{provider: azure_openai, endpoint_env: E, auth: entra, model: d, api_version: '2024-10-21'}",
        "{provider: azure_inference, endpoint_env: E, auth: entra, model: x}",
        "{provider: openai, endpoint: 'https://mine.openai.azure.com/openai/v1', auth: entra, model: x}",
    ],
)
def test_no_key_and_no_address_has_to_be_set(project: Project, model: str) -> None:
    assert told(project, llmops=f"models: {{m: {model}, default: {{provider: embedded}}}}") == []


def test_files_that_nobody_reads_are_told(project: Project) -> None:
    strays = {
        "prompts/a.yaml": "",
        "prompts/b.prompt.yml": "",
        "chains/c.prompt.yaml": "",
        "prompts/two words.prompt.yaml": "",
        "prompts/notes.md": "",
        "datasets/raw.csv": "",
    }
    found = told(project, **strays)
    assert found == [
        "chains/c.prompt.yaml: this file is read by nobody\n    call it c.chain.yaml",
        "prompts/a.yaml: this file is read by nobody\n    call it a.prompt.yaml",
        "prompts/b.prompt.yml: this file is read by nobody\n    call it b.prompt.yaml",
        "prompts/two words.prompt.yaml: no reference can lead to this file\n"
        "    a name is letters, digits, '.', '_' and '-'",
    ]


def test_a_folder_that_leads_out_of_the_project_is_told_and_the_others_are_checked(
    project: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:  # S06
    root = project({"prompts/a.prompt.yaml": "{"})
    (root / "chains").symlink_to(tmp_path_factory.mktemp("outside"), target_is_directory=True)
    assert [finding.path for finding in findings(root)] == [
        "chains",
        "chains/indexes",
        "prompts/a.prompt.yaml",
    ]


def test_a_release_that_is_none_is_told(project: Project) -> None:
    root = project({**FILES, "experiments/releases.jsonl": '{"kind": "prompt"}\n'})
    assert {(found.path, found.line) for found in findings(root)} == {("experiments/releases.jsonl", 1)}


# --- prompts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "inputs:",
            "model: defualt\ninputs:",
            "prompts/ask.prompt.yaml:1:1: llmops.yaml has no model 'defualt'; did you mean",
        ),
        ("cases/train", "csaes/train", "prompts/ask.prompt.yaml:4:16: no dataset is called 'csaes'"),
        ("cases/train", "cases/trian", "dataset cases has no split 'trian'; did you mean 'train'?"),
        (
            'user: "{{ q }}"',
            'user: "{{ question }}"',
            "prompts/ask.prompt.yaml:5:5: the examples of cases/train have no input",
        ),
        ('user: "{{ q }}"', 'user: "{{ q }"', "prompts/ask.prompt.yaml:5:5: line 1"),
        (
            "inputs: {q: string}",
            "inputs: {q: string, r: string}",
            "needs an input 'r' that dataset cases does not have",
        ),
    ],
)
def test_a_prompt_is_held_against_its_model_and_its_examples(
    project: Project, old: str, new: str, said: str
) -> None:
    assert any(said in line for line in told(project, prompts__ask=PROMPT.replace(old, new))), old


def test_examples_may_have_inputs_of_their_own(project: Project) -> None:
    shown = {
        "datasets/shown.dataset.yaml": "kind: few_shot\n",
        "datasets/shown.jsonl": jsonl({"id": "s", "inputs": {"text": "x"}, "expected": "no"}),
    }
    prompt = PROMPT.replace("cases/train", "shown").replace('user: "{{ q }}"', 'user: "{{ text }}"')
    assert told(project, prompts__ask=prompt, **shown) == []


def test_an_example_without_an_answer_to_show_is_told(project: Project) -> None:
    shown = {
        "datasets/shown.dataset.yaml": "",
        "datasets/shown.jsonl": jsonl({"id": "s", "inputs": {"q": "x"}}),
    }
    shown["datasets/shown.dataset.yaml"] = "kind: few_shot\n"
    found = told(project, prompts__ask=PROMPT.replace("cases/train", "shown"), **shown)
    assert only(found) == "prompts/ask.prompt.yaml:4:16: example 's' has no expected answer to show"


def test_parameters_a_model_does_not_take_are_told_where_they_are_written(project: Project) -> None:
    nemo = "{provider: azure_inference, endpoint_env: E, api_key_env: K}"
    models = f"models: {{default: {{provider: embedded}}, nemo: {nemo}}}"
    asks = "model: nemo\nparameters: {reasoning_effort: low}\n" + PROMPT
    found = told(project, llmops=models, prompts__ask=asks)
    assert found[-1] == (
        "prompts/ask.prompt.yaml:2:14: model nemo (azure_inference) takes no reasoning_effort\n"
        "    it takes: max_tokens, seed, stop, temperature, top_p"
    )
    variant = EXPERIMENT.replace(
        "some: {prompt: ask}", "some: {prompt: ask, model: nemo, parameters: {reasoning_effort: low}}"
    )
    assert only(told(project, llmops=models, experiments__try=variant)).startswith(
        "experiments/try.experiment.yaml:4:49: model nemo (azure_inference) takes no reasoning_effort"
    )
    step = CHAIN.replace("prompt: ask,", "prompt: ask, model: nemo, parameters: {reasoning_effort: low},")
    assert told(project, llmops=models, chains__answer=step)[0].startswith(
        "chains/answer.chain.yaml:4:54: model nemo"
    )


# --- chains -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "prompt: ask",
            "prompt: aks",
            "chains/answer.chain.yaml:4:15: no prompt is called 'aks' in the work tree; did you",
        ),
        ("prompt: ask", "chain: gone", "4:15: no chain is called 'gone'"),
        ("prompt: ask", "prompt: ask@git:main", "4:15: git:main: git rev-parse: not a git repository"),
        ("prompt: ask", "prompt: ask@production", "ask@production: no such alias; no release of it stands"),
        ("text:clean", "text:claen", "3:17: chains/text.py has no function 'claen'; did you mean 'clean'?"),
        ("text:clean", "gone:clean", "3:17: no module chains/gone.py"),
        ("{text: ", "{txet: ", "3:39: text:clean needs 'text', and `with` does not give it"),
        ("{text: ", "{txet: ", "3:46: text:clean takes no 'txet'\n    did you mean 'text'?"),
        ("with: {q: ", "with: {p: ", "4:28: ask is given no 'q'"),
        ("with: {q: ", "with: {p: ", "4:35: ask takes no 'p'"),
        ("inputs: {q: string}", "inputs: {q: integer}", "takes no 'q'"),
        (
            '"{{ clean.output }}"',
            '"{{ claen.output }}"',
            "'claen' is not defined here\n    did you mean 'clean'?",
        ),
        (
            "prompt: ask, with",
            "prompt: ask, set: {examples.n: 1}, with",
            "4:28: set examples.n of prompt ask",
        ),
        (
            "prompt: ask, with",
            "prompt: ask, set: {temperature: 1}, with",
            "set 'temperature' reaches nothing in prompt ask",
        ),
        ("prompt: ask, with", "prompt: ask, model: gone, with", "llmops.yaml has no model 'gone'"),
    ],
)
def test_a_chain_is_held_against_what_its_steps_use(
    project: Project, old: str, new: str, said: str
) -> None:  # F70 F71
    assert old in CHAIN
    changed = CHAIN.replace(old, new)
    if "integer" in new:
        changed, said = (
            changed.replace("{{ clean.output }}", "{{ q }}"),
            "4:35: ask takes q as string, and this is integer",
        )
    assert any(said in line for line in told(project, chains__answer=changed)), told(
        project, chains__answer=changed
    )


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("def clean(text, /): ...", "takes 'text' by position only; inputs are given by name"),
        ("def clean(*, text, more): ...", "needs 'more'"),
        ("def clean(*args): ...", "takes no 'text'\n    it takes: nothing"),
        ("def clean(:", "chains/text.py:1:11: not Python"),
        ("clean = len", "has no function 'clean'"),
    ],
)
def test_a_function_is_held_against_what_its_step_gives(project: Project, function: str, said: str) -> None:
    assert any(said in line for line in told(project, chains__text=function))


@pytest.mark.parametrize(
    "function",
    [
        "def clean(text, n=1): ...",
        "async def clean(*, text, **more): ...",
        "def clean(**anything): ...",
        "from functools import wraps\n@wraps(len)\ndef clean(nothing_of_this): ...",
    ],
)
def test_a_function_that_takes_what_it_is_given_is_right(project: Project, function: str) -> None:
    assert told(project, chains__text=function) == []


def test_chains_in_a_circle_are_told_in_the_file_of_each(project: Project) -> None:  # F70
    root = project(
        {
            "chains/a.chain.yaml": "steps: [{id: s, chain: b}]",
            "chains/b.chain.yaml": "steps: [{id: s, chain: a}]",
        }
    )
    assert [str(finding) for finding in findings(root)] == [
        "chains/a.chain.yaml:1:17: chains use one another in a circle: b -> a -> b",
        "chains/b.chain.yaml:1:17: chains use one another in a circle: a -> b -> a",
    ]


def test_a_chain_that_uses_itself_is_told(project: Project) -> None:  # F70
    found = findings(project({"chains/a.chain.yaml": "steps:\n  - {id: s, chain: a}"}))
    assert [str(finding) for finding in found] == [
        "chains/a.chain.yaml:2:13: chains use one another in a circle: a -> a"
    ]


# --- datasets -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "metadata.who",
            "metadata.whoo",
            "datasets/cases.dataset.yaml:5:1: no case has metadata.whoo\n    did you mean 'metadata.who'?",
        ),
        ("metadata.slice", "metadata.slcie", "4:10: no case has metadata.slcie"),
        ("metadata.split", "metadata.splti", "3:10: no case has metadata.splti"),
        ("easy: 2", "easy: 3", "slice easy of cases/test has 2 cases, fewer than 3"),
        (
            "easy: 2",
            "eazy: 2",
            "slice eazy of cases/test has 0 cases, fewer than 2\n    did you mean 'easy'?",
        ),
    ],
)
def test_a_definition_is_held_against_its_cases(project: Project, old: str, new: str, said: str) -> None:
    assert any(said in line for line in told(project, datasets__cases=DATASET.replace(old, new)))


def test_only_splits_that_are_evaluated_need_their_slices(project: Project) -> None:
    thin = jsonl(row(1, "train"), row(3, "test"), row(4, "test"))
    assert told(project, cases=thin) == []
    everything = EXPERIMENT.replace("cases/test", "cases").replace(
        "  some: {prompt: ask}\n  chain: {chain: answer}\n", ""
    )
    more = DATASET.replace("easy: 2", "easy: 4")
    assert "slice easy of cases has 3 cases" in only(
        told(project, cases=thin, datasets__cases=more, experiments__try=everything)
    )


def test_a_case_in_no_split_is_told(project: Project) -> None:
    stray = row(9, "train", metadata={"slice": "easy", "who": "w"})
    found = only(told(project, cases=jsonl(*ROWS, stray)))
    assert found.endswith("1 cases are in no split, 'c9' the first: they have no metadata.split")


# --- experiments --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "cases/test",
            "case/test",
            "try.experiment.yaml:1:1: no dataset is called 'case' in the work tree; did you mean",
        ),
        ("cases/test", "cases/tset", "1:1: dataset cases has no split 'tset'; did you mean 'test'?"),
        ("some: {prompt: ask}", "some: {prompt: aks}", "4:3: variant some: no prompt is called 'aks'"),
        (
            "some: {prompt: ask}",
            "some: {prompt: ask@git:main}",
            "4:3: variant some: git:main: git rev-parse: not a git",
        ),
        ("examples.k: 0", "examples.k: -1", "3:3: variant none: set examples.k of prompt ask"),
        ("examples.k: 0", "exmaples.k: 0", "variant none: set 'exmaples.k' reaches nothing in prompt ask"),
        ("examples.k: 0", "parameters.temperatur: 0", "did you mean 'temperature'?"),
        (
            "{chain: answer}",
            "{chain: answer, set: {aks.examples.k: 0}}",
            "'aks.examples.k' reaches no step of chain answer",
        ),
        ("{chain: answer}", "{chain: answer, set: {clean.k: 0}}", "a python step has nothing to set"),
        (
            "baseline:",
            "matrix: {model: [default, gone]}\nbaseline:",
            "7:1: variant none/gone: llmops.yaml has no model 'gone'",
        ),
        (
            "baseline:",
            "matrix: {exmaples.k: [1, 2]}\nbaseline:",
            "7:1: variant none/1: set 'exmaples.k' reaches nothing",
        ),
        ("baseline: none", "baseline: git:main", "baseline: git rev-parse"),
        (
            "[exact_match]",
            "[exact_macth]",
            "6:14: exact_macth: no evaluator is called 'exact_macth'; did you mean 'exact_match'?",
        ),
        (
            "[exact_match]",
            "[exact_match: {normalize: true}]",
            "6:28: unknown key 'normalize'\n    did you mean 'normalise'?",
        ),
        (
            "[exact_match]",
            "[exact_match, number: {tolerance: -1}]",
            "tolerance: should be at least 0, not -1",
        ),
        ("[exact_match]", "[exact_match, regex: {pattern: '('}]", "pattern: pattern '(' is wrong"),
        (
            "[exact_match]",
            "[exact_match, json_schema: {schema: {type: nul}}]",
            "the schema is wrong at $.type",
        ),
        (
            "[exact_match]",
            "[exact_match, python: 'text:score']",
            "6:27: score: chains/text.py has no function 'score'",
        ),
        (
            "[exact_match]",
            "[exact_match, python: 'text:clean']",
            "text:clean wants 'text', by position or unknown",
        ),
        ("[exact_match]", "[exact_match, python: {}]", "the key 'function' is missing"),
        (
            "metric: exact_match",
            "metric: exact_macth",
            "9:6: no metric 'exact_macth'\n    did you mean 'exact_match'?",
        ),
        (
            "metric: exact_match",
            "metric: latency_s.p99",
            "latency_s has no part 'p99'\n    did you mean 'p95'?",
        ),
        ("metric: exact_match", "metric: cost_usd.sum", "cost_usd is one number, without a part 'sum'"),
        ("at_least: 0.5", "at_least: 80", "9:27: exact_match goes from 0 to 1, so 80 says nothing"),
        (
            "at_least: 0.5",
            "at_least: 0.5, slice: esay",
            "no case is in slice 'esay'\n    did you mean 'easy'?",
        ),
        ("at_least: 0.5", "at_least: 0.5, variant: smoe", "'smoe' is no variant\n    did you mean 'some'?"),
        (
            "at_least: 0.5",
            "at_least: 0.5, variant: none",
            "'none' is the baseline\n    candidates: chain, some",
        ),
    ],
)
def test_an_experiment_is_held_against_what_it_uses(project: Project, old: str, new: str, said: str) -> None:
    assert old in EXPERIMENT
    found = told(project, experiments__try=EXPERIMENT.replace(old, new))
    if said == "baseline: git rev-parse":
        said = "7:1: ask: git:main: git rev-parse: not a git repository"
    assert any(said in line for line in found), found


@pytest.mark.parametrize(
    ("metric", "limit", "said"),
    [
        ("bleu.corpsu", 20, "bleu has no part 'corpsu'\n    did you mean 'corpus'?"),
        ("bleu.corpus", 101, "bleu.corpus goes from 0 to 100, so 101 says nothing"),
        ("rouge.rouge2", 0.5, "rouge has no part 'rouge2'\n    did you mean 'rouge1'?"),
        ("rouge.rouge1", 50, "rouge.rouge1 goes from 0 to 1, so 50 says nothing"),
        ("token_f1.precision", 0.5, "token_f1 has no part 'precision'\n    parts: none"),
    ],
)
def test_a_gate_on_a_part_is_held_against_parts_and_range_of_its_evaluator(
    project: Project, metric: str, limit: float, said: str
) -> None:
    text = EXPERIMENT.replace("[exact_match]", "[bleu, token_f1, rouge: {variants: [rouge1]}]")
    text = text.replace("metric: exact_match", f"metric: {metric}").replace("0.5", str(limit))
    assert said in only(told(project, experiments__try=text))
    right = text.replace(metric, "bleu.corpus").replace(str(limit), "20")
    assert told(project, experiments__try=right) == []


def test_a_gate_against_a_baseline_needs_one(project: Project) -> None:
    text = EXPERIMENT.replace("baseline: none\n", "").replace(
        "at_least: 0.5", "not_worse_than: baseline, margin: 0.1"
    )
    assert "8:27: the experiment names no baseline" in only(told(project, experiments__try=text))


def test_an_axis_that_every_variant_fixes_is_told(project: Project) -> None:
    text = "dataset: cases/test\nvariants: {a: {prompt: ask, model: default}}\nmatrix: {model: [default]}\n"
    assert "3:10: every variant fixes model itself" in only(told(project, experiments__try=text))


def test_a_baseline_elsewhere_is_looked_for_unless_it_may_be_missing(
    project: Project, git: Git
) -> None:  # F81
    text = EXPERIMENT.replace("baseline: none", "baseline: git:HEAD")
    project({**FILES, "experiments/try.experiment.yaml": text})
    git("init")
    git("add", ".")
    git("commit", "-m", "one")
    assert told(project, experiments__try=text) == []
    young = {"prompts/young.prompt.yaml": PROMPT}
    asks = text.replace("some: {prompt: ask}", "some: {prompt: young}")
    assert "young: no prompt is called 'young' in git:" in only(told(project, experiments__try=asks, **young))
    assert told(project, experiments__try=asks + "missing_baseline: skip\n", **young) == []


def test_an_old_version_and_its_python_are_checked_unexecuted_too(
    project: Project, git: Git, monkeypatch: pytest.MonkeyPatch
) -> None:  # S05
    root = project(FILES)
    git("init")
    git("add", ".")
    git("commit", "-m", "one")
    monkeypatch.chdir(root)
    text = EXPERIMENT.replace("{chain: answer}", "{chain: 'answer@git:HEAD'}")
    broken = {"chains__text": "def (", "experiments__try": text}
    assert only(told(project, **broken)).startswith("chains/text.py:1:5: not Python")
    assert not (root / "executed").exists()


@pytest.mark.parametrize(
    ("case", "said"),
    [
        (
            row(4, "test", inputs={"p": "x"}),
            "variant none needs an input 'q' that dataset cases does not have",
        ),
        (row(4, "test", inputs={"q": 5}), "variant none: input 'q' of case 'c4': 5 is not of type string"),
    ],
)
def test_undeclared_inputs_are_held_against_each_case(
    project: Project, case: dict[str, Any], said: str
) -> None:  # F61
    loose = DATASET.replace("inputs: {q: string}\n", "")
    found = told(project, datasets__cases=loose, cases=jsonl(*ROWS[:3], case))
    assert any(said in line for line in found), found


def test_a_declared_input_of_another_type_is_told(project: Project) -> None:
    numbers = [{**each, "inputs": {"q": n}} for n, each in enumerate(ROWS)]
    found = told(project, datasets__cases=DATASET.replace("q: string", "q: integer"), cases=jsonl(*numbers))
    assert any("variant some: input 'q' of case 'c3': 2 is not of type string" in line for line in found)


def test_an_evaluator_that_needs_an_answer_is_held_against_the_cases(project: Project) -> None:  # F61
    loose = DATASET.replace('expected: {type: string, enum: ["yes", "no"]}\n', "")
    blank = {**row(4, "test"), "expected": None}
    found = only(told(project, datasets__cases=loose, cases=jsonl(*ROWS[:3], blank)))
    assert "6:14: 1 cases expect nothing, 'c4' the first, and exact_match needs it" in found
    own = EXPERIMENT.replace("[exact_match]", '[exact_match: {expected: "{{ inputs.q }}"}]')
    assert told(project, datasets__cases=loose, cases=jsonl(*ROWS[:3], blank), experiments__try=own) == []


def test_a_budget_in_usd_needs_a_price(project: Project) -> None:
    models = "models: {default: {provider: openai, model: x}}\n"
    text = EXPERIMENT + "budget: {usd: 1}\n"
    assert "10:10: the budget is in USD, and model default has no price" in only(
        told(project, llmops=models, experiments__try=text)
    )
    priced = models.replace("model: x", "model: x, price: {input_per_mtok: 1, output_per_mtok: 1}")
    assert told(project, llmops=priced, experiments__try=text) == []


def test_cases_that_leak_into_a_prompt_are_told_once_whatever_the_matrix(project: Project) -> None:
    twin = {**row(5, "test"), "inputs": {"q": "Question number 1!"}}
    kin = row(6, "test", metadata={"split": "test", "slice": "easy", "who": "w2"})
    text = EXPERIMENT.replace("baseline:", "matrix: {parameters.temperature: [0, 1]}\nbaseline:").replace(
        "  chain: {chain: answer}\n", ""
    )
    found = told(project, cases=jsonl(*ROWS, twin, kin), experiments__try=text)
    assert found == [
        "experiments/try.experiment.yaml:4:3: variant some may show case 'c1', evaluated as 'c5': same inputs\n"
        "    keep few-shot and evaluated cases apart",
        "experiments/try.experiment.yaml:4:3: variant some may show case 'c2', evaluated as 'c6': same cluster 'w2'\n"
        "    keep few-shot and evaluated cases apart",
    ]


def test_five_leaks_are_listed_and_the_others_counted(project: Project) -> None:
    twins = [{**row(n, "test"), "inputs": {"q": "question number 1"}} for n in range(10, 22)]
    found = told(project, cases=jsonl(*ROWS, *twins))
    assert len(found) == 6
    assert sum("and 7 more cases leak like this" in line for line in found) == 1


# --- parts of a project -------------------------------------------------------------------------------------


def test_of_given_targets_only_these_and_what_they_use_are_checked(project: Project) -> None:
    root = project({**FILES, "datasets/cases.jsonl": "{\n", "chains/text.py": "def ("})
    assert {finding.path for finding in findings(root, ("prompt", "ask"))} == {"datasets/cases.jsonl"}
    assert {finding.path for finding in findings(root, ("chain", "answer"))} == {
        "chains/text.py",
        "datasets/cases.jsonl",
    }
    assert [str(finding) for finding in findings(root, ("prompt", "gone"))] == [
        "prompts/gone.prompt.yaml: no prompt is called 'gone' in the work tree; there are: ask"
    ]


def test_a_model_that_no_target_asks_keeps_none_from_running(project: Project) -> None:
    root = project(
        {**FILES, "llmops.yaml": "models: {default: {provider: embedded}, other: {provider: nothing}}"}
    )
    assert findings(root, ("experiment", "try")) == []
    assert len(findings(root)) == 1


# --- evaluators of steps ----------------------------------------------------------------------------------


def test_a_step_that_no_variant_has_is_told_at_its_line(project: Project) -> None:
    step = EXPERIMENT.replace("[exact_match]", "[exact_match, token_f1: {step: STEP, pass_at: 0.5}]")
    assert told(project, experiments__try=step.replace("STEP", "ask")) == []
    line = only(told(project, experiments__try=step.replace("STEP", "aks")))
    assert line.startswith("experiments/try.experiment.yaml:6:")
    assert "no variant has a step 'aks'; did you mean 'ask'?" in line.replace("\n    ", "; ")


def test_a_step_is_not_looked_for_in_a_chain_that_cannot_be_read(project: Project) -> None:
    step = EXPERIMENT.replace("[exact_match]", "[exact_match, token_f1: {step: aks}]")
    found = told(project, experiments__try=step.replace("{chain: answer}", "{chain: answr}"))
    assert "answr" in only(found)


def test_a_bar_outside_the_range_of_a_score_is_told(project: Project) -> None:
    bar = EXPERIMENT.replace("[exact_match]", "[exact_match: {pass_at: 50}]")
    assert "exact_match goes from 0 to 1, so 50 says nothing" in only(told(project, experiments__try=bar))
