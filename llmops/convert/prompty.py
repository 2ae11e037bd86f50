"""Prompty, versions 1 and 2: front matter and a template with role markers, as a prompt and a dataset of its sample."""

from __future__ import annotations

import json
import re
from typing import Any

from llmops.convert.account import Page
from llmops.convert.job import Job
from llmops.convert.messages import Inputs, prompt_inputs, template_of, type_of
from llmops.convert.names import file_name
from llmops.convert.settings import (
    is_format,
    key_variable,
    read_address,
    read_format,
    read_parameters,
    read_schema,
    say_model,
)
from llmops.convert.translate import from_mustache, turns
from llmops.definitions.documents import Document, Location, Mark, refusal
from llmops.definitions.yaml_reader import read_yaml
from llmops.errors import DefinitionError, UsageError

BODY = "(template)"
CONFIGURED = ("model", "configuration", "connection", "tools")
_FENCE = re.compile(r"---[ \t]*")
_FILE = re.compile(r"\$\{file:([^}]+)\}")
_NOTES = ("version", "authors", "tags", "metadata")
_TOOLS = "tools are functions that an agent of a chain calls, and no part of a prompt"
_KINDS = {
    "string": "string",
    "integer": "integer",
    "int": "integer",
    "number": "number",
    "float": "number",
    "boolean": "boolean",
    "bool": "boolean",
    "array": "array",
    "list": "array",
    "object": "object",
}
_PROVIDERS = {
    "azure": "azure_openai",
    "azure_openai": "azure_openai",
    "openai": "openai",
    "azure_openai_beta": "azure_openai",
    "serverless": "azure_inference",
    "azure_serverless": "azure_inference",
    "foundry": "azure_inference",
}
_MODEL_NAMES = ("azure_deployment", "deployment", "id", "model", "name")


def convert(job: Job) -> None:
    """Write the prompt, and where it has sample values a dataset of one case."""
    job.configured = CONFIGURED
    page = _open(job)
    front = page.value
    messages, inputs = _messages(page)
    kinds, sample = _inputs(job, page, inputs)
    model, parameters, schema = _model(job, page)
    schema = _outputs(page) or schema
    prompt: dict[str, Any] = {}
    if isinstance(front.get("description"), str):
        prompt["description"] = front["description"]
        page.keep(("description",), "description")
    for key in _NOTES:
        if key in front:
            prompt[f"x-{key}"] = front[key]
            page.keep((key,), f"x-{key}, which llmops does not read")
    if isinstance(front.get("name"), str):
        page.keep(("name",), f"the name of the file: {job.name}")
    if front.get("kind") == "prompt":
        page.keep(("kind",), "a prompt")
    page.drop(("tools",), _TOOLS)
    prompt["inputs"] = prompt_inputs(messages, kinds)
    prompt |= {"model": model} if model != "default" else {}
    prompt |= {"parameters": parameters} if parameters else {}
    prompt["messages"] = messages
    prompt |= {"response_format": schema} if schema else {}
    job.write("prompt", job.name, prompt)
    _write_sample(job, prompt["inputs"], sample)


def _open(job: Job) -> Page:
    """Return the file as one document: the front matter's keys, and the template under a name of its own."""
    path = job.folder.path(job.source)
    lines = job.folder.text(job.source).split("\n")
    end = next((n for n, line in enumerate(lines[1:], 1) if _FENCE.fullmatch(line)), None)
    if not _FENCE.fullmatch(lines[0]):
        front: dict[str, Any] = {}
        marks, body, start = {}, lines, 1
    elif end is None:
        raise refusal([Document(path, "", Mark(1, 1)).finding((), "the front matter is never closed by ---")])
    else:
        head = "\n".join(["", *lines[1:end]])
        read = read_yaml(head.encode(), path) if head.strip() else Document(path, {}, Mark(1, 1, {}))
        if not isinstance(read.value, dict) or BODY in read.value:
            raise DefinitionError(
                read.finding((), "the front matter is no mapping of keys that a prompty has")
            )
        front, start, body = read.value, end + 2, lines[end + 1 :]
        marks = dict(read.marks.inside or {}) if read.marks else {}  # type: ignore[arg-type]
    value = {**front, BODY: "\n".join(body)}
    if isinstance(front.get("name"), str) and not job.is_named:
        job.name = file_name(front["name"], fallback=job.name)
    return job.open(Document(path, value, Mark(1, 1, {**marks, BODY: Mark(start, 1)})))


# --- template ---------------------------------------------------------------------------------------------------


def _messages(page: Page) -> tuple[list[dict[str, str]], Inputs]:
    format_ = _format(page)
    translate = from_mustache if format_ == "mustache" else str
    found, said = turns(page.value[BODY])
    if not found:
        raise DefinitionError(page.document.finding((BODY,), "the template has no text"))
    inputs = Inputs()
    messages = [
        {"role": role, "content": template_of(text, translate, inputs, page.document, (BODY,))}
        for role, text in found
    ]
    if changed := inputs.changed():
        said.append("called otherwise here: " + ", ".join(f"{old} is {new}" for old, new in changed.items()))
    if format_ == "mustache":
        said.append("values are not escaped as HTML")
    if said:
        page.approximate((BODY,), "messages; " + "; ".join(said))
    else:
        page.keep((BODY,), "messages")
    return messages, inputs


def _format(page: Page) -> str:
    """Return the template's language, and settle what says it."""
    told = page.value.get("template")
    if isinstance(told, str):
        told = {"format": told}
        place: Location = ("template",)
    else:
        place = (
            ("template", "format") if isinstance(told, dict) and "format" in told else ("template", "type")
        )
    if not isinstance(told, dict):
        return "jinja2"
    kind = told.get("format", told.get("type", "jinja2"))
    kind = str(kind.get("kind", "jinja2") if isinstance(kind, dict) else kind)
    if kind in {"jinja2", "mustache"}:
        page.keep(place, "Jinja2" if kind == "jinja2" else "translated into Jinja2")
    else:
        page.approximate(place, "read as Jinja2")
    parser = told.get("parser")
    parser = parser.get("kind") if isinstance(parser, dict) else parser
    if parser == "prompty":
        page.keep(("template", "parser"), "messages by role markers")
    return kind


# --- inputs -----------------------------------------------------------------------------------------------------


def _inputs(job: Job, page: Page, inputs: Inputs) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the declared inputs with their types, and the sample values, by their names here."""
    kinds: dict[str, Any] = {}
    sample: dict[str, Any] = {}
    for name, about, place in _declared(page):
        ours = inputs.add(name)
        if not isinstance(about, dict) or not _is_about(about):
            kinds[ours], sample[ours] = type_of(about), about
            page.keep(place, f"inputs.{ours} and its value in the dataset {job.name}")
            continue
        kinds[ours] = _kind(page, place, about)
        for key in ("sample", "default", "example"):
            if key in about and ours not in sample:
                sample[ours] = about[key]
                page.keep((*place, key), f"the value in the dataset {job.name}")
        page.keep((*place, "name"), f"inputs.{ours}")
        _say_required(page, place, about)
        page.drop((*place, "description"), "an input has no description here")
    for name, value, place, here in _sample(job, page):
        ours = inputs.add(name)
        sample[ours] = value
        kinds.setdefault(ours, type_of(value))
        here.keep(place, f"the value in the dataset {job.name}")
    return kinds, sample


def _say_required(page: Page, place: Location, about: dict[str, Any]) -> None:
    for key in ("required", "is_required"):
        if about.get(key) is True:
            page.keep((*place, key), "every input is required")
        elif key in about:
            page.approximate((*place, key), "every input is required here")


def _declared(page: Page) -> list[tuple[str, Any, Location]]:
    found: list[tuple[str, Any, Location]] = []
    for key in ("inputs", "inputSchema"):
        told, place = page.value.get(key), (key,)
        if isinstance(told, dict) and isinstance(told.get("properties"), dict | list):
            told, place = told["properties"], (key, "properties")  # type: ignore[assignment]
        if isinstance(told, dict):
            found += [(name, about, (*place, name)) for name, about in told.items()]
        elif isinstance(told, list):
            found += [
                (item["name"], item, (*place, index))
                for index, item in enumerate(told)
                if isinstance(item, dict) and isinstance(item.get("name"), str)
            ]
    return found


def _is_about(value: dict[str, Any]) -> bool:
    """Say whether a mapping describes an input, rather than being the sample of one."""
    return bool({"type", "kind"} & {*value}) or ("name" in value and bool({"default", "sample"} & {*value}))


def _kind(page: Page, place: Location, about: dict[str, Any]) -> str:
    key = "kind" if "kind" in about else "type"
    kind = _KINDS.get(str(about.get(key)))
    if kind:
        page.keep((*place, key), f"type: {kind}")
    else:
        page.approximate((*place, key), "any type; llmops fills it into text")
    return kind or "any"


def _sample(job: Job, page: Page) -> list[tuple[str, Any, Location, Page]]:
    told = page.value.get("sample")
    if isinstance(told, str) and (named := _FILE.fullmatch(told.strip())):
        try:
            other = job.read_yaml(named[1].strip())
        except (UsageError, DefinitionError) as error:
            page.drop(("sample",), str(error).partition("\n")[0])
            return []
        page.keep(("sample",), "read")
        told = other.value
        return (
            [(name, value, (name,), other) for name, value in told.items()] if isinstance(told, dict) else []
        )
    return (
        [(name, value, ("sample", name), page) for name, value in told.items()]
        if isinstance(told, dict)
        else []
    )


def _write_sample(job: Job, kinds: dict[str, Any], sample: dict[str, Any]) -> None:
    if not sample:
        return
    case = {"id": "sample", "inputs": {name: sample.get(name, "") for name in kinds}}
    kinds = {name: kind if name in sample else "any" for name, kind in kinds.items()}
    kinds = {
        name: kind if kind == "any" or _fits(kind, sample[name]) else "any" for name, kind in kinds.items()
    }
    kinds = {name: kind for name, kind in kinds.items() if name not in {"output", "expected"}}
    case["inputs"] = {name: case["inputs"][name] for name in kinds}  # type: ignore[index]
    job.write_cases(job.name, {"inputs": kinds}, [case])


def _fits(kind: str, value: Any) -> bool:
    given = type_of(value)
    return given == kind or (given, kind) == ("integer", "number")


# --- model ------------------------------------------------------------------------------------------------------


def _model(job: Job, page: Page) -> tuple[str, dict[str, Any], dict[str, Any] | None]:
    """Return the model to ask, its parameters, and the format of the reply."""
    told = page.value.get("model")
    if isinstance(told, str):
        name, known = job.model({"provider": "openai", "model": told, "api_key_env": "OPENAI_API_KEY"})
        say_model(page, [("model",)], name, known=known)
        return name, {}, None
    if not isinstance(told, dict):
        return job.default_model, {}, None
    parameters: dict[str, Any] = {}
    schema: dict[str, Any] | None = None
    for key in ("parameters", "options"):
        if isinstance(told.get(key), dict):
            parameters |= read_parameters(page, ("model", key), told[key])
            for inner, value in told[key].items():
                if is_format(inner):
                    schema = _reply_format(job, page, ("model", key, inner), value)
            page.drop(("model", key, "tools"), _TOOLS)
            page.drop(("model", key), "no parameter that llmops has")
    return _address(job, page, told), parameters, schema


def _reply_format(job: Job, page: Page, place: Location, value: Any) -> dict[str, Any] | None:
    named = _FILE.fullmatch(value.strip()) if isinstance(value, str) else None
    if named is None:
        return read_format(page, place, value)
    try:
        other = job.read_yaml(named[1].strip())
    except (UsageError, DefinitionError) as error:
        page.drop(place, str(error).partition("\n")[0])
        return None
    page.keep(place, "read")
    return read_format(other, (), other.value)


def _address(job: Job, page: Page, told: dict[str, Any]) -> str:
    """Return the model to ask, with a block for llmops.yaml of what is said about its address."""
    connections = [key for key in ("configuration", "connection") if isinstance(told.get(key), dict)]
    said: dict[tuple[str, ...], dict[str, Any]] = {("model",): told}
    said |= {("model", key): told[key] for key in connections}
    kinds = [
        each[key] for each in said.values() for key in ("type", "provider") if isinstance(each.get(key), str)
    ]
    provider = next((_PROVIDERS[kind] for kind in kinds if kind in _PROVIDERS), None)
    if provider is None and any("azure_deployment" in each for each in said.values()):
        provider = "azure_openai"
    _say_api(page, told)
    named = [
        ((*place, key), each[key])
        for place, each in said.items()
        for key in _MODEL_NAMES
        if isinstance(each.get(key), str) and (key != "name" or place == ("model",))
    ]
    if kinds and provider is None:
        return _foreign(job, page, [place for place, _ in named])
    block: dict[str, Any] = {"provider": provider or "openai"} | ({"model": named[0][1]} if named else {})
    for place, each in said.items():
        if len(place) > 1:
            read_address(page, place, each, block)
        for key in ("type", "provider"):
            page.keep((*place, key), f"provider: {block['provider']}")
    if not named:
        return job.default_model
    _complete(block)
    name, known = job.model(block)
    say_model(page, [place for place, _ in named], name, known=known)
    return name


def _say_api(page: Page, told: dict[str, Any]) -> None:
    for key in ("api", "apiType"):
        if told.get(key) == "chat":
            page.keep(("model", key), "messages")
        else:
            page.approximate(("model", key), "asked as a chat")


def _complete(block: dict[str, Any]) -> None:
    block.setdefault("api_key_env", key_variable(block))
    if block["provider"] != "openai" and not {"endpoint", "endpoint_env"} & {*block}:
        azure = {"azure_openai": "AZURE_OPENAI_ENDPOINT", "azure_inference": "AZURE_AI_ENDPOINT"}
        block["endpoint_env"] = azure[block["provider"]]


def _foreign(job: Job, page: Page, named: list[Location]) -> str:
    for place in named:
        page.approximate(place, f"asked of {job.default_model}: llmops has no provider for it")
    return job.default_model


# --- reply ------------------------------------------------------------------------------------------------------


def _outputs(page: Page) -> dict[str, Any] | None:
    """Return the schema of a reply of declared fields."""
    for key in ("outputs", "outputSchema"):
        told, place = page.value.get(key), (key,)
        if isinstance(told, dict) and isinstance(told.get("properties"), dict | list):
            told, place = told["properties"], (key, "properties")  # type: ignore[assignment]
        if isinstance(told, dict):
            fields = [
                (name, about, (*place, name)) for name, about in told.items() if isinstance(about, dict)
            ]
        elif isinstance(told, list):
            named = [(n, item) for n, item in enumerate(told) if isinstance(item, dict)]
            fields = [(str(item.get("name", n)), item, (*place, n)) for n, item in named]
        else:
            continue
        properties = {name: _property(page, at, about) for name, about, at in fields}
        if properties:
            schema = {"type": "object", "properties": properties, "required": list(properties)}
            return read_schema(Page(Document("", json.loads(json.dumps(schema)))), (), schema)
    return None


def _property(page: Page, place: Location, about: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    key = "kind" if "kind" in about else "type"
    if kind := _KINDS.get(str(about.get(key))):
        found["type"] = kind
        page.keep((*place, key), "response_format")
    if isinstance(about.get("description"), str):
        found["description"] = about["description"]
        page.keep((*place, "description"), "response_format")
    page.keep((*place, "name"), "response_format")
    return found
