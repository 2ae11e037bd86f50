"""The `http` step: an address filled segment by segment, one request, and its answer as plain data."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote

from llmops.definitions.base import identity_of
from llmops.definitions.chain import wiring
from llmops.definitions.http import REPEATABLE, Http
from llmops.definitions.templates import TemplateError, parse_template, render_text
from llmops.errors import LlmopsError, ModelError, StepError, UsageError
from llmops.models.http import host_version, secret_value
from llmops.records import HttpReply, HttpRequest, ModelVersion, Span
from llmops.steps.base import Context, Place, Program, with_error

_JSON = "application/json"


@dataclass(frozen=True)
class HttpProgram:
    """One operation of a host, which is asked as models are."""

    http: Http
    host: ModelVersion
    identity: str
    kind: Literal["http"] = "http"
    prompts: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, Program] = field(default_factory=dict)
    least_calls: int = 1

    @property
    def models(self) -> Mapping[str, ModelVersion]:
        """The host: it is limited, journaled and replayed like a model."""
        return {self.host.name: self.host}

    async def carry_out(self, inputs: Mapping[str, Any], context: Context, place: Place) -> Span:
        """Return the span whose output has `status`, `headers` and `body`."""
        index = context.trace.open()
        shown: dict[str, Any] = {"method": self.http.method, **inputs}
        try:
            url = self._url(place)
            shown = {"method": self.http.method, "url": url, **inputs}
            request = self._request(url, inputs, place.name)
            answer = await context.caller.fetch(
                self.host.name, request, repeat=context.repeat, fresh=context.fresh
            )
            output = _output(answer.reply, place.name)
        except (ModelError, StepError) as error:
            context.trace.close(with_error(place.span(index, self.kind, shown, model=self.host.name), error))
            raise
        span = place.span(
            index,
            self.kind,
            shown,
            output=output,
            call_id=answer.call_id,
            model=self.host.name,
            cost_usd=answer.cost_usd,
            duration_s=answer.reply.latency_s,
        )
        return context.trace.close(span)

    def _url(self, place: Place) -> str:
        """Return the address; what a template fills in stays within its segment of the path."""
        return "/".join([self.http.origin, *(_segment(source, place) for source in self.http.segments)])

    def _request(self, url: str, inputs: Mapping[str, Any], where: str) -> HttpRequest:
        http = self.http
        headers = {name: _header(name, value, where) for name, value in inputs.get("headers", {}).items()}
        body = inputs.get("body")
        if http.data is not None:
            body = _json(inputs["json"], where)
            headers = {"Content-Type": _JSON, **_without(headers, "content-type")}
        return HttpRequest(
            method=http.method,
            url=url,
            query=tuple(_query(inputs.get("query", {}), where)),
            headers=headers,
            body=None if body is None else str(body),
            secrets=http.secrets,
            allow=http.allow,
            is_repeatable=http.idempotent or http.method in REPEATABLE,
            timeout_s=http.timeout_s,
        )


def _segment(source: str, place: Place) -> str:
    try:
        filled = render_text(parse_template(source), place.scope)
    except TemplateError as error:
        raise StepError(f"{place.name}: url: {error}") from error
    if "{{" in source and filled in ("", ".", ".."):
        raise StepError(f"{place.name}: url: {source} gives {filled!r}, which is no part of a path")
    return quote(filled.encode("utf-8", "replace"), safe="!$&'()*+,;=:@")


def _header(name: str, value: Any, where: str) -> str:
    text = str(value)
    if not text.isprintable() or not text.isascii():
        raise StepError(f"{where}: header {name} holds a line end or a character that no header can")
    return text


def _query(given: Mapping[str, Any], where: str) -> Iterator[tuple[str, str]]:
    for name, value in given.items():
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, dict | list):
                raise StepError(f"{where}: query {name}: {type(each).__name__} is no value of a parameter")
            if each is not None:
                yield name, json.dumps(each) if isinstance(each, bool) else str(each)


def _json(value: Any, where: str) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise StepError(f"{where}: json: {error}") from error


def _without(headers: Mapping[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in headers.items() if key.lower() != name}


def _output(reply: HttpReply, where: str) -> dict[str, Any]:
    kind = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
    body: Any = reply.text
    if (kind == _JSON or kind.endswith("+json")) and reply.text.strip():
        try:
            body = json.loads(reply.text, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            raise StepError(f"{where}: the answer is called JSON and is none: {error}") from error
    return {"status": reply.http_status, "headers": dict(reply.headers), "body": body}


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number of JSON")


def open_http(definition: Http) -> HttpProgram:
    """Return an operation ready to be asked for."""
    host = host_version(definition.origin)
    return HttpProgram(definition, host, identity_of({"http": wiring(definition), "host": host.identity}))


def refuse_secrets(programs: list[Program], environment: Mapping[str, str]) -> None:
    """See that every secret that operations send is there and may go where it would.

    Raises UsageError naming all that may not.
    """
    problems = dict.fromkeys(problem for program in programs for problem in _problems(program, environment))
    if problems:
        raise UsageError("\n".join(problems))


def _problems(program: Program, environment: Mapping[str, str]) -> Iterator[str]:
    if isinstance(program, HttpProgram):
        for text in program.http.secrets.values():
            try:
                secret_value(program.http.origin, text, environment)
            except LlmopsError as error:
                yield str(error)
    for part in program.parts.values():
        yield from _problems(part, environment)
