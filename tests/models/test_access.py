from __future__ import annotations

import base64
import html
import json
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.definitions.project import ModelDefinition
from llmops.errors import UsageError
from llmops.models.access import Access, Secret, resolve_access

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


@pytest.mark.parametrize(
    "spelled",
    [
        KEY,
        quote(KEY),
        quote(KEY, safe=""),
        "sk-canary%2f01%2b23%3d%26%3c4%3e56789",
        quote_plus(KEY),
        json.dumps(KEY)[1:-1],
        json.dumps(KEY)[1:-1].replace("/", "\\/"),
        html.escape(KEY),
        KEY.encode().hex(),
        KEY.encode().hex().upper(),
    ],
)
def test_a_secret_is_masked_however_it_is_spelled_s07(spelled: str) -> None:
    secret = Secret("JUDGE_KEY", KEY)
    assert secret.scrub(f"Bearer {spelled}.") == "Bearer ***."
    assert secret.scrub_bytes(f"Bearer {spelled}.".encode()) == b"Bearer ***."


@given(before=st.binary(max_size=20), after=st.binary(max_size=20), urlsafe=st.booleans())
def test_a_secret_is_masked_in_base64_whatever_stands_around_it_s07(
    before: bytes, after: bytes, urlsafe: bool
) -> None:
    encode = base64.urlsafe_b64encode if urlsafe else base64.b64encode
    decode = base64.urlsafe_b64decode if urlsafe else base64.b64decode
    scrubbed = Secret("JUDGE_KEY", KEY).scrub(encode(before + KEY.encode() + after).decode())
    assert "***" in scrubbed
    for piece in scrubbed.split("***"):
        for start in range(4):
            rest = piece[start : start + (len(piece) - start) // 4 * 4]
            assert KEY[2:-2].encode() not in decode(rest + "=" * (-len(rest) % 4))


@given(st.text())
def test_scrubbing_leaves_text_without_the_secret_alone(text: str) -> None:
    assert Secret("JUDGE_KEY", KEY).scrub(text) == text


def test_a_stand_in_key_is_too_short_to_be_a_secret_and_spoils_no_text() -> None:
    assert Secret("JUDGE_KEY", "test").scrub("a test of tests") == "a test of tests"


def test_a_secret_does_not_show_itself() -> None:
    access = resolve({"JUDGE_KEY": KEY}, api_key_env="JUDGE_KEY")
    shown = f"{access!r} {access} {access.key!r} {access.key}"
    assert KEY not in shown
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
