"""Versions on the disk: whole or not there, whoever is killed, builds beside, or cuts a file short."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmops.errors import StoreError
from llmops.indexes.files import ABOUT, HOME, KEPT, build, find_built, newest, read_about

VERSION = "a1" * 32


def write(folder: Path) -> dict[str, Any]:
    (folder / "data").write_bytes(b"x" * 1000)
    return {"said": 1}


def test_what_is_built_is_found_and_says_what_it_was_told(tmp_path: Path) -> None:
    assert find_built(tmp_path, "docs", VERSION) is None
    folder = build(tmp_path, "docs", VERSION, write)
    assert find_built(tmp_path, "docs", VERSION) == folder
    about = read_about(folder)
    assert about is not None and (about["said"], about["files"]) == (1, {"data": 1000})
    assert find_built(tmp_path, "docs", "b2" * 32) is None


@pytest.mark.parametrize("harm", ["cut", "gone", "garbled", "untold"])
def test_a_version_that_is_not_whole_is_as_one_that_is_not_there(tmp_path: Path, harm: str) -> None:
    folder = build(tmp_path, "docs", VERSION, write)
    if harm == "cut":
        os.truncate(folder / "data", 10)
    elif harm == "gone":
        (folder / "data").unlink()
    else:
        (folder / ABOUT).write_text("{" if harm == "garbled" else "{}")
    assert find_built(tmp_path, "docs", VERSION) is None
    assert not folder.exists()
    assert find_built(tmp_path, "docs", VERSION) == find_built(tmp_path, "docs", VERSION)
    build(tmp_path, "docs", VERSION, write)
    assert find_built(tmp_path, "docs", VERSION) == folder


def test_of_two_builders_the_second_finds_what_the_first_made(tmp_path: Path) -> None:
    def write_slowly(folder: Path) -> dict[str, Any]:
        build(tmp_path, "docs", VERSION, write)
        return write(folder)

    folder = build(tmp_path, "docs", VERSION, write_slowly)
    assert read_about(folder) is not None
    assert [path.name for path in (tmp_path / HOME).iterdir()] == [folder.name]


def test_a_builder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: Path) -> dict[str, Any]:
        write(folder)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        build(tmp_path, "docs", VERSION, fail)
    assert list((tmp_path / HOME).iterdir()) == []


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / ".llmops").write_text("a file")
    with pytest.raises(StoreError, match="index docs cannot be written below"):
        build(tmp_path, "docs", VERSION, write)


def test_old_versions_and_what_killed_builders_left_are_removed(tmp_path: Path) -> None:
    for number in range(KEPT + 4):
        folder = build(tmp_path, "docs", f"{number:064x}"[::-1], write)
        os.utime(folder, (number, number))
    other = build(tmp_path, "docs-more", VERSION, write)
    left = tmp_path / HOME / ".building-left"
    left.mkdir()
    os.utime(left, (0, 0))
    fresh = tmp_path / HOME / ".building-fresh"
    fresh.mkdir()
    build(tmp_path, "docs", VERSION, write)
    assert len(newest(tmp_path, "docs")) == KEPT + 1
    assert other.is_dir() and fresh.is_dir() and not left.exists()


PROGRAM = """
import sys, time
from pathlib import Path
from llmops.definitions.workspace import load_workspace
from llmops.indexes import Query, open_index
root = Path(sys.argv[1])
print("ready", flush=True)
index = open_index(load_workspace(root), "docs")
print(index.find(Query("number7"), 1, {})[0][0].id, flush=True)
"""


@pytest.fixture
def corpus(project: Callable[..., Path]) -> Path:
    rows = "".join(f'{{"id": "r{place}", "text": "some words of number{place}"}}\n' for place in range(4000))
    index = "sources: [{files: d.jsonl}]\nembedder: hashing\nstore: fused\n"
    return project({"d.jsonl": rows, "chains/indexes/docs.index.yaml": index})


def started(root: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, str(root)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_kill_at_any_moment_leaves_an_index_whole_or_none(corpus: Path) -> None:
    for turn in range(6):
        child = started(corpus)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(0.15 * turn)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        assert all(read_about(folder) is not None for folder in newest(corpus, "docs"))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(corpus)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "ready\nr7#1\n"


def test_builders_side_by_side_all_find_the_same(corpus: Path) -> None:
    children = [started(corpus) for _ in range(3)]
    assert {child.communicate()[0] for child in children} == {"ready\nr7#1\n"}
    assert [child.returncode for child in children] == [0, 0, 0]
    assert len(newest(corpus, "docs")) == 1
