"""Indexes: what 100,000 passages take to build, to keep and to ask; and how good what is found is on public questions.

`python -m benchmarks.indexes [--passages N]`. Texts are made of the sentences of a public set where it is there, else
of drawn words, so that the words of a language are as frequent as they are. Quality is on questions whose passage is
known: recall in the first 4, and nDCG in the first 10, with a bootstrap interval over questions. Times are seconds of
CPU: the machine is shared.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import ROOT, line
from llmops.definitions.workspace import load_workspace
from llmops.indexes import OpenIndex, Query, open_index

DATA = ROOT.parent / "shared" / "data"
PASSAGES = 100_000
ASKED = 200
SETS = {"rag_xquad_en": "XQuAD", "rag_clapnq": "CLAP NQ"}
WAYS = {
    "BM25": "store: fts",
    "TF-IDF": "store: vectors\nembedder: tfidf",
    "hashing": "store: vectors\nembedder: hashing",
    "hashing, in LanceDB": "store: lancedb\nembedder: hashing",
    "BM25 and TF-IDF fused": "store: fused\nembedder: tfidf",
    "BM25 and hashing fused": "store: fused\nembedder: hashing",
}


def built(root: Path, way: str) -> tuple[OpenIndex, float]:
    """Return an index over rows.jsonl and the seconds of CPU that building it took, reading included."""
    index = root / "chains/indexes/docs.index.yaml"
    index.parent.mkdir(parents=True, exist_ok=True)
    (root / "llmops.yaml").touch()
    index.write_text(
        f"sources: [{{files: rows.jsonl}}]\nchunker: {{by: document}}\n{WAYS[way]}\n", encoding="utf-8"
    )
    started = time.process_time()
    found = open_index(load_workspace(root), "docs")
    return found, time.process_time() - started


def write_rows(root: Path, rows: Iterator[dict[str, Any]]) -> None:
    with (root / "rows.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def read(name: str, file: str) -> list[dict[str, Any]]:
    path = DATA / name / file
    return (
        [json.loads(row) for row in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
    )


def size_and_speed(scratch: Path, n: int) -> None:
    """Building, size on the disk and queries a second of each way at n passages, and a rebuild after one edit."""
    drawn = random.Random(7)
    words = [f"word{place}" for place in range(20_000)]
    weights = [1 / (place + 1) for place in range(len(words))]
    texts = [each["text"] for each in read("rag_xquad_en", "documents.jsonl")]
    sentences = [sentence for text in texts for sentence in text.split(". ")]
    sentences = sentences or [" ".join(drawn.choices(words, weights, k=20)) for _ in range(2_000)]
    rows = [
        {"id": f"r{place}", "text": f"{'. '.join(drawn.choices(sentences, k=4))} number{drawn.randrange(n)}"}
        for place in range(n)
    ]
    questions = [each["inputs"]["question"] for each in read("rag_xquad_en", "questions.jsonl")] or sentences
    asked = drawn.sample(questions, ASKED)
    line(
        f"{n:,} passages of {sum(len(row['text']) for row in rows) / n:.0f} characters: build; size; queries",
        "",
        "",
    )
    for place, way in enumerate(WAYS):
        root = scratch / f"size{place}"
        root.mkdir()
        write_rows(root, iter(rows))
        index, took_s = built(root, way)
        folder = next((root / ".llmops/indexes").iterdir())
        size_mb = sum(path.stat().st_size for path in folder.rglob("*")) / 1e6
        line(f"  {way}", f"{took_s:.1f} s CPU; {size_mb:.0f} MB; {speed(index, asked)}", "")
        write_rows(root, iter([*rows[:-1], {**rows[-1], "text": "an edited passage"}]))
        line("    after one edit", f"{built(root, way)[1]:.1f} s CPU", "")


def speed(index: OpenIndex, asked: Sequence[str]) -> str:
    took = []
    for query in asked:
        started = time.process_time()
        index.find(Query(query), 4, {})
        took.append((time.process_time() - started) * 1000)
    took.sort()
    rate, median, slow = 1000 * len(took) / sum(took), took[len(took) // 2], took[len(took) * 95 // 100]
    return f"{rate:.0f} a second of CPU, median {median:.1f} ms, p95 {slow:.1f} ms"


def questions_of(name: str) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """Return the rows of a set, and its questions with the id of the passage that answers each."""
    if name == "rag_xquad_en":
        asked = [
            (each["inputs"]["question"], each["inputs"]["doc_id"]) for each in read(name, "questions.jsonl")
        ]
        return [{"id": row["id"], "text": row["text"]} for row in read(name, "documents.jsonl")], asked
    rows: dict[str, dict[str, Any]] = {}
    pairs = []
    for case in read(name, "dev.jsonl"):
        for passage in case["inputs"]["context"]:
            row = {"id": f"p{len(rows)}", "text": f"{passage.get('title', '')}\n{passage['text']}"}
            pairs.append((case["inputs"]["question"], str(rows.setdefault(row["text"], row)["id"])))
    return list(rows.values()), pairs


def quality(scratch: Path) -> None:
    """Recall and nDCG of each way on each public set."""
    for name, title in SETS.items():
        rows, asked = questions_of(name)
        if not rows:
            line(f"{title}: recall@4; nDCG@10", "skipped: the data is not on this machine", "")
            continue
        line(f"{title}: {len(rows):,} passages, {len(asked):,} questions: recall@4; nDCG@10", "", "")
        for place, way in enumerate(WAYS):
            root = scratch / f"{name}{place}"
            root.mkdir()
            write_rows(root, iter(rows))
            index, _ = built(root, way)
            ranks = [rank_of(index, question, gold) for question, gold in asked]
            recall = [float(rank is not None and rank < 4) for rank in ranks]
            gain = [0.0 if rank is None else 1 / math.log2(rank + 2) for rank in ranks]
            line(f"  {way}", f"{interval(recall)}; {interval(gain)}", "")


def rank_of(index: OpenIndex, question: str, gold: str) -> int | None:
    """Return at which place, from 0, the passage stands; None below the first ten."""
    found = [passage.id for passage, _ in index.find(Query(question), 10, {})]
    return found.index(gold) if gold in found else None


def interval(values: Sequence[float]) -> str:
    import numpy as np

    scores = np.asarray(values)
    drawn = np.random.default_rng(7).integers(0, len(scores), (1000, len(scores)))
    low, high = np.quantile(scores[drawn].mean(axis=1), [0.025, 0.975])
    return f"{scores.mean():.3f} [{low:.3f}, {high:.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, default=PASSAGES)
    chosen = parser.parse_args()
    line("figure", "measured", "promise")
    with tempfile.TemporaryDirectory() as scratch:
        quality(Path(scratch))
        size_and_speed(Path(scratch), chosen.passages)


if __name__ == "__main__":
    main()
