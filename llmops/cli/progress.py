"""How far a run has come: a bar on a terminal, a plain line now and then everywhere else."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from llmops.cli.session import say

if TYPE_CHECKING:
    from llmops.call.carrying import Progress

LINE_EVERY_S = 10.0


@contextmanager
def showing_progress(
    title: str, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[Progress], None]]:
    """Give a function that shows progress on standard error until the block ends."""
    if sys.stderr.isatty() and os.environ.get("TERM") not in {None, "", "dumb", "unknown"}:
        with _bar(title) as show:
            yield show
    else:
        yield _lines(title, clock)


@contextmanager
def _bar(title: str) -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[more]}"),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None, more="")

        def show(progress: Progress) -> None:
            bar.update(task, completed=progress.n_done, total=progress.n_total, more=_more(progress))

        yield show


def _lines(title: str, clock: Callable[[], float]) -> Callable[[Progress], None]:
    last = clock()

    def show(progress: Progress) -> None:
        nonlocal last
        now = clock()
        if now - last >= LINE_EVERY_S:
            last = now
            more = _more(progress)
            say(f"{title}: {progress.n_done} of {progress.n_total} cells" + (f", {more}" if more else ""))

    return show


def _more(progress: Progress) -> str:
    parts = [f"{progress.n_calls} calls"] if progress.n_calls else []
    parts += [f"{progress.cost_usd:.4f} USD"] if progress.cost_usd else []
    parts += [f"{progress.n_errors} errors"] if progress.n_errors else []
    return ", ".join(parts)
