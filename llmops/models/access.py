"""Where a model is reached and with which key or token, settled before anything is sent.

Whoever may edit YAML must not be able to send a key to a host of their own choosing, so a key leaves only for
hosts that the environment or the provider vouches for. Sending is left to the providers.
"""

from __future__ import annotations

import base64
import html
import ipaddress
import json
import re
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

from llmops.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llmops.definitions.project import ModelDefinition

SECRET_HOSTS = "LLMOPS_SECRET_HOSTS"  # noqa: S105 - the name of a list of hosts
ENTRA = "entra"
MASK = "***"
SHORTEST_SECRET = 8  # a stand-in key such as "test" is no secret, and masking it would spoil replies

# Stricter than any URL parser, so that no two of them can disagree about which host is meant.
_ENDPOINT = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
    r"(?:/[A-Za-z0-9._~/%:+-]*)?",
    re.IGNORECASE | re.ASCII,
)
_KEY = re.compile(r"[!-~]+")


class Secret:
    """A key or token that never shows itself: `repr` says whose it is, `scrub` masks it in whatever goes out.

    variable: of the environment, where a key comes from; None for a token of Entra ID.
    """

    __slots__ = ("_spellings", "value", "variable")

    def __init__(self, variable: str | None, value: str) -> None:
        self.variable = variable
        self.value = value
        self._spellings = tuple(sorted(set(_spellings(value)), key=len, reverse=True))

    def __repr__(self) -> str:
        return f"Secret({self.variable or ENTRA})"

    def scrub(self, text: str) -> str:
        """Return the text with the key masked, as it is and as URLs, JSON, HTML, base64 and hex spell it."""
        for spelling in self._spellings:
            text = text.replace(spelling, MASK)
        return text

    def scrub_bytes(self, data: bytes) -> bytes:
        """Return the bytes with the key masked, in every spelling that `scrub` knows."""
        for spelling in self._spellings:
            data = data.replace(spelling.encode(), MASK.encode())
        return data


def _spellings(value: str) -> Iterator[str]:
    if len(value) < SHORTEST_SECRET:
        return
    in_json = json.dumps(value)[1:-1]
    yield from (value, html.escape(value), in_json, in_json.replace("/", "\\/"))
    for quoted in (quote(value), quote(value, safe=""), quote_plus(value)):
        yield from (quoted, re.sub("%..", lambda match: match[0].lower(), quoted))
    yield from (value.encode().hex(), value.encode().hex().upper())
    for offset in range(3):
        yield from _inside_base64(value.encode(), offset)


def _inside_base64(value: bytes, offset: int) -> Iterator[str]:
    """Yield what base64 makes of the value when it starts `offset` bytes into a group of three."""
    padded = b"\0" * offset + value
    first = (offset * 8 + 5) // 6
    last = len(padded) * 8 // 6
    yield base64.b64encode(padded).decode()[first:last]
    yield base64.urlsafe_b64encode(padded).decode()[first:last]


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
    proxy: str | None = None

    def scrub(self, text: str) -> str:
        """Return the text without the key."""
        return self.key.scrub(text) if self.key else text

    def scrub_bytes(self, data: bytes) -> bytes:
        """Return the bytes without the key."""
        return self.key.scrub_bytes(data) if self.key else data


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
    proxy = _proxy(name, address, environment)
    return Access(name, endpoint.rstrip("/"), place, key, by_token, proxy)


def _endpoint(
    name: str, definition: ModelDefinition, environment: Mapping[str, str], default: str | None
) -> tuple[str, str]:
    if definition.endpoint_env:
        return environment[definition.endpoint_env], f"the endpoint in {definition.endpoint_env}"
    endpoint = definition.endpoint or default
    if endpoint is None:
        raise UsageError(f"model {name!r} has no endpoint; give endpoint or endpoint_env in llmops.yaml")
    return endpoint, f"the endpoint {endpoint}" if _ENDPOINT.fullmatch(endpoint) else "the endpoint"


def _address(name: str, endpoint: str, place: str) -> dict[str, str]:
    match = _ENDPOINT.fullmatch(endpoint)
    if match is None:
        raise UsageError(
            f"model {name!r}: {place} is not usable: write http(s)://HOST[:PORT][/PATH], without user name, "
            "password, query or spaces"
        )
    address = {part: (value or "").lower() for part, value in match.groupdict().items()}
    literal = _literal(address["host"])
    if literal is not None and literal.is_link_local:
        raise UsageError(f"model {name!r}: {place} is a link-local address, where clouds keep their metadata")
    return address


def _literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address that a host spells out, decimal and octal spellings included; None for a name."""
    try:
        found = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        try:
            return ipaddress.IPv4Address(socket.inet_aton(host))
        except OSError:
            return None
    return getattr(found, "ipv4_mapped", None) or found


def _is_loopback(host: str) -> bool:
    literal = _literal(host)
    return host == "localhost" if literal is None else literal.is_loopback


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
    allowed = {entry.strip() for entry in environment.get(SECRET_HOSTS, "").split(",")}
    if not vouched and not allowed & {*places, *(f"{whose}={place}" for place in places)}:
        raise UsageError(
            f"model {name!r} would send {what} to {host}, a host that only files name; "
            f"name the endpoint by a variable (endpoint_env), or allow it: {SECRET_HOSTS}={host}"
        )
    if address["scheme"] == "http" and not _is_loopback(host):
        raise UsageError(f"model {name!r} would send {what} without encryption; use https")


def _proxy(name: str, address: Mapping[str, str], environment: Mapping[str, str]) -> str | None:
    """Return the proxy that the environment names for the address; never one for this machine itself."""
    variables = (f"{address['scheme']}_proxy", "all_proxy")
    found = [environment.get(spelled) for each in variables for spelled in (each, each.upper())]
    proxy = next(filter(None, found), None)
    direct = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    if proxy is None or _is_loopback(address["host"]) or _stands_in(address["host"], direct):
        return None
    if not proxy.startswith(("http://", "https://")):
        raise UsageError(f"model {name!r}: the proxy that the environment names is not an http(s) address")
    return proxy


def _stands_in(host: str, listed: str) -> bool:
    """Return whether a `NO_PROXY` list holds the host or a domain above it."""
    domains = {entry.strip().lstrip(".").lower() for entry in listed.split(",")} - {""}
    return "*" in domains or any(host == domain or host.endswith(f".{domain}") for domain in domains)
