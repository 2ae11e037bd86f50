"""Where a model is reached and with which key or token, settled before anything is sent.

Whoever may edit YAML must not be able to send a key to a host of their own choosing, so a key leaves only for
hosts that the environment or the provider vouches for. Sending is left to the providers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llmops.addresses import HTTP_URL, SECRET_HOSTS, is_forbidden, is_listed, is_loopback
from llmops.errors import UsageError
from llmops.secrets import Secret, register_address

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmops.definitions.project import ModelDefinition

ENTRA = "entra"

_KEY = re.compile(r"[!-~]+")


@dataclass(frozen=True)
class Access:
    """The way to one model. model: its name in llmops.yaml; place: how messages call the endpoint.

    by_token: each call carries a token of Entra ID, which is then its key.
    """

    model: str
    endpoint: str
    place: str
    key: Secret | None = None
    by_token: bool = False
    proxy: str | None = field(default=None, repr=False)


def resolve_access(
    name: str,
    definition: ModelDefinition,
    environment: Mapping[str, str],
    *,
    default_endpoint: str | None,
    own_hosts: tuple[str, ...],
) -> Access:
    """Return how to reach a model.

    environment: holds the variables that the definition names, LLMOPS_SECRET_HOSTS and the proxies.
    default_endpoint: the provider's own, None where it has none.
    own_hosts: hosts that nobody but the provider can answer for; its keys may go there, tokens of Azure not.

    Raises UsageError naming what is missing or malformed, never a value; all missing variables at once.
    """
    named = [definition.endpoint_env, definition.api_key_env]
    missing = [variable for variable in named if variable and not environment.get(variable, "").strip()]
    if missing:
        raise UsageError(
            f"model {name!r} needs {' and '.join(missing)}: set in the environment or in .env, and not empty"
        )
    by_token = definition.auth == ENTRA
    endpoint, place = _endpoint(name, definition, environment, None if by_token else default_endpoint)
    address = _address(name, endpoint, place)
    key = _key(name, definition.api_key_env, environment)
    vouched = bool(definition.endpoint_env) or (address["host"] in own_hosts and not by_token)
    if key is not None:
        _refuse_stranger(name, definition.api_key_env or "", address, vouched, environment)
    elif by_token:
        _refuse_stranger(name, ENTRA, address, vouched, environment)
    proxy = proxy_of(name, address, environment)
    return Access(name, endpoint.rstrip("/"), place, key, by_token, proxy)


def _endpoint(
    name: str, definition: ModelDefinition, environment: Mapping[str, str], default: str | None
) -> tuple[str, str]:
    if definition.endpoint_env:
        return environment[definition.endpoint_env], f"the endpoint in {definition.endpoint_env}"
    endpoint = definition.endpoint or default
    if endpoint is None:
        raise UsageError(f"model {name!r} has no endpoint; give endpoint or endpoint_env in llmops.yaml")
    return endpoint, f"the endpoint {endpoint}" if HTTP_URL.fullmatch(endpoint) else "the endpoint"


def _address(name: str, endpoint: str, place: str) -> dict[str, str]:
    match = HTTP_URL.fullmatch(endpoint)
    if match is None or match["user"]:
        raise UsageError(
            f"model {name!r}: {place} is not usable: write http(s)://HOST[:PORT][/PATH], without user name, "
            "password, query or spaces"
        )
    address = {part: (value or "").lower() for part, value in match.groupdict().items()}
    if is_forbidden(address["host"]):
        raise UsageError(f"model {name!r}: {place} is a link-local address, where clouds keep their metadata")
    return address


def _key(name: str, variable: str | None, environment: Mapping[str, str]) -> Secret | None:
    if variable is None:
        return None
    if not _KEY.fullmatch(environment[variable]):
        raise UsageError(
            f"model {name!r}: the key in {variable} holds a space, a line end or a character outside ASCII; "
            "set it again without"
        )
    return Secret(variable, environment[variable])


def _refuse_stranger(
    name: str, whose: str, address: Mapping[str, str], vouched: bool, environment: Mapping[str, str]
) -> None:
    """Raise UsageError for a host that only files name. whose: the variable of the key, or ENTRA for a token."""
    what = "a token of Entra ID" if whose == ENTRA else f"the key in {whose}"
    host = address["host"]
    places = {host, f"{host}:{address['port']}"}
    if not vouched and not is_listed(environment, places, whose):
        raise UsageError(
            f"model {name!r} would send {what} to {host}, a host that only files name; "
            f"name the endpoint by a variable (endpoint_env), or allow it: {SECRET_HOSTS}={host}"
        )
    if address["scheme"] == "http" and not is_loopback(host):
        raise UsageError(f"model {name!r} would send {what} without encryption; use https")


def proxy_of(name: str, address: Mapping[str, str], environment: Mapping[str, str]) -> str | None:
    """Return the proxy that the environment names for the address; never one for this machine itself."""
    variables = (f"{address['scheme']}_proxy", "all_proxy")
    found = [environment.get(spelled) for each in variables for spelled in (each, each.upper())]
    proxy = next(filter(None, found), None)
    direct = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    if proxy is None or is_loopback(address["host"]) or _stands_in(address["host"], direct):
        return None
    if not proxy.startswith(("http://", "https://")):
        raise UsageError(f"{name}: the proxy that the environment names is not an http(s) address")
    register_address(proxy)
    return proxy


def _stands_in(host: str, listed: str) -> bool:
    """Return whether a `NO_PROXY` list holds the host or a domain above it."""
    domains = {entry.strip().lstrip(".").lower() for entry in listed.split(",")} - {""}
    return "*" in domains or any(host == domain or host.endswith(f".{domain}") for domain in domains)
