"""A wire between a client and PostgreSQL that breaks just when a transaction is being committed."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Literal

HOST = "127.0.0.1"


class CuttingProxy:
    """Passes everything on until it is armed; then it cuts the connection that sends COMMIT next, once.

    before: the server never hears of the COMMIT. after: it has carried it out, and the client never hears of that.
    """

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self.n_cut = 0
        self._when: Literal["before", "after"] | None = None
        self._then: Callable[[], None] = lambda: None
        threading.Thread(target=self._accept, daemon=True).start()

    def arm(self, when: Literal["before", "after"], then: Callable[[], None] = lambda: None) -> None:
        """then: done between the COMMIT and the cut."""
        self._when, self._then = when, then

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection((HOST, self._server_port))
                except OSError:
                    client.close()
                    continue
                muted = threading.Event()
                for pump in (self._pass_requests, _pass_replies):
                    threading.Thread(target=pump, args=(client, server, muted), daemon=True).start()

    def _pass_requests(self, client: socket.socket, server: socket.socket, muted: threading.Event) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                if b"COMMIT\0" in data and self._when is not None:
                    self._cut(server, muted, data)
                    break
                server.sendall(data)
        _close(client, server)

    def _cut(self, server: socket.socket, muted: threading.Event, data: bytes) -> None:
        when, self._when = self._when, None
        self.n_cut += 1
        muted.set()
        if when == "after":
            server.sendall(data)
            threading.Event().wait(0.2)  # time for the server to carry it out
        self._then()


def _pass_replies(client: socket.socket, server: socket.socket, muted: threading.Event) -> None:
    with suppress(OSError):
        while data := server.recv(65536):
            if not muted.is_set():
                client.sendall(data)
    if not muted.is_set():
        _close(client)


def _close(*sockets: socket.socket) -> None:
    for each in sockets:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()


@contextmanager
def cutting(port: int) -> Iterator[CuttingProxy]:
    proxy = CuttingProxy(port)
    try:
        yield proxy
    finally:
        proxy.close()
