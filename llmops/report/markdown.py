"""A run as Markdown, for the note of its MLflow run: the same sentences, tables and cases as on a terminal.

Whoever renders it may fetch images, follow links and notify people; nothing that others wrote makes it do so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from llmops.records import Comparison, Run
from llmops.report.cases import Gallery, Source, run_galleries
from llmops.report.grids import Grid, run_grids
from llmops.report.sentences import run_caveats, run_facts, run_headlines

_SPECIAL = re.compile(r"([\\`*_\[\]<>~|!$])")
NOTE_LIMIT = 8_000
"""Characters of an MLflow tag, which the note is; more would be cut off without a word."""

_LONGEST_LINE = 300
_APART = "\u200b"
"""Between the two halves of what would become a mention, a reference or a link; shows as nothing."""

_ALIVE = re.compile(r"@(?=\w)|#(?=\d)|\bGH-(?=\d)|:(?=//)|\bwww(?=\.)", re.IGNORECASE)


def run_markdown(run: Run, comparisons: Sequence[Comparison], rows: Source) -> str:
    """Return a run as Markdown, at most `NOTE_LIMIT` characters; the arguments are those of `run_text`."""
    blocks = [f"**{escape(sentence.text)}**" for sentence in run_headlines(run, comparisons)]
    blocks += [escape(sentence.text) for sentence in run_caveats(run)]
    blocks.append(escape(run_facts(run)))
    blocks += [table(grid) for grid in run_grids(run, comparisons)]
    blocks += [
        f"**{escape(gallery.title)}**\n\n{fence(_lines(gallery))}"
        for gallery in run_galleries(run, comparisons, rows)
    ]
    return "\n\n".join(_fitting(blocks, f"The rest: `llmops report {run.id}`")) + "\n"


def _fitting(blocks: Sequence[str], rest: str) -> Iterator[str]:
    """Yield the blocks that fit, whole, and where one does not, `rest` in its place."""
    left = NOTE_LIMIT - len(rest) - 4
    for block in blocks:
        left -= len(block) + 2
        if left < 0:
            yield rest
            return
        yield block


def table(grid: Grid) -> str:
    """Return a table with its title above and its notes below."""
    align = ["---" if place < grid.n_names else "---:" for place in range(len(grid.header))]
    lines = [_line(map(escape, grid.header)), _line(align)]
    lines += [_line(map(escape, row)) for row in grid.rows]
    notes = [escape(note) for note in grid.notes]
    return "\n\n".join([f"**{escape(grid.title)}**", "\n".join(lines), *notes])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def escape(text: str) -> str:
    """Return one line of text that Markdown shows as it is: no markup, HTML, link, mention or reference."""
    text = _ALIVE.sub(lambda found: found[0] + _APART, text.replace("&", "&amp;"))
    return _SPECIAL.sub(r"\\\1", text)


def fence(lines: Iterable[str]) -> str:
    """Return lines as a block of code, in a fence longer than any run of backticks inside."""
    inside = "\n".join(lines)
    longest = max(map(len, re.findall("`+", inside)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}text\n{inside}\n{ticks}"


def _lines(gallery: Gallery) -> Iterator[str]:
    for case in gallery.cases:
        yield case.heading
        for label, text in case.lines:
            shown = text if len(text) <= _LONGEST_LINE else f"{text[: _LONGEST_LINE - 3]}..."
            yield f"  {label}: {shown}"
