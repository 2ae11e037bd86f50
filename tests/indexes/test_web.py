"""Pages of the web, from listed hosts, at the address that was looked at: nothing else is connected to (S14)."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from llmops.errors import UsageError
from llmops.indexes import web
from llmops.indexes.web import SOURCE_HOSTS, fetch
from tests.test_addresses import DOUBTFUL, METADATA, OTHER

_connects: list[Any] = []
sys.addaudithook(lambda event, about: _connects.append(about[1]) if event == "socket.connect" else None)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        kind, _, rest = self.path.strip("/").partition("/")
        if kind == "redirect":
            self.send_response(302)
            self.send_header("Location", "http://169.254.169.254/latest/meta-data/")
            self.end_headers()
            return
        self.send_response(404 if kind == "missing" else 200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        if kind == "gzip":
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        try:
            if kind == "endless":
                while True:
                    self.wfile.write(b"x" * 65_536)
            elif kind == "slow":
                for _ in range(200):
                    self.wfile.write(b"x")
                    self.wfile.flush()
                    time.sleep(0.05)
            else:
                self.wfile.write(f"<p>{self.headers['Host']} {rest}".encode())
        except OSError:
            return

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def serving() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def port() -> Iterator[int]:
    with serving() as port:
        yield port


@pytest.fixture
def connects() -> list[Any]:
    """Give the addresses that sockets of this process are connected to from now on."""
    _connects.clear()
    return _connects


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Give what names lead to, one address after the other each time they are looked up."""
    table: dict[str, list[str]] = {}
    real = socket.getaddrinfo

    def look_up(host: str, *arguments: Any, **options: Any) -> Any:
        found = table.get(host)
        if found is None:
            return real(host, *arguments, **options)
        return real(found.pop(0) if len(found) > 1 else found[0], *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return table


def refused(url: str, listed: str) -> str:
    with pytest.raises(UsageError) as caught:
        fetch(url, {SOURCE_HOSTS: listed})
    return str(caught.value)


def test_a_page_of_a_listed_host_is_read(port: int) -> None:
    data, media = fetch(f"http://127.0.0.1:{port}/page/a", {SOURCE_HOSTS: f"x.test, 127.0.0.1:{port}"})
    assert (data, media) == (f"<p>127.0.0.1:{port} a".encode(), "text/html")


@pytest.mark.parametrize(
    "listed", ["", "other.test", "127.0.0.1:1", "127.0.0", "=127.0.0.1", "http://127.0.0.1"]
)
def test_a_host_that_is_not_listed_is_not_connected_to_S14(
    port: int, connects: list[Any], listed: str
) -> None:
    assert "allow it: LLMOPS_SOURCE_HOSTS=127.0.0.1" in refused(f"http://127.0.0.1:{port}/", listed)
    assert connects == []


def test_no_spelling_of_a_metadata_address_is_ever_connected_to_S14(connects: list[Any]) -> None:
    for host in METADATA:
        listed = f"{host},{host.rpartition(':')[0]},{host.lower()}"
        assert "link-local" in refused(f"http://{host}/latest", listed), host
    assert connects == []


def test_no_address_that_two_parsers_could_read_differently_is_connected_to_S14(connects: list[Any]) -> None:
    for url in (*DOUBTFUL, *OTHER):
        assert "names no page for certain" in refused(url, "evil.test,localhost,[fe80::1%25eth0]"), url
    assert connects == []


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.5",
        "192.168.1.1",
        "169.254.169.254",
        "::1",
        "::ffff:10.0.0.5",
        "224.0.0.1",
        "0.0.0.0",  # noqa: S104 - an address to be refused
    ],
)
def test_a_listed_name_that_leads_inside_is_not_connected_to_S14(
    names: dict[str, list[str]], connects: list[Any], address: str
) -> None:
    names["docs.test"] = [address]
    said = refused("http://docs.test/", "docs.test")
    assert "which is private" in said or "link-local" in said
    assert connects == []


def test_a_private_address_is_read_where_the_list_names_it(names: dict[str, list[str]], port: int) -> None:
    names["wiki.test"] = ["127.0.0.1"]
    data, _ = fetch(f"http://wiki.test:{port}/page/x", {SOURCE_HOSTS: "wiki.test=127.0.0.1"})
    assert data == f"<p>wiki.test:{port} x".encode()
    names["wiki.test"] = ["127.0.0.2"]
    assert "which is private" in refused(f"http://wiki.test:{port}/", "wiki.test=127.0.0.1")


def test_a_name_is_looked_up_once_and_that_address_connected_to_S14(
    names: dict[str, list[str]], port: int, connects: list[Any]
) -> None:
    names["rebinding.test"] = ["127.0.0.1", "127.0.0.9"]
    fetch(f"http://rebinding.test:{port}/page/x", {SOURCE_HOSTS: "rebinding.test=127.0.0.1"})
    assert {address[0] for address in connects} == {"127.0.0.1"}
    assert names["rebinding.test"] == ["127.0.0.9"]


def test_no_redirect_is_followed_S14(port: int, connects: list[Any]) -> None:
    said = refused(f"http://127.0.0.1:{port}/redirect", "127.0.0.1")
    assert "leads elsewhere (status 302); name the page it leads to" in said
    assert {address[0] for address in connects} == {"127.0.0.1"}


def test_what_is_no_page_in_the_end_is_told_S18(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "MAX_TEXT_BYTES", 1_000_000)
    monkeypatch.setattr(web, "TIMEOUT_S", 2.0)
    says: Callable[[str], str] = lambda path: refused(f"http://127.0.0.1:{port}/{path}", "127.0.0.1")  # noqa: E731
    assert "gave status 404" in says("missing")
    assert "it is not inflated" in says("gzip")
    assert "is larger than 1,000,000 bytes" in says("endless")
    assert "takes longer than 2 s" in says("slow") or "TimeoutError" in says("slow")


def test_a_host_that_does_not_answer_is_told() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        assert "cannot be read: ConnectionRefusedError" in refused(f"http://127.0.0.1:{port}/", "127.0.0.1")
