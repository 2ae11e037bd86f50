from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops import secrets
from llmops.secrets import (
    Secret,
    clean_cause,
    register,
    register_address,
    register_environment,
    scrub,
    scrub_bytes,
    scrub_data,
    scrub_json,
    scrub_told,
    without_secrets,
)

KEY = "sk-canary/01+23=&<4>56789"


@pytest.fixture(autouse=True, scope="module")
def registered() -> Iterator[None]:
    """Register the key, and let nothing of these tests be secret to others."""
    before = dict(secrets._known)
    register(KEY)
    yield
    secrets._known.clear()
    secrets._known.update(before)


# --- spellings --------------------------------------------------------------------------------------------


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
    assert scrub(f"Bearer {spelled}.") == "Bearer ***."
    assert scrub_bytes(f"Bearer {spelled}.".encode()) == b"Bearer ***."


@given(before=st.binary(max_size=20), after=st.binary(max_size=20), urlsafe=st.booleans())
def test_a_secret_is_masked_in_base64_whatever_stands_around_it_s07(
    before: bytes, after: bytes, urlsafe: bool
) -> None:
    encode = base64.urlsafe_b64encode if urlsafe else base64.b64encode
    decode = base64.urlsafe_b64decode if urlsafe else base64.b64decode
    scrubbed = scrub(encode(before + KEY.encode() + after).decode())
    assert "***" in scrubbed
    for piece in scrubbed.split("***"):
        for start in range(4):
            rest = piece[start : start + (len(piece) - start) // 4 * 4]
            assert KEY[2:-2].encode() not in decode(rest + "=" * (-len(rest) % 4))


@given(st.text())
def test_scrubbing_leaves_text_without_the_secret_alone(text: str) -> None:
    assert scrub(text) == text


def test_what_anybody_would_guess_is_no_secret_and_spoils_no_text() -> None:
    register("test", "password", "postgres", "correcthorse", "12345678")
    text = "a test of tests: postgres forgot its password, correcthorse; 0.12345678"
    assert scrub(text) == text


@given(st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=0x2FF), min_size=8), st.text())
def test_any_secret_goes_in_plain_and_out_masked_in_json_too(secret: str, around: str) -> None:
    value = f"{secret}a1"
    register(value)
    assert value not in scrub(f"{around}{value}{around}")
    (found,) = json.loads(scrub_json(json.dumps([{value: [value]}])))
    assert value not in str(found)


def test_json_within_json_is_masked_too() -> None:
    register('quo"ted/key-0123')
    inner = json.dumps({"said": 'quo"ted/key-0123'})
    assert "key-0123" not in scrub(json.dumps(inner))
    assert "key-0123" not in scrub(json.dumps(inner.replace("/", "\\/")))


def test_json_stays_json_whatever_the_secret() -> None:
    register('b","c":"d1234567', "31415926535897932384")
    text = json.dumps({"a": 'b","c":"d1234567', "n": [0.5, 31415926535897932384]})
    assert json.loads(scrub_json(text)) == {"a": "***", "n": [0.5, 31415926535897932384]}
    plain = '{ "a" : 1 }'
    assert scrub_json(plain) is plain


def test_data_is_scrubbed_in_every_text_of_it_names_too() -> None:
    data = {KEY: [KEY, {"x": f"a {KEY}"}, 1, None], "y": (True, 2.5)}
    assert scrub_data(data) == {"***": ["***", {"x": "a ***"}, 1, None], "y": [True, 2.5]}


# --- where they come from ---------------------------------------------------------------------------------


def test_an_environment_gives_what_is_named_what_is_known_and_passwords_in_addresses() -> None:
    register_environment(
        {
            "TEAM_KEY": "team-key-4711",
            "PGPASSWORD": "pg-word-4711",
            "HTTPS_PROXY": "http://me:pr%40xy-4711@proxy.test:8080",
            "HOME": "/home/with-4711",
        },
        ["TEAM_KEY", None, "ABSENT"],
    )
    basic = base64.b64encode(b"me:pr@xy-4711").decode()
    told = f"team-key-4711 pg-word-4711 pr%40xy-4711 pr@xy-4711 {basic} /home/with-4711"
    assert scrub(told) == f"*** *** *** *** ***{basic[-3:]} /home/with-4711"


def test_an_address_that_is_none_registers_nothing() -> None:
    for address in ("http://[me:pass-4712@", "http://host.test", "me:pass-4712"):
        register_address(address)
    assert scrub("pass-4712") == "pass-4712"


def test_an_error_shows_no_user_of_an_address_however_weak_the_password() -> None:
    assert scrub_told(f"no https://u:p@host.test:1/x?y#z, {KEY}") == "no https://***@host.test:1/x?y#z, ***"
    assert scrub_told("see https://host.test/a@b") == "see https://host.test/a@b"


def test_a_child_process_that_needs_no_secret_gets_none() -> None:
    environment = {"A": KEY, "B": f"Bearer {KEY}", "PATH": "/bin"}
    assert without_secrets(environment) == {"PATH": "/bin"}


def test_a_secret_says_where_it_comes_from_and_nothing_else() -> None:
    assert repr(Secret("MY_KEY", KEY)) == "Secret(MY_KEY)"


# --- causes -----------------------------------------------------------------------------------------------


class _Telling(Exception):
    def __repr__(self) -> str:
        return f"_Telling(headers={{'Authorization': 'Bearer {KEY}'}})"


@pytest.mark.parametrize(
    ("error", "stays"),
    [
        (ValueError("plain"), True),
        (ValueError(KEY), False),
        (_Telling("quiet"), False),
        (ExceptionGroup("all", [ValueError(KEY)]), False),
    ],
)
def test_an_error_that_tells_a_secret_is_no_cause_S07(error: Exception, stays: bool) -> None:
    assert (clean_cause(error) is error) == stays


def test_an_error_is_no_cause_for_what_stands_behind_it_either_S07() -> None:
    error = ValueError("plain")
    error.__context__ = KeyError("plain too")
    assert clean_cause(error) is error
    error.__context__.__cause__ = RuntimeError(f"Illegal header value b'Bearer {KEY}'")
    assert clean_cause(error) is None
    noted = ValueError("plain")
    noted.add_note(f"sent {KEY}")
    assert clean_cause(noted) is None
