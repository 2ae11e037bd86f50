"""A page of the web, read safely: only from hosts that the environment lists, at the address that was looked at.

Whoever edits YAML may name any page, so the list stands where no pull request can write. A name is looked up once and
that address is connected to; one that is private needs an entry of its own. Redirects are not followed, nothing is
inflated, and size and time have an end.
"""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from llmops.addresses import HTTP_URL, is_forbidden, is_loopback, is_private, literal
from llmops.errors import UsageError
from llmops.indexes.documents import MAX_TEXT_BYTES

SOURCE_HOSTS = "LLMOPS_SOURCE_HOSTS"
TIMEOUT_S = 60.0
_PIECE = 65_536
_PORTS = {"http": 80, "https": 443}


def fetch(url: str, environment: Mapping[str, str]) -> tuple[bytes, str]:
    """Return what stands at an address, and its media type.

    environment: its LLMOPS_SOURCE_HOSTS lists hosts, as HOST or HOST:PORT, and HOST=ADDRESS for a private address.

    Raises UsageError for an address that is not listed or leads where nothing of ours goes, and for whatever is no
    page in the end: another status, a redirect, too much, too slow.
    """
    found = HTTP_URL.fullmatch(url)
    if found is None or found["user"]:
        raise UsageError(f"{url!r} names no page for certain")
    host, scheme = found["host"].lower(), found["scheme"].lower()
    port = int(found["port"] or _PORTS[scheme])
    try:
        address = _address(host, port, environment)
        return _get(url, scheme, host, port, address)
    except (OSError, http.client.HTTPException, ValueError, OverflowError) as error:
        raise UsageError(f"{url} cannot be read: {type(error).__name__}: {error}") from error


def _address(host: str, port: int, environment: Mapping[str, str]) -> str:
    """Return the address of a host, once it is known that it may be connected to (UsageError where not)."""
    listed = {entry.strip().lower() for entry in environment.get(SOURCE_HOSTS, "").split(",")} - {""}
    pinned = {
        entry.partition("=")[2] for entry in listed if entry.partition("=")[0] in {host, f"{host}:{port}"}
    }
    if not listed & {host, f"{host}:{port}"} and not pinned - {""}:
        raise UsageError(f"{host} is no host that pages are read from; allow it: {SOURCE_HOSTS}={host}")
    spelled = literal(host)
    addresses = [str(spelled)] if spelled is not None else _looked_up(host, port)
    for address in addresses:
        if is_forbidden(address):
            raise UsageError(f"{host} is a link-local address, or one where clouds keep their metadata")
        is_named = spelled is not None or is_loopback(host) or address in pinned
        if not is_named and is_private(address):
            raise UsageError(
                f"{host} leads to {address}, which is private; allow that: {SOURCE_HOSTS}={host}={address}"
            )
    return addresses[0]


def _looked_up(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(each[4][0]).partition("%")[0] for each in found]


def _get(url: str, scheme: str, host: str, port: int, address: str) -> tuple[bytes, str]:
    kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
    connection: Any = kind(host, port, timeout=TIMEOUT_S)
    watch = _Watch(address, port)
    # To the address that was looked at, and no other; the name stays for TLS and the Host header.
    connection._create_connection = watch.connect
    try:
        path = url.partition("://")[2].partition("/")[2]
        connection.request("GET", f"/{path}", headers={"Accept-Encoding": "identity", "User-Agent": "llmops"})
        with connection.getresponse() as reply:
            if 300 <= reply.status < 400:
                raise UsageError(f"{url} leads elsewhere (status {reply.status}); name the page it leads to")
            if reply.status != 200:
                raise UsageError(f"{url} gave status {reply.status}")
            if reply.headers.get("Content-Encoding", "identity").lower() != "identity":
                raise UsageError(f"{url} is compressed though that was not asked for; it is not inflated")
            return _body(url, reply), reply.headers.get_content_type()
    finally:
        connection.close()
        watch.timer.cancel()
        if watch.is_over:
            raise UsageError(f"{url} takes longer than {TIMEOUT_S:g} s")


class _Watch:
    """Connects to one address, and ends the connection when its time is over, whatever it waits for."""

    def __init__(self, address: str, port: int) -> None:
        self._to = (address, port)
        self._socket: socket.socket | None = None
        self.is_over = False
        self.timer = threading.Timer(TIMEOUT_S, self._end)
        self.timer.daemon = True
        self.timer.start()

    def connect(self, *_: object) -> socket.socket:
        self._socket = socket.create_connection(self._to, TIMEOUT_S)
        return self._socket

    def _end(self) -> None:
        self.is_over = True
        if self._socket is not None:
            with suppress(OSError):  # it has ended by itself
                self._socket.shutdown(socket.SHUT_RDWR)


def _body(url: str, reply: http.client.HTTPResponse) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while piece := reply.read1(_PIECE):
        pieces.append(piece)
        size += len(piece)
        if size > MAX_TEXT_BYTES:
            raise UsageError(f"{url} is larger than {MAX_TEXT_BYTES:,} bytes")
    if reply.length:
        raise UsageError(f"{url} was cut off: {reply.length:,} bytes are missing")
    return b"".join(pieces)
