from __future__ import annotations

import datetime as dt
import json
import math
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.errors import (
    AccessError,
    ModelError,
    RateLimitError,
    RefusalError,
    RequestError,
    UnavailableError,
)
from llmops.models.access import Access
from llmops.models.failures import DIAGNOSIS_BYTES, QUOTA_CODES, retry_after_s, service_error
from llmops.secrets import Secret

KEY = "sk-canary-0123456789"
ACCESS = Access("judge", "https://judge.test/v1", "the endpoint in JUDGE_URL", Secret("JUDGE_KEY", KEY))


def failed(status: int | None, body: object = None, headers: dict[str, str] | None = None) -> ModelError:
    raw = body if isinstance(body, bytes) else json.dumps({"error": body or {}}).encode()
    return service_error(status, headers or {}, raw, ACCESS)


# --- how long to wait -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": " 2.5 "}, 2.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"x-ms-retry-after-ms": "50"}, 0.05),
        ({"retry-after": "2", "retry-after-ms": "50"}, 2.0),
        ({"retry-after": "1", "retry-after-ms": "50", "x-ms-retry-after-ms": "3000"}, 3.0),
        ({"retry-after": "soon", "retry-after-ms": "50"}, 0.05),
    ],
)
def test_the_longest_of_the_hints_counts_f01_f03(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers) == seconds


@pytest.mark.parametrize(
    "value",
    ["soon", "nan", "inf", "-5", "1e400", "9" * 5000, "", " ", "2, 5", "٣", "1_0", "Wed, 99 Foo", "0x10"],
)
def test_hints_that_are_no_numbers_are_ignored_f06(value: str) -> None:
    names = ("retry-after", "retry-after-ms", "x-ms-retry-after-ms")
    assert retry_after_s({**dict.fromkeys(names, value), "date": "Wed, 21 Oct 2015 07:28:00 GMT"}) is None


@given(
    st.datetimes(dt.datetime(1990, 1, 1), dt.datetime(2090, 1, 1), timezones=st.just(dt.UTC)),
    st.integers(-3600, 3600),
    st.sampled_from([-12, 0, 1, 14]),
)
def test_a_date_is_read_against_the_replys_own_clock_f02(now: dt.datetime, delay_s: int, zone: int) -> None:
    elsewhere = dt.timezone(dt.timedelta(hours=zone))
    then = (now + dt.timedelta(seconds=delay_s)).astimezone(elsewhere)
    headers = {"retry-after": format_datetime(then), "date": format_datetime(now)}
    assert retry_after_s(headers) == max(0, delay_s)


def test_a_date_without_a_date_to_compare_is_ignored_f02() -> None:
    then = "Wed, 21 Oct 2015 07:28:03 GMT"
    assert retry_after_s({"retry-after": then}) is None
    assert retry_after_s({"retry-after": then, "date": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 3.0
    assert retry_after_s({"retry-after": then, "date": "Wed, 21 Oct 2015 08:28:00 +0100"}) == 3.0
    assert retry_after_s({"retry-after": then, "date": "Wed, 21 Oct 2015 07:30:00 GMT"}) == 0.0


@given(st.text(), st.text())
def test_no_hint_raises_or_is_anything_but_seconds_f06(after: str, date: str) -> None:
    seconds = retry_after_s({"retry-after": after, "retry-after-ms": after, "date": date})
    assert seconds is None or (math.isfinite(seconds) and seconds >= 0)


# --- what an answer means ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, AccessError),
        (307, AccessError),
        (400, RequestError),
        (401, AccessError),
        (402, AccessError),
        (403, AccessError),
        (404, AccessError),
        (408, UnavailableError),
        (409, UnavailableError),
        (410, AccessError),
        (413, RequestError),
        (422, RequestError),
        (429, RateLimitError),
        (500, UnavailableError),
        (502, UnavailableError),
        (503, UnavailableError),
        (504, UnavailableError),
        (529, UnavailableError),
        (None, UnavailableError),
    ],
)
def test_a_status_says_what_can_be_done(status: int | None, kind: type[ModelError]) -> None:
    error = failed(status, {"message": "made to fail"}, {"retry-after": "3", "x-request-id": "r-1"})
    assert type(error) is kind
    assert (error.model, error.status, error.request_id, error.sent) == ("judge", status, "r-1", True)
    assert str(error).startswith("model 'judge': ")
    assert str(error).endswith(": made to fail")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_hint_to_wait_is_ignored_where_waiting_does_not_help_f19(status: int) -> None:
    assert failed(status, headers={"retry-after": "3"}).retry_after_s is None
    assert failed(503, headers={"retry-after": "3"}).retry_after_s == 3.0


@pytest.mark.parametrize("code", sorted(QUOTA_CODES))
@pytest.mark.parametrize("field", ["code", "type"])
def test_a_used_up_quota_is_not_a_rate_f08(code: str, field: str) -> None:
    error = failed(429, {"message": "no", "code": "rate_limit_exceeded", "type": "requests", field: code})
    assert type(error) is AccessError
    assert "quota" in str(error)


def test_a_content_filter_is_told_with_its_categories_f12() -> None:
    results = {"hate": {"filtered": False}, "self_harm": {"filtered": True}, "violence": {"filtered": True}}
    inner = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": results}
    error = failed(400, {"code": "content_filter", "message": "no", "innererror": inner})
    assert type(error) is RefusalError
    assert "for self_harm, violence" in str(error)
    assert b"self_harm" in (error.body or b"")
    assert type(failed(400, {"code": None, "innererror": inner})) is RefusalError


@pytest.mark.parametrize(
    "said",
    [
        {"code": "context_length_exceeded", "message": "5000 tokens"},
        {"message": "the maximum context length is 4096"},
    ],
)
def test_too_long_a_request_has_a_kind_of_its_own_f15(said: dict[str, str]) -> None:
    error = failed(400, said)
    assert (type(error), error.kind) == (RequestError, "context_length")
    assert said["message"] in str(error)


@pytest.mark.parametrize("code", ["model_not_found", "DeploymentNotFound", "unknown_model"])
def test_an_unknown_model_stops_its_target_whatever_the_status_f18(code: str) -> None:
    error = failed(400, {"code": code})
    assert type(error) is AccessError
    assert "JUDGE_URL" in str(error)


def test_a_refused_key_is_named_by_its_variable_f17() -> None:
    assert "JUDGE_KEY" in str(failed(401))
    keyless = Access("judge", "http://judge.test", "the endpoint http://judge.test")
    assert "api_key_env" in str(service_error(401, {}, b"", keyless))


def test_the_key_is_masked_in_message_and_body_s07() -> None:
    for body in (json.dumps({"error": {"message": f"bad key {KEY}"}}).encode(), f"no {KEY}".encode()):
        error = failed(401, body)
        assert KEY not in str(error)
        assert "***" in str(error)
        assert KEY.encode() not in (error.body or b"")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", ""),
        (
            b"<html>\n<h1>502</h1>\x1b[31m \xff</html>",
            "<html> <h1>502</h1> [31m \N{REPLACEMENT CHARACTER}</html>",
        ),
        (b'{"message": "no such route", "statusCode": 404}', "no such route"),
        (b'{"detail": "Not Found"}', "Not Found"),
        (b'{"error": "model \\u0007 missing"}', "model missing"),
        (b'["odd"]', "['odd']"),
        (b'{"error": {"message": {"odd": 1}, "innererror": 3, "code": 5}}', "{'odd': 1}"),
    ],
)
def test_any_body_gives_one_line_for_people(body: bytes, said: str) -> None:
    message = str(failed(500, body))
    assert message == "model 'judge': the service failed (500)" + (f": {said}" if said else "")


def test_a_body_is_kept_for_diagnosis_up_to_a_limit_f21() -> None:
    assert len(failed(500, b"x" * 10 * DIAGNOSIS_BYTES).body or b"") == DIAGNOSIS_BYTES
    assert len(str(failed(500, b"x" * 10 * DIAGNOSIS_BYTES))) < 500
    assert failed(500, b"").body is None
