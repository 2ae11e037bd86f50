"""A wire in front of a server that refuses, stalls, answers with errors or is slow, until it is mended."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Literal

HOST = "127.0.0.1"
SLOW_S = 10.0
ERROR = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 8\r\nConnection: close\r\n\r\nno disk\n"

WELL = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nOK"

Mode = Literal["pass", "refuse", "stall", "deaf", "error", "slow"]


class Proxy:
    """Stands before the server at `port`, or before none; connections that are open keep the mode they began with.

    deaf: says that it is well, and nothing else.

    on_request: called with the number of requests so far, from 1, before one is passed on.
    """

    def __init__(
        self, port: int | None, mode: Mode = "pass", on_request: Callable[[int], None] = lambda _: None
    ) -> None:
        self._server_port = port
        self._mode: Mode = mode
        self.on_request = on_request
        self._open: list[socket.socket] = []
        self._ended = threading.Event()
        self.n_requests = 0
        with socket.create_server((HOST, 0)) as listener:
            self.port: int = listener.getsockname()[1]
        if mode != "refuse":
            self._listen()

    @property
    def uri(self) -> str:
        return f"http://{HOST}:{self.port}"

    def mend(self) -> None:
        """Pass everything on from now on."""
        was, self._mode = self._mode, "pass"
        if was == "refuse":
            self._listen()

    def hang_up(self) -> None:
        """Cut every connection."""
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._ended.set()
        self.hang_up()

    def _listen(self) -> None:
        listener = socket.create_server((HOST, self.port))
        self._open.append(listener)
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError), listener:
            while not self._ended.is_set():
                client, _ = listener.accept()
                self._open.append(client)
                threading.Thread(target=self._serve, args=(client, self._mode), daemon=True).start()

    def _serve(self, client: socket.socket, mode: Mode) -> None:
        with suppress(OSError), client:
            if mode in {"stall", "deaf"}:
                while data := client.recv(65536):
                    if mode == "deaf" and data.startswith(b"GET /health "):
                        client.sendall(WELL)
                        return
            elif mode == "error":
                if client.recv(65536):
                    client.sendall(ERROR)
            else:
                self._pass(client, SLOW_S if mode == "slow" else 0.0)

    def _pass(self, client: socket.socket, delay_s: float) -> None:
        with socket.create_connection((HOST, self._server_port or 0)) as server:
            self._open.append(server)
            replies = threading.Thread(target=self._pass_replies, args=(server, client, delay_s), daemon=True)
            replies.start()
            while data := client.recv(65536):
                if b" HTTP/1.1\r\n" in data[:4096]:
                    self.n_requests += 1
                    self.on_request(self.n_requests)
                server.sendall(data)
            with suppress(OSError):
                server.shutdown(socket.SHUT_WR)
            replies.join()

    def _pass_replies(self, server: socket.socket, client: socket.socket, delay_s: float) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                self._ended.wait(delay_s)
                client.sendall(data)
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxy(
    port: int | None, mode: Mode = "pass", on_request: Callable[[int], None] = lambda _: None
) -> Iterator[Proxy]:
    """Give a wire in front of the server at a port, gone when the block ends."""
    made = Proxy(port, mode, on_request)
    try:
        yield made
    finally:
        made.close()
