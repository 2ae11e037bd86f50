"""What a service says when it does not answer: its status, codes and hints, as one of our errors.

Pure, and shared by all HTTP providers. Whether to try again is for `call.py` to say.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from llmops.errors import (
    AccessError,
    ModelError,
    RateLimitError,
    RefusalError,
    ReplyError,
    RequestError,
    UnavailableError,
)
from llmops.models.wire import clean, parse_json
from llmops.secrets import scrub, scrub_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llmops.models.access import Access

DIAGNOSIS_BYTES = 64 * 1024
READ_BYTES = DIAGNOSIS_BYTES + 4096  # more than is kept, so that a key on the edge is masked and not halved

# Quota is not rate: waiting a minute does not help, so all of these stop the target.
QUOTA_CODES = frozenset(
    {
        "credit_balance_exhausted",
        "insufficient_quota",
        "organization_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "project_spend_limit_exceeded",
    }
)
_WAIT_CODES = frozenset({"rate_limit_exceeded", "slow_down"})
_FILTER_CODES = frozenset({"content_filter", "responsibleaipolicyviolation"})
_LENGTH_CODES = frozenset({"context_length_exceeded", "exceed_context_size_error"})
_MODEL_CODES = frozenset({"deploymentnotfound", "model_not_found", "unknown_model"})

_SECONDS = re.compile(r"[0-9]{1,10}(\.[0-9]{0,10})?")
_LONGEST_DATE = 64


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return how long the service asks us to wait, None when it does not say so in a way to be trusted.

    headers: names in lower case. Of several hints the longest counts. A date is read against the reply's own
    `date`, since neither side's clock is sure.
    """
    hints = [
        _number(headers.get("retry-after"), 1.0),
        _number(headers.get("retry-after-ms"), 1000.0),
        _number(headers.get("x-ms-retry-after-ms"), 1000.0),
        _until(headers.get("retry-after"), headers.get("date")),
    ]
    return max((hint for hint in hints if hint is not None), default=None)


def _number(value: str | None, per_second: float) -> float | None:
    if value is None or not _SECONDS.fullmatch(value.strip()):
        return None
    return float(value) / per_second


def _until(then: str | None, now: str | None) -> float | None:
    if then is None or now is None or max(len(then), len(now)) > _LONGEST_DATE:
        return None
    try:
        delay = parsedate_to_datetime(then) - parsedate_to_datetime(now)
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, delay.total_seconds())


@dataclass(frozen=True)
class _Said:
    """What an error body says. codes: in lower case, of all levels. categories: filters that struck."""

    message: str
    codes: frozenset[str] = frozenset()
    categories: tuple[str, ...] = ()


def service_error(status: int | None, headers: Mapping[str, str], body: bytes, access: Access) -> ModelError:
    """Return the error behind an answer that is no reply.

    status: None for an error that came in the middle of a stream. headers: names in lower case.
    """
    said = _read(body)
    kind, reason = _meaning(status, said, access)
    code = "" if status is None else f" ({status})"
    message = f"model {access.model!r}: {reason}{code}" + (f": {said.message}" if said.message else "")
    may_wait = status is None or status in (408, 409, 429) or status >= 500
    error = kind(
        scrub(message),
        model=access.model,
        status=status,
        request_id=request_id(headers),
        retry_after_s=retry_after_s(headers) if may_wait else None,
        body=diagnosis(body),
    )
    if kind is RequestError and _is_too_long(said):
        error.kind = "context_length"
    return error


def diagnosis(body: bytes) -> bytes | None:
    """Return the start of a body for people to look at, without secrets; None when nothing came."""
    return scrub_bytes(body[:READ_BYTES])[:DIAGNOSIS_BYTES] or None


def request_id(headers: Mapping[str, str]) -> str | None:
    """Return the service's own name for the request. headers: names in lower case."""
    for name in ("x-request-id", "apim-request-id", "x-ms-request-id"):
        if headers.get(name):
            return scrub(clean(headers[name]))[:200]
    return None


def _meaning(status: int | None, said: _Said, access: Access) -> tuple[type[ModelError], str]:
    """Return the first row that fits: what a code says is surer than the status it came with."""
    code = status or 0
    struck = f" for {', '.join(said.categories)}" if said.categories else ""
    elsewhere = f"{access.place} sends us elsewhere, which is never followed; name the last address"
    absent = f"no such model or route; check model and {access.place}, its /v1 included"
    failed = status is None or code in (408, 409) or code >= 500
    rows: tuple[tuple[bool, type[ModelError], str], ...] = (
        (bool(said.codes & _FILTER_CODES), RefusalError, f"a content filter turned the request down{struck}"),
        (_is_too_long(said), RequestError, "the request is longer than the model's context"),
        (
            bool(said.codes & QUOTA_CODES) or code == 402,
            AccessError,
            "the quota is used up; raise it, then run again",
        ),
        (code in (401, 403), AccessError, _refused_key(access)),
        (code in (404, 410) or bool(said.codes & _MODEL_CODES), AccessError, absent),
        (300 <= code < 400, AccessError, elsewhere),
        (code == 429 or bool(said.codes & _WAIT_CODES), RateLimitError, "the service asks us to slow down"),
        (failed, UnavailableError, "the service failed"),
        (True, RequestError, "the service says that the request is wrong"),
    )
    return next((kind, reason) for fits, kind, reason in rows if fits)


def _refused_key(access: Access) -> str:
    if access.key is None:
        return "the service wants a key; name its variable with api_key_env in llmops.yaml"
    if access.by_token:
        return "the service refuses whoever is signed in to Entra ID; check the role it has on the resource"
    return f"the service refuses the key in {access.key.origin}; check the key and what it may do"


def _is_too_long(said: _Said) -> bool:
    return bool(said.codes & _LENGTH_CODES) or "maximum context length" in said.message


def _read(body: bytes) -> _Said:
    try:
        found = parse_json(body)
    except ReplyError:
        return _Said(_in_one_line(body[:DIAGNOSIS_BYTES].decode("utf-8", "replace")))
    error = found.get("error", found) if isinstance(found, dict) else found
    if not isinstance(error, dict):
        return _Said(_in_one_line(str(error)))
    inner = error.get("innererror")
    inner = inner if isinstance(inner, dict) else {}
    codes = (error.get("code"), error.get("type"), inner.get("code"))
    message = error.get("message") or error.get("detail") or ""
    return _Said(
        _in_one_line(str(message)),
        frozenset(str(code).lower() for code in codes if code is not None),
        tuple(_struck(inner)),
    )


def _struck(inner: Mapping[str, object]) -> Iterator[str]:
    results = inner.get("content_filter_result") or inner.get("content_filter_results")
    for category, result in results.items() if isinstance(results, dict) else ():
        if isinstance(result, dict) and result.get("filtered") is True:
            yield clean(str(category))[:40]


def _in_one_line(text: str) -> str:
    """Return the start of a service's text without line ends and control characters."""
    shown = (character if character.isprintable() else " " for character in clean(text[:2000]))
    return " ".join("".join(shown).split())[:300]
