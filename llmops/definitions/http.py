"""The `http` verb: one request to a host that the file names; whatever a case brings stays what it is, a value.

The address is checked as it is written. Where secrets may go, and where nothing of ours does, is for `models/http.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from llmops.addresses import HTTP_URL
from llmops.definitions.base import Bool, Float, Int, without_none
from llmops.definitions.body import Body, Templated
from llmops.definitions.project import Variable

REPEATABLE = frozenset({"GET", "HEAD", "PUT", "DELETE"})
"""What may be sent twice and is carried out once, or as if: RFC 9110, section 9.2.2."""
_BODILESS = ("GET", "HEAD")
_PIECE = re.compile(r"\{\{.*?\}\}", re.DOTALL)
_ORIGIN = re.compile(r"https?://[^/]*")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_OURS = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "idempotency-key", "accept-encoding"}
)


def _check_header(name: str) -> str:
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a header")
    if name.lower() in _OURS:
        raise ValueError(f"{name} is set by llmops itself")
    return name


def _check_url(url: str) -> str:
    literal = _PIECE.sub("x", url)
    match = HTTP_URL.fullmatch(literal)
    origin = _ORIGIN.match(url)
    if origin is None or "{{" in origin[0]:
        raise ValueError("the address begins with a fixed http(s)://HOST/; templates stand in the path only")
    if match is None or match["user"] or "%" in literal:
        raise ValueError(
            "write http(s)://HOST[:PORT]/PATH, without user name or spaces; parameters stand under `query`, and what "
            "templates fill into the path is encoded by itself"
        )
    return url


HeaderName = Annotated[str, AfterValidator(_check_header)]


class Http(Body):
    """One request over HTTP; its output has `status`, `headers` and `body`, plain data where that is JSON.

    url: templates stand in its path, each value within one segment of it. query: null is left out, a list repeated.
    data, body: what is sent, as JSON or as text.
    bearer_env, headers_env: variables whose values go as a bearer token, or as headers.
    allow: statuses that are an output; by default 200 to 299.
    idempotent: of POST and PATCH; the service honours `Idempotency-Key`, so that a request may be sent again.
    """

    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    url: Annotated[str, AfterValidator(_check_url)]
    query: dict[str, Any] = Field(default_factory=dict)
    headers: dict[HeaderName, str] = Field(default_factory=dict)
    data: Any = Field(default=None, alias="json")
    body: str | None = None
    bearer_env: Variable | None = None
    headers_env: dict[HeaderName, Variable] = Field(default_factory=dict)
    timeout_s: Float = Field(default=30.0, gt=0, le=600)
    allow: tuple[Annotated[Int, Field(ge=200, le=599)], ...] = ()
    idempotent: Bool = False

    @model_validator(mode="after")
    def _fits(self) -> Http:
        if self.data is not None and self.body is not None:
            raise ValueError("give json or body, not both")
        if self.method in _BODILESS and (self.data is not None or self.body is not None):
            raise ValueError(f"{self.method} sends no body")
        if self.idempotent and self.method in REPEATABLE:
            raise ValueError(f"{self.method} may be sent again as it is; idempotent is for POST and PATCH")
        names = [name.lower() for name in (*self.headers, *self.secrets)]
        if len(set(names)) < len(names):
            raise ValueError("a header is given twice")
        return self

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return _ORIGIN.match(self.url)[0].lower()  # type: ignore[index]  # the address has been checked

    @property
    def segments(self) -> list[str]:
        """The templates of the path's segments."""
        found, rest = [""], self.url[len(self.origin) :].removeprefix("/")
        for piece in re.split(r"(\{\{.*?\}\})", rest, flags=re.DOTALL):
            first, *others = [piece] if piece.startswith("{{") else piece.split("/")
            found[-1] += first
            found += others
        return found

    @property
    def secrets(self) -> Mapping[str, str]:
        """By header, what it says: a variable, after a word that stands for itself."""
        bearer = {"Authorization": f"Bearer {self.bearer_env}"} if self.bearer_env else {}
        return {**bearer, **self.headers_env}

    def templates(self) -> Mapping[str, Any]:
        """Return all but the address."""
        given = {
            "query": self.query or None,
            "headers": self.headers or None,
            "json": self.data,
            "body": self.body,
        }
        return without_none(given)

    def later(self) -> Iterator[Templated]:
        """Yield the address."""
        yield Templated(("url",), self.url)
