"""What each format becomes: the meaning of its keys, and a project that checks and runs on `embedded`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from llmops.convert import Fate, convert_file
from llmops.errors import DefinitionError, LlmopsError, UsageError
from tests.cli.inside import llmops_inside
from tests.convert.samples import FILES, SAMPLES, Sample, convert, copied, note, project, written


def place(tmp_path: Path, models: str = "") -> Path:
    root = tmp_path / "project"
    root.mkdir()
    (root / "llmops.yaml").write_text(models, encoding="utf-8")
    return root


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.path)
def test_what_is_written_checks_and_runs_on_embedded(sample: Sample, tmp_path: Path) -> None:
    root = place(tmp_path)
    done = llmops_inside("convert", str(FILES / sample.path), "--json", cwd=root)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout[-500:]
    record = json.loads(done.stdout)
    assert all((root / file).is_file() for file in record["files"])
    done = llmops_inside("check", cwd=root)
    assert done.returncode == 0, done.stdout
    if sample.runs:
        options = ["--no-sync"] if sample.runs[0].startswith("experiments/") else []
        done = llmops_inside("run", *sample.runs, *options, "--json", cwd=root)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.path)
def test_the_models_that_are_to_be_added_are_models_of_llmops_yaml(sample: Sample) -> None:
    models = convert(sample.path).record.models
    assert project(**models).models.keys() == {"default", *models}


def test_a_model_that_llmops_yaml_has_is_asked(tmp_path: Path) -> None:
    known = project(big={"provider": "openai", "model": "gpt-4o-mini"})
    found = convert_file(FILES / "promptfoo/promptfooconfig.yaml", known)
    variants = written(found, "experiments/promptfoo.experiment.yaml")["variants"]
    assert variants["promptfoo_gpt_4o_mini"] == {"prompt": "promptfoo", "model": "big"}
    assert note(found, "providers[0]").fate is Fate.KEPT
    assert "gpt_4o_mini" not in found.record.models


# --- prompty ----------------------------------------------------------------------------------------------------


def test_a_prompty_of_version_1() -> None:
    found = convert("prompty/returns_desk.prompty")
    prompt = written(found, "prompts/returns_desk.prompt.yaml")
    assert [message["role"] for message in prompt["messages"]] == ["system", "user", "assistant", "user"]
    assert prompt["messages"][1]["content"] == "{{ question }}"
    assert prompt["parameters"] == {
        "temperature": 0.2,
        "max_tokens": 400,
        "top_p": 0.9,
        "stop": ["END", "STOP"],
    }
    assert prompt["inputs"]["days"] == "integer"
    assert prompt["x-authors"] == ["Ada", "Grace"]
    (case,) = written(found, "datasets/returns_desk.jsonl")
    assert case["inputs"]["customer"] == "Mia" and case["inputs"]["order"] == {"id": "A-17", "item": "tent"}
    assert found.record.models["gpt_4o_mini"] == {
        "provider": "azure_openai",
        "model": "gpt-4o-mini",
        "endpoint_env": "SHOP_OPENAI_ENDPOINT",
        "api_version": "2024-10-21",
        "api_key_env": "AZURE_OPENAI_API_KEY",
    }
    assert note(found, "(template)").fate is Fate.APPROXIMATED, "its loop writes roles"


def test_a_prompty_of_version_2_with_mustache_and_declared_outputs() -> None:
    found = convert("prompty/weather.prompty")
    prompt = written(found, "prompts/weather.prompt.yaml")
    assert (
        prompt["messages"][1]["content"]
        == "What will {{place}} be like in {{ days }} days? Look at {{ photo }}."
    )
    assert prompt["parameters"] == {"temperature": 0, "max_tokens": 200, "seed": 7}
    assert prompt["response_format"]["properties"]["degrees"] == {"type": "number"}
    assert prompt["response_format"]["required"] == ["summary", "degrees"]
    assert found.record.models["gpt_4o"]["api_key_env"] == "FIELD_KEY"


def prompty(tmp_path: Path, text: str, **others: str) -> Any:
    (tmp_path / "x.prompty").write_text(text, encoding="utf-8")
    for name, content in others.items():
        (tmp_path / name.replace("_", ".")).write_text(content, encoding="utf-8")
    return convert_file(tmp_path / "x.prompty", project())


def test_samples_and_formats_in_files_beside_are_read(tmp_path: Path) -> None:
    text = (
        "---\nsample: ${file:s.json}\nmodel: {parameters: {response_format: '${file:f.json}'}}\n---\n{{ a }}"
    )
    schema = {
        "type": "json_schema",
        "json_schema": {"name": "n", "strict": True, "schema": {"type": "object"}},
    }
    found = prompty(tmp_path, text, s_json='{"a": 7}', f_json=json.dumps(schema))
    assert written(found, "datasets/x.jsonl") == [{"id": "sample", "inputs": {"a": 7}}]
    assert written(found, "prompts/x.prompt.yaml")["response_format"] == {"type": "object"}
    assert note(found, "json_schema.name").fate is Fate.DROPPED


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("---\nname: x\n", 1, "never closed"),
        ("---\n- a\n---\nx", 2, "no mapping"),
        ("---\nname: x\n---\n\n", 4, "no text"),
        ("---\nname: x\ntemplate: mustache\n---\n{{#a}}x{{/a}}", 5, "Mustache"),
        ("---\nname: x\n---\n{% include 'y' %}", 4, "include"),
        ("---\nname: !!python/object:os.system x\n---\nx", 2, "tag"),
        ("---\nname: x\nname: y\n---\nx", 3, "twice"),
    ],
)
def test_a_broken_prompty_is_refused_with_its_line(text: str, line: int, said: str, tmp_path: Path) -> None:
    with pytest.raises(DefinitionError) as raised:
        prompty(tmp_path, text)
    assert raised.value.findings[0].line == line
    assert said in str(raised.value)


def test_inputs_of_names_that_templates_cannot_look_up_are_called_otherwise(tmp_path: Path) -> None:
    found = prompty(tmp_path, "---\ninputs: {output: {type: string}}\n---\nsystem:\n{{ output }} {{ steps }}")
    prompt = written(found, "prompts/x.prompt.yaml")
    assert prompt["messages"][0]["content"] == "{{ output_value }} {{ steps_value }}"
    assert "output is output_value" in note(found, "(template)").how


# --- GitHub Models ----------------------------------------------------------------------------------------------


def test_github_evaluators_mean_what_they_did() -> None:
    found = convert("github/summary.prompt.yml")
    uses = written(found, "experiments/summary.experiment.yaml")["evaluators"]
    assert uses[0] == {
        "contains": {"name": "names_the_keyword", "ignore_case": True, "expected": "{{ metadata.keyword }}"}
    }
    assert uses[1]["python"]["expected"] == "Dear {{ inputs.audience }}"
    assert uses[2]["python"]["expected"] == "."
    assert uses[3] == {"exact_match": {"name": "same"}}
    assert uses[4] == {"exact_match": {"name": "greeting", "expected": "Hello"}}
    assert uses[5]["judge"]["choices"] == {"good": 1, "bad": 0}
    assert uses[6]["judge"]["scale"] == [1, 5]
    judge = written(found, "prompts/summary_concise.prompt.yaml")["messages"]
    assert judge[0] == {"role": "system", "content": "You grade summaries."}
    assert "Summary: {{ output }}\nWanted: {{ expected }}" in judge[1]["content"]


def test_github_text_that_is_no_variable_stays_text() -> None:
    prompt = written(convert("github/summary.prompt.yml"), "prompts/summary.prompt.yaml")
    assert prompt["messages"][0]["content"] == (
        "You sum meetings up for {{ audience }}. "
        "Write {{ '{{' }} literally }} nothing else, and never {{ '{%' }} raw %}."
    )
    assert prompt["inputs"] == {"audience": "any", "minutes": "any"}


OBJECT = {"type": "object"}


@pytest.mark.parametrize(
    ("told", "schema"),
    [
        ("json_object", OBJECT),
        ('json_schema\njsonSchema: \'{"name": "n", "schema": {"type": "object"}}\'', OBJECT),
        ("json_schema\njsonSchema: {type: object, required: [a]}", {"type": "object", "required": ["a"]}),
        ("json_schema\njsonSchema: {name: n, schema: {type: object}}", OBJECT),
        ("json_schema\njsonSchema: '{'", None),
        ("json_schema\njsonSchema: {type: 7}", None),
    ],
)
def test_github_formats(told: str, schema: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.prompt.yml"
    path.write_text(f"messages: [{{role: user, content: hi}}]\nresponseFormat: {told}\n", encoding="utf-8")
    found = convert_file(path, project())
    assert written(found, "prompts/a.prompt.yaml").get("response_format") == schema


# --- promptfoo --------------------------------------------------------------------------------------------------


def test_what_every_test_asserts_is_an_evaluator_and_what_some_do_stands_in_their_cases() -> None:
    found = convert("promptfoo/promptfooconfig.yaml")
    experiment = written(found, "experiments/promptfoo.experiment.yaml")
    kinds = [next(iter(use)) if isinstance(use, dict) else use for use in experiment["evaluators"]]
    assert kinds == ["contains", "python", "judge", "python", "exact_match", "python"]
    assert experiment["repeats"] == 2
    assert experiment["gates"] == [
        {"metric": "latency_s.p95", "at_most": 4.0},
        {"metric": "cost_usd", "at_most": 0.018},
    ]
    assert experiment["x-gates"] == [{"metric": "llm_rubric", "at_least": 0.8}], "embedded judges no gate"
    cases = written(found, "datasets/promptfoo.jsonl")
    assert [case["expected"] for case in cases] == [
        *("fiction", "science", "history", "history", "history", "science", "science", "fiction", "fiction")
    ]
    assert cases[0]["metadata"]["asserts"] == [
        {"type": "regex", "value": "^[a-z]+$", "weight": 3},
        {"type": "starts-with", "value": "invented"},
    ]
    assert cases[0]["metadata"]["threshold"] == 0.5
    assert [case["inputs"]["title"] for case in cases[2:4]] == ["Kings", "Queens"]
    assert [case["inputs"]["author"] for case in cases[-2:]] == ["A. Verse", "B. Rhyme"]
    assert cases[4]["metadata"]["asserts"] == [
        {"type": "icontains-any", "value": ["map", "atlas"], "threshold": 0.5}
    ]


def test_a_judge_of_a_real_model_may_have_its_gate() -> None:
    known = project(judge={"provider": "openai", "model": "big"})
    found = convert_file(FILES / "promptfoo/promptfooconfig.yaml", known)
    experiment = written(found, "experiments/promptfoo.experiment.yaml")
    assert {"metric": "llm_rubric", "at_least": 0.8} in experiment["gates"]
    assert written(found, "prompts/promptfoo_llm_rubric.prompt.yaml")["model"] == "judge"


def test_every_prompt_meets_every_provider_once() -> None:
    experiment = written(convert("promptfoo/promptfooconfig.yaml"), "experiments/promptfoo.experiment.yaml")
    variants = list(experiment["variants"].values())
    assert len(variants) == 12 == len({json.dumps(variant) for variant in variants})
    assert {"prompt": "promptfoo", "parameters": {"temperature": 0, "max_tokens": 20}} in variants


def test_prompts_come_from_texts_chats_and_files() -> None:
    found = convert("promptfoo/promptfooconfig.yaml")
    chat = written(found, "prompts/promptfoo_shelf.prompt.yaml")["messages"]
    assert chat == [
        {"role": "system", "content": 'You are a librarian. Say "unsure" if you do not know.'},
        {"role": "user", "content": "{{title}}"},
    ]
    assert written(found, "prompts/promptfoo_two_of_them_2.prompt.yaml")["messages"][0]["content"].endswith(
        "Where does {{ author }} stand?"
    )


NOT_EQUALS = {"function": "p_checks:not_equals", "expected": "red"}


def promptfoo(tmp_path: Path, text: str) -> Any:
    (tmp_path / "p.yaml").write_text(text, encoding="utf-8")
    return convert_file(tmp_path / "p.yaml", project())


@pytest.mark.parametrize(
    ("assertion", "use"),
    [
        ("{type: equals, value: red}", {"exact_match": {"expected": "red"}}),
        ("{type: contains, value: red}", {"contains": {"text": "red"}}),
        ("{type: icontains-all, value: [a, b]}", {"contains": {"all": ["a", "b"], "ignore_case": True}}),
        ("{type: regex, value: a+, metric: m}", {"regex": {"name": "m", "pattern": "a+"}}),
        ("{type: is-json}", "json_valid"),
        ("{type: is-json, value: {type: object}}", {"json_schema": {"schema": {"type": "object"}}}),
        ("{type: contains, value: '{{ v }}'}", {"contains": {"text": "x"}}),
        ("{type: equals, value: '{% if 1 %}'}", None),
        ("{type: not-equals, value: red}", {"python": {"name": "not_equals", **NOT_EQUALS}}),
        ("{type: bleu, value: red cat}", {"bleu": {"expected": "red cat"}}),
        ("{type: rouge-n, value: red}", {"rouge": {"variants": ["rouge1", "rougeL"], "expected": "red"}}),
        ("{type: similar, value: red}", {"cosine": {"model": "default", "expected": "red"}}),
        ("{type: moderation}", None),
        ("{type: not-llm-rubric, value: x}", None),
    ],
)  # fmt: skip
def test_assertions_of_all_tests(assertion: str, use: Any, tmp_path: Path) -> None:
    found = promptfoo(
        tmp_path, f"prompts: ['{{{{v}}}}']\ntests: [{{vars: {{v: x}}, assert: [{assertion}]}}]\n"
    )
    experiment = written(found, "experiments/p.experiment.yaml")
    assert experiment.get("evaluators", []) == ([use] if use else [])
    assert (note(found, "tests[0].assert[0].type").fate is Fate.DROPPED) is (use is None)


def test_a_configuration_without_tests_gives_prompts_alone(tmp_path: Path) -> None:
    assert promptfoo(tmp_path, "prompts: [hello]\n").record.files == ("prompts/p.prompt.yaml",)


@pytest.mark.parametrize(
    "prompts", ["[file://x.py]", "[file://gone.txt]", "[]", "['{% include \"x\" %}']", "7"]
)
def test_a_configuration_without_a_prompt_to_write_is_refused(prompts: str, tmp_path: Path) -> None:
    with pytest.raises(DefinitionError):
        promptfoo(tmp_path, f"prompts: {prompts}\n")


# --- prompt flow ------------------------------------------------------------------------------------------------


def test_a_flow_is_a_chain_with_its_prompts_and_modules() -> None:
    found = convert("promptflow/flow.dag.yaml")
    chain = written(found, "chains/promptflow.chain.yaml")
    assert [(step["id"], *(set(step) - {"id", "with"})) for step in chain["steps"]] == [
        ("find", "python"),
        ("show_context", "python"),
        ("answer_step", "prompt"),
        ("apology", "branch"),
    ]
    assert chain["outputs"] == {"answer": "{{ answer_step.output }}", "first": "{{ find.output.first }}"}
    branch = chain["steps"][3]["branch"]
    (arm,) = branch["when"]
    assert (arm["if"], branch["else"]) == ("{{ find.output.empty == true }}", None)
    assert arm["do"]["with"] == {"text": "Question was: {{ question }}"}
    messages = written(found, "prompts/promptflow_answer_step.prompt.yaml")["messages"]
    assert [message["role"] for message in messages] == ["system", "user"]


def test_variants_of_a_node_are_chains_that_one_experiment_compares() -> None:
    found = convert("promptflow/flow.dag.yaml")
    variants = written(found, "experiments/promptflow.experiment.yaml")["variants"]
    assert variants == {
        "promptflow": {"chain": "promptflow"},
        "promptflow_answer_step_variant_1": {"chain": "promptflow_answer_step_variant_1"},
    }
    other = written(found, "prompts/promptflow_answer_step_variant_1.prompt.yaml")
    assert other["parameters"] == {"max_tokens": 30}
    assert other["messages"] == [{"role": "user", "content": "Answer in three words: {{ question }}"}]


def test_the_python_of_a_flow_needs_prompt_flow_no_more(tmp_path: Path) -> None:
    root = place(tmp_path)
    assert llmops_inside("convert", str(FILES / "promptflow/flow.dag.yaml"), cwd=root).returncode == 0
    done = llmops_inside(
        *(
            "run",
            "chains/promptflow",
            "--input=question=Sundays?",
            "--input=chat_history=[]",
            "--input=answer=x",
        ),
        *("--input=top=1", "--json"),
        cwd=root,
    )
    value = json.loads(done.stdout)["value"]
    assert value["first"] == {"text": "On Sundays we open at ten."}


def test_a_tool_that_is_not_there_raises_with_what_to_write(tmp_path: Path) -> None:
    root = place(tmp_path)
    path = copied("promptflow_tools/flow.dag.yaml", tmp_path)
    path.with_name("needs.py").write_text("def second(text):\n    return text\n", encoding="utf-8")
    llmops_inside("convert", str(path), cwd=root)
    done = llmops_inside("run", "chains/promptflow_tools", "--input=text=x", cwd=root)
    assert done.returncode == 2
    assert "was a tool of type" in done.stderr and "write it here" in done.stderr


# --- OpenAI Evals -----------------------------------------------------------------------------------------------


def test_samples_share_a_prompt_where_their_messages_have_one_shape() -> None:
    found = convert("evals/capitals.yaml")
    prompt = written(found, "prompts/capitals.prompt.yaml")
    assert prompt["messages"] == [
        {"role": "system", "content": "Name the capital."},
        {"role": "system", "content": "Norway"},
        {"role": "user", "content": "{{ input }}"},
    ]
    cases = written(found, "datasets/capitals.jsonl")
    assert cases[1] == {"id": "s-2", "inputs": {"input": "Peru"}, "expected": ["Lima", "City of Kings"]}
    assert cases[0]["metadata"] == {"continent": "Europe"}
    experiment = written(found, "experiments/capitals.experiment.yaml")
    assert experiment["variants"] == {"capitals": {"prompt": "capitals", "parameters": {"max_tokens": 20}}}
    assert experiment["evaluators"] == [{"python": {"name": "match", "function": "capitals_checks:match"}}]
    assert written(found, "experiments/rivers.experiment.yaml")["evaluators"] == [
        {"contains": {"ignore_case": True}}
    ]
    assert "evaluators" not in written(found, "experiments/graded.experiment.yaml")


def test_samples_of_different_shapes_are_one_text() -> None:
    found = convert("evals/shop/mixed.jsonl")
    assert written(found, "prompts/mixed.prompt.yaml")["messages"][0]["content"] == "{{ conversation }}"
    assert (
        written(found, "datasets/mixed.jsonl")[1]["inputs"]["conversation"] == "system: Count.\n\nuser: Two"
    )


# --- which format it is -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "x"),
        ("a.yaml", "x: 1"),
        ("a.yaml", "- 1"),
        ("a.yaml", "a: !!python/object/apply:os.system [x]"),
        ("a.yaml", "a: [" * 80),
        ("a.jsonl", '{"input": 1'),
        ("a.jsonl", '{"ideal": 1}'),
        ("a.jsonl", ""),
        ("a.prompt.yml", "messages: x"),
        ("flow.dag.yaml", "nodes: []"),
        ("flow.dag.yaml", "nodes: [1, {name: x, aggregation: true}]"),
    ],
)
def test_what_is_none_of_the_formats_is_refused_in_words(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(LlmopsError):
        convert_file(tmp_path / name, project())


def test_somebody_may_say_which_format_it_is_and_what_it_is_called(tmp_path: Path) -> None:
    shutil.copy(FILES / "prompty/shortest.prompty", tmp_path / "x.md")
    found = convert_file(tmp_path / "x.md", project(), form="prompty", name="hello")
    assert found.record.files == ("prompts/hello.prompt.yaml",)
    with pytest.raises(UsageError, match="prompty"):
        convert_file(tmp_path / "x.md", project(), form="promty")
    for name in ("../x", "a/b", ""):
        with pytest.raises(UsageError):
            convert_file(tmp_path / "x.md", project(), form="prompty", name=name)
