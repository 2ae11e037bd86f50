"""Vectors on the disk: what LanceDB finds is what the store in the memory finds, and nobody else pays for it."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from llmops.definitions.workspace import load_workspace
from llmops.errors import StoreError
from llmops.indexes import OpenIndex, dense, lance, open_index
from llmops.indexes.base import Query
from llmops.indexes.dense import Dense, normed
from llmops.indexes.files import HOME
from llmops.indexes.lance import FOLDER, SPARE, Lance

Project = Callable[..., Path]
Opened = Callable[..., OpenIndex]

INDEX = "sources: [{files: d.jsonl}]\nchunker: {by: document}\nembedder: hashing\nstore: %s\n"
WORDS = (
    "robin",
    "owl",
    "pike",
    "dawn",
    "night",
    "water",
    "bread",
    "sings",
    "hunts",
    "bakes",
    "swims",
    "still",
)


def texts(n: int, seed: int) -> list[str]:
    """Return texts of a few words each; with so few words, some are equal and many are nearly."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, 4))) for _ in range(n)]


@pytest.fixture
def opened(project: Project) -> Opened:
    def opened(store: str, of: list[str]) -> OpenIndex:
        rows = [{"id": f"t{place}", "text": text, "third": place % 3} for place, text in enumerate(of)]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        return open_index(
            load_workspace(project({"d.jsonl": lines, "chains/indexes/docs.index.yaml": INDEX % store})),
            "docs",
        )

    return opened


@pytest.mark.parametrize("where", [{}, {"third": 1}, {"third": [0, 2]}], ids=str)
def test_it_finds_what_the_store_of_vectors_finds(opened: Opened, where: dict[str, object]) -> None:
    of = texts(3000, seed=1)
    on_disk, in_memory = opened("lancedb", of), opened("vectors", of)
    for query in texts(20, seed=2):
        for k in (1, 7, 200):
            ours, theirs = ([*index.find(Query(query), k, where)] for index in (on_disk, in_memory))
            assert [each.id for each, _ in ours] == [each.id for each, _ in theirs]
            assert [score for _, score in ours] == pytest.approx([score for _, score in theirs], abs=1.5e-6)


def test_more_ties_than_are_asked_for_at_first_stand_in_their_order(opened: Opened) -> None:
    same = opened("lancedb", ["bread is baked", *["the pike swims"] * (20 * SPARE), "bread"])
    assert [hit.place for hit in same.store.search(Query("pike"), 5)] == [1, 2, 3, 4, 5]


def test_passages_whose_scores_differ_by_rounding_alone_stand_in_their_order(tmp_path: Path) -> None:
    angles = np.arange(199, -1, -1) * 3e-6  # the last is nearest, by less than what counts
    lance.write_vectors(tmp_path, [np.stack([np.cos(angles), np.sin(angles)], axis=1)])
    hits = Lance(tmp_path).search(Query("", np.array([1.0, 0.0])), 3)
    assert hits == [(0, 1.0), (1, 1.0), (2, 1.0)]


def test_rows_are_read_as_they_were_written_in_any_order(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((5000, 3))
    lance.write_vectors(tmp_path, (vectors[start : start + 700] for start in range(0, 5000, 700)))
    places = [4999, 0, 699, 700, 0, 2100]
    assert (Lance(tmp_path).rows(places) == normed(vectors)[places]).all()


def test_vectors_of_nothing_are_like_nothing(tmp_path: Path) -> None:
    lance.write_vectors(tmp_path, [np.array([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])])
    store = Lance(tmp_path)
    assert [hit.place for hit in store.search(Query("", np.array([2.0, 0.0])), 3)] == [1]
    assert store.search(Query("", np.array([0.0, 0.0])), 3) == []


@pytest.mark.parametrize("store", ["vectors", "lancedb"])
def test_vectors_of_unchanged_passages_are_kept(opened: Opened, tmp_path: Path, store: str) -> None:
    """The last version's are put in others' place: the next one has these, and so did not make them again."""
    of = ["the robin sings", "the pike swims"]
    opened(store, of)
    (folder,) = (tmp_path / HOME).iterdir()
    marked = np.eye(2, dense.DIMENSIONS)
    shutil.rmtree(folder / FOLDER, ignore_errors=True)
    (lance if store == "lancedb" else dense).write_vectors(folder, [marked])
    about = json.loads((folder / "about.json").read_bytes())
    about["files"] = {}
    (folder / "about.json").write_text(json.dumps(about))
    new = opened(store, ["bread is baked", *reversed(of)]).store
    assert isinstance(new, Lance | Dense)
    assert (new.rows([2, 1]) == marked).all()
    assert np.count_nonzero(new.rows([0])) > 2


def test_a_table_that_was_harmed_is_told_and_one_that_lost_a_file_is_built_again(
    opened: Opened, tmp_path: Path
) -> None:
    of = texts(50, seed=3)
    index = opened("lancedb", of)
    (data,) = tmp_path.glob(f"{HOME}/*/{FOLDER}/data/*")
    size = data.stat().st_size
    data.write_bytes(b"\xff" * size)
    with pytest.raises(StoreError, match="cannot be read; removed, it is built again"):
        opened("lancedb", of).find(Query("robin"), 3, {})
    data.unlink()
    assert opened("lancedb", of).find(Query("robin"), 3, {})
    with pytest.raises(StoreError, match="cannot be read"):
        index.find(Query("owl", np.ones(7)), 3, {})


def test_a_full_disk_leaves_no_version_behind(opened: Opened, tmp_path: Path) -> None:
    opened("lancedb", ["a"])
    shutil.rmtree(tmp_path / HOME)
    (tmp_path / "d.jsonl").write_text(
        "".join(f'{{"text": "{each} {n}"}}\n' for n, each in enumerate(texts(2000, 4)))
    )
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, 2 << 20))\n"
        "from pathlib import Path\nfrom llmops.definitions.workspace import load_workspace\n"
        "from llmops.errors import StoreError\n"
        "from llmops.indexes import open_index\n"
        "try:\n    open_index(load_workspace(Path.cwd()), 'docs')\nexcept StoreError as error:\n    print(error)\n"
    )
    said = python(tmp_path, code)
    assert said.startswith("index docs cannot be written below .llmops/indexes: ")
    assert "File too large" in said
    assert list((tmp_path / HOME).iterdir()) == []


def python(root: Path, code: str) -> str:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("built", [True, False])
def test_without_the_extra_it_says_what_to_install(opened: Opened, tmp_path: Path, built: bool) -> None:
    opened("lancedb", ["a"])
    if not built:
        shutil.rmtree(tmp_path / HOME)
    code = (
        "import sys; sys.modules['lancedb'] = None\n"
        "from pathlib import Path\nfrom llmops.definitions.workspace import load_workspace\n"
        "from llmops.errors import UsageError\n"
        "from llmops.indexes import open_index\n"
        "try:\n    open_index(load_workspace(Path.cwd()), 'docs')\nexcept UsageError as error:\n    print(error)\n"
    )
    expected = "lancedb is not installed; `pip install 'llmops-workbench[lancedb]'` brings it\n"
    assert python(tmp_path, code) == expected


@pytest.mark.parametrize("store", ["vectors", "lancedb"])
def test_it_is_imported_for_such_an_index_alone(opened: Opened, tmp_path: Path, store: str) -> None:
    opened(store, ["a"])
    shutil.rmtree(tmp_path / HOME)
    code = (
        "import sys\nfrom pathlib import Path\nfrom llmops.definitions.workspace import load_workspace\n"
        "from llmops.check import check_workspace\nfrom llmops.indexes import Query, open_index\n"
        "workspace = load_workspace(Path.cwd())\n"
        "assert not check_workspace(workspace)\nprint('lancedb' in sys.modules)\n"
        "open_index(workspace, 'docs').find(Query('a'), 1, {})\nprint('lancedb' in sys.modules)"
    )
    assert python(tmp_path, code) == f"False\n{store == 'lancedb'}\n"
