"""Say in a pull request what `llmops gate` found there, as one comment that later runs update.

Runs with the right to comment, on Python's own library alone. The artifact was made by code of the pull request, so it
is hostile: a text of limited size, never unpacked to the disk, run or taken at its word. Which pull request it belongs
to, from which repository and commit, is asked of GitHub. What a fork wrote is shown in a fence, where it can notify
nobody, load nothing and look like nothing of ours. Where the comment cannot be written, the step's summary gets it.
"""

from __future__ import annotations

import io
import json
import lzma
import os
import re
import sys
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urljoin, urlsplit

MARKER = "<!-- llmops-gate -->"
"""Starts our comment, and shows as nothing."""
AUTHOR = "github-actions[bot]"
ARTIFACT = "llmops-gate-comment"
FILE = re.compile(r"comment(\.[A-Za-z0-9_.-]{1,200})?\.md")
"""One for all, or one an experiment; at the top of the archive."""
MOST_FILES = 50
COMMENT_LIMIT = 65_536
SUMMARY_LIMIT = 1_000_000
"""Bytes; GitHub takes 1 MiB of a step."""
LARGEST_ARTIFACT = 4 << 20
LARGEST_TEXT = 512 << 10
LARGEST_ANSWER = 16 << 20
MOST_PAGES = 20
TIMEOUT_S = 30.0
_UNSEEN = re.compile(
    "[^\t\n\x20-\x7e\xa0-\u200d\u2010-\u2027\u202f-\u205f\u2070-\ud7ff\ue000-\ufefe\uff00-\ufffd"
    "\U00010000-\U000dffff]"
)
"""Control characters, and those that hide text or turn its direction."""
_UNREADABLE = (
    KeyError,
    ValueError,
    OSError,
    EOFError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
"""What hostile bytes make Python's readers of archives raise."""


class RefusedError(Exception):
    """GitHub did not do what was asked; the text says what."""

    def __init__(self, what: str, status: int | None = None, location: str = "") -> None:
        super().__init__(what)
        self.status, self.location = status, location


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows nothing by itself: the token must not go where an answer points."""

    def redirect_request(self, *_: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_Stay)


@dataclass(frozen=True)
class Api:
    """GitHub's API, as one repository sees it."""

    base: str
    repository: str
    token: str

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """Return what GitHub answers, read from JSON."""
        data = self._send(method, f"{self.base}/repos/{self.repository}/{path}", body)
        return json.loads(data) if data else None

    def fetch(self, path: str) -> bytes:
        """Return a file that the API only points at; where it points gets no token."""
        url = f"{self.base}/repos/{self.repository}/{path}"
        try:
            return self._send("GET", url)
        except RefusedError as error:
            if error.status != 302:
                raise
            where = urljoin(url, error.location)
        if urlsplit(where).scheme != urlsplit(self.base).scheme:
            raise RefusedError("the artifact is said to be at no address of the web")
        return _read(urllib.request.Request(where), LARGEST_ARTIFACT)  # noqa: S310 - of the API's own scheme

    def _send(self, method: str, url: str, body: object = None) -> bytes:
        headers = {"Authorization": f"Bearer {self.token}", "Accept": "application/vnd.github+json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310 - GitHub's own address
        return _read(request, LARGEST_ANSWER)


def _read(request: urllib.request.Request, limit: int) -> bytes:
    """Return the body of an answer; RefusedError for any other than a success, with the address of a redirect."""
    path = urlsplit(request.full_url).path
    try:
        with _OPENER.open(request, timeout=TIMEOUT_S) as answer:
            data: bytes = answer.read(limit + 1)
    except urllib.error.HTTPError as error:
        with error:
            where = error.headers.get("Location", "")
        raise RefusedError(f"{request.get_method()} {path}: {error.code}", error.code, where) from error
    except (OSError, HTTPException) as error:
        raise RefusedError(f"{request.get_method()} {path}: {type(error).__name__}") from error
    if len(data) > limit:
        raise RefusedError(f"{request.get_method()} {path}: more than {limit:,} bytes")
    return data


@dataclass(frozen=True)
class GateRun:
    """The run that ended, as GitHub's event tells it: names in it are chosen by whoever sent the change."""

    number: int
    commit: str
    branch: str
    owner: str
    source: str
    conclusion: str


def read_event(event: Any) -> GateRun:
    """Return the run of an event `workflow_run`; ValueError, KeyError or TypeError when it is none."""
    run = event["workflow_run"]
    commit, source = str(run["head_sha"]), run["head_repository"]
    if re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", commit) is None:
        raise ValueError("the event names no commit")
    return GateRun(
        int(run["id"]),
        commit,
        str(run["head_branch"]),
        str(source["owner"]["login"]),
        str(source["full_name"]),
        "passed" if run["conclusion"] == "success" else "did not pass",
    )


def find_pull_request(api: Api, run: GateRun) -> int | None:
    """Return the number of the open pull request whose last commit was judged; None when it went on, or is unclear."""
    query = urlencode({"state": "open", "head": f"{run.owner}:{run.branch}", "per_page": 100})
    numbers = [
        int(found["number"])
        for found in api.ask("GET", f"pulls?{query}")
        if found["head"]["sha"] == run.commit
        and (found["head"]["repo"] or {}).get("full_name") == run.source
        and found["base"]["repo"]["full_name"] == api.repository
    ]
    return numbers[0] if len(numbers) == 1 else None


def fetch_text(api: Api, run: GateRun) -> str | None:
    """Return what the gate wrote; None when it wrote nothing that is a text of a reasonable size."""
    found = api.ask(
        "GET", f"actions/runs/{run.number}/artifacts?{urlencode({'name': ARTIFACT, 'per_page': 100})}"
    )
    kept = [one for one in found["artifacts"] if one["name"] == ARTIFACT and not one["expired"]]
    newest = max(kept, key=lambda one: int(one["id"]), default=None)
    if newest is None or int(newest["size_in_bytes"]) > LARGEST_ARTIFACT:
        return None
    return read_text(api.fetch(f"actions/artifacts/{int(newest['id'])}/zip"))


def read_text(data: bytes) -> str | None:
    """Return the comments in an archive one after the other, read in memory and no further than `LARGEST_TEXT`."""
    texts: list[bytes] = []
    room = LARGEST_TEXT
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = sorted(name for name in archive.namelist() if FILE.fullmatch(name))
            for name in names[:MOST_FILES]:
                with archive.open(name) as file:
                    texts.append(file.read(room + 1))
                room -= len(texts[-1])
                if room < 0:
                    return None
    except _UNREADABLE:
        return None
    text = b"\n\n".join(texts).decode(errors="replace").replace("\r\n", "\n")
    return _UNSEEN.sub("\ufffd", text)


def comment_body(run: GateRun, text: str | None, *, repository: str, server: str) -> str:
    """Return the comment: marker, what GitHub says of the run, and then what the gate wrote."""
    link = f"{server}/{quote(repository)}/actions/runs/{run.number}"
    head = f"{MARKER}\nThe gate **{run.conclusion}** at {run.commit[:12]}: [the run and its files](<{link}>).\n\n"
    if not text:
        return f"{head}It came to no verdict, or found nothing to judge.\n"
    is_fork = run.source != repository
    if is_fork:
        head += "What follows was written by a run of the fork's own code, without keys; a maintainer confirms it.\n\n"
    cut = "It did not fit: the whole stands in the run.\n\n"
    room = COMMENT_LIMIT - _size(head) - _size(cut) - 2_100
    shown = _first(text, room)
    if shown != text:
        head += cut
    return f"{head}{_fence(shown) if is_fork else shown}"


def _fence(text: str) -> str:
    """Return a text in a fence that nothing in it can end: tildes, one more than it has in a row, at most 1,000."""
    longest = max(map(len, re.findall("~+", text)), default=2)
    if longest >= 1_000:
        text, longest = text.replace("~", "-"), 2
    tildes = "~" * max(3, longest + 1)
    return f"{tildes}text\n{text}\n{tildes}\n"


def _size(text: str) -> int:
    """Return how long GitHub may take a text to be: in UTF-16, where some characters count twice."""
    return len(text.encode("utf-16-le", "replace")) // 2


def _first(text: str, room: int) -> str:
    """Return the lines of a text, from its start, that fit."""
    if _size(text) <= room:
        return text
    short = text.encode("utf-16-le", "replace")[: 2 * room].decode("utf-16-le", "ignore")
    return short.rpartition("\n")[0] or short


def post(api: Api, number: int, body: str, *, is_news: bool) -> None:
    """Update our comment, or write it where there is none and there is something to say; leave exactly one."""
    ours = sorted(own_comments(api, number))
    for comment in ours:
        try:
            api.ask("PATCH", f"issues/comments/{comment}", {"body": body})
        except RefusedError as error:
            if error.status != 404:  # deleted since it was listed
                raise
            continue
        for double in ours:
            if double > comment:
                api.ask("DELETE", f"issues/comments/{double}")
        return
    if is_news:
        api.ask("POST", f"issues/{number}/comments", {"body": body})


def own_comments(api: Api, number: int) -> Iterator[int]:
    """Yield our comments: those that start with the marker and that our own account wrote."""
    for page in range(1, MOST_PAGES + 1):
        comments = api.ask("GET", f"issues/{number}/comments?per_page=100&page={page}")
        for comment in comments:
            author = (comment["user"] or {}).get("login")
            if author == AUTHOR and str(comment["body"]).startswith(MARKER):
                yield int(comment["id"])
        if len(comments) < 100:
            return


def summarise(path: str, why: str, body: str) -> None:
    """Add to the step's summary what no comment could say."""
    data = f"{why}\n\n{body}\n".encode(errors="replace")[:SUMMARY_LIMIT]
    with Path(path).open("ab") as file:
        file.write(data.decode(errors="ignore").encode())


def main() -> int:
    """Carry the step out, by GitHub's variables."""
    variables = os.environ
    event = json.loads(Path(variables["GITHUB_EVENT_PATH"]).read_bytes())
    run = read_event(event)
    api = Api(variables["GITHUB_API_URL"], variables["GITHUB_REPOSITORY"], variables["GITHUB_TOKEN"])
    text = None
    try:
        number = find_pull_request(api, run)
        text = fetch_text(api, run)
        body = comment_body(run, text, repository=api.repository, server=variables["GITHUB_SERVER_URL"])
        if number is None:
            why = "No open pull request ends at this commit, or more than one does: nothing was posted."
        else:
            post(api, number, body, is_news=bool(text))
            return 0
    except RefusedError as error:
        why = f"The comment could not be written ({error})."
        body = comment_body(run, text, repository=api.repository, server=variables["GITHUB_SERVER_URL"])
    print(why)
    summarise(variables["GITHUB_STEP_SUMMARY"], why, body)
    return 0


if __name__ == "__main__":
    sys.exit(main())
