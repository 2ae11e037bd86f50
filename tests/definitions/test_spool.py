"""What is laid aside comes back as it was, and leaves nothing behind."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops.definitions.spool import Spool
from llmops.errors import StoreError


@given(st.lists(st.binary(max_size=50)))
def test_every_piece_comes_back_from_where_it_began(pieces: list[bytes]) -> None:
    spool = Spool()
    starts = [spool.write(piece) for piece in pieces]
    spool.flush()
    assert [spool.read(start, len(piece)) for start, piece in zip(starts, pieces, strict=True)] == pieces


def test_lines_come_in_order_and_as_often_as_they_are_asked_for() -> None:
    spool = Spool()
    for number in range(3):
        spool.write(f"{number}\n".encode())
    assert list(spool.lines()) == list(spool.lines()) == [b"0\n", b"1\n", b"2\n"]


def test_threads_read_side_by_side() -> None:
    spool = Spool()
    starts = [spool.write(bytes([number]) * 1000) for number in range(200)]
    spool.flush()
    with ThreadPoolExecutor(8) as threads:
        found = threads.map(lambda start: spool.read(start, 1000), starts * 5)
        assert all(len(set(piece)) == 1 for piece in found)


def open_files() -> Iterator[str]:
    return (str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink())


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc on this machine")
def test_the_file_has_no_name_and_is_gone_with_the_spool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    spool = Spool()
    spool.write(b"something")
    assert list(tmp_path.iterdir()) == []
    assert any(str(tmp_path) in path for path in list(open_files()))
    del spool
    gc.collect()
    assert not any(str(tmp_path) in path for path in list(open_files()))


def test_a_folder_that_takes_no_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(StoreError, match="point TMPDIR to a folder with room"):
        Spool()
