"""The comment of a pull request: the real script against a real server, with artifacts as a fork might make them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from tests.ci.files import ACTION
from tests.ci.github_server import BOT, COMMIT, NUMBER, REPOSITORY, RUN, GitHub, pull_request, running, zipped

MARKER = "<!-- llmops-gate -->"
FORK = "stranger/project"
Post = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def github() -> Iterator[GitHub]:
    with running(GitHub(zipped("### triage: pass\n"))) as server:
        yield server


@pytest.fixture
def post(tmp_path: Path, github: GitHub) -> Post:
    """Run the script as the workflow does, on the event of a run. source, changes: of that run; ends: how it has to."""

    def run(source: str = REPOSITORY, ends: int = 0, **changes: Any) -> subprocess.CompletedProcess[str]:
        told = {
            "id": RUN,
            "head_sha": COMMIT,
            "head_branch": "topic & more",
            "head_repository": {"full_name": source, "owner": {"login": source.partition("/")[0]}},
            "conclusion": "success",
            **changes,
        }
        (tmp_path / "event.json").write_text(json.dumps({"workflow_run": told}))
        variables = {
            "GITHUB_EVENT_PATH": str(tmp_path / "event.json"),
            "GITHUB_API_URL": github.url,
            "GITHUB_SERVER_URL": "https://github.example",
            "GITHUB_REPOSITORY": REPOSITORY,
            "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
            "GITHUB_TOKEN": "the-token",
        }
        command = [sys.executable, "-I", "-W", "error", str(ACTION / "comment.py")]
        done = subprocess.run(
            command, env=variables, cwd=tmp_path, capture_output=True, encoding="utf-8", check=False
        )
        assert (done.returncode, bool(done.stderr)) == (ends, bool(ends)), done.stderr
        return done

    return run


@pytest.fixture
def summary(tmp_path: Path) -> Callable[[], str]:
    def read() -> str:
        path = tmp_path / "summary.md"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    return read


def only(github: GitHub) -> str:
    """Return the one comment that is there."""
    (comment,) = github.comments.values()
    return str(comment["body"])


def test_the_comment_is_written_and_later_runs_update_it(github: GitHub, post: Post) -> None:
    post()
    assert only(github).startswith(f"{MARKER}\nThe gate **passed** at {COMMIT[:12]}: ")
    assert "### triage: pass" in only(github)
    github.archive = zipped("### triage: fail\n")
    post(conclusion="failure")
    assert "**did not pass**" in only(github)
    assert "### triage: fail" in only(github)
    assert "### triage: pass" not in only(github)


def test_the_comments_of_several_experiments_are_one(github: GitHub, post: Post) -> None:
    github.archive = zipped(
        "### a verdict", "comment.triage.md", "comment.fields.md", "junit.xml", "x/comment.md"
    )
    post()
    assert only(github).count("### a verdict") == 2


def test_only_a_comment_of_our_account_that_starts_with_the_marker_is_updated_F86(
    github: GitHub, post: Post
) -> None:
    others = [
        github.add(f"{MARKER}\nforged", author="stranger"),
        github.add(f"as was said:\n{MARKER}\nquoted"),
        github.add(f"{MARKER} of a deleted account", author=None),
    ]
    before = {number: github.comments[number]["body"] for number in others}
    ours = github.add(f"{MARKER}\nbefore")
    post()
    assert {number: github.comments[number]["body"] for number in others} == before
    assert "triage: pass" in github.comments[ours]["body"]
    assert len(github.comments) == 4


def test_our_comment_is_found_behind_a_hundred_others(github: GitHub, post: Post) -> None:
    for _ in range(150):
        github.add("talk", author="someone")
    ours = github.add(f"{MARKER}\nbefore")
    post()
    assert "triage: pass" in github.comments[ours]["body"]
    assert len(github.comments) == 151


def test_two_runs_that_posted_at_once_leave_one_comment_F86(github: GitHub, post: Post) -> None:
    first, second = github.add(f"{MARKER}\none"), github.add(f"{MARKER}\ntwo")
    post()
    assert list(github.comments) == [first]
    assert second not in github.comments


def test_a_comment_that_was_deleted_meanwhile_is_written_anew_F86(github: GitHub, post: Post) -> None:
    github.gone = {github.add(f"{MARKER}\nbefore")}
    post()
    assert sum("triage: pass" in comment["body"] for comment in github.comments.values()) == 1


@pytest.mark.parametrize("refused", ["POST", "GET"])
@pytest.mark.parametrize("status", [401, 403, 404, 422, 500])
def test_a_token_that_may_not_comment_falls_back_to_the_summary_F86(
    github: GitHub, post: Post, summary: Callable[[], str], refused: str, status: int
) -> None:
    github.refuses = {refused: status}
    post()
    assert not github.comments
    assert f": {status})" in summary()
    assert MARKER in summary()
    assert ("triage: pass" in summary()) is (refused == "POST")


def test_the_token_goes_to_the_api_and_not_where_it_points(github: GitHub, post: Post) -> None:
    post()
    assert github.tokens.pop("/storage") is None
    assert set(github.tokens.values()) == {"Bearer the-token"}


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/x", ""])
def test_an_artifact_at_no_address_of_the_web_is_left_alone(
    github: GitHub, post: Post, summary: Callable[[], str], location: str
) -> None:
    github.location = location
    post()
    assert "root:" not in summary()
    assert not github.comments


# --- which pull request -------------------------------------------------------------------------------------


def test_the_pull_request_is_asked_of_github_by_source_and_commit(github: GitHub, post: Post) -> None:
    github.pulls = [pull_request(1, source="third/project"), pull_request(2, commit="b" * 40), pull_request()]
    github.archive = zipped("the number is 1; pr_number: 2")
    post()
    assert [path for method, path in github.asked if method == "POST"] == [
        f"/repos/{REPOSITORY}/issues/{NUMBER}/comments"
    ]
    assert "head=owner%3Atopic+%26+more" in github.asked[0][1], "names that a stranger chose are quoted"


@pytest.mark.parametrize(
    "pulls",
    [
        [],
        [pull_request(commit="b" * 40)],
        [pull_request(source=None)],
        [pull_request(source=FORK)],
        [pull_request(), pull_request(8)],
    ],
    ids=["closed", "went on", "source deleted", "another source", "two of the same commit"],
)
def test_without_one_pull_request_at_that_commit_nothing_is_posted(
    github: GitHub, post: Post, summary: Callable[[], str], pulls: list[dict[str, Any]]
) -> None:
    github.pulls = pulls
    post()
    assert not github.comments
    assert "nothing was posted" in summary()


@pytest.mark.parametrize("commit", ["main", "a" * 39, "a" * 40 + "\n", "::set-output"])
def test_an_event_without_a_commit_ends_the_step(github: GitHub, post: Post, commit: str) -> None:
    assert "names no commit" in post(ends=1, head_sha=commit).stderr
    assert not github.asked


# --- what the artifact may hold -----------------------------------------------------------------------------

HOSTILE = """<!-- llmops-gate -->
@everyone see #1, fixes #2 ![x](https://evil.example/x.png) <img src=https://evil.example/y>
~~~~
```
</details><script>alert(1)</script> [click](javascript:alert(1)) \x1b[2J \u202e www.evil.example
::error::text
${{ github.token }} $(touch touched) `touch touched`
"""


def test_what_a_fork_wrote_is_text_in_a_fence_that_it_cannot_end_S09_S10(
    github: GitHub, post: Post, tmp_path: Path
) -> None:
    github.pulls, github.archive = [pull_request(source=FORK)], zipped(HOSTILE)
    done = post(FORK)
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(only(github))
    fences = [token for token in tokens if token.type == "fence"]
    assert len(fences) == 1
    assert "@everyone" in fences[0].content
    assert fences[0].content.strip().endswith("`touch touched`")
    outside = only(github).replace(fences[0].content, "")
    assert "evil" not in outside
    assert "@" not in outside
    assert "fork" in outside
    assert "\x1b" not in only(github)
    assert "\u202e" not in only(github)
    assert not (tmp_path / "touched").exists()
    assert "::" not in done.stdout


@pytest.mark.parametrize("tildes", [3, 40, 999, 1_000, 60_000])
def test_no_row_of_tildes_ends_the_fence_S09(github: GitHub, post: Post, tildes: int) -> None:
    github.pulls, github.archive = [pull_request(source=FORK)], zipped(f"{'~' * tildes}\n@everyone\n")
    post(FORK)
    tokens = MarkdownIt().parse(only(github))
    assert [token.type for token in tokens][-1] == "fence"
    assert "@everyone" in tokens[-1].content
    assert len(only(github)) <= 65_536


@pytest.mark.parametrize("source", [REPOSITORY, FORK])
@pytest.mark.parametrize("letter", ["x", "é", "\U0001f600"])
def test_a_long_text_is_cut_to_what_github_takes_and_links_the_rest_F86(
    github: GitHub, post: Post, source: str, letter: str
) -> None:
    lines = f"{letter * 70}\n" * 1_700
    github.pulls, github.archive = [pull_request(source=source)], zipped(lines)
    post(source)
    body = only(github)
    assert 50_000 < len(body.encode("utf-16-le")) // 2 <= 65_536
    assert f"https://github.example/{REPOSITORY}/actions/runs/{RUN}" in body
    assert "did not fit" in body


def bomb() -> bytes:
    return zipped(b"x" * (64 << 20))


def garbled() -> bytes:
    data = bytearray(zipped("### triage: pass\n" * 50))
    data[40:60] = b"\xff" * 20
    return bytes(data)


@pytest.mark.parametrize(
    "archive",
    [
        b"no archive",
        b"",
        zipped("text", "other.md"),
        zipped("text", "../comment.md"),
        zipped("text", "/comment.md"),
        zipped(b"x" * (300 << 10), "comment.a.md", "comment.b.md"),
        bomb(),
        garbled(),
    ],
    ids=["no archive", "none", "another file", "climbing", "absolute", "too much", "bomb", "garbled"],
)
def test_an_archive_that_holds_no_reasonable_text_is_not_news(
    github: GitHub, post: Post, archive: bytes
) -> None:
    github.archive = archive
    post()
    assert not github.comments, "a change that touches no experiment gets no comment"
    number = github.add(f"{MARKER}\nfail of the commit before")
    post()
    assert "no verdict" in github.comments[number]["body"]
    assert "fail of the commit before" not in github.comments[number]["body"]


@pytest.mark.parametrize(("size", "expired"), [((4 << 20) + 1, False), (100, True)])
def test_an_artifact_too_large_or_expired_is_not_fetched(
    github: GitHub, post: Post, size: int, expired: bool
) -> None:
    github.size_in_bytes, github.expired = size, expired
    post()
    assert not any(path.endswith("/zip") for _, path in github.asked)


def test_an_artifact_larger_than_it_says_is_read_no_further_than_the_limit(
    github: GitHub, post: Post, summary: Callable[[], str]
) -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("other.bin", b"\0" * (5 << 20))
        archive.writestr("comment.md", "### triage: pass\n")
    github.archive, github.size_in_bytes = data.getvalue(), 100
    post()
    assert not github.comments
    assert "more than 4,194,304 bytes" in summary()


def test_the_script_needs_nothing_but_python(github: GitHub, post: Post) -> None:
    assert "import llmops" not in (ACTION / "comment.py").read_text(encoding="utf-8")
    post()  # with -I: no site of the project, no PYTHONPATH
    assert next(iter(github.comments.values()))["user"]["login"] == BOT
