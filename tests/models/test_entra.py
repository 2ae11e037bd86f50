"""Signing in without a key: azure-identity itself, against an identity endpoint on this machine."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmops.definitions.project import ModelDefinition
from llmops.errors import AccessError, ModelError, UnavailableError, UsageError
from llmops.models import entra, open_model
from llmops.models.base import Model
from llmops.models.entra import SCOPE, EntraTokens
from llmops.records import EmbeddingRequest, Message, Reply, Request
from llmops.secrets import scrub
from tests.model_server import IDENTITY, ModelServer, running_model_server
from tests.models.conformance import defined

ROOT = Path(__file__).parent.parent.parent
PROVIDERS = ("azure_inference", "azure_openai", "azure_openai/sdk", "openai", "openai/sdk")


@pytest.fixture
def azure(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    """Give a server that also is the identity endpoint of an App Service."""
    with running_model_server() as server:
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{server.base_url}/identity")
        monkeypatch.setenv("IDENTITY_HEADER", IDENTITY)
        monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
        yield server


def signed_in(provider: str, server: ModelServer) -> Model:
    definition = defined(provider, auth="entra", api_key_env=None)
    return open_model("tested", definition, {"URL": server.url_of(definition.provider)})


def ask(provider: str, server: ModelServer, *texts: str) -> list[Reply]:
    async def ask_all() -> list[Reply]:
        model = signed_in(provider, server)
        try:
            requests = [Request(messages=(Message(role="user", content=text),)) for text in texts]
            return [await model.complete(request, call_id="call", timeout_s=20) for request in requests]
        finally:
            await model.close()

    return asyncio.run(ask_all())


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_token_goes_out_as_the_bearer_and_in_no_other_header(provider: str, azure: ModelServer) -> None:
    ask(provider, azure, "hello")
    (noted,) = azure.received
    (fetched,) = azure.tokens
    assert fetched["resource"] == SCOPE.removesuffix("/.default")
    assert noted.headers["authorization"] == f"Bearer {fetched['token']}"
    assert "api-key" not in noted.headers


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_token_is_fetched_once_and_kept_for_all_that_is_asked(provider: str, azure: ModelServer) -> None:
    async def ask_side_by_side() -> None:
        model = signed_in(provider, azure)
        request = EmbeddingRequest(inputs=("hello",))
        try:
            await asyncio.gather(*(model.embed(request, call_id=str(n), timeout_s=20) for n in range(8)))
        finally:
            await model.close()

    asyncio.run(ask_side_by_side())
    assert (len(azure.received), len(azure.tokens)) == (8, 1)


def test_a_token_that_is_about_to_end_is_not_sent_again(azure: ModelServer) -> None:
    azure.token_life_s = 0
    ask("openai", azure, "one", "two")
    assert len(azure.tokens) == 2
    sent = [noted.headers["authorization"] for noted in azure.received]
    assert sent == [f"Bearer {fetched['token']}" for fetched in azure.tokens]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_no_fault_brings_the_token_to_light_s07(provider: str, azure: ModelServer) -> None:
    (reply,) = ask(provider, azure, "[[fault:echo-key]]")
    with pytest.raises(AccessError, match="whoever is signed in to Entra ID") as caught:
        ask(provider, azure, "[[fault:401-echo]]")
    shown = (
        f"{reply!r} {reply.raw!r} {''.join(traceback.format_exception(caught.value))} {caught.value.body!r}"
    )
    assert "***" in reply.text
    assert "***" in str(caught.value)
    assert azure.tokens and scrub(shown) == shown


def test_a_holder_of_tokens_does_not_show_them(azure: ModelServer) -> None:
    async def shown() -> str:
        tokens = EntraTokens("tested")
        try:
            return repr(await tokens.current())
        finally:
            await tokens.close()

    assert asyncio.run(shown()) == "Secret(entra)"


# --- where nobody is signed in ----------------------------------------------------------------------------


def failure(provider: str, server: ModelServer) -> ModelError:
    with pytest.raises(ModelError) as caught:
        ask(provider, server, "hello")
    assert server.received == []
    assert caught.value.sent is False
    return caught.value


@pytest.mark.parametrize("provider", PROVIDERS)
def test_where_nobody_is_signed_in_nothing_is_sent_and_the_message_says_how_to(
    provider: str, azure: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
    error = failure(provider, azure)
    assert type(error) is AccessError
    assert str(error).startswith("model 'tested': no one is signed in to Entra ID; sign in with az login, or")
    assert "\n" not in str(error)


def test_an_identity_endpoint_that_refuses_is_no_one_signed_in(
    azure: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IDENTITY_HEADER", "somebody-else")
    assert type(failure("openai", azure)) is AccessError


def test_an_identity_endpoint_that_does_not_answer_is_worth_another_try(
    azure: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entra, "FETCH_S", 0.3)
    azure.token_life_s = -1
    error = failure("openai", azure)
    assert type(error) is UnavailableError
    assert error.retryable


def test_without_the_package_the_message_says_what_to_install(tmp_path: Path) -> None:
    (site,) = {Path(path) for path in sys.path if (Path(path) / "azure" / "identity").is_dir()}
    (tmp_path / "azure").mkdir()
    for folder, kept in ((site, tmp_path), (site / "azure", tmp_path / "azure")):
        for entry in folder.iterdir():
            if entry.name not in {"azure", "identity"}:
                (kept / entry.name).symlink_to(entry)
    program = """
from llmops.definitions.project import ModelDefinition
from llmops.errors import UsageError
from llmops.models import open_model
definition = ModelDefinition(provider="openai", model="m", auth="entra", endpoint_env="URL")
try:
    open_model("m", definition, {"URL": "https://m.test"})
except UsageError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        env={"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    expected = "install what that takes: pip install 'llmops-workbench[azure]'"
    assert done.stdout.strip().endswith(expected), done.stderr


# --- where a token may go ---------------------------------------------------------------------------------


def test_a_token_goes_to_no_host_that_only_a_file_names_not_even_azures_or_openais() -> None:
    for endpoint in ("https://mine.openai.azure.com/openai/v1", "https://api.openai.com/v1"):
        definition = ModelDefinition(provider="openai", model="m", auth="entra", endpoint=endpoint)
        with pytest.raises(UsageError, match=r"would send a token of Entra ID to .*LLMOPS_SECRET_HOSTS"):
            open_model("tested", definition, {})
    host = "mine.openai.azure.com"
    mine = ModelDefinition(provider="openai", model="m", auth="entra", endpoint=f"https://{host}/openai/v1")
    for allowed in (host, f"entra={host}"):
        open_model("tested", mine, {"LLMOPS_SECRET_HOSTS": allowed})
    with pytest.raises(UsageError):
        open_model("tested", mine, {"LLMOPS_SECRET_HOSTS": f"KEY={host}"})


def test_a_token_has_no_endpoint_by_default_and_goes_nowhere_unencrypted() -> None:
    definition = ModelDefinition(provider="openai", model="m", auth="entra")
    with pytest.raises(UsageError, match="no endpoint"):
        open_model("tested", definition, {})
    named = definition.model_copy(update={"endpoint_env": "URL"})
    with pytest.raises(UsageError, match="without encryption"):
        open_model("tested", named, {"URL": "http://mine.openai.azure.com/openai/v1"})
