"""Files read from the work tree and from git's objects, and none from anywhere else."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llmops.definitions import trees
from llmops.definitions.trees import GitTree, WorkTree, check_relative, find_commits, resolve_revision
from llmops.errors import UsageError

Project = Callable[..., Path]
Git = Callable[..., str]

SPELLINGS = [
    *(
        "../x",
        "..",
        "../../etc/passwd",
        "a/../../x",
        "./x",
        "a/./x",
        "x/.",
        "x/..",
        "",
        ".",
        "/",
        "a//b",
        "a/",
    ),
    *(
        "/etc/passwd",
        "/proc/self/environ",
        "//host/share",
        "~/x",
        "~root/x",
        "..\\x",
        "a\\..\\x",
        "\\\\host\\share",
    ),
    *("C:\\x", "C:/x", "c:x", "file:///etc/passwd", "file://x", "http://h/x", "a:b", "x:$DATA"),
    *("..%2fx", "%2e%2e/x", "%2e%2e%2fx", "..%5cx", "%00", "x\0", "x\0.yaml", "x\n", "x\r", "x\ty"),
    *(
        "\uff0e\uff0e/x",
        "\u2024\u2024/x",
        "..\u2215x",
        "..\u2044x",
        "x\u2028y",
        "$HOME/x",
        "${HOME}/x",
        "x y",
    ),
    *("con", "NUL", "aux.yaml", "prompts/com1", "a/LPT9.txt", "PRN.prompt.yaml"),
]


@pytest.mark.parametrize("path", SPELLINGS)
def test_no_spelling_leads_out_of_the_project(path: str) -> None:  # S06
    with pytest.raises(UsageError, match="is no path inside the project"):
        check_relative(path)


def test_at_least_forty_spellings_are_tried() -> None:  # S06
    assert len(set(SPELLINGS)) >= 40


@pytest.mark.parametrize(
    "path",
    [
        "llmops.yaml",
        "prompts/a.prompt.yaml",
        "chains/pkg/__init__.py",
        ".env",
        "a-b_c/..d",
        "console/auxiliary",
    ],
)
def test_a_path_made_of_names_is_inside(path: str) -> None:
    check_relative(path)


# --- the work tree ------------------------------------------------------------------------------------------


def test_files_of_the_work_tree_are_read_as_they_lie(project: Project) -> None:
    tree = WorkTree(project({"prompts/b": b"\xff", "prompts/a": "1", "prompts/sub/c": "2"}))
    assert tree.names("prompts") == ["a", "b"]
    assert tree.names("chains") == []
    assert tree.read("prompts/b") == b"\xff"
    assert tree.read("prompts/none") is None
    assert tree.read("prompts/sub") is None
    assert tree.read("prompts/a/below") is None


def test_a_file_can_be_opened_where_it_can_be_read(project: Project, git: Git) -> None:
    root = project({"datasets/d.csv": "id\n1\n"})
    git("init")
    git("add", ".")
    git("commit", "-m", "one")
    for tree in (WorkTree(root), GitTree(root, git("rev-parse", "HEAD"))):
        data = tree.open("datasets/d.csv")
        assert data is not None
        with data:
            assert data.read() == b"id\n1\n"
        assert tree.open("datasets/none") is None
        with pytest.raises(UsageError):
            tree.open("../d.csv")


def test_a_link_that_leads_out_is_refused_and_one_that_stays_is_followed(
    project: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:  # S06
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret").write_text("secret")
    root = project({"prompts/real": "here"})
    (root / "prompts/link").symlink_to("real")
    (root / "prompts/escape").symlink_to(outside / "secret")
    (root / "prompts/environ").symlink_to("/proc/self/environ")
    (root / "chains").symlink_to(outside, target_is_directory=True)
    tree = WorkTree(root)
    assert tree.read("prompts/link") == b"here"
    for path in ("prompts/escape", "prompts/environ", "chains/secret"):
        with pytest.raises(UsageError, match="leads out of the project"):
            tree.read(path)
    with pytest.raises(UsageError, match="leads out of the project"):
        tree.names("chains")


def test_links_in_a_circle_are_told(project: Project) -> None:
    root = project()
    (root / "prompts").mkdir()
    (root / "prompts/a").symlink_to("b")
    (root / "prompts/b").symlink_to("a")
    if sys.version_info >= (3, 13):
        assert WorkTree(root).read("prompts/a") is None
    else:
        with pytest.raises(UsageError, match="cannot be followed"):
            WorkTree(root).read("prompts/a")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_told(project: Project) -> None:  # F47
    root = project({"prompts/a": "1"})
    (root / "prompts/a").chmod(0)
    with pytest.raises(UsageError, match="prompts/a cannot be read: Permission denied"):
        WorkTree(root).read("prompts/a")


# --- git ----------------------------------------------------------------------------------------------------


@pytest.fixture
def history(project: Project, git: Git) -> tuple[Path, str, str]:
    """Two commits: a and b, then b changed and a gone; the work tree differs from both."""
    root = project(
        {"prompts/a": "1", "prompts/b": "2", "prompts/sub/c": "x", "datasets/d.jsonl": b"\r\n\xff"}
    )
    git("init")
    git("add", ".")
    git("commit", "-m", "one")
    first = git("rev-parse", "HEAD")
    (root / "prompts/a").unlink()
    project({"prompts/b": "3"})
    git("commit", "-am", "two")
    project({"prompts/b": "4"})
    return root, first, git("rev-parse", "HEAD")


def test_files_are_read_as_they_stand_at_a_commit_without_touching_the_work_tree(
    history: tuple[Path, str, str],
) -> None:
    root, first, second = history
    then, later = GitTree(root, first), GitTree(root, second)
    assert (then.names("prompts"), later.names("prompts")) == (["a", "b"], ["b"])
    assert (then.read("prompts/a"), later.read("prompts/a")) == (b"1", None)
    assert (then.read("prompts/b"), later.read("prompts/b")) == (b"2", b"3")
    assert then.read("datasets/d.jsonl") == b"\r\n\xff"
    assert then.read("prompts/sub") is None
    assert then.read("prompts/sub/c") == b"x"
    assert then.names("chains") == []
    assert then.read("llmops.yaml") == b""
    assert (root / "prompts/b").read_text() == "4"
    assert then.place("prompts/a") == f"git:{first[:12]}:prompts/a"


@pytest.mark.parametrize("path", SPELLINGS)
def test_no_spelling_is_read_from_a_commit(path: str, tmp_path: Path) -> None:  # S06
    with pytest.raises(UsageError, match="is no path inside the project"):
        GitTree(tmp_path, "0" * 40).read(path)


def test_a_link_in_a_commit_is_no_file(project: Project, git: Git) -> None:  # S06
    root = project({"prompts/a": "1"})
    (root / "prompts/link").symlink_to("/etc/passwd")
    git("init")
    git("add", ".")
    git("commit", "-m", "one")
    tree = GitTree(root, git("rev-parse", "HEAD"))
    assert tree.names("prompts") == ["a"]
    assert tree.read("prompts/link") is None


def test_a_project_may_lie_below_the_top_of_its_repository(project: Project, git: Git) -> None:
    root = project({"team one/llmops.yaml": "", "team one/prompts/a": "1", "prompts/a": "other"})
    git("init")
    git("add", ".")
    git("commit", "-m", "one")
    tree = GitTree(root / "team one", resolve_revision(root / "team one", "HEAD"))
    assert tree.names("prompts") == ["a"]
    assert tree.read("prompts/a") == b"1"
    assert tree.read("llmops.yaml") == b""
    assert len(find_commits(root / "team one", ["prompts"])) == 1


@pytest.mark.parametrize("revision", ["main", "HEAD", "HEAD~1", "v1", "refs/heads/main", "@"])
def test_whatever_git_knows_is_a_revision(history: tuple[Path, str, str], git: Git, revision: str) -> None:
    root, first, second = history
    git("tag", "-a", "v1", "-m", "an annotated tag", first)
    expected = first if revision in {"HEAD~1", "v1"} else second
    assert resolve_revision(root, revision) == expected
    assert resolve_revision(root, expected[:12]) == expected


def test_an_unknown_revision_is_told_with_what_is_near(history: tuple[Path, str, str], git: Git) -> None:
    root, first, _ = history
    git("update-ref", "refs/remotes/origin/develop", first)
    with pytest.raises(UsageError, match=r"git:mian: git knows no such revision here; did you mean 'main'\?"):
        resolve_revision(root, "mian")
    with pytest.raises(UsageError, match="did you mean 'origin/develop'"):
        resolve_revision(root, "develop")
    with pytest.raises(UsageError, match=r"git knows no such revision here$"):
        resolve_revision(root, "zzzzzzzz")


def test_on_a_detached_head_the_current_commit_is_still_known(
    history: tuple[Path, str, str], git: Git
) -> None:  # F84
    root, first, _ = history
    git("checkout", "-q", "--force", "--detach", first)
    git("branch", "-q", "-D", "main")
    assert resolve_revision(root, "HEAD") == first
    assert find_commits(root, ["prompts"]) == [first]


def test_a_shallow_clone_says_that_the_history_is_cut_short(
    history: tuple[Path, str, str], tmp_path_factory: pytest.TempPathFactory, git: Git
) -> None:  # F84
    root, first, second = history
    clone = tmp_path_factory.mktemp("clone") / "c"
    git("clone", "-q", "--depth", "1", f"file://{root}", str(clone))
    assert resolve_revision(clone, "HEAD") == second
    for revision in (first, "HEAD~1"):
        with pytest.raises(UsageError, match=r"this clone is shallow: `git fetch --unshallow`"):
            resolve_revision(clone, revision)


def test_without_a_repository_a_revision_is_told_to_need_one(project: Project) -> None:  # F84
    root = project()
    with pytest.raises(UsageError, match="git:main: git rev-parse: not a git repository"):
        resolve_revision(root, "main")
    with pytest.raises(UsageError, match="not a git repository"):
        find_commits(root, ["prompts"])


def test_without_git_a_revision_is_told_to_need_it(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:  # F84
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match="git:main: git is not installed, and this needs the history"):
        resolve_revision(project(), "main")


def test_a_repository_without_a_commit_has_no_history(project: Project, git: Git) -> None:
    root = project()
    git("init")
    assert find_commits(root, ["prompts"]) == []
    with pytest.raises(UsageError, match="git knows no such revision here"):
        resolve_revision(root, "HEAD")


def test_only_commits_that_touched_a_folder_are_looked_at_newest_first(
    history: tuple[Path, str, str], git: Git
) -> None:
    root, first, second = history
    (root / "README.md").write_text("x")
    git("add", "README.md")
    git("commit", "-qm", "three", "README.md")
    assert find_commits(root, ["prompts", "chains"]) == [second, first]
    assert find_commits(root, ["datasets"]) == [first]


def test_the_repository_of_a_hook_that_runs_us_is_not_taken_for_the_project_s(
    history: tuple[Path, str, str], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, first, _ = history
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    trees.git(elsewhere, "init", "-q")
    monkeypatch.setenv("GIT_DIR", str(elsewhere / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(elsewhere))
    monkeypatch.setenv("GIT_INDEX_FILE", str(elsewhere / ".git/index"))
    assert resolve_revision(root, "HEAD~1") == first


def test_git_says_in_english_what_it_cannot_do(
    history: tuple[Path, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANGUAGE", "de")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    with pytest.raises(UsageError, match=r"^git cat-file: Not a valid object name"):
        trees.git(history[0], "cat-file", "blob", "nothing")


def test_all_files_below_a_folder_are_the_same_in_the_work_tree_and_in_git(
    project: Project, git: Git
) -> None:
    files = ("a.md", "d/b.md", "d/e/Ein Blatt é.md", "d/.hidden/c.md", "d/.f.md", "g/h.md")
    root = project(dict.fromkeys(files, "text"))
    (root / "d/link.md").symlink_to(root / "a.md")
    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "x")
    committed = GitTree(root, resolve_revision(root, "HEAD"))
    for folder in ("", "d", "d/e", "nowhere"):
        found = [path for path in WorkTree(root).paths(folder) if not path.startswith(".git")]
        assert committed.paths(folder) == [path for path in found if path != "llmops.yaml"] or not folder
        assert {"d/link.md", "d/.hidden/c.md"}.isdisjoint(found)
    assert WorkTree(root).paths("d") == ["d/.f.md", "d/b.md", "d/e/Ein Blatt é.md"]
    for tree in (WorkTree(root), committed):
        with tree.open_path("d/e/Ein Blatt é.md") as file:
            assert file.read() == b"text"


def test_a_folder_that_leads_outside_or_through_a_link_has_no_paths_S06(
    project: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = project({"d/a.md": "x"})
    (root / "out").symlink_to(tmp_path_factory.mktemp("outside"), target_is_directory=True)
    (root / "in").symlink_to(root / "d", target_is_directory=True)
    with pytest.raises(UsageError, match="leads out of the project"):
        WorkTree(root).paths("out")
    assert WorkTree(root).paths("in") == []
