"""What other tools say of a model, its parameters and its reply, as ours: the same few keys under many names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from llmops.convert.account import Page
from llmops.convert.keys import is_secret_name, variable_of
from llmops.definitions.documents import Location
from llmops.definitions.json_schema import check_schema
from llmops.definitions.project import ModelDefinition
from llmops.definitions.prompt import Parameters
from llmops.definitions.yaml_reader import plain_value

_PARAMETERS = {
    "temperature": "temperature",
    "topp": "top_p",
    "maxtokens": "max_tokens",
    "maxoutputtokens": "max_tokens",
    "maxcompletiontokens": "max_tokens",
    "seed": "seed",
    "stop": "stop",
    "stopsequences": "stop",
    "reasoningeffort": "reasoning_effort",
}
_FORMATS = frozenset({"responseformat"})
_NO_URL = "an address that llmops.yaml does not take"


def parameter_name(key: str) -> str | None:
    """Return our name of a sampling parameter; None for what is none."""
    return _PARAMETERS.get(key.replace("_", "").replace("-", "").lower())


def is_format(key: str) -> bool:
    """Say whether a key of parameters asks for the format of the reply."""
    return key.replace("_", "").lower() in _FORMATS


def read_parameters(page: Page, location: Location, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return our parameters among those given, each settled; what is none of ours stays unsettled."""
    found: dict[str, Any] = {}
    for key, told in given.items():
        name = parameter_name(key)
        if name is None:
            continue
        place = (*location, key)
        value = _number(told)
        if value in (None, "", []):
            page.keep(place, "not set, and so nothing is written")
        elif name in found:
            page.drop(place, f"{name} is set already, by another name")
        elif problem := _problem(name, value):
            page.drop(place, f"{name}: {problem}")
        else:
            found[name] = value
            page.keep(place, f"parameters.{name}")
    return found


def _number(value: Any) -> Any:
    return (
        plain_value(value)
        if isinstance(value, str) and re.fullmatch(r"-?[0-9][0-9.]{0,20}", value)
        else value
    )


def _problem(name: str, value: Any) -> str | None:
    try:
        Parameters.model_validate_json(json.dumps({name: value}))
    except ValidationError as error:
        return str(error.errors()[0]["msg"])
    return None


def read_format(page: Page, location: Location, value: Any) -> dict[str, Any] | None:
    """Return the JSON Schema that a reply is asked for, as OpenAI's `response_format` says it, and settle it."""
    kind = value.get("type") if isinstance(value, dict) else value
    if kind == "text":
        page.keep(location, "text, as without it")
        return None
    if kind == "json_object":
        page.approximate(location, "response_format: an object of any keys")
        return {"type": "object"}
    if kind == "json_schema" and isinstance(value, dict):
        inner = value.get("json_schema")
        schema = inner.get("schema") if isinstance(inner, dict) else value.get("schema")
        at = (*location, "json_schema", "schema") if isinstance(inner, dict) else (*location, "schema")
        found = read_schema(page, at, schema)
        if found is not None:
            page.keep((*location, "type"), "response_format")
            page.drop(location, "a schema needs no name here, and is always strict")
        return found
    page.drop(location, "no format that llmops knows")
    return None


def read_schema(page: Page, location: Location, schema: Any) -> dict[str, Any] | None:
    """Return a JSON Schema that a prompt may have as its format; None, and why, for any other."""
    if not isinstance(schema, dict) or not schema:
        page.drop(location, "no JSON Schema")
        return None
    found: dict[str, Any] = dict(schema)
    found.pop("$schema", None)
    try:
        check_schema(found)
    except ValueError as error:
        page.drop(location, f"a JSON Schema that llmops does not take: {error}")
        return None
    page.keep(location, "response_format")
    return found


# --- models -----------------------------------------------------------------------------------------------------

_ADDRESS = frozenset({"endpoint", "azureendpoint", "baseurl", "apibaseurl", "apihost", "apibase"})
_VERSION = frozenset({"apiversion"})


def read_address(page: Page, location: Location, given: Mapping[str, Any], block: dict[str, Any]) -> None:
    """Take what a mapping says of address, version and key into a block for llmops.yaml; settles what it reads."""
    for key, value in given.items():
        place = (*location, key)
        flat = key.replace("_", "").lower()
        if flat in _ADDRESS:
            _take_address(page, place, value, block)
        elif flat in _VERSION and isinstance(value, str):
            if block["provider"] == "azure_openai":
                block["api_version"] = value
                page.keep(place, "api_version of the model to add to llmops.yaml")
        elif flat in {"apikeyenvar", "apikeyenv"} and isinstance(value, str):
            _take_variable(page, place, value, block)
        elif is_secret_name(key) and isinstance(value, str):
            take_key(page, place, value, block)


def take_key(
    page: Page, place: Location, value: str, block: dict[str, Any], fallback: str | None = None
) -> None:
    """Turn a key into the name of a variable: the value itself is written nowhere."""
    named = variable_of(value)
    if named is None and not value.strip():
        page.keep(place, "empty, and so nothing is written")
        return
    variable = named or fallback or key_variable(block)
    block["api_key_env"] = variable
    if named:
        page.keep(place, f"api_key_env: {variable}")
    else:
        page.approximate(
            place, f"api_key_env: {variable}; the key itself is not copied, put it into that variable"
        )


def _take_variable(page: Page, place: Location, name: str, block: dict[str, Any]) -> None:
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        block["api_key_env"] = name
        page.keep(place, f"api_key_env: {name}")
    else:
        page.drop(place, "no name of an environment variable")


def _take_address(page: Page, place: Location, value: Any, block: dict[str, Any]) -> None:
    if not isinstance(value, str) or {"endpoint", "endpoint_env"} & {*block}:
        return
    if variable := variable_of(value):
        block["endpoint_env"] = variable
        page.keep(place, f"endpoint_env: {variable}")
        return
    url = value if "://" in value else f"https://{value}"
    candidate = {**block, "endpoint": url}
    if re.fullmatch(r"https?://[A-Za-z0-9.:\[\]_-]+(?:/[A-Za-z0-9._~/%:+-]*)?", url) and is_model(candidate):
        block["endpoint"] = url
        page.keep(place, "endpoint of the model to add to llmops.yaml")
    else:
        page.drop(place, _NO_URL)


def is_model(block: Mapping[str, Any]) -> bool:
    """Say whether a block is one that llmops.yaml takes."""
    try:
        ModelDefinition.model_validate_json(json.dumps(dict(block)))
    except ValidationError:
        return False
    return True


def key_variable(block: Mapping[str, Any]) -> str:
    """Return the variable in which a provider's key usually stands."""
    return {
        "azure_openai": "AZURE_OPENAI_API_KEY",
        "azure_inference": "AZURE_AI_KEY",
    }.get(str(block["provider"]), "OPENAI_API_KEY")


def say_model(page: Page, places: Iterator[Location] | list[Location], used: str, *, known: bool) -> None:
    """Settle what names a model, by whether llmops.yaml has it."""
    for place in places:
        if known:
            page.keep(place, f"model: {used}, which llmops.yaml has")
        else:
            page.approximate(
                place, f"asked of {used} until the model is in llmops.yaml and named in its place"
            )
