"""llmops.yaml: what it may say, and that no secret stands in it."""

from __future__ import annotations

import datetime as dt

import pytest

from llmops.definitions.build import build
from llmops.definitions.project import ModelDefinition, Project
from llmops.definitions.yaml_reader import read_yaml
from llmops.errors import DefinitionError

DESIGNED = """\
models:
  default: {provider: embedded}
  judge:   {provider: openai, endpoint_env: JUDGE_URL, api_key_env: JUDGE_KEY, model: my-judge}
  nemo:    {provider: azure_inference, endpoint_env: AZURE_AI_ENDPOINT, api_key_env: AZURE_AI_KEY,
            model: mistral-nemo, on_unknown: retry,
            limits: {rpm: 300, tpm: 200000, concurrency: 32, timeout_s: 60, attempts: 5},
            price: {input_per_mtok: 0.15, output_per_mtok: 0.15},
            card: {license: apache-2.0, open_weights: true, modalities: [text], context_tokens: 128000,
                   hosting: serverless, params_b: 12, regions: [eu], retires: 2027-06-30}}
tracking: {uri: sqlite:///mlflow.db}
store: {url: sqlite:///.llmops/store.db}
"""


def project_of(text: str) -> Project:
    return build(Project, read_yaml(text.encode(), "llmops.yaml"))


def finding_of(text: str) -> str:
    with pytest.raises(DefinitionError) as caught:
        project_of(text)
    (finding,) = caught.value.findings
    return str(finding)


def model_of(text: str) -> ModelDefinition:
    return project_of(f"models: {{m: {{provider: openai, {text}}}}}").models["m"]


def test_the_project_of_the_design_is_read_as_written() -> None:
    project = project_of(DESIGNED)
    assert list(project.models) == ["default", "judge", "nemo"]
    nemo = project.models["nemo"]
    assert nemo.limits.concurrency == 32
    assert nemo.card is not None
    assert nemo.card.retires == dt.date(2027, 6, 30)
    assert nemo.price is not None
    assert nemo.price.input_per_mtok == 0.15


def test_a_project_that_says_nothing_has_the_embedded_model_and_local_stores() -> None:
    project = Project()
    assert {name: model.provider for name, model in project.models.items()} == {"default": "embedded"}
    assert project.tracking.uri == "sqlite:///mlflow.db"
    assert project.store.url == "sqlite:///.llmops/store.db"


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("models:\n  m: {provider: openai, modle: x}", "llmops.yaml:2:25", "did you mean 'model'?"),
        ("models: {m: {}}", "llmops.yaml:1:10", "'provider' is missing"),
        ("models:\n  m: {provider: x, limits: {rpm: 0}}", "llmops.yaml:2:29", "at least 1"),
        ("models:\n  m: {provider: x, limits: {rpm: '9'}}", "llmops.yaml:2:29", "write it without quotes"),
        (
            "models:\n  m: {provider: x, price: {input_per_mtok: -1, output_per_mtok: 1}}",
            ":2:28",
            "at least 0",
        ),
        ("models:\n  m: {provider: x, card: {retires: soon}}", "llmops.yaml:2:27", "a date like 2027-06-30"),
        ("models:\n  m: {provider: x, endpoint: http://a, endpoint_env: B}", ":2:3", "not both"),
        ("models: {a b: {provider: x}}", "llmops.yaml:1:10", "A-Za-z0-9_.-"),
        ("tracking: {uri: 5}", "llmops.yaml:1:12", "should be text"),
        ("stoer: {}", "llmops.yaml:1:1", "did you mean 'store'?"),
    ],
)
def test_a_slip_is_told_with_its_place(text: str, place: str, message: str) -> None:  # F73
    found = finding_of(text)
    assert place in found
    assert message in found


@pytest.mark.parametrize("key", ["api_key_env", "endpoint_env"])
@pytest.mark.parametrize("value", ["sk-proj-1234567890", "https://host/v1", "A B", "1A", "KEY=value"])
def test_a_key_in_place_of_its_variable_is_refused_and_not_repeated(key: str, value: str) -> None:  # S07
    found = finding_of(f"models:\n  m: {{provider: openai, {key}: '{value}'}}")
    assert "names an environment variable" in found
    assert value not in found


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://team:hunter2@db.example/llmops",
        "postgresql+psycopg://team:hunter2@db.example:5432/x",
        "https://user:hunter2@mlflow.example",
        "postgresql://db.example/x?password=hunter2",
    ],
)
@pytest.mark.parametrize("key", ["store: {url", "tracking: {uri"])
def test_a_password_in_an_address_is_refused_and_not_repeated(key: str, url: str) -> None:  # S07
    found = finding_of(f"{key}: '{url}'}}")
    assert "a password never stands in a file" in found
    assert "hunter2" not in found


@pytest.mark.parametrize(
    "url", ["postgresql://team@db.example:5432/x", "sqlite:////data/a:b@c.db", "http://localhost:5000/@x"]
)
def test_an_address_without_a_password_is_taken(url: str) -> None:
    assert project_of(f"store: {{url: '{url}'}}").store.url == url


def test_only_what_can_change_a_reply_changes_the_identity_of_a_model() -> None:
    plain = model_of("model: m, endpoint_env: U")
    same = model_of(
        "model: m, endpoint_env: U, api_key_env: K, stream: true, limits: {rpm: 5}, on_unknown: fail, "
        "price: {input_per_mtok: 1, output_per_mtok: 1}, card: {license: mit}"
    )
    assert plain.identity("v1") == same.identity("v1")
    others = [
        plain.identity("v2"),
        model_of("model: n, endpoint_env: U").identity("v1"),
        model_of("model: m, endpoint_env: V").identity("v1"),
        model_of("model: m, endpoint: https://u").identity("v1"),
        model_of("model: m").identity("v1"),
        model_of("model: m, endpoint_env: U, api_version: 2024-10-21").identity("v1"),
    ]
    assert len({plain.identity("v1"), *others}) == 7
    assert model_of("model: m, endpoint_env: U, auth: entra").identity("v1") == plain.identity("v1")


def test_a_key_and_signing_in_exclude_each_other() -> None:
    found = finding_of("models:\n  m:\n    provider: openai\n    api_key_env: K\n    auth: entra")
    assert "llmops.yaml:" in found
    assert "give api_key_env or auth, not both" in found
    assert "entra" in finding_of("models: {m: {provider: openai, auth: azure}}")


def test_an_unknown_price_is_unknown_and_the_embedded_model_is_free() -> None:
    assert model_of("model: m").pricing() is None
    free = ModelDefinition(provider="embedded").pricing()
    assert free is not None
    assert (free.input_per_mtok, free.output_per_mtok) == (0, 0)
