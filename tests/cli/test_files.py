"""A file that a command writes is there whole, or as it was before."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from llmops.cli.files import replacing, write_text
from llmops.errors import UsageError


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("before", encoding="utf-8")
    with replacing(path) as file:
        file.write_text("after", encoding="utf-8")
        assert (file.suffix, file.parent) == (".html", tmp_path)
        assert path.read_text(encoding="utf-8") == "before"
    assert path.read_text(encoding="utf-8") == "after"
    assert names_in(tmp_path) == ["page.html"]


def test_what_breaks_off_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("before", encoding="utf-8")
    with pytest.raises(KeyboardInterrupt), replacing(path) as file:
        file.write_text("half", encoding="utf-8")
        raise KeyboardInterrupt
    assert path.read_text(encoding="utf-8") == "before"
    assert names_in(tmp_path) == ["page.html"]


def test_a_file_keeps_its_rights_and_a_new_one_gets_those_of_any_other(tmp_path: Path) -> None:
    old, new, plain = (tmp_path / name for name in ("old.html", "new.html", "plain.html"))
    for path in (old, plain):
        path.touch()
    old.chmod(0o640)
    for path in (old, new):
        write_text(path, "text")
    assert old.stat().st_mode & 0o777 == 0o640
    assert new.stat().st_mode == plain.stat().st_mode


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "to").touch()
    (tmp_path / "link.html").symlink_to(tmp_path / "to")
    write_text(tmp_path / "link.html", "text")
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "to").read_text(encoding="utf-8") == "text"


def test_a_device_is_written_and_not_replaced() -> None:
    before = Path(os.devnull).stat()
    write_text(Path(os.devnull), "text")
    after = Path(os.devnull).stat()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)


@pytest.mark.parametrize("name", ["nowhere/page.html", "file/page.html", "x" * 300])
def test_a_path_that_cannot_be_written_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written: ") as caught:
        write_text(tmp_path / name, "text")
    assert name in str(caught.value)
    assert names_in(tmp_path) == ["file"]


def test_a_full_disk_is_no_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="full") as caught, replacing(tmp_path / "page.html"):
        raise OSError(errno.ENOSPC, "full")
    assert caught.value.errno == errno.ENOSPC
    assert names_in(tmp_path) == []
