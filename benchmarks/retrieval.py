"""Which search finds what answers a question, asked as anybody would: `python -m benchmarks.retrieval`.

Each public set of questions whose passage is known becomes a project: its passages an index, five ways to search it
the variants of one experiment. `llmops run` scores them, `llmops compare` lays each beside BM25, and what they print
is printed. The data is not part of this repository; a set that is not there is skipped. Size and speed:
`benchmarks.indexes`.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import ROOT, llmops
from llmops.records import Comparison, Effect

DATA = ROOT.parent / "shared" / "data"
PASSAGES = "passages.jsonl"
BASELINE = "bm25"
WAYS = {
    BASELINE: "store: fts",
    "tfidf": "store: vectors\nembedder: tfidf",
    "hashing": "store: vectors\nembedder: hashing",
    "lancedb": "store: lancedb\nembedder: hashing",
    "fused": "store: fused\nembedder: tfidf",
    "fused_hashing": "store: fused\nembedder: hashing",
}
TOP_K = 10
SUMMED_UP = {"recall@4": "retrieval.recall_at_4", f"nDCG@{TOP_K}": "retrieval.ndcg"}

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Question:
    """A question, the passage that answers it and the document that this passage is from."""

    id: str
    text: str
    passage: str
    document: str


@dataclass(frozen=True)
class Asked:
    """Texts by the ids of passages, and the questions about them."""

    passages: Mapping[str, str]
    questions: tuple[Question, ...]


def write_retrieval_project(root: Path, asked: Asked) -> None:
    """Write the project: an index for each way to search, and one chain whose step each variant gives another."""
    files = {
        "llmops.yaml": "",
        PASSAGES: _lines({"id": name, "text": text} for name, text in asked.passages.items()),
        "datasets/questions.jsonl": _lines(map(_case, asked.questions)),
        "datasets/questions.dataset.yaml": (
            "inputs: {question: string}\n"
            "expected: {type: array}\n"
            "cluster: metadata.document  # questions about one document resemble one another\n"
        ),
        "chains/find_passages.chain.yaml": (
            "inputs: {question: string}\n"
            "steps:\n"
            f'  - {{id: find, retrieve: {{index: {BASELINE}, query: "{{{{ question }}}}", top_k: {TOP_K}}}}}\n'
            'outputs: "{{ find.passages }}"\n'
        ),
        "experiments/search.experiment.yaml": (
            "dataset: questions\n"
            "variants:\n"
            + "".join(f"  {way}: {{chain: find_passages, set: {{find.index: {way}}}}}\n" for way in WAYS)
            + f"evaluators: [retrieval]\nbaseline: {BASELINE}\n"
        ),
    }
    files |= {f"chains/indexes/{way}.index.yaml": index_of(way) for way in WAYS}
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content, encoding="utf-8")


def index_of(way: str) -> str:
    """Return the index that searches the rows of `PASSAGES` one way, each whole."""
    return f"sources: [{{files: {PASSAGES}}}]\nchunker: {{by: document}}\n{WAYS[way]}\n"


def _lines(rows: Iterable[Row]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _case(question: Question) -> Row:
    return {
        "id": question.id,
        "inputs": {"question": question.text},
        "expected": [question.passage],
        "metadata": {"document": question.document},
    }


# --- the public sets ----------------------------------------------------------------------------------------


def read_set(name: str, data: Path = DATA) -> Asked | None:
    """Return a public set; None where its data is not there."""
    return SETS[name](data / name) if (data / name).is_dir() else None


def xquad(folder: Path) -> Asked:
    """Return XQuAD's English part: paragraphs, several of each article, which their ids tell: `xq-ARTICLE-NR`."""
    rows = [(row["id"], row["inputs"]) for row in _rows(folder / "questions.jsonl")]
    return Asked(
        {row["id"]: row["text"] for row in _rows(folder / "documents.jsonl")},
        tuple(
            Question(id_, asked["question"], asked["doc_id"], asked["doc_id"].rpartition("-")[0])
            for id_, asked in rows
        ),
    )


def clapnq(folder: Path) -> Asked:
    """Return the passages of CLAP NQ, each once and below its title, which is the page that it is from."""
    names: dict[str, str] = {}
    questions = []
    for row in _rows(folder / "dev.jsonl"):
        (passage,) = row["inputs"]["context"]
        name = names.setdefault(f"{passage['title']}\n{passage['text']}", f"p{len(names)}")
        questions.append(Question(row["id"], row["inputs"]["question"], name, passage["title"]))
    return Asked({name: text for text, name in names.items()}, tuple(questions))


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(row) for row in path.read_text(encoding="utf-8").splitlines()]


SETS: Mapping[str, Callable[[Path], Asked]] = {"rag_xquad_en": xquad, "rag_clapnq": clapnq}


# --- what the commands say ----------------------------------------------------------------------------------


def compare_ways(root: Path, asked: Asked) -> str:
    """Write the project, print what `run` and `compare` print, and return it all in one line."""
    write_retrieval_project(root, asked)
    print(llmops("run", "search", "--no-sync", cwd=root).output, flush=True)
    found = []
    for way in WAYS:
        if way != BASELINE:
            sides = (f"search:{BASELINE}", f"search:{way}")
            print(llmops("compare", *sides, cwd=root).output, flush=True)
            record = llmops("compare", *sides, "--json", cwd=root).output
            found.append(Comparison.model_validate_json(record))
    n = f"{len(asked.passages):,} passages, {len(asked.questions):,} questions"
    return f"{n}, {_level(found[0])}, and to that: {'; '.join(map(_added, found))}"


def _effects(comparison: Comparison) -> dict[str, Effect]:
    found = {effect.metric: effect for effect in comparison.effects}
    return {said: found[metric] for said, metric in SUMMED_UP.items()}


def _level(comparison: Comparison) -> str:
    levels = (f"{said} {_number(effect.baseline, '.3f')}" for said, effect in _effects(comparison).items())
    return f"{BASELINE} {', '.join(levels)}"


def _added(comparison: Comparison) -> str:
    return f"{comparison.candidate.variant} {', '.join(map(_shown, _effects(comparison).values()))}"


def _shown(effect: Effect) -> str:
    ends = "" if effect.interval is None else f" [{effect.interval.low:+.3f}, {effect.interval.high:+.3f}]"
    return _number(effect.estimate, "+.3f") + ends


def _number(value: float | None, form: str) -> str:
    return "unknown" if value is None else format(value, form)


def main() -> None:
    lines = []
    for name in SETS:
        asked = read_set(name)
        if asked is None:
            lines.append(f"{name}: skipped, the data is not on this machine")
            continue
        with tempfile.TemporaryDirectory() as scratch:
            lines.append(f"{name}: {compare_ways(Path(scratch), asked)}")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
