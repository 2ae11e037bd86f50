from __future__ import annotations

from typing import Any

import pytest

from llmops.definitions.project import ModelDefinition
from llmops.errors import UsageError
from llmops.models.access import Access, resolve_access
from llmops.secrets import scrub

KEY = "sk-canary/01+23=&<4>56789"
OWN = "https://api.provider.test/v1"


def resolve(environment: dict[str, str] | None = None, **fields: Any) -> Access:
    return resolve_access(
        "judge",
        ModelDefinition(provider="openai", model="m", **fields),
        environment or {},
        default_endpoint=OWN,
        own_hosts=("api.provider.test",),
    )


def refusal(environment: dict[str, str] | None = None, **fields: Any) -> str:
    with pytest.raises(UsageError) as caught:
        resolve(environment, **fields)
    return str(caught.value)


# --- a secret ---------------------------------------------------------------------------------------------


def test_a_secret_does_not_show_itself() -> None:
    proxy = "http://me:pr0xy-pass@proxy.test"
    access = resolve({"JUDGE_KEY": KEY, "HTTPS_PROXY": proxy}, api_key_env="JUDGE_KEY")
    shown = f"{access!r} {access} {access.key!r} {access.key}"
    assert KEY not in shown
    assert access.proxy == proxy and "pr0xy-pass" not in shown
    assert scrub("pr0xy-pass") == "***"
    assert "JUDGE_KEY" in shown


# --- what is missing or malformed -------------------------------------------------------------------------


@pytest.mark.parametrize("empty", [{}, {"JUDGE_URL": "", "JUDGE_KEY": " \n"}])
def test_all_missing_and_empty_variables_are_named_at_once_f75(empty: dict[str, str]) -> None:
    message = refusal(empty, endpoint_env="JUDGE_URL", api_key_env="JUDGE_KEY")
    assert "judge" in message
    assert "JUDGE_URL" in message
    assert "JUDGE_KEY" in message


@pytest.mark.parametrize("form", ["{}\n", " {}", "{} x", "{}\t", "{}\x7f", "{}é", "{}\u2028"])
def test_a_key_that_no_header_can_hold_is_refused_by_name_not_value(form: str) -> None:
    message = refusal({"JUDGE_KEY": form.format(KEY)}, api_key_env="JUDGE_KEY")
    assert "JUDGE_KEY" in message
    assert KEY not in message


@pytest.mark.parametrize(
    "endpoint",
    [
        "api.provider.test/v1",
        "ftp://api.provider.test",
        "file:///etc/passwd",
        "https://",
        "https:///v1",
        "https://user:password@api.provider.test/v1",
        "https://api.provider.test@evil.test/v1",
        "https://api.provider.test\\@evil.test/v1",
        "https://api.provider.test/v1?key=1",
        "https://api.provider.test/v1#x",
        "https://api.provider.test/v1\n",
        "https://api provider.test",
        "https://ⓔvil.test/",
        "https://api.provider.test:port",
    ],
)
def test_an_endpoint_that_two_parsers_could_read_differently_is_refused_s14(endpoint: str) -> None:
    assert "http(s)://HOST" in refusal(endpoint=endpoint)
    from_environment = refusal({"JUDGE_URL": endpoint}, endpoint_env="JUDGE_URL")
    assert "JUDGE_URL" in from_environment
    assert endpoint.strip() not in from_environment


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "2852039166",
        "0xa9fea9fe",
        "0251.0376.0251.0376",
        "169.16689662",
        "[fe80::1]",
        "[::ffff:169.254.169.254]",
        "[::ffff:a9fe:a9fe]",
    ],
)
def test_an_endpoint_among_cloud_metadata_is_refused_in_every_spelling_s14(host: str) -> None:
    assert "link-local" in refusal(endpoint=f"http://{host}/latest")


def test_without_any_endpoint_the_message_says_where_to_give_one() -> None:
    with pytest.raises(UsageError, match="give endpoint or endpoint_env"):
        resolve_access("m", ModelDefinition(provider="x"), {}, default_endpoint=None, own_hosts=())


# --- where a key may go -----------------------------------------------------------------------------------


def test_a_key_goes_to_the_providers_own_host() -> None:
    access = resolve({"JUDGE_KEY": KEY}, api_key_env="JUDGE_KEY")
    assert access.endpoint == OWN
    assert access.key is not None
    assert access.key.value == KEY


def test_a_key_goes_to_the_host_that_a_variable_names() -> None:
    environment = {"JUDGE_KEY": KEY, "JUDGE_URL": "https://judge.test:8443/openai/v1/"}
    access = resolve(environment, endpoint_env="JUDGE_URL", api_key_env="JUDGE_KEY")
    assert access.endpoint == "https://judge.test:8443/openai/v1"


@pytest.mark.parametrize(
    "host", ["evil.test", "127.0.0.1", "api.provider.test.evil.test", "api.provider.test."]
)
def test_a_key_goes_to_no_host_that_only_a_file_names_s14(host: str) -> None:
    message = refusal({"JUDGE_KEY": KEY}, endpoint=f"https://{host}/v1", api_key_env="JUDGE_KEY")
    assert host in message
    assert "LLMOPS_SECRET_HOSTS" in message
    assert "endpoint_env" in message
    assert KEY not in message


@pytest.mark.parametrize(
    ("listed", "may"),
    [
        ("judge.test", True),
        ("other.test, judge.test", True),
        ("judge.test:8443", True),
        ("JUDGE_KEY=judge.test", True),
        ("JUDGE_KEY=judge.test:8443", True),
        ("OTHER_KEY=judge.test", False),
        ("judge.test:443", False),
        ("test", False),
        ("*", False),
        ("", False),
    ],
)
def test_a_key_goes_to_hosts_listed_in_the_environment_for_it(listed: str, may: bool) -> None:
    environment = {"JUDGE_KEY": KEY, "LLMOPS_SECRET_HOSTS": listed}
    fields = {"endpoint": "https://JUDGE.test:8443/v1", "api_key_env": "JUDGE_KEY"}
    if may:
        assert resolve(environment, **fields).key is not None
    else:
        assert "judge.test" in refusal(environment, **fields)


@pytest.mark.parametrize(
    ("host", "may"),
    [
        ("127.0.0.1:8000", True),
        ("localhost", True),
        ("[::1]:1", True),
        ("10.0.0.1", False),
        ("judge.test", False),
    ],
)
def test_a_key_leaves_this_machine_encrypted_or_not_at_all(host: str, may: bool) -> None:
    environment = {"JUDGE_KEY": KEY, "JUDGE_URL": f"http://{host}/v1"}
    fields = {"endpoint_env": "JUDGE_URL", "api_key_env": "JUDGE_KEY"}
    if may:
        assert resolve(environment, **fields).key is not None
    else:
        assert "without encryption" in refusal(environment, **fields)


def test_a_model_without_a_key_may_stand_anywhere() -> None:
    access = resolve({"OPENAI_API_KEY": KEY}, endpoint="http://10.0.0.5:11434/v1")
    assert access.key is None
    assert access.endpoint == "http://10.0.0.5:11434/v1"


# --- the proxy --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "environment", "proxy"),
    [
        ("https://a.test", {"HTTPS_PROXY": "http://proxy.test:1"}, "http://proxy.test:1"),
        (
            "https://a.test",
            {"https_proxy": "http://low.test", "HTTPS_PROXY": "http://up.test"},
            "http://low.test",
        ),
        ("https://a.test", {"HTTP_PROXY": "http://proxy.test"}, None),
        ("http://a.test", {"ALL_PROXY": "http://proxy.test"}, "http://proxy.test"),
        ("https://a.b.test", {"HTTPS_PROXY": "http://proxy.test", "NO_PROXY": "x.test, .b.test"}, None),
        ("https://ab.test", {"HTTPS_PROXY": "http://proxy.test", "NO_PROXY": "b.test"}, "http://proxy.test"),
        ("https://a.test", {"HTTPS_PROXY": "http://proxy.test", "no_proxy": "*"}, None),
        ("http://127.0.0.1:1", {"HTTP_PROXY": "http://proxy.test"}, None),
    ],
)
def test_the_proxy_is_the_one_that_the_given_environment_names(
    endpoint: str, environment: dict[str, str], proxy: str | None
) -> None:
    assert resolve(environment, endpoint=endpoint).proxy == proxy


def test_a_proxy_of_another_kind_is_refused_without_showing_its_address() -> None:
    message = refusal({"ALL_PROXY": "socks5://user:password@proxy.test"}, endpoint="https://a.test")
    assert "proxy" in message
    assert "password" not in message
