"""Which host an address means, whether a secret may go there, and where nothing of ours ever goes.

Whoever edits YAML may name any address, so none is trusted for standing in a file. Names are looked up by whoever
connects, and what they turn out to be is checked by `is_forbidden` then.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Collection, Mapping

SECRET_HOSTS = "LLMOPS_SECRET_HOSTS"  # noqa: S105 - the name of a list of hosts
PRIVATE_HOSTS = "LLMOPS_PRIVATE_HOSTS"

# Stricter than any URL parser, so that no two of them can disagree about which host is meant.
HTTP_URL = re.compile(
    r"(?P<scheme>https?)://(?:(?P<user>[^/?#@\\\s]+)@)?"
    r"(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?(?:/[A-Za-z0-9._~/%:+-]*)?",
    re.IGNORECASE | re.ASCII,
)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Where clouds hand out credentials to whoever asks from the inside.
_FORBIDDEN = tuple(
    map(
        ipaddress.ip_network,
        (
            "169.254.0.0/16",
            "fe80::/10",
            "100.100.100.200/32",  # Alibaba
            "168.63.129.16/32",  # Azure
            "192.0.0.192/32",  # Oracle
            "fd00:ec2::254/128",  # AWS
            "fd20:ce::254/128",  # Google
        ),
    )
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_COMPATIBLE = ipaddress.ip_network("::/96")


class ForbiddenAddressError(OSError):
    """A name that leads to where nothing of ours goes."""


def literal(host: str) -> Address | None:
    """Return the address that a host spells out, decimal and octal spellings included; None for a name."""
    try:
        found = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        try:
            return ipaddress.IPv4Address(socket.inet_aton(host))
        except (OSError, UnicodeError):
            return None
    return found if isinstance(found, ipaddress.IPv4Address) else _unwrapped(found)


def _unwrapped(found: ipaddress.IPv6Address) -> Address:
    """Return the IPv4 address inside an IPv6 one, else the address itself."""
    inside = found.ipv4_mapped or found.sixtofour
    if inside is None and (found in _NAT64 or (found in _COMPATIBLE and int(found) > 0xFFFF)):
        inside = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
    return inside or found


def is_loopback(host: str) -> bool:
    """Say whether a host is this machine, by what it is called."""
    found = literal(host)
    return host == "localhost" if found is None else found.is_loopback


def is_forbidden(host: str) -> bool:
    """Say whether a host spells out a link-local address or one where a cloud keeps its metadata."""
    found = literal(host)
    return found is not None and any(found in network for network in _FORBIDDEN)


def is_private(host: str) -> bool:
    """Say whether a host spells out an address outside the public internet: this machine's, or a network's own."""
    found = literal(host)
    return found is not None and (found.is_multicast or not found.is_global)


def refuse_forbidden(host: str, addresses: Collection[str]) -> None:
    """See that what a name was looked up to may be connected to; ForbiddenAddressError where not."""
    if any(map(is_forbidden, addresses)):
        raise ForbiddenAddressError(
            f"{host} is a link-local address, or one where clouds keep their metadata"
        )


def refuse_private(host: str, addresses: Collection[str]) -> None:
    """See that what a name was looked up to is of the public internet; ForbiddenAddressError where not."""
    if any(map(is_private, addresses)):
        raise ForbiddenAddressError(f"{host} is no address of the public internet")


def is_listed(
    environment: Mapping[str, str], places: Collection[str], whose: str = "", *, listing: str = SECRET_HOSTS
) -> bool:
    """Say whether the environment lets secrets go to one of a host's spellings; an entry may be for one of them.

    whose: the variable of the secret, for entries of the form VARIABLE=HOST. listing: the variable that lists hosts.
    """
    allowed = {entry.strip() for entry in environment.get(listing, "").split(",")} - {""}
    return bool(allowed & {*places, *(f"{whose}={place}" for place in places if whose)})
