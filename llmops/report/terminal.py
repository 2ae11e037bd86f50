"""A run or a comparison as text for a terminal: what there is to say, then tables, then cases to look at.

Lays out what `sentences`, `grids` and `cases` give; colour repeats what words already say.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from io import StringIO
from typing import TYPE_CHECKING

from llmops.records import Comparison, Run, Verdict
from llmops.report import texts
from llmops.report.cases import Gallery, Source, flipped_cases, run_galleries
from llmops.report.grids import Grid, comparison_grids, run_grids
from llmops.report.sentences import (
    Sentence,
    comparison_caveats,
    comparison_headline,
    run_caveats,
    run_facts,
    run_headlines,
)
from llmops.report.verdict_texts import (
    changes,
    gates_grid,
    gravest_first,
    ungated_grid,
    verdict_caveats,
    verdict_facts,
    verdict_headline,
    verdict_where,
)

if TYPE_CHECKING:
    from rich.console import Console

    from llmops.compare.changes import Changes

_STYLES = {"good": "bold green", "bad": "bold red", "open": "bold yellow", "plain": "bold"}
_WORDS = {
    "better": "green",
    "worse": "red",
    texts.UNKNOWN: "yellow",
    "pass": "green",
    "fail": "red",
    "inconclusive": "yellow",
}
_SIGNS = {"+": "green", "-": "red", "@": "dim"}
_LONGEST_LABEL = 14
MOST_LINES = 42
"""Lines of a diff that are shown, names included."""


def run_text(
    run: Run,
    comparisons: Sequence[Comparison],
    rows: Source,
    *,
    width: int = 80,
    colour: bool = False,
    ascii_only: bool = False,
) -> str:
    """Return all that a person wants to know of a run first, without a line break at its end.

    comparisons: of its candidates with their baseline; without any, the lowest scores are shown instead.
    rows: read for the few cases that are shown. ascii_only: escapes for every other character.
    """
    page = Page(width, colour=colour, ascii_only=ascii_only)
    for sentence in (*run_headlines(run, comparisons), *run_caveats(run)):
        page.add_sentence(sentence)
    page.add_line(run_facts(run), "dim")
    for grid in run_grids(run, comparisons):
        page.add_grid(grid)
    page.add_galleries(run_galleries(run, comparisons, rows))
    return page.text()


def comparison_text(
    comparison: Comparison,
    rows: Source,
    changes: Changes | None = None,
    *,
    width: int = 80,
    colour: bool = False,
    ascii_only: bool = False,
) -> str:
    """Return all there is to say of one comparison, flipped cases before tables; the rest is as in `run_text`.

    changes: what differs between the sides.
    """
    sides = (comparison.baseline, comparison.candidate)
    runs = {run_id: run for run_id in (side.run_id for side in sides) if (run := rows.find_run(run_id))}
    evaluators = list(dict.fromkeys(judge.name for run in runs.values() for judge in run.evaluators))
    page = Page(width, colour=colour, ascii_only=ascii_only)
    page.add_sentence(comparison_headline(comparison, evaluators))
    caveats = [sentence for run in runs.values() for sentence in run_caveats(run)]
    caveats += comparison_caveats(comparison, list(runs.values()))
    for sentence in dict.fromkeys(caveats):
        page.add_sentence(sentence)
    for run in runs.values():
        page.add_line(run_facts(run), "dim")
    if changes is not None:
        page.add_changes(changes)
    page.add_galleries(flipped_cases(comparison, evaluators, rows))
    for grid in comparison_grids(comparison):
        page.add_grid(grid)
    return page.text()


def verdict_text(
    verdict: Verdict,
    rows: Source | None,
    *,
    width: int = 80,
    colour: bool = False,
    ascii_only: bool = False,
) -> str:
    """Return a verdict, its gates and the cases that changed; the rest is as in `run_text`.

    rows: None shows no cases.
    """
    page = Page(width, colour=colour, ascii_only=ascii_only)
    for sentence in (verdict_headline(verdict), *verdict_caveats(verdict)):
        page.add_sentence(sentence)
    for line in filter(None, (verdict_facts(verdict), verdict_where(verdict))):
        page.add_line(line, "dim")
    for candidate in gravest_first(verdict):
        page.add_grid(gates_grid(candidate))
        comparison = changes(verdict, candidate)
        if comparison is not None and rows is not None:
            metrics = [effect.metric for effect in comparison.effects]
            page.add_galleries(flipped_cases(comparison, metrics, rows))
    for candidate in gravest_first(verdict):
        page.add_grid(ungated_grid(candidate))
    return page.text()


class Page:
    """Lines of a given width, filled from the top."""

    def __init__(self, width: int, *, colour: bool, ascii_only: bool) -> None:
        self._file = StringIO()
        self._width = width
        self._ascii_only = ascii_only
        self._console = _open_console(self._file, width, colour=colour)

    def text(self) -> str:
        """Return what stands on the page."""
        lines = "\n".join(line.rstrip() for line in self._file.getvalue().splitlines())
        return texts.without_commands(lines)  # a name that wraps may begin a line with its middle

    def add_line(self, line: str, style: str = "") -> None:
        """Add a text, wrapped at words."""
        from rich.text import Text

        self._console.print(Text(self._clean(line), style=style))

    def add_sentence(self, sentence: Sentence) -> None:
        """Add one of the first things to say."""
        self.add_line(sentence.text, _STYLES[sentence.tone])

    def add_grid(self, grid: Grid) -> None:
        """Add a table under its title; where there is no room, columns go first, then names wrap."""
        if not grid.rows:
            return
        from rich.table import Table
        from rich.text import Text

        grid, gap = self._layout(grid)
        table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="dim")
        for place, title in enumerate(grid.header):
            if place < grid.n_names:
                table.add_column(title, overflow="fold")
            else:
                table.add_column(title, justify="right" if title else "left", no_wrap=True, overflow="crop")
        for row in grid.rows:
            table.add_row(*(Text(self._clean(cell), style=_WORDS.get(cell, "")) for cell in row))
        self.add_line("")
        self.add_line(grid.title, "bold")
        self._console.print(table)
        for note in grid.notes:
            self.add_line(note, "dim")

    def has_room(self, grid: Grid) -> bool:
        """Say whether a table fits without a column going or a name wrapping."""
        return self._fits(grid, 1)

    def _layout(self, grid: Grid) -> tuple[Grid, int]:
        """Return the table and the gap between its columns: the widest that fits, else the narrowest."""
        layouts = [(table, gap) for table in (grid, grid.narrowed()) for gap in (2, 1)]
        return next((layout for layout in layouts if self._fits(*layout)), layouts[-1])

    def _fits(self, grid: Grid, gap: int) -> bool:
        from rich.cells import cell_len

        columns = zip(grid.header, *grid.rows, strict=True)
        widths = [max(cell_len(self._clean(cell)) for cell in column) for column in columns]
        return sum(widths) + gap * (len(widths) - 1) <= self._width

    def add_changes(self, changes: Changes) -> None:
        """Add what was changed: settings, then each prompt as a diff, the first lines of it."""
        if changes.settings:
            self.add_line("")
            self.add_line("Settings", "bold")
        for setting in changes.settings:
            self.add_line(texts.one_line(setting))
        for change in changes.prompts:
            self.add_line("")
            self.add_line(f"{texts.one_line(change.before)} -> {texts.one_line(change.after)}", "bold")
            if change.note:
                self.add_line(texts.one_line(change.note), "dim")
            for line in change.lines[2:MOST_LINES]:  # the first two are the names again
                shown = _diff_line(line)  # what only stands around a change need not be whole
                self.add_line(
                    self._cut(shown, self._width) if shown[:1] == " " else shown, _SIGNS.get(line[:1], "")
                )
            if len(change.lines) > MOST_LINES:
                self.add_line(f"{len(change.lines) - MOST_LINES:,} more lines", "dim")

    def add_galleries(self, galleries: Iterable[Gallery]) -> None:
        """Add cases, one line for each thing to know of one."""
        for gallery in galleries:
            self.add_line("")
            self.add_line(gallery.title, "bold")
            for case in gallery.cases:
                self.add_line(self._cut(case.heading, self._width))
                for label, text in case.lines:
                    self._add_labelled(label, text)

    def _add_labelled(self, label: str, text: str) -> None:
        from rich.cells import set_cell_size

        head = f"  {set_cell_size(self._cut(label, _LONGEST_LABEL), _LONGEST_LABEL)}  "
        self.add_line(head + self._cut(text, self._width - len(head)))

    def _clean(self, text: str) -> str:
        return texts.ascii_text(text) if self._ascii_only else text

    def _cut(self, text: str, width: int) -> str:
        from rich.cells import cell_len, set_cell_size

        text = self._clean(text)
        return text if cell_len(text) <= width else set_cell_size(text, width - 3).rstrip() + "..."


def _diff_line(line: str) -> str:
    """Return a line of a diff as one printable line that keeps its sign and how far it is set in."""
    sign, text = line[:1], line[1:].replace("\t", "    ")
    return f"{sign}{text[: len(text) - len(text.lstrip(' '))]}{texts.one_line(text)}"


def _open_console(file: StringIO, width: int, *, colour: bool) -> Console:
    """Return a console that knows its width and asks the environment nothing."""
    from rich.console import Console

    return Console(
        file=file,
        width=width,
        height=25,
        color_system="standard" if colour else None,
        force_terminal=colour,
        force_jupyter=False,
        legacy_windows=False,
        markup=False,
        emoji=False,
        highlight=False,
        _environ={},
    )
