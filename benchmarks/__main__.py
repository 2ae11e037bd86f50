"""`make bench`: the promises, measured side by side in one run; `python -m benchmarks NAME...` for some."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import tempfile
import tracemalloc
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from benchmarks.banking import DATA, write_banking_project
from benchmarks.measure import ROOT, Spent, alternating, line, llmops, model_server, ratio_of, worker
from benchmarks.peers import PEERS, Peer, installed
from benchmarks.projects import EXACT, write_project
from llmops.definitions.dataset import DatasetDefinition, read_cases


def startup(_: Path) -> None:
    """CPU of `--help` and of `check` on the example project."""
    for arguments, promise in ((("--help",), "at most 0.3 s"), (("check",), "at most 0.6 s")):
        best = min(llmops(*arguments, cwd=ROOT).cpu_s for _ in range(5))
        line(f"CPU of llmops {' '.join(arguments)}", f"{best:.3f} s", promise)


def first_result(scratch: Path) -> None:
    """The example, from nothing to the result on the screen."""
    seconds, cpu = [], []
    for turn in range(3):
        root = scratch / f"first{turn}"
        for name in ("prompts", "chains", "datasets", "experiments"):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "llmops.yaml", root)
        spent = llmops("run", "support_tickets", "--no-sync", cwd=root)
        seconds.append(spent.wall_s)
        cpu.append(spent.cpu_s)
    line(
        "first run of the example, start to result",
        f"{min(seconds):.2f} s ({min(cpu):.2f} s CPU)",
        "under 3 s",
    )


def throughput(scratch: Path) -> None:
    """Cells a second, once all is going, of our run engine and our client against bare loops."""
    for delay_ms, promise in ((0, ""), (50, "at least 0.95")):
        ours, bare = _more(scratch / f"64-{delay_ms}", delay_ms, 64, (1000, 5000), "ours", "bare")
        line(f"throughput over a bare loop, {delay_ms} ms, 64 in flight", _rate(ours, bare), promise)
    ours, bare, sdk, aiohttp = _more(scratch / "256", 50, 256, (1000, 6000), "ours", "bare", "sdk", "aiohttp")
    line("our client over bare aiohttp, 50 ms, 256 in flight", _rate(bare, aiohttp), "at least 0.9")
    line("  our run engine over bare aiohttp", _rate(ours, aiohttp), "")
    line("  the openai SDK over bare aiohttp", _rate(sdk, aiohttp), "")


def _more(
    scratch: Path, delay_ms: int, concurrency: int, sizes: tuple[int, int], *modes: str
) -> list[list[float]]:
    """Return, three times in turn, the seconds that each mode took from the smaller size to the larger.

    So start and end do not count; the whole command has a figure of its own.
    """
    made = iter(range(100))
    with model_server(delay_ms) as url:
        os.environ["BENCH_URL"] = url

        def seconds(mode: str, n: int) -> float:
            where = url
            if mode == "ours":
                root = scratch / str(next(made))
                where = str(write_project(root, cases=n, concurrency=concurrency, evaluators=EXACT))
            return float(worker(mode, str(n), str(concurrency), where)["wall_s"])

        def more(mode: str) -> float:
            return -seconds(mode, sizes[0]) + seconds(mode, sizes[1])

        return alternating(3, *(partial(more, mode) for mode in modes))


def _rate(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Return our rate over theirs."""
    return str(ratio_of(theirs, ours))


def thousand_cells(scratch: Path) -> None:
    """CPU of one more 1,000 cells, all in, and the whole command against the bare loop."""
    with model_server(0) as url:
        os.environ["BENCH_URL"] = url
        made = iter(range(100))

        def more(mode: str) -> float:
            """CPU of 5,000 cells less that of 1,000, for each 1,000."""
            took: dict[int, float] = {}
            for n in (1000, 5000):
                where = url
                if mode == "ours":
                    root = scratch / f"cells{next(made)}"
                    where = str(write_project(root, cases=n, evaluators=EXACT))
                took[n] = worker(mode, str(n), "64", where)["cpu_s"]
            return (took[5000] - took[1000]) / 4

        found = alternating(5, *(partial(more, mode) for mode in ("ours", "bare", "sdk", "aiohttp")))
        ours, *alone = (f"{statistics.median(values):.2f} s" for values in found)
        line("CPU of one more 1,000 cells, all in (median of 5)", ours, "at most 0.5 s")
        line("  over bare aiohttp", str(ratio_of(found[0], found[3])), "")
        line("  our client alone; the openai SDK alone; bare aiohttp", "; ".join(alone), "")
    with model_server(50) as url:
        os.environ["BENCH_URL"] = url
        turn = iter(range(100))

        def command() -> float:
            root = write_project(scratch / f"whole{next(turn)}", cases=1000, concurrency=32)
            return llmops("run", "bench", "--no-sync", cwd=root).wall_s

        spent = alternating(5, lambda: {"process_s": command()}, partial(_bare_loop, url))
        commands, scripts = ([each["process_s"] for each in values] for values in spent)
        loops = [each["wall_s"] for each in spent[1]]
        what = "1,000 cells, 50 ms, 32 in flight"
        line(f"whole command over the bare loop, {what}", str(ratio_of(commands, loops)), "at most 1.3")
        line("  over a script with that loop, from start to end", str(ratio_of(commands, scripts)), "")


def _bare_loop(url: str) -> dict[str, float]:
    """Return what 1,000 calls took through our client alone, 32 in flight."""
    return worker("bare", "1000", "32", url)


def peers(scratch: Path) -> None:
    """Other tools on the same work, where they are installed."""
    found = installed()
    for name in PEERS:
        if name in found:
            _beside(scratch / name, name, found[name])
        else:
            line(name, "skipped: its command is not on the PATH", "")


def _beside(scratch: Path, name: str, peer: Peer) -> None:
    made = iter(range(100))

    def run(n: int, concurrency: int, url: str) -> Spent:
        root = scratch / str(next(made))
        root.mkdir(parents=True)
        return peer(root, n, concurrency, url)

    with model_server(0) as url:
        some, more = run(100, 64, url).cpu_s, run(600, 64, url).cpu_s
    line(f"{name}: CPU of one more 1,000 cells", f"{2 * (more - some):.1f} s", "")
    with model_server(50) as url:
        os.environ["BENCH_URL"] = url
        spent = alternating(2, lambda: run(1000, 32, url).wall_s, lambda: _bare_loop(url)["wall_s"])
    line("  whole command over the bare loop", str(ratio_of(*spent)), "")


def rerun(scratch: Path) -> None:
    """An unchanged re-run of 10,000 cells."""
    root = write_project(scratch / "rerun", cases=10_000, embedded=True)
    llmops("run", "bench", "--no-sync", cwd=root)
    spent = min((llmops("run", "bench", "--no-sync", cwd=root) for _ in range(3)), key=lambda s: s.wall_s)
    assert "0 calls" in spent.output, spent.output
    line("unchanged re-run, 10,000 cells", f"{spent.wall_s:.2f} s ({spent.cpu_s:.2f} s CPU)", "under 3 s")


def recording(scratch: Path) -> None:
    """10,000 cells with three scores each into a fresh MLflow store."""
    root = write_project(scratch / "recording", cases=10_000, embedded=True)
    llmops("run", "bench", "--no-sync", cwd=root)
    spent = llmops("sync", cwd=root)
    line("MLflow: 10,000 cells x 3 scores", f"{spent.wall_s:.1f} s ({spent.cpu_s:.1f} s CPU)", "under 30 s")


def memory(scratch: Path) -> None:
    """Peak memory from 1,000 to 100,000 cells."""
    peaks = {}
    for cells in (1_000, 10_000, 100_000):
        root = write_project(scratch / f"memory{cells}", cases=cells, embedded=True)
        peaks[cells] = worker("ours", "0", "0", str(root))["peak_mb"]
    line(
        "memory at 1,000; 10,000; 100,000 cells",
        "; ".join(f"{peak:.0f} MB" for peak in peaks.values()),
        "",
    )
    # From 10,000 on: below, batches that stay as large as they are have yet to fill.
    growth = (peaks[100_000] - peaks[10_000]) / 9
    line("  growth a 10,000 cells", f"{growth:.1f} MB", "at most 1 MB")
    definition = DatasetDefinition(inputs={"text": "string"}, expected={"type": "string"})
    data = (scratch / "memory100000/datasets/bench.jsonl").open("rb")
    tracemalloc.start()
    with data:
        dataset = read_cases("bench", data, "bench.jsonl", definition)
    held = tracemalloc.get_traced_memory()[0] / 1e6
    tracemalloc.stop()
    line("  of which a dataset holds, a 10,000 cases", f"{held * 1e4 / len(dataset.cases):.2f} MB", "")


def banking(scratch: Path) -> None:
    """5,000 real queries in 77 classes on `embedded`, and the same again."""
    if not DATA.is_dir():
        line("BANKING77, 5,000 cases", "skipped: the data is not on this machine", "")
        return
    root = write_banking_project(scratch)
    spent = llmops("run", "banking", "--no-sync", "--json", cwd=root)
    run = json.loads(spent.output[spent.output.index("{") :])
    found = run["summary"]["nearest-10"]["exact_match"]
    ends = found["interval"]
    line(
        "BANKING77, 5,000 cases, 10 nearest, embedded: accuracy",
        f"{found['value']:.3f} [{ends['low']:.3f}, {ends['high']:.3f}], n {found['n']}",
        "",
    )
    line("  cells a second; peak memory", f"{found['n'] / run['wall_s']:.0f}; {spent.peak_mb:.0f} MB", "")
    again = llmops("run", "banking", "--no-sync", cwd=root)
    assert "0 calls" in again.output, again.output
    line(
        "  the same unchanged again", f"0 calls, {again.wall_s:.2f} s ({again.cpu_s:.2f} s CPU)", "under 3 s"
    )


PARTS: dict[str, Callable[[Path], None]] = {
    "startup": startup,
    "first": first_result,
    "throughput": throughput,
    "cells": thousand_cells,
    "peers": peers,
    "rerun": rerun,
    "recording": recording,
    "memory": memory,
    "banking": banking,
}


def main() -> None:
    """Measure the parts named on the command line, or all."""
    chosen = sys.argv[1:] or list(PARTS)
    unknown = [name for name in chosen if name not in PARTS]
    if unknown:
        raise SystemExit(f"no part is called {unknown[0]!r}; there are: {', '.join(PARTS)}")
    line("figure", "measured", "promise")
    for name in chosen:
        with tempfile.TemporaryDirectory() as scratch:
            PARTS[name](Path(scratch))


if __name__ == "__main__":
    main()
