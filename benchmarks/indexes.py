"""Indexes: what 100,000 passages take to build, to keep and to ask. What is found: `benchmarks.retrieval`.

`python -m benchmarks.indexes [--passages N]`. Texts are made of the sentences of a public set where it is there, else
of drawn words, so that the words of a language are as frequent as they are. Times are seconds of CPU: the machine is
shared.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import line
from benchmarks.retrieval import PASSAGES, WAYS, index_of, read_set
from llmops.definitions.workspace import load_workspace
from llmops.indexes import OpenIndex, Query, open_index

N_PASSAGES = 100_000
ASKED = 200


def built(root: Path, way: str) -> tuple[OpenIndex, float]:
    """Return an index over the rows and the seconds of CPU that building it took, reading included."""
    index = root / "chains/indexes/docs.index.yaml"
    index.parent.mkdir(parents=True, exist_ok=True)
    (root / "llmops.yaml").touch()
    index.write_text(index_of(way), encoding="utf-8")
    started = time.process_time()
    found = open_index(load_workspace(root), "docs")
    return found, time.process_time() - started


def write_rows(root: Path, rows: Iterable[dict[str, Any]]) -> None:
    with (root / PASSAGES).open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def size_and_speed(scratch: Path, n: int) -> None:
    """Building, size on the disk and queries a second of each way at n passages, and a rebuild after one edit."""
    drawn = random.Random(7)
    words = [f"word{place}" for place in range(20_000)]
    weights = [1 / (place + 1) for place in range(len(words))]
    public = read_set("rag_xquad_en")
    texts = public.passages.values() if public else ()
    sentences = [sentence for text in texts for sentence in text.split(". ")]
    sentences = sentences or [" ".join(drawn.choices(words, weights, k=20)) for _ in range(2_000)]
    rows = [
        {"id": f"r{place}", "text": f"{'. '.join(drawn.choices(sentences, k=4))} number{drawn.randrange(n)}"}
        for place in range(n)
    ]
    questions = [question.text for question in public.questions] if public else sentences
    asked = drawn.sample(questions, ASKED)
    line(
        f"{n:,} passages of {sum(len(row['text']) for row in rows) / n:.0f} characters: build; size; queries",
        "",
        "",
    )
    for place, way in enumerate(WAYS):
        root = scratch / f"size{place}"
        root.mkdir()
        write_rows(root, rows)
        index, took_s = built(root, way)
        folder = next((root / ".llmops/indexes").iterdir())
        size_mb = sum(path.stat().st_size for path in folder.rglob("*")) / 1e6
        line(f"  {way}", f"{took_s:.1f} s CPU; {size_mb:.0f} MB; {speed(index, asked)}", "")
        write_rows(root, [*rows[:-1], {**rows[-1], "text": "an edited passage"}])
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=int, default=N_PASSAGES)
    chosen = parser.parse_args()
    line("figure", "measured", "promise")
    with tempfile.TemporaryDirectory() as scratch:
        size_and_speed(Path(scratch), chosen.passages)


if __name__ == "__main__":
    main()
