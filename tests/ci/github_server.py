"""A real HTTP server that speaks the few calls of GitHub's API that the comment needs, and remembers what was asked."""

from __future__ import annotations

import io
import json
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

REPOSITORY = "owner/project"
COMMIT = "a" * 40
BOT = "github-actions[bot]"
NUMBER, RUN, ARTIFACT = 7, 99, 5


def zipped(text: str | bytes, *names: str) -> bytes:
    """Return an archive of that text under each name; comment.md unless given."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names or ("comment.md",):
            archive.writestr(name, text)
    return data.getvalue()


def pull_request(
    number: int = NUMBER, commit: str = COMMIT, source: str | None = REPOSITORY
) -> dict[str, Any]:
    """Return a pull request; source: the repository it comes from, None where that was deleted."""
    repo = None if source is None else {"full_name": source}
    return {
        "number": number,
        "head": {"sha": commit, "repo": repo},
        "base": {"repo": {"full_name": REPOSITORY}},
    }


@dataclass
class GitHub:
    """What the repository holds. refuses: the status that a method is answered with in place of carrying it out."""

    archive: bytes = b""
    pulls: list[dict[str, Any]] = field(default_factory=lambda: [pull_request()])
    comments: dict[int, dict[str, Any]] = field(default_factory=dict)
    refuses: dict[str, int] = field(default_factory=dict)
    gone: set[int] = field(default_factory=set)
    size_in_bytes: int | None = None
    expired: bool = False
    location: str = "/storage"
    asked: list[tuple[str, str]] = field(default_factory=list)
    tokens: dict[str, str | None] = field(default_factory=dict)
    url: str = ""

    def add(self, body: str, author: str | None = BOT) -> int:
        """Add a comment that is there already, and return its id."""
        number = 1000 + len(self.comments)
        self.comments[number] = {
            "id": number,
            "body": body,
            "user": None if author is None else {"login": author},
        }
        return number

    def answer(self, method: str, target: str, body: Any) -> tuple[int, Any]:
        """Return status and answer; an answer of bytes is a file, one of text a place to go to."""
        parts = urlsplit(target)
        path = parts.path.removeprefix(f"/repos/{REPOSITORY}/")
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if method in self.refuses:
            return self.refuses[method], {}
        if method == "GET":
            return self._read(path, query)
        number = int(path.split("/")[2]) if method != "POST" else 0
        if method == "POST":
            return 201, {"id": self.add(body["body"])}
        if number in self.gone:
            return 404, {}
        if method == "DELETE":
            del self.comments[number]
            return 204, None
        self.comments[number]["body"] = body["body"]
        return 200, {}

    def _read(self, path: str, query: dict[str, str]) -> tuple[int, Any]:
        if path == "/storage":
            return 200, self.archive
        if path == "pulls":
            return 200, self.pulls
        if path == f"actions/runs/{RUN}/artifacts":
            size = len(self.archive) if self.size_in_bytes is None else self.size_in_bytes
            one = {"id": ARTIFACT, "name": query["name"], "expired": self.expired, "size_in_bytes": size}
            return 200, {"artifacts": [one] if self.archive else []}
        if path == f"actions/artifacts/{ARTIFACT}/zip":
            return 302, self.location
        if path == f"issues/{NUMBER}/comments":
            first = 100 * (int(query["page"]) - 1)
            return 200, list(self.comments.values())[first : first + 100]
        return 404, {}


@contextmanager
def running(github: GitHub) -> Iterator[GitHub]:
    """Serve on a free port of this machine until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            github.asked.append((self.command, self.path))
            github.tokens[urlsplit(self.path).path] = self.headers.get("Authorization")
            status, answer = github.answer(self.command, self.path, body)
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            if isinstance(answer, str):
                self.send_header("Location", answer)
            self.send_header("Content-Length", "0" if status == 204 else str(len(data)))
            self.end_headers()
            if status != 204:
                self.wfile.write(data)

        do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815 - names that http.server calls

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            """Say nothing: the tests read what was asked."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    github.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield github
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
