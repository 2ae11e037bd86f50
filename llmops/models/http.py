"""A host that `http` steps ask: no model, and yet a deployment with limits, whose answers are paid for once.

Whoever edits YAML names the host, so no secret goes there that the environment does not let go there, and nothing at
all to where clouds keep credentials or, unless the environment says so, into a private network. What sends is
`http_client.py`, imported by the first request.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from llmops.addresses import (
    HTTP_URL,
    PRIVATE_HOSTS,
    SECRET_HOSTS,
    is_forbidden,
    is_listed,
    is_loopback,
    is_private,
)
from llmops.definitions.base import identity_of
from llmops.definitions.project import Limits, ModelDefinition, Price
from llmops.errors import (
    AccessError,
    ModelError,
    ModelTimeoutError,
    RateLimitError,
    RequestError,
    UnavailableError,
    UsageError,
)
from llmops.models.absent import AbsentModel
from llmops.models.access import proxy_of
from llmops.models.failures import READ_BYTES, diagnosis, request_id, retry_after_s
from llmops.models.wire import clean
from llmops.records import HttpReply, HttpRequest, ModelVersion
from llmops.secrets import Secret, scrub, scrub_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmops.models.http_client import HttpClient

HOST = "http"
"""What stands for a provider in the version of a host."""
MOST_BYTES = 8 * 1024 * 1024
_VERSION = "http@1"
_KEPT = ("content-type", "content-language", "etag", "last-modified", "link", "location")


def host_version(origin: str) -> ModelVersion:
    """Return the version of a host, by scheme, name and port; its `name` is what `Caller.fetch` asks."""
    identity = identity_of({"host": origin, "version": _VERSION})
    return ModelVersion(name=origin, provider=HOST, model=origin.partition("://")[2], identity=identity)


def host_definition(version: ModelVersion, limits: Mapping[str, Limits]) -> ModelDefinition:
    """Return what may be asked of a host, and that it costs nothing. limits: by host, those that llmops.yaml says."""
    free = Price(input_per_mtok=0.0, output_per_mtok=0.0)
    return ModelDefinition(provider=HOST, limits=limits.get(version.model, Limits()), price=free)


class HttpHost(AbsentModel):
    """One host. Asked as a model it refuses, as one that is absent does."""

    def __init__(self, origin: str, definition: ModelDefinition, environment: Mapping[str, str]) -> None:
        super().__init__(origin)
        self._origin = origin
        self._environment = environment
        address = _address(origin)
        if is_forbidden(address["host"]):
            raise UsageError(f"{origin} is a link-local address, where clouds keep their metadata")
        self._may_be_private = is_listed(environment, _places(address), listing=PRIVATE_HOSTS)
        if is_private(address["host"]) and not self._may_be_private:
            raise UsageError(f"{origin}: {_private(address['host'])}")
        self._proxy = proxy_of(origin, address, environment)
        self._concurrency = definition.limits.concurrency
        self._client: HttpClient | None = None

    async def fetch(self, request: HttpRequest, *, call_id: str) -> HttpReply:
        """Send one request and return its answer. call_id: sent as `Idempotency-Key` where that makes it repeatable.

        Raises the leaves of ModelError.
        """
        if self._client is None:  # before the clock starts: opening imports what sends
            from llmops.models.http_client import HttpClient

            self._client = HttpClient(self._proxy, self._concurrency, may_be_private=self._may_be_private)
        headers = self._headers(request, call_id)
        started = time.perf_counter()
        try:
            async with asyncio.timeout(request.timeout_s):
                answer = await self._client.send(request, headers, most=MOST_BYTES, error=self._error)
        except TimeoutError as error:
            message = f"no whole answer within {request.timeout_s:g} s; `timeout_s` says how long to wait"
            raise self._error(ModelTimeoutError, message, sent=None) from error
        took_s = time.perf_counter() - started
        allowed = request.allow or range(200, 300)
        if answer.status not in allowed:
            raise self._refused(request, answer.status, answer.headers, answer.body)
        body = scrub_bytes(answer.body)
        return HttpReply(
            http_status=answer.status,
            headers={name: scrub(clean(answer.headers[name])) for name in _KEPT if name in answer.headers},
            text=clean(scrub(_decoded(body, answer.headers.get("content-type", "")))),
            request_id=request_id(answer.headers),
            latency_s=took_s,
            raw=body,
        )

    async def close(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def _headers(self, request: HttpRequest, call_id: str) -> dict[str, str]:
        key = (
            {"Idempotency-Key": call_id}
            if request.is_repeatable and request.method in ("POST", "PATCH")
            else {}
        )
        secrets = {
            name: secret_value(self._origin, text, self._environment)
            for name, text in request.secrets.items()
        }
        return {**request.headers, **key, **secrets, "Accept-Encoding": "identity"}

    def _refused(
        self, request: HttpRequest, status: int, headers: Mapping[str, str], body: bytes
    ) -> ModelError:
        """Return the error that an answer amounts to which is none of those asked for."""
        told = " ".join(scrub(_decoded(body[:READ_BYTES], "")).split())[:300]
        kind, why = _meaning(status, sent_secret=bool(request.secrets))
        error = self._error(kind, f"{why} ({status})" + (f": {told}" if told else ""), sent=True)
        error.status, error.body, error.request_id = status, diagnosis(body), request_id(headers)
        if error.retryable:
            error.retry_after_s = retry_after_s(headers)
        if not request.is_repeatable and not isinstance(error, RateLimitError):
            error.retryable = False  # it may have been carried out
        return error

    def _error(self, kind: type[ModelError], message: str, *, sent: bool | None) -> ModelError:
        return kind(scrub(f"{self._origin}: {message}"), model=self._origin, sent=sent)

    def _refusal(self) -> ModelError:
        return RequestError(f"{self._origin} is no model", model=self._origin, sent=False)


def _meaning(status: int, *, sent_secret: bool) -> tuple[type[ModelError], str]:
    key = "refuses the secret" if sent_secret else "wants to know who asks; name a variable with bearer_env"
    rows: tuple[tuple[bool, type[ModelError], str], ...] = (
        (status == 401, AccessError, f"it {key}"),
        (
            300 <= status < 400,
            RequestError,
            "it sends us elsewhere, which is never followed; name the last address",
        ),
        (status == 429, RateLimitError, "it asks us to slow down"),
        (status == 408 or status >= 500, UnavailableError, "it failed"),
        (True, RequestError, "it says that the request is wrong; `allow` names statuses that are an output"),
    )
    return next((kind, why) for fits, kind, why in rows if fits)


def _decoded(body: bytes, content_type: str) -> str:
    charset = content_type.lower().partition("charset=")[2].partition(";")[0].strip(' "')
    try:
        return body.decode(charset or "utf-8-sig", "replace")
    except LookupError:
        return body.decode("utf-8-sig", "replace")


def secret_value(origin: str, text: str, environment: Mapping[str, str]) -> str:
    """Return what a header says in which a variable's value goes to a host. text: as in `HttpRequest.secrets`.

    Raises UsageError where the variable is not set, or where its value may not go there.
    """
    before, _, variable = text.rpartition(" ")
    value = environment.get(variable, "").strip()
    if not value:
        raise UsageError(f"{origin} needs {variable}: set in the environment or in .env, and not empty")
    if not value.isascii() or not value.isprintable():
        raise UsageError(
            f"{origin}: the value of {variable} holds a character that no header can; set it again"
        )
    address = _address(origin)
    if not is_listed(environment, _places(address), variable):
        host = address["host"]
        raise UsageError(
            f"{origin} would be sent {variable}, and only a file names that host; allow it: {SECRET_HOSTS}={host}"
        )
    if address["scheme"] == "http" and not is_loopback(address["host"]):
        raise UsageError(f"{origin} would be sent {variable} without encryption; use https")
    secret = Secret(variable, value)
    return f"{before} {secret.value}" if before else secret.value


def _address(origin: str) -> dict[str, str]:
    match = HTTP_URL.fullmatch(origin)
    if match is None:
        raise UsageError(f"{origin} is no address; write http(s)://HOST[:PORT]/PATH")
    return {part: (value or "").lower() for part, value in match.groupdict().items()}


def _places(address: Mapping[str, str]) -> set[str]:
    return {address["host"], f"{address['host']}:{address['port']}"}


def _private(host: str) -> str:
    return f"it is no address of the public internet; allow it: {PRIVATE_HOSTS}={host}"
