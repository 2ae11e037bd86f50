"""A run as Markdown, for the note of its MLflow run: the same sentences, tables and cases as on a terminal.

Whoever renders it may fetch images, follow links and notify people; nothing that others wrote makes it do so.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Sequence

from llmops.records import Comparison, Run
from llmops.report.cases import Gallery, Source, run_galleries
from llmops.report.grids import Grid, run_grids
from llmops.report.sentences import run_caveats, run_facts, run_headlines

_SPECIAL = re.compile(r"([\\`*_\[\]<>~|!$])")
_START = re.compile(r"^(\d*)([.)#+=/-])")
NOTE_LIMIT = 8_000
"""Characters of an MLflow tag, which the note is; more would be cut off without a word."""

_LONGEST_LINE = 300
_APART = "\u200b"
"""Between the two halves of what would become a mention, a reference or a link; shows as nothing."""

_ALIVE = re.compile(
    r"@(?=[\w<])|#(?=\d)|\bGH-(?=\d)|:(?=//)|\bwww(?=\.)"  # GitHub, and GFM's links without brackets
    r"|\b(?:mailto|xmpp)(?=:)"
    r"|[!%&~$](?=[\d\"])|~(?=\w)",  # GitLab's references, which it finds after backslashes are gone
    re.IGNORECASE,
)


def run_markdown(run: Run, comparisons: Sequence[Comparison], rows: Source) -> str:
    """Return a run as Markdown, at most `NOTE_LIMIT` characters; the arguments are those of `run_text`."""
    blocks = [f"**{escape(sentence.text)}**" for sentence in run_headlines(run, comparisons)]
    blocks += [paragraph(sentence.text) for sentence in run_caveats(run)]
    blocks.append(paragraph(run_facts(run)))
    blocks += [table(grid) for grid in run_grids(run, comparisons)]
    blocks += [
        f"**{escape(gallery.title)}**\n\n{fence(_lines(gallery))}"
        for gallery in run_galleries(run, comparisons, rows)
    ]
    forms = ([block] for block in blocks)
    return joined(forms, f"The rest: `llmops report {run.id}`", NOTE_LIMIT)


def joined(blocks: Iterable[Iterable[str]], rest: str, limit: int) -> str:
    """Return the blocks that fit into `limit` characters, whole, and where one does not, `rest` in its place.

    blocks: the forms that each may take, longest first; shorter ones are asked for only where a longer does not fit.
    """
    left = limit - size(rest) - 4
    kept = []
    for forms in blocks:
        fitting = next((form for form in forms if size(form) + 2 <= left), None)
        if fitting is None:
            kept.append(rest)
            break
        kept.append(fitting)
        left -= size(fitting) + 2
    return "\n\n".join(kept) + "\n"


def size(text: str) -> int:
    """Return the characters of a text as the strictest service counts them: those beyond U+FFFF are two."""
    return len(text) + sum(character > "\uffff" for character in text)


def table(grid: Grid) -> str:
    """Return a table with its title above and its notes below."""
    align = ["---" if place < grid.n_names else "---:" for place in range(len(grid.header))]
    lines = [_line(map(escape, grid.header)), _line(align)]
    lines += [_line(map(escape, row)) for row in grid.rows]
    notes = [paragraph(note) for note in grid.notes]
    return "\n\n".join([f"**{escape(grid.title)}**", "\n".join(lines), *notes])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def escape(text: str) -> str:
    """Return one line of text that Markdown shows as it is: no markup, HTML, link, mention or reference."""
    return _SPECIAL.sub(r"\\\1", _dead(text).replace("&", "&amp;"))


def paragraph(text: str) -> str:
    """Return one line of text as a paragraph: its start makes no heading or list, nor a quick action of GitLab."""
    return _START.sub(r"\1\\\2", escape(text))


def html_text(text: str) -> str:
    """Return one line of text for inside of an HTML tag in Markdown, where backslashes escape nothing."""
    return html.escape(_dead(text))


def _dead(text: str) -> str:
    return _ALIVE.sub(lambda found: found[0] + _APART, text)


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
