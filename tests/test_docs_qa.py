"""The example docs_qa: its questions still fit the pages they are about, and it runs offline as its page says."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmops.definitions.workspace import load_workspace
from llmops.indexes.chunks import passages_of
from llmops.indexes.documents import corpus_of
from llmops.records import Blame

ROOT = Path(__file__).resolve().parent.parent
LINES = (ROOT / "datasets" / "docs_qa.jsonl").read_text(encoding="utf-8").splitlines()
CASES: list[dict[str, Any]] = [json.loads(line) for line in LINES]
INDEXES = ("docs", "docs_tfidf", "docs_fused")


def plain(text: str) -> str:
    return " ".join(text.split())


def page(name: str) -> str:
    return plain((ROOT / name).read_text(encoding="utf-8"))


def quotes_of(case: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for need in case["metadata"]["passages"]:
        for one in need if isinstance(need, list) else [need]:
            yield one["source"], one["quote"]


def in_slice(name: str) -> list[dict[str, Any]]:
    return [case for case in CASES if case["metadata"]["slice"] == name]


# --- the questions ----------------------------------------------------------------------------------------


def test_every_quote_still_stands_in_its_page() -> None:
    gone = [
        f"{case['id']}: {source} no longer says {quote!r}"
        for case in CASES
        for source, quote in quotes_of(case)
        if plain(quote) not in page(source)
    ]
    assert gone == [], (
        "mend the quote in datasets/docs_qa.jsonl, or the question where the answer has changed"
    )


@pytest.mark.parametrize("index", INDEXES)
def test_every_quote_stands_whole_in_some_passage(index: str) -> None:
    workspace = load_workspace(ROOT)
    held = defaultdict(list)
    for passage in passages_of(corpus_of(workspace, index).documents, workspace.index(index).chunker):
        held[passage.source].append(plain(passage.text))
    cut = [
        f"{case['id']}: no passage of {source} has all of {quote!r}"
        for case in CASES
        for source, quote in quotes_of(case)
        if not any(plain(quote) in text for text in held[source])
    ]
    assert cut == []


def test_there_are_enough_questions_of_each_kind_and_none_stands_in_the_pages() -> None:
    assert len(CASES) >= 120
    counts = Counter(case["metadata"]["slice"] for case in CASES)
    assert counts["answerable"] >= 70
    assert counts["multi_hop"] >= 15 <= counts["adversarial"]
    assert counts["unanswerable"] >= 20
    pages = " ".join(page(str(path.relative_to(ROOT))) for path in (ROOT / "docs").glob("*.md"))
    assert [case["id"] for case in CASES if case["inputs"]["question"] in pages] == []
    assert len({case["inputs"]["question"].casefold() for case in CASES}) == len(CASES)


def test_what_has_an_answer_has_its_facts_and_passages_and_what_has_none_has_neither() -> None:
    for case in CASES:
        about = case["metadata"]
        assert (
            bool(case["expected"])
            == bool(about["facts"])
            == bool(about["passages"])
            == bool(about["document"])
        )
    assert not any(case["expected"] for case in in_slice("unanswerable"))
    assert all(case["expected"] for case in in_slice("answerable"))
    assert all(len(case["metadata"]["passages"]) >= 2 for case in in_slice("multi_hop"))


def test_no_page_is_in_both_splits() -> None:
    splits = defaultdict(set)
    for case in CASES:
        if case["metadata"]["document"] is not None:
            splits[case["metadata"]["document"]].add(case["metadata"]["split"])
    assert all(len(found) == 1 for found in splits.values())
    assert set.union(*splits.values()) == {"dev", "test"}


# --- what is right ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def is_right() -> Any:
    return load_workspace(ROOT).code.load("docs_qa:is_right")


def test_the_expected_answer_is_right_and_made_up_ones_are_wrong(is_right: Any) -> None:
    for case in CASES:
        answer = case["expected"] or "Not in the documentation."
        assert is_right(output=answer, metadata=case["metadata"])["score"] == 1.0, case["id"]
        assert is_right(output="Forty-two, as everybody knows.", metadata=case["metadata"])["score"] == 0.0
        if case["expected"]:
            abstained = is_right(output="Not in the documentation.", metadata=case["metadata"])
            assert abstained["score"] == 0.0, case["id"]


@pytest.mark.parametrize(
    ("output", "facts", "right"),
    [
        ("Exit code 5.", ["5"], True),
        ("At most 5 % of them.", ["5"], True),
        ("15 or 50 or 1.5 or 5th", ["5"], False),
        ("It is **`store.db.aside`**.", ["store.db.aside"], True),
        ("FIVE\nminutes", [["5 minutes", "five minutes"]], True),
        ("only one of two", ["one", "three"], False),
    ],
)
def test_facts_are_whole_words_whatever_their_case_and_marks(
    is_right: Any, output: str, facts: list[Any], right: bool
) -> None:
    assert is_right(output=output, metadata={"facts": facts})["score"] == float(right)


# --- carried out ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a copy of the project."""
    root = tmp_path_factory.mktemp("docs_qa")
    for name in ("prompts", "chains", "datasets", "experiments", "docs"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("llmops.yaml", "README.md"):
        shutil.copy(ROOT / name, root / name)
    return root


def llmops(root: Path, *arguments: str) -> str:
    """Return what a command prints, of one that gives a record nothing else."""
    done = subprocess.run(
        [sys.executable, "-m", "llmops", *arguments], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout if "--json" in arguments else done.stderr + done.stdout


@pytest.fixture(scope="module")
def run(project: Path) -> dict[str, Any]:
    """Give the record of a run on nothing but this machine."""
    llmops(project, "check")
    found: dict[str, Any] = json.loads(
        llmops(project, "run", "experiments/docs_qa.experiment.yaml", "--no-sync", "--json")
    )
    return found


def test_it_runs_offline_and_finds_most_of_what_is_there(run: dict[str, Any]) -> None:
    assert (run["status"], run["n_errors"], run["n_unscored"]) == ("complete", 0, 0)
    for variant in ("bm25", "tfidf", "fused"):
        figures = run["summary"][variant]
        assert figures["retrieval"]["value"] > 0.7
        for metric in ("correct", "retrieval.recall_at_4", "retrieval.mrr", "retrieval.ndcg", "wording"):
            interval = figures[metric]["interval"]
            assert 0 <= interval["low"] <= figures[metric]["value"] <= interval["high"] <= 1
        n_unfindable = sum(not case["metadata"]["passages"] for case in CASES if in_test(case))
        assert figures["retrieval"]["n_missing"] == n_unfindable


def in_test(case: dict[str, Any]) -> bool:
    return bool(case["metadata"]["split"] == "test")


def test_every_wrong_case_is_laid_to_the_first_step_whose_own_score_failed(
    project: Path, run: dict[str, Any]
) -> None:
    llmops(project, "report", run["id"], "--rows", "rows.jsonl")
    rows = [json.loads(line) for line in (project / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    for variant in ("bm25", "tfidf", "fused"):
        scores = {
            row["case"]["id"]: {score["evaluator"]: score["value"] for score in row["scores"]}
            for row in rows
            if row["variant"] == variant
        }
        blame = Blame.model_validate(run["blame"][variant])
        assert (blame.metric, [found.step for found in blame.steps]) == ("correct", ["find", "answer"])
        for case_id, found in scores.items():
            lost = found["retrieval"] is not None and found["retrieval"] < 1
            wanted = None if found["correct"] == 1 else "find" if lost else "answer"
            assert blame.by_case().get(case_id) == wanted, case_id


def test_all_faces_say_where_wrong_cases_come_from(project: Path, run: dict[str, Any]) -> None:
    said = llmops(project, "report", run["id"], "--html", "page.html")
    assert "Where wrong cases come from" in said
    html = (project / "page.html").read_text(encoding="utf-8")
    assert "Where wrong cases come from" in html
    assert "wrong from step" in html


def test_running_again_asks_nothing_and_a_new_search_asks_for_its_variant_alone(
    project: Path, run: dict[str, Any]
) -> None:
    assert "nothing to do" in llmops(project, "run", "experiments/docs_qa", "--no-sync")
    path = project / "chains" / "indexes" / "docs_fused.index.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("size: 200", "size: 120"), encoding="utf-8")
    why = llmops(project, "run", "experiments/docs_qa", "--no-sync", "--why", "--dry-run")
    assert "fused changed" in why
    assert "bm25" not in why and "tfidf" not in why
    assert json.loads(llmops(project, "run", "experiments/docs_qa", "--no-sync", "--json"))["id"] != run["id"]
